"""What can be set about an `AuthorizationServer`."""

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
_FUNCTIONS = {  # the settings that are functions, and how they are called
    "access_token_of": "access_token_of(request)",
    "edit_authorization_answer": "edit_authorization_answer(params)",
    "edit_metadata": "edit_metadata(fields)",
    "edit_token_answer": "edit_token_answer(fields)",
    "resource": "resource(request)",
    "subject_tokens": "subject_tokens(token, type)",
}


def bearer_token(request: Received) -> str | None:
    """Where the API looks for the access token by default: `Authorization: Bearer` (RFC 6750 §2.1)."""
    return request.bearer_token


@dataclass(kw_only=True, eq=False, repr=False)
class Settings:
    """Everything here may be given to the constructor, and changed at any time.

    Both raise a `TypeError` or a `ValueError` for a value of the wrong kind: a request would meet it too late, and on a
    socket it would only see a lost connection.

    Attributes:
        lifetime: how long an access token lives, in seconds (`expires_in`); None: for ever, and `expires_in` is
            left out of the answer. By `clock`; 0.5 works.
        rotate: every refresh brings a new refresh token and uses up the old one. A used one, presented again,
            revokes the whole family: refresh and access tokens (RFC 9700 §4.14.2). If false, the refresh token stays
            and is left out of the answer (RFC 6749 §6).
        revoke_previous: a refresh ends the family's older access tokens in the moment it is committed.
        clients: id and secret (None: a public client) of each client that may ask for tokens; without it, nobody
            has to authenticate.
        client_keys: the public key of each client that signs instead of saying a secret (`private_key_jwt`): PEM or a
            JWK, by client id. Such a client need not stand in `clients`.
        client_auth: the methods a client may authenticate with (RFC 7591 section 2): `client_secret_basic`,
            `client_secret_post`, `client_secret_jwt`, `private_key_jwt`, `none`.
        trusted_issuers: the public key of each `iss` whose assertions bring a token (RFC 7523 section 2.1) and whose
            JWTs may be exchanged (RFC 8693): PEM or a JWK. None: anything that looks like a JWT, unchecked.
        subject_tokens: decides whether a token may be exchanged (RFC 8693): gets it and the URN of its type. Without
            it: this server's own access and refresh tokens, and JWTs as `trusted_issuers` has it. A chain over two
            servers: `subject_tokens=lambda token, kind: other.is_good(token)`.
        targets: every `audience` and `resource` that may be asked for; others are an `invalid_target`. None: any.
        consent: what the person at the browser says when asked to let the client in.
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
        scopes: what the document lists as `scopes_supported`; None: nothing.
        device_lifetime: how long a device code lives, in seconds.
        device_interval: how long a device must wait between two looks, in seconds; earlier is `slow_down`.
        edit_metadata: gets the fields of the server's document and returns those to send, or an `Answer`.
        edit_authorization_answer: gets the parameters with which a browser is sent back (`code`, `state`, `iss`, or
            `error`) and returns those to send: a wrong `state`, no `iss`.
        issuer_path: the path of the issuer, e.g. `/realms/a`; the issuer is that behind the origin of the request.
        metadata_path: where the document is; None: where RFC 8414 section 3.1 puts it. Every other path with
            `/.well-known/` in it is a 404.
        token_path: the path of the token endpoint. It, the next three and the document's are the authorization
            server; every other path is the API.
        authorization_path: where a browser is sent to sign in (RFC 6749 section 4.1, RFC 7636).
        device_path: where a device gets its code (RFC 8628).
        revocation_path: where a token is revoked (RFC 7009).
        clock: by what tokens expire; a `ManualClock` in tests that must not wait.
        keep_requests: whether to keep what was received in `requests`; off for long benchmarks.
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
