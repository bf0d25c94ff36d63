"""Tests of asyncio and trio loops: find the running one, call into it, set timers, await with a time limit."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from httpx_reauth._tokens._refresh.loops import (
    AsyncioLoop,
    Loop,
    Stopped,
    TrioLoop,
    leave_loop,
    running_loop,
    within,
)

BACKENDS = ["asyncio", "trio"]
LONG = 60.0  # seconds; no test waits that long

tone: ContextVar[str] = ContextVar("tone", default="none")


@pytest.mark.anyio
async def test_the_running_loop_is_known_by_its_kind(anyio_backend_name: str):
    loop = running_loop()
    assert type(loop) is {"asyncio": AsyncioLoop, "trio": TrioLoop}[anyio_backend_name]
    assert loop == running_loop()
    assert hash(loop) == hash(running_loop())
    assert loop != object()
    assert not loop.is_closed()


def test_outside_of_an_event_loop_no_loop_is_found():
    with pytest.raises(RuntimeError, match="no running event loop"):
        running_loop()


def test_asyncio_is_found_where_trio_was_never_imported(monkeypatch: pytest.MonkeyPatch):
    async def look() -> Loop:
        return running_loop()

    monkeypatch.delitem(sys.modules, "trio")
    assert type(asyncio.run(look())) is AsyncioLoop


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


def test_two_loops_are_not_taken_for_each_other():
    loops: list[Loop] = []

    async def look() -> None:
        loops.append(running_loop())

    for backend in BACKENDS * 2:
        anyio.run(look, backend=backend)
    assert len(set(loops)) == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loop_is_called_from_any_thread_while_it_runs(backend: str):
    called: list[int] = []
    loops: list[Loop] = []

    async def main() -> None:
        loop, event = running_loop(), anyio.Event()
        loops.append(loop)

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


def test_a_trio_that_runs_in_an_asyncio_task_is_where_its_tasks_run():
    async def trio_in_asyncio() -> object:
        return trio.run(here_is)

    async def here_is() -> str:
        return type(running_loop()).__name__

    assert asyncio.run(trio_in_asyncio()) == "TrioLoop"


# Timers.


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


# Awaiting with a time limit.


async def answer() -> str:
    await anyio.lowlevel.checkpoint()
    return "answer"


@pytest.mark.anyio
async def test_within_its_time_an_awaitable_answers_and_after_it_is_stopped():
    assert await within(LONG, answer()) == "answer"
    with pytest.raises(Stopped) as caught:
        await within(0.01, anyio.sleep_forever())
    assert caught.value.out_of_time


@pytest.mark.anyio
async def test_within_lets_a_cancellation_from_outside_through():
    with anyio.CancelScope() as scope:
        scope.cancel()
        await within(LONG, anyio.sleep_forever())
        raise AssertionError
    assert scope.cancelled_caught


def test_code_in_a_worker_thread_does_not_find_the_loop_of_its_caller(monkeypatch: pytest.MonkeyPatch):
    sniffio = pytest.importorskip("sniffio")
    token = sniffio.current_async_library_cvar.set("trio")
    try:
        context = contextvars.copy_context()
        assert leave_loop(context).run(sniffio.current_async_library_cvar.get) is None
        assert context.run(sniffio.current_async_library_cvar.get) == "trio"
    finally:
        sniffio.current_async_library_cvar.reset(token)
    monkeypatch.delitem(sys.modules, "sniffio")
    assert leave_loop(context).run(sniffio.current_async_library_cvar.get) == "trio"
