"""Tests of mistakes in a user's test. Each is an error immediately, and says what to write."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from server_ways import HOST, bearer

from httpx_reauth.testing import Answer, AuthorizationServer, ManualClock, faults


async def async_resource(request: Any) -> dict[str, Any]:
    return {}


SETTINGS: dict[str, tuple[str, Any, list[str]]] = {
    "a fault as the refusal": ("refusal", faults.reply(419), ["an Answer", "not Fault", ".answer"]),
    "a status as the refusal": ("refusal", 419, ["an Answer", "not int", "Answer(419)"]),
    "a response as the refusal": ("refusal", httpx.Response(419), ["an Answer", "not Response"]),
    "a fault as the resource": ("resource", faults.unavailable(), ["resource(request)", "not Fault"]),
    "the fields as the resource": ("resource", {"name": "Ada"}, ["resource(request)", "not dict"]),
    "an async resource": ("resource", async_resource, ["resource is async", "plain `def`"]),
    "a header's name as the place of the token": (
        "access_token_of",
        "X-Token",
        ["access_token_of(request)", "not str"],
    ),
    "the fields of the token's answer": ("edit_token_answer", {"expires_in": "60"}, ["edit_token_answer(fields)"]),
    "the fields of the document": ("edit_metadata", {"issuer": "x"}, ["edit_metadata(fields)"]),
    "the parameters of the redirect": (
        "edit_authorization_answer",
        {"state": "x"},
        ["edit_authorization_answer(params)"],
    ),
    "the tokens that may be exchanged": ("subject_tokens", ["t"], ["subject_tokens(token, type)"]),
    "a list of clients": ("clients", ["app"], ["clients", 'clients={"app": "secret"}', "not list"]),
    "a misspelt access": ("access", "closed", ["access", "checked", "refused", "open"]),
    "the class of a clock": ("clock", ManualClock, ["clock", "the class ManualClock"]),
}


@pytest.mark.parametrize(("name", "value", "says"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting_of_another_kind_is_an_error_when_it_is_given_or_changed(server, name, value, says):
    before = getattr(server, name)
    with pytest.raises((TypeError, ValueError)) as given:
        AuthorizationServer(**{name: value})
    with pytest.raises((TypeError, ValueError)) as changed:
        setattr(server, name, value)
    assert str(given.value) == str(changed.value)
    assert [part for part in says if part not in str(given.value)] == []
    assert getattr(server, name) is before


ORDERS: dict[str, tuple[Any, list[str]]] = {
    "a status": (503, ["a Fault", "not int", "faults.reply(503)"]),
    "the function that makes a fault": (faults.unavailable, ["a Fault", "not function"]),
    "an answer": (Answer(404), ["a Fault", "not Answer"]),
    "a list of faults": ([faults.dropped()], ["a Fault", "not list"]),
    "an error of the client": (httpx.ConnectError("x"), ["a Fault", "not ConnectError"]),
}


@pytest.mark.parametrize(("order", "says"), ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("how", ["fail", "fail_always"])
def test_what_is_no_fault_is_an_error_where_it_is_ordered(server, how, order, says):
    with pytest.raises(TypeError) as error:
        getattr(server.api, how)(order)
    assert [part for part in says if part not in str(error.value)] == []
    with httpx.Client(transport=server.transport(httpx), base_url=HOST) as client:
        assert client.get("/me", headers=bearer(server.issue())).status_code == 200


@pytest.mark.parametrize("body", [[1], None, 5])
def test_a_body_that_cannot_be_sent_is_an_error_immediately(body):
    with pytest.raises(TypeError, match=r"body must be .* not .*json\.dumps"):
        faults.reply(200, body)


@pytest.mark.parametrize("status", ["400", None, {"error": "x"}])
def test_a_status_that_is_not_a_number_is_an_error_immediately(status):
    with pytest.raises(TypeError, match=r"status must be .* not "):
        faults.reply(status)


def test_a_resource_that_returns_a_fault_is_an_error_that_says_what_to_return(server):
    server.resource = lambda request: faults.reply(404)
    client = httpx.Client(transport=server.transport(httpx), base_url=HOST)
    with client, pytest.raises(TypeError, match=r"resource .*Fault.*\.answer"):
        client.get("/me", headers=bearer(server.issue()))


def test_on_a_socket_an_answer_whose_body_cannot_be_made_ends_the_connection(server):
    def body():
        raise ValueError("a mistake of the test")

    server.resource = lambda request: Answer(200, (), body)
    with server.serve() as url, pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        httpx.get(f"{url}/me", headers=bearer(server.issue()), timeout=10)
