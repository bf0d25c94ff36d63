"""Tests that need a real socket: connections kept, closed and broken, half a body, many connections, nothing left."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import anyio
import httpx
import pytest
import trio
from server_ways import bearer, form

from httpx_reauth.testing import Answer, AuthorizationServer, _socket, faults
from httpx_reauth.testing._socket import _Connection


@pytest.fixture
def base_url(server):
    with server.serve() as base_url:
        yield base_url


@pytest.fixture
def client(base_url):
    with httpx.Client(base_url=base_url) as client:
        yield client


def server_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("AuthorizationServer")]


def connect(base_url):
    url = httpx.URL(base_url)
    return closing(socket.create_connection((url.host, url.port), timeout=10))


def read_to_the_end(connection):
    data = b""
    while part := connection.recv(65536):
        data += part
    return data


def request(method="GET", path="/me", *headers, body=b""):
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_leaving_the_block_ends_the_thread_and_closes_the_socket(server):
    with server.serve() as base_url:
        assert base_url.startswith("http://127.0.0.1:")
        assert [thread.daemon for thread in server_threads()] == [False]
    assert server_threads() == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{base_url}/me")


def test_an_error_in_the_block_ends_the_thread_too(server):
    with pytest.raises(ZeroDivisionError), server.serve():
        raise ZeroDivisionError
    assert server_threads() == []


def test_no_socket_to_listen_on_is_an_error_immediately(server, monkeypatch):
    monkeypatch.setattr(_socket, "_HOST", "999.0.0.1")
    with pytest.raises(OSError, match=r".+"), server.serve():
        pass
    assert server_threads() == []


@pytest.mark.parametrize("path", ["/sse", "/slow?seconds=60", "/held", "/hanging"])
def test_leaving_the_block_drops_what_is_still_open(server, path):
    with ThreadPoolExecutor(1) as pool:
        with server.serve() as base_url:
            if path == "/held":
                server.api.hold()
            if path == "/hanging":
                server.api.fail(faults.hanging())
            job = pool.submit(httpx.get, base_url + path, headers=bearer(server.issue()), timeout=60)
            server.wait_until(lambda: server.api_requests == 1)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            job.result()
    assert server.open_streams == 0


def test_connections_that_are_being_accepted_when_the_block_ends_are_closed_too(server):
    for _ in range(20):
        with ExitStack() as stack, server.serve() as base_url:
            for _ in range(10):
                stack.enter_context(connect(base_url))
    gc.collect()  # Python would warn of a socket that is not closed


def test_an_idle_connection_does_not_keep_the_block_from_ending(server):
    with server.serve() as base_url, httpx.Client(base_url=base_url) as client:
        client.get("/me")
    assert server.api_requests == 1


@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), trio.run])
def test_it_may_be_started_in_a_running_loop(server, run):
    async def main():
        with server.serve() as base_url:
            async with httpx.AsyncClient(base_url=base_url) as client:
                return (await client.get("/me", headers=bearer(server.issue()))).status_code

    assert run(main) == 200


def test_two_servers_are_two_origins(base_url, server):
    other = AuthorizationServer()
    with other.serve() as other_url, httpx.Client(follow_redirects=True) as client:
        assert other_url != base_url
        answer = client.get(f"{base_url}/redirect?to={other_url}/me", headers=bearer(server.issue()))
    assert (answer.status_code, answer.url) == (401, f"{other_url}/me")
    assert (server.api_requests, other.api_requests, other.authorizations()) == (1, 1, [None])


def test_one_server_may_be_served_twice(server):
    with server.serve() as first, server.serve() as second:
        httpx.get(f"{first}/me")
        httpx.get(f"{second}/me")
    assert (first != second, server.api_requests) == (True, 2)


def test_connections_are_kept_alive(client, server):
    ports = {client.get("/me").extensions["network_stream"].get_extra_info("client_addr") for _ in range(5)}
    assert (len(ports), server.api_requests) == (1, 5)


def test_a_connection_is_closed_if_the_client_asks_for_it(base_url, server):
    for _ in range(2):
        with connect(base_url) as connection:
            connection.sendall(request("GET", "/me", "Connection: close"))
            assert read_to_the_end(connection).startswith(b"HTTP/1.1 401 ")
    with connect(base_url) as connection:
        connection.sendall(b"GET /stream?chunks=2&size=2 HTTP/1.0\r\nAuthorization: Bearer ")
        connection.sendall(server.issue().access_token.encode() + b"\r\n\r\n")
        assert read_to_the_end(connection).endswith(b"\r\n\r\naabb")


def test_pipelined_requests_are_answered_in_their_order(base_url, server):
    token = f"Authorization: Bearer {server.issue().access_token}"
    server.api.fail(faults.reply(200, "first"))
    with connect(base_url) as connection:
        connection.sendall(
            request("GET", "/1")
            + request("GET", "/stream?chunks=1&size=5", token)
            + request("GET", "/slow?seconds=0.001", token)
            + request("POST", "/4", token, "Content-Length: 3", "Connection: close", body=b"abc")
        )
        answers = read_to_the_end(connection)
    places = [answers.index(part) for part in (b"first", b"aaaaa", b'"/slow"', b'"/4"')]
    assert places == sorted(places)
    assert [received.path for received in server.requests] == ["/1", "/stream", "/slow", "/4"]


@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
def test_a_request_whose_body_ends_early_is_recorded_and_does_nothing(base_url, server, framing):
    body = b"5\r\nhello\r\n" if "chunked" in framing else b"hello"
    with connect(base_url) as connection:
        connection.sendall(request("POST", "/upload", framing, body=body))
        server.wait_until(lambda: server.body_bytes == 5)
    server.wait_until(lambda: server.truncated_requests == 1)
    (received,) = server.requests
    assert (received.method, received.path, received.body, received.truncated) == ("POST", "/upload", b"hello", True)
    assert (server.api_requests, server.api_unauthorized) == (0, 0)


def test_a_truncated_body_counts_even_if_nothing_is_recorded(base_url, server):
    server.keep_requests = False
    with connect(base_url) as connection:
        connection.sendall(request("POST", "/upload", "Content-Length: 10", body=b"hello"))
    server.wait_until(lambda: server.truncated_requests == 1)
    assert server.requests == []


def test_an_upload_that_the_client_gives_up_is_recorded_as_truncated(client, server):
    def body():
        yield b"hello"
        server.wait_until(lambda: server.body_bytes == 5)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.post("/upload", content=body())
    server.wait_until(lambda: server.truncated_requests == 1)
    assert server.requests[0].body == b"hello"


def test_a_streamed_upload_is_seen_while_it_is_under_way(client, server):
    def body():
        for number in range(1, 4):
            yield b"12345"
            server.wait_until(lambda number=number: server.body_bytes == 5 * number)

    assert client.post("/me", content=body(), headers=bearer(server.issue())).json()["length"] == 15


def test_what_is_not_http_is_dropped(base_url, server):
    with connect(base_url) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert read_to_the_end(connection) == b""
    assert (server.requests, server.truncated_requests) == ([], 0)


def test_a_client_that_leaves_a_slow_answer_disturbs_nobody(base_url, server):
    with server.api.hold() as gate:
        with connect(base_url) as connection:
            connection.sendall(request())
            server.wait_until(lambda: gate.held == 1)
        gate.release()
    assert httpx.get(f"{base_url}/me").status_code == 401


def test_an_endless_answer_ends_with_its_reader(base_url, server):
    ended = threading.Event()

    def steps():
        try:
            while True:
                yield b" " * 65536
        finally:
            ended.set()

    server.api.fail(faults.Fault(Answer(body=steps)))
    with connect(base_url) as connection:
        connection.sendall(request())
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert ended.wait(10)


def test_an_answer_that_its_reader_is_too_slow_for_waits_and_is_not_piled_up(base_url, server, monkeypatch):
    paused, pause = threading.Event(), _Connection.pause_writing
    monkeypatch.setattr(_Connection, "pause_writing", lambda connection: (pause(connection), paused.set()))
    megabytes: list[int] = []

    def steps():
        for number in range(32):
            megabytes.append(number)
            yield b" " * 2**20

    server.api.fail(faults.Fault(Answer(body=steps)))
    with httpx.stream("GET", f"{base_url}/me", timeout=60) as response:
        assert paused.wait(60)
        assert len(megabytes) < 32
        assert sum(len(chunk) for chunk in response.iter_raw()) == 32 * 2**20


def test_an_endless_answer_that_is_read_as_fast_as_it_comes_starves_nobody(base_url, server):
    server.api.fail(faults.endless(chunk=b"x"))
    with httpx.stream("GET", f"{base_url}/me") as endless, ThreadPoolExecutor(1) as pool:
        other = pool.submit(httpx.get, f"{base_url}/me")
        for _ in endless.iter_raw():
            if other.done():
                break
        assert other.result().status_code == 401


def test_hundreds_of_connections_at_the_same_time_are_answered(base_url, server):
    token = server.issue()

    async def main():
        limits = httpx.Limits(max_connections=500)
        async with httpx.AsyncClient(base_url=base_url, limits=limits, timeout=60) as client:
            with server.api.hold() as gate:
                async with anyio.create_task_group() as tasks:

                    async def one():
                        assert (await client.get("/me", headers=bearer(token))).status_code == 200

                    for _ in range(200):
                        tasks.start_soon(one)
                    await server.await_until(lambda: gate.held == 200, timeout=60)
                    gate.release()

    asyncio.run(main())
    assert (server.api_requests, server.api_unauthorized) == (200, 0)


def test_requests_of_threads_and_event_loops_at_the_same_time_are_counted_exactly(base_url, server):
    token = server.issue()
    start = threading.Barrier(8)

    def sync():
        start.wait()
        with httpx.Client(base_url=base_url) as client:
            for _ in range(10):
                assert client.get("/me", headers=bearer(token)).status_code == 200

    async def main():
        start.wait()
        async with httpx.AsyncClient(base_url=base_url) as client, anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(lambda: client.get("/me", headers=bearer(token)))

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(sync) for _ in range(4)]
        jobs += [pool.submit(asyncio.run, main()) for _ in range(2)]
        jobs += [pool.submit(trio.run, main) for _ in range(2)]
        for job in jobs:
            job.result()
    assert (server.api_requests, server.api_unauthorized) == (80, 0)


def test_of_many_refreshes_with_one_token_exactly_one_succeeds(base_url, server):
    token = server.issue()

    def refresh(_):
        return httpx.post(f"{base_url}/token", data=form(token)).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(refresh, range(8)))
    assert statuses == [200] + [400] * 7
    assert (server.token_requests, server.refreshes, server.families_revoked) == (8, 1, 1)
