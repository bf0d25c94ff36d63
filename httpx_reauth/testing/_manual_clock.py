"""A clock that a test sets, so that no test has to wait for a token's end."""

from __future__ import annotations

import threading


class ManualClock:
    """A `Clock` that changes only when a test changes it: `Reauth(..., clock=clock)`.

    Give the same clock to the `AuthorizationServer`. Then both sides agree when a token ends. Any thread may read and
    change the clock.

    Args:
        monotonic: the first value of `monotonic()`, in seconds.
        time: the first value of `time()`, in seconds since the epoch.

    Example: a token that lives 3600 seconds is expired after `clock.advance(3600)`.
    """

    def __init__(self, monotonic: float = 1_000.0, time: float = 1_700_000_000.0) -> None:
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._time = time
        self._elapsed = 0.0

    def monotonic(self) -> float:
        """Return seconds since an arbitrary moment. They never go back, and do not change while the machine sleeps."""
        return self._monotonic

    def time(self) -> float:
        """Return the time of day of this machine, in seconds since the epoch."""
        return self._time

    def elapsed(self) -> float:
        """Return the seconds that have really passed, awake or asleep, as a clock on a different machine measures them.

        The tokens of an `AuthorizationServer` with this clock expire by these seconds.
        """
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass: `monotonic()` and `time()` both increase.

        Raises:
            ValueError: `seconds` is negative. Time does not run backwards; `jump` sets the wall clock back.
        """
        self._move(monotonic=seconds, time=seconds, elapsed=seconds)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back if `seconds` is negative. No time passes."""
        self._move(time=seconds)

    def sleep_through(self, seconds: float) -> None:
        """Let the machine sleep: the wall clock increases, and the monotonic clock does not (as on Linux).

        Raises:
            ValueError: `seconds` is negative.
        """
        self._move(time=seconds, elapsed=seconds)

    def _move(self, *, monotonic: float = 0.0, time: float = 0.0, elapsed: float = 0.0) -> None:
        if elapsed < 0:
            raise ValueError("Time does not run backwards. To set the wall clock back, use jump().")
        with self._lock:
            self._monotonic += monotonic
            self._time += time
            self._elapsed += elapsed

    def __repr__(self) -> str:
        return f"ManualClock(monotonic={self._monotonic}, time={self._time})"
