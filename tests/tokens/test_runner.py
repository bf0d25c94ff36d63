"""What runs the work of a flight: a task of the caller's loop, a thread or, where none can start, the caller."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import trio
import trio.lowlevel

from httpx_reauth import Reauth, ReauthError, RefreshError, Token, TokenStore
from httpx_reauth._tokens._refresh import worker as _runner
from httpx_reauth._tokens._refresh.flight import Flight
from httpx_reauth._tokens._refresh.loops import AsyncioLoop, Stopped, leave_loop, running_loop, within
from httpx_reauth._tokens._refresh.worker import Call, launch
from httpx_reauth.testing import ManualClock

BACKENDS = ["asyncio", "trio"]
LONG = 60.0  # seconds that no test waits for

colour: ContextVar[str] = ContextVar("colour", default="none")


class Log(list[Any]):
    """What a piece of work got to see."""

    def work(self, *calls: Call) -> Generator[Call, Any, None]:
        try:
            for call in calls:
                self.append((yield call))
        except Stopped as stop:
            self.append("out of time" if stop.out_of_time else "stopped")
        except Exception as error:  # noqa: BLE001
            self.append(error)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def flight() -> Iterator[Flight]:
    started = time.monotonic()
    flight = Flight(TokenStore(), "missing", started=started, overdue=started + LONG, failures=0)
    flight.depart()
    yield flight
    if isinstance(flight.keep, threading.Thread) and flight.keep.is_alive():
        flight.keep.join(LONG)
    flight.end()


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


async def landing(flight: Flight) -> None:
    with anyio.fail_after(LONG):
        while not flight.ended:
            await flight.async_wait(1.0, for_end=True)


def here(*arguments: Any) -> tuple[int, str, tuple[Any, ...]]:
    return threading.get_ident(), colour.get(), arguments


async def async_here(*arguments: Any) -> tuple[int, str, tuple[Any, ...]]:
    await anyio.lowlevel.checkpoint()
    return here(*arguments)


def fail(error: BaseException) -> None:
    raise error


async def async_fail(error: BaseException) -> None:
    raise error


# In a thread.


def test_a_function_runs_in_a_thread_of_its_own_with_the_callers_context(flight: Flight, log: Log):
    colour.set("red")
    launch(flight, log.work(Call(here, (1, 2), LONG)), here=None, is_coroutine=False, is_blocking=False)
    flight.wait(LONG, for_end=True)
    assert flight.ended
    ((ident, seen, arguments),) = log
    assert ident != threading.get_ident()
    assert (seen, arguments) == ("red", (1, 2))
    assert isinstance(flight.keep, threading.Thread)
    assert flight.keep.ident == ident
    assert not flight.keep.daemon  # the interpreter's exit waits for a rotation under way
    assert flight.keep.name == "httpx_reauth refresh"
    colour.set("none")


def test_what_runs_in_a_flight_is_aboard_and_its_starter_is_not(flight: Flight, log: Log):
    launch(flight, log.work(Call(flight.is_aboard, (), LONG)), here=None, is_coroutine=False, is_blocking=False)
    flight.wait(LONG, for_end=True)
    assert log == [True]
    assert not flight.is_aboard()


def test_the_work_is_advanced_to_its_first_call_by_its_starter(flight: Flight):
    seen: list[int] = []

    def work() -> Generator[Call, Any, None]:
        seen.append(threading.get_ident())
        yield Call(int, (), LONG)

    launch(flight, work(), here=None, is_coroutine=False, is_blocking=False)
    assert seen == [threading.get_ident()]
    flight.wait(LONG, for_end=True)


def test_work_that_is_done_before_its_first_call_ends_the_flight_and_starts_nothing(flight: Flight, log: Log):
    launch(flight, log.work(), here=None, is_coroutine=False, is_blocking=False)
    assert flight.ended
    assert flight.keep is None


def test_an_awaitable_that_a_function_returns_gets_a_loop_of_its_own(flight: Flight, log: Log):
    launch(flight, log.work(Call(lambda: async_here(1), (), LONG)), here=None, is_coroutine=False, is_blocking=False)
    flight.wait(LONG, for_end=True)
    ((ident, _, arguments),) = log
    assert ident != threading.get_ident()
    assert arguments == (1,)


def test_guarantee_10_such_an_awaitable_is_stopped_after_its_time(flight: Flight, log: Log):
    launch(flight, log.work(Call(anyio.sleep_forever, (), 0.01)), here=None, is_coroutine=False, is_blocking=False)
    flight.wait(LONG, for_end=True)
    assert log == ["out of time"]


def test_a_storages_function_is_not_awaited_whatever_it_returns(flight: Flight, log: Log):
    class Awaitable:
        def __await__(self) -> Iterator[None]:
            raise AssertionError

    answer = Awaitable()
    launch(flight, log.work(Call(lambda: answer), Call(here)), here=None, is_coroutine=False, is_blocking=True)
    flight.wait(LONG, for_end=True)
    assert log[0] is answer
    assert log[1][0] != threading.get_ident()


def test_what_a_call_raises_is_raised_in_the_work_which_may_go_on(flight: Flight):
    seen: list[Any] = []

    def work() -> Generator[Call, Any, None]:
        for error in (ValueError("x"), Stopped(), RefreshError("y")):
            try:
                yield Call(fail, (error,), LONG)
            except Exception as caught:  # noqa: BLE001
                seen.append(caught is error)
        seen.append((yield Call(int, ("5",), LONG)))

    launch(flight, work(), here=None, is_coroutine=False, is_blocking=False)
    flight.wait(LONG, for_end=True)
    assert seen == [True, True, True, 5]
    assert flight.ended


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_a_base_exception_in_the_thread_stops_the_work_and_lands_the_flight(
    flight: Flight, log: Log, error: type[BaseException]
):
    launch(flight, log.work(Call(fail, (error(),), LONG)), here=None, is_coroutine=False, is_blocking=False)
    flight.wait(LONG, for_end=True)
    assert flight.ended
    assert log == ["stopped"]


def test_a_refresh_may_run_an_event_loop_of_its_own_in_its_thread(flight: Flight, log: Log):
    launch(
        flight,
        log.work(Call(lambda: asyncio.run(async_here(1)), (), LONG)),
        here=None,
        is_coroutine=False,
        is_blocking=False,
    )
    flight.wait(LONG, for_end=True)
    assert log[0][2] == (1,)


@pytest.mark.anyio
async def test_a_thread_started_from_a_loop_believes_in_no_loop(flight: Flight, log: Log):
    def own_loop(backend: str) -> tuple[Any, ...]:
        return anyio.run(async_here, 1, backend=backend)[2]

    calls = [Call(own_loop, (backend,), LONG) for backend in BACKENDS]
    launch(
        flight,
        log.work(*calls, Call(lambda: async_here(1), (), LONG)),
        here=None,
        is_coroutine=False,
        is_blocking=False,
    )
    await landing(flight)
    assert [log[0], log[1], log[2][2]] == [(1,), (1,), (1,)]


def test_a_thread_is_told_of_no_loop_only_where_somebody_asks(monkeypatch: pytest.MonkeyPatch):
    sniffio = pytest.importorskip("sniffio")
    token = sniffio.current_async_library_cvar.set("trio")
    try:
        context = contextvars.copy_context()
        assert leave_loop(context).run(sniffio.current_async_library_cvar.get) is None
        assert context.run(sniffio.current_async_library_cvar.get) == "trio"
        assert sniffio.current_async_library_cvar.get() == "trio"
    finally:
        sniffio.current_async_library_cvar.reset(token)
    monkeypatch.delitem(sys.modules, "sniffio")
    assert leave_loop(context).run(sniffio.current_async_library_cvar.get) == "trio"


# Where no thread can start.


@pytest.mark.usefixtures("no_thread")
def test_where_no_thread_can_start_the_work_is_done_in_place(flight: Flight, log: Log):
    launch(
        flight,
        log.work(Call(here, (1,), LONG), Call(flight.is_aboard)),
        here=None,
        is_coroutine=False,
        is_blocking=False,
    )
    assert flight.ended
    assert log == [(threading.get_ident(), "none", (1,)), True]
    assert not flight.is_aboard()


@pytest.mark.usefixtures("no_thread")
def test_in_place_an_awaitable_gets_a_loop_of_its_own_as_well(flight: Flight, log: Log):
    launch(flight, log.work(Call(lambda: async_here(1), (), LONG)), here=None, is_coroutine=False, is_blocking=False)
    assert flight.ended
    assert log == [(threading.get_ident(), "none", (1,))]


@pytest.mark.usefixtures("no_thread")
def test_in_place_an_interrupt_reaches_the_caller_after_the_flight_has_landed(flight: Flight, log: Log):
    with pytest.raises(KeyboardInterrupt):
        launch(
            flight, log.work(Call(fail, (KeyboardInterrupt(),), LONG)), here=None, is_coroutine=False, is_blocking=False
        )
    assert flight.ended
    assert log == ["stopped"]


@pytest.mark.usefixtures("no_thread")
def test_a_defect_of_the_work_itself_lands_the_flight(flight: Flight):
    def work() -> Generator[Call, Any, None]:
        yield Call(int, (), LONG)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        launch(flight, work(), here=None, is_coroutine=False, is_blocking=False)
    assert flight.ended


@pytest.mark.anyio
@pytest.mark.usefixtures("no_thread")
async def test_where_no_thread_can_start_a_coroutine_runs_as_a_task_though_some_calls_block(flight: Flight, log: Log):
    work = log.work(Call(here), Call(async_here, (1,), LONG), Call(here))
    launch(flight, work, here=running_loop(), is_coroutine=True, is_blocking=True)
    assert log == []
    await landing(flight)
    ident = threading.get_ident()
    assert log == [(ident, "none", ()), (ident, "none", (1,)), (ident, "none", ())]


@pytest.mark.anyio
@pytest.mark.usefixtures("no_thread")
async def test_where_no_thread_can_start_a_function_runs_as_a_task_of_the_callers_loop(flight: Flight, log: Log):
    work = log.work(Call(here, (1,), LONG), Call(lambda: async_here(2), (), LONG), Call(flight.is_aboard))
    launch(flight, work, here=running_loop(), is_coroutine=False, is_blocking=False)
    assert log == []
    await landing(flight)
    ident = threading.get_ident()
    assert log == [(ident, "none", (1,)), (ident, "none", (2,)), True]
    assert (flight.home, flight.thread) == (running_loop(), ident)


class Bare:
    """An awaitable that cannot be closed."""

    def __await__(self) -> Iterator[None]:
        raise AssertionError


@pytest.mark.parametrize("awaitable", [lambda: async_here(1), Bare])
@pytest.mark.usefixtures("no_thread")
def test_in_place_a_coroutine_cannot_be_waited_for_on_a_running_loop_and_says_so(
    flight: Flight, log: Log, awaitable: Callable[[], Any]
):
    async def main() -> None:
        launch(
            flight, log.work(Call(awaitable, (), LONG)), here=None, is_coroutine=False, is_blocking=False
        )  # a sync call

    asyncio.run(main())
    assert flight.ended
    assert isinstance(log[0], RuntimeError)
    assert "Await the token" in str(log[0])


# As a task of the caller's loop.


@pytest.mark.anyio
async def test_a_coroutine_runs_as_a_task_of_the_callers_loop_with_its_context(flight: Flight, log: Log):
    colour.set("red")
    loop = running_loop()
    launch(
        flight,
        log.work(Call(async_here, (1, 2), LONG), Call(flight.is_aboard)),
        here=loop,
        is_coroutine=True,
        is_blocking=False,
    )
    assert (flight.home, flight.thread) == (loop, threading.get_ident())
    assert log == []  # not in place
    await landing(flight)
    assert log == [(threading.get_ident(), "red", (1, 2)), True]
    assert not flight.is_aboard()
    colour.set("none")


@pytest.mark.anyio
async def test_what_the_task_sets_in_its_context_stays_there(flight: Flight, log: Log):
    async def set_it() -> None:
        colour.set("blue")

    launch(flight, log.work(Call(set_it, (), LONG)), here=running_loop(), is_coroutine=True, is_blocking=False)
    await landing(flight)
    assert colour.get() == "none"


@pytest.mark.anyio
async def test_guarantee_10_a_coroutine_is_stopped_after_its_time(flight: Flight, log: Log):
    launch(
        flight, log.work(Call(anyio.sleep_forever, (), 0.01)), here=running_loop(), is_coroutine=True, is_blocking=False
    )
    await landing(flight)
    assert log == ["out of time"]


@pytest.mark.anyio
async def test_what_a_coroutine_raises_is_raised_in_the_work_which_may_go_on(flight: Flight):
    seen: list[Any] = []

    def work() -> Generator[Call, Any, None]:
        error = ValueError("x")
        try:
            yield Call(async_fail, (error,), LONG)
        except ValueError as caught:
            seen.append(caught is error)
        seen.append((yield Call(async_here, (1,), LONG))[2])

    launch(flight, work(), here=running_loop(), is_coroutine=True, is_blocking=False)
    await landing(flight)
    assert seen == [True, (1,)]


@pytest.mark.anyio
async def test_guarantee_2_the_task_is_nobodys_child(flight: Flight, log: Log):
    go_on = anyio.Event()

    async def refresh() -> str:
        await go_on.wait()
        return "token"

    with anyio.CancelScope() as scope:
        launch(flight, log.work(Call(refresh, (), LONG)), here=running_loop(), is_coroutine=True, is_blocking=False)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        await anyio.lowlevel.checkpoint()
    assert not flight.ended
    go_on.set()
    await landing(flight)
    assert log == ["token"]


def test_guarantee_2_an_asyncio_task_is_kept_alive_by_its_flight(flight: Flight, log: Log):
    async def main() -> None:
        futures: list[weakref.ref[asyncio.Future[str]]] = []

        async def refresh() -> str:
            future = asyncio.get_running_loop().create_future()
            futures.append(weakref.ref(future))
            return await future  # the task and this future: nobody else holds either, unless the flight does

        launch(flight, log.work(Call(refresh, (), LONG)), here=running_loop(), is_coroutine=True, is_blocking=False)
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        future = futures[0]()
        assert future is not None
        future.set_result("token")
        await landing(flight)

    asyncio.run(main())
    assert log == ["token"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_guarantee_2_the_end_of_the_loop_stops_the_work_and_lands_the_flight(flight: Flight, log: Log, backend: str):
    async def leave() -> None:
        launch(
            flight,
            log.work(Call(anyio.sleep_forever, (), LONG)),
            here=running_loop(),
            is_coroutine=True,
            is_blocking=False,
        )
        await anyio.wait_all_tasks_blocked()

    anyio.run(leave, backend=backend)
    assert flight.ended
    assert log == ["stopped"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_guarantee_2_a_loop_that_ends_before_the_task_has_begun_stops_the_work_as_well(
    flight: Flight, log: Log, backend: str
):
    async def leave() -> None:
        launch(
            flight,
            log.work(Call(anyio.sleep_forever, (), LONG)),
            here=running_loop(),
            is_coroutine=True,
            is_blocking=False,
        )

    anyio.run(leave, backend=backend)
    assert flight.ended
    assert log == ["stopped"]


def test_a_cancelled_asyncio_task_is_cancelled_after_the_flight_has_landed(flight: Flight, log: Log):
    async def main() -> None:
        launch(
            flight,
            log.work(Call(anyio.sleep_forever, (), LONG)),
            here=running_loop(),
            is_coroutine=True,
            is_blocking=False,
        )
        await asyncio.sleep(0)
        task = flight.keep
        assert isinstance(task, asyncio.Task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert flight.ended

    asyncio.run(main())
    assert log == ["stopped"]


def test_an_asyncio_task_that_is_cancelled_before_it_has_begun_lands_the_flight(flight: Flight, log: Log):
    async def main() -> None:
        launch(flight, log.work(Call(async_here, (), LONG)), here=running_loop(), is_coroutine=True, is_blocking=False)
        assert isinstance(flight.keep, asyncio.Task)
        flight.keep.cancel()
        await landing(flight)

    asyncio.run(main())
    assert log == ["stopped"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_on_asyncio_an_interrupt_in_the_task_ends_the_loop_as_it_would_elsewhere(
    flight: Flight, log: Log, error: type[BaseException]
):
    async def main() -> None:
        launch(
            flight,
            log.work(Call(async_fail, (error(),), LONG)),
            here=running_loop(),
            is_coroutine=True,
            is_blocking=False,
        )
        await anyio.sleep_forever()

    with pytest.raises(error):
        asyncio.run(main())
    assert flight.ended
    assert log == ["stopped"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("in_a_group", [False, True])
def test_on_trio_nothing_but_cancellation_leaves_the_system_task(
    flight: Flight, log: Log, error: type[BaseException], *, in_a_group: bool
):
    async def refresh() -> None:
        if in_a_group:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(async_fail, error())
                nursery.start_soon(trio.sleep_forever)
        raise error

    async def main() -> str:
        launch(flight, log.work(Call(refresh, (), LONG)), here=running_loop(), is_coroutine=True, is_blocking=False)
        await landing(flight)
        await trio.lowlevel.checkpoint()
        return "alive"

    assert trio.run(main) == "alive"
    assert log == ["stopped"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_guarantee_6_what_the_refresh_breaks_off_with_is_the_failure_of_all(backend: str):
    async def refresh(token: Token) -> Token:
        raise GeneratorExit

    async def main() -> ReauthError:
        auth = Reauth(refresh)
        with pytest.raises(RefreshError) as caught:
            await auth.aget_token()
        return caught.value

    assert "unknown" in str(anyio.run(main, backend=backend))
    gc.collect()  # asyncio logs what its task ended with here, not in the middle of another test


# A coroutine at home, and calls that block in a thread.


@pytest.mark.anyio
async def test_calls_that_block_run_in_a_thread_and_the_coroutine_on_its_own_loop(flight: Flight, log: Log):
    colour.set("red")
    work = log.work(Call(here, (1,)), Call(async_here, (2,), LONG), Call(flight.is_aboard, ()), Call(here, (3,)))
    launch(flight, work, here=running_loop(), is_coroutine=True, is_blocking=True)
    await landing(flight)
    (first, seen_first, one), (second, seen_second, two), aboard, (third, _, three) = log
    assert second == threading.get_ident() != first == third
    assert (one, two, three) == ((1,), (2,), (3,))
    assert seen_first == seen_second == "red"
    assert aboard is True
    assert (flight.home, flight.thread) == (running_loop(), threading.get_ident())
    colour.set("none")


@pytest.mark.anyio
async def test_at_home_one_is_aboard_too(flight: Flight, log: Log):
    async def look() -> bool:
        return flight.is_aboard()

    launch(flight, log.work(Call(look, (), LONG)), here=running_loop(), is_coroutine=True, is_blocking=True)
    await landing(flight)
    assert log == [True]


@pytest.mark.anyio
async def test_what_is_raised_at_home_is_raised_in_the_work(flight: Flight, log: Log):
    error = ValueError("x")
    launch(flight, log.work(Call(async_fail, (error,), LONG)), here=running_loop(), is_coroutine=True, is_blocking=True)
    await landing(flight)
    assert log[0] is error


@pytest.mark.anyio
async def test_guarantee_10_a_coroutine_at_home_is_stopped_after_its_time(flight: Flight, log: Log):
    launch(
        flight, log.work(Call(anyio.sleep_forever, (), 0.01)), here=running_loop(), is_coroutine=True, is_blocking=True
    )
    await landing(flight)
    assert log == ["out of time"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_guarantee_2_a_home_that_ends_stops_the_coroutine_and_lands_the_flight(flight: Flight, log: Log, backend: str):
    async def leave() -> None:
        begun = anyio.Event()

        async def refresh() -> None:
            begun.set()
            await anyio.sleep_forever()

        launch(flight, log.work(Call(refresh, (), LONG)), here=running_loop(), is_coroutine=True, is_blocking=True)
        await begun.wait()

    anyio.run(leave, backend=backend)
    flight.wait(LONG, for_end=True)
    assert flight.ended
    assert log == ["stopped"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_guarantee_2_a_home_that_has_ended_already_stops_the_work(flight: Flight, log: Log, backend: str):
    ended = threading.Event()

    async def leave() -> None:
        work = log.work(Call(ended.wait, (LONG,)), Call(async_here, (), LONG))
        launch(flight, work, here=running_loop(), is_coroutine=True, is_blocking=True)

    anyio.run(leave, backend=backend)
    ended.set()
    flight.wait(LONG, for_end=True)
    assert flight.ended
    assert log == [True, "stopped"]


@pytest.mark.anyio
async def test_guarantee_10_a_home_that_stands_still_stops_the_work_and_nothing_begins_later(
    flight: Flight, log: Log, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_runner, "_LOOK", 0.01)
    begun: list[str] = []

    async def refresh() -> None:
        begun.append("too late")

    launch(flight, log.work(Call(refresh, (), 0.01)), here=running_loop(), is_coroutine=True, is_blocking=True)
    flight.wait(LONG, for_end=True)  # this very loop stands still meanwhile
    assert flight.ended
    assert log == ["stopped"]
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    await anyio.wait_all_tasks_blocked()
    assert begun == []


def test_guarantee_10_a_home_that_stands_still_once_the_task_is_made_begins_nothing_later(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(_runner, "_LOOK", 0.01)
    tasks: list[Callable[[], Coroutine[Any, Any, None]]] = []

    class StandsStill:
        def call_soon(self, function: Callable[[], object]) -> bool:
            function()
            return True

        def start(self, run: Callable[[], Coroutine[Any, Any, None]], *_: object) -> None:
            tasks.append(run)

        def is_closed(self) -> bool:
            return True  # for whoever waits: it is of no more use

    begun: list[str] = []

    async def refresh() -> None:
        begun.append("too late")

    flight = Flight(TokenStore(), "missing", started=0.0, overdue=30.0, failures=0)
    flight.depart()
    with pytest.raises(Stopped):
        _runner._call_at_home(flight, StandsStill(), Call(refresh), 0.0)
    flight.end()
    asyncio.run(tasks[0]())
    assert begun == []


def test_guarantee_1_what_a_home_that_stood_still_begins_at_last_ends_before_the_next_refresh_may_start(
    monkeypatch: pytest.MonkeyPatch,
):
    clock, given = ManualClock(), list[float]()

    class StandsStillAtFirst:
        def call_soon(self, function: Callable[[], object]) -> bool:
            clock.advance(4.0)
            function()
            return True

        def start(self, run: Callable[[], Coroutine[Any, Any, None]], _: object, ended: Callable[[], None]) -> None:
            asyncio.run(run())
            ended()

    async def within_so_many(seconds: float, awaitable: Coroutine[Any, Any, str]) -> str:
        given.append(seconds)
        return await awaitable

    async def refresh() -> str:
        return "an answer"

    monkeypatch.setattr(_runner, "within", within_so_many)
    store, now = TokenStore(), clock.monotonic()
    store.count_by(clock)
    flight = Flight(store, "missing", started=now, overdue=now + 30.0, failures=0)
    flight.depart()
    assert _runner._call_at_home(flight, StandsStillAtFirst(), Call(refresh), 30.0) == "an answer"
    flight.end()
    assert given == [26.0]


def test_a_coroutine_at_home_that_somebody_cancels_stops_the_work(flight: Flight, log: Log):
    async def main() -> None:
        tasks: list[asyncio.Task[Any]] = []

        async def refresh() -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            task.cancel()
            await anyio.sleep_forever()

        launch(flight, log.work(Call(refresh, (), LONG)), here=running_loop(), is_coroutine=True, is_blocking=True)
        await landing(flight)

    asyncio.run(main())
    assert log == ["stopped"]


# The parts.


@pytest.mark.anyio
async def test_within_its_time_an_awaitable_answers():
    assert (await within(LONG, async_here(1)))[2] == (1,)


@pytest.mark.anyio
async def test_within_lets_a_cancellation_from_outside_through():
    with anyio.CancelScope() as scope:
        scope.cancel()
        await within(LONG, anyio.sleep_forever())
        raise AssertionError
    assert scope.cancelled_caught


def test_guarantee_2_the_interpreter_waits_for_a_refresh_under_way_at_its_exit():
    code = (
        "import threading\n"
        "from httpx_reauth import Reauth, Token\n"
        "ended, begun = threading.Event(), threading.Event()\n"
        "def refresh(token):\n"
        "    begun.set()\n"
        "    threading.main_thread().join()\n"
        "    print('rotated', flush=True)\n"
        "    return Token('b', expires_in=3600)\n"
        "auth = Reauth(refresh, token=Token('a', expires_in=3600, expires_at=1))\n"
        "def ask():\n"
        "    auth.get_token()\n"
        "threading.Thread(target=ask, daemon=True).start()\n"
        "begun.wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LONG, check=False)
    assert done.stdout == "rotated\n"


def test_loop_that_is_ending_and_takes_no_task_any_more_is_not_broken_by_the_thread_that_calls_in():
    """What leaves a function that was called into a trio run ends that as a `TrioInternalError`."""

    class EndingLoop:
        def call_soon(self, function: Callable[[], object]) -> bool:
            function()
            return True

        def start(self, *_: object) -> object:
            raise RuntimeError("Nursery is closed to new arrivals")

    async def refresh() -> None:
        pytest.fail("It was started.")

    flight = Flight(TokenStore(), "missing", started=0.0, overdue=30.0, failures=0)
    flight.depart()
    with pytest.raises(Stopped):
        _runner._call_at_home(flight, EndingLoop(), Call(refresh), 30.0)
    flight.end()


@pytest.mark.parametrize(("seconds", "times"), [(30.0, 61), (0.7, 3), (0.0, 1)])  # and one for good measure
def test_guarantee_10_a_thread_looks_after_a_loop_that_stands_still_for_the_whole_time_and_no_longer(
    monkeypatch: pytest.MonkeyPatch, seconds: float, times: int
):
    looks = list[float]()

    class NeverDone(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            looks.append(timeout or 0.0)
            return False

    class StandingStill:
        def call_soon(self, _: Callable[[], object]) -> bool:
            return True

        def is_closed(self) -> bool:
            return False

    async def refresh() -> None:
        pytest.fail("It was started.")

    monkeypatch.setattr(_runner, "_LOOK", 0.5)
    flight = Flight(TokenStore(), "missing", started=0.0, overdue=30.0, failures=0)
    flight.depart()
    with monkeypatch.context() as patched:
        patched.setattr(_runner, "threading", SimpleNamespace(Event=NeverDone))
        with pytest.raises(Stopped):
            _runner._call_at_home(flight, StandingStill(), Call(refresh), seconds)
    flight.end()
    assert looks == [0.5] * times


def test_where_no_event_loop_runs_there_is_none_to_be_had():
    with pytest.raises(RuntimeError, match="no running event loop"):
        running_loop()


def test_a_trio_that_runs_in_an_asyncio_task_is_where_its_tasks_run():
    async def trio_in_asyncio() -> object:
        return trio.run(here_is)

    async def here_is() -> str:
        return type(running_loop()).__name__

    assert asyncio.run(trio_in_asyncio()) == "TrioLoop"


@pytest.mark.parametrize("has_trio", [True, False])
def test_an_event_loop_is_found_where_no_task_of_it_runs(monkeypatch: pytest.MonkeyPatch, *, has_trio: bool):
    if not has_trio:
        monkeypatch.delitem(sys.modules, "trio")
    found: list[object] = []
    loop = asyncio.new_event_loop()
    loop.call_soon(lambda: found.append(running_loop()))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert found == [AsyncioLoop(loop)]
