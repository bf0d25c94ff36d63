"""The clock: where a `Reauth` reads the time.

Two readings, because they answer two questions. The monotonic clock measures how long something
lasts and never jumps; every deadline is fixed on it. The wall clock only translates the absolute
`expires_at` of a token, once, at the moment the token becomes known.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@runtime_checkable
class Clock(Protocol):
    """What `Reauth(clock=...)` takes: two functions that read the time.

    `httpx_reauth.testing.ManualClock` is one that a test moves by hand.
    """

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back (as `time.monotonic`)."""
        ...

    def time(self) -> float:
        """Seconds since the epoch; may jump when the system's clock is set (as `time.time`)."""
        ...


class _SystemClock:
    """The machine's own clocks."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


SYSTEM_CLOCK: Clock = _SystemClock()


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant on both clocks, so that an absolute time can be carried over to the monotonic clock."""

    monotonic: float
    wall: float


def moment(clock: Clock) -> Moment:
    """Both readings of `clock`, taken together."""
    return Moment(clock.monotonic(), clock.time())
