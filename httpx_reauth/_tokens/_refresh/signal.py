"""A signal that is set once, and for which threads, asyncio tasks and trio tasks wait.

1. It is set for good, from any thread. Whoever waits is woken, on any loop.
2. A wait may end early: it is over after the seconds that were asked for at the latest. So whoever waits looks again
   whether there still is something to wait for.
3. All tasks of one event loop share one event and one timer. A timer for each of 10,000 waiting requests would cost
   more than the requests; and a cancel scope, on Python 3.10, can swallow a `task.cancel()` that comes at the same
   moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from httpx_reauth._state.store import LOCK
from httpx_reauth._tokens._refresh.loops import Event, Loop, current_loop, running_loop


class Signal:
    """Set once, for good; see the top of this module."""

    __slots__ = ("_event", "_waiters", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._event: threading.Event | None = None
        self._waiters: dict[object, _Waiters] = {}

    def set(self) -> None:
        """Wake everybody. May be called again."""
        with LOCK:
            self.is_set = True
            event, waiters = self._event, self._waiters
            self._event, self._waiters = None, {}
        if event is not None:
            event.set()
        for one in waiters.values():
            one.loop.call_soon(one.wake)  # a closed loop has nobody left to wake

    def wait(self, seconds: float) -> None:
        """Block this thread until it is set, or for so many seconds."""
        with LOCK:
            if self.is_set:
                return
            if self._event is None:
                self._event = threading.Event()
            event = self._event
        event.wait(seconds)

    def async_wait(self, seconds: float) -> Coroutine[Any, Any, object]:
        """`wait` for a task. It hands out the coroutine of the event, instead of being one more of 10,000."""
        here = current_loop()
        with LOCK:
            if self.is_set:
                return _at_once()
            waiters = self._waiters.get(here)
            if waiters is None:
                waiters = self._waiters[here] = _Waiters(running_loop())
        return waiters.wait(seconds)


class _Waiters:
    """All tasks of one event loop that wait for one signal. Used on that loop's thread only."""

    __slots__ = ("_cancel_timer", "_event", "_wakes_at", "loop")

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._event: Event | None = None
        self._cancel_timer: Callable[[], object] | None = None
        self._wakes_at = 0.0

    def wait(self, seconds: float) -> Coroutine[Any, Any, object]:
        wakes_at = monotonic() + seconds
        if self._event is None:
            self._event = self.loop.event()
        if self._cancel_timer is None or wakes_at < self._wakes_at:
            if self._cancel_timer is not None:
                self._cancel_timer()
            self._wakes_at = wakes_at
            self._cancel_timer = self.loop.call_later(seconds, self.wake)
        return self._event.wait()

    def wake(self) -> None:
        cancel, self._cancel_timer = self._cancel_timer, None
        event, self._event = self._event, None
        if cancel is not None:
            cancel()
        if event is not None:
            event.set()


async def _at_once() -> None:
    """There is nothing to wait for."""
