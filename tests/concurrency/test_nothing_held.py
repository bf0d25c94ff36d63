"""Tests that no lock is held while a request is in flight (guarantee 3), and that every wait ends (guarantee 10)."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from crowd import Threads, statuses, tasks
from seams import state_of, wait_by
from sites import HttpLibrary, Site

from httpx_reauth import RefreshError, Token
from httpx_reauth._state.store import LOCK
from httpx_reauth.testing import AuthorizationServer, ManualClock


@pytest.fixture(params=["site", "socket_site"])
def any_site(request: pytest.FixtureRequest) -> Site:
    return request.getfixturevalue(request.param)


@pytest.mark.anyio
async def test_guarantee_3_open_stream_and_slow_requests_hold_up_nobody_not_even_a_refresh(
    any_site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(any_site.coroutine, token=server.issue(), clock=clock)
    async with any_site.async_client(auth) as client, anyio.create_task_group() as group:
        async with client.stream("GET", "/sse") as response:
            events = response.aiter_bytes()
            assert await anext(events)
            for _ in range(10):
                group.start_soon(client.get, "/slow?seconds=60")
            await server.await_until(lambda: len(server.requests_to("/slow")) == 10)
            for number in range(1, 4):
                server.revoke_access_tokens()
                assert statuses(await tasks(20, lambda: client.get("/me"))) == [200] * 20
                assert server.token_requests == number
            clock.advance(2 * server.lifetime)
            assert statuses(await tasks(20, lambda: client.get("/me"))) == [200] * 20
            assert (server.token_requests, server.open_streams) == (4, 1)
            await end(server, events)
        group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_guarantee_3_stream_that_was_opened_by_a_replay_holds_up_nobody(
    any_site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(any_site.coroutine, token=server.issue(), clock=clock)
    server.revoke_access_tokens()
    async with any_site.async_client(auth) as client, client.stream("GET", "/sse") as response:
        events = response.aiter_bytes()
        assert await anext(events)
        for number in range(2, 5):
            server.revoke_access_tokens()
            assert statuses(await tasks(20, lambda: client.get("/me"))) == [200] * 20
            assert (server.token_requests, server.open_streams) == (number, 1)
        await end(server, events)


async def end(server: AuthorizationServer, events: AsyncIterator[bytes]) -> None:
    """Read a stream to its end, because httpx's generators would complain if they were left in the middle."""
    server.end_streams()
    assert [event async for event in events]


def test_guarantee_3_open_stream_holds_up_no_thread(
    any_site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(any_site.function, token=server.issue(), clock=clock)
    server.revoke_access_tokens()
    with any_site.client(auth) as client, client.stream("GET", "/sse") as response:
        events = response.iter_bytes()
        assert next(events)
        server.revoke_access_tokens()
        assert statuses(Threads([lambda: client.get("/me")] * 20).join()) == [200] * 20
        assert (server.token_requests, server.open_streams) == (2, 1)
        server.end_streams()
        assert list(events)


def test_guarantee_3_no_lock_is_held_across_a_yield(library: HttpLibrary, clock: ManualClock):
    # Each flow is left in the middle: after its first request, or after its replay.
    tokens: Iterator[Token] = (Token(f"token-{number}", refresh_token="r") for number in range(1, 100))
    auth = library.Reauth(lambda _: next(tokens), token=Token("token-0", refresh_token="r"), clock=clock)
    package = library.package
    sent = []
    for replay in (False, True):
        flow = auth.sync_auth_flow(package.Request("GET", "https://api.test/me"))
        request = next(flow)
        if replay:
            request = flow.send(package.Response(401, request=request))
        sent.append((flow, request))

        def is_free() -> bool:
            free = LOCK.acquire(blocking=False)
            if free:
                LOCK.release()
            return free

        assert Threads([is_free]).join() == [True]
        assert Threads([auth.get_token] * 5).join() == [auth.store.state.token] * 5
    for flow, request in sent:
        with pytest.raises(StopIteration):
            flow.send(package.Response(200, request=request))


@pytest.mark.anyio
async def test_guarantee_3_flow_may_be_driven_by_one_task_after_another(library: HttpLibrary, clock: ManualClock):
    # A cancel scope or a task group across a `yield` would raise here, because it is left in another task.
    async def refresh(token: Token) -> Token:
        await anyio.lowlevel.checkpoint()
        return Token("new", refresh_token="r")

    auth = library.Reauth(refresh, token=Token("old", refresh_token="r"), clock=clock)
    package = library.package
    flow = auth.async_auth_flow(package.Request("GET", "https://api.test/me"))
    got: list[Any] = []

    async def step(status: int | None) -> None:
        answer = None if status is None else package.Response(status, request=got[-1])
        try:
            got.append(await flow.asend(answer))
        except StopAsyncIteration:
            got.append("end")

    for status in (None, 401, 200):
        async with anyio.create_task_group() as group:
            group.start_soon(step, status)
    assert got[-1] == "end"
    assert auth.store.state.token.access_token == "new"


@pytest.mark.anyio
async def test_guarantee_3_request_that_is_given_up_in_the_middle_leaves_nothing_behind(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(), clock=clock)
    async with site.async_client(auth) as client, anyio.create_task_group() as group:
        with server.api.hold():
            for _ in range(20):
                group.start_soon(client.get, "/me")
            await server.await_until(lambda: server.api_requests == 20)
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                server.revoke_access_tokens()
                await auth.aget_token(rejected=auth.store.state.token)
    async with site.async_client(auth) as client:
        assert (await client.get("/me")).status_code == 200
    assert server.token_requests == 1


# --- a function that hangs ---


class Hanging:
    """A refresh that returns when the test lets it."""

    def __init__(self) -> None:
        self.calls = 0
        self.begun = threading.Event()
        self.end = threading.Event()

    def __call__(self, token: Token) -> Token:
        self.calls += 1
        self.begun.set()
        assert self.end.wait(60)
        return Token("late", refresh_token="r-2")


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    refresh = Hanging()
    yield refresh
    refresh.end.set()


def is_overdue(errors: list, count: int, library: HttpLibrary) -> None:
    assert len(errors) == len({id(error) for error in errors}) == count
    for error in errors:
        assert isinstance(error, RefreshError)
        assert isinstance(error, library.package.TransportError)
        assert "running for more than 30 s (refresh_timeout)" in str(error)


@pytest.mark.anyio
async def test_guarantee_10_function_that_hangs_keeps_its_flight_and_its_late_answer_counts(
    hanging: Hanging, library: HttpLibrary, site: Site, server: AuthorizationServer, clock: ManualClock
):
    server.access = "open"
    auth = library.Reauth(hanging, token=Token(refresh_token="r-1"), clock=clock)
    waited: list = []
    async with site.async_client(auth) as client:
        async with anyio.create_task_group() as group:

            async def wait_long() -> None:
                waited.extend(await tasks(50, lambda: client.get("/me")))

            group.start_soon(wait_long)
            await anyio.to_thread.run_sync(hanging.begun.wait)
            await anyio.wait_all_tasks_blocked()
            assert waited == []
            clock.advance(30.1)
        is_overdue(waited, 50, library)
        for _ in range(3):
            is_overdue(await tasks(50, lambda: client.get("/me")), 50, library)
            clock.advance(3600)
        assert auth.store.state.status == "pending"
        assert (hanging.calls, server.api_requests) == (1, 0)
        hanging.end.set()
        await auth.aclose()
        await anyio.to_thread.run_sync(wait_until_landed, auth)
        assert (await client.get("/me")).status_code == 200
    assert server.authorizations() == ["Bearer late"]
    assert (hanging.calls, auth.store.state.token.refresh_token) == (1, "r-2")


def wait_until_landed(auth: Any) -> None:
    """Wait until a flight ends that is past its deadline. No call waits for it any more."""
    landed = threading.Event()
    unsubscribe = auth.store.subscribe(lambda state, action: landed.set())
    if auth.store.state.status == "pending":
        assert landed.wait(60)
    unsubscribe()


def test_guarantee_10_threads_that_wait_for_a_function_that_hangs(
    hanging: Hanging, library: HttpLibrary, site: Site, server: AuthorizationServer, clock: ManualClock
):
    server.access = "open"
    auth = library.Reauth(hanging, token=Token(refresh_token="r-1"), clock=clock)
    with site.client(auth) as client:
        crowd = Threads([lambda: client.get("/me")] * 20)
        assert hanging.begun.wait(60)
        clock.advance(30.1)
        is_overdue(crowd.join(), 20, library)
        is_overdue(Threads([lambda: client.get("/me")] * 20).join(), 20, library)
        assert hanging.calls == 1
        hanging.end.set()
        wait_until_landed(auth)
        assert client.get("/me").status_code == 200
    assert hanging.calls == 1


@pytest.mark.anyio
async def test_guarantee_10_while_a_function_hangs_beyond_its_time_new_requests_wait_for_nothing(
    hanging: Hanging, library: HttpLibrary, site: Site, clock: ManualClock
):
    auth = library.Reauth(hanging, token=Token(refresh_token="r-1"), clock=clock)
    async with site.async_client(auth) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(tasks, 1, lambda: client.get("/me"))
            await anyio.to_thread.run_sync(hanging.begun.wait)
            await anyio.wait_all_tasks_blocked()
            clock.advance(30.1)
        waits: list[str] = []
        wait_by(state_of(auth).flight, lambda: waits.append("thread"), lambda: waits.append("task"))
        is_overdue(await tasks(5, lambda: client.get("/me")), 5, library)
        with site.client(auth) as sync_client:
            is_overdue(Threads([lambda: sync_client.get("/me")] * 5).join(), 5, library)
        assert waits == []
        hanging.end.set()
        await anyio.to_thread.run_sync(wait_until_landed, auth)
    assert hanging.calls == 1


def test_guarantee_10_close_does_not_wait_for_ever(hanging: Hanging, library: HttpLibrary, clock: ManualClock):
    auth = library.Reauth(hanging, token=Token(refresh_token="r-1"), clock=clock)
    crowd = Threads([auth.get_token, auth.close])
    assert hanging.begun.wait(60)
    clock.advance(30.1)
    outcomes = crowd.join()
    assert {type(outcome) for outcome in outcomes} == {RefreshError, type(None)}
    auth.close()  # this returns immediately
    assert hanging.calls == 1


def test_guarantee_10_in_the_background_a_function_that_hangs_disturbs_nobody_while_the_token_lives(
    hanging: Hanging, library: HttpLibrary, site: Site, server: AuthorizationServer, clock: ManualClock
):
    auth = library.Reauth(hanging, token=server.issue(), clock=clock)
    clock.advance(3600 - 60)
    with site.client(auth) as client:
        for _ in range(59):
            assert client.get("/me").status_code == 200
            clock.advance(1)
        assert client.get("/me").status_code == 200
        clock.advance(1)
        with pytest.raises(RefreshError, match="refresh_timeout"):
            client.get("/me")
    assert hanging.begun.wait(60)
    assert hanging.calls == 1


@pytest.mark.anyio
async def test_guarantee_10_coroutine_that_hangs_is_stopped_and_says_that_its_outcome_is_unknown(
    library: HttpLibrary, clock: ManualClock
):
    calls: list[Token] = []

    async def hang(token: Token) -> Token:
        calls.append(token)
        await anyio.sleep_forever()
        raise AssertionError

    auth = library.Reauth(hang, token=Token(refresh_token="r-1"), refresh_timeout=0.2, clock=clock)
    errors = await tasks(50, auth.aget_token)
    assert {type(error) for error in errors} == {RefreshError}
    assert all("0.2 s (refresh_timeout)" in str(error) and "unknown" in str(error) for error in errors)
    assert len(calls) == 1


@pytest.mark.parametrize("refresh_timeout", [0.2])
def test_guarantee_10_coroutine_that_hangs_is_stopped_for_a_sync_client_as_well(
    refresh_timeout, library: HttpLibrary, clock: ManualClock
):
    async def hang(token: Token) -> Token:
        await anyio.sleep_forever()
        raise AssertionError

    auth = library.Reauth(hang, token=Token(refresh_token="r-1"), refresh_timeout=refresh_timeout, clock=clock)
    errors = Threads([auth.get_token] * 20).join()
    assert {type(error) for error in errors} == {RefreshError}
    assert all("0.2 s (refresh_timeout)" in str(error) for error in errors)
