"""Tests of streams: nothing is buffered, nothing is held while a request is in flight (guarantee 3)."""

from __future__ import annotations

import gc
import logging
import threading
from contextlib import suppress

import anyio
import pytest
from anyio.lowlevel import checkpoint

from httpx_reauth import Token
from httpx_reauth.testing import Answer, Signal
from httpx_reauth.testing.faults import Fault

FIRST = b"data: open\n\n"
SOON = 15.0  # seconds; a wait as long as this is a failure, and no correct run takes nearly as long

STATES = ("valid", "missing", "revoked")


def token_that_is(state: str, server) -> Token:
    """Return a token in one of the `STATES`. The server then accepts or refuses it accordingly."""
    token = server.issue(access_token=state != "missing")
    if state == "revoked":
        server.revoke_access_tokens()
    return token


@pytest.fixture
def auth(library, socket_site, server, clock):
    return library.Reauth(socket_site.refresh("coroutine"), token=server.issue(), clock=clock)


# --- responses ---


@pytest.mark.parametrize("state", STATES)
def test_responses_stay_streamed_before_and_after_a_refresh(socket_talk, server, state):
    auth = socket_talk.auth(token_that_is(state, server))

    def read(client):
        with client.stream("GET", "/sse") as response:
            chunks = response.iter_bytes()
            assert next(chunks) == FIRST  # the server has not sent everything yet
            assert server.open_streams == 1
            with pytest.raises(socket_talk.package.ResponseNotRead):
                _ = response.content
            server.end_streams()
            return b"".join(chunks), response.history

    async def read_async(client):
        async with client.stream("GET", "/sse") as response:
            chunks = response.aiter_bytes()
            assert await anext(chunks) == FIRST
            assert server.open_streams == 1
            with pytest.raises(socket_talk.package.ResponseNotRead):
                _ = response.content
            server.end_streams()
            return b"".join([chunk async for chunk in chunks]), response.history

    rest, history = socket_talk(auth, read_async if socket_talk.is_async else read)
    assert rest == b"data: end\n\n"
    assert [response.status_code for response in history] == ([401] if state == "revoked" else [])
    assert server.token_requests == (state != "valid")


def test_a_large_response_is_read_chunk_by_chunk_after_a_replay(socket_talk, server):
    auth = socket_talk.auth(token_that_is("revoked", server))

    def read(client):
        with client.stream("GET", "/stream?chunks=200&size=5000") as response:
            return sum(map(len, response.iter_raw()))

    async def read_async(client):
        async with client.stream("GET", "/stream?chunks=200&size=5000") as response:
            return sum([len(chunk) async for chunk in response.aiter_raw()])

    assert socket_talk(auth, read_async if socket_talk.is_async else read) == 1_000_000


def test_401_that_is_not_replayed_stays_streamed(socket_talk, server):
    """The request went to another origin, without our token. So nothing of its response is read for us."""
    end = Signal()

    def steps():
        yield b"first"
        yield end
        yield b"last"

    server.access, server.refusal = "refused", Answer(401, (), steps)
    auth = socket_talk.auth(origins=["https://api.example.com"])

    def read(client):
        with client.stream("GET", "/me") as response:
            chunks = response.iter_bytes()
            first = next(chunks)
            end.set()
            return first, b"".join(chunks)

    async def read_async(client):
        async with client.stream("GET", "/me") as response:
            chunks = response.aiter_bytes()
            first = await anext(chunks)
            end.set()
            return first, b"".join([chunk async for chunk in chunks])

    assert socket_talk(auth, read_async if socket_talk.is_async else read) == (b"first", b"last")
    assert server.token_requests == 0


def test_response_closed_early_leaves_client_and_auth_in_order(socket_talk, server):
    auth = socket_talk.auth(token_that_is("revoked", server))

    def read(client):
        with client.stream("GET", "/sse") as response:
            assert next(response.iter_bytes()) == FIRST
        return client.get("/me").status_code

    async def read_async(client):
        async with client.stream("GET", "/sse") as response:
            # trio complains about httpcore's generators if they are left in the middle
            if socket_talk.mode != "trio":
                chunks = response.aiter_bytes()
                assert await anext(chunks) == FIRST
                await chunks.aclose()
        return (await client.get("/me")).status_code

    for _ in range(3):
        assert socket_talk(auth, read_async if socket_talk.is_async else read) == 200
        server.revoke_access_tokens()
    assert server.token_requests == 3
    server.wait_until(lambda: server.open_streams == 0)


# --- uploads ---


def _in_header(request, token):
    request.headers["Authorization"] = f"Bearer {token.access_token}"


@pytest.mark.parametrize("state", ["valid", "missing"])
@pytest.mark.parametrize("settings", [{}, {"authorize": _in_header}])
def test_uploads_stay_streamed(socket_talk, server, state, settings):
    """The first part arrives before the second is made."""
    auth = socket_talk.auth(token_that_is(state, server), **settings)

    def parts():
        before = server.body_bytes
        for number in range(1, 4):
            yield b"part"
            server.wait_until(lambda number=number: server.body_bytes == before + 4 * number)

    async def async_parts():
        before = server.body_bytes
        for number in range(1, 4):
            yield b"part"
            await server.await_until(lambda number=number: server.body_bytes == before + 4 * number)

    response = socket_talk(
        auth, lambda client: client.post("/upload", content=async_parts() if socket_talk.is_async else parts())
    )
    assert response.status_code == 200
    assert server.requests_to("/upload")[0].body == b"part" * 3


# --- no request waits for another request ---


def slow_answer(until: Signal) -> Fault:
    return Fault(Answer(200, (), b"late at last", waits=(until,)))


@pytest.mark.anyio
async def test_guarantee_3_open_stream_and_slow_request_block_nobody(socket_site, server, auth, anyio_backend):
    late = Signal()
    slow = []

    async def slow_request(client):
        slow.append(await client.get("/slow-one"))

    async with socket_site.async_client(auth) as client, anyio.create_task_group() as tasks:
        with anyio.fail_after(SOON):
            async with client.stream("GET", "/sse") as events:
                chunks = events.aiter_bytes()
                assert await anext(chunks) == FIRST
                server.api.fail(slow_answer(late))
                tasks.start_soon(slow_request, client)
                await server.await_until(lambda: len(server.requests_to("/slow-one")) == 1)

                for expected in (1, 2, 3):  # three refreshes while both requests are open
                    server.revoke_access_tokens()
                    assert (await client.get("/me")).status_code == 200
                    assert server.token_requests == expected
                assert await auth.aget_token() is auth.store.state.token
                assert slow == []

                late.set()
                server.end_streams()
                assert b"".join([chunk async for chunk in chunks]) == b"data: end\n\n"
    assert [response.text for response in slow] == ["late at last"]
    assert server.token_requests == 3


def test_guarantee_3_open_stream_and_slow_request_block_no_thread(library, socket_site, server, clock):
    auth = library.Reauth(socket_site.refresh("function"), token=server.issue(), clock=clock)
    late, slow = Signal(), []
    with socket_site.client(auth) as client:
        with client.stream("GET", "/sse") as events:
            chunks = events.iter_bytes()
            assert next(chunks) == FIRST
            server.api.fail(slow_answer(late))
            thread = threading.Thread(target=lambda: slow.append(client.get("/slow-one")))
            thread.start()
            server.wait_until(lambda: len(server.requests_to("/slow-one")) == 1)
            for expected in (1, 2, 3):
                server.revoke_access_tokens()
                assert client.get("/me").status_code == 200
                assert server.token_requests == expected
            assert auth.get_token() is auth.store.state.token
            assert slow == []
            late.set()
            server.end_streams()
            assert b"".join(chunks) == b"data: end\n\n"
        thread.join(SOON)
    assert [response.text for response in slow] == ["late at last"]


@pytest.mark.anyio
async def test_guarantee_3_late_401_of_a_slow_request_is_answered_with_the_current_token(
    socket_site, server, auth, anyio_backend
):
    late, slow = Signal(), []

    async def slow_request(client):
        slow.append(await client.get("/slow-one"))

    async with socket_site.async_client(auth) as client, anyio.create_task_group() as tasks:
        server.api.fail(Fault(Answer(401, (), b"too old", waits=(late,))))
        tasks.start_soon(slow_request, client)
        await server.await_until(lambda: len(server.requests_to("/slow-one")) == 1)
        server.revoke_access_tokens()
        assert (await client.get("/me")).status_code == 200
        late.set()
    assert [response.status_code for response in slow] == [200]
    assert server.token_requests == 1


# --- small pools ---

BIG_REFUSAL = Answer(401, (("Content-Type", "text/plain"),), lambda: iter([b"refused " * 8_000] * 20))  # over 1 MB


@pytest.mark.anyio
@pytest.mark.parametrize("shared", [False, True], ids=["own client", "same client"])
async def test_ten_streamed_401s_do_not_starve_each_other_in_a_pool_of_two(
    library, socket_site, server, clock, anyio_backend, shared
):
    """The refresh itself needs a connection of that pool. So the 401 is read to its end before anybody waits."""
    statuses = []

    async def refresh(token):
        form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
        return Token.from_response(await client.post("/token", data=form, auth=None))

    async def one(number):
        async with client.stream("GET", f"/stream?chunks=20&size=20000&number={number}") as response:
            length = sum([len(chunk) async for chunk in response.aiter_bytes()])
            statuses.append((response.status_code, length))

    auth = library.Reauth(refresh if shared else socket_site.refresh("coroutine"), token=server.issue(), clock=clock)
    server.refusal = BIG_REFUSAL
    server.revoke_access_tokens()
    limits = socket_site.package.Limits(max_connections=2)
    with anyio.fail_after(SOON):
        async with socket_site.async_client(auth, limits=limits) as client, anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(one, number)
    assert statuses == [(200, 400_000)] * 10
    assert server.token_requests == 1


@pytest.mark.parametrize("shared", [False, True], ids=["own client", "same client"])
def test_ten_threads_with_streamed_401s_do_not_starve_each_other_in_a_pool_of_two(
    library, socket_site, server, clock, shared
):
    statuses = []

    def refresh(token):
        form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
        return Token.from_response(client.post("/token", data=form, auth=None))

    def one(number):
        with client.stream("GET", f"/stream?chunks=20&size=20000&number={number}") as response:
            statuses.append((response.status_code, sum(map(len, response.iter_bytes()))))

    auth = library.Reauth(refresh if shared else socket_site.refresh("function"), token=server.issue(), clock=clock)
    server.refusal = BIG_REFUSAL
    server.revoke_access_tokens()
    limits = socket_site.package.Limits(max_connections=2)
    # Use no connection twice: httpcore's sync pool may close an idle one that another thread has just been given.
    once = {"Connection": "close"}
    with socket_site.client(auth, limits=limits, timeout=SOON, headers=once) as client:
        threads = [threading.Thread(target=one, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * SOON)
    assert statuses == [(200, 400_000)] * 10
    assert server.token_requests == 1


# --- responses that are left early ---


@pytest.mark.anyio
async def test_guarantee_2_request_cancelled_while_it_waits_leaves_its_refresh_to_the_others(
    socket_site, server, auth, anyio_backend
):
    answers = []

    async def get(client):
        answers.append(await client.get("/me"))

    server.revoke_access_tokens()
    async with socket_site.async_client(auth) as client, anyio.create_task_group() as tasks:
        with server.token_endpoint.hold() as gate:
            with anyio.CancelScope() as impatient:
                async with anyio.create_task_group() as inner:
                    inner.start_soon(client.get, "/me")
                    await server.await_until(lambda: gate.held == 1)
                    impatient.cancel()
            tasks.start_soon(get, client)
            await anyio.wait_all_tasks_blocked()
    assert [response.status_code for response in answers] == [200]
    assert server.token_requests == 1


def request_to(site) -> object:
    return site.package.Request("GET", f"{site.url}/me")


@pytest.mark.anyio
@pytest.mark.parametrize("after", ["request", "401"])
async def test_guarantee_3_flow_may_be_closed_by_another_task(socket_site, server, auth, anyio_backend, after):
    flow = auth.async_auth_flow(request_to(socket_site))
    ended = anyio.Event()

    async def begin():
        request = await flow.__anext__()
        if after == "401":
            refused = socket_site.package.Response(401, content=b"", request=request)
            await flow.asend(refused)  # the flow refreshes, and asks to send the request again
        ended.set()

    async def close():
        await ended.wait()
        await flow.aclose()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(close)
        tasks.start_soon(begin)
    assert server.token_requests == (after == "401")
    with pytest.raises(StopAsyncIteration):
        await flow.__anext__()
    assert (await auth.aget_token()).access_token


@pytest.mark.anyio
async def test_guarantee_3_every_step_of_the_flow_may_run_in_another_task(socket_site, server, auth, anyio_backend):
    """Some clients hand a streamed response from task to task."""
    flow = auth.async_auth_flow(request_to(socket_site))
    got = []

    async def step(answer):
        try:
            got.append(await flow.asend(answer))
        except StopAsyncIteration:
            got.append(None)

    def refusal():
        return socket_site.package.Response(401, content=b"", request=got[0])

    for answer in (lambda: None, refusal, refusal):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(step, answer())
    assert got[0] is got[1]
    assert got[2] is None
    assert server.token_requests == 1


@pytest.mark.parametrize("after", ["request", "401"])
def test_guarantee_3_sync_flow_may_be_closed_by_another_thread(library, socket_site, server, clock, after):
    auth = library.Reauth(socket_site.refresh("function"), token=server.issue(), clock=clock)
    flow = auth.sync_auth_flow(request_to(socket_site))
    request = next(flow)
    if after == "401":
        flow.send(socket_site.package.Response(401, content=b"", request=request))
    thread = threading.Thread(target=flow.close)
    thread.start()
    thread.join(SOON)
    with pytest.raises(StopIteration):
        next(flow)
    assert auth.get_token().access_token
    assert server.token_requests == (after == "401")


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_abandoned_flow_is_collected_without_a_warning(library, socket_site, server, clock, caplog, steps):
    """There is no "ignored GeneratorExit" and no "never awaited". pytest makes an error of such a warning."""
    auth = library.Reauth(socket_site.refresh("coroutine"), token=server.issue(), clock=clock)

    async def main():
        flow = auth.async_auth_flow(request_to(socket_site))
        answer = None
        for _ in range(steps):
            request = await flow.asend(answer)
            answer = socket_site.package.Response(401, content=b"", request=request)
        del flow
        gc.collect()
        await checkpoint()
        await checkpoint()

    with caplog.at_level(logging.DEBUG):
        anyio.run(main)
        sync_flow = auth.sync_auth_flow(request_to(socket_site))
        if steps:
            next(sync_flow)
        del sync_flow
        gc.collect()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.anyio
async def test_exception_of_the_caller_inside_a_stream_leaves_everything_in_order(
    socket_site, server, auth, anyio_backend
):
    server.revoke_access_tokens()
    async with socket_site.async_client(auth) as client:
        with suppress(ZeroDivisionError):
            async with client.stream("GET", "/stream?chunks=10"):
                raise ZeroDivisionError
        assert (await client.get("/me")).status_code == 200
    assert server.token_requests == 1
