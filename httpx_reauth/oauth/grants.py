"""The two grants that need no person at a keyboard: client credentials and the refresh token."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import KW_ONLY, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast, get_args

from httpx_reauth._errors import SignInRequired
from httpx_reauth._token import Token, Unpicklable
from httpx_reauth._tokens._refresh.worker import current_clock
from httpx_reauth.oauth.client_auth import (
    BasicEncoding,
    BasicMemory,
    ClientAuth,
    ClientIdentity,
    ClientSecretJWT,
    Secret,
    TLSClientAuth,
    check_client_auth,
    check_function,
    check_text,
    checked_seconds,
)
from httpx_reauth.oauth.frames import hides_settings
from httpx_reauth.oauth.grant import Grant
from httpx_reauth.oauth.http import AnyClient, package_of
from httpx_reauth.oauth.issuer import Issuer, ServerMetadata, choose_client_auth
from httpx_reauth.oauth.request import (
    FormFields,
    MetadataRequest,
    TokenRequest,
    check_token_url,
    text_of,
    without_query,
)
from httpx_reauth.oauth.response import Dead, token_fields, unusable

if TYPE_CHECKING:
    from httpx_reauth._request.packages import URL

    TokenURL: TypeAlias = str | URL | Issuer
else:
    TokenURL = Any

Flow: TypeAlias = Generator[TokenRequest | MetadataRequest, Any, Token]

_WITH_SECRET = (None, "client_secret_basic", "client_secret_post")
_ENCODINGS = get_args(BasicEncoding)
_OWN_FIELDS = frozenset({"grant_type", "refresh_token", "client_id", "client_secret", "scope", "resource"})


@dataclass(frozen=True, repr=False)
class ClientGrant(Unpicklable, Grant):
    """The settings that all grants share. Each grant documents them, and adds its flow."""

    _needs_client: ClassVar[bool] = True  # if False, `client_id` may be None: other fields name the caller
    _own_fields: ClassVar[frozenset[str]] = _OWN_FIELDS  # fields of the form that the grant sets, so `extra` must not

    token_url: TokenURL
    client_id: str | None
    client_secret: Secret = None
    _: KW_ONLY
    client_auth: ClientAuth | None = None
    basic_encoding: BasicEncoding = "auto"
    scope: str | Sequence[str] | None = None
    resource: str | Sequence[str] | None = None
    extra: FormFields = field(default_factory=lambda: MappingProxyType({}), hash=False)
    timeout: float = 5.0
    client: AnyClient | None = None
    allow_http: bool = False
    revocation_url: str | None = None
    _memory: BasicMemory = field(default_factory=BasicMemory, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(cast("object", self.allow_http), bool):  # the string "false" would count as True
            raise TypeError(f"allow_http must be True or False, not {type(self.allow_http).__name__}.")
        if isinstance(self.token_url, Issuer):
            self.token_url.check(allow_http=self.allow_http)
        else:
            object.__setattr__(self, "token_url", text_of(self.token_url))
            check_token_url(cast("str", self.token_url), allow_http=self.allow_http)
        if self.revocation_url is not None:
            check_token_url(self.revocation_url, allow_http=self.allow_http, what="revocation_url")
        self._check_client()
        checked_seconds("timeout", self.timeout)
        if self.client is not None:
            package_of(self.client)
        scope = strings("scope", self.scope)
        object.__setattr__(self, "scope", " ".join(scope) or None)
        object.__setattr__(self, "resource", strings("resource", self.resource) or None)
        object.__setattr__(self, "extra", MappingProxyType(self._checked_extra()))

    def _check_client(self) -> None:
        if self.client_auth is not None:
            check_client_auth(self.client_auth)
        if self.basic_encoding not in _ENCODINGS:
            raise ValueError(f"basic_encoding must be one of {', '.join(_ENCODINGS)}.")
        if self.client_id is not None or self._needs_client:
            self._check_named_client()
        elif self.client_secret is not None or self.client_auth not in (None, "none"):
            raise ValueError(
                "The client is to prove who it is (client_secret or client_auth), and there is no client_id that says "
                "so. Give client_id=, or leave out the others."
            )

    def _check_named_client(self) -> None:
        if not self.client_id:
            raise ValueError("client_id is empty. Was an environment variable not set?")
        if not isinstance(cast("object", self.client_id), str):
            raise TypeError(f"client_id must be a string, not {type(self.client_id).__name__}.")
        check_text("client_id", self.client_id)
        if isinstance(self.client_secret, str):
            check_text("client_secret", self.client_secret)
        elif self.client_secret is not None:
            check_function("client_secret", self.client_secret, "a string or a function that returns one")
        if self.client_auth == "client_secret_post" and self.client_secret is None:
            raise ValueError("client_secret_post sends a client_secret, and there is none. Pass it, or leave out both.")
        if self.client_auth not in _WITH_SECRET and self.client_secret:
            raise ValueError(
                f"client_auth={self.client_auth!r} would not send the client_secret. Leave out one of them, or say "
                'client_auth="client_secret_basic".'
            )

    def _checked_extra(self) -> dict[str, str | tuple[str, ...]]:
        if not isinstance(cast("object", self.extra), Mapping):
            raise TypeError(f"extra must be a mapping of form fields, not {type(self.extra).__name__}.")
        taken = sorted(self._own_fields.intersection(self.extra))
        if self.extra.get("client_id") == self.client_id:
            taken = [name for name in taken if name != "client_id"]  # some servers want it in addition to Basic
        if taken:
            raise ValueError(f"extra must not hold {', '.join(taken)}: the grant sends that itself, from its settings.")
        return {
            name: value if isinstance(value, str) else strings(f"extra[{name!r}]", (value,) if value is None else value)
            for name, value in cast("Mapping[str, object]", self.extra).items()
        }

    def ask(self, form: FormFields) -> Generator[TokenRequest | MetadataRequest, Any, Any]:
        """Yield the requests to find the token endpoint, then a token request with `form`; return its response."""
        return (yield self.request(form, (yield from self.server())))

    def server(self) -> Generator[TokenRequest | MetadataRequest, Any, ServerMetadata]:
        """Return what is known of the server. Yields the requests for the metadata document, if the server has one."""
        if isinstance(self.token_url, Issuer):
            return (yield from self.token_url.discover(allow_http=self.allow_http, clock=current_clock()))
        return ServerMetadata(token_endpoint=cast("str", self.token_url))

    @property
    def can_revoke(self) -> bool:
        """Is a revocation endpoint set, or an `Issuer` that may have one?"""
        return self.revocation_url is not None or isinstance(self.token_url, Issuer)

    def revoke(self, token: Token) -> None:
        """Revoke `token` at the server (RFC 7009): its refresh token, or its access token if it has no refresh token.

        Raises:
            RefreshError: the server did not revoke the token.
        """
        from httpx_reauth.oauth.revocation import Revocation

        Revocation(self)(token)

    def request(self, form: FormFields, server: ServerMetadata) -> TokenRequest:
        """Return a token request to `server` with the fields of `form` and those that the settings add."""
        data = {**self.extra, **form}
        if self.scope:
            data["scope"] = cast("str", self.scope)
        if self.resource:
            data["resource"] = self.resource  # several resources repeat the field (RFC 8707 section 2)
        url = server.endpoint("token_endpoint", mtls=isinstance(self.client_auth, TLSClientAuth))
        identity = ClientIdentity(
            self.client_id,
            self._method_for(server),
            self.client_secret,
            basic_encoding=self.basic_encoding,
            issuer=server.name,
            token_endpoint=url,
            memory=self._memory,
        )
        return TokenRequest(url, data, client_auth=identity)

    def _method_for(self, server: ServerMetadata) -> ClientAuth:
        if self.client_auth is not None:
            return self.client_auth
        method = choose_client_auth(server, has_secret=self.client_secret is not None)
        if method == "client_secret_jwt" and self.client_secret is not None:
            return ClientSecretJWT(self.client_secret)
        return cast("ClientAuth", method)

    def __repr__(self) -> str:
        """The settings, without the secret, the `extra` fields and the query of the URL."""
        url = self.token_url
        where = repr(url) if isinstance(url, Issuer) else repr(without_query(cast("str", url)))
        return (
            f"{type(self).__name__}({where}, {self.client_id!r}, "
            f"client_auth={self.client_auth!r}, scope={self.scope!r}, resource={self.resource!r}, "
            f"timeout={self.timeout!r})"
        )


def strings(name: str, value: object) -> tuple[str, ...]:
    """Return the strings of `value`, the setting `name`: a string, several strings, or None.

    Raises:
        TypeError: `value` is something else, or one of its elements is not a string.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,) if value else ()
    what = f"{name} must be a string or a list of strings"
    if not isinstance(value, (Sequence, AbstractSet)) or isinstance(value, (bytes, bytearray)):
        raise TypeError(f"{what}, not {type(value).__name__}.")
    several = tuple(cast("Iterable[object]", value))
    for one in several:
        if not isinstance(one, str):
            raise TypeError(f"{what}; one of them is {type(one).__name__}. Was an environment variable not set?")
    return cast("tuple[str, ...]", several)


@hides_settings
@dataclass(frozen=True, repr=False)
class ClientCredentialsGrant(ClientGrant):
    """Gets a token for the program itself; no person is signed in (RFC 6749 §4.4).

    A second request does no harm. So the request is repeated after any transient failure: a timeout, a dropped
    connection, a 5xx, a 429.

    Args:
        token_url: the URL of the token endpoint, https; on loopback, plain http is allowed.
        client_id: the client's name at the server.
        client_secret: the client's password. For Basic, it is form-encoded first, as RFC 6749 §2.3.1 requires.
        client_auth: `client_secret_basic` (a header), `client_secret_post` (fields of the form), or `none`. With
            `none`, the client sends only its id, e.g. because `client` presents a TLS certificate (RFC 8705).
        scope: the scopes to request, e.g. `"read write"` or `["read", "write"]`. None: the server's default.
        resource: the APIs for which the token is, one URI or several (RFC 8707).
        extra: further fields of the form, e.g. `{"audience": "https://api.example.com"}`.
        timeout: seconds for one whole token request. All its attempts together end within twice that time.
        client: an `httpx.Client` with your proxy and TLS. Its headers and hooks are used, its `auth` is not. The grant
            does not close it. None: a new client for each refresh.
        allow_http: secrets may also be sent over plain http to another machine.

    Raises:
        ValueError: the settings do not fit together; the message says which.
        InsecureOrigin: `token_url` is plain http on another machine, and `allow_http` is not set.

    Example:
        grant = ClientCredentialsGrant("https://id.example.com/token", "reports", secret, scope="read")
        auth = Reauth(grant)
    """

    client_id: str

    repeatable = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.client_secret and self.client_auth in _WITH_SECRET:
            given = "there is none" if self.client_secret is None else "it is an empty string"
            raise ValueError(
                f"The client-credentials grant needs a client_secret (RFC 6749 section 4.4), and {given}. "
                "Was an environment variable not set? With a key or a certificate in its place, say "
                "client_auth=PrivateKeyJWT(...) or TLSClientAuth(); if the id alone is enough, client_auth='none'."
            )

    def flow(self, token: Token, /) -> Flow:  # noqa: ARG002 - `Grant` has this argument
        """Request a token. `token`, the last one, is not used."""
        return Token.from_response((yield from self.ask({"grant_type": "client_credentials"})))


@hides_settings
@dataclass(frozen=True, repr=False)
class RefreshTokenGrant(ClientGrant):
    """Gets the next token with the refresh token of the last one (RFC 6749 §6).

    A server that rotates refresh tokens accepts each of them once. So the request is repeated only if the server cannot
    have processed it: the connection was refused, or the status was 429 or 503.

    Args:
        token_url: the URL of the token endpoint, https; on loopback, plain http is allowed.
        client_id: the client's name at the server.
        client_secret: the client's password. None for a public client (an app, a command line): it sends only its id,
            and you need not set `client_auth`. An empty string is a password, too.
        client_auth: `client_secret_basic` (a header), `client_secret_post` (fields of the form) or `none`.
        scope: the scopes to request, at most those that were granted (RFC 6749 §6). None: the same scopes again.
        resource: the APIs for which the token is, one URI or several (RFC 8707).
        extra: further fields of the form.
        timeout: seconds for one whole token request. All its attempts together end within twice that time.
        client: an `httpx.Client` with your proxy and TLS. Its headers and hooks are used, its `auth` is not. The grant
            does not close it. None: a new client for each refresh.
        allow_http: secrets may also be sent over plain http to another machine.
        dead: the server's own error codes for a refresh token that it does not accept any more, e.g.
            `{"session_gone"}`. Or a function that gets the response and returns True for such a response.

    Raises:
        ValueError: the settings do not fit together; the message says which.
        TypeError: a setting is of a wrong type.
        InsecureOrigin: `token_url` is plain http on another machine, and `allow_http` is not set.

    Example:
        grant = RefreshTokenGrant("https://id.example.com/token", "my-app")
        auth = Reauth(grant, token=Token(refresh_token="..."))
    """

    client_id: str
    dead: Dead = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if callable(self.dead):
            check_function("dead", self.dead, "a set of codes or a function of the answer")
        else:
            object.__setattr__(self, "dead", frozenset(strings("dead", self.dead)))

    def flow(self, token: Token, /) -> Flow:
        """Send the refresh token of the last token.

        Raises:
            SignInRequired: the last token has no refresh token. Nothing was sent.
        """
        if not token.refresh_token:
            raise SignInRequired("There is no refresh token to renew the access token with. Sign in first.")
        form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
        response = yield from self.ask(form)
        fields = token_fields(response, self.dead)
        try:
            return Token(**fields)
        except ValueError as error:
            raise unusable(error, response) from None
