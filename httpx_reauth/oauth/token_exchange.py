"""A token for another token (RFC 8693): on behalf of a user, or for a workload's identity.

1. What is exchanged, the subject token, is a string, a function, or the token of another `Reauth` (a chain). The same
   goes for the actor token, which says who acts for the subject.
2. A function is asked before each attempt, since what it returns may be good for one. A `Reauth` is asked before the
   first one: it gives its access token, renewed first if that is due.
3. If the server says `invalid_request` or `invalid_grant`, the subject token may be the reason (RFC 8693 section 2.2.2)
   though its `Reauth` takes it for good. So that is asked once more, with `rejected=`, and if it has another token, the
   request is made once more.
4. If nobody is signed in at that `Reauth`, there is nothing to exchange: `SignInRequired`. It is not final here. Each
   further request asks the other `Reauth` again, so that the chain works as soon as somebody signs in there.
5. What is issued may be no access token (`N_A`): a refresh token, or an assertion for a third server. It is kept, for
   `get_token` and for the next link of a chain. Nothing puts it into a header, unless `authorize=` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, TypeAlias, cast

from httpx_reauth._errors import ReauthError, SignInRequired, quoted
from httpx_reauth._token import Token
from httpx_reauth._tokens.source import TokenSource
from httpx_reauth.oauth.client_auth import ask_function, check_function, check_text, sign_in_elsewhere
from httpx_reauth.oauth.frames import hides_settings
from httpx_reauth.oauth.grants import ClientGrant, Flow, strings
from httpx_reauth.oauth.issuer import ServerMetadata
from httpx_reauth.oauth.request import TokenRequest
from httpx_reauth.oauth.response import token_fields, unusable

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"

Shown: TypeAlias = "str | Callable[[], str] | TokenSource"

_TYPE = "urn:ietf:params:oauth:token-type:"
_TYPES = ("access_token", "refresh_token", "id_token", "jwt", "saml1", "saml2")  # RFC 8693 section 3
_MAY_BE_THE_SUBJECT = ("invalid_request", "invalid_grant")  # the first is RFC 8693's, the second what servers say
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
    """A token for another token (RFC 8693).

    Nothing is lost by asking twice, so the request is repeated after any transient failure. The answer's
    `issued_token_type` is in `token.extra`.

    Args:
        token_url: the token endpoint, https; loopback may be plain http. Or an `Issuer`.
        client_id: the name under which the server knows this client, if it wants one.
        client_secret: its password, if it has one.
        subject_token: what is exchanged: a string; a plain function that returns one, such as `FileIdentity(...)`,
            which is asked before each attempt; or another `Reauth`, whose access token it is, renewed when that is due.
            Where the server refuses that token, the other `Reauth` renews it once. If its refresh is a coroutine, that
            runs on the event loop of the caller, if there is one.
        subject_token_type: what that is: `"access_token"`, `"refresh_token"`, `"id_token"`, `"jwt"`, `"saml1"`,
            `"saml2"`, or a URI (RFC 8693 section 3).
        actor_token: who acts for the subject, in the same three ways; None: nobody is named.
        actor_token_type: what that is.
        audience: the service for which the token is, by its name at the server; one or several.
        requested_token_type: what is to be issued, as `subject_token_type`; None: the server decides.
        client_auth: how the client proves who it is; as on every grant.
        scope: what to ask for, e.g. `"read write"` or `["read", "write"]`; None: the server's default.
        resource: where the token will be used, one URI or several.
        extra: further fields of the form.
        timeout: seconds for one token request as a whole; with all its repeats, twice that.
        client: an `httpx.Client` or `httpx2.Client` with your proxy and TLS. It is not closed. None: a new one for
            every refresh.
        allow_http: send secrets over plain http to another machine, too.

    Raises:
        ValueError: the settings do not fit together, or one is empty; the message says which.
        TypeError: a setting is of another type.
        InsecureOrigin: a plain-http `token_url` on another machine, without `allow_http`.

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

    def flow(self, token: Token, /) -> Flow:  # noqa: ARG002 - Grant's
        """Exchange the subject token; the last token plays no part."""
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
            form["audience"] = self.audience  # RFC 8693 section 2.1: repeated
        functions: dict[str, Callable[[], str]] = {}
        for name, source in self._shown.items():
            if name in tokens:
                form[name] = tokens[name].access_token
            elif isinstance(source, str):
                form[name] = source
            else:
                functions[name] = cast("Callable[[], str]", source)
        request = self.request(form, server)
        return replace(request, per_attempt=partial(_ask_each, functions)) if functions else request


def _check_shown(name: str, source: object) -> None:
    """Refuse what is no token, and nothing that gives one.

    Raises:
        TypeError, ValueError: the message says what to write.
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
    """The URI of a type of token (RFC 8693 section 3), which may be given by the last word of it."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}.")
    if value in _TYPES:
        return f"{_TYPE}{value}"
    if ":" not in value:
        raise ValueError(f"{name} must be one of {', '.join(_TYPES)}, or a URI (RFC 8693 section 3).")
    check_text(name, value)
    return value


def _ask_each(functions: Mapping[str, Callable[[], str]]) -> dict[str, str]:
    return {name: ask_function(name, function) for name, function in functions.items()}


def _refusal_of_subject(response: Any) -> ReauthError | None:
    """The server's refusal, if what was shown may be the reason."""
    try:
        token_fields(response, may_be_no_access_token=True)
    except ReauthError as error:
        if error.error in _MAY_BE_THE_SUBJECT and response.status_code < 500:
            return error
    return None


def _token_of(
    name: str, source: TokenSource, rejected: Token | None = None, refusal: ReauthError | None = None
) -> Token:
    """The token of `source`, another one than the `rejected`.

    Raises:
        SignInRequired: nobody is signed in there. It is not final here.
        RefreshError: it cannot be had now.
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
