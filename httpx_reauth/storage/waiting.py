"""Waiting for a lock: in this process, and in ways that a herd of processes can afford."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from random import uniform
from time import monotonic, sleep
from typing import TypeVar

_SHORTEST = 0.01  # seconds between two looks; 50 processes that look that often keep half a core busy
_LONGEST = 0.1  # seconds
_SHARE = 0.1  # of the time waited so far: whoever waited a second waits a tenth longer than needed, at most

# To look at a file takes a fifth of what a try for a lock takes, and a herd waits for what is in it: so it looks more
# often, and tries less often, which helps only if the holder has failed or died.
_SHARE_OF_LOOKS = 0.04
_NEXT_TRY = 0.1  # seconds between two tries for a lock, while something else is looked for

_T = TypeVar("_T")


class Stopwatch:
    """How much is left of a timeout, in seconds; by the real clock, since threads really sleep."""

    __slots__ = ("_begun", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._begun = monotonic()

    @property
    def waited(self) -> float:
        """Seconds since the wait began."""
        return monotonic() - self._begun

    @property
    def left(self) -> float:
        """Seconds of the timeout that are left."""
        return max(0.0, self.timeout - self.waited)

    def pause(self, share: float = _SHARE) -> None:
        """Sleep until the next look, with jitter: for a share of the time waited so far."""
        waited = self.waited
        longest = max(_SHORTEST, min(_LONGEST, share * waited))
        sleep(max(0.0, min(self.timeout - waited, longest * uniform(0.5, 1.0))))  # noqa: S311 - spreads load


def wait_for_lock(take: Callable[[], bool], timeout: float, find: Callable[[], _T | None] | None) -> _T | None:
    """Try to `take` a lock again and again until it is had; or, while it is not, until `find` has found something.

    Args:
        take: tries to take it, and says whether it is had.
        timeout: seconds for both.
        find: looks for something that makes the lock needless; it is asked often, and the lock tried for less often.

    Returns:
        What was found; or None: the lock is had.

    Raises:
        TimeoutError: neither has come in that time.
    """
    watch, next_try = Stopwatch(timeout), 0.0
    while True:
        waited = watch.waited
        if waited >= min(next_try, timeout):
            if take():
                return None
            next_try = waited + _NEXT_TRY * uniform(0.5, 1.0)  # noqa: S311 - spreads load
        if find is None:
            next_try = 0.0
        elif (found := find()) is not None:
            return found
        if waited >= timeout:
            raise TimeoutError
        watch.pause(_SHARE if find is None else _SHARE_OF_LOOKS)


class ThreadLock:
    """A lock between the threads of this process. In a forked child it is free: whoever held it stayed behind."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}

    def acquire(self, timeout: float) -> bool:
        """Take it, waiting `timeout` seconds at most; any thread may give it back."""
        return self._lock.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    @property
    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())
