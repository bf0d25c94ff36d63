"""Waiting for a lock: in this process, and in ways that a herd of processes can afford."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from random import uniform
from time import monotonic, sleep

_SHORTEST = 0.01  # seconds between two looks; 50 processes that look that often keep half a core busy
_LONGEST = 0.1  # seconds
_SHARE = 0.1  # of the time waited so far: whoever waited a second waits a tenth longer than needed, at most


class Stopwatch:
    """How much is left of a timeout, in seconds; by the real clock, since threads really sleep."""

    __slots__ = ("_begun", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._begun = monotonic()

    @property
    def left(self) -> float:
        return max(0.0, self._begun + self.timeout - monotonic())

    def pause(self, *, is_soon: bool = False) -> None:
        """Sleep until the next look, with jitter; not for long if what is waited for `is_soon` to come."""
        waited = monotonic() - self._begun
        longest = _SHORTEST if is_soon else max(_SHORTEST, min(_LONGEST, _SHARE * waited))
        sleep(min(self.left, longest * uniform(0.5, 1.0)))  # noqa: S311 - spreads load


def wait_until(is_mine: Callable[[], bool], timeout: float, is_soon: Callable[[], bool]) -> bool:
    """Ask `is_mine` again and again until it says yes; False if it did not within `timeout` seconds.

    Once `is_soon` says yes, it is asked more often.
    """
    watch, hurries = Stopwatch(timeout), False
    while not is_mine():
        if not watch.left:
            return False
        hurries = hurries or is_soon()
        watch.pause(is_soon=hurries)
    return True


class ThreadLock:
    """A lock between the threads of this process. In a forked child it is free: whoever held it stayed behind."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}

    def acquire(self, timeout: float) -> bool:
        """Take it, waiting `timeout` seconds at most; any thread may give it back."""
        return self._lock.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))

    def release(self) -> None:
        self._lock.release()

    @property
    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())
