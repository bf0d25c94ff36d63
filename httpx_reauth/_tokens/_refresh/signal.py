"""A one-time event: threads, asyncio tasks and trio tasks can wait for it.

1. Any thread may set a signal. A signal that was set stays set. All waiters are woken, on all event loops.
2. A wait takes at most the seconds that the caller gave, and may end earlier, before the signal is set. So after each
   wait, a waiter checks again whether it must still wait.
3. If a signal handler raises an exception in a waiting thread, the other threads are not affected. This is why there
   is no `threading.Event` here: such an exception can leave the lock inside of the event locked, and then `set` hangs.
4. All waiting tasks of one event loop share one event and one timer. A timer for each of 10,000 waiting requests would
   cost more than the requests. A cancel scope for each task would be no better: on Python 3.10 it can swallow a
   `task.cancel()` that comes at the same moment.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from httpx_reauth._state.store import LOCK
from httpx_reauth._tokens._refresh.loops import Event, Loop, current_loop, running_loop


class Gate:
    """Threads wait here until another thread opens it, once.

    If a signal handler raises an exception in a thread that is just being woken, the next thread may wait for the whole
    time that it gave, but no longer.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()

    def open(self) -> None:
        """Wake all threads that wait."""
        self._lock.release()

    def wait(self, seconds: float) -> None:
        """Block this thread until it is open, or for at most `seconds`."""
        if self._lock.acquire(timeout=seconds):
            self._lock.release()  # for the next one


class Signal:
    """A one-time event; see the top of this module."""

    __slots__ = ("_gate", "_waiters", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._gate: Gate | None = None
        self._waiters: dict[object, _Waiters] = {}

    def set(self) -> None:
        """Set the signal and wake all waiters. A second call does nothing."""
        with LOCK:
            self.is_set = True
            gate, waiters = self._gate, self._waiters
            self._gate, self._waiters = None, {}
        if gate is not None:
            gate.open()
        for one in waiters.values():
            one.loop.call_soon(one.wake)  # on a closed loop nobody waits

    def wait(self, seconds: float) -> None:
        """Block this thread until the signal is set, or for at most `seconds`."""
        with LOCK:
            if self.is_set:
                return
            if self._gate is None:
                self._gate = Gate()
            gate = self._gate
        gate.wait(seconds)

    def async_wait(self, seconds: float) -> Coroutine[Any, Any, object]:
        """`wait` for a task. Returns the event's coroutine: one more coroutine for each of 10,000 waiters is slow."""
        here = current_loop()
        with LOCK:
            if self.is_set:
                return _at_once()
            waiters = self._waiters.get(here)
            if waiters is None:
                waiters = self._waiters[here] = _Waiters(running_loop())
        return waiters.wait(seconds)


class _Waiters:
    """The tasks of one event loop that wait for one signal. Used on the thread of that loop only."""

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
    """Return at once: the signal is already set."""
