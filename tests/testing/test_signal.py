"""Tests of `Signal`: threads, asyncio tasks and trio tasks wait for one event together."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
import trio

from httpx_reauth.testing import Signal

RUNNERS = [lambda function: asyncio.run(function()), trio.run]


def test_a_thread_waits_until_it_is_set():
    signal = Signal()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(signal.wait)
        assert not waiting.done()
        signal.set()
        assert waiting.result()
    assert signal.is_set()


def test_a_thread_waits_no_longer_than_its_timeout():
    assert not Signal().wait(0.001)


@pytest.mark.anyio
async def test_once_set_it_lets_everybody_pass():
    signal = Signal()
    signal.set()
    signal.set()
    await signal.await_()
    assert signal.wait()


def test_it_wakes_threads_and_the_tasks_of_many_event_loops():
    signal = Signal()
    everybody_waits = threading.Barrier(9)
    woken = []

    async def ten_tasks():
        async def one():
            await signal.await_()
            woken.append(1)

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(one)
            await anyio.wait_all_tasks_blocked()
            everybody_waits.wait()

    def thread():
        everybody_waits.wait()
        assert signal.wait()
        woken.append(1)

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(RUNNERS[n % 2], ten_tasks) for n in range(4)] + [pool.submit(thread) for _ in range(4)]
        everybody_waits.wait()
        signal.set()
        for job in jobs:
            job.result()
    assert len(woken) == 4 * 10 + 4


@pytest.mark.anyio
async def test_a_cancelled_waiter_is_forgotten():
    signal = Signal()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(signal.await_)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert not signal._wakers
    signal.set()


@pytest.mark.parametrize("run", RUNNERS)
def test_a_waiter_whose_loop_has_ended_is_no_error(run):
    signal = Signal()
    left_behind = []

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(signal.await_)
            await anyio.wait_all_tasks_blocked()
            left_behind.extend(signal._wakers)
            tasks.cancel_scope.cancel()

    run(main)
    signal._wakers.update(dict.fromkeys(left_behind))
    signal.set()
    assert left_behind
