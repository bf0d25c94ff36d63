"""What the hot path reads instead of the state: one header, and until when it is right (floor 4)."""

from __future__ import annotations

import math

from ._state import AuthState


class Snapshot:
    """What the hot path reads: for this very state and until this moment, this header is right."""

    __slots__ = ("header", "hot_until", "state", "until")

    def __init__(self, state: AuthState | None, until: float, hot_until: float, header: str) -> None:
        self.state = state
        self.until = until
        self.hot_until = hot_until  # never, where there is more to do than to set a header
        self.header = header


NOTHING_YET = Snapshot(None, -math.inf, -math.inf, "")
