"""Keys that sign JWTs. A key comes from PEM, a JWK or a file; joserfc (extra `[jwt]`) signs with it.

1. A key is checked when the object is made. An error is raised if the key is public or encrypted, if its type does not
   fit its `alg`, or if its certificate has expired or belongs to a different key.
2. If the key is in a file, the file is read again when it has changed. So the key of a running process can be replaced.
3. Only this module imports joserfc and cryptography, when the first key is made.
4. No message and no `repr` shows a part of a key.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from httpx_reauth._errors import RefreshError, in_ascii
from httpx_reauth._token import Unpicklable
from httpx_reauth.oauth.frames import hides_arguments

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

KeyMaterial: TypeAlias = "str | bytes | Mapping[str, Any] | Path"

# The algorithms for each type of key (RFC 7518 section 3.1, RFC 8037 section 3.1); the first is the default.
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
_EDWARDS = ("EdDSA",)
HMAC = ("HS256", "HS384", "HS512")

_RSA_BITS = 2048  # the minimum in RFC 7518 section 3.3
_SEQUENCE = b"\x30"  # the first byte of a DER file and of a PKCS#12 file
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


class _Loaded(NamedTuple):
    """A key that is ready to sign.

    Attributes:
        key: the key as an object of joserfc.
        alg: the algorithm.
        headers: the headers of each JWT, e.g. `kid` and `x5t#S256`.
    """

    key: Any
    alg: str
    headers: Mapping[str, Any]


class SigningKey(Unpicklable):
    """A private key that signs JWTs.

    Args:
        key: PEM (text or bytes), a JWK (a mapping or its JSON), or the `Path` of a file with one of these.
        alg: the algorithm (RFC 7518 section 3.1). None: the `alg` of the JWK, else the default for the type of the key.
        kid: the key's name at the server (RFC 7515 section 4.1.4). None: the `kid` of the JWK.
        headers: further headers of every JWT, e.g. `x5c`.

    Raises:
        ValueError: the key cannot sign with `alg`; the message says why.
        TypeError: `key` or `headers` is of a wrong type.
        ImportError: joserfc is not installed.
        OSError: the file cannot be read.
    """

    __slots__ = ("_alg", "_headers", "_kid", "_path", "_seen")

    @hides_arguments
    def __init__(
        self,
        key: KeyMaterial,
        *,
        alg: str | None = None,
        kid: str | None = None,
        headers: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        if not isinstance(cast("object", headers), Mapping):
            raise TypeError(f"headers must be a mapping, not {type(headers).__name__}.")
        self._alg = alg
        self._kid = kid
        self._headers = dict(headers)
        self._path = Path(key) if isinstance(key, os.PathLike) else None
        self._seen: tuple[object, _Loaded]
        if self._path is None:
            self._seen = (None, self._load(key))
            return
        try:
            self._seen = self._read(self._path)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self._path}: {error}") from None

    def sign(self, claims: Mapping[str, Any], *, typ: str | None = "JWT") -> str:
        """Return a signed JWT with these claims.

        Args:
            claims: the claims.
            typ: the header `typ` (RFC 7519 section 5.1); None leaves it out.

        Raises:
            RefreshError: the key file has changed, and its new content is not a usable key.
        """
        self._seen = self._current()
        _, (key, alg, headers) = self._seen
        return _signed({"alg": alg, **({} if typ is None else {"typ": typ}), **headers}, claims, key)

    def _current(self) -> tuple[object, _Loaded]:
        path = self._path
        if path is None:
            return self._seen
        try:
            return self._seen if _version_of(path) == self._seen[0] else self._read(path)
        except (ValueError, TypeError, OSError) as error:
            why = f"It cannot be read ({type(error).__name__})." if isinstance(error, OSError) else str(error)
            raise RefreshError(
                f"The key file {in_ascii(str(path))} has changed and is of no use now. {why} Nothing was sent."
            ) from None

    def _read(self, path: Path) -> tuple[object, _Loaded]:
        version = _version_of(path)  # before the read: a file that changes during the read is read again
        return version, self._load(path.read_bytes())

    def _load(self, material: object) -> _Loaded:
        """Return the key in `material`, after it has signed a test JWT."""
        check_extra()
        from joserfc.errors import JoseError

        if isinstance(material, str):
            material = material.encode()
        if isinstance(material, (bytes, bytearray)) and material.lstrip()[:1] == b"{":
            try:
                material = json.loads(material)
            except ValueError:
                raise ValueError("The key begins like a JWK and is no JSON. Was it cut off?") from None
        kid, alg = self._kid, self._alg
        if isinstance(material, Mapping):
            jwk = cast("Mapping[str, Any]", material)
            native, chain = _from_jwk(jwk)
            kid, alg = kid or jwk.get("kid"), alg or jwk.get("alg")
        elif isinstance(material, (bytes, bytearray)):
            native, chain = _from_pem(bytes(material))
        else:
            raise TypeError(f"A key is PEM, a JWK or a Path, not {type(material).__name__}.")
        alg = _algorithm(native, alg)
        headers = {**({"kid": kid} if kid is not None else {}), **_certificate_headers(native, chain, self._headers)}
        loaded = _Loaded(_jose_key(native), alg, {**headers, **self._headers})
        try:
            _signed({"alg": alg, **loaded.headers}, {}, loaded.key)  # a test, so that any other fault raises now
        except JoseError as error:
            raise ValueError(f"A JWT cannot be signed with these settings: {error}") from None
        return loaded

    def __repr__(self) -> str:
        """The file, the algorithm and the `kid`, without the key."""
        _, (_, alg, headers) = self._seen
        where = "" if self._path is None else f"{str(self._path)!r}, "
        return f"SigningKey({where}alg={alg!r}, kid={headers.get('kid')!r})"


class SharedKey(Unpicklable):
    """A secret that client and server share. It signs JWTs with HMAC (RFC 7518 section 3.2)."""

    __slots__ = ("_alg", "_secret")

    def __init__(self, secret: bytes, alg: str) -> None:
        self._secret = secret
        self._alg = alg

    def sign(self, claims: Mapping[str, Any], *, typ: str | None = "JWT") -> str:
        """Return a signed JWT with these claims."""
        from joserfc.jwk import OctKey

        key = OctKey(self._secret, self._secret)
        return _signed({"alg": self._alg, **({} if typ is None else {"typ": typ})}, claims, key)


def is_pem(secret: bytes) -> bool:
    """Is this a key or a certificate in PEM, and so not a shared secret?"""
    return _PEM.search(secret) is not None


def check_extra() -> None:
    """Check that joserfc is installed.

    Raises:
        ImportError: joserfc is not installed; the message says how to install it.
    """
    try:
        import_module("joserfc")
    except ImportError:
        raise ImportError('Signing needs joserfc, which is not installed: pip install "httpx-reauth[jwt]"') from None


# Reading.


def _from_pem(pem: bytes) -> tuple[Any, list[Certificate]]:
    """Return the private key in `pem`, as an object of cryptography, and the certificates in `pem`."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    blocks = [(match[1], match[0]) for match in _PEM.finditer(pem)]
    labels = [label for label, _ in blocks]
    private = [block for label, block in blocks if label.endswith(b"PRIVATE KEY")]
    if not blocks and pem.startswith(_SEQUENCE) and not pem.isascii():
        raise ValueError(
            "This key is binary, not PEM. Convert a copy of it: openssl pkey -inform DER -in key.der -out key.pem; of "
            "a file .pfx or .p12: openssl pkcs12 -nodes -in key.pfx -out key.pem"
        )
    if not blocks:
        raise ValueError(
            "This is no key: it has no PEM block (-----BEGIN PRIVATE KEY-----) and is no JWK. For the name of a file, "
            'write Path("key.pem").'
        )
    if not private:
        what = "a public key" if any(b"PUBLIC" in label for label in labels) else "a certificate without its key"
        raise ValueError(f"This is {what}, which cannot sign. Give the private key.")
    if len(private) > 1:
        raise ValueError("There are two private keys here. Give the one that signs.")
    if b"OPENSSH PRIVATE KEY" in labels:
        raise ValueError("This is an OpenSSH key. Convert a copy of it to PEM: ssh-keygen -p -m PEM -f copy")
    if b"ENCRYPTED" in private[0]:
        raise ValueError(
            "This key is encrypted. Decrypt it where the program runs (openssl pkey -in key.pem -out plain.pem), or "
            "let a function sign: ClientAssertion(function)."
        )
    try:
        native = load_pem_private_key(private[0], password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if rb"\n" in private[0]:  # this happens in a file of environment variables, or with text copied from JSON
            raise ValueError(
                "This private key has a backslash and an n where a line ends. Was it read from a variable? Write "
                r'key.replace("\\n", "\n").'
            ) from None
        raise ValueError("This private key cannot be read: it is damaged, or of an unknown kind.") from None
    return native, [_certificate(block) for label, block in blocks if label == b"CERTIFICATE"]


def _from_jwk(jwk: Mapping[str, Any]) -> tuple[Any, list[Certificate]]:
    """Return the private key in `jwk` (RFC 7517), as an object of cryptography, and the certificates in `jwk`."""
    from joserfc import jwk as kinds

    by_type: dict[object, Any] = {"RSA": kinds.RSAKey, "EC": kinds.ECKey, "OKP": kinds.OKPKey}
    kty = jwk.get("kty")
    if kty == "oct":
        raise ValueError("This JWK is a shared secret (oct), not a private key. Use ClientSecretJWT(secret) for it.")
    if kty not in by_type:
        raise ValueError("This is no JWK with a private key: its kty must be RSA, EC or OKP (RFC 7517 section 4.1).")
    if not jwk.get("d"):
        raise ValueError("This JWK is a public key, which cannot sign. Give the private one, which has a member d.")
    operations = jwk.get("key_ops")
    if jwk.get("use", "sig") != "sig" or (operations is not None and "sign" not in operations):
        raise ValueError("This JWK is not meant for signing (RFC 7517 section 4.2 and 4.3). Give one that is.")
    try:
        native = by_type[kty].import_key(dict(jwk)).private_key
    except Exception:  # noqa: BLE001 - joserfc and cryptography raise many types, and a message may show the key
        raise ValueError("This JWK cannot be read: a member is missing or damaged (RFC 7518 section 6).") from None
    return native, _chain(jwk.get("x5c"))


def _algorithm(native: Any, alg: str | None) -> str:
    """Return `alg`, if the key can sign with it. If `alg` is None, return the default for the type of the key.

    Raises:
        ValueError: the key cannot sign with `alg`, or an RSA key is too short.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    possible: tuple[str, ...] = ()
    if isinstance(native, rsa.RSAPrivateKey):
        what, possible = "an RSA key", _RSA
        if native.key_size < _RSA_BITS:
            raise ValueError(f"This RSA key has {native.key_size} bits; RFC 7518 section 3.3 wants {_RSA_BITS}.")
    elif isinstance(native, ec.EllipticCurvePrivateKey):
        what, possible = f"a key of the curve {native.curve.name}", _CURVES.get(native.curve.name, ())
    elif isinstance(native, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)):
        what, possible = "an Edwards-curve key", _EDWARDS
    else:
        what = "a key that does not sign"
    if not possible:
        raise ValueError(f"This is {what}. A JWT is signed by RSA, P-256, P-384, P-521, Ed25519 or Ed448.")
    if alg is None:
        return possible[0]
    if alg not in possible:
        hint = " A shared secret signs that: ClientSecretJWT(secret)." if alg in HMAC else ""
        raise ValueError(f"This is {what}, which cannot sign with {alg!r}, but with {', '.join(possible)}.{hint}")
    return alg


def _certificate_headers(native: Any, chain: list[Certificate], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the header `x5t#S256` of the key's certificate (RFC 7515 section 4.1.8).

    The result is empty if there is no certificate, or if `given`, the user's headers, name a certificate themselves.

    Raises:
        ValueError: the certificate has expired, is not valid yet, or belongs to a different key. Or the header
            `x5t#S256` in `given` names a different certificate.
    """
    chain = _chain(given.get("x5c")) or chain
    if not chain:
        return {}
    from cryptography.hazmat.primitives.hashes import SHA256

    certificate = next((one for one in chain if one.public_key() == native.public_key()), None)
    if certificate is None:
        raise ValueError("This certificate belongs to another key. Give the key and the certificate of one pair.")
    begins, ends, now = certificate.not_valid_before_utc, certificate.not_valid_after_utc, datetime.now(timezone.utc)
    if now > ends:
        raise ValueError(f"The certificate of this key expired on {ends:%Y-%m-%d}. Renew it.")
    if now < begins:
        raise ValueError(f"The certificate of this key is valid from {begins:%Y-%m-%d} on. Is the clock right?")
    thumbprint = base64.urlsafe_b64encode(certificate.fingerprint(SHA256())).rstrip(b"=").decode("ascii")
    if str(given.get("x5t#S256", thumbprint)).rstrip("=") != thumbprint:
        raise ValueError("The header x5t#S256 names another certificate than the one that is given with the key.")
    return {} if any(name.startswith("x5") for name in given) else {"x5t#S256": thumbprint}


def _chain(x5c: object) -> list[Certificate]:
    """Return the certificates in the member or header `x5c` (RFC 7515 section 4.1.6). The key's own is the first."""
    if x5c is None:
        return []
    if not isinstance(x5c, Sequence) or isinstance(x5c, (str, bytes)):
        raise TypeError("x5c is a list of certificates in base64 (RFC 7515 section 4.1.6).")
    lines = [str(one).encode() for one in cast("Sequence[object]", x5c)]
    return [_certificate(b"-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n" % line) for line in lines]


def _certificate(pem: bytes) -> Certificate:
    from cryptography.x509 import load_pem_x509_certificate

    try:
        return load_pem_x509_certificate(pem)
    except ValueError:
        raise ValueError("A certificate that is given with the key cannot be read.") from None


def _version_of(path: Path) -> object:
    """Return a value that changes when the file is changed or replaced."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


# Signing.


def _jose_key(native: Any) -> Any:
    """Return the joserfc object for `native`, a key object of cryptography."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from joserfc import jwk

    if isinstance(native, rsa.RSAPrivateKey):
        return jwk.RSAKey(native, native)
    if isinstance(native, ec.EllipticCurvePrivateKey):
        return jwk.ECKey(native, native)
    return jwk.OKPKey(native, native)


@cache
def _registry() -> Any:
    """Return a registry of algorithms for joserfc that allows each of them without a warning.

    This module has already chosen and checked the algorithm.
    """
    from joserfc.jws import JWSRegistry

    class Registry(JWSRegistry):
        def get_alg(self, name: str) -> Any:
            return self.algorithms[name]  # joserfc's own method warns about EdDSA at each call

    return Registry(strict_check_header=False)


def _signed(header: dict[str, Any], claims: Mapping[str, Any], key: Any) -> str:
    from joserfc.jws import serialize_compact

    payload = json.dumps(claims, separators=(",", ":")).encode()
    return serialize_compact(header, payload, key, registry=_registry())
