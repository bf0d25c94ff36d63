"""Tests of client authentication at the token endpoint: RFC 6749 §2.3, byte for byte."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote_plus, urlencode

import pytest

from httpx_reauth.testing import AuthorizationServer

NASTY = "a:b%c&d=é +€"
CLIENTS = {"app": "secret", "other": "secret", "public": None, NASTY: NASTY}


@pytest.fixture
def server():
    return AuthorizationServer(clients=CLIENTS)


def basic(client_id, secret, *, encode=quote_plus, scheme="Basic"):
    pair = f"{encode(client_id)}:{encode(secret)}".encode()
    return [("Authorization", f"{scheme} {base64.b64encode(pair).decode()}")]


def post(server, headers=(), grant_type="client_credentials", **fields):
    headers = [("Content-Type", "application/x-www-form-urlencoded"), *headers]
    answer = server.respond("POST", "/token", headers, urlencode({"grant_type": grant_type, **fields}).encode())
    challenge = dict(answer.headers).get("WWW-Authenticate")
    return answer.status, json.loads(answer.body).get("error"), challenge


GOOD = (200, None, None)


@pytest.mark.parametrize("name", ["app", NASTY])
def test_client_secret_basic_is_form_encoded_first(server, name):
    assert post(server, basic(name, CLIENTS[name])) == GOOD
    assert post(server, basic(name, CLIENTS[name], scheme="bAsIc"), client_id=name) == GOOD


def test_client_secret_basic_without_the_form_encoding_is_refused(server):
    assert post(server, basic(NASTY, NASTY, encode=str)) == (401, "invalid_client", "Basic")


@pytest.mark.parametrize("name", ["app", NASTY])
def test_client_secret_post_works(server, name):
    assert post(server, client_id=name, client_secret=CLIENTS[name]) == GOOD


def test_a_public_client_says_only_who_it_is(server):
    token = server.issue(client_id="public")
    assert post(server, grant_type="refresh_token", client_id="public", refresh_token=token.refresh_token) == GOOD


def test_a_public_client_gets_no_token_of_its_own(server):
    assert post(server, client_id="public") == (400, "unauthorized_client", None)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"client_id": "app"},
        {"client_id": "app", "client_secret": "wrong"},
        {"client_id": "nobody", "client_secret": "secret"},
        {"client_id": "public", "client_secret": "secret"},
        {"client_secret": "secret"},
    ],
)
def test_a_wrong_client_in_the_form_gets_400(server, fields):
    assert post(server, **fields) == (400, "invalid_client", None)


@pytest.mark.parametrize(
    "headers",
    [
        basic("app", "wrong"),
        basic("nobody", "secret"),
        basic("app", "secret", scheme="Bearer"),
        [("Authorization", "Basic")],
        [("Authorization", "Basic !")],
        [("Authorization", "Basic " + base64.b64encode(b"no colon").decode())],
        [("Authorization", "Basic " + base64.b64encode("é:é".encode()).decode())],
    ],
)
def test_a_wrong_client_in_the_header_gets_401_with_a_challenge(server, headers):
    assert post(server, headers) == (401, "invalid_client", "Basic")


def test_two_authentication_methods_in_one_request_are_an_invalid_request(server):
    assert post(server, basic("app", "secret"), client_secret="secret") == (400, "invalid_request", None)


def test_two_different_client_ids_are_an_invalid_request(server):
    assert post(server, basic("app", "secret"), client_id="other") == (400, "invalid_request", None)


def test_a_method_that_is_not_allowed_is_refused(server):
    server.client_auth = ["client_secret_basic"]
    assert post(server, basic("app", "secret")) == GOOD
    assert post(server, client_id="app", client_secret="secret") == (400, "invalid_client", None)
    server.client_auth = ["client_secret_post"]
    assert post(server, basic("app", "secret")) == (401, "invalid_client", "Basic")


def test_a_refresh_token_is_good_for_its_own_client_only(server):
    token = server.issue(client_id="app")
    fields = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
    assert post(server, basic("other", "secret"), **fields) == (400, "invalid_grant", None)
    assert post(server, basic("app", "secret"), **fields) == GOOD


def test_without_clients_nobody_has_to_authenticate():
    server = AuthorizationServer()
    assert post(server) == GOOD
    assert post(server, basic("anybody", "anything")) == GOOD
    assert post(server, client_id="anybody") == GOOD
