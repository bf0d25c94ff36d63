"""Tests of a worker.

It runs all steps of a refresh, from the first to the last. The tests also show what may happen meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
import trio
from seams import begin_refresh, busy, join_refreshes, runner_of, state_of, use_clock, worker_of

from httpx_reauth import Reauth, RefreshError, SignedIn, Token, TokenStore
from httpx_reauth._tokens._refresh import worker as _worker
from httpx_reauth._tokens._refresh.loops import Stopped
from httpx_reauth._tokens._refresh.worker import Call, Worker, current_workers
from httpx_reauth.testing import ManualClock

BACKENDS = ["asyncio", "trio"]
LONG = 60.0  # seconds; no test waits that long

tone: ContextVar[str] = ContextVar("tone", default="none")


class Log(list[Any]):
    """Records the answers that the steps got, and how the steps ended."""

    def steps(self, *calls: Call) -> Generator[Call, Any, None]:
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
def no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


def asks(function: Callable[..., Any], *arguments: Any, seconds: float = LONG) -> Call:
    """Return a call of the user's refresh. The worker awaits what the function returns."""
    return Call(function, arguments, seconds)


def run_in_thread(steps: Generator[Call, Any, None]) -> Worker:
    worker = worker_of(steps)
    worker.start(as_task=False)
    worker.finished.wait(LONG)
    assert worker.finished.is_set
    return worker


async def finish(worker: Worker) -> None:
    with anyio.fail_after(LONG):
        while not worker.finished.is_set:
            await worker.finished.async_wait(1.0)


async def run_from_loop(steps: Generator[Call, Any, None], *, as_task: bool) -> Worker:
    worker = worker_of(steps, is_async=True)
    worker.start(as_task=as_task)
    await finish(worker)
    return worker


def here(*arguments: Any) -> tuple[int, str, tuple[Any, ...]]:
    return threading.get_ident(), tone.get(), arguments


async def async_here(*arguments: Any) -> tuple[int, str, tuple[Any, ...]]:
    await anyio.lowlevel.checkpoint()
    return here(*arguments)


def fail(error: BaseException) -> None:
    raise error


async def async_fail(error: BaseException) -> None:
    raise error


# In a thread.


def test_a_function_runs_in_a_thread_of_its_own_with_the_context_of_the_caller(log: Log):
    tone.set("red")
    run_in_thread(log.steps(asks(here, 1, 2)))
    ((ident, seen, arguments),) = log
    assert ident != threading.get_ident()
    assert (seen, arguments) == ("red", (1, 2))
    tone.set("none")


def test_what_runs_inside_of_a_worker_knows_it_and_its_starter_does_not(log: Log):
    worker = run_in_thread(log.steps(asks(current_workers)))
    assert log == [[worker]]
    assert current_workers() == []


def test_an_awaitable_that_a_sync_caller_gets_has_an_event_loop_of_its_own(log: Log):
    run_in_thread(log.steps(asks(lambda: async_here(1))))
    ((ident, _, arguments),) = log
    assert ident != threading.get_ident()
    assert arguments == (1,)


def test_guarantee_10_such_an_awaitable_is_stopped_after_its_time(log: Log):
    run_in_thread(log.steps(asks(anyio.sleep_forever, seconds=0.01)))
    assert log == ["out of time"]


def test_what_a_storages_function_returns_is_not_awaited(log: Log):
    class Careless:
        def __await__(self) -> Iterator[None]:
            raise AssertionError

    answer = Careless()
    run_in_thread(log.steps(Call(lambda: answer)))
    assert log == [answer]


def test_what_a_call_raises_is_raised_in_the_steps_which_may_go_on():
    seen: list[Any] = []

    def steps() -> Generator[Call, Any, None]:
        for error in (ValueError("x"), Stopped(), RefreshError("y")):
            try:
                yield asks(fail, error)
            except Exception as caught:  # noqa: BLE001
                seen.append(caught is error)
        seen.append((yield asks(int, "5")))

    run_in_thread(steps())
    assert seen == [True, True, True, 5]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_a_base_exception_in_the_thread_stops_the_steps(log: Log, error: type[BaseException]):
    run_in_thread(log.steps(asks(fail, error())))
    assert log == ["stopped"]


@pytest.mark.anyio
async def test_a_refresh_may_run_an_event_loop_of_its_own_in_its_thread(log: Log):
    def own_loop(backend: str) -> tuple[Any, ...]:
        return anyio.run(async_here, 1, backend=backend)[2]

    await run_from_loop(log.steps(*(asks(own_loop, backend) for backend in BACKENDS)), as_task=False)
    assert log == [(1,), (1,)]


def test_a_defect_of_the_steps_ends_the_worker(monkeypatch: pytest.MonkeyPatch):
    def steps() -> Generator[Call, Any, None]:
        yield asks(int)
        raise ZeroDivisionError

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    run_in_thread(steps())
    join_refreshes()  # before the test's hook is removed


# No thread can start.


@pytest.mark.usefixtures("no_thread")
def test_where_no_thread_can_start_the_steps_are_taken_in_place(log: Log):
    worker = run_in_thread(log.steps(asks(here, 1), asks(current_workers), asks(lambda: async_here(2))))
    ident = threading.get_ident()
    assert log == [(ident, "none", (1,)), [worker], (ident, "none", (2,))]


@pytest.mark.usefixtures("no_thread")
def test_in_place_an_interrupt_reaches_the_caller_when_the_work_is_done(log: Log):
    worker = worker_of(log.steps(asks(fail, KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        worker.start(as_task=False)
    assert worker.finished.is_set
    assert log == ["stopped"]


@pytest.mark.usefixtures("no_thread")
def test_guarantee_10_in_place_a_function_that_runs_longer_than_the_timeout_keeps_its_refresh(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
):
    """Another thread, which begins meanwhile, does not take the refresh for lost, and starts no second one."""
    asked: list[str | None] = []
    failures: list[RefreshError] = []

    def ask() -> None:
        with pytest.raises(RefreshError, match="refresh_timeout") as failure:
            auth.get_token()
        failures.append(failure.value)

    def refresh(token: Token) -> Token:
        asked.append(token.refresh_token)
        clock.advance(33)
        monkeypatch.undo()
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(LONG)
        return Token("new", refresh_token="r1", expires_in=3600)

    auth = Reauth(refresh, token=Token(refresh_token="r0"), clock=clock)
    assert auth.get_token().access_token == "new"
    assert (asked, len(failures)) == (["r0"], 1)


@pytest.mark.anyio
@pytest.mark.usefixtures("no_thread")
async def test_where_no_thread_can_start_async_code_takes_the_steps_as_a_task(log: Log):
    await run_from_loop(log.steps(Call(here), asks(async_here, 1), asks(lambda: async_here(2))), as_task=False)
    ident = threading.get_ident()
    assert log == [(ident, "none", ()), (ident, "none", (1,)), (ident, "none", (2,))]


class Bare:
    """An awaitable that cannot be closed."""

    def __await__(self) -> Iterator[None]:
        raise AssertionError


@pytest.mark.parametrize("awaitable", [lambda: async_here(1), Bare])
@pytest.mark.usefixtures("no_thread")
def test_in_place_nothing_can_be_awaited_under_a_running_loop_and_that_is_said(
    log: Log, awaitable: Callable[[], Awaitable[Any]]
):
    async def main() -> None:
        worker_of(log.steps(asks(awaitable))).start(as_task=False)  # this is a sync call

    asyncio.run(main())
    assert isinstance(log[0], RuntimeError)
    assert "Await the token" in str(log[0])


# As a task of the caller's event loop.


@pytest.mark.anyio
async def test_a_coroutine_runs_as_a_task_of_the_loop_with_the_context_of_the_caller(log: Log):
    tone.set("red")
    worker = worker_of(log.steps(asks(async_here, 1, 2), asks(current_workers)), is_async=True)
    worker.start(as_task=True)
    assert log == []  # the call has only made a task, and run nothing
    await finish(worker)
    assert log == [(threading.get_ident(), "red", (1, 2)), [worker]]
    tone.set("none")


@pytest.mark.anyio
async def test_what_the_task_sets_in_its_context_stays_there(log: Log):
    async def set_it() -> None:
        tone.set("blue")

    await run_from_loop(log.steps(asks(set_it)), as_task=True)
    assert tone.get() == "none"


@pytest.mark.anyio
@pytest.mark.parametrize("as_task", [True, False])
async def test_guarantee_10_a_coroutine_is_stopped_after_its_time(log: Log, *, as_task: bool):
    await run_from_loop(log.steps(asks(anyio.sleep_forever, seconds=0.01)), as_task=as_task)
    assert log == ["out of time"]


@pytest.mark.anyio
@pytest.mark.parametrize("as_task", [True, False])
async def test_what_a_coroutine_raises_is_raised_in_the_steps(log: Log, *, as_task: bool):
    error = ValueError("x")
    await run_from_loop(log.steps(asks(async_fail, error)), as_task=as_task)
    assert log[0] is error


@pytest.mark.anyio
@pytest.mark.parametrize("as_task", [True, False])
async def test_guarantee_2_the_worker_is_no_child_of_its_caller(log: Log, *, as_task: bool):
    begun, go_on = anyio.Event(), anyio.Event()

    async def refresh() -> str:
        begun.set()
        await go_on.wait()
        return "token"

    with anyio.CancelScope() as scope:
        worker = worker_of(log.steps(asks(refresh)), is_async=True)
        worker.start(as_task=as_task)
        await begun.wait()
        scope.cancel()
        await anyio.lowlevel.checkpoint()
    assert not worker.finished.is_set
    go_on.set()
    await finish(worker)
    assert log == ["token"]


def test_guarantee_2_an_asyncio_task_is_kept_alive_by_its_worker(log: Log):
    async def main() -> None:
        futures: list[weakref.ref[asyncio.Future[str]]] = []

        async def refresh() -> str:
            future = asyncio.get_running_loop().create_future()
            futures.append(weakref.ref(future))
            return await future  # only the task and this future hold each other, unless the worker holds one of them

        worker = worker_of(log.steps(asks(refresh)), is_async=True)
        worker.start(as_task=True)
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        future = futures[0]()
        assert future is not None
        future.set_result("token")
        await finish(worker)

    asyncio.run(main())
    assert log == ["token"]


@pytest.mark.parametrize("has_begun", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_guarantee_2_the_end_of_the_loop_stops_the_steps(log: Log, backend: str, *, has_begun: bool):
    workers: list[Worker] = []

    async def leave() -> None:
        workers.append(worker_of(log.steps(asks(anyio.sleep_forever)), is_async=True))
        workers[0].start(as_task=True)
        if has_begun:
            await anyio.wait_all_tasks_blocked()

    anyio.run(leave, backend=backend)
    assert workers[0].finished.is_set
    assert log == ["stopped"]


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_cancelled_asyncio_task_stops_the_steps_and_makes_no_call_if_it_has_not_begun(log: Log, *, has_begun: bool):
    called: list[str] = []

    async def refresh() -> None:
        called.append("called")
        await anyio.sleep_forever()

    async def main() -> None:
        worker = worker_of(log.steps(asks(refresh)), is_async=True)
        worker.start(as_task=True)
        if has_begun:
            await asyncio.sleep(0)
        task = runner_of(worker)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await finish(worker)

    asyncio.run(main())
    assert log == ["stopped"]
    assert called == ["called"] * has_begun


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_on_asyncio_an_interrupt_in_the_task_ends_the_loop_as_it_would_elsewhere(log: Log, error: type[BaseException]):
    async def main() -> None:
        worker_of(log.steps(asks(async_fail, error())), is_async=True).start(as_task=True)
        await anyio.sleep_forever()

    with pytest.raises(error):
        asyncio.run(main())
    assert log == ["stopped"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("in_a_group", [False, True])
def test_on_trio_nothing_but_cancellation_leaves_the_system_task(
    log: Log, error: type[BaseException], *, in_a_group: bool
):
    async def refresh() -> None:
        if in_a_group:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(async_fail, error())
                nursery.start_soon(trio.sleep_forever)
        raise error

    async def main() -> str:
        await run_from_loop(log.steps(asks(refresh)), as_task=True)
        await trio.lowlevel.checkpoint()
        return "alive"

    assert trio.run(main) == "alive"
    assert log == ["stopped"]


# A thread that lets a task of the caller's event loop await.


@pytest.mark.anyio
async def test_calls_that_block_run_in_a_thread_and_the_coroutine_on_the_loop_of_the_caller(log: Log):
    tone.set("red")
    calls = [Call(here, (1,)), asks(async_here, 2), asks(current_workers), Call(here, (3,))]
    worker = await run_from_loop(log.steps(*calls), as_task=False)
    (first, seen_first, one), (second, seen_second, two), inside, (third, _, three) = log
    assert second == threading.get_ident() != first == third
    assert (one, two, three) == ((1,), (2,), (3,))
    assert seen_first == seen_second == "red"
    assert inside == [worker]
    tone.set("none")


@pytest.mark.anyio
async def test_an_awaitable_that_a_plain_function_returns_is_awaited_on_the_loop_of_the_caller(log: Log):
    await run_from_loop(log.steps(asks(lambda: async_here(1))), as_task=False)
    assert log[0][0] == threading.get_ident()


@pytest.mark.parametrize("backend", BACKENDS)
def test_guarantee_2_a_loop_that_ends_meanwhile_stops_the_steps(log: Log, backend: str):
    workers: list[Worker] = []

    async def leave() -> None:
        begun = anyio.Event()

        async def refresh() -> None:
            begun.set()
            await anyio.sleep_forever()

        workers.append(worker_of(log.steps(asks(refresh)), is_async=True))
        workers[0].start(as_task=False)
        await begun.wait()

    anyio.run(leave, backend=backend)
    workers[0].finished.wait(LONG)
    assert log == ["stopped"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_guarantee_2_a_loop_that_has_ended_already_stops_the_steps(log: Log, backend: str):
    ended, workers = threading.Event(), list[Worker]()

    async def leave() -> None:
        workers.append(worker_of(log.steps(Call(ended.wait, (LONG,)), asks(async_here)), is_async=True))
        workers[0].start(as_task=False)

    anyio.run(leave, backend=backend)
    ended.set()
    workers[0].finished.wait(LONG)
    assert log == [True, "stopped"]


@pytest.mark.anyio
async def test_guarantee_10_a_loop_that_stands_still_stops_the_steps_and_nothing_begins_later(
    log: Log, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_worker, "LOOK", 0.01)
    begun: list[str] = []

    async def refresh() -> None:
        begun.append("too late")

    worker = worker_of(log.steps(asks(refresh)), is_async=True, seconds=0.01)
    worker.start(as_task=False)
    worker.finished.wait(LONG)  # this event loop does not run meanwhile
    assert log == ["stopped"]
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    assert begun == []


def test_a_coroutine_that_somebody_cancels_stops_the_steps(log: Log):
    async def refresh() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await anyio.sleep_forever()

    asyncio.run(run_from_loop(log.steps(asks(refresh)), as_task=False))
    assert log == ["stopped"]


class FakeLoop:
    """An event loop for which the test says what happens to the functions that are called into it."""

    def __init__(self, start: Callable[..., object], before: Callable[[], object] = bool) -> None:
        self.start = start
        self._before = before

    def call_soon(self, function: Callable[[], object]) -> bool:
        self._before()
        function()
        return True

    def is_closed(self) -> bool:
        return True


def test_a_loop_that_is_ending_and_takes_no_task_stops_the_steps_and_is_not_broken(log: Log):
    def start(*_: object) -> object:
        raise RuntimeError("Nursery is closed to new arrivals")

    async def refresh() -> None:
        pytest.fail("It was started.")

    worker = worker_of(log.steps(asks(refresh)))
    worker.loop = FakeLoop(start)  # type: ignore[assignment]
    worker.start(as_task=False)
    worker.finished.wait(LONG)
    assert log == ["stopped"]


def test_guarantee_1_what_a_loop_that_stood_still_begins_at_last_ends_before_the_next_refresh_may_start(
    log: Log, monkeypatch: pytest.MonkeyPatch
):
    clock, store, given = ManualClock(), TokenStore(), list[float]()

    def start(run: Callable[[], Coroutine[Any, Any, None]], _: object, on_end: Callable[[], None]) -> None:
        asyncio.run(run())
        on_end()

    async def within(seconds: float, awaitable: Coroutine[Any, Any, str]) -> str:
        given.append(seconds)
        return await awaitable

    async def refresh() -> str:
        return "an answer"

    monkeypatch.setattr(_worker, "within", within)
    use_clock(store, clock)
    worker = worker_of(log.steps(asks(refresh, seconds=30.0)), seconds=30.0, store=store)
    worker.loop = FakeLoop(start, lambda: clock.advance(4.0))  # type: ignore[assignment]
    worker.start(as_task=False)
    worker.finished.wait(LONG)
    assert log == ["an answer"]
    assert given == [26.0]


# Only one thread or task can take the steps.


def test_the_steps_can_be_taken_once(log: Log):
    worker = worker_of(log.steps(asks(here)))
    assert worker.take() is not None
    assert worker.take() is None
    worker.start(as_task=False)  # it finds nothing to do
    assert log == []


def test_a_start_that_raises_although_the_thread_runs_does_not_take_the_steps_twice(
    log: Log, monkeypatch: pytest.MonkeyPatch
):
    start, asked = threading.Thread.start, threading.Semaphore(0)

    def start_and_raise(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "httpx_reauth refresh guard":
            assert asked.acquire(timeout=LONG)
            raise RuntimeError("release unlocked lock")

    monkeypatch.setattr(threading.Thread, "start", start_and_raise)
    run_in_thread(log.steps(asks(asked.release), asks(here)))
    assert len(log) == 2
    assert log[1][0] != threading.get_ident()


def test_a_worker_whose_thread_dies_before_its_first_line_is_orphaned(log: Log, monkeypatch: pytest.MonkeyPatch):
    worker = worker_of(log.steps(asks(here)))
    monkeypatch.setattr(Worker, "_guard", lambda *_: None)  # the thread ends without doing anything
    worker.start(as_task=False)
    runner_of(worker).join(LONG)
    assert worker.is_orphaned()
    assert worker.take() is not None  # no other thread takes the steps


def test_a_worker_whose_loop_is_closed_is_orphaned_and_one_that_has_answered_is_not(log: Log):
    loop, workers = asyncio.new_event_loop(), list[Worker]()

    async def begin() -> None:
        workers.append(worker_of(log.steps(asks(anyio.sleep_forever)), is_async=True))
        workers[0].start(as_task=True)
        await asyncio.sleep(0)

    loop.run_until_complete(begin())
    (worker,) = workers
    assert not worker.is_orphaned()
    task = runner_of(worker)
    task.get_coro().close()  # a loop that is closed carelessly leaves the task like this
    task._log_destroy_pending = False
    loop.close()
    worker.finished.is_set = False
    assert worker.is_orphaned()
    worker.has_answer = True
    assert not worker.is_orphaned()


# At exit.

EXIT = """
import threading, time
from httpx_reauth import Reauth, Token
begun = threading.Event()
def refresh(token):
    begun.set()
    {work}
    print("rotated", flush=True)
    return Token("b", expires_in=3600)
auth = Reauth(refresh, token=Token("a", expires_in=3600, expires_at=1), refresh_timeout={timeout})
threading.Thread(target=lambda: auth.get_token(), daemon=True).start()
begun.wait()
"""


@pytest.mark.parametrize(
    ("work", "timeout", "output"),
    [("threading.main_thread().join()", 60, "rotated\n"), ("threading.Event().wait()", 0.3, "")],
)
def test_guarantee_10_an_exit_waits_for_a_refresh_until_it_is_overdue_and_no_longer(
    work: str, timeout: float, output: str
):
    code = EXIT.format(work=work, timeout=timeout)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LONG, check=False)
    assert done.stdout == output


CHILD = """
import multiprocessing, os, sys, threading
from httpx_reauth import Reauth, Token
def child(wait, timeout):
    begun = threading.Event()
    def refresh(token):
        begun.set()
        if wait:
            threading.main_thread().join()
        else:
            threading.Event().wait()
        os.write(1, b"rotated")
        return Token("b", expires_in=3600)
    auth = Reauth(refresh, token=Token("a", expires_in=3600, expires_at=1), refresh_timeout=timeout)
    threading.Thread(target=lambda: auth.get_token(), daemon=True).start()
    begun.wait()
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    process = context.Process(target=child, args=(sys.argv[2] == "True", float(sys.argv[3])))
    process.start()
    process.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize(("waits", "timeout", "output"), [("True", 60, "rotated"), ("False", 0.3, "")])
def test_guarantee_2_a_child_of_multiprocessing_waits_at_its_exit_as_well(
    tmp_path: Any, method: str, waits: str, timeout: float, output: str
):
    program = tmp_path / "program.py"
    program.write_text(CHILD)
    command = [sys.executable, "-W", "ignore", str(program), method, waits, str(timeout)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    assert done.stdout == output


# Fork.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_refresh_inherited_through_fork_is_dropped_and_is_no_failure():
    store = TokenStore(Token("a"))
    flight = begin_refresh(store)
    _worker._workers.add(flight.worker)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            flight.settled.wait(LONG)
            state = state_of(store)
            assert (state.phase, state.flight, state.refreshes.failures) == ("idle", None, 0)
            assert flight.worker.finished.is_set
            assert busy(store) == []
            store.dispatch(SignedIn(Token("b")))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert state_of(store).flight is flight
    assert not flight.settled.is_set
    flight.worker.finished.set()
