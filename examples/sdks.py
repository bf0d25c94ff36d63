"""SDKs that take an httpx or httpx2 client: OpenAI's and Anthropic's, with a company's gateway that needs OAuth.

Give the SDK a client with `auth=`. Then the SDK's own key is never sent. OpenAI's SDK takes a client of httpx or httpx2
(its annotations name only httpx2). Anthropic's SDK takes only a client of httpx2. The async SDKs take an `AsyncClient`.
Both auth objects of this program share one store, so they share one token.

The SDKs handle our errors like this (openai 3.54 and anthropic 2.12):

- OpenAI's SDK does not catch a `SignInRequired`. For a `RefreshError`, which is a transport error, it tries again
twice, and then raises its `APIConnectionError` from it. - Anthropic's SDK tries again twice after both errors, and then
raises its `APIConnectionError` from them.

`reauth_error` finds our error. These attempts are cheap: a dead refresh token is not sent twice, and a failing token
endpoint gets a request only when the back-off allows it. But the SDKs wait between their attempts. With
`max_retries=0`, they do not try again.

Run it: `python examples/sdks.py`, after `pip install openai anthropic`. It starts a replacement for the gateway.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anthropic
import httpx
import httpx2
import openai

import httpx_reauth.httpx2
from httpx_reauth import Reauth, ReauthError, TokenStore
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.testing import AuthorizationServer, Received


def reauth_error(error: BaseException | None) -> ReauthError | None:
    """Return our error that caused an SDK's error, or None if the cause was a different one."""
    while error is not None and not isinstance(error, ReauthError):
        error = error.__cause__
    return error


def models(_: Received) -> dict[str, object]:
    """Return the gateway's response, in a form that both SDKs can read."""
    model = {"id": "stand-in-1", "object": "model", "type": "model", "created": 1, "owned_by": "gateway"}
    return {"object": "list", "data": [model], "has_more": False}


def attempt(name: str, ask: Callable[[], object]) -> None:
    """Print the result of one request."""
    try:
        print(f"{name}: {ask()}")
    except Exception as error:  # noqa: BLE001 - this program shows every kind of error
        ours = reauth_error(error)
        is_ours = "as it is" if ours is error else f"raised as {type(error).__name__}"
        print(f"{name}: {type(ours).__name__}, {is_ours}")


def main() -> None:
    """Show both SDKs with a valid token, with a revoked token, and when the user must sign in again."""
    logging.getLogger("httpx_reauth").addHandler(logging.NullHandler())
    gateway = AuthorizationServer(resource=models)
    with gateway.serve() as url:
        grant = RefreshTokenGrant(f"{url}/token", "my-app")
        store = TokenStore(gateway.issue(access_token=False))
        with (
            httpx.Client(auth=Reauth(grant, store=store, origins=[url])) as for_openai,
            httpx2.Client(auth=httpx_reauth.httpx2.Reauth(grant, store=store, origins=[url])) as for_anthropic,
        ):
            chat = openai.OpenAI(base_url=f"{url}/v1", api_key="not used", http_client=for_openai)  # type: ignore[arg-type]
            claude = anthropic.Anthropic(base_url=url, auth_token="not used", http_client=for_anthropic)

            def each() -> None:
                attempt("openai", lambda: chat.models.list().data[0].id)
                attempt("anthropic", lambda: claude.models.list().data[0].id)
                print(f"token requests: {gateway.token_requests}")

            each()
            gateway.revoke_access_tokens()
            each()
            gateway.revoke_access_tokens()
            gateway.revoke_refresh_tokens()
            each()
        sent = set(gateway.authorizations("/v1/models"))
        print(f"keys that were sent: {sum('not used' in (header or '') for header in sent)}")


if __name__ == "__main__":
    main()
