"""An SDK that takes an httpx or httpx2 client: OpenAI's and Anthropic's, through a company's gateway that wants OAuth.

Give the SDK a client with `auth=`; the key that it asks for is then never sent. OpenAI's takes either package's client
(its annotations name httpx2's alone), Anthropic's httpx2's only. Their async clients take an `AsyncClient` likewise.
Both auth objects here share one store, and so one token.

What becomes of our errors, as seen with openai 3.54 and anthropic 2.12:

- OpenAI's SDK lets a `SignInRequired` through as it is. A `RefreshError` is a transport error to it: it tries again
  twice, then raises its `APIConnectionError` from it.
- Anthropic's tries again twice after either, then raises its `APIConnectionError` from it.

`reauth_error` finds ours again. Trying again is cheap: a dead refresh token is not posted twice, and a failing token
endpoint is asked as often as the back-off allows. Their waits add up, though: `max_retries=0` leaves that to you.

Run it: `python examples/sdks.py`, after `pip install openai anthropic`. It starts a stand-in for the gateway.
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
    """Our error behind whatever an SDK raised, or None if it was about something else."""
    while error is not None and not isinstance(error, ReauthError):
        error = error.__cause__
    return error


def models(_: Received) -> dict[str, object]:
    """What the gateway serves, in a shape that both SDKs read."""
    model = {"id": "stand-in-1", "object": "model", "type": "model", "created": 1, "owned_by": "gateway"}
    return {"object": "list", "data": [model], "has_more": False}


def attempt(name: str, ask: Callable[[], object]) -> None:
    """Print what comes of one request."""
    try:
        print(f"{name}: {ask()}")
    except Exception as error:  # noqa: BLE001 - what it may be is the point
        ours = reauth_error(error)
        is_ours = "as it is" if ours is error else f"raised as {type(error).__name__}"
        print(f"{name}: {type(ours).__name__}, {is_ours}")


def main() -> None:
    """Both SDKs, with a good token, with one that the gateway has revoked, and when the user must sign in again."""
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
