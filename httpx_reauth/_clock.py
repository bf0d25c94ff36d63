"""The clock, by which a `Reauth` reads the time.

A clock has two readings. The monotonic clock never jumps, so every deadline is a time of the monotonic clock. The wall
clock may jump. The wall clock is read once for each token, when the token becomes known, to convert the token's
absolute `expires_at`.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol, runtime_checkable


@runtime_checkable
class Clock(Protocol):
    """The type of `Reauth(clock=...)`: two functions that read the time.

    `httpx_reauth.testing.ManualClock` is a clock that a test moves by hand.
    """

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back (as `time.monotonic`)."""
        ...

    def time(self) -> float:
        """Seconds since the epoch; may jump when the system's clock is set (as `time.time`)."""
        ...


class _SystemClock:
    """The clocks of the machine."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


SYSTEM_CLOCK: Clock = _SystemClock()


class Moment(NamedTuple):
    """One instant on both clocks, with which an absolute time can be converted to the monotonic clock."""

    monotonic: float
    wall: float


def moment(clock: Clock) -> Moment:
    """Both readings of `clock`, taken together."""
    return Moment(clock.monotonic(), clock.time())
