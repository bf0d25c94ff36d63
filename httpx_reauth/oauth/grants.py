"""The grants that need nobody at a keyboard: client credentials and the refresh token."""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from types import MappingProxyType
from typing import Literal, cast, get_args

import httpx

from httpx_reauth._errors import SignInRequired
from httpx_reauth._token import Discreet, Token
from httpx_reauth.oauth.grant import Grant
from httpx_reauth.oauth.request import FormFields, TokenRequest, check_token_url, without_query

ClientAuth = Literal["client_secret_basic", "client_secret_post", "none"]

_METHODS = get_args(ClientAuth)
_UNSENDABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # the last: bytes of the environment that are no UTF-8
_OWN_FIELDS = frozenset({"grant_type", "refresh_token", "client_id", "client_secret", "scope", "resource"})


@dataclass(frozen=True, slots=True, repr=False)
class ClientGrant(Discreet, Grant):
    """The settings that the grants share; each of them says what they mean, and adds its flow."""

    token_url: str
    client_id: str
    client_secret: str | None = None
    _: KW_ONLY
    client_auth: ClientAuth = "client_secret_basic"
    scope: str | Sequence[str] | None = None
    resource: str | Sequence[str] | None = None
    extra: FormFields = field(default_factory=lambda: MappingProxyType({}), hash=False)
    timeout: float = 5.0
    client: httpx.Client | None = None
    allow_http: bool = False

    def __post_init__(self) -> None:
        check_token_url(self.token_url, allow_http=self.allow_http)
        self._check_client()
        if isinstance(self.timeout, bool) or not 0 < self.timeout < math.inf:
            raise ValueError("timeout must be a number of seconds above 0.")
        if not isinstance(cast("object", self.client), (httpx.Client, type(None))):
            raise TypeError(
                "client must be an httpx.Client: a grant runs in a worker thread, for async clients as well, "
                "so it needs no httpx.AsyncClient."
            )
        taken = sorted(_OWN_FIELDS.intersection(self.extra))
        if taken:
            raise ValueError(f"extra must not hold {', '.join(taken)}: the grant sends that itself, from its settings.")
        scope = self.scope if isinstance(self.scope, str) else " ".join(self.scope or ())
        object.__setattr__(self, "scope", scope or None)
        resource = (self.resource,) if isinstance(self.resource, str) else tuple(self.resource or ())
        object.__setattr__(self, "resource", resource or None)
        object.__setattr__(self, "extra", MappingProxyType(dict(self.extra)))

    def _check_client(self) -> None:
        if self.client_auth not in _METHODS:
            raise ValueError(f"client_auth must be one of {', '.join(_METHODS)}.")
        if not self.client_id:
            raise ValueError("client_id is empty. Was an environment variable not set?")
        if _UNSENDABLE.search(self.client_id + (self.client_secret or "")):
            raise ValueError(
                "The client id or secret has a line break or another character that cannot be sent (RFC 6749 A.1, A.2)."
                " Was it read from a file without .strip()?"
            )
        if self.client_auth == "client_secret_post" and self.client_secret is None:
            raise ValueError("client_secret_post sends a client_secret, and there is none. Pass it, or leave out both.")
        if self.client_auth == "none" and self.client_secret:
            raise ValueError("client_auth='none' would not send the client_secret. Leave out one of them.")

    def request(self, form: FormFields, *, idempotent: bool) -> TokenRequest:
        """`form` with what the settings add to it, the client's authentication included (RFC 6749 §2.3.1)."""
        data = {**self.extra, **form}
        if self.scope:
            data["scope"] = self.scope
        if self.resource:
            data["resource"] = self.resource  # RFC 8707 §2: repeated
        if self.client_auth == "client_secret_basic" and self.client_secret is not None:
            basic = (self.client_id, self.client_secret)
            return TokenRequest(self.token_url, data, basic=basic, idempotent=idempotent)
        data["client_id"] = self.client_id
        if self.client_secret is not None and self.client_auth == "client_secret_post":
            data["client_secret"] = self.client_secret
        return TokenRequest(self.token_url, data, idempotent=idempotent)

    def __repr__(self) -> str:
        """The settings, but no secret, no further field and no query of the URL."""
        return (
            f"{type(self).__name__}({without_query(self.token_url)!r}, {self.client_id!r}, "
            f"client_auth={self.client_auth!r}, scope={self.scope!r}, resource={self.resource!r}, "
            f"timeout={self.timeout!r})"
        )


class ClientCredentialsGrant(ClientGrant):
    """A token for the program itself, with nobody signed in (RFC 6749 §4.4).

    Nothing is lost by asking twice, so the request is repeated after any transient failure: a timeout, a dropped
    connection, a 5xx, a 429.

    Args:
        token_url: the token endpoint, https; loopback may be plain http.
        client_id: the name under which the server knows this client.
        client_secret: its password. Form-encoded before Basic, as RFC 6749 §2.3.1 has it.
        client_auth: `client_secret_basic` (a header), `client_secret_post` (fields of the form), or `none`: the
            client says its id alone, e.g. since `client` shows a TLS certificate (RFC 8705).
        scope: what to ask for, e.g. `"read write"` or `["read", "write"]`; None: the server's default.
        resource: where the token will be used, one URI or several (RFC 8707).
        extra: further fields of the form, e.g. `{"audience": "https://api.example.com"}`.
        timeout: seconds for one token request as a whole; with all its repeats, twice that.
        client: an `httpx.Client` with your proxy and TLS, its headers and hooks included, its `auth` not. It is not
            closed. None: a new one for every refresh.
        allow_http: send secrets over plain http to another machine, too.

    Raises:
        ValueError: the settings do not fit together; the message says which.
        InsecureOrigin: a plain-http `token_url` on another machine, without `allow_http`.

    Example:
        grant = ClientCredentialsGrant("https://id.example.com/token", "reports", secret, scope="read")
        auth = Reauth(grant)
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.client_secret is None and self.client_auth != "none":
            raise ValueError(
                "The client-credentials grant needs a client_secret (RFC 6749 §4.4), and there is none. "
                "Was an environment variable not set? With a TLS certificate instead, say client_auth='none'."
            )

    def flow(self, token: Token, /) -> Generator[TokenRequest, httpx.Response, Token]:  # noqa: ARG002 - Grant's
        """Ask for a token; the last one plays no part."""
        return Token.from_response((yield self.request({"grant_type": "client_credentials"}, idempotent=True)))


class RefreshTokenGrant(ClientGrant):
    """The next token, for the refresh token of the last one (RFC 6749 §6).

    A server that rotates refresh tokens takes each of them once, so the request is repeated only when it cannot have
    been processed: the connection was refused, or the answer was 429 or 503.

    Args:
        token_url: the token endpoint, https; loopback may be plain http.
        client_id: the name under which the server knows this client.
        client_secret: its password. None for a public client (an app, a command line): it says its id alone, and
            `client_auth` need not be set. An empty string is a password, too.
        client_auth: `client_secret_basic` (a header), `client_secret_post` (fields of the form) or `none`.
        scope: what to ask for, no more than was granted (RFC 6749 §6); None: the same again.
        resource: where the token will be used, one URI or several (RFC 8707).
        extra: further fields of the form.
        timeout: seconds for one token request as a whole; with all its repeats, twice that.
        client: an `httpx.Client` with your proxy and TLS, its headers and hooks included, its `auth` not. It is not
            closed. None: a new one for every refresh.
        allow_http: send secrets over plain http to another machine, too.

    Raises:
        ValueError: the settings do not fit together; the message says which.
        InsecureOrigin: a plain-http `token_url` on another machine, without `allow_http`.

    Example:
        grant = RefreshTokenGrant("https://id.example.com/token", "my-app")
        auth = Reauth(grant, token=Token(refresh_token="..."))
    """

    __slots__ = ()

    def flow(self, token: Token, /) -> Generator[TokenRequest, httpx.Response, Token]:
        """Spend the last token's refresh token; without one, `SignInRequired` before anything is posted."""
        if not token.refresh_token:
            raise SignInRequired("There is no refresh token to renew the access token with. Sign in first.")
        form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
        return Token.from_response((yield self.request(form, idempotent=False)))
