"""A clock that stands still until it is moved, and raises once it is broken."""

from __future__ import annotations

from httpx_reauth.testing import ManualClock


class BreakableClock(ManualClock):
    """Set `broken`, and whoever reads it gets an `OSError`."""

    broken = False

    def monotonic(self) -> float:
        if self.broken:
            raise OSError("no clock")
        return super().monotonic()
