"""Tests of a signal.

Any thread can set it once, and all threads and tasks that wait for it wake, on asyncio and trio.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator

import anyio
import pytest
from seams import timer_of, waiters_of

from httpx_reauth._tokens._refresh.signal import Signal

BACKENDS = ["asyncio", "trio"]
LONG = 60.0  # seconds; no test waits that long


@pytest.fixture
def signal() -> Iterator[Signal]:
    signal = Signal()
    yield signal
    signal.set()
    assert waiters_of(signal) == (0, 0)


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def in_loops_thread(backend: str, main: Callable[[], Awaitable[object]]) -> threading.Thread:
    return in_thread(lambda: anyio.run(main, backend=backend))


def test_after_it_is_set_nobody_waits(signal: Signal):
    assert not signal.is_set
    for _ in range(2):  # setting it twice does no harm
        signal.set()
        assert signal.is_set
        signal.wait(LONG)
        anyio.run(signal.async_wait, LONG)


def test_every_thread_that_waits_is_woken(signal: Signal):
    arrived = threading.Barrier(21)

    def wait() -> None:
        arrived.wait()
        signal.wait(LONG)

    threads = [in_thread(wait) for _ in range(20)]
    arrived.wait()
    signal.set()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


def test_a_thread_waits_for_as_long_as_it_wants_to(signal: Signal):
    for _ in range(2):
        signal.wait(0.01)
        assert not signal.is_set


@pytest.mark.anyio
async def test_a_task_waits_for_as_long_as_it_wants_to(signal: Signal):
    with anyio.fail_after(LONG):
        for _ in range(2):
            await signal.async_wait(0.01)
            assert not signal.is_set


@pytest.mark.anyio
async def test_every_task_that_waits_is_woken_from_any_thread_by_one_event(signal: Signal):
    woken: list[int] = []

    async def wait(number: int) -> None:
        await signal.async_wait(LONG)
        woken.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(wait, number)
        await anyio.wait_all_tasks_blocked()
        assert (woken, waiters_of(signal)) == ([], (0, 1))
        await anyio.to_thread.run_sync(signal.set)
    assert sorted(woken) == list(range(100))


@pytest.mark.anyio
async def test_a_task_that_wants_to_look_again_earlier_than_the_others_does(signal: Signal):
    woken: list[str] = []

    async def wait(name: str, seconds: float) -> None:
        await signal.async_wait(seconds)
        woken.append(name)

    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, "patient", LONG)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(wait, "impatient", 0.01)
    # They share one timer. So the patient task wakes as well, and looks again.
    assert sorted(woken) == ["impatient", "patient"]
    assert not signal.is_set


@pytest.mark.anyio
async def test_a_cancelled_waiter_leaves_the_others_waiting(signal: Signal):
    woken: list[str] = []

    async def wait(name: str) -> None:
        await signal.async_wait(LONG)
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
        signal.set()
    assert sorted(woken) == ["comes", "stays"]


@pytest.mark.anyio
async def test_it_can_be_waited_for_though_every_waiter_so_far_was_cancelled(signal: Signal):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(signal.async_wait, LONG)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(signal.async_wait, LONG)
        await anyio.wait_all_tasks_blocked()
        signal.set()


def test_guarantee_1_threads_and_loops_of_both_kinds_are_woken_together(signal: Signal):
    woken: list[str] = []
    arrived = threading.Semaphore(0)

    async def one(name: str) -> None:
        arrived.release()
        await signal.async_wait(LONG)
        woken.append(name)

    async def three(name: str) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(one, name)

    def blocking() -> None:
        arrived.release()
        signal.wait(LONG)
        woken.append("thread")

    threads = [in_loops_thread(name, lambda name=name: three(name)) for name in BACKENDS * 2]
    threads += [in_thread(blocking) for _ in range(3)]
    for _ in range(15):
        assert arrived.acquire(timeout=LONG)
    signal.set()
    for thread in threads:
        thread.join(LONG)
    assert sorted(woken) == ["asyncio"] * 6 + ["thread"] * 3 + ["trio"] * 6


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loop_that_has_ended_meanwhile_is_no_obstacle(signal: Signal, backend: str):
    async def leave() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(signal.async_wait, LONG)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    anyio.run(leave, backend=backend)
    signal.set()
    assert waiters_of(signal) == (0, 0)


@pytest.mark.anyio
async def test_no_timer_is_left_when_all_have_been_woken(signal: Signal):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(signal.async_wait, 3600.0)
        await anyio.wait_all_tasks_blocked()
        has_timer = timer_of(signal)
        assert has_timer()
        signal.set()
    assert not has_timer()
