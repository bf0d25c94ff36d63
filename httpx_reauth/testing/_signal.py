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
    """A signal that is not set at first. After `set()` it stays set. Any thread or task may set it."""

    __slots__ = ("_event", "_lock", "_wakers")

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._wakers: dict[Callable[[], None], None] = {}  # in order, and fast to remove from

    def is_set(self) -> bool:
        """Return whether the signal has been set."""
        return self._event.is_set()

    def set(self) -> None:
        """Set the signal: wake all waiters. Later waiters do not wait."""
        with self._lock:
            self._event.set()
            wakers, self._wakers = self._wakers, {}
        for wake in wakers:
            wake()

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until the signal is set, for `timeout` seconds at most. Return whether it was set."""
        return self._event.wait(timeout)

    async def await_(self) -> None:
        """Suspend this task, of asyncio or trio, until the signal is set."""
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
                self._wakers.pop(wake, None)  # still in the dict if the task was cancelled


def _from_any_thread(function: Callable[[], object]) -> Callable[[], None]:
    """Return a function for any thread, which makes the event loop of this thread call `function`."""
    token = _trio_token()
    run_soon: Callable[[Callable[[], object]], object]
    finished: type[Exception]
    if token is not None:
        run_soon, finished = token.run_sync_soon, sys.modules["trio"].RunFinishedError
    else:
        run_soon, finished = asyncio.get_running_loop().call_soon_threadsafe, RuntimeError

    def wake() -> None:
        with suppress(finished):  # the loop may have ended since `set` copied the list
            run_soon(function)

    return wake


def _trio_token() -> Any:
    """Return the token of the trio loop in this thread, or None. If trio runs, it has been imported."""
    trio = sys.modules.get("trio")
    with suppress(RuntimeError, AttributeError):  # trio does not run here, or is just being imported
        return trio and trio.lowlevel.current_trio_token()
    return None
