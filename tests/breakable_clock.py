"""A clock that a test moves by hand, and that a test can break."""

from __future__ import annotations

from httpx_reauth.testing import ManualClock


class BreakableClock(ManualClock):
    """A `ManualClock`. If a test sets `broken`, each reading raises an `OSError`."""

    broken = False

    def monotonic(self) -> float:
        if self.broken:
            raise OSError("no clock")
        return super().monotonic()
