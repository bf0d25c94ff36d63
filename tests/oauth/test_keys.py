"""Tests of private keys for `PrivateKeyJWT`: which are accepted, what the errors say, and that no key is shown."""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
import textwrap
import traceback
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from joserfc.jwk import ECKey, OKPKey, RSAKey

from httpx_reauth import Reauth, RefreshError, Token
from httpx_reauth.oauth import ClientCredentialsGrant, ClientSecretJWT, PrivateKeyJWT

URL = "https://id.example.com/token"

KINDS = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
}
DEFAULT = {"RSA": "RS256", "P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA", "Ed448": "EdDSA"}


_keys: dict[tuple[str, int], Any] = {}


def key(kind: str, number: int = 0) -> Any:
    """A key of that kind; another one for another number."""
    return _keys.setdefault((kind, number), _keys.get((kind, number)) or KINDS[kind]())


def pem(private: Any, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes | None = None) -> bytes:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return private.private_bytes(Encoding.PEM, form, encryption)


def public_pem(private: Any) -> bytes:
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(kind: str, **members: Any) -> dict[str, Any]:
    cls = RSAKey if kind == "RSA" else OKPKey if kind.startswith("Ed") else ECKey
    return {**cls.import_key(pem(key(kind))).as_dict(private=True), **members}


@cache
def certificate(kind: str = "RSA", begins: int = -1, ends: int = 1, number: int = 0) -> Any:
    """A certificate for `key(kind, number)`, good from and until so many days from now."""
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "me")]), datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(name, name, key(kind, number).public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now + timedelta(days=begins)).not_valid_after(now + timedelta(days=ends))
    return builder.sign(key(kind, number), SHA256())


def certificate_pem(**settings: int) -> bytes:
    return certificate(**settings).public_bytes(Encoding.PEM)


def in_base64(one: Any) -> str:
    return base64.b64encode(one.public_bytes(Encoding.DER)).decode()


class Server:
    """A token endpoint that keeps the assertions that it gets."""

    def __init__(self) -> None:
        self.assertions: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.assertions += parse_qs(request.content.decode())["client_assertion"]
        return httpx.Response(200, json={"access_token": "fresh"})

    def grant(self, method: Any) -> ClientCredentialsGrant:
        client = httpx.Client(transport=httpx.MockTransport(self))
        return ClientCredentialsGrant(URL, "me", client_auth=method, client=client)

    def header(self, method: Any) -> dict[str, Any]:
        """The header of an assertion by `method`."""
        assert self.grant(method)(Token()).access_token == "fresh"
        return jwt.get_unverified_header(self.assertions[-1])


def verify(assertion: str, private: Any, alg: str) -> dict[str, Any]:
    """The claims, read by a library that shares no code with what signed."""
    return jwt.decode(assertion, public_pem(private), algorithms=[alg], audience=URL)


# --- what is taken ---


def ways(kind: str, folder: Path) -> dict[str, Any]:
    (folder / "key.pem").write_bytes(pem(key(kind)))
    (folder / "key.json").write_text(json.dumps(jwk(kind)))
    return {
        "bytes": pem(key(kind)),
        "text": pem(key(kind)).decode(),
        "text with words around": "a comment\n" + pem(key(kind)).decode() + "\n\n",
        "a mapping": jwk(kind),
        "JSON": json.dumps(jwk(kind)),
        "a file": folder / "key.pem",
        "a JSON file": folder / "key.json",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_key_signs_however_it_is_written_with_the_algorithm_that_it_is_good_for(kind, tmp_path):
    for way, material in ways(kind, tmp_path).items():
        server = Server()
        assert server.header(PrivateKeyJWT(material)) == {"alg": DEFAULT[kind], "typ": "JWT"}, way
        assert verify(server.assertions[0], key(kind), DEFAULT[kind])["sub"] == "me"


@pytest.mark.parametrize("kind", ["RSA", "P-256"])
def test_older_forms_of_pem_are_taken(kind):
    old = pem(key(kind), PrivateFormat.TraditionalOpenSSL)
    assert b"BEGIN PRIVATE KEY" not in old
    server = Server()
    server.header(PrivateKeyJWT(old))
    verify(server.assertions[0], key(kind), DEFAULT[kind])


@pytest.mark.parametrize("alg", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_rsa_key_signs_with_what_is_asked_for(alg):
    server = Server()
    assert server.header(PrivateKeyJWT(pem(key("RSA")), alg=alg))["alg"] == alg
    verify(server.assertions[0], key("RSA"), alg)


def test_name_and_algorithm_of_a_jwk_count_unless_others_are_given():
    material = jwk("RSA", kid="1", alg="PS256", use="sig", key_ops=["sign"])
    assert Server().header(PrivateKeyJWT(material)) == {"alg": "PS256", "typ": "JWT", "kid": "1"}
    given = PrivateKeyJWT(material, kid="2", alg="RS256")
    assert Server().header(given) == {"alg": "RS256", "typ": "JWT", "kid": "2"}


def test_further_headers_go_along():
    method = PrivateKeyJWT(pem(key("RSA")), kid="1", headers={"x5t#S256": "abc", "tenant": "acme"})
    assert Server().header(method) == {"alg": "RS256", "typ": "JWT", "kid": "1", "x5t#S256": "abc", "tenant": "acme"}


# --- what is wrong with a key is said when it is made ---


def other_pem(private: Any) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a public key": (lambda: public_pem(key("RSA")), {}, "public key.*private"),
    "a public JWK": (lambda: RSAKey.import_key(pem(key("RSA"))).as_dict(private=False), {}, "public key"),
    "a certificate alone": (certificate_pem, {}, "certificate without its key"),
    "encrypted": (lambda: pem(key("RSA"), password=b"x"), {}, "encrypted.*openssl"),
    "encrypted, older": (
        lambda: pem(key("RSA"), PrivateFormat.TraditionalOpenSSL, password=b"x"),
        {},
        "encrypted.*openssl",
    ),
    "OpenSSH": (lambda: pem(key("Ed25519"), PrivateFormat.OpenSSH), {}, "OpenSSH.*ssh-keygen"),
    "an RSA key for ES256": (lambda: pem(key("RSA")), {"alg": "ES256"}, "RSA.*'ES256'.*RS256"),
    "an EC key for RS256": (lambda: pem(key("P-256")), {"alg": "RS256"}, "secp256r1.*'RS256'.*ES256"),
    "a P-256 key for ES384": (lambda: pem(key("P-256")), {"alg": "ES384"}, "'ES384'.*ES256"),
    "an Edwards key for ES256": (lambda: pem(key("Ed25519")), {"alg": "ES256"}, "'ES256'.*EdDSA"),
    "a JWK whose alg it cannot do": (lambda: jwk("P-256", alg="RS256"), {}, "'RS256'"),
    "a key for HS256": (lambda: pem(key("RSA")), {"alg": "HS256"}, "ClientSecretJWT"),
    "a key for none": (lambda: pem(key("RSA")), {"alg": "none"}, "'none'"),
    "a key for lower case": (lambda: pem(key("RSA")), {"alg": "rs256"}, "RS256"),
    "a shared secret as JWK": (lambda: {"kty": "oct", "k": "c2VjcmV0"}, {}, "ClientSecretJWT"),
    "a JWK without kty": (lambda: {"d": "the-private-part-of-it"}, {}, "kty"),
    "a JWK of an unknown type": (lambda: {"kty": "AKP", "d": "the-private-part-of-it"}, {}, "kty"),
    "a JWK with a member missing": (lambda: {**jwk("RSA"), "n": ""}, {}, "cannot be read"),
    "a JWK for encryption": (lambda: jwk("RSA", use="enc"), {}, "not meant for signing"),
    "a JWK that may only verify": (lambda: jwk("RSA", key_ops=["verify"]), {}, "not meant for signing"),
    "a set of keys": (lambda: {"keys": [jwk("RSA")]}, {}, "kty"),
    "JSON that is cut off": (lambda: json.dumps(jwk("RSA"))[:99], {}, "no JSON"),
    "PEM that is cut off": (lambda: pem(key("RSA"))[:-60], {}, "no PEM block"),
    "PEM that is damaged": (lambda: pem(key("RSA"))[:200] + pem(key("RSA"))[260:], {}, "damaged"),
    "DER": (
        lambda: key("RSA").private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        {},
        "binary.*openssl pkey",
    ),
    "PKCS 12": (
        lambda: serialize_key_and_certificates(b"me", key("RSA"), certificate(), None, NoEncryption()),
        {},
        "pfx.*openssl pkcs12",
    ),
    "PEM from a variable, where a line break is two letters": (
        lambda: pem(key("RSA")).decode().replace("\n", r"\n"),
        {},
        "backslash .*replace",
    ),
    "two keys": (lambda: pem(key("RSA")) + pem(key("P-256")), {}, "two private keys"),
    "the name of a file": (lambda: "/etc/keys/key.pem", {}, r"Path\("),
    "nothing": (lambda: "", {}, "no key"),
    "a short RSA key": (lambda: pem(rsa.generate_private_key(65537, 1024)), {}, "1024 bits"),
    "a curve that no JWT is signed with": (lambda: pem(ec.generate_private_key(ec.SECP256K1())), {}, "secp256k1"),
    "a key for agreement": (lambda: other_pem(x25519.X25519PrivateKey.generate()), {}, "does not sign"),
    "a DSA key": (lambda: other_pem(dsa.generate_private_key(2048)), {}, "does not sign"),
    "an expired certificate": (lambda: pem(key("RSA")) + certificate_pem(begins=-9, ends=-2), {}, "expired on 20"),
    "a certificate for later": (
        lambda: pem(key("RSA")) + certificate_pem(begins=2, ends=9),
        {},
        "valid from 20.*clock",
    ),
    "another key's certificate": (lambda: pem(key("RSA", 1)) + certificate_pem(), {}, "belongs to another key"),
    "a damaged certificate": (
        lambda: pem(key("RSA")) + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        {},
        "certificate .*cannot be read",
    ),
    "an expired x5c": (
        lambda: pem(key("RSA")),
        {"headers": {"x5c": [in_base64(certificate(begins=-9, ends=-2))]}},
        "expired on 20",
    ),
    "another key's x5c": (
        lambda: pem(key("RSA", 1)),
        {"headers": {"x5c": [in_base64(certificate())]}},
        "belongs to another key",
    ),
    "another certificate's x5t#S256": (
        lambda: pem(key("RSA")) + certificate_pem(),
        {"headers": {"x5t#S256": "AAAA"}},
        "names another certificate",
    ),
    "an expired x5c of a JWK": (
        lambda: jwk("RSA", x5c=[in_base64(certificate(begins=-9, ends=-2))]),
        {},
        "expired on 20",
    ),
    "a kid that is a number": (lambda: pem(key("RSA")), {"kid": 7}, "'kid' in header must be a str"),
    "a header that makes it no signature of this key": (
        lambda: pem(key("RSA")),
        {"headers": {"alg": "HS256"}},
        "HS256",
    ),
    "a lifetime of nothing": (lambda: pem(key("RSA")), {"lifetime": 0}, "lifetime"),
    "a claim that is new each time": (lambda: pem(key("RSA")), {"claims": {"jti": "1"}}, "jti.*new"),
}


@pytest.mark.parametrize("case", WRONG)
def test_key_that_cannot_sign_is_refused_when_the_object_is_made(case):
    material, settings, words = WRONG[case]
    with pytest.raises(ValueError, match=f"(?s){words}") as refused:
        PrivateKeyJWT(material(), **settings)
    assert str(refused.value).isascii()


@pytest.mark.parametrize("case", [case for case in WRONG if "file" not in case and case != "nothing"])
def test_guarantee_11_refused_key_is_in_no_local_of_the_traceback(case):
    make, settings, _ = WRONG[case]
    with pytest.raises(ValueError, match=r"\w") as refused:
        PrivateKeyJWT(make(), **settings)
    report = "".join(traceback.TracebackException.from_exception(refused.value, capture_locals=True).format())
    assert report.count("httpx_reauth/oauth/frames.py") == 1
    assert report.count("httpx_reauth") == 1
    assert secret_part(make()) not in report


def secret_part(material: Any) -> str:
    if isinstance(material, dict):
        return str(material.get("d") or material.get("k") or material)[:40]
    return (material.decode(errors="replace") if isinstance(material, bytes) else material).replace("\n", "")[40:80]


@pytest.mark.parametrize(
    ("material", "settings", "words"),
    [
        (7, {}, "PEM, a JWK or a Path, not int"),
        (None, {}, "NoneType"),
        (b"", {"lifetime": "60"}, "lifetime .*str"),
        (b"", {"lifetime": True}, "lifetime .*bool"),
        (b"", {"audience": ["a", "b"]}, "audience must be one string"),
        (b"", {"claims": [("a", "b")]}, "claims must be a mapping"),
        (b"", {"headers": {"x5c": "AAAA"}}, "x5c is a list"),
        (b"", {"headers": None}, "headers must be a mapping, not NoneType"),
    ],
)
def test_setting_of_another_type_is_refused(material, settings, words):
    with pytest.raises(TypeError, match=words):
        PrivateKeyJWT(pem(key("P-256")) if material == b"" else material, **settings)


def test_file_that_is_not_there_is_said_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"key\.pem"):
        PrivateKeyJWT(tmp_path / "key.pem")


def test_unusable_file_is_named(tmp_path):
    (tmp_path / "key.pem").write_bytes(public_pem(key("RSA")))
    with pytest.raises(ValueError, match=r"key\.pem: This is a public key"):
        PrivateKeyJWT(tmp_path / "key.pem")


# --- certificates ---


def thumbprint(one: Any) -> str:
    return base64.urlsafe_b64encode(one.fingerprint(SHA256())).rstrip(b"=").decode()


def test_certificate_in_the_pem_is_named_by_its_thumbprint():
    expected = {"alg": "RS256", "typ": "JWT", "x5t#S256": thumbprint(certificate())}
    assert Server().header(PrivateKeyJWT(pem(key("RSA")) + certificate_pem())) == expected
    assert Server().header(PrivateKeyJWT(certificate_pem() + pem(key("RSA")))) == expected
    chain = certificate_pem(kind="P-256") + certificate_pem()  # the key's own is found among them
    assert Server().header(PrivateKeyJWT(chain + pem(key("RSA")))) == expected


def test_headers_that_name_the_certificate_win():
    x5c = {"x5c": [in_base64(certificate())]}
    assert Server().header(PrivateKeyJWT(pem(key("RSA")), headers=x5c)) == {"alg": "RS256", "typ": "JWT", **x5c}
    own = {"x5t#S256": thumbprint(certificate()) + "="}
    assert (
        Server().header(PrivateKeyJWT(pem(key("RSA")) + certificate_pem(), headers=own))["x5t#S256"] == own["x5t#S256"]
    )


# --- a key in a file is read again when it has changed ---


def replace_file(path: Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)


def test_replaced_key_signs_the_next_assertion(tmp_path):
    path, server = tmp_path / "key.pem", Server()
    path.write_bytes(pem(key("RSA")))
    grant = server.grant(PrivateKeyJWT(path))
    grant(Token())
    replace_file(path, pem(key("RSA", 1)))
    grant(Token())
    replace_file(path, pem(key("P-256")))
    grant(Token())
    for assertion, private, alg in zip(
        server.assertions, [key("RSA"), key("RSA", 1), key("P-256")], ["RS256", "RS256", "ES256"], strict=True
    ):
        verify(assertion, private, alg)


def test_key_written_in_place_signs_the_next_assertion(tmp_path):
    path, server = tmp_path / "key.pem", Server()
    path.write_bytes(pem(key("P-256")))
    grant = server.grant(PrivateKeyJWT(path))
    grant(Token())
    path.write_bytes(pem(key("P-256", 1)))
    os.utime(path, ns=(1, 1))  # on a file system with coarse times the two would look alike
    grant(Token())
    verify(server.assertions[1], key("P-256", 1), "ES256")


@pytest.mark.parametrize("spoilt", [b"", b"-----BEGIN PRIVATE KEY-----\n", None], ids=["empty", "half", "gone"])
def test_key_file_that_is_of_no_use_any_more_is_an_error_until_it_is_mended(tmp_path, spoilt):
    path, server = tmp_path / "key.pem", Server()
    path.write_bytes(pem(key("RSA")))
    grant = server.grant(PrivateKeyJWT(path))
    if spoilt is None:
        path.unlink()
    else:
        path.write_bytes(spoilt)
    with pytest.raises(RefreshError, match=r"key\.pem.*Nothing was sent"):
        grant(Token())
    assert server.assertions == []
    replace_file(path, pem(key("RSA", 1)))
    grant(Token())
    verify(server.assertions[0], key("RSA", 1), "RS256")


def test_unchanged_key_file_is_not_read_again(tmp_path, monkeypatch):
    path, server = tmp_path / "key.pem", Server()
    path.write_bytes(pem(key("RSA")))
    grant = server.grant(PrivateKeyJWT(path))
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read again"))
    grant(Token())


# --- discretion ---


def test_guarantee_11_nothing_shows_the_key_and_nothing_is_pickled(tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(pem(key("RSA")))
    secret = secret_part(pem(key("RSA")))
    for method in (PrivateKeyJWT(path, kid="1"), PrivateKeyJWT(jwk("RSA")), ClientSecretJWT("its-secret" * 4)):
        grant = Server().grant(method)
        for shown in (repr(method), repr(grant), str(vars(grant)), repr(Reauth(grant))):
            assert secret not in shown
            assert jwk("RSA")["d"] not in shown
            assert "its-secret" not in shown
        for one in (method, grant):
            with pytest.raises(TypeError, match="holds secrets"):
                pickle.dumps(one)


def test_guarantee_11_assertion_that_a_server_echoes_is_hidden():
    def handler(request: httpx.Request) -> httpx.Response:
        echo = parse_qs(request.content.decode())["client_assertion"][0]
        return httpx.Response(401, json={"error": "invalid_client", "error_description": f"bad: {echo}"})

    client = httpx.Client(transport=httpx.MockTransport(handler))
    grant = ClientCredentialsGrant(URL, "me", client_auth=PrivateKeyJWT(pem(key("P-256"))), client=client)
    with pytest.raises(RefreshError) as failure:
        grant(Token())
    assert failure.value.error_description == "bad: ***"


# --- the extra ---

WITHOUT_JOSERFC = """
    import sys

    import httpx_reauth.oauth
    assert not {"joserfc", "cryptography", "secrets"} & set(sys.modules) - {"secrets"}, "imported too early"

    sys.modules["joserfc"] = None
    from httpx_reauth.oauth import ClientSecretJWT, PrivateKeyJWT
    for make in (lambda: ClientSecretJWT("secret"), lambda: PrivateKeyJWT("key")):
        try:
            make()
        except ImportError as error:
            assert 'pip install "httpx-reauth[jwt]"' in str(error)
        else:
            raise AssertionError
    print("done")
"""


def test_joserfc_is_imported_at_first_use_and_its_absence_names_the_command():
    program = [sys.executable, "-c", textwrap.dedent(WITHOUT_JOSERFC)]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout.strip() == "done", ended.stderr
