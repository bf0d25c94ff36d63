"""The settings of an `AuthorizationServer`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from httpx_reauth._clock import SYSTEM_CLOCK, Clock
from httpx_reauth._state.arguments import check, check_function
from httpx_reauth.testing._assertions import PublicKey
from httpx_reauth.testing._clients import CLIENT_AUTHS, ClientAuth
from httpx_reauth.testing._messages import Answer, Received
from httpx_reauth.testing.faults import Fault

Access = Literal["checked", "refused", "open"]

_NONE = type(None)
_FUNCTIONS = {  # the settings that are functions, and their calls
    "access_token_of": "access_token_of(request)",
    "edit_authorization_answer": "edit_authorization_answer(params)",
    "edit_metadata": "edit_metadata(fields)",
    "edit_token_answer": "edit_token_answer(fields)",
    "resource": "resource(request)",
    "subject_tokens": "subject_tokens(token, type)",
}


def bearer_token(request: Received) -> str | None:
    """Return the access token in `Authorization: Bearer` (RFC 6750 §2.1). The API uses this function by default."""
    return request.bearer_token


@dataclass(kw_only=True, eq=False, repr=False)
class Settings:
    """The constructor takes all these settings. A test can change them at any time.

    A value of the wrong kind raises a `TypeError` or a `ValueError` immediately. Otherwise the next request would fail,
    and on a socket the client would only see a lost connection.

    Attributes:
        lifetime: how long an access token lives, in seconds (`expires_in`), by `clock`. A fraction such as 0.5 works.
            None: it never expires, and the response has no `expires_in`.
        rotate: every refresh returns a new refresh token, and the old one is used up. If a used one is sent again, all
            refresh and access tokens of the family are revoked (RFC 9700 §4.14.2). If false, the refresh token stays
            valid, and the response does not contain it (RFC 6749 §6).
        revoke_previous: a refresh revokes the older access tokens of the family when it takes effect.
        clients: id and secret (None: a public client) of each client that may request tokens. None: no client has to
            authenticate.
        client_keys: the public key of each client that signs instead of sending a secret (`private_key_jwt`): PEM or a
            JWK, by client id. Such a client need not be in `clients`.
        client_auth: the methods with which a client may authenticate (RFC 7591 section 2): `client_secret_basic`,
            `client_secret_post`, `client_secret_jwt`, `private_key_jwt`, `none`.
        trusted_issuers: the public key of each `iss` whose assertions are accepted (RFC 7523 section 2.1) and whose
            JWTs may be exchanged (RFC 8693): PEM or a JWK. None: anything that looks like a JWT is accepted without a
            check.
        subject_tokens: a function that decides whether a token may be exchanged (RFC 8693). It gets the token and the
            URN of its type. None: the server's own access and refresh tokens may be exchanged, and JWTs according to
            `trusted_issuers`. For a chain over two servers: `subject_tokens=lambda token, kind: other.is_good(token)`.
        targets: every `audience` and `resource` that may be requested. Others get `invalid_target`. None: any.
        consent: whether the person at the browser agrees.
        access: `"checked"`: the API needs a valid access token; `"refused"`: it refuses every request, with any token;
            `"open"`: it serves every request.
        refusal: the API's response to a request without a valid token, in place of the 401 of RFC 6750 §3. It may have
            a different status, or be a 200 whose body says it.
        resource: a function that makes the API's response to an accepted request, in place of an echo. It gets the
            request and returns the fields of a JSON object or an `Answer`. It must not block. With `access="open"` it
            can be a login, or a different kind of token endpoint.
        access_token_of: a function that finds the access token in a request, for example in a different header or in a
            cookie. By default, it is in `Authorization: Bearer`.
        edit_token_answer: a function that gets the fields of each successful token response and returns the fields to
            send. It can change `expires_in` to a string, or remove a field. It may also return an `Answer`, with a
            different status or with a form instead of JSON.
        scopes: the `scopes_supported` of the document; None: the document has no such field.
        device_lifetime: how long a device code lives, in seconds.
        device_interval: how long a device must wait between two polls, in seconds. If it polls earlier, it gets
            `slow_down`.
        edit_metadata: a function that gets the fields of the server's document and returns the fields to send, or an
            `Answer`.
        edit_authorization_answer: a function that gets the parameters of the redirect to the client (`code`, `state`,
            `iss`, or `error`) and returns the parameters to send. It can change the `state` or remove the `iss`.
        issuer_path: the path of the issuer, e.g. `/realms/a`. The issuer is the origin of the request and this path.
        metadata_path: the path of the document; None: the path of RFC 8414 section 3.1. Every other path with
            `/.well-known/` in it gets a 404.
        token_path: the path of the token endpoint. This path, the next three paths and the path of the document belong
            to the authorization server. Every other path belongs to the API.
        authorization_path: the path where a person signs in with a browser (RFC 6749 section 4.1, RFC 7636).
        device_path: the path where a device gets its code (RFC 8628).
        revocation_path: the path where a token is revoked (RFC 7009).
        clock: the clock for the end of tokens; use a `ManualClock` in tests that must not wait.
        keep_requests: whether to keep the received requests in `requests`; set it to False for long benchmarks.
    """

    lifetime: float | None = 3600.0
    rotate: bool = True
    revoke_previous: bool = False
    clients: Mapping[str, str | None] | None = None
    client_keys: Mapping[str, PublicKey] | None = None
    client_auth: Collection[ClientAuth] = CLIENT_AUTHS
    trusted_issuers: Mapping[str, PublicKey] | None = None
    subject_tokens: Callable[[str, str], bool] | None = None
    targets: Collection[str] | None = None
    consent: bool = True
    access: Access = "checked"
    refusal: Answer | None = None
    resource: Callable[[Received], Mapping[str, Any] | Answer] | None = None
    access_token_of: Callable[[Received], str | None] = bearer_token
    edit_token_answer: Callable[[dict[str, Any]], Mapping[str, Any] | Answer] | None = None
    scopes: Collection[str] | None = None
    device_lifetime: float = 600.0
    device_interval: float = 5.0
    edit_metadata: Callable[[dict[str, Any]], Mapping[str, Any] | Answer] | None = None
    edit_authorization_answer: Callable[[dict[str, str]], Mapping[str, str]] | None = None
    issuer_path: str = ""
    metadata_path: str | None = None
    token_path: str = "/token"
    authorization_path: str = "/authorize"
    device_path: str = "/device_authorization"
    revocation_path: str = "/revoke"
    clock: Clock = SYSTEM_CLOCK
    keep_requests: bool = True

    def __setattr__(self, name: str, value: object) -> None:
        if name in _FUNCTIONS:
            if value is not None:
                check_function(name, value, _FUNCTIONS[name])
        elif name == "refusal":
            instead = "faults.reply(...).answer" if isinstance(value, Fault) else "Answer(419)"
            check(name, value, (_NONE, Answer), "an Answer", f"Write refusal={instead}.")
        elif name == "clients":
            check(name, value, (_NONE, Mapping), "a mapping of ids to secrets", 'Write clients={"app": "secret"}.')
        elif name == "access" and value not in get_args(Access):
            raise ValueError(f"access must be one of {', '.join(get_args(Access))}.")
        elif name == "clock":
            check(name, value, Clock, "a Clock, something with monotonic() and time()")
        object.__setattr__(self, name, value)
