"""A token for a signed assertion (RFC 7523 section 2.1): a service account, or a workload's identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from time import time
from types import MappingProxyType
from typing import Any

from httpx_reauth._token import Token, Unpicklable
from httpx_reauth.oauth.client_auth import (
    ClientAuth,
    ClientIdentity,
    Proof,
    ask_function,
    check_function,
    checked_claims,
    checked_lifetime,
    validity,
)
from httpx_reauth.oauth.frames import hides_arguments, hides_settings
from httpx_reauth.oauth.grants import ClientGrant, Flow
from httpx_reauth.oauth.keys import KeyMaterial, SigningKey

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class SignedAssertion(Unpicklable):
    """Signs a new assertion at each call (RFC 7523 section 3). Needs the extra `[jwt]`.

    Args:
        key: PEM, a JWK, or the `Path` of a file with one of these.
        iss: who signs.
        sub: for whom the token is.
        aud: the server, as it calls itself: often its token endpoint.
        kid: the key's name at the server.
        lifetime: seconds for which an assertion is good.
        claims: further claims.

    Raises:
        ValueError, TypeError: the key or a setting is of no use.
    """

    __slots__ = ("_claims", "_key", "_lifetime")

    @hides_arguments
    def __init__(
        self,
        key: KeyMaterial,
        *,
        iss: str,
        sub: str,
        aud: str,
        kid: str | None = None,
        lifetime: float = 300.0,
        claims: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._key = SigningKey(key, kid=kid)
        self._lifetime = checked_lifetime(lifetime)
        self._claims = {"iss": iss, "sub": sub, "aud": aud, **checked_claims(claims)}

    def __call__(self) -> str:
        """A new one."""
        return self._key.sign({**self._claims, **validity(time(), self._lifetime)})


@dataclass(frozen=True, slots=True, repr=False)
class _WithAssertion(ClientIdentity):
    """A client that shows an assertion with each attempt."""

    made: Callable[[], str] = str

    def prove(self, now: float) -> Proof:
        """The client's own proof, and a new assertion."""
        proof = ClientIdentity.prove(self, now)
        assertion = ask_function("assertion", self.made)
        fields = {**proof.fields, "assertion": assertion}
        return replace(proof, fields=fields, secrets=(*proof.secrets, assertion), otherwise=None)


@hides_settings
@dataclass(frozen=True, repr=False)
class JWTBearerGrant(ClientGrant):
    """A token for a signed assertion (RFC 7523 section 2.1). Each attempt gets an assertion of its own.

    Args:
        assertion: a plain function that returns the assertion, or a `SignedAssertion`.
    """

    client_id: str | None = None
    _: KW_ONLY
    assertion: Callable[[], str] = field(kw_only=True, hash=False)
    client_auth: ClientAuth | None = "none"

    repeatable = True

    def __post_init__(self) -> None:
        check_function("assertion", self.assertion, "a function that returns the assertion")
        super().__post_init__()

    def _check_client(self) -> None:
        if self.client_id is not None:
            super()._check_client()

    def flow(self, token: Token, /) -> Flow:  # noqa: ARG002 - Grant's
        """Ask for a token; the last one plays no part."""
        request = self.request({"grant_type": JWT_BEARER}, (yield from self.server()))
        known = request.client_auth or ClientIdentity(None)
        identity = _WithAssertion(
            known.client_id, known.method, known.client_secret, known.basic_encoding, known.issuer,
            known.token_endpoint, known.memory, self.assertion,
        )  # fmt: skip
        return Token.from_response((yield replace(request, client_auth=identity)))
