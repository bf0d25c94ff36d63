"""Tests that a refresh belongs to no caller: its caller may be cancelled at any moment (guarantees 1 and 2)."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from crowd import STARTS, Start, Threads, statuses, suspended, tasks, the_refresh_token_is_kept
from sites import HttpLibrary, Site

from httpx_reauth import RefreshError, RefreshFulfilled, RefreshRejected, SignInRequired, Token
from httpx_reauth.testing import AuthorizationServer, ManualClock

starts = pytest.mark.parametrize("start", STARTS, ids=lambda start: start.name)
kinds = pytest.mark.parametrize("kind", ["coroutine", "function", "lambda", "grant"])

Cancel = Callable[[], object]
Ways = dict[str, Callable[[Callable[[], Awaitable], "asyncio.Event | anyio.Event"], Awaitable[None]]]


# --- the ways in which a request can be cancelled: each runs `ask` until `now` is set ---


async def task_cancel(ask, now) -> None:
    task = asyncio.ensure_future(ask())
    await now.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def wait_for(ask, now) -> None:
    task = asyncio.ensure_future(ask())
    await now.wait()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(task, 0)


async def asyncio_timeout(ask, now) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(None) as timeout:  # a deadline that the test sets later, so that nobody waits for it
            timeouts.append(timeout)
            await ask()

    timeouts: list = []
    task = asyncio.ensure_future(in_time())
    await now.wait()
    timeouts[0].reschedule(asyncio.get_running_loop().time())
    with pytest.raises(TimeoutError):
        await task


async def asyncio_task_group(ask, now) -> None:
    async def fail() -> None:
        await now.wait()
        raise ZeroDivisionError

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ask())
            group.create_task(fail())

    with pytest.raises(Exception, match="TaskGroup") as caught:  # Python 3.10 does not know an ExceptionGroup
        await together()
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]


async def trio_cancel_scope(ask, now) -> None:
    import trio

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def end() -> None:
                await now.wait()
                scope.cancel()

            nursery.start_soon(end)
            await ask()
    assert scope.cancelled_caught


async def trio_deadline(ask, now) -> None:
    import trio

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def end() -> None:
                await now.wait()
                scope.deadline = trio.current_time()

            nursery.start_soon(end)
            await ask()
    assert scope.cancelled_caught


async def anyio_cancel_scope(ask, now) -> None:
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:

            async def end() -> None:
                await now.wait()
                scope.cancel()

            group.start_soon(end)
            await ask()
    assert scope.cancelled_caught


async def anyio_task_group(ask, now) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await now.wait()
        group.cancel_scope.cancel()


_PAIRS = [
    ("asyncio", task_cancel),
    ("asyncio", wait_for),
    *([("asyncio", asyncio_timeout), ("asyncio", asyncio_task_group)] if sys.version_info >= (3, 11) else []),
    ("trio", trio_cancel_scope),
    ("trio", trio_deadline),
    *[(backend, way) for backend in ("asyncio", "trio") for way in (anyio_cancel_scope, anyio_task_group)],
]
ways = pytest.mark.parametrize(
    ("anyio_backend", "way"), [pytest.param(*pair, id=f"{pair[1].__name__}-{pair[0]}") for pair in _PAIRS]
)


@pytest.mark.anyio
@ways
@pytest.mark.parametrize("kind", ["coroutine", "function"])
@starts
async def test_guarantee_2_cancelled_leader_does_not_lose_the_rotated_refresh_token(
    anyio_backend, way, kind, start: Start, site: Site, server: AuthorizationServer, library: HttpLibrary, clock
):
    auth = library.Reauth(site.refresh(kind), token=start.token(server, clock), clock=clock)
    others: list = []
    async with site.async_client(auth) as client, anyio.create_task_group() as group:
        with server.token_endpoint.hold() as gate:
            now = anyio.Event()

            async def follow() -> None:
                others.extend(await tasks(20, lambda: client.get("/me")))

            async def cancel() -> None:
                await server.await_until(lambda: gate.held == 1)  # the server has issued the new tokens already
                group.start_soon(follow)
                await anyio.wait_all_tasks_blocked()
                now.set()

            group.start_soon(cancel)
            await way(lambda: client.get("/me"), now)
            await anyio.wait_all_tasks_blocked()
            assert others == []
            gate.release()
    assert statuses(others) == [200] * 20
    assert server.token_requests == 1
    await the_refresh_token_is_kept(site, auth, server, clock)


@pytest.mark.anyio
@ways
@kinds
async def test_guarantee_2_when_the_only_requester_is_cancelled_the_next_request_uses_what_the_refresh_brought(
    anyio_backend, way, kind, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.refresh(kind), token=server.issue(access_token=False), clock=clock)
    async with site.async_client(auth) as client, anyio.create_task_group() as group:
        with server.token_endpoint.hold() as gate:
            now = anyio.Event()

            async def cancel() -> None:
                await server.await_until(lambda: gate.held == 1)
                now.set()

            group.start_soon(cancel)
            await way(lambda: client.get("/me"), now)
            assert auth.store.state.status == "pending"
        await auth.aclose()
        assert auth.store.state.status == "fulfilled"
        assert (await client.get("/me")).status_code == 200
    assert (server.token_requests, server.api_requests) == (1, 1)
    await the_refresh_token_is_kept(site, auth, server, clock)


# --- cancelled at each await point ---


async def cancelled_at(point: int, how: str, function: Callable[[], Awaitable]) -> bool:
    """Run `function`, and cancel it when it suspends for the time number `point`. Return whether it got that far."""
    if how == "task.cancel()":
        task = asyncio.ensure_future(_suspended_in_own_task(function, point))
        try:
            _, times = await task
        except asyncio.CancelledError:
            return True
        return times >= point
    with anyio.CancelScope() as scope:
        _, times = await suspended(function(), point, scope.cancel)
        return times >= point
    return True


async def _suspended_in_own_task(function: Callable[[], Awaitable], point: int) -> tuple:
    return await suspended(function(), point, asyncio.current_task().cancel)


hows = pytest.mark.parametrize(
    ("anyio_backend", "how"),
    [("asyncio", "task.cancel()"), ("asyncio", "cancel scope"), ("trio", "cancel scope")],
    ids=lambda value: value,
)


async def cancel_at_every_point(how: str, kind: str, start: Start, where, library: HttpLibrary) -> None:
    for point in range(1, 200):
        with AuthorizationServer(clock=ManualClock()) as server, where(server) as site:
            if not await leader_cancelled_at(point, how, kind, start, site, server, library):
                assert point > 2
                return
    pytest.fail("the request has no end")


async def leader_cancelled_at(point: int, how: str, kind: str, start: Start, site: Site, server, library) -> bool:
    clock = server.clock
    auth = library.Reauth(site.refresh(kind), token=start.token(server, clock), clock=clock)
    cancelled: list[bool] = []
    others: list = []
    async with site.async_client(auth) as client, site.async_client(auth) as other_client:

        async def lead() -> None:
            cancelled.append(await cancelled_at(point, how, lambda: client.get("/me")))

        async def follow() -> None:
            others.extend(await tasks(5, lambda: other_client.get("/me")))

        with server.token_endpoint.hold() as gate:
            async with anyio.create_task_group() as group:
                group.start_soon(lead)
                await anyio.wait_all_tasks_blocked()
                group.start_soon(follow)
                await server.await_until(lambda: gate.held == 1)
                await anyio.wait_all_tasks_blocked()
                gate.release()
        assert statuses(others) == [200] * 5, f"cancelled at suspension {point}"
        assert server.token_requests == 1, f"cancelled at suspension {point}"
        assert (await other_client.get("/me")).status_code == 200
        await auth.aclose()
    await the_refresh_token_is_kept(site, auth, server, clock)
    return cancelled[0]


class _InMemory:
    def __init__(self, library: HttpLibrary, server: AuthorizationServer) -> None:
        self.site = library.at(server)

    def __enter__(self) -> Site:
        return self.site

    def __exit__(self, *_: object) -> None:
        pass


class _OnSocket:
    def __init__(self, library: HttpLibrary, server: AuthorizationServer) -> None:
        self.library = library
        self.serving = server.serve()

    def __enter__(self) -> Site:
        return self.library.at(self.serving.__enter__())

    def __exit__(self, *_: object) -> None:
        self.serving.__exit__(None, None, None)


@pytest.mark.anyio
@hows
@starts
@pytest.mark.parametrize("kind", ["coroutine", "function"])
async def test_guarantee_2_leader_may_be_cancelled_at_every_await_point(
    anyio_backend, how, start: Start, kind, library: HttpLibrary
):
    await cancel_at_every_point(how, kind, start, lambda server: _InMemory(library, server), library)


@pytest.mark.anyio
@hows
async def test_guarantee_2_leader_may_be_cancelled_at_every_await_point_on_a_socket(
    anyio_backend, how, library: HttpLibrary
):
    await cancel_at_every_point(how, "coroutine", STARTS[2], lambda server: _OnSocket(library, server), library)


@pytest.mark.anyio
@hows
async def test_guarantee_2_waiter_may_be_cancelled_at_every_await_point(
    anyio_backend, how, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(access_token=False), clock=clock)
    cancelled: list[bool] = [True]
    answers: list = []
    async with site.async_client(auth) as client:

        async def lead() -> None:
            answers.append(await client.get("/me"))

        async def follow(point: int) -> None:
            cancelled.append(await cancelled_at(point, how, lambda: client.get("/me")))

        while cancelled[-1]:
            with server.token_endpoint.hold() as gate:
                async with anyio.create_task_group() as group:
                    group.start_soon(lead)
                    await server.await_until(lambda gate=gate: gate.held == 1)
                    group.start_soon(follow, len(cancelled))
                    await anyio.wait_all_tasks_blocked()
                    gate.release()
            assert statuses(answers) == [200] * server.token_requests
            assert (len(answers), server.reuse_detected) == (len(cancelled) - 1, 0)
            clock.advance(2 * server.lifetime)
    assert len(answers) > 2


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_guarantee_2_request_cancelled_before_its_first_step_starts_nothing(
    anyio_backend, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(access_token=False), clock=clock)
    async with site.async_client(auth) as client:
        task = asyncio.ensure_future(client.get("/me"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert auth.store.state.status == "idle"
        assert (await client.get("/me")).status_code == 200
    assert server.token_requests == 1


# --- event loops that end ---


@pytest.fixture
def patient_server(clock: ManualClock):
    """Return a server whose refresh tokens can be used again, so that a refresh after a lost one can succeed."""
    with AuthorizationServer(clock=clock, rotate=False) as server:
        yield server


def run(function: Callable[[], Awaitable], backend: str) -> object:
    return anyio.run(function, backend=backend)


def events_of(auth) -> list:
    events: list = []
    auth.store.subscribe(lambda state, action: events.append(action))
    return events


def test_guarantee_2_asyncio_run_ending_in_the_middle_of_a_refresh_says_that_its_outcome_is_unknown(
    library: HttpLibrary, patient_server: AuthorizationServer, clock: ManualClock
):
    site = library.at(patient_server)
    auth = library.Reauth(site.coroutine, token=patient_server.issue(access_token=False), clock=clock)
    events = events_of(auth)

    async def leave_early() -> None:
        async with site.async_client(auth) as client:
            task = asyncio.ensure_future(client.get("/me"))
            await patient_server.await_until(lambda: gate.held == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def ask() -> int:
        async with site.async_client(auth) as client:
            return (await client.get("/me")).status_code

    with patient_server.token_endpoint.hold() as gate:
        asyncio.run(leave_early())
        assert auth.store.state.status == "rejected"
        assert isinstance(auth.store.state.error, RefreshError)
        assert "outcome is unknown" in str(auth.store.state.error)
        assert "event loop" in str(auth.store.state.error)
    assert asyncio.run(ask()) == 200  # immediately: the end of its loop says nothing about the next refresh
    assert patient_server.token_requests == 2
    assert [type(event).__name__ for event in events] == [
        "RefreshPending",
        "RefreshRejected",
        "RefreshPending",
        "RefreshFulfilled",
    ]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_guarantee_2_after_a_loop_that_ended_in_the_middle_the_next_one_starts_another_refresh(
    backend, library: HttpLibrary, patient_server: AuthorizationServer, clock: ManualClock
):
    site = library.at(patient_server)
    auth = library.Reauth(site.coroutine, token=patient_server.issue(access_token=False), clock=clock)

    async def leave_early() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(auth.aget_token)
            await patient_server.await_until(lambda: gate.held == 1)
            group.cancel_scope.cancel()

    with patient_server.token_endpoint.hold() as gate:
        anyio.run(leave_early, backend=backend)
        assert "outcome is unknown" in str(auth.store.state.error)
    assert anyio.run(auth.aget_token, backend=backend).access_token
    assert patient_server.token_requests == 2
    clock.advance(2 * patient_server.lifetime)
    assert auth.get_token().access_token
    assert patient_server.token_requests == 3


def test_guarantee_2_with_rotation_an_answer_lost_with_its_loop_ends_in_a_sign_in_not_in_a_loop(
    library: HttpLibrary, server: AuthorizationServer, site: Site, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(access_token=False), clock=clock)

    async def leave_early() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(auth.aget_token)
            await server.await_until(lambda: gate.held == 1)
            group.cancel_scope.cancel()

    with server.token_endpoint.hold() as gate:
        asyncio.run(leave_early())
    for _ in range(3):
        with pytest.raises(SignInRequired):
            asyncio.run(auth.aget_token())
    assert server.token_requests == 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_guarantee_2_leaving_through_async_with_waits_for_the_refresh(
    backend, library: HttpLibrary, server: AuthorizationServer, site: Site, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(access_token=False), clock=clock)
    steps: list[str] = []

    async def leave() -> None:
        with server.token_endpoint.hold() as gate:
            async with anyio.create_task_group() as group:

                async def release() -> None:
                    await anyio.wait_all_tasks_blocked()
                    steps.append("everybody waits")
                    gate.release()

                async with auth:
                    with anyio.CancelScope() as scope:
                        async with anyio.create_task_group() as requests:
                            requests.start_soon(auth.aget_token)
                            await server.await_until(lambda: gate.held == 1)
                            scope.cancel()
                    group.start_soon(release)
                steps.append("left")

    anyio.run(leave, backend=backend)
    assert steps == ["everybody waits", "left"]
    assert auth.store.state.status == "fulfilled"
    assert server.token_requests == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", ["function", "grant"])
def test_guarantee_2_a_function_outlives_the_event_loop_that_wanted_it(
    backend, kind, library: HttpLibrary, server: AuthorizationServer, site: Site, clock: ManualClock
):
    auth = library.Reauth(site.refresh(kind), token=server.issue(access_token=False), clock=clock)

    async def leave_early() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(auth.aget_token)
            await server.await_until(lambda: gate.held == 1)
            group.cancel_scope.cancel()

    with server.token_endpoint.hold() as gate:
        anyio.run(leave_early, backend=backend)
        assert auth.store.state.status == "pending"
    assert anyio.run(auth.aget_token, backend=backend).access_token
    assert server.token_requests == 1


def test_guarantee_2_refresh_cancelled_before_its_first_step_does_not_leave_the_store_pending(
    library: HttpLibrary, server: AuthorizationServer, site: Site, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(access_token=False), clock=clock)

    async def leave_at_once() -> None:
        request = auth.aget_token()
        request.send(None)  # starts the refresh's task, which has not run yet
        assert auth.store.state.status == "pending"
        request.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(leave_at_once())
    assert auth.store.state.status == "rejected"
    assert server.token_requests == 0
    assert asyncio.run(auth.aget_token()).access_token
    assert server.token_requests == 1


def test_guarantee_2_waiter_in_another_thread_starts_another_refresh_when_the_loop_of_the_refresh_ends(
    library: HttpLibrary, patient_server: AuthorizationServer, clock: ManualClock
):
    site = library.at(patient_server)
    auth = library.Reauth(site.coroutine, token=patient_server.issue(access_token=False), clock=clock)
    threads: list[Threads] = []

    async def leave_early() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(auth.aget_token)
            await patient_server.await_until(lambda: gate.held == 1)
            threads.append(Threads([auth.get_token] * 10))
            group.cancel_scope.cancel()

    with patient_server.token_endpoint.hold() as gate:
        asyncio.run(leave_early())
        patient_server.wait_until(lambda: gate.held == 2)
    tokens = threads[0].join()
    assert {type(token) for token in tokens} == {Token}
    assert len(set(tokens)) == 1
    assert patient_server.token_requests == 2


def abandoned_loop(auth, server: AuthorizationServer, gate) -> asyncio.AbstractEventLoop:
    """Return an event loop that has stopped during a refresh. If a test closes it, nothing on it is cancelled."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # asyncio rightly complains about the tasks that are left

    async def lead() -> None:
        task = asyncio.ensure_future(auth.aget_token())
        await server.await_until(lambda: gate.held == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(lead())
    assert auth.store.state.status == "pending"
    return loop


def test_guarantee_2_loop_closed_under_a_refresh_is_noticed_by_those_who_wait_in_other_threads_and_loops(
    library: HttpLibrary, patient_server: AuthorizationServer, clock: ManualClock
):
    site = library.at(patient_server)
    auth = library.Reauth(site.coroutine, token=patient_server.issue(access_token=False), clock=clock)
    events = events_of(auth)
    with patient_server.token_endpoint.hold() as gate:
        loop = abandoned_loop(auth, patient_server, gate)
        crowd = Threads(
            [auth.get_token] * 5
            + [lambda: asyncio.run(auth.aget_token())] * 2
            + [lambda: anyio.run(auth.aget_token, backend="trio")] * 2
        )
        loop.close()
        patient_server.wait_until(lambda: gate.held == 2)  # within about a second
    tokens = crowd.join()
    assert {type(token) for token in tokens} == {Token}
    assert len(set(tokens)) == 1
    assert patient_server.token_requests == 2
    rejected = [event for event in events if isinstance(event, RefreshRejected)]
    assert len(rejected) == 1
    assert "outcome is unknown" in str(rejected[0].error)
    gc.collect()  # asyncio's complaint must appear here, not in another test


def test_guarantee_2_loop_closed_under_a_refresh_is_noticed_by_the_next_request(
    library: HttpLibrary, patient_server: AuthorizationServer, clock: ManualClock
):
    site = library.at(patient_server)
    auth = library.Reauth(site.coroutine, token=patient_server.issue(access_token=False), clock=clock)
    with patient_server.token_endpoint.hold() as gate:
        abandoned_loop(auth, patient_server, gate).close()
    with site.client(auth) as client:
        assert client.get("/me").status_code == 200
    assert patient_server.token_requests == 2
    gc.collect()


# --- eager tasks ---


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("kind", ["coroutine", "function", "without a pause"])
def test_guarantee_1_eager_tasks_share_one_refresh(
    kind, library: HttpLibrary, server: AuthorizationServer, site: Site, clock: ManualClock
):
    async def without_a_pause(token: Token) -> Token:
        return site.function(token)

    refresh = without_a_pause if kind == "without a pause" else site.refresh(kind)
    auth = library.Reauth(refresh, token=server.issue(access_token=False), clock=clock)
    events = events_of(auth)

    async def main() -> list:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async with site.async_client(auth) as client:
            cancelled = asyncio.ensure_future(client.get("/me"))
            cancelled.cancel()
            return await asyncio.gather(*[client.get("/me") for _ in range(100)])

    assert statuses(asyncio.run(main())) == [200] * 100
    assert server.token_requests == 1
    assert [type(event) for event in events[1:]] == [RefreshFulfilled]


# Event loops that stop, and are not closed.


def stopped_loop(auth: Any, server: AuthorizationServer, gate: Any) -> asyncio.AbstractEventLoop:
    """Return an event loop that has stopped during a refresh.

    Its thread has finished with it, and has not closed it.
    """
    loop = asyncio.new_event_loop()

    async def leave_early() -> None:
        task = asyncio.ensure_future(auth.aget_token())
        await server.await_until(lambda: gate.held == 1)
        task.cancel()

    loop.run_until_complete(leave_early())
    return loop


def test_guarantee_10_a_refresh_on_a_loop_that_is_not_run_any_more_is_given_up_after_its_time(
    library: HttpLibrary, patient_server: AuthorizationServer, clock: ManualClock
):
    site = library.at(patient_server)
    auth = library.Reauth(
        site.coroutine, token=patient_server.issue(access_token=False), clock=clock, refresh_timeout=30.0
    )
    with patient_server.token_endpoint.hold() as gate:
        loop = on_another_thread(lambda: stopped_loop(auth, patient_server, gate))
    clock.advance(29.9)
    assert auth.store.state.status == "pending"
    clock.advance(0.2)
    with pytest.raises(RefreshError, match="refresh_timeout"):
        asyncio.run(auth.aget_token())
    clock.advance(1.0)
    assert asyncio.run(auth.aget_token()).access_token
    assert auth.store.state.status == "fulfilled"
    assert patient_server.token_requests == 2
    loop.set_exception_handler(lambda *_: None)
    # the loop runs once more, but the refresh's result does not count any more
    loop.run_until_complete(asyncio.sleep(0))
    for task in asyncio.all_tasks(loop):
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            loop.run_until_complete(task)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert auth.store.state.status == "fulfilled"


def on_another_thread(function: Callable[[], Any]) -> Any:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(function()))
    thread.start()
    thread.join()
    return answers[0]
