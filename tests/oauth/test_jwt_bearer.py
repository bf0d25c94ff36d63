"""Tests of the JWT bearer grant (RFC 7523 section 2.1): a new assertion for each attempt, and early checks."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from traceback import walk_tb
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from httpx_reauth import InsecureOrigin, Reauth, RefreshError, SignInRequired, Token
from httpx_reauth.identity import FileIdentity
from httpx_reauth.oauth import Issuer, JWTBearerGrant, PrivateKeyJWT, SignedAssertion, TLSClientAuth, TokenRequest
from httpx_reauth.testing import AuthorizationServer, ManualClock, faults

KEY = ECKey.generate_key("P-256")
PRIVATE, PUBLIC = KEY.as_pem(private=True), KEY.as_pem(private=False)
URL = "https://id.example.com/token"
NAMES: dict[str, Any] = {"iss": "robot", "sub": "ada", "aud": URL}


def signed(**settings: Any) -> SignedAssertion:
    return SignedAssertion(PRIVATE, **{**NAMES, **settings})


def claims_of(assertion: str) -> dict[str, Any]:
    return jwt.decode(assertion, KEY, algorithms=["ES256"]).claims


@pytest.fixture
def strict(clock: ManualClock) -> Iterator[AuthorizationServer]:
    """A server that knows the robot's key."""
    with AuthorizationServer(trusted_issuers={"robot": PUBLIC}, clock=clock, client_auth=("none",)) as server:
        yield server


def grant_at(server: AuthorizationServer, package: Any, **settings: Any) -> JWTBearerGrant:
    client = package.Client(transport=server.transport(package))
    settings = {"assertion": signed(), "client": client, **settings}
    return JWTBearerGrant(URL, **settings)


# What is sent


def test_the_assertion_is_sent_and_nothing_else_is_needed(strict, library, clock):
    auth = library.Reauth(grant_at(strict, library.package), clock=clock)
    with library.package.Client(transport=strict.transport(library.package), auth=auth) as client:
        assert client.get("https://api.test/me").status_code == 200
    (request,) = strict.requests_to("/token")
    assert request.form.keys() == {"grant_type", "assertion"}
    assert request.form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert request.authorization is None


@pytest.mark.anyio
async def test_it_serves_async_clients(strict, library, clock, anyio_backend):
    auth = library.Reauth(grant_at(strict, library.package), clock=clock)
    async with library.package.AsyncClient(transport=strict.transport(library.package), auth=auth) as client:
        assert (await client.get("https://api.test/me")).status_code == 200


def test_each_attempt_has_an_assertion_of_its_own(strict, library, clock):
    strict.token_endpoint.fail(faults.unavailable(), faults.unavailable())
    assert library.Reauth(grant_at(strict, library.package), clock=clock).get_token().access_token
    ids = {claims_of(request.form["assertion"])["jti"] for request in strict.requests_to("/token")}
    assert (len(ids), strict.tokens_issued, strict.assertions_replayed) == (3, 1, 0)


def test_an_attempt_whose_answer_was_lost_is_no_replay(strict, library, clock):
    strict.token_endpoint.fail(faults.dropped().after_processing())
    assert library.Reauth(grant_at(strict, library.package), clock=clock).get_token().access_token
    assert (strict.token_requests, strict.assertions_replayed) == (2, 0)


def test_both_spellings_of_basic_have_an_assertion_of_their_own():
    sent: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        if len(sent) == 1:
            return httpx.Response(401, json={"error": "invalid_client"})
        return httpx.Response(200, json={"access_token": "fresh"})

    client = httpx.Client(transport=httpx.MockTransport(handler))
    count = iter(range(9))
    grant = JWTBearerGrant(
        URL,
        "app",
        "a+b/c",
        client_auth="client_secret_basic",
        assertion=lambda: f"one.{next(count)}.two",
        client=client,
    )
    assert grant(Token()).access_token == "fresh"
    assert [dict(httpx.QueryParams(request.content.decode()))["assertion"] for request in sent] == [
        "one.0.two",
        "one.1.two",
    ]
    assert len({request.headers["authorization"] for request in sent}) == 2


def test_what_the_assertion_says():
    claims = claims_of(signed(lifetime=180.0, claims={"scope": "read"})())
    assert {name: claims[name] for name in ("iss", "sub", "aud", "scope")} == {**NAMES, "scope": "read"}
    assert 180 <= claims["exp"] - claims["iat"] <= 192  # it begins 10 s earlier
    assert claims_of(signed()())["jti"] != claims["jti"]


def test_an_assertion_may_be_for_several_audiences_and_have_headers():
    assertion = signed(aud=["https://a.example.com", "https://b.example.com"], kid="7", headers={"cty": "JWT"})()
    assert claims_of(assertion)["aud"] == ["https://a.example.com", "https://b.example.com"]
    header = jwt.decode(assertion, KEY, algorithms=["ES256"]).header
    assert {name: header[name] for name in ("alg", "typ", "kid", "cty")} == {
        "alg": "ES256",
        "typ": "JWT",
        "kid": "7",
        "cty": "JWT",
    }


def test_an_assertion_may_be_for_nobody_else_than_who_signs():
    assertion = signed(sub=None)
    assert "sub" not in claims_of(assertion())
    assert "sub=" not in repr(assertion)


def test_an_rsa_key_may_sign_with_ps256():
    key = RSAKey.generate_key(2048)
    assertion = SignedAssertion(key.as_pem(private=True), alg="PS256", **NAMES)()
    assert jwt.decode(assertion, key, algorithms=["PS256"]).header["alg"] == "PS256"


def test_the_times_of_an_assertion_are_those_of_the_reauths_clock(strict, library):
    clock = ManualClock(time=4_000_000_000.0)
    strict.clock = clock
    assert library.Reauth(grant_at(strict, library.package), clock=clock).get_token().access_token
    assert claims_of(strict.requests[0].form["assertion"])["iat"] == 4_000_000_000 - 10
    clock.advance(4000)
    grant_at(strict, library.package)  # another one, by the same clock
    assert library.Reauth(grant_at(strict, library.package), clock=clock).get_token().access_token


def test_a_clock_that_is_wrong_for_a_moment_does_not_end_a_service(strict, library, clock):
    strict.clock = ManualClock(time=clock.time() + 3600)
    auth = library.Reauth(grant_at(strict, library.package), clock=clock)
    with pytest.raises(RefreshError) as failure:
        auth.get_token()
    assert failure.value.error == "invalid_grant"
    clock.jump(3600)
    clock.advance(61)
    assert auth.get_token().access_token


def test_a_key_file_that_was_replaced_signs_from_then_on(tmp_path, strict, library, clock):
    path, other = tmp_path / "key.pem", ECKey.generate_key("P-256")
    path.write_bytes(PRIVATE)
    grant = grant_at(strict, library.package, assertion=SignedAssertion(path, **NAMES))
    auth = library.Reauth(grant, clock=clock)
    auth.get_token()
    path.write_bytes(other.as_pem(private=True) + b"\n")
    strict.trusted_issuers = {"robot": other.as_pem(private=False)}
    assert auth.renew().access_token


def test_an_identity_of_the_platform_is_an_assertion(tmp_path, strict, library, clock):
    path = tmp_path / "token"
    strict.trusted_issuers = None
    auth = library.Reauth(grant_at(strict, library.package, assertion=FileIdentity(path)), clock=clock)
    for number in range(2):
        path.write_text(signed(claims={"number": number})())
        auth.renew()
    assert [claims_of(request.form["assertion"])["number"] for request in strict.requests_to("/token")] == [0, 1]


def test_an_issuer_and_a_key_for_the_client_too():
    server = AuthorizationServer(trusted_issuers={"robot": PUBLIC}, client_keys={"app": PUBLIC})
    with server, server.serve() as url:
        server.token_endpoint.fail(faults.unavailable())
        grant = JWTBearerGrant(
            Issuer(url), client_id="app", client_auth=PrivateKeyJWT(PRIVATE), assertion=signed(aud=url), scope="read"
        )
        assert grant(Token()).scope == "read"
    forms = [request.form for request in server.requests_to("/token")]
    assert len({form["assertion"] for form in forms} | {form["client_assertion"] for form in forms}) == 4
    assert (server.tokens_issued, server.assertions_replayed) == (1, 0)


# What the function returns


def failing() -> str:
    raise OSError("no vault")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (failing, "OSError"),
        (lambda: None, "NoneType"),
        (lambda: b"one.two.three", "bytes"),
        (lambda: "", "empty string"),
        (lambda: "one.two.three\n", "strip"),
    ],
)
def test_a_function_that_returns_no_assertion_is_said_and_nothing_is_sent(strict, library, clock, function, words):
    auth = library.Reauth(grant_at(strict, library.package, assertion=function), clock=clock)
    with pytest.raises(RefreshError, match=words):
        auth.get_token()
    assert strict.token_requests == 0


def test_on_behalf_of_somebody_who_has_to_sign_in_is_not_final(strict, library, clock):
    strict.trusted_issuers = None
    user = library.Reauth(lambda _: Token(signed()()), clock=clock)
    user.sign_in(Token(signed()()))
    users = iter([SignInRequired("sign in"), SignInRequired("sign in"), user.get_token()])

    def assertion() -> str:
        one = next(users)
        if isinstance(one, SignInRequired):
            raise one
        return one.access_token

    auth = library.Reauth(grant_at(strict, library.package, assertion=assertion), clock=clock)
    for _ in range(2):
        with pytest.raises(SignInRequired):
            auth.get_token()
    assert auth.get_token().access_token


# Settings


async def coroutine() -> str:
    return "one.two.three"


@pytest.mark.parametrize(
    ("settings", "error", "advice"),
    [
        ({"assertion": "s3cret.s3cret.s3cret"}, TypeError, "new assertion each time"),
        ({"assertion": None}, TypeError, "NoneType"),
        ({"assertion": Reauth(lambda token: token)}, TypeError, r"lambda: auth\.get_token\(\)\.access_token"),
        ({"assertion": FileIdentity}, TypeError, r"FileIdentity\(\.\.\.\)"),
        ({"assertion": coroutine}, TypeError, "worker thread"),
        ({"client_id": ""}, ValueError, "client_id"),
        ({"client_secret": "s3cret"}, ValueError, "client_id"),
        ({"client_id": "app", "client_secret": "s3cret"}, ValueError, "client_secret_basic"),
        ({"client_auth": TLSClientAuth()}, ValueError, "client_id"),
        ({"client_auth": PrivateKeyJWT(PRIVATE)}, ValueError, "client_id"),
        ({"client_auth": "basic"}, ValueError, "client_secret_basic"),
        ({"basic_encoding": "utf-8"}, ValueError, "basic_encoding"),
        ({"extra": {"assertion": "s3cret"}}, ValueError, "extra must not hold assertion"),
        ({"scope": 5}, TypeError, "scope"),
        ({"token_url": "http://id.example.com/token"}, InsecureOrigin, "allow_http"),
    ],
)
def test_settings_of_the_grant_are_checked_when_it_is_made(settings, error, advice):
    with pytest.raises(error, match=advice) as refused:
        JWTBearerGrant(**{"token_url": URL, "assertion": signed(), **settings})
    check_discretion(refused.value)


@pytest.mark.parametrize(
    ("settings", "error", "advice"),
    [
        ({"key": PUBLIC}, ValueError, "public key"),
        ({"key": "key.pem"}, ValueError, "Path"),
        ({"key": b""}, ValueError, "no PEM"),
        ({"key": 5}, TypeError, "int"),
        ({"alg": "RS256"}, ValueError, "ES256"),
        ({"iss": ""}, ValueError, "iss"),
        ({"sub": 5}, TypeError, "sub"),
        ({"sub": None, "claims": {"sub": "eve"}}, ValueError, "sub"),
        ({"aud": []}, TypeError, "aud"),
        ({"aud": [""]}, ValueError, "aud"),
        ({"aud": httpx.URL(URL)}, TypeError, "aud"),
        ({"lifetime": 0}, ValueError, "lifetime"),
        ({"lifetime": "60"}, TypeError, "lifetime"),
        ({"claims": {"jti": "1"}}, ValueError, "jti"),
        ({"claims": {"sub": "eve"}}, ValueError, "sub"),
        ({"claims": [("a", "b")]}, TypeError, "mapping"),
        ({"claims": {"s3cret": object()}}, (TypeError, ValueError), "JSON"),
    ],
)
def test_settings_of_an_assertion_are_checked_when_it_is_made(settings, error, advice):
    with pytest.raises(error, match=advice) as refused:
        SignedAssertion(**{"key": PRIVATE, **NAMES, **settings})
    check_discretion(refused.value)


def check_discretion(error: BaseException) -> None:
    """No frame of ours that is still attached holds a key or a secret."""
    assert "s3cret" not in str(error)
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_code.co_filename != __file__:
            held = repr(frame.f_locals)
            assert "s3cret" not in held
            assert "PRIVATE KEY" not in held


def test_guarantee_11_neither_shows_what_it_holds_nor_is_pickled():
    assertion = signed(claims={"mail": "s3cret"})
    grant = JWTBearerGrant(URL, "app", assertion=assertion, extra={"more": "s3cret"})
    for one in (assertion, grant):
        assert "s3cret" not in repr(one)
        assert "PRIVATE" not in repr(one)
        assert copy.copy(one) is copy.deepcopy(one) is one
        with pytest.raises(TypeError, match="holds secrets"):
            pickle.dumps(one)
    assert "robot" in repr(assertion)
    assert isinstance(hash(grant), int)
    assert grant == JWTBearerGrant(URL, "app", assertion=assertion, extra={"more": "s3cret"})


def test_the_flow_does_no_io_and_spends_nothing():
    flow = JWTBearerGrant(URL, assertion=lambda: "one.two.three", scope="read").flow(Token())
    request = next(flow)
    assert isinstance(request, TokenRequest)
    assert request.per_attempt is not None
    assert (request.spends, request.per_attempt()) == (None, {"assertion": "one.two.three"})
    with pytest.raises(StopIteration) as end:
        flow.send(httpx.Response(200, content=json.dumps({"access_token": "fresh"})))
    assert end.value.value == Token("fresh")
