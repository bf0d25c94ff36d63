"""asyncio and trio event loops that the kernel runs in virtual time. At each step another thread may run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any

import sniffio
import trio
from greenlet import GreenletExit
from trio._core import _run

from ._foreign import AsyncioState, TrioState
from ._kernel import Kernel, Thread
from ._primitives import Here


class SimLoop(asyncio.AbstractEventLoop):
    """An asyncio event loop whose ready handles go on in the order that the seed says."""

    def __init__(self, *, shuffled: bool = False) -> None:
        self._kernel = Here.kernel
        assert self._kernel.current is not None
        self._thread: Thread = self._kernel.current
        self._ready: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = count()
        self._is_closed = False
        self._is_shuffled = shuffled
        self.tasks: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        return self._thread.home.machine.monotonic()

    def call_soon(self, callback, *args, context=None):
        if self._is_closed:
            raise RuntimeError("Event loop is closed")
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(self, callback, *args, context=None):
        handle = self.call_soon(callback, *args, context=context)
        self._kernel.wake(self._thread)
        self._kernel.point()
        return handle

    def call_later(self, delay, callback, *args, context=None):
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None):
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def create_future(self):
        return asyncio.Future(loop=self)

    def create_task(self, coro, *, name=None, context=None):
        if self._is_closed:
            coro.close()
            raise RuntimeError("Event loop is closed")
        if context is None:
            task = asyncio.Task(coro, loop=self, name=name)
        else:
            task = asyncio.Task(coro, loop=self, name=name, context=context)
        self.tasks.append(task)
        return task

    def run_until_complete(self, future):
        future = asyncio.ensure_future(future, loop=self)
        thread, state = self._thread, AsyncioState(self)
        assert thread.foreign is None
        thread.foreign = state
        state.enter()
        try:
            while not future.done():
                self._run_once()
        finally:
            state.leave()
            thread.foreign = None
        return future.result()

    def _run_once(self) -> None:
        kernel, ready = self._kernel, self._ready
        if kernel.is_over:
            raise GreenletExit
        now = self.time()
        while self._timers and self._timers[0][0] <= now:
            ready.append(heappop(self._timers)[2])
        if not ready:
            kernel.block(self._timers[0][0] if self._timers else inf)
            return
        at = int(kernel.random.random() * len(ready)) if self._is_shuffled else 0
        handle = ready.pop(at)
        if not handle.cancelled():
            handle._run()
        kernel.point()

    def end(self) -> None:
        """What `asyncio.run` does at its end: cancel what is left, wait for it, close."""
        self._thread.is_ending = True
        left = self.unfinished()
        for task in left:
            task.cancel()
        if left:
            self.run_until_complete(asyncio.wait(left))
        # `asyncio.run` then ends the loop's async generators and its executor. Meanwhile it calls the callbacks that
        # were ready before, in their order. So everyone who waits for the end of a task learns of it before the loop is
        # closed.
        self._is_shuffled = False
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()

    def unfinished(self) -> list[asyncio.Task[Any]]:
        return [task for task in self.tasks if not task.done()]

    def close(self) -> None:
        self._is_closed = True
        self._ready.clear()

    def is_closed(self) -> bool:
        return self._is_closed

    def is_running(self) -> bool:
        return not self._is_closed

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled) -> None:
        pass

    def _timer_handle_cancelled(self, handle) -> None:
        pass

    def call_exception_handler(self, context) -> None:
        if not (self._thread.home.is_dead or self._kernel.is_over):
            self._kernel.fail(f"asyncio: {context.get('message')}", context.get("exception"))

    async def shutdown_asyncgens(self) -> None:
        pass

    async def shutdown_default_executor(self, timeout=None) -> None:  # noqa: ASYNC109 - asyncio names it so
        pass


class _Clock(trio.abc.Clock):
    def __init__(self, thread: Thread) -> None:
        self._machine = thread.home.machine

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self._machine.monotonic()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - self.current_time()


class SimIO:
    """trio's way to wait for sockets, of which there are none; and to be woken from other threads."""

    def __init__(self) -> None:
        self._kernel = Here.kernel
        assert self._kernel.current is not None
        self._thread: Thread = self._kernel.current
        self._is_woken = False
        self._task: trio.lowlevel.Task | None = None

    def process_events(self, _events: object) -> None:
        if self._is_woken and self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def wakeup_thread_and_signal_safe(self) -> None:
        self._is_woken = True
        self._kernel.wake(self._thread)
        self._kernel.point()

    async def wait_woken(self) -> None:
        if not self._is_woken:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._forget)
        self._is_woken = False

    def close(self) -> None:
        pass

    def wait(self, seconds: float) -> None:
        if seconds >= _run._MAX_TIMEOUT and not self._is_woken:
            self._kernel.block()
        elif seconds > 0 and not self._is_woken:
            self._kernel.block(self._thread.home.machine.monotonic() + seconds)
        else:
            self._kernel.point()
        if self._kernel.is_over:
            raise GreenletExit

    def _forget(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


def run_trio(function: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """`trio.run`, driven by the kernel."""
    thread = Here.kernel.current
    assert thread is not None
    thread.foreign = TrioState()
    try:
        runner = _run.setup_runner(_Clock(thread), [], False, True)
        runner.entry_queue.wakeup.close()
        runner.entry_queue.wakeup = runner.io_manager
        sniffio.thread_local.name = "trio"
        ticks = _run.unrolled_run(runner, function, (), host_uses_signal_set_wakeup_fd=True)
        try:
            for seconds in ticks:
                runner.io_manager.wait(seconds)
        finally:
            ticks.close()
            sniffio.thread_local.name = None
    finally:
        thread.foreign = None
    assert runner.main_task_outcome is not None
    runner.main_task_outcome.unwrap()


async def asleep(kernel: Kernel, seconds: float) -> None:
    thread = kernel.current
    if thread is not None and isinstance(thread.foreign, TrioState):
        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)
