"""The checks of a signed assertion (RFC 7523 section 3): signature, audience, end, and reuse."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from httpx_reauth.testing._grants import OAuthError

if TYPE_CHECKING:
    from httpx_reauth.testing._ledger import Ledger

PublicKey: TypeAlias = str | bytes | Mapping[str, Any]  # PEM, or a JWK

_SYMMETRIC = ("HS256", "HS384", "HS512")
_ASYMMETRIC = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip


class Assertions:
    """Check assertions, and remember each `jti`. This class is not thread-safe; the server holds a lock."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._used: set[tuple[str, str]] = set()

    def check(
        self, assertion: str, key: PublicKey | None, error: str, *, audiences: Collection[str] | None, wall: float
    ) -> dict[str, Any]:
        """Check everything about `assertion`, and return its claims.

        Args:
            assertion: a signed JWT.
            key: the key that must have signed it; None: any key.
            error: OAuth's error code for a wrong assertion.
            audiences: `aud` must contain one of these; None: `aud` may have any value.
            wall: the time, in seconds since the epoch.

        Raises:
            OAuthError: the assertion is wrong.
        """
        claims = read(assertion)
        if key is not None and not is_signed(assertion, key):
            raise OAuthError(error, "The signature of the assertion is not that of the key that is known here.")
        missing = [name for name in ("iss", "sub", "aud", "exp") if name not in claims]
        if missing:
            raise OAuthError(error, f"The assertion lacks {', '.join(missing)} (RFC 7523 section 3).")
        named: Any = claims["aud"]
        listed = cast("list[object]", named) if isinstance(named, list) else [named]
        if audiences is not None and not set(listed) & set(audiences):
            raise OAuthError(error, f"The assertion is meant for somebody else; aud should be {min(audiences)}.")
        if not isinstance(claims["exp"], (int, float)) or claims["exp"] <= wall:
            raise OAuthError(error, "The assertion has expired.")
        used = (str(claims["iss"]), str(claims.get("jti")))
        if "jti" in claims and used in self._used:
            self._ledger.assertions_replayed += 1
            raise OAuthError(error, "This jti has been used before.")
        self._used.add(used)
        return claims


def read(assertion: str) -> dict[str, Any]:
    """Return the claims of a JWT without a check of its signature; an empty dict if it is not a JWT."""
    try:
        _, payload, _ = assertion.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return {}
    return cast("dict[str, Any]", claims) if isinstance(claims, dict) else {}


def is_signed(assertion: str, key: PublicKey) -> bool:
    """Return whether `assertion` is a JWT that was signed with the private key of `key`.

    Raises:
        ImportError: the extra `jwt` is not installed.
        ValueError: `key` is not a public key.
    """
    return _is_good(assertion, _imported(key), _ASYMMETRIC)


def is_authenticated(assertion: str, secret: str) -> bool:
    """Return whether `assertion` is a JWT that was signed with `secret` (`client_secret_jwt`).

    Raises:
        ImportError: the extra `jwt` is not installed.
    """
    return _is_good(assertion, _jwk().OctKey.import_key(secret), _SYMMETRIC)


def _is_good(assertion: str, key: Any, algorithms: Collection[str]) -> bool:
    from joserfc import jwt
    from joserfc.errors import JoseError

    with suppress(JoseError, ValueError):
        jwt.decode(assertion, key, algorithms=algorithms)
        return True
    return False


def _imported(key: PublicKey) -> Any:
    if isinstance(key, Mapping):
        return _jwk().import_key(dict(key))
    from joserfc.errors import JoseError

    for kind in (_jwk().RSAKey, _jwk().ECKey, _jwk().OKPKey):
        with suppress(ValueError, TypeError, JoseError):
            return kind.import_key(key)
    raise ValueError("A public key is PEM, or a JWK: RSA, EC or OKP.")


def _jwk() -> Any:
    """Import the keys of joserfc (the extra `jwt`). Only a check of signatures needs them."""
    return import_module("joserfc.jwk")
