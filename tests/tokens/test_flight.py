"""A flight: joined from any thread and any event loop, woken by whoever lands it, and the loops it is joined from."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from breakable_clock import BreakableClock

from httpx_reauth import SignedIn, Token, TokenStore
from httpx_reauth._state.actions import RefreshPending
from httpx_reauth._tokens._refresh import flight as _flight
from httpx_reauth._tokens._refresh.flight import Flight, _under_way, innermost_flight, is_inside_a_refresh, under_way
from httpx_reauth._tokens._refresh.loops import AsyncioLoop, Loop, TrioLoop, WaitingRoom, running_loop
from httpx_reauth.testing import ManualClock

BACKENDS = ["asyncio", "trio"]

LONG = 60.0  # seconds that no test waits for


def make(failures: int = 0, store: TokenStore | None = None) -> Flight:
    started = time.monotonic()
    flight = Flight(store or TokenStore(), "missing", started=started, overdue=started + LONG, failures=failures)
    flight.depart()
    return flight


@pytest.fixture
def flight() -> Iterator[Flight]:
    flight = make()
    yield flight
    flight.end()
    assert flight not in _under_way


@pytest.fixture(params=["land", "end", "overtake"])
def end(request: pytest.FixtureRequest) -> Callable[[Flight], None]:
    """The ways in which there is nothing left to wait for."""
    return {"land": Flight.land, "end": Flight.end, "overtake": Flight.overtake}[request.param]


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def in_loops_thread(backend: str, main: Callable[[], Awaitable[object]]) -> threading.Thread:
    return in_thread(lambda: anyio.run(main, backend=backend))


def has_waiters(flight: Flight, threads: int = 0, loops: int = 0) -> bool:
    return (flight._event is not None) == bool(threads) and len(flight._rooms) == loops


# What it is.


def test_a_new_flight_is_under_way_and_not_over(flight: Flight):
    assert not flight.landed
    assert not flight.is_over()
    assert not flight.is_lost()
    assert flight.token is flight.error is flight.home is flight.thread is None
    assert flight in _under_way


def test_a_flight_that_has_landed_is_over_and_under_way_to_its_end(flight: Flight):
    for _ in range(2):  # it may land again
        flight.land()
        assert (flight.landed, flight.ended) == (True, False)
        assert flight.is_over()
        assert not flight.is_over(for_end=True)
        assert under_way(flight.store) == [flight]
    for _ in range(2):
        flight.end()
        assert (flight.landed, flight.ended) == (True, True)
        assert flight.is_over(for_end=True)
        assert under_way(flight.store) == []


def test_the_end_of_a_flight_lands_it(flight: Flight):
    flight.end()
    assert flight.is_over()
    assert (flight.landed, flight.ended, flight.overtaken) == (True, True, False)


def test_an_overtaken_flight_is_over_and_goes_on(flight: Flight):
    flight.overtake()
    assert flight.is_over()
    assert not flight.is_over(for_end=True)
    assert not flight.landed
    assert under_way(flight.store) == [flight]


def test_each_store_knows_its_own_flights():
    one, other = TokenStore(), TokenStore()
    flights = [make(store=one), make(store=other), make(store=one)]
    assert set(under_way(one)) == {flights[0], flights[2]}
    assert under_way(other) == [flights[1]]
    for flight in flights:
        flight.end()
    assert under_way(one) == under_way(other) == []


def test_a_flight_has_no_room_for_typing_errors(flight: Flight):
    with pytest.raises(AttributeError):
        flight.lande = True  # type: ignore[attr-defined]


# Waiting on threads.


def test_whoever_comes_after_the_end_does_not_wait(flight: Flight, end: Callable[[Flight], None]):
    end(flight)
    flight.wait(LONG)
    anyio.run(flight.async_wait, LONG)
    assert has_waiters(flight)


def test_every_thread_that_waits_is_woken(flight: Flight, end: Callable[[Flight], None]):
    woken: list[int] = []
    arrived = threading.Barrier(21)

    def wait(number: int) -> None:
        arrived.wait()
        flight.wait(LONG)
        woken.append(number)

    threads = [in_thread(lambda number=number: wait(number)) for number in range(20)]
    arrived.wait()
    end(flight)
    for thread in threads:
        thread.join(LONG)
    assert sorted(woken) == list(range(20))
    assert has_waiters(flight)


def test_a_thread_waits_as_long_as_it_wants_to_and_looks_again(flight: Flight):
    flight.wait(0.01)
    assert not flight.is_over()
    flight.wait(0.01)
    assert not flight.is_over()


def test_who_waits_for_the_end_of_its_work_looks_again_when_it_has_landed(flight: Flight):
    steps: list[str] = []
    arrived = threading.Semaphore(0)

    def wait() -> None:
        while not flight.is_over(for_end=True):
            arrived.release()
            flight.wait(LONG, for_end=True)
            steps.append("ended" if flight.ended else "landed")
        flight.wait(LONG, for_end=True)

    thread = in_thread(wait)
    assert arrived.acquire(timeout=LONG)
    while flight._event is None:  # it is about to wait
        pass
    flight.land()
    assert arrived.acquire(timeout=LONG)
    flight.end()
    thread.join(LONG)
    assert steps == ["landed", "ended"]


# Waiting on event loops.


@pytest.mark.anyio
async def test_every_task_that_waits_is_woken(flight: Flight, end: Callable[[Flight], None]):
    woken: list[int] = []

    async def wait(number: int) -> None:
        await flight.async_wait(LONG)
        woken.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(wait, number)
        await anyio.wait_all_tasks_blocked()
        assert woken == []
        assert has_waiters(flight, loops=1)
        end(flight)
    assert sorted(woken) == list(range(100))
    assert has_waiters(flight)


@pytest.mark.anyio
async def test_a_task_that_waits_for_the_end_of_its_work_looks_again_when_it_has_landed(flight: Flight):
    steps: list[str] = []

    async def wait() -> None:
        while not flight.is_over(for_end=True):
            await flight.async_wait(LONG, for_end=True)
            steps.append("ended" if flight.ended else "landed")
        await flight.async_wait(LONG, for_end=True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        flight.land()
        await anyio.wait_all_tasks_blocked()
        assert steps == ["landed"]
        flight.end()
    assert steps == ["landed", "ended"]


@pytest.mark.anyio
async def test_a_thread_may_land_a_flight_that_tasks_wait_for(flight: Flight):
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(flight.async_wait, LONG)
        await anyio.wait_all_tasks_blocked()
        await anyio.to_thread.run_sync(flight.land)
    assert flight.landed


class Home:
    """An event loop that is found closed when it is looked at often enough."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.looked = 0

    def is_closed(self) -> bool:
        self.looked += 1
        return self.looked >= self.looks


@pytest.mark.anyio
async def test_of_all_tasks_that_wait_one_looks_whether_the_flight_is_lost_and_wakes_nobody_for_nothing(flight: Flight):
    flight.home = home = Home(looks=3)  # type: ignore[assignment]
    woken: list[int] = []

    async def wait() -> None:
        await flight.async_wait(0.001)
        woken.append(home.looked)

    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(wait)
    assert woken == [3] * 10
    assert not flight.is_over()


@pytest.mark.anyio
async def test_tasks_that_wait_are_woken_when_its_time_is_over(clock: ManualClock):
    store = TokenStore()
    store.count_by(clock)
    flight = Flight(store, "missing", started=clock.monotonic(), overdue=clock.monotonic() + 30.0, failures=0)
    flight.depart()
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flight.async_wait, 0.001)
            await anyio.wait_all_tasks_blocked()
            clock.advance(29.0)
            assert flight.left() == 1.0
            clock.advance(1.0)
            assert flight.left() == 0.0
        await flight.async_wait(0.001)  # and look again, as often as they come
    flight.end()


@pytest.mark.anyio
async def test_a_clock_that_raises_while_tasks_wait_breaks_no_event_loop_and_wakes_them_to_hear_of_it():
    store, clock = TokenStore(), BreakableClock()
    store.count_by(clock)
    flight = Flight(store, "missing", started=clock.monotonic(), overdue=clock.monotonic() + 30.0, failures=0)
    flight.depart()
    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flight.async_wait, 0.001)
            await anyio.wait_all_tasks_blocked()
            clock.broken = True
    flight.end()


@pytest.mark.anyio
async def test_no_timer_is_left_when_all_have_been_woken(flight: Flight):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(flight.async_wait, LONG)
        await anyio.wait_all_tasks_blocked()
        (room,) = flight._rooms.values()
        assert room.stop_looking is not None
        flight.land()
    assert room.stop_looking is None


@pytest.mark.anyio
async def test_a_cancelled_waiter_leaves_the_others_waiting(flight: Flight):
    woken: list[str] = []

    async def wait(name: str) -> None:
        await flight.async_wait(LONG)
        woken.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, "stays")
        async with anyio.create_task_group() as some:
            some.start_soon(wait, "goes")
            await anyio.wait_all_tasks_blocked()
            some.cancel_scope.cancel()
        tasks.start_soon(wait, "comes")
        await anyio.wait_all_tasks_blocked()
        assert woken == []
        flight.land()
    assert sorted(woken) == ["comes", "stays"]


@pytest.mark.anyio
async def test_a_flight_can_be_waited_for_though_every_waiter_so_far_was_cancelled(flight: Flight):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(flight.async_wait, LONG)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(flight.async_wait, LONG)
        await anyio.wait_all_tasks_blocked()
        flight.land()


def test_guarantee_1_one_landing_wakes_threads_and_loops_of_both_kinds(flight: Flight):
    woken: list[str] = []
    arrived = threading.Semaphore(0)

    async def one(name: str) -> None:
        arrived.release()
        await flight.async_wait(LONG)
        woken.append(name)

    async def three(name: str) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(one, name)

    def blocking() -> None:
        arrived.release()
        flight.wait(LONG)
        woken.append("thread")

    threads = [in_loops_thread(name, lambda name=name: three(name)) for name in BACKENDS * 2]
    threads += [in_thread(blocking) for _ in range(3)]
    for _ in range(15):
        assert arrived.acquire(timeout=LONG)
    flight.land()
    for thread in threads:
        thread.join(LONG)
    assert sorted(woken) == ["asyncio"] * 6 + ["thread"] * 3 + ["trio"] * 6


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loop_that_ended_meanwhile_is_no_obstacle_to_landing(flight: Flight, backend: str):
    async def leave() -> None:
        with anyio.move_on_after(LONG) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(flight.async_wait, LONG)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()

    anyio.run(leave, backend=backend)
    assert has_waiters(flight, loops=1)
    flight.land()
    assert has_waiters(flight)


@pytest.mark.anyio
async def test_a_room_wakes_nobody_as_long_as_any_time_is_left():
    left = [0.002, 0.001, 0.0]
    await WaitingRoom(running_loop(), lambda: left.pop(0)).enter(LONG).wait()
    assert left == []


def test_waking_a_room_where_nobody_waits_does_nothing():
    async def main() -> None:
        room = WaitingRoom(running_loop(), lambda: LONG)
        room.wake()
        assert room.stop_looking is None

    anyio.run(main)


# The loop that it runs on.


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_flight_is_lost_once_the_loop_it_runs_on_has_ended(flight: Flight, backend: str):
    async def board() -> None:
        flight.home = running_loop()
        assert not flight.is_lost()

    anyio.run(board, backend=backend)
    assert flight.is_lost()
    flight.land()
    assert not flight.is_lost()


def test_a_flight_with_a_loop_of_its_own_is_never_lost(flight: Flight):
    assert not flight.is_lost()


# Who is aboard.


def test_only_what_runs_inside_of_a_flight_is_aboard(flight: Flight):
    context = copy_context()
    context.run(flight.board)
    assert context.run(flight.is_aboard)
    assert not flight.is_aboard()
    assert context.run(is_inside_a_refresh)
    assert not is_inside_a_refresh()


def test_one_is_aboard_of_every_flight_around():
    outer, inner, other = make(), make(), make()
    context = copy_context()
    context.run(outer.board)
    context.run(inner.board)
    assert context.run(outer.is_aboard)
    assert context.run(inner.is_aboard)
    assert not context.run(other.is_aboard)
    for flight in (outer, inner, other):
        flight.end()


def test_what_runs_inside_of_several_refreshes_belongs_to_the_innermost():
    outer, inner = make(failures=3), make(failures=1)
    context = copy_context()
    assert context.run(innermost_flight) is None
    context.run(outer.board)
    assert context.run(innermost_flight) is outer
    context.run(inner.board)
    assert context.run(innermost_flight) is inner
    assert innermost_flight() is None
    outer.end()
    inner.end()


@pytest.mark.anyio
async def test_a_task_started_by_a_refresh_is_aboard_too(flight: Flight):
    seen: list[bool] = []

    async def look() -> None:
        seen.append(flight.is_aboard())

    flight.board()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
    assert seen == [True]


# The two kinds of loops.


@pytest.mark.anyio
async def test_the_running_loop_is_known_by_its_kind(anyio_backend_name: str):
    loop = running_loop()
    assert type(loop) is {"asyncio": AsyncioLoop, "trio": TrioLoop}[anyio_backend_name]
    assert loop == running_loop()
    assert hash(loop) == hash(running_loop())
    assert loop != object()
    assert not loop.is_closed()


def test_outside_of_a_loop_there_is_none():
    with pytest.raises(RuntimeError):
        running_loop()


def test_asyncio_is_found_where_trio_was_never_imported(monkeypatch: pytest.MonkeyPatch):
    async def look() -> Loop:
        return running_loop()

    monkeypatch.delitem(sys.modules, "trio")
    assert type(asyncio.run(look())) is AsyncioLoop


def test_two_loops_are_not_taken_for_each_other():
    loops: list[Loop] = []

    async def look() -> None:
        loops.append(running_loop())

    for backend in BACKENDS * 2:
        anyio.run(look, backend=backend)
    assert len(set(loops)) == 4
    assert all(one != other for one in loops for other in loops if one is not other)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loop_is_called_from_any_thread_while_it_runs(backend: str):
    called: list[int] = []
    loops: list[Loop] = []

    async def main() -> None:
        loop = running_loop()
        loops.append(loop)
        event = anyio.Event()

        def call() -> None:
            called.append(threading.get_ident())
            event.set()

        assert await anyio.to_thread.run_sync(loop.call_soon, call) is True
        await event.wait()
        assert called == [threading.get_ident()]

    anyio.run(main, backend=backend)
    assert loops[0].call_soon(lambda: called.append(0)) is False
    assert loops[0].is_closed()
    assert len(called) == 1


def test_in_a_trio_run_that_is_asyncios_guest_each_task_knows_its_own_loop():
    seen: dict[str, Any] = {}

    async def host() -> None:
        done = asyncio.get_running_loop().create_future()

        async def guest() -> None:
            seen["guest"] = running_loop()

        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=lambda _: done.set_result(None),
        )
        seen["host"] = running_loop()
        await done

    asyncio.run(host())
    assert type(seen["guest"]) is TrioLoop
    assert type(seen["host"]) is AsyncioLoop


# Fork.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_flight_inherited_through_fork_is_dropped_and_is_no_failure():
    store = TokenStore(Token("a"))
    flight = make(store=store)
    store.dispatch(RefreshPending("missing", flight=flight))
    waiter = in_thread(lambda: flight.wait(LONG))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            flight.wait(LONG)
            state = store.state
            assert (state.status, state.flight, state.record.failures) == ("idle", None, 0)
            assert flight.landed
            assert flight.ended
            assert flight.stopped
            assert not _under_way
            store.dispatch(SignedIn(Token("b")))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not flight.landed
    assert store.state.flight is flight
    flight.end()
    waiter.join(LONG)
    assert not waiter.is_alive()


def test_a_flight_that_begins_has_done_nothing_yet():
    flight = Flight(TokenStore(), "expired", started=5.0, overdue=9.0, failures=2)
    flight.depart()
    flight.end()
    assert (flight.reason, flight.started, flight.overdue, flight.failures) == ("expired", 5.0, 9.0, 2)
    flight = make()
    assert (flight.landed, flight.ended, flight.overtaken, flight.stopped) == (False, False, False, False)
    assert (flight.refresh, flight.token, flight.error, flight.home, flight.thread, flight.keep) == (None,) * 6
    flight.end()


def test_a_forked_childs_hook_drops_the_flights_of_the_parent():
    store = TokenStore(Token("a"))
    flight = make(store=store)
    store.dispatch(RefreshPending("expired", flight=flight))
    assert store.state.status == "pending"
    _flight._after_fork_in_child()
    assert under_way(store) == []
    assert (flight.landed, flight.ended, flight.stopped) == (True, True, True)
    assert (store.state.status, store.state.flight) == ("idle", None)


# How it begins, and is given up.


def test_a_flight_that_is_given_up_before_it_has_begun_does_not_begin(flight: Flight):
    assert flight.give_up()
    assert flight.ended
    assert not flight.begin()
    assert flight.give_up()


def test_a_flight_that_has_begun_is_not_given_up(flight: Flight):
    assert flight.begin()
    assert not flight.give_up()
    assert not flight.ended
    flight.end()
    assert not flight.give_up()
    assert flight.ended


def test_a_task_that_its_loop_has_not_stopped_a_second_after_its_time_is_lost_and_a_thread_is_not(clock: ManualClock):
    store = TokenStore()
    store.count_by(clock)
    flight = Flight(store, "missing", started=clock.monotonic(), overdue=clock.monotonic() + 30.0, failures=0)
    loop = asyncio.new_event_loop()
    flight.home, flight.is_task = AsyncioLoop(loop), True
    clock.advance(30.5)
    assert not flight.is_lost()
    clock.advance(0.5)
    assert flight.is_lost()
    flight.is_task = False
    assert not flight.is_lost()
    flight.is_task = True
    loop.run_until_complete(runs(flight))
    flight.has_answered = True
    assert not flight.is_lost()
    loop.close()


async def runs(flight: Flight) -> None:
    assert not flight.is_lost()  # it may answer yet, though late


@pytest.mark.anyio
async def test_only_those_with_less_patience_than_a_flight_has_time_have_a_room_of_their_own(clock: ManualClock):
    store = TokenStore()
    store.count_by(clock)
    flight = Flight(store, "missing", started=clock.monotonic(), overdue=clock.monotonic() + 30.0, failures=0)
    waits = [flight.async_wait(until=until) for until in (float("inf"), flight.overdue, flight.overdue + 1.0)]
    (shared,) = flight._rooms.values()
    assert shared.left() == 30.0
    waits.append(flight.async_wait(until=flight.overdue - 1.0))
    own = next(room for room in flight._rooms.values() if room is not shared)
    assert (own.left(), len(flight._rooms)) == (29.0, 2)
    clock.advance(29.0)
    assert own.left() == 0.0
    assert list(flight._rooms.values()) == [shared]  # nobody is left there
    own.wake()
    flight.land()
    for wait in waits:
        await wait
    flight.end()


# Timers of the event loops.

tone: ContextVar[str] = ContextVar("tone", default="none")


@pytest.mark.anyio
async def test_a_timer_runs_in_the_context_of_who_has_set_it():
    rung, seen = anyio.Event(), list[str]()
    tone.set("red")
    running_loop().call_later(0.001, lambda: (seen.append(tone.get()), rung.set()))
    tone.set("blue")
    with anyio.fail_after(LONG):
        await rung.wait()
    assert seen == ["red"]


@pytest.mark.anyio
async def test_a_timer_that_is_stopped_does_not_run():
    rung: list[str] = []
    loop = running_loop()
    stop, last = loop.call_later(0.001, lambda: rung.append("stopped")), anyio.Event()
    stop()
    loop.call_later(0.002, last.set)
    with anyio.fail_after(LONG):
        await last.wait()
    assert rung == []


def test_an_interrupt_in_a_timer_ends_no_trio_run_as_an_internal_error():
    async def waits() -> None:
        rung = trio.Event()

        def ring() -> None:
            rung.set()
            raise KeyboardInterrupt

        running_loop().call_later(0.001, ring)
        with trio.fail_after(LONG):
            await rung.wait()
        await trio.testing.wait_all_tasks_blocked()

    trio.run(waits)
