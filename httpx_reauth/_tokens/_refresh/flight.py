"""A flight (as in single-flight): the part of one refresh that the state and the waiters see."""

from __future__ import annotations

from collections.abc import Callable

from httpx_reauth._errors import ReauthError
from httpx_reauth._state.actions import Reason
from httpx_reauth._token import Token
from httpx_reauth._tokens._refresh.signal import Signal
from httpx_reauth._tokens._refresh.worker import Worker


class Flight:
    """One refresh under way, and its result.

    Attributes:
        worker: runs the steps of the refresh.
        refresh: the refresh function or grant.
        reason: why the refresh began.
        session: the session in which the refresh began.
        outcome: the new token, or the error; set when the state has changed. None if the flight is superseded.
        settled: set when the listeners have been called, or when nobody needs to wait any longer.
        revoke: revokes the new token at the server; set if a `sign_out(revoke=True)` superseded the flight.
        outcome_unknown: the refresh was stopped from outside, so it is unknown whether the server renewed the token.
    """

    __slots__ = ("outcome", "outcome_unknown", "reason", "refresh", "revoke", "session", "settled", "worker")

    def __init__(self, worker: Worker, refresh: object, reason: Reason, *, session: int) -> None:
        self.worker = worker
        self.refresh = refresh
        self.reason: Reason = reason
        self.session = session
        self.settled = Signal()
        self.outcome: Token | ReauthError | None = None
        self.outcome_unknown = False
        self.revoke: Callable[[Token], object] | None = None

    def supersede(self) -> None:
        """Wake all waiters, since somebody signed in or out. The worker goes on."""
        self.worker.superseded = True
        self.settled.set()
