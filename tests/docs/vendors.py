"""The keys that the pages read, and stand-ins for the token endpoints of Google and others, with the same checks."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import respx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.registry import HeaderParameter

ENTRA = "https://login.microsoftonline.com/00000000-0000-0000-0000-000000000000"
TOKEN = {"access_token": "a", "expires_in": 3600}


@cache
def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def _pem() -> bytes:
    return _rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@cache
def _certificate() -> x509.Certificate:
    name, now = x509.Name([]), datetime.now(timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(_rsa_key().public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(days=1))
    return builder.not_valid_after(now + timedelta(days=1)).sign(_rsa_key(), SHA256())


def write_keys(*, kind: str) -> None:
    """Write the files that a page reads into the current folder."""
    if kind == "EC":
        key = ECKey.generate_key("P-256")
        Path("key.pem").write_bytes(key.as_pem(private=True))
        Path("public.pem").write_bytes(key.as_pem(private=False))
        return
    Path("key.pem").write_bytes(_pem())
    Path("key-and-certificate.pem").write_bytes(_pem() + _certificate().public_bytes(Encoding.PEM))


def _checked(assertion: str, *, alg: str, lives: int, **expected: object) -> Mapping[str, Any]:
    """Check `assertion`, and that it has the claims `expected`. Return its header and its claims."""
    registry = JWSRegistry({"x5t#S256": HeaderParameter("the certificate's hash", "str")}, algorithms=[alg])
    token = jwt.decode(assertion, RSAKey.import_key(_pem()), algorithms=[alg], registry=registry)
    said = {**token.header, **token.claims}
    assert {name: said.get(name) for name in expected} == expected
    assert said["exp"] - said["iat"] <= lives + 11  # it begins ten seconds earlier
    return said


def serve_vendors(router: respx.Router) -> None:
    """Make `router` answer as the vendors do, if a request is as they want it."""

    def form_of(request: httpx.Request) -> dict[str, str]:
        return dict(httpx.QueryParams(request.content.decode()))

    def google(request: httpx.Request) -> httpx.Response:
        url = "https://oauth2.googleapis.com/token"
        said = _checked(
            form_of(request)["assertion"], alg="RS256", lives=3600, aud=url, kid="private-key-id", typ="JWT"
        )
        assert "sub" not in said
        assert said["scope"]
        return httpx.Response(200, json=TOKEN)

    def github(request: httpx.Request) -> httpx.Response:
        scheme, signed = request.headers["Authorization"].split()
        assert (scheme, bool(_checked(signed, alg="RS256", lives=600))) == ("Bearer", True)
        return httpx.Response(201, json={"token": "ghs_a", "expires_at": "2099-01-01T00:00:00Z"})

    def salesforce(request: httpx.Request) -> httpx.Response:
        _checked(form_of(request)["assertion"], alg="RS256", lives=180, aud="https://login.salesforce.com")
        return httpx.Response(200, json={"access_token": "a", "instance_url": "https://acme.my.salesforce.com"})

    def entra(request: httpx.Request) -> httpx.Response:
        form, url = form_of(request), f"{ENTRA}/oauth2/v2.0/token"
        thumbprint = base64.urlsafe_b64encode(_certificate().fingerprint(SHA256())).rstrip(b"=").decode()
        client = form["client_id"]
        expected: dict[str, object] = {"aud": url, "iss": client, "sub": client, "typ": "JWT", "x5t#S256": thumbprint}
        _checked(form["client_assertion"], alg="PS256", lives=600, **expected)
        return httpx.Response(200, json=TOKEN)

    def okta(request: httpx.Request) -> httpx.Response:
        form = form_of(request)
        _checked(form["client_assertion"], alg="RS256", lives=3600, aud=str(request.url), typ="JWT", kid="the-key-id")
        assert form["scope"]
        return httpx.Response(200, json=TOKEN)

    def auth0(request: httpx.Request) -> httpx.Response:
        form = form_of(request)
        said = _checked(form["client_assertion"], alg="RS256", lives=300, aud="https://acme.eu.auth0.com/", typ="JWT")
        assert (bool(said["jti"]), form["audience"]) == (True, "https://api.example.com")
        return httpx.Response(200, json=TOKEN)

    def document(issuer: str, token_endpoint: str) -> httpx.Response:
        methods = ["client_secret_post", "private_key_jwt", "client_secret_basic"]
        fields = {"issuer": issuer, "token_endpoint": token_endpoint, "token_endpoint_auth_methods_supported": methods}
        return httpx.Response(200, content=json.dumps(fields))

    router.post("https://oauth2.googleapis.com/token").mock(side_effect=google)
    router.post("https://api.github.com/app/installations/42/access_tokens").mock(side_effect=github)
    router.post("https://login.salesforce.com/services/oauth2/token").mock(side_effect=salesforce)
    router.post(f"{ENTRA}/oauth2/v2.0/token").mock(side_effect=entra)
    router.post("https://acme.okta.com/oauth2/v1/token").mock(side_effect=okta)
    router.post("https://acme.eu.auth0.com/oauth/token").mock(side_effect=auth0)
    where = "/.well-known/openid-configuration"
    router.get(f"{ENTRA}/v2.0{where}").mock(return_value=document(f"{ENTRA}/v2.0", f"{ENTRA}/oauth2/v2.0/token"))
    found = document("https://acme.eu.auth0.com/", "https://acme.eu.auth0.com/oauth/token")
    router.get(f"https://acme.eu.auth0.com{where}").mock(return_value=found)
    router.get(path__regex=r"/\.well-known/").respond(404)
