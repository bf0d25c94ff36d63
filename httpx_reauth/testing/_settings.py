"""What can be set about an `AuthorizationServer`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from httpx_reauth._clock import SYSTEM_CLOCK, Clock
from httpx_reauth.testing._clients import CLIENT_AUTHS, ClientAuth
from httpx_reauth.testing._messages import Answer, Received

Access = Literal["checked", "refused", "open"]


def bearer_token(request: Received) -> str | None:
    """Where the API looks for the access token by default: `Authorization: Bearer` (RFC 6750 §2.1)."""
    return request.bearer_token


@dataclass(kw_only=True, eq=False, repr=False)
class Settings:
    """Everything here may be given to the constructor, and changed at any time.

    Attributes:
        lifetime: how long an access token lives, in seconds (`expires_in`); None: for ever, and `expires_in` is
            left out of the answer. By `clock`; 0.5 works.
        rotate: every refresh brings a new refresh token and uses up the old one. A used one, presented again,
            revokes the whole family: refresh and access tokens (RFC 9700 §4.14.2). If false, the refresh token stays
            and is left out of the answer (RFC 6749 §6).
        revoke_previous: a refresh ends the family's older access tokens in the moment it is committed.
        clients: id and secret (None: a public client) of each client that may ask for tokens; without it, nobody
            has to authenticate.
        client_auth: the methods a client may authenticate with (RFC 7591 §2): `client_secret_basic`,
            `client_secret_post`, `none`.
        access: `"checked"`: the API wants a good access token; `"refused"`: it refuses every request, whatever the
            token; `"open"`: it serves every request.
        refusal: what the API answers to a request without a good token, instead of the 401 of RFC 6750 §3: another
            status, or a 200 whose body says it.
        resource: what the API serves to a request that it lets in, instead of an echo: gets the request, returns the
            fields of a JSON object, or an `Answer`. It must not block. With `access="open"` it can be a login, or a
            token endpoint of another kind.
        access_token_of: finds the access token in a request, instead of in `Authorization: Bearer`: another header, a
            cookie.
        edit_token_answer: gets the fields of each successful token answer and returns those to send: `expires_in` as a
            string, a field removed, garbage. Or it returns an `Answer`: another status, a form instead of JSON.
        token_path: the path of the token endpoint; every other path is the API.
        clock: by what tokens expire; a `ManualClock` in tests that must not wait.
        keep_requests: whether to keep what was received in `requests`; off for long benchmarks.
    """

    lifetime: float | None = 3600.0
    rotate: bool = True
    revoke_previous: bool = False
    clients: Mapping[str, str | None] | None = None
    client_auth: Collection[ClientAuth] = CLIENT_AUTHS
    access: Access = "checked"
    refusal: Answer | None = None
    resource: Callable[[Received], Mapping[str, Any] | Answer] | None = None
    access_token_of: Callable[[Received], str | None] = bearer_token
    edit_token_answer: Callable[[dict[str, Any]], Mapping[str, Any] | Answer] | None = None
    token_path: str = "/token"
    clock: Clock = SYSTEM_CLOCK
    keep_requests: bool = True
