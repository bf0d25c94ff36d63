"""Keys that sign: read from PEM, a JWK or a file, checked when they are made, and used by joserfc (extra `[jwt]`).

1. Everything that can be wrong with a key is said when it is made: a public or an encrypted key, one of another kind
   than its `alg`, a certificate that has expired or belongs to another key.
2. A key in a file is read again when the file has changed, so that it can be replaced under a running process.
3. joserfc and cryptography are imported here alone, at the first key. No message and no `repr` shows a part of a key.
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

# Which algorithms a kind of key signs with (RFC 7518 section 3.1, RFC 8037 section 3.1); the first is the default.
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
_EDWARDS = ("EdDSA",)
HMAC = ("HS256", "HS384", "HS512")

_RSA_BITS = 2048  # the fewest that RFC 7518 section 3.3 allows
_SEQUENCE = b"\x30"  # with which DER begins, and PKCS#12
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


class _Loaded(NamedTuple):
    """A key as it is used.

    Attributes:
        key: joserfc's object.
        alg: what it signs with.
        headers: `kid`, and what names its certificate.
    """

    key: Any
    alg: str
    headers: Mapping[str, Any]


class SigningKey(Unpicklable):
    """A private key that signs JWTs.

    Args:
        key: PEM (text or bytes), a JWK (a mapping or its JSON), or the `Path` of a file with one of these.
        alg: the algorithm (RFC 7518 section 3.1); None: what the key says or is good for.
        kid: the key's name at the server (RFC 7515 section 4.1.4); None: what a JWK says.
        headers: further headers of every JWT, e.g. `x5c`.

    Raises:
        ValueError: the key cannot sign that; the message says why.
        TypeError: it is of another type.
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
        """A JWT with these claims; `typ` is a header (RFC 7519 section 5.1), None leaves it out.

        Raises:
            RefreshError: the file has changed, and what it holds now cannot be used.
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
        version = _version_of(path)  # before it is read: what changes meanwhile is noticed next time
        return version, self._load(path.read_bytes())

    def _load(self, material: object) -> _Loaded:
        """The key that `material` is, once it has signed something."""
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
            _signed({"alg": alg, **loaded.headers}, {}, loaded.key)  # whatever else is wrong is found now
        except JoseError as error:
            raise ValueError(f"A JWT cannot be signed with these settings: {error}") from None
        return loaded

    def __repr__(self) -> str:
        """What it signs with and its name, not the key."""
        _, (_, alg, headers) = self._seen
        where = "" if self._path is None else f"{str(self._path)!r}, "
        return f"SigningKey({where}alg={alg!r}, kid={headers.get('kid')!r})"


class SharedKey(Unpicklable):
    """A secret that both sides know, and that signs JWTs by HMAC (RFC 7518 section 3.2)."""

    __slots__ = ("_alg", "_secret")

    def __init__(self, secret: bytes, alg: str) -> None:
        self._secret = secret
        self._alg = alg

    def sign(self, claims: Mapping[str, Any], *, typ: str | None = "JWT") -> str:
        """A JWT with these claims."""
        from joserfc.jwk import OctKey

        key = OctKey(self._secret, self._secret)
        return _signed({"alg": self._alg, **({} if typ is None else {"typ": typ})}, claims, key)


def is_pem(secret: bytes) -> bool:
    """Is this a key or a certificate rather than a secret that both sides know?"""
    return _PEM.search(secret) is not None


def check_extra() -> None:
    """Make sure that joserfc is there.

    Raises:
        ImportError: it is not installed; the message says how to get it.
    """
    try:
        import_module("joserfc")
    except ImportError:
        raise ImportError('Signing needs joserfc, which is not installed: pip install "httpx-reauth[jwt]"') from None


# Reading.


def _from_pem(pem: bytes) -> tuple[Any, list[Certificate]]:
    """The private key in `pem`, as cryptography's object, and the certificates beside it."""
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
        if rb"\n" in private[0]:  # in a file of variables, or copied out of JSON
            raise ValueError(
                "This private key has a backslash and an n where a line ends. Was it read from a variable? Write "
                r'key.replace("\\n", "\n").'
            ) from None
        raise ValueError("This private key cannot be read: it is damaged, or of an unknown kind.") from None
    return native, [_certificate(block) for label, block in blocks if label == b"CERTIFICATE"]


def _from_jwk(jwk: Mapping[str, Any]) -> tuple[Any, list[Certificate]]:
    """The same of a JWK (RFC 7517)."""
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
    except Exception:  # noqa: BLE001 - whatever joserfc and cryptography make of it, with the key in their words
        raise ValueError("This JWK cannot be read: a member is missing or damaged (RFC 7518 section 6).") from None
    return native, _chain(jwk.get("x5c"))


def _algorithm(native: Any, alg: str | None) -> str:
    """What the key signs with: `alg`, if it can.

    Raises:
        ValueError: it cannot, or is too short.
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
    """`x5t#S256` of the key's certificate (RFC 7515 section 4.1.8), if there is one; the headers that were given win.

    Raises:
        ValueError: it has expired, is not valid yet, or belongs to another key; or a header names another.
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
    """The certificates of the member or header `x5c` (RFC 7515 section 4.1.6), the key's own first."""
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
    """Another one, once the file has changed or was replaced."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


# Signing.


def _jose_key(native: Any) -> Any:
    """Joserfc's object for a key of cryptography's."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from joserfc import jwk

    if isinstance(native, rsa.RSAPrivateKey):
        return jwk.RSAKey(native, native)
    if isinstance(native, ec.EllipticCurvePrivateKey):
        return jwk.ECKey(native, native)
    return jwk.OKPKey(native, native)


@cache
def _registry() -> Any:
    """Joserfc's registry of algorithms, asked without its opinions: what signs has been chosen and checked here."""
    from joserfc.jws import JWSRegistry

    class Registry(JWSRegistry):
        def get_alg(self, name: str) -> Any:
            return self.algorithms[name]  # joserfc would warn of EdDSA, each time

    return Registry(strict_check_header=False)


def _signed(header: dict[str, Any], claims: Mapping[str, Any], key: Any) -> str:
    from joserfc.jws import serialize_compact

    payload = json.dumps(claims, separators=(",", ":")).encode()
    return serialize_compact(header, payload, key, registry=_registry())
