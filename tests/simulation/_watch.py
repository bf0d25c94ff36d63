"""A listener of each store. It checks that the sequence of actions is legal, and that each refresh has a reason."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, cast

from httpx_reauth import (
    AuthState,
    RefreshError,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    SaveFailed,
    SignedIn,
    SignedOut,
    SignInRequired,
    Token,
)

if TYPE_CHECKING:
    from ._kernel import Home
    from ._server import Server
    from ._settings import Settings

# The diagram in `httpx_reauth/_state/reduce.py`: for each action, the states before it and the state after it.
DIAGRAM: dict[type, tuple[set[str], str]] = {
    RefreshPending: ({"idle", "fulfilled", "rejected"}, "pending"),
    RefreshFulfilled: ({"pending"}, "fulfilled"),
    RefreshRejected: ({"pending"}, "rejected"),
    SignedIn: ({"idle", "pending", "fulfilled", "rejected"}, "idle"),
    SignedOut: ({"idle", "pending", "fulfilled", "rejected"}, "idle"),
}
REFUSED_WAIT = 60.0
UNKNOWN_CLIENT = 401


class Watch:
    """What is known of one process. A pool may make one store after the other there, each with its `Events`."""

    def __init__(self, home: Home, server: Server, settings: Settings) -> None:
        self.home = home
        self.server = server
        self.settings = settings
        self.forced: set[str] = set()  # access tokens that somebody called rejected
        self.own: set[str] = set()  # access tokens that were renewed or signed in here
        self.changes = 0  # sign-ins and sign-outs so far
        self.refused: tuple[str, float] | None = None  # what was asked with when a refresh failed, until when it counts
        self._flight: object = None  # the last one that has asked
        self._first = ""  # what it asked with first

    def asks(self, token: Token, flight: object) -> None:
        """A token request begins: it may not spend what is remembered as refused."""
        if flight is not self._flight:
            self._flight, self._first = flight, name_of(token)
        if self.refused is None or self.server.kernel.stalls:  # with stalls, the listener gets the events late
            return
        refused, until = self.refused
        if refused == name_of(token) and self.home.machine.monotonic() < until - 1e-6:
            self.server.kernel.fail(f"{refused} is sent again, though the refusal is remembered")

    def failed(self, action: RefreshRejected, until: float) -> None:
        """A refresh has asked and failed. A pool remembers its last ask, a store its first."""
        asked = self._first if action.flight is self._flight and not self.settings.pool else name_of(action.asked)
        self.refused = asked, inf if isinstance(action.error, SignInRequired) else until


class Events:
    """What one store tells."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.home = watch.home
        self.server = watch.server
        self.settings = watch.settings
        self.status = "idle"
        self.failures = 0
        self.failed_at = -inf
        self.held_back = 0.0  # seconds after that

    def __call__(self, state: AuthState, action: object) -> None:  # noqa: C901, PLR0912 - one branch for each action
        server = self.server
        server.kernel.note("store:", type(action).__name__, getattr(action, "reason", ""), _name(state))
        if isinstance(action, SaveFailed):
            if state.status != self.status:
                server.kernel.fail(f"SaveFailed has changed the status from {self.status} to {state.status}")
            return
        sources, target = DIAGRAM[type(action)]
        if self.status not in sources or state.status != target:
            server.kernel.fail(f"{self.status} --{type(action).__name__}--> {state.status} is not in the diagram")
        self.status = state.status
        if isinstance(action, RefreshPending):
            self._is_justified(state, action)
        elif isinstance(action, RefreshFulfilled):
            if state.token is not action.token:
                server.kernel.fail("RefreshFulfilled does not bring its token")
            if action.adopted:  # what is read from a storage expires by the wall clock, which may have jumped
                self.watch.own.discard(action.token.access_token)
            else:
                self.watch.own.add(action.token.access_token)
            self.failures, self.watch.refused = 0, None
        elif isinstance(action, RefreshRejected):
            self.failures += 1
            worker = cast("Any", action.flight).worker
            self.failed_at = worker.started + action.elapsed  # this event may come later: after the lock is released
            self.held_back = self._back_off(action)
            if action.asked is not None:
                self.watch.failed(action, self.failed_at + self.held_back)
            elif self.settings.pool:  # perhaps what a pool remembers, which ends earlier
                self.held_back = 0.0
        else:
            self.failures, self.watch.refused = 0, None
            self.watch.changes += 1
            if isinstance(action, SignedIn):
                self.watch.own.add(action.token.access_token)

    def _back_off(self, action: RefreshRejected) -> float:
        """The least time before the next refresh, by the guarantee's own words."""
        error, number = action.error, self.failures
        if isinstance(error, SignInRequired):
            return min(2.0 ** (number - 1), REFUSED_WAIT) if self.settings.storage else inf
        if not isinstance(error, RefreshError):
            self.server.kernel.fail(f"a refresh was rejected with {type(error).__name__}")
            return 0.0
        flight: Any = action.flight
        if flight.outcome_unknown and number == 1:  # its loop has ended, which says nothing about the next refresh
            return 0.0
        least = 0.8 * min(0.5 * 2 ** (number - 1), 30.0)
        if error.error == "invalid_client" or error.status_code == UNKNOWN_CLIENT:
            least = REFUSED_WAIT
        return max(least, error.retry_after or 0.0)

    def _is_justified(self, state: AuthState, action: RefreshPending) -> None:
        kernel = self.server.kernel
        if kernel.stalls:  # threads may stop for a while, so the actions come late
            return
        gap = self.home.machine.monotonic() - self.failed_at
        if self.failures and gap < self.held_back - 1e-6:
            kernel.fail(
                f"a refresh {gap:g} s after failure {self.failures}, which should hold it back {self.held_back:g} s"
            )
        token = state.token
        if action.reason == "missing" or token is None or token.access_token in self.watch.forced:
            return
        known = self.server.access.get(token.access_token)
        if known is None:
            kernel.fail(f"a refresh because of {action.reason} for a token that nobody has issued")
        elif action.reason == "rejected":
            if not known.refused:
                kernel.fail(f"a refresh because {token.access_token} was rejected, which it was not")
        elif self.settings.says == "expires_in" and token.access_token in self.watch.own:
            age = kernel.now - known.begun
            if age < 0.44 * self.settings.lifetime:
                kernel.fail(f"a refresh because of {action.reason}, {age:g} s into {self.settings.lifetime:g} s")


def name_of(token: Token) -> str:
    """By what one token that is spent differs from another."""
    return token.refresh_token or token.access_token


def _name(state: AuthState) -> str:
    token = state.token
    return "no token" if token is None else f"{token.access_token} {token.refresh_token}"
