"""Tests of the ways without a socket, of waiting for requests, and of the record of requests."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import httpx2
import pytest
import respx
import trio
from server_ways import HOST, bearer, form

import httpx_reauth.testing
from httpx_reauth.testing import Answer, AuthorizationServer, Received, faults

PACKAGES = [httpx, httpx2]
SNIPPETS = re.findall(r"```python\n(.*?)```", httpx_reauth.testing.__doc__, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_the_documentation_runs(snippet):
    exec(snippet, {})


def test_there_is_documentation_of_three_ways():
    assert len(SNIPPETS) == 3


@pytest.mark.parametrize("package", PACKAGES)
def test_a_transport_is_a_mock_transport_of_its_package(server, package):
    assert isinstance(server.transport(package), package.MockTransport)
    assert type(server.transport(package)) is type(server.transport(package))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_transport_reads_a_body_once_as_a_connection_does(server, package):
    with package.Client(transport=server.transport(package), base_url=HOST) as client:
        request = client.build_request("POST", "/me", content=(part for part in [b"a", b"b"]))
        client.send(request)
        assert server.requests[0].body == b"ab"
        with pytest.raises(package.StreamConsumed):
            client.send(request)
    assert server.api_requests == 1


@pytest.mark.parametrize("package", PACKAGES)
def test_a_response_by_a_transport_is_read_when_it_is_asked_for(server, package):
    with package.Client(transport=server.transport(package), base_url=HOST) as client:
        response = client.send(client.build_request("GET", "/me"), stream=True)
        assert not response.is_stream_consumed
        assert b"no access token" in response.read()
        assert response.is_closed


def test_a_sync_client_on_a_loops_thread_is_served_by_respx(server):
    def two_requests():
        with httpx.Client(base_url=HOST) as client:
            return [client.get("/me").status_code, client.get("/me", headers=bearer(server.issue())).status_code]

    async def main():
        return two_requests()

    server.api.latency = 0.001
    with respx.mock() as router:
        server.mock(router)
        assert asyncio.run(main()) == trio.run(main) == [401, 200]


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
def test_respx_may_mock_httpcore_or_httpx(server, using):
    async def main():
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{HOST}/me")).status_code

    with respx.mock(using=using) as router:
        route = server.mock(router)
        assert httpx.get(f"{HOST}/me").status_code == asyncio.run(main()) == 401
        assert [call.response.status_code for call in route.calls] == [401, 401]


@pytest.mark.parametrize(
    ("base_url", "served", "not_served"),
    [
        ("https://api.test", "https://api.test/x", "http://api.test/x"),
        ("https://api.test", "https://api.test:443/x", "https://api.test:444/x"),
        ("http://api.test", "http://api.test/", "https://api.test/"),
        ("http://api.test:8080", "http://api.test:8080/x", "http://api.test/x"),
        ("https://api.test/", "https://api.test/x", "https://api.test.evil/x"),
    ],
)
def test_respx_serves_one_origin_if_one_is_given(server, base_url, served, not_served):
    with respx.mock(assert_all_mocked=False) as router:
        server.mock(router, base_url=base_url)
        assert httpx.get(served).status_code == 401
        assert httpx.get(not_served).status_code == 200
    assert server.api_requests == 1


def test_two_servers_share_a_router(server):
    other = AuthorizationServer(access="open")
    with respx.mock() as router:
        server.mock(router, base_url="https://one.test")
        other.mock(router, base_url="https://two.test")
        assert [httpx.get(f"https://{name}.test/me").status_code for name in ("one", "two")] == [401, 200]


def test_an_answer_says_what_any_other_adapter_has_to_do(server):
    token = server.issue()
    server.token_endpoint.latency = 2.5
    headers = [("Content-Type", "application/x-www-form-urlencoded")]
    body = "&".join(f"{name}={value}" for name, value in form(token).items()).encode()
    with server.token_endpoint.hold() as gate:
        answer = server.respond("POST", "//ignored.test/token?x", headers, body)
    signal, latency = answer.waits
    assert (gate.held, signal.is_set(), latency, answer.status) == (1, True, 2.5, 200)
    assert server.respond("GET", "https://api.test").status == 401
    assert [request.path for request in server.requests] == ["/token", "/"]
    assert server.body_bytes == len(body)


def test_a_new_gate_leaves_what_the_old_one_holds(server):
    first = server.api.hold()
    (held,) = server.respond("GET", "/1").waits
    second = server.api.hold()
    server.respond("GET", "/2")
    second.release()
    assert server.respond("GET", "/3").waits == ()
    assert (first.held, second.held, held.is_set()) == (1, 1, False)


def test_waiting_for_what_has_happened_already_does_not_wait(server):
    server.wait_until(lambda: True, timeout=0)


def test_waiting_ends_when_it_happens(server):
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(server.wait_until, lambda n=n: server.api_requests == n) for n in (1, 2)]
        server.respond("GET", "/me")
        jobs[0].result()
        server.respond("GET", "/me")
        jobs[1].result()


WHAT_IS_MISSING = r"not happened within 0\.01 seconds.*api_requests=1"


def test_waiting_in_vain_says_what_has_happened_instead(server):
    server.respond("GET", "/me")
    with pytest.raises(TimeoutError, match=WHAT_IS_MISSING):
        server.wait_until(lambda: server.token_requests == 1, timeout=0.01)


@pytest.mark.anyio
async def test_a_task_that_waits_in_vain_gets_the_same_error(server):
    await server.await_until(lambda: True)
    server.respond("GET", "/me")
    with pytest.raises(TimeoutError, match=WHAT_IS_MISSING):
        await server.await_until(lambda: server.token_requests == 1, timeout=0.01)


def test_leaving_the_server_lets_everybody_go():
    with AuthorizationServer() as server:
        gate = server.api.hold()
        server.api.fail(faults.hanging())
        waits = server.respond("GET", "/me").waits
    assert gate.is_released
    assert [wait.is_set() for wait in waits] == [True, True]


def test_no_repr_shows_a_secret_and_nothing_that_holds_one_is_pickled(server):
    token = server.issue()
    server.clients = {"app": "client-secret"}
    answer = server.respond("POST", "/token?a=1", bearer(token).items(), str(form(token)).encode())
    (request,) = server.requests
    things = [server, request, answer, server.api, server.api.hold(), faults.reply(body=token.access_token)]
    said = "".join(map(repr, things))
    for secret in (token.access_token, token.refresh_token, "client-secret"):
        assert secret not in said
    assert repr(request) == "Received(method='POST', path='/token', query='a=1', truncated=False)"
    assert repr(server) == "AuthorizationServer(token_requests=1, api_requests=0)"
    for thing in (server, request, answer):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
    assert copy.copy(request) is request


def test_a_header_sent_twice_is_one_list():
    request = Received("GET", "/", headers=(("accept", "a"), ("x", "y"), ("accept", "b")))
    assert request.header("Accept") == "a, b"


@pytest.mark.parametrize("value", ["Basic abc", "Bearer", "Bearer ", "", None])
def test_an_authorization_without_a_bearer_token_has_none(value):
    headers = () if value is None else (("authorization", value),)
    assert Received("GET", "/", headers=headers).bearer_token is None


def test_an_answer_keeps_its_own_waits(server):
    server.api.latency = 1.0
    server.api.fail(faults.Fault(Answer(waits=(0.5,))))
    assert server.respond("GET", "/me").waits == (1.0, 0.5)
