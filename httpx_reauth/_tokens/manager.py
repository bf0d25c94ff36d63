"""Store, policy and refresh put together: "give me a token that is not this one".

What only a refresh needs is imported with the first one: many a process has a token that outlives it.
"""

from __future__ import annotations

from inspect import iscoroutinefunction
from math import inf
from threading import get_ident
from typing import TYPE_CHECKING, cast

from httpx_reauth._clock import Clock
from httpx_reauth._errors import ReauthError, RefreshError, SignInRequired, own_copy
from httpx_reauth._state import policy
from httpx_reauth._state.actions import Reason, RefreshPending
from httpx_reauth._state.state import AuthState
from httpx_reauth._state.store import TokenStore
from httpx_reauth._token import Refresh, Token
from httpx_reauth._tokens.errands import save_again
from httpx_reauth._tokens.wait import Plan, wait_for
from httpx_reauth.storage.base import Storage

if TYPE_CHECKING:
    from httpx_reauth._tokens._refresh.flight import Flight
    from httpx_reauth._tokens._refresh.sync import Keeper


class Refresher:
    """Gets tokens: the current one where it is good, else by way of one shared refresh.

    Its plans are generators that yield what to wait for and return a token; a driver of either colour serves them.
    """

    __slots__ = ("keeper", "leeway", "name", "package", "refresh", "store", "timeout")

    def __init__(
        self,
        refresh: Refresh,
        store: TokenStore,
        token: Token | None,
        *,
        storage: Storage | None,
        leeway: float,
        timeout: float,
        name: str | None = None,
        clock: Clock,
        package: str | None = None,
    ) -> None:
        self.refresh = refresh
        self.store = store
        self.keeper: Keeper | None = None
        if storage is not None:
            from httpx_reauth._tokens._refresh.sync import Keeper

            self.keeper = Keeper(storage)
        self.leeway = leeway
        self.package = package  # "httpx" or "httpx2": by which a grant posts
        self.timeout = timeout
        self.name = name
        store.count_by(clock, token)

    @property
    def clock(self) -> Clock:
        """What times are counted by: the store's, which may be that of another auth object."""
        return self.store.clock

    def usable_until(self, state: AuthState) -> float:
        """Until when the token of `state` may be used without a further decision (monotonic seconds)."""
        until, keeper = policy.good_until(state, policy.windows(state, self.leeway)), self.keeper
        if keeper is not None and not keeper.is_read:
            return -inf
        if keeper is not None and state.unsaved:
            return min(until, keeper.save_at)
        return until

    def save_if_due(self, state: AuthState, now: float) -> bool:
        """Try once more, in the background, to save a token that could not be saved; False if it is not time for it."""
        if self.keeper is None or not self.keeper.is_due(state, now):
            return False
        save_again(self, self.keeper)
        return True

    def token(self, *, is_async: bool, rejected: Token | None = None) -> Plan[Token]:
        """A usable token; `rejected` is one that a server has refused.

        Raises (at the latest after the refresh timeout):
            RefreshError: there is none, and the refresh failed, or failed before and it is too early for another.
            SignInRequired: there is none, and only a sign-in helps.
        """
        until, may_lead_again = inf, True
        while True:
            state, now = self.store.state, self.clock.monotonic()
            until = min(until, now + self.timeout)  # all its waits together end within one timeout
            verdict, reason = self._decide(state, now, rejected)
            if verdict == "use":
                self.save_if_due(state, now)
                return cast("Token", state.token)
            if verdict == "refuse":
                raise self._too_early(state, now)
            is_pending = state.status == "pending"
            flight = cast("Flight", state.flight) if is_pending else self._lead(state, reason, now, is_async=is_async)
            if flight is None:  # somebody was faster: decide anew
                continue
            if verdict == "renew":
                return cast("Token", state.token)
            if self.keeper is not None:
                self._check_that_the_lock_is_not_ours(flight)
            late = yield from wait_for(flight, is_async=is_async, until=until)
            token = self._outcome(flight, late, rejected, may_lead_again=may_lead_again)
            if token is not None:
                return token
            may_lead_again = may_lead_again and not flight.stopped

    def _outcome(
        self, flight: Flight, late: ReauthError | None, rejected: Token | None, *, may_lead_again: bool
    ) -> Token | None:
        """What a flight that was waited for comes to: a token, an error raised, or None: decide anew."""
        error = late or flight.error
        state = self.store.state
        # Somebody may have signed in or out since it landed: a listener does so at once, and this one may be late.
        has_changed = state.session != flight.session
        if flight.overtaken or (error is None and (flight.token is None or has_changed)):
            if state.token is None:
                raise SignInRequired("Signed out while the token was being renewed. Sign in again.")
            return None
        if error is None:
            return flight.token  # whatever its lifetime: it is what was waited for
        if flight.stopped and may_lead_again:
            return None  # its event loop ended, which says nothing about the next one's
        if state.token is not rejected and policy.is_alive(state, self.clock.monotonic()):
            return state.token  # it serves to its very end
        raise own_copy(error)

    def _decide(self, state: AuthState, now: float, rejected: Token | None) -> policy.Decision:
        if self.keeper is not None and not self.keeper.is_read:
            # What the storage holds wins over `token=`, so it has to be read first.
            is_pending, is_held_back = state.status == "pending", now < state.record.retry_at
            is_refused = rejected is not None and state.token is rejected
            if policy.is_alive(state, now) and state.record.failures and not is_refused:  # requests go on meanwhile
                return ("use" if is_pending or is_held_back else "renew"), "missing"
            verdict: policy.Verdict = "refuse" if is_held_back and not is_pending else "wait"
            return verdict, ("rejected" if is_refused else "missing")
        if rejected is None or state.token is not rejected:
            return policy.decide(state, policy.windows(state, self.leeway), now)
        held_back = state.status != "pending" and now < state.record.retry_at
        return ("refuse" if held_back else "wait"), "rejected"

    def _lead(self, state: AuthState, reason: Reason, now: float, *, is_async: bool) -> Flight | None:
        """Start a refresh, unless `state` is no longer the state: then somebody else did, or it is not needed."""
        from httpx_reauth._tokens._refresh.flight import Flight
        from httpx_reauth._tokens._refresh.loops import running_loop
        from httpx_reauth._tokens._refresh.renewal import Renewal
        from httpx_reauth._tokens._refresh.worker import launch

        refresh = self.refresh
        is_coroutine = iscoroutinefunction(refresh) or iscoroutinefunction(getattr(refresh, "__call__", None))  # noqa: B004
        here = running_loop() if is_async else None
        flight = Flight(self.store, reason, started=now, overdue=now + self.timeout, failures=state.record.failures)
        flight.refresh, flight.package = refresh, self.package
        flight.thread = get_ident()  # a listener that waits for it here, before it has started, waits for itself
        try:
            flight.depart()
            if not self.store.dispatch(RefreshPending(reason, flight=flight, basis=state)):
                flight.end()
                return None
            flight.thread = None
            if flight.overtaken:  # by a listener; what it would spend may be gone
                flight.end()
                return flight
            work = Renewal(flight, state, refresh, self.keeper, self.clock).work()
            launch(flight, work, here=here, is_coroutine=is_coroutine, is_blocking=self.keeper is not None)
        except BaseException:  # a signal, or an event loop that takes no task any more: nobody must wait for it
            if flight.give_up():
                self._reject_lost(flight)
            raise
        return flight

    def _check_that_the_lock_is_not_ours(self, flight: Flight) -> None:
        from httpx_reauth._tokens._refresh.flight import is_inside_a_refresh

        if not flight.is_aboard() and is_inside_a_refresh(self.store):
            raise RefreshError(
                "This call comes from a listener that is told of a refresh, which holds the storage's lock until the "
                "listener has returned: the next refresh waits for that. Call from another thread, or later."
            )

    def _reject_lost(self, flight: Flight) -> None:
        from httpx_reauth._tokens._refresh.renewal import reject_lost

        reject_lost(flight, self.clock)

    def _too_early(self, state: AuthState, now: float) -> ReauthError:
        """The remembered failure, for a request that comes before the next refresh may start."""
        error = own_copy(cast("ReauthError", state.error))
        if isinstance(error, RefreshError):
            error.retry_after = state.record.retry_at - now
        return error
