"""Tests of client authentication by assertions and certificates: what is sent, and that it is new each time."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from loopback_tls import two_sides
from raw_server import RawServer, answers
from sites import HttpLibrary

from httpx_reauth import Reauth, RefreshError, Token
from httpx_reauth.oauth import (
    ClientAssertion,
    ClientCredentialsGrant,
    ClientSecretJWT,
    Issuer,
    JWTBearerGrant,
    PrivateKeyJWT,
    RefreshTokenGrant,
    SignedAssertion,
    TLSClientAuth,
    TokenExchangeGrant,
)
from httpx_reauth.testing import AuthorizationServer, ManualClock, faults

URL = "https://id.example.com/token"
ISSUER = "https://id.example.com/realms/a"
OLD = Token("old", refresh_token="r-1")
SECRET = "a-secret-that-both-sides-know-well"
PRIVATE = ec.generate_private_key(ec.SECP256R1())
PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PUBLIC = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

SIGNED = SignedAssertion(PEM, iss="robot", sub="robot", aud=URL)


def bearer(*arguments: Any, **settings: Any) -> JWTBearerGrant:
    return JWTBearerGrant(*arguments, assertion=SIGNED, **settings)


def exchange(*arguments: Any, **settings: Any) -> TokenExchangeGrant:
    return TokenExchangeGrant(*arguments, subject_token="a-token-of-a-user", **settings)


each_grant = pytest.mark.parametrize("grant_type", [ClientCredentialsGrant, RefreshTokenGrant, bearer, exchange])


def make(name: str, **settings: Any) -> Any:
    return PrivateKeyJWT(PEM, **settings) if name == "private_key_jwt" else ClientSecretJWT(SECRET, **settings)


each_signed = pytest.mark.parametrize("name", ["private_key_jwt", "client_secret_jwt"])


class Server:
    """A token endpoint that answers as it is told to, and keeps the forms that it gets."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.forms: list[dict[str, str]] = []
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.forms.append({name: values[0] for name, values in parse_qs(request.content.decode()).items()})
        status = self.statuses.pop(0) if self.statuses else 200
        return httpx.Response(status, json={"access_token": "fresh"} if status == 200 else {"error": "busy"})

    def grant(self, grant_type: Any, where: Any = URL, **settings: Any) -> Any:
        return grant_type(where, "me", client=httpx.Client(transport=httpx.MockTransport(self)), **settings)

    def claims(self) -> list[dict[str, Any]]:
        options = {"verify_signature": False}
        return [jwt.decode(form["client_assertion"], options=options) for form in self.forms]

    def header(self) -> dict[str, Any]:
        return jwt.get_unverified_header(self.forms[-1]["client_assertion"])


# --- what an assertion says (RFC 7523 section 3) ---


@each_grant
@each_signed
def test_assertion_says_who_for_whom_and_until_when(grant_type, name):
    server = Server()
    server.grant(grant_type, client_auth=make(name))(OLD)
    (claims,), (form,) = server.claims(), server.forms
    assert {key: claims[key] for key in ("iss", "sub", "aud")} == {"iss": "me", "sub": "me", "aud": URL}
    now = time.time()
    assert now - 20 < claims["iat"] <= now - 9  # the server's clock may be behind
    assert now + 50 < claims["exp"] <= now + 61
    assert len(claims["jti"]) >= 22
    assert set(claims) == {"iss", "sub", "aud", "iat", "exp", "jti"}
    assert form["client_id"] == "me"
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert "client_secret" not in form
    assert "authorization" not in server.requests[0].headers


@each_signed
@pytest.mark.parametrize(
    ("where", "settings", "audience", "typ"),
    [
        (URL, {}, URL, "JWT"),
        (Issuer.of(token_endpoint=URL), {}, URL, "JWT"),
        (Issuer.of(token_endpoint=URL, issuer=ISSUER), {}, ISSUER, "client-authentication+jwt"),
        (Issuer.of(token_endpoint=URL, issuer=ISSUER), {"audience": URL}, URL, "JWT"),
        (Issuer.of(token_endpoint=URL, issuer="https://id.example.com/{tenantid}/v2.0"), {}, URL, "JWT"),
        (URL, {"audience": ISSUER}, ISSUER, "JWT"),
    ],
)
def test_audience_is_the_issuer_where_it_is_known_and_one_string(name, where, settings, audience, typ):
    server = Server()
    server.grant(ClientCredentialsGrant, where, client_auth=make(name, **settings))(OLD)
    assert server.claims()[0]["aud"] == audience
    assert server.header()["typ"] == typ


@pytest.mark.parametrize(("typ", "expected"), [(..., "JWT"), ("at+jwt", "at+jwt"), (None, None)])
def test_typ_may_be_set_or_left_out(typ, expected):
    server = Server()
    server.grant(ClientCredentialsGrant, client_auth=PrivateKeyJWT(PEM, typ=typ))(OLD)
    assert server.header().get("typ") == expected


def test_further_claims_go_along_and_win():
    server = Server()
    method = PrivateKeyJWT(PEM, lifetime=300, claims={"sub": "you", "tenant": "acme"})
    server.grant(ClientCredentialsGrant, client_auth=method)(OLD)
    (claims,) = server.claims()
    assert (claims["iss"], claims["sub"], claims["tenant"]) == ("me", "you", "acme")
    assert claims["exp"] - time.time() > 280


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_secret_signs_with_the_hash_that_is_asked_for(alg):
    server = Server()
    server.grant(ClientCredentialsGrant, client_auth=ClientSecretJWT(SECRET * 2, alg=alg))(OLD)
    jwt.decode(server.forms[0]["client_assertion"], SECRET * 2, algorithms=[alg], audience=URL)


# --- each attempt proves it anew ---


@each_grant
@each_signed
def test_503_twice_then_an_answer_are_three_different_jti_and_one_token(grant_type, name):
    server = Server(503, 503, 200)
    assert server.grant(grant_type, client_auth=make(name))(OLD).access_token == "fresh"
    assert len({claims["jti"] for claims in server.claims()}) == 3
    assert len(server.forms) == 3


@each_grant
@each_signed
def test_server_that_takes_each_jti_once_takes_every_attempt(grant_type, name):
    settings: dict[str, Any] = {"client_auth": [name], "subject_tokens": lambda *_: True}
    if name == "private_key_jwt":
        settings["client_keys"] = {"me": PUBLIC}
    else:
        settings["clients"] = {"me": SECRET}
    with AuthorizationServer(**settings) as server, server.serve() as base_url:
        server.token_endpoint.fail(faults.unavailable().after_processing(), faults.unavailable())
        token = server.issue(client_id="me")
        grant = grant_type(f"{base_url}/token", "me", client_auth=make(name))
        if grant_type is RefreshTokenGrant:  # the first attempt has spent it
            server.token_endpoint.heal()
        auth = Reauth(grant, token=token)
        assert auth.get_token(rejected=auth.store.state.token).access_token
        assert server.assertions_replayed == 0


@each_signed
def test_the_times_of_an_assertion_are_those_of_the_reauths_clock(name):
    server, clock = Server(), ManualClock(time=4_000_000_000.0)
    auth = Reauth(server.grant(ClientCredentialsGrant, client_auth=make(name)), clock=clock)
    auth.renew()
    clock.advance(500)
    auth.renew()
    assert [claims["iat"] for claims in server.claims()] == [3_999_999_990, 4_000_000_490]
    assert [claims["exp"] for claims in server.claims()] == [4_000_000_060, 4_000_000_560]


@each_grant
def test_the_function_of_an_assertion_is_asked_for_each_attempt(grant_type):
    server, left = Server(503, 503, 200), ["one", "two", "three"]
    grant = server.grant(grant_type, client_auth=ClientAssertion(lambda: left.pop(0)))
    assert grant(OLD).access_token == "fresh"
    assert [form["client_assertion"] for form in server.forms] == ["one", "two", "three"]
    assert {form["client_id"] for form in server.forms} == {"me"}


def test_secret_of_an_assertion_may_be_a_function():
    server = Server()
    server.grant(ClientCredentialsGrant, client_auth=ClientSecretJWT(lambda: SECRET))(OLD)
    jwt.decode(server.forms[0]["client_assertion"], SECRET, algorithms=["HS256"], audience=URL)


def fails() -> str:
    raise OSError("no such file")


@pytest.mark.parametrize(
    ("function", "words"),
    [(fails, "source raised"), (lambda: None, "NoneType"), (lambda: "", "an empty string"), (lambda: "a\nb", "strip")],
)
def test_function_that_brings_no_assertion_is_an_error_before_anything_is_sent(function, words):
    server = Server()
    with pytest.raises(RefreshError, match=words):
        server.grant(ClientCredentialsGrant, client_auth=ClientAssertion(function))(OLD)
    assert server.forms == []


# --- settings ---


async def coroutine_function() -> str:
    return "an assertion"


@each_grant
@pytest.mark.parametrize(
    ("make_method", "error", "words"),
    [
        (lambda: PrivateKeyJWT, TypeError, r"client_auth=PrivateKeyJWT\(\.\.\.\)"),
        (lambda: TLSClientAuth, TypeError, r"client_auth=TLSClientAuth\(\.\.\.\)"),
        (lambda: "private_key_jwt", ValueError, "PrivateKeyJWT"),
        (lambda: ("me", "secret"), ValueError, "client_secret_basic"),
        (lambda: httpx.BasicAuth("me", "secret"), ValueError, "client_secret_basic"),
        (lambda: ClientAssertion("eyJ"), TypeError, "source must be a function"),
        (lambda: ClientAssertion(coroutine_function), TypeError, "plain function"),
        (lambda: ClientSecretJWT(""), ValueError, "environment variable"),
        (lambda: ClientSecretJWT(PEM.decode()), ValueError, "PrivateKeyJWT"),
        (lambda: ClientSecretJWT(PUBLIC.decode()), ValueError, "PrivateKeyJWT"),
        (lambda: ClientSecretJWT("secret\n"), ValueError, r"without \.strip\(\)"),
        (lambda: ClientSecretJWT(SECRET, alg="RS256"), ValueError, "PrivateKeyJWT"),
        (lambda: ClientSecretJWT(SECRET, alg="none"), ValueError, "HS256"),
        (lambda: ClientSecretJWT(None), TypeError, "secret must be"),
        (lambda: ClientSecretJWT(coroutine_function), TypeError, "plain function"),
        (lambda: ClientSecretJWT(SECRET, lifetime=-1), ValueError, "lifetime"),
        (lambda: ClientSecretJWT(SECRET, audience=7), TypeError, "audience"),
    ],
)
def test_method_that_cannot_be_meant_is_refused_with_advice(grant_type, make_method, error, words):
    with pytest.raises(error, match=words):
        grant_type(URL, "me", client_auth=make_method())


@each_grant
@pytest.mark.parametrize("name", ["private_key_jwt", "client_secret_jwt", "assertion", "tls"])
def test_secret_beside_another_method_is_refused(grant_type, name):
    others = {"assertion": ClientAssertion(lambda: "a"), "tls": TLSClientAuth()}
    with pytest.raises(ValueError, match="would not send the client_secret"):
        grant_type(URL, "me", "secret", client_auth=others.get(name) or make(name))


# --- certificates (RFC 8705) ---


@each_grant
def test_with_a_certificate_the_client_says_its_id_alone(grant_type):
    server = Server()
    server.grant(grant_type, client_auth=TLSClientAuth())(OLD)
    (form,) = server.forms
    assert (form["client_id"], "client_secret" in form, "client_assertion" in form) == ("me", False, False)
    assert "authorization" not in server.requests[0].headers


@each_grant
def test_with_a_certificate_the_aliases_of_the_issuer_count(grant_type):
    aliases = {"token_endpoint": "https://mtls.example.com/token"}
    issuer = Issuer.of(token_endpoint=URL, mtls_endpoint_aliases=aliases)
    server = Server()
    server.grant(grant_type, issuer, client_auth=TLSClientAuth())(OLD)
    server.grant(grant_type, issuer, client_auth="none")(OLD)
    server.grant(grant_type, Issuer.of(token_endpoint=URL), client_auth=TLSClientAuth())(OLD)
    assert [str(request.url) for request in server.requests] == [aliases["token_endpoint"], URL, URL]


@each_grant
def test_server_that_wants_a_certificate_gets_the_one_of_the_client(library: HttpLibrary, grant_type, tmp_path: Path):
    server_side, client_side = two_sides(tmp_path)
    server_side.verify_mode = ssl.CERT_REQUIRED
    server_side.load_verify_locations(tmp_path / "server.pem")
    client_side.load_cert_chain(tmp_path / "server.pem")
    with RawServer(answers(), tls=server_side) as server, library.package.Client(verify=client_side) as client:
        grant = grant_type(server.url, "me", client_auth=TLSClientAuth(), client=client)
        auth = library.Reauth(grant, token=OLD)
        assert auth.get_token(rejected=OLD).access_token == "fresh"


# --- chosen by the server's document ---


@pytest.mark.parametrize(
    ("supported", "sent"),
    [
        (None, "basic"),
        (["client_secret_post"], "post"),
        (["private_key_jwt", "client_secret_jwt"], "jwt"),
        (["client_secret_post", "client_secret_basic"], "basic"),
    ],
)
def test_server_says_how_a_secret_is_shown_where_the_user_has_not_said(supported, sent):
    server = Server()
    issuer = Issuer.of(token_endpoint=URL, token_endpoint_auth_methods_supported=supported)
    grant = ClientCredentialsGrant(issuer, "me", SECRET, client=httpx.Client(transport=httpx.MockTransport(server)))
    grant(OLD)
    (form,), (request,) = server.forms, server.requests
    found = {
        "basic": "authorization" in request.headers,
        "post": form.get("client_secret") == SECRET,
        "jwt": "client_assertion" in form,
    }
    assert [name for name, is_there in found.items() if is_there] == [sent]
