"""Exchanges a token for another token (RFC 8693): on behalf of a user, or for a workload's identity.

1. The token that is exchanged is called the subject token. It is a string, the result of a function, or the access
   token of another `Reauth` (a chain). The actor token names the party that acts for the subject. It is given in the
   same three ways.
2. A function is called before each attempt, since its result may be valid for only one attempt. The other `Reauth` is
   called once, before the first attempt. It returns its access token, and renews it first if necessary.
3. If the server returns `invalid_request` or `invalid_grant`, the reason may be the subject token (RFC 8693 section
   2.2.2), although the other `Reauth` considers it valid. So the grant calls the other `Reauth` once more, with
   `rejected=`. If it returns a different token, the request is sent once more.
4. If nobody is signed in at the other `Reauth`, the exchange fails with `SignInRequired`. Each further request calls
   the other `Reauth` again, so the chain works as soon as somebody signs in there.
5. The issued token may be something else than an access token (type `N_A`): a refresh token, or an assertion for a
   third server. It is stored for `get_token` and for the next `Reauth` of a chain. It is put into a header only by
   `authorize=`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, TypeAlias, cast

from httpx_reauth._errors import ReauthError, SignInRequired, quoted
from httpx_reauth._token import Token
from httpx_reauth._tokens.source import TokenSource
from httpx_reauth.oauth.client_auth import call_function, check_function, check_text, sign_in_elsewhere
from httpx_reauth.oauth.frames import hides_settings
from httpx_reauth.oauth.grants import ClientGrant, Flow, strings
from httpx_reauth.oauth.issuer import ServerMetadata
from httpx_reauth.oauth.request import TokenRequest
from httpx_reauth.oauth.response import token_fields, unusable

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"

Shown: TypeAlias = "str | Callable[[], str] | TokenSource"

_TYPE = "urn:ietf:params:oauth:token-type:"
_TYPES = ("access_token", "refresh_token", "id_token", "jwt", "saml1", "saml2")  # RFC 8693 section 3
_MAY_BE_THE_SUBJECT = ("invalid_request", "invalid_grant")  # RFC 8693 has the first; servers also send the second
_OWN_FIELDS = frozenset({
    "subject_token",
    "subject_token_type",
    "actor_token",
    "actor_token_type",
    "audience",
    "requested_token_type",
})  # fmt: skip


@hides_settings
@dataclass(frozen=True, repr=False)
class TokenExchangeGrant(ClientGrant):
    """Exchanges a token for another token (RFC 8693).

    A second request does no harm, so the request is repeated after any transient failure. The `issued_token_type` of
    the response is in `token.extra`.

    Args:
        token_url: the URL of the token endpoint, https; on loopback, plain http is allowed. Or an `Issuer`.
        client_id: the client's name at the server, if the server wants one.
        client_secret: the client's password, if it has one.
        subject_token: the token to exchange. It is a string, a plain function, or another `Reauth`. A function, such as
            `FileIdentity(...)`, returns the token, and is called before each attempt. Another `Reauth` gives its access
            token, and renews it first if necessary. If the server refuses this token, the other `Reauth` renews it
            once. If its refresh is a coroutine, the coroutine runs on the event loop of the caller, if there is one.
        subject_token_type: the type of the subject token: `"access_token"`, `"refresh_token"`, `"id_token"`, `"jwt"`,
            `"saml1"`, `"saml2"`, or a URI (RFC 8693 section 3).
        actor_token: the token of the party that acts for the subject, given in the same three ways. None: the request
            names no actor.
        actor_token_type: the type of the actor token.
        audience: the service for which the token is, by its name at the server; one or several.
        requested_token_type: the type of token to issue, written like `subject_token_type`. None: the server decides.
        client_auth: the method of client authentication; as on every grant.
        scope: the scopes to request, e.g. `"read write"` or `["read", "write"]`. None: the server's default.
        resource: the APIs for which the token is, one URI or several.
        extra: further fields of the form.
        timeout: seconds for one whole token request. All its attempts together end within twice that time.
        client: an `httpx.Client` or `httpx2.Client` with your proxy and TLS. The grant does not close it. None: a new
            client for each refresh.
        allow_http: secrets may also be sent over plain http to another machine.

    Raises:
        ValueError: the settings do not fit together, or one is empty; the message says which.
        TypeError: a setting is of a wrong type.
        InsecureOrigin: `token_url` is plain http on another machine, and `allow_http` is not set.

    Example:
        mine = Reauth(RefreshTokenGrant(issuer, "app"), token=Token(refresh_token="..."))
        grant = TokenExchangeGrant(issuer, "app", secret, subject_token=mine, audience="orders")
        auth = Reauth(grant, origins=["https://orders.example.com"])
    """

    client_id: str | None = None
    _: KW_ONLY
    subject_token: Shown = field(kw_only=True, hash=False)
    subject_token_type: str = "access_token"
    actor_token: Shown | None = field(default=None, hash=False)
    actor_token_type: str = "access_token"
    audience: str | Sequence[str] | None = None
    requested_token_type: str | None = None

    repeatable = True
    _needs_client: ClassVar[bool] = False
    _own_fields: ClassVar[frozenset[str]] = ClientGrant._own_fields | _OWN_FIELDS

    def __post_init__(self) -> None:
        _check_shown("subject_token", self.subject_token)
        if self.actor_token is not None:
            _check_shown("actor_token", self.actor_token)
        _type_uri("subject_token_type", self.subject_token_type)
        _type_uri("actor_token_type", self.actor_token_type)
        if self.requested_token_type is not None:
            _type_uri("requested_token_type", self.requested_token_type)
        object.__setattr__(self, "audience", strings("audience", self.audience) or None)
        super().__post_init__()

    def flow(self, token: Token, /) -> Flow:  # noqa: ARG002 - `Grant` has this argument
        """Exchange the subject token. `token`, the last one, is not used."""
        server = yield from self.server()
        sent = {name: _token_of(name, source) for name, source in self._chained.items()}
        response = yield self._request(sent, server)
        refusal = _refusal_of_subject(response) if sent else None
        if refusal is not None:
            again = {name: _token_of(name, self._chained[name], one, refusal) for name, one in sent.items()}
            if any(again[name].access_token != one.access_token for name, one in sent.items()):
                response = yield self._request(again, server)
        fields = token_fields(response, may_be_no_access_token=True)
        try:
            return Token(**fields)
        except ValueError as error:
            raise unusable(error, response) from None

    @property
    def _shown(self) -> dict[str, Shown]:
        shown: dict[str, Shown] = {"subject_token": self.subject_token}
        return shown if self.actor_token is None else shown | {"actor_token": self.actor_token}

    @property
    def _chained(self) -> dict[str, TokenSource]:
        return {name: source for name, source in self._shown.items() if isinstance(source, TokenSource)}

    def _request(self, tokens: Mapping[str, Token], server: ServerMetadata) -> TokenRequest:
        form: dict[str, str | Sequence[str]] = {
            "grant_type": TOKEN_EXCHANGE,
            "subject_token_type": _type_uri("subject_token_type", self.subject_token_type),
        }
        if self.actor_token is not None:
            form["actor_token_type"] = _type_uri("actor_token_type", self.actor_token_type)
        if self.requested_token_type is not None:
            form["requested_token_type"] = _type_uri("requested_token_type", self.requested_token_type)
        if self.audience:
            form["audience"] = self.audience  # several audiences repeat the field (RFC 8693 section 2.1)
        functions: dict[str, Callable[[], str]] = {}
        for name, source in self._shown.items():
            if name in tokens:
                form[name] = tokens[name].access_token
            elif isinstance(source, str):
                form[name] = source
            else:
                functions[name] = cast("Callable[[], str]", source)
        request = self.request(form, server)
        return replace(request, per_attempt=partial(_call_each, functions)) if functions else request


def _check_shown(name: str, source: object) -> None:
    """Raise an error if `source` is not a token, a function or a `Reauth`.

    Raises:
        TypeError: `source` is of a wrong type; the message says what to write.
        ValueError: `source` is an empty string, or has a character that cannot be sent.
    """
    what = "a string, a function that returns one, or a Reauth"
    if isinstance(source, str):
        if not source:
            raise ValueError(f"{name} is empty. Was an environment variable not set?")
        check_text(name, source)
    elif isinstance(source, Token):
        raise TypeError(f"{name} must be {what}, not a Token. Write {name}=token.access_token.")
    elif hasattr(source, "flow"):
        raise TypeError(f"{name} must be {what}, not a grant. Write {name}=Reauth({type(source).__name__}(...)).")
    elif hasattr(source, "disconnect") and hasattr(source, "__getitem__"):
        raise TypeError(f"{name} must be {what}, not a pool. Take one person's: {name}=pool[key].")
    elif not isinstance(source, TokenSource):
        check_function(name, source, what)


def _type_uri(name: str, value: object) -> str:
    """Return the URI of a token type (RFC 8693 section 3). `value` is the URI, or its last word, e.g. `"jwt"`."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}.")
    if value in _TYPES:
        return f"{_TYPE}{value}"
    if ":" not in value:
        raise ValueError(f"{name} must be one of {', '.join(_TYPES)}, or a URI (RFC 8693 section 3).")
    check_text(name, value)
    return value


def _call_each(functions: Mapping[str, Callable[[], str]]) -> dict[str, str]:
    return {name: call_function(name, function) for name, function in functions.items()}


def _refusal_of_subject(response: Any) -> ReauthError | None:
    """Return the error in `response`, if the subject token or the actor token may be the reason for it."""
    try:
        token_fields(response, may_be_no_access_token=True)
    except ReauthError as error:
        if error.error in _MAY_BE_THE_SUBJECT and response.status_code < 500:
            return error
    return None


def _token_of(
    name: str, source: TokenSource, rejected: Token | None = None, refusal: ReauthError | None = None
) -> Token:
    """Return a token of `source` that is not `rejected`.

    Raises:
        SignInRequired: nobody is signed in at `source`. The next request calls `source` again.
        RefreshError: `source` cannot get a token now.
    """
    try:
        return source.get_token(rejected)
    except SignInRequired as error:
        what = f"Somebody has to sign in at the Reauth that is given as {name}"
        if refusal is None:
            what += ", so nothing was sent"
        else:
            what += f", since the server refused its token ({quoted(refusal.error, None)})"
        raise sign_in_elsewhere(what, error) from error
