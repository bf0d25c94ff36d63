"""Tests against servers of other projects: oidc-provider and node-oauth/oauth2-server, which run on Node.js."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus

import httpx
import node_servers
import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey
from node_servers import NATIVE, Person
from signing_in import get, skip_without

from httpx_reauth import Reauth, RefreshError, Token
from httpx_reauth.oauth import (
    ClientAssertion,
    ClientCredentialsGrant,
    Issuer,
    PrivateKeyJWT,
    RefreshTokenGrant,
    TokenExchangeGrant,
)
from httpx_reauth.signin import BrowserSignIn, DevicePrompt, DeviceSignIn, SignInDenied, SignInExpired

SECRET = "the secret of/the+exchanger"
API = "https://api.example.com/"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


@pytest.fixture(scope="module")
def keys() -> dict[str, Any]:
    """Make a private key for each algorithm with which a service signs."""
    return {
        "RS256": RSAKey.generate_key(2048, private=True),
        "ES256": ECKey.generate_key("P-256", private=True),
        "EdDSA": OKPKey.generate_key("Ed25519", private=True),
    }


@pytest.fixture(scope="module")
def provider(keys) -> Iterator[str]:
    """Run oidc-provider, and return its URL."""
    services = [
        {
            "client_id": alg,
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_signing_alg": alg,
            "jwks": {"keys": [{**key.as_dict(private=False), "kid": "1", "use": "sig"}]},
            "grant_types": ["client_credentials"],
            "redirect_uris": [],
            "response_types": [],
        }
        for alg, key in keys.items()
    ]
    exchanger = {
        "client_id": "exchanger",
        "client_secret": SECRET,
        "grant_types": [EXCHANGE],
        "redirect_uris": [],
        "response_types": [],
    }
    with node_servers.running("oidc_provider.mjs", {"clients": [NATIVE, exchanger, *services]}) as url:
        yield url


def quiet(_: object) -> None:
    """Show nothing."""


# oidc-provider


def test_a_person_signs_in_and_the_token_is_renewed_from_then_on(provider, run):
    issuer = Issuer(provider)
    settings: dict[str, Any] = {"scope": "openid offline_access", "extra": {"prompt": "consent"}}
    token = run(BrowserSignIn(issuer, "cli", open=Person(), **settings), show=quiet)
    with Reauth(RefreshTokenGrant(issuer, "cli")) as auth:
        auth.sign_in(token)
        with httpx.Client(base_url=provider, auth=auth) as client:
            assert client.get("/me").json()["sub"]
        renewed = auth.get_token(rejected=token)
        assert renewed.access_token != token.access_token
        assert renewed.refresh_token != token.refresh_token  # oidc-provider rotates the refresh tokens of native apps
        assert renewed.scope == "openid offline_access"


def test_one_sign_in_is_discovered_once_and_its_code_is_sent_once(provider):
    before = len(get(f"{provider}/the-tests/seen").json())
    BrowserSignIn(Issuer(provider), "cli", scope="openid", open=Person()).run(show=quiet)
    seen = get(f"{provider}/the-tests/seen").json()[before:]
    paths = [path for method, path, _ in seen if not path.startswith(("/auth", "/interaction"))]
    assert paths == ["/.well-known/oauth-authorization-server", "/token"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_the_redirect_uri_is_one_that_a_server_admits_for_native_apps(provider, host):
    """The server admits any port, as RFC 8252 section 7.3 says."""
    skip_without(host)
    assert BrowserSignIn(Issuer(provider), "cli", scope="openid", host=host, open=Person()).run(show=quiet).access_token


def test_a_user_who_refuses_is_a_denied_sign_in(provider, run):
    with pytest.raises(SignInDenied) as failure:
        run(BrowserSignIn(Issuer(provider), "cli", scope="openid", open=Person(refuses=True)), show=quiet)
    assert failure.value.error == "access_denied"
    assert failure.value.error_description


def test_the_server_names_itself_in_its_answer_and_another_one_is_refused(provider):
    """The user has the document of another server (e.g. of a hostile one), and this server answers (RFC 9207)."""
    endpoints = httpx.get(f"{provider}/.well-known/openid-configuration").json()
    issuer = Issuer.of(
        issuer="https://another.example.com",
        authorization_endpoint=endpoints["authorization_endpoint"],
        token_endpoint=endpoints["token_endpoint"],
        authorization_response_iss_parameter_supported=True,
    )
    before = [path for _, path, _ in get(f"{provider}/the-tests/seen").json()].count("/token")
    with pytest.raises(SignInDenied, match="RFC 9207"):
        BrowserSignIn(issuer, "cli", scope="openid", open=Person()).run(show=quiet)
    assert [path for _, path, _ in get(f"{provider}/the-tests/seen").json()].count("/token") == before


def test_offline_access_without_consent_is_not_granted_and_the_log_says_what_to_do(provider, caplog):
    token = BrowserSignIn(Issuer(provider), "cli", scope="openid offline_access", open=Person()).run(show=quiet)
    assert token.refresh_token is None
    assert token.scope == "openid"
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("without the scope offline_access" in line for line in lines)
    assert any("'prompt': 'consent'" in line for line in lines)


def test_a_missing_refresh_token_says_that_this_server_knows_offline_access(provider, caplog):
    BrowserSignIn(Issuer(provider), "cli", scope="openid", open=Person()).run(show=quiet)
    assert any("Ask for the scope offline_access" in record.getMessage() for record in caplog.records)


def test_the_resource_is_sent_with_both_requests_and_is_what_the_token_is_for(provider):
    """If the token request does not name the resource (RFC 8707), this server issues a token for its own userinfo."""
    one = BrowserSignIn(Issuer(provider), "cli", scope="openid read", resource=API, open=Person())
    token = one.run(show=quiet)
    assert token.scope == "read"
    assert token.expires_in == 900  # the lifetime of tokens for that resource


def test_a_resource_that_the_server_does_not_know_is_denied(provider):
    one = BrowserSignIn(Issuer(provider), "cli", scope="read", resource="https://other.example.com", open=Person())
    with pytest.raises(SignInDenied) as failure:
        one.run(show=quiet)
    assert failure.value.error == "invalid_target"


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the pauses between two polls. The server names no interval, so they would take 5 s.

    It accepts faster polls.
    """
    monkeypatch.setattr(time, "sleep", lambda _: None)


@pytest.mark.usefixtures("no_pauses")
def test_a_person_enters_a_code_on_another_device(provider):
    pages: list[httpx.Response] = []

    def show(prompt: DevicePrompt) -> None:
        pages.append(Person().enter(prompt.verification_uri, prompt.user_code))

    token = DeviceSignIn(Issuer(provider), "cli", scope="openid offline_access").run(show=show)
    assert "Success" in pages[0].text
    assert token.refresh_token


@pytest.mark.usefixtures("no_pauses")
def test_a_user_refuses_on_another_device(provider):
    def show(prompt: DevicePrompt) -> None:
        Person(refuses=True).enter(prompt.verification_uri, prompt.user_code)

    with pytest.raises(SignInDenied) as failure:
        DeviceSignIn(Issuer(provider), "cli", scope="openid").run(show=show)
    assert failure.value.error == "access_denied"


@pytest.mark.usefixtures("no_pauses")
def test_a_code_that_nobody_enters_expires():
    settings = {"clients": [NATIVE], "deviceCodeLifetime": 1}
    with node_servers.running("oidc_provider.mjs", settings) as url, pytest.raises(SignInExpired):
        DeviceSignIn(Issuer(url), "cli", scope="openid").run(show=quiet)


def test_two_people_sign_in_at_the_same_time(provider):
    tokens: list[object] = []
    one = BrowserSignIn(Issuer(provider), "cli", scope="openid", open=Person())
    threads = [threading.Thread(target=lambda: tokens.append(one.run(show=quiet).access_token)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(tokens)) == 4


# Keys instead of secrets, at a server that takes each `jti` once


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
def test_a_service_with_a_key_gets_one_token_after_another(provider, keys, alg):
    key = PrivateKeyJWT(keys[alg].as_dict(private=True), kid="1")
    with Reauth(ClientCredentialsGrant(Issuer(provider), alg, client_auth=key)) as auth:
        tokens = {auth.renew().access_token for _ in range(3)}
    assert len(tokens) == 3


def test_an_assertion_that_is_sent_twice_is_refused_by_this_server_and_ours_are_not(provider, keys):
    """So each attempt must bring a new one. Here a proxy answers 503 twice, after the server has seen the assertion."""
    seen: list[str] = []

    class Flaky(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = super().handle_request(request)
            if request.url.path != "/token":
                return response
            seen.append(httpx.QueryParams(request.content.decode())["client_assertion"])
            if len(seen) > 2:
                return response
            response.close()
            return httpx.Response(503)

    key = PrivateKeyJWT(keys["ES256"].as_dict(private=True), kid="1")
    with httpx.Client(transport=Flaky()) as client:
        grant = ClientCredentialsGrant(Issuer(provider), "ES256", client_auth=key, client=client)
        assert grant(Token()).access_token
    assert len(set(seen)) == 3
    again = ClientAssertion(lambda: seen[-1])
    with pytest.raises(RefreshError) as failure:
        ClientCredentialsGrant(Issuer(provider), "ES256", client_auth=again)(Token())
    assert failure.value.error == "invalid_client"


def test_a_key_that_the_server_does_not_know_is_refused(provider, keys):
    other = PrivateKeyJWT(ECKey.generate_key("P-256", private=True).as_dict(private=True), kid="1")
    with pytest.raises(RefreshError) as failure:
        ClientCredentialsGrant(Issuer(provider), "ES256", client_auth=other)(Token())
    assert failure.value.error == "invalid_client"


def test_a_service_asks_for_a_token_of_one_resource(provider, keys):
    key = PrivateKeyJWT(keys["ES256"].as_dict(private=True), kid="1")
    settings: dict[str, Any] = {"client_auth": key, "scope": "read", "resource": API}
    token = ClientCredentialsGrant(Issuer(provider), "ES256", **settings)(Token())
    assert (token.expires_in, token.scope) == (900, "read")  # the lifetime of tokens for that resource


# A token for another token (RFC 8693)


def chain(provider: str, **settings: Any) -> tuple[Reauth, Reauth]:
    """Return the auth objects of a user who has signed in, and of a service that acts for the user."""
    issuer = Issuer(provider)
    wanted: dict[str, Any] = {"scope": "openid offline_access", "extra": {"prompt": "consent"}}
    person = Reauth(RefreshTokenGrant(issuer, "cli"))
    person.sign_in(BrowserSignIn(issuer, "cli", open=Person(), **wanted).run(show=quiet))
    grant = TokenExchangeGrant(issuer, "exchanger", SECRET, subject_token=person, scope="openid", **settings)
    return person, Reauth(grant)


def test_a_service_acts_for_a_person_whose_token_it_exchanges(provider):
    person, service = chain(provider, audience=["orders", "bills"], resource=API)
    token = service.get_token()
    with httpx.Client(trust_env=False) as client:
        form = {"token": token.access_token, "client_id": "exchanger"}
        known = client.post(f"{provider}/token/introspection", data=form, auth=("exchanger", quote_plus(SECRET))).json()
    assert (known["active"], known["sub"], known["client_id"], known["scope"]) == (True, "ada", "exchanger", "openid")
    assert token.access_token != person.get_token().access_token
    assert token.extra["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"


def test_a_subject_token_that_the_server_does_not_know_is_renewed_and_exchanged(provider):
    """The server says `invalid_request` (RFC 8693 section 2.2.2). The user's `Reauth` does not learn why."""
    person, service = chain(provider)
    person.sign_in(Token("an-older-one", refresh_token=person.get_token().refresh_token))
    assert service.get_token().access_token
    assert person.get_token().access_token != "an-older-one"


def test_an_audience_that_the_server_does_not_know_is_an_error_that_says_so(provider):
    _, service = chain(provider, audience="unknown")
    with pytest.raises(RefreshError) as failure:
        service.get_token()
    assert failure.value.error == "invalid_target"


# node-oauth/oauth2-server, which does not form-decode Basic

SECRETS = ["plain", "ab+c/dEf==", "p%s w&rd", "100%25"]


@pytest.fixture(scope="module")
def plain_basic() -> Iterator[str]:
    clients = [{"id": f"app{i}", "secret": secret} for i, secret in enumerate(SECRETS)]
    with node_servers.running("oauth2_server.mjs", {"clients": clients}) as url:
        yield url


@pytest.mark.parametrize(("number", "secret"), list(enumerate(SECRETS)), ids=SECRETS)
def test_a_secret_is_understood_by_a_server_that_does_not_form_decode_it(plain_basic, number, secret):
    grant = ClientCredentialsGrant(f"{plain_basic}/token", f"app{number}", secret)
    with Reauth(grant) as auth, httpx.Client(base_url=plain_basic, auth=auth) as client:
        assert client.get("/me").json() == {"client": f"app{number}"}
        before = get(f"{plain_basic}/the-tests/requests").json()
        auth.get_token(rejected=auth.get_token())
    assert get(f"{plain_basic}/the-tests/requests").json() == before + 1  # the grant remembers which encoding worked


def test_an_encoding_that_is_forced_is_the_only_one_that_is_sent(plain_basic):
    before = get(f"{plain_basic}/the-tests/requests").json()
    with Reauth(ClientCredentialsGrant(f"{plain_basic}/token", "app1", SECRETS[1], basic_encoding="plain")) as auth:
        assert auth.get_token().access_token
    with Reauth(ClientCredentialsGrant(f"{plain_basic}/token", "app1", SECRETS[1], basic_encoding="form")) as auth:
        with pytest.raises(RefreshError) as failure:
            auth.get_token()
        assert failure.value.error == "invalid_client"
    assert get(f"{plain_basic}/the-tests/requests").json() == before + 2
