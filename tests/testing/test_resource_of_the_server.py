"""Tests of `server.resource`: the API answers with the test's own JSON, instead of an echo."""

from __future__ import annotations

import json

import httpx
import pytest
from server_ways import HOST, bearer

from httpx_reauth.testing import Answer, faults


@pytest.fixture
def client(server):
    with httpx.Client(transport=server.transport(httpx), base_url=HOST) as client:
        yield client


def test_a_mapping_is_served_as_json_to_whoever_has_a_good_token(server, client):
    server.resource = lambda request: {"path": request.path, "sent": json.loads(request.body)}
    answer = client.post("/orders", json={"item": "tea"}, headers=bearer(server.issue()))
    assert (answer.status_code, answer.json()) == (200, {"path": "/orders", "sent": {"item": "tea"}})
    assert answer.headers["Content-Type"] == "application/json"


def test_an_answer_is_served_as_it_is(server, client):
    server.resource = lambda request: Answer(404, (("X-Reason", "gone"),), b"no such order")
    answer = client.get("/orders/1", headers=bearer(server.issue()))
    assert (answer.status_code, answer.headers["X-Reason"], answer.content) == (404, "gone", b"no such order")


def test_a_request_without_a_good_token_never_gets_there(server, client):
    seen = []
    server.resource = lambda request: seen.append(request) or {}
    assert client.get("/me").status_code == 401
    assert (seen, server.api_unauthorized) == ([], 1)


def test_with_open_access_it_serves_a_custom_token_endpoint_too(server, client):
    server.access = "open"
    server.resource = lambda request: faults.reply(400, {"message": "wrong password"}).answer
    answer = client.post("/login", json={})
    assert (answer.status_code, answer.json()) == (400, {"message": "wrong password"})


def test_it_may_ask_the_server_itself(server, client):
    form = [("Content-Type", "application/x-www-form-urlencoded")]

    def resource(request):
        return server.respond("POST", "/token", form, b"grant_type=client_credentials")

    server.access, server.resource = "open", resource
    assert client.post("/login").json()["access_token"].startswith("access-")
    assert server.token_requests == 1
