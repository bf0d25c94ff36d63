"""A one-time event that threads, asyncio tasks and trio tasks can wait for together, without polling."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio


class Signal:
    """Unset at first; once set, it stays so. It may be set from anywhere."""

    __slots__ = ("_event", "_lock", "_wakers")

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._wakers: dict[Callable[[], None], None] = {}  # in order, and quick to leave

    def is_set(self) -> bool:
        """Whether it has been set."""
        return self._event.is_set()

    def set(self) -> None:
        """Wake all who wait, and let everybody pass from now on."""
        with self._lock:
            self._event.set()
            wakers, self._wakers = self._wakers, {}
        for wake in wakers:
            wake()

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until it is set, for `timeout` seconds at most; whether it was set."""
        return self._event.wait(timeout)

    async def await_(self) -> None:
        """Suspend this task, of asyncio or trio, until it is set."""
        awake = anyio.Event()
        wake = _from_any_thread(awake.set)
        with self._lock:
            if self._event.is_set():
                return
            self._wakers[wake] = None
        try:
            await awake.wait()
        finally:
            with self._lock:
                self._wakers.pop(wake, None)  # it is still there if the task was cancelled


def _from_any_thread(function: Callable[[], object]) -> Callable[[], None]:
    """What makes the event loop that runs here call `function`; itself callable from any thread."""
    token = _trio_token()
    run_soon: Callable[[Callable[[], object]], object]
    finished: type[Exception]
    if token is not None:
        run_soon, finished = token.run_sync_soon, sys.modules["trio"].RunFinishedError
    else:
        run_soon, finished = asyncio.get_running_loop().call_soon_threadsafe, RuntimeError

    def wake() -> None:
        with suppress(finished):  # the loop may end between our look at the list and this call
            run_soon(function)

    return wake


def _trio_token() -> Any:
    """What wakes the trio that runs in this thread, or None. Who runs trio has imported it."""
    trio = sys.modules.get("trio")
    with suppress(RuntimeError, AttributeError):  # none runs in this thread; another thread is importing it just now
        return trio and trio.lowlevel.current_trio_token()
    return None
