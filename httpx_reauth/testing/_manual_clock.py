"""A clock that a test moves by hand, so that no test has to wait for a token's end."""

from __future__ import annotations

import threading


class ManualClock:
    """A `Clock` that stands still until a test moves it: `Reauth(..., clock=clock)`.

    Give the same clock to the `AuthorizationServer`, and both sides agree about when a token ends. It may be read
    and moved from any thread.

    Args:
        monotonic: what `monotonic()` says at first, in seconds.
        time: what `time()` says at first, in seconds since the epoch.

    Example: a token that lives 3600 seconds is expired after `clock.advance(3600)`.
    """

    def __init__(self, monotonic: float = 1_000.0, time: float = 1_700_000_000.0) -> None:
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._time = time
        self._elapsed = 0.0

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back, and stands still while the machine sleeps."""
        return self._monotonic

    def time(self) -> float:
        """Seconds since the epoch, as this machine believes."""
        return self._time

    def elapsed(self) -> float:
        """Seconds that have really passed, awake or asleep: what a clock on another machine would have measured.

        An `AuthorizationServer` with this clock lets its tokens expire by it.
        """
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass: both clocks move.

        Raises:
            ValueError: `seconds` is negative. Time does not run backwards; `jump` sets the wall clock back.
        """
        self._move(monotonic=seconds, time=seconds, elapsed=seconds)

    def jump(self, seconds: float) -> None:
        """Somebody set the system's clock, forth or (negative) back: the wall clock moves, no time has passed."""
        self._move(time=seconds)

    def sleep_through(self, seconds: float) -> None:
        """The machine slept: the wall clock has moved, the monotonic one has not (as on Linux).

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
