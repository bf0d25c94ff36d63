"""A token for a signed assertion (RFC 7523 section 2.1): a service account, or a workload's identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, cast

from httpx_reauth._token import Token, Unpicklable
from httpx_reauth._tokens._refresh.worker import current_clock
from httpx_reauth.oauth.client_auth import (
    ClientAuth,
    ask_function,
    check_function,
    checked_claims,
    checked_seconds,
    validity,
)
from httpx_reauth.oauth.frames import hides_arguments, hides_settings
from httpx_reauth.oauth.grants import ClientGrant, Flow
from httpx_reauth.oauth.keys import KeyMaterial, SigningKey

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class SignedAssertion(Unpicklable):
    """Signs a new assertion at each call (RFC 7523 section 3). Needs the extra `[jwt]`.

    Each has a new `jti`, begins 10 s before now, since the server's clock may be behind, and ends `lifetime`
    after now: by the clock of the `Reauth` that needs it, by the machine's own outside of any.

    Args:
        key: PEM (text or bytes), a JWK (a mapping), or the `Path` of a file with one of these, which is read again
            when it has changed.
        iss: who signs.
        sub: for whom the token is; None leaves it out, as Google wants it for the service account itself.
        aud: the server, as it calls itself: often its token endpoint. One string, or several.
        kid: the key's name at the server.
        alg: the algorithm; None: RS256, ES256, ES384, ES512 or EdDSA, as the key is. PS256 on request.
        lifetime: seconds for which an assertion is good.
        claims: further claims, e.g. `{"scope": "read"}`. They cannot replace those above.
        headers: further headers, e.g. `x5c`.

    Raises:
        ValueError: the key cannot sign that: it is public, encrypted, of another kind; its certificate has expired. Or
            a setting is empty.
        TypeError: a setting is of another type.
        OSError: the file cannot be read.
        ImportError: joserfc is not installed.

    Example: `SignedAssertion(Path("key.pem"), iss="robot", sub="robot", aud="https://id.example.com/token")`
    """

    __slots__ = ("_claims", "_key", "_lifetime")

    @hides_arguments
    def __init__(
        self,
        key: KeyMaterial,
        *,
        iss: str,
        sub: str | None,
        aud: str | Sequence[str],
        kid: str | None = None,
        alg: str | None = None,
        lifetime: float = 300.0,
        claims: Mapping[str, Any] = MappingProxyType({}),
        headers: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        own: dict[str, object] = {"iss": _checked_name("iss", iss), "aud": _checked_audience(aud)}
        if sub is not None:
            own["sub"] = _checked_name("sub", sub)
        further = checked_claims(claims)
        if taken := sorted(further.keys() & {"iss", "sub", "aud"}):
            raise ValueError(f"claims must not hold {', '.join(taken)}, which are arguments: SignedAssertion(iss=...).")
        self._key = SigningKey(key, kid=kid, alg=alg, headers=headers)
        self._lifetime = checked_seconds("lifetime", lifetime)
        self._claims = {**own, **further}

    def __call__(self) -> str:
        """A new one."""
        return self._key.sign({**self._claims, **validity(current_clock().time(), self._lifetime)})

    def __repr__(self) -> str:
        """Who signs with what, without the key and the further claims."""
        names = ", ".join(f"{name}={self._claims[name]!r}" for name in ("iss", "sub", "aud") if name in self._claims)
        return f"SignedAssertion({self._key!r}, {names}, lifetime={self._lifetime!r})"


def _checked_name(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__} (RFC 7523 section 3).")
    if not value:
        raise ValueError(f"{name} is empty. Was an environment variable not set?")
    return value


def _checked_audience(value: str | Sequence[str]) -> str | list[str]:
    if value and isinstance(cast("object", value), (list, tuple)):
        return [_checked_name("aud", one) for one in value]
    return _checked_name("aud", value)


@hides_settings
@dataclass(frozen=True, repr=False)
class JWTBearerGrant(ClientGrant):
    """A token for a signed assertion (RFC 7523 section 2.1). Each attempt gets a new assertion.

    Nothing is lost by asking twice, so the request is repeated after any transient failure. The assertion says who
    asks: `client_id` is for servers that want a client to prove who it is as well.

    Args:
        token_url: the token endpoint, https; loopback may be plain http. Or an `Issuer`.
        assertion: a `SignedAssertion`, a workload's identity (`FileIdentity(...)`), or another plain function that
            returns the assertion. It is asked before each attempt, in a worker thread, where it may block.
        client_id: the name under which the server knows this client, if it wants one.
        client_secret: its password, if it has one; say how it is sent, with `client_auth="client_secret_basic"`.
        client_auth: how the client proves who it is, beside the assertion; as on every grant.
        scope: what to ask for, e.g. `"read write"` or `["read", "write"]`; None: the server's default.
        resource: where the token will be used, one URI or several (RFC 8707).
        extra: further fields of the form.
        timeout: seconds for one token request as a whole; with all its repeats, twice that.
        client: an `httpx.Client` or `httpx2.Client` with your proxy and TLS. It is not closed. None: a new one for
            every refresh.
        allow_http: send secrets over plain http to another machine, too.

    Raises:
        ValueError: the settings do not fit together; the message says which.
        TypeError: a setting is of another type, e.g. an assertion that was made already, which could be used once.
        InsecureOrigin: a plain-http `token_url` on another machine, without `allow_http`.

    Example:
        signed = SignedAssertion(Path("key.pem"), iss="robot", sub="robot", aud="https://id.example.com/token")
        auth = Reauth(JWTBearerGrant("https://id.example.com/token", assertion=signed))
    """

    client_id: str | None = None
    _: KW_ONLY
    assertion: Callable[[], str] = field(kw_only=True, hash=False)
    client_auth: ClientAuth | None = "none"

    repeatable = True
    _needs_client: ClassVar[bool] = False
    _own_fields: ClassVar[frozenset[str]] = ClientGrant._own_fields | {"assertion"}

    def __post_init__(self) -> None:
        check_function("assertion", self.assertion, "a function that returns a new assertion each time")
        super().__post_init__()

    def flow(self, token: Token, /) -> Flow:  # noqa: ARG002 - Grant's
        """Ask for a token; the last one plays no part."""
        request = self.request({"grant_type": JWT_BEARER}, (yield from self.server()))
        return Token.from_response((yield replace(request, per_attempt=self._assertion)))

    def _assertion(self) -> dict[str, str]:
        return {"assertion": ask_function("assertion", self.assertion)}
