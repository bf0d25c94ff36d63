"""A simulated computer: its clocks."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._kernel import Kernel

# ticks of a clock in a second; the step is larger than the error of a sum of floats, so no wait is too short
_GRID = 2.0**20
ROUNDING = 2 / _GRID  # seconds


class Machine:
    """A computer: its two clocks, and whether it sleeps. Its monotonic clock stands still meanwhile, as on Linux."""

    def __init__(self, kernel: Kernel, ahead: float = 0.0) -> None:
        self._kernel = kernel
        self._slept = 0.0
        self._frozen = 0.0
        self._read_at, self._reading = -inf, 0.0
        self.ahead = ahead  # seconds by which its wall clock is wrong
        self.jumped_back = 0.0
        self.asleep_until = -inf

    def monotonic(self) -> float:
        now = self._kernel.now
        if now != self._read_at:
            self._read_at = now
            self._reading = (
                self._frozen if now < self.asleep_until else int((now - self._slept + 1_000.0) * _GRID) / _GRID
            )
        return self._reading

    def time(self) -> float:
        return self._kernel.now + self.ahead + 1_700_000_000.0

    def due(self, deadline: float) -> float:
        """When its monotonic clock will say `deadline`, in true time."""
        return max(self._kernel.now, self.asleep_until) + deadline - self.monotonic() + ROUNDING

    def jump(self, seconds: float) -> None:
        self.ahead += seconds
        self.jumped_back += max(0.0, -seconds)

    def sleep(self, seconds: float) -> None:
        self._frozen = self.monotonic()
        self.asleep_until = max(self.asleep_until, self._kernel.now) + seconds
        self._slept = self.asleep_until + 1_000.0 - self._frozen
        self._read_at = -inf
        self._kernel.news(self.asleep_until)
