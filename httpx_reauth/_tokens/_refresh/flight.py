"""A flight (as in single-flight): what the state and those who wait know of one refresh."""

from __future__ import annotations

from collections.abc import Callable

from httpx_reauth._errors import ReauthError
from httpx_reauth._state.actions import Reason
from httpx_reauth._token import Token
from httpx_reauth._tokens._refresh.signal import Signal
from httpx_reauth._tokens._refresh.worker import Worker


class Flight:
    """One refresh under way, and what came of it.

    Attributes:
        worker: who does it.
        refresh: who is asked for the next token.
        reason: why it began.
        session: the session in which it began.
        outcome: the token that it brought, or why it failed, once the state says so; None for ever if it was
        superseded.
        settled: set when the listeners have heard of that, or nobody needs to wait for it any longer.
        revoke: revokes what it brings, since it was superseded by a sign-out that wants that.
        outcome_unknown: it was stopped from outside, so nobody knows what the server made of its request.
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
        """Somebody signed in or out: nobody needs to wait for it any longer. It goes on all the same."""
        self.worker.superseded = True
        self.settled.set()
