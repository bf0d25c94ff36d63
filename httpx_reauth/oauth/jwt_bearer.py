"""Gets a token for a signed assertion (RFC 7523 section 2.1): of a service account, or of a workload."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, cast

from httpx_reauth._token import Token, Unpicklable
from httpx_reauth._tokens._refresh.worker import current_clock
from httpx_reauth.oauth.client_auth import (
    ClientAuth,
    call_function,
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

    Each assertion has a new `jti`. It is valid from 10 s before now, since the server's clock may be behind, until
    `lifetime` seconds after now. "Now" is the time on the clock of the `Reauth` that needs the assertion. If no
    `Reauth` needs it, it is the time on the machine's clock.

    Args:
        key: PEM (text or bytes), a JWK (a mapping), or the `Path` of a file with one of these. The file is read again
            when it has changed.
        iss: the name of the signer.
        sub: the name of the user or the account for which the token is. None leaves out this claim; Google wants that
            if the token is for the service account itself.
        aud: the name of the server, as it is in the server's documentation: often its token endpoint. One string, or
            several.
        kid: the key's name at the server.
        alg: the algorithm. None: RS256, ES256, ES384, ES512 or EdDSA, chosen by the type of the key. PS256 is used only
            if you ask for it.
        lifetime: seconds for which an assertion is valid.
        claims: further claims, e.g. `{"scope": "read"}`. They cannot replace the claims that are arguments.
        headers: further headers, e.g. `x5c`.

    Raises:
        ValueError: the key cannot sign with `alg`: it is public, encrypted, or of a different type. Or its certificate
            has expired. Or a setting is empty.
        TypeError: a setting is of a wrong type.
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
        """Return a new assertion."""
        return self._key.sign({**self._claims, **validity(current_clock().time(), self._lifetime)})

    def __repr__(self) -> str:
        """The settings, without the private key and the further claims."""
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
    """Gets a token for a signed assertion (RFC 7523 section 2.1). Each attempt gets a new assertion.

    A second request does no harm, so the request is repeated after any transient failure. The assertion names the
    caller. Set `client_id` only if the server wants client authentication as well.

    Args:
        token_url: the URL of the token endpoint, https; on loopback, plain http is allowed. Or an `Issuer`.
        assertion: a `SignedAssertion`, a workload's identity (`FileIdentity(...)`), or another plain function that
            returns the assertion. It is called before each attempt, in a worker thread, where it may block.
        client_id: the client's name at the server, if the server wants one.
        client_secret: the client's password, if it has one. Set also how it is sent, e.g.
            `client_auth="client_secret_basic"`.
        client_auth: the method of client authentication, in addition to the assertion; as on every grant.
        scope: the scopes to request, e.g. `"read write"` or `["read", "write"]`. None: the server's default.
        resource: the APIs for which the token is, one URI or several (RFC 8707).
        extra: further fields of the form.
        timeout: seconds for one whole token request. All its attempts together end within twice that time.
        client: an `httpx.Client` or `httpx2.Client` with your proxy and TLS. The grant does not close it. None: a new
            client for each refresh.
        allow_http: secrets may also be sent over plain http to another machine.

    Raises:
        ValueError: the settings do not fit together; the message says which.
        TypeError: a setting is of a wrong type. For example, `assertion` is a string: such an assertion could be used
            only once.
        InsecureOrigin: `token_url` is plain http on another machine, and `allow_http` is not set.

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

    def flow(self, token: Token, /) -> Flow:  # noqa: ARG002 - `Grant` has this argument
        """Request a token. `token`, the last one, is not used."""
        request = self.request({"grant_type": JWT_BEARER}, (yield from self.server()))
        return Token.from_response((yield replace(request, per_attempt=self._assertion)))

    def _assertion(self) -> dict[str, str]:
        return {"assertion": call_function("assertion", self.assertion)}
