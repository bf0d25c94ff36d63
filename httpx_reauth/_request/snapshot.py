"""What the hot path reads instead of the state: one header, and until when it is right."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

from httpx_reauth._state.state import AuthState
from httpx_reauth._tokens.source import TokenSource


class Snapshot:
    """What the hot path reads: for this very state and until this moment, this header is right."""

    __slots__ = ("header", "hot_until", "state", "until")

    def __init__(self, state: AuthState | None, until: float, hot_until: float, header: str) -> None:
        self.state = state
        self.until = until
        self.hot_until = hot_until  # never, where there is more to do than to set a header
        self.header = header


NOTHING_YET = Snapshot(None, -math.inf, -math.inf, "")


class SnapshotSource(TokenSource):
    """A source of tokens that keeps a snapshot of its state."""

    __slots__ = ("_monotonic", "_snapshot")

    _monotonic: Callable[[], float]
    _snapshot: Snapshot

    @property
    @abstractmethod
    def _is_plain(self) -> bool:
        """Is there nothing more to do than to set a header?"""

    def now(self) -> float:
        """Monotonic seconds, on the clock that everything here is counted by."""
        return self._monotonic()

    def _take_snapshot(self, state: AuthState, *, is_async: bool) -> None:
        (until, alarm), now = self._refresher.outlook(state), self.now()
        if state.token is None or until <= now:
            return
        is_near = alarm <= now
        if not is_near:
            until = alarm  # then it is taken once more
        hot_until, header = -math.inf, ""
        if self._is_plain:
            hot_until, header = until, f"{state.token.token_type} {state.token.access_token}"
        self._snapshot = snapshot = Snapshot(state, until, hot_until, header)
        if is_near and alarm < until and is_async:
            from httpx_reauth._request.alarm import set_alarm

            set_alarm(until - now, self._ring, snapshot)

    def _ring(self, snapshot: Snapshot) -> None:
        if self._snapshot is snapshot and self.store.state is snapshot.state:
            self._refresher.renew_if_due()

    def _drop_alarm(self) -> None:
        self._snapshot = NOTHING_YET
