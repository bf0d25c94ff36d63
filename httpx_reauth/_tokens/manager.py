"""Gets a token that is usable, or newer than a given one: decides, starts a refresh or joins one, and waits.

1. The policy decides: use the token, renew it in the background, wait, or refuse.
2. A call that must wait joins the refresh under way, or starts one. If several calls start a refresh in the same state,
   the store accepts one refresh. The other calls decide again.
3. A call gives up one refresh timeout after it began, however often it waits. If the refresh reaches its deadline
   earlier, the call gives up then.
4. A call that has waited for a refresh uses the new token, even if the token has a very short lifetime.
5. A call belongs to the session in which it began, and does not use the token of another session. There is one
   exception: a call that began without a token uses the token of a sign-in.
6. A call that would wait for itself fails at once. There are four such calls:
   - a call from inside of the refresh;
   - a sync call that blocks the event loop on which the refresh runs;
   - a call from inside of a refresh that needs a second refresh, which needs the first one;
   - a call in a finalizer or a signal handler, on a thread that has the store's lock.

The plans are generators that yield the waits. A plan knows neither threads nor tasks; `steps.py` runs the plans.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from inspect import iscoroutinefunction
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from httpx_reauth import _tokens
from httpx_reauth._errors import ReauthError, RefreshError, SignInRequired, copy_for_waiter, set_retry_after
from httpx_reauth._state import policy
from httpx_reauth._state.actions import FlightDropped, Reason, RefreshPending, SaveStarted
from httpx_reauth._state.state import State
from httpx_reauth._state.store import TokenStore, clock_of, is_locked_here
from httpx_reauth._token import Refresh, Token
from httpx_reauth._tokens.steps import Step

if TYPE_CHECKING:
    from httpx_reauth._clock import Clock
    from httpx_reauth._tokens._refresh.flight import Flight
    from httpx_reauth._tokens._refresh.signal import Signal
    from httpx_reauth._tokens._refresh.worker import Worker

_T = TypeVar("_T")


class WaitFor(Step):
    """A step: wait for a signal, but at most `seconds`. Then the plan checks whether it must still wait."""

    __slots__ = ("_seconds", "_signal")

    def __init__(self, signal: Signal, seconds: float) -> None:
        self._signal = signal
        self._seconds = seconds

    def run(self) -> None:
        """Wait on this thread."""
        self._signal.wait(self._seconds)

    def arun(self) -> Coroutine[Any, Any, object]:
        """Wait in this task."""
        return self._signal.async_wait(self._seconds)


_SUPERSEDED_MOST = 10  # refreshes for which a call waits although a sign-in replaces their tokens: each costs a request

Plan: TypeAlias = Generator[WaitFor, None, _T]  # yields the waits, returns the result


class TokenManager:
    """Gets tokens: the current token if it is usable, else a new token by one shared refresh."""

    __slots__ = ("leeway", "package", "refresh", "store", "timeout")

    def __init__(
        self,
        refresh: Refresh,
        store: TokenStore,
        *,
        leeway: float,
        timeout: float,
        package: str | None = None,
    ) -> None:
        self.refresh = refresh
        self.store = store
        self.leeway = leeway
        self.timeout = timeout
        self.package = package  # "httpx" or "httpx2": a grant uses it for its requests

    @property
    def clock(self) -> Clock:
        """The store's clock, which another `Reauth` may have given."""
        return clock_of(self.store)

    def usable_until(self, state: State, now: float) -> float:
        """Until when the token of `state` may be used without another decision (monotonic seconds), or -inf."""
        verdict, _, until = policy.decide(state, now, self.leeway)
        return until if verdict == "use" else -inf

    def token(
        self,
        *,
        is_async: bool,
        rejected: Token | None = None,
        newer_than: Token | None = None,
        began: State | None = None,
        until: float = inf,
    ) -> Plan[Token]:
        """A usable token.

        Args:
            is_async: the caller is a task.
            rejected: a token that a server refused.
            newer_than: a token that is still usable; the call still returns a newer one.
            began: the state in which the request began; by default, the current state.
            until: when the call gives up (monotonic seconds), if that is before one refresh timeout.

        Raises (at the latest after the refresh timeout):
            RefreshError: there is no usable token, and the refresh has failed, or the back-off of an earlier one lasts.
            SignInRequired: there is no usable token, and only a sign-in helps.
        """
        store, may_start_again, unwanted, superseded = self.store, True, rejected or newer_than, 0
        began = began or store._state
        while True:
            state, now = store._state, self.clock.monotonic()
            if not policy.takes_over(began, state):
                raise _session_ended(state)
            verdict, reason, _ = policy.decide(state, now, self.leeway, unwanted)
            reason = reason if newer_than is None else policy.decide(state, now, self.leeway)[1]  # no server refused it
            if verdict == "use":
                self.save_if_due(state, now)
                return cast("Token", state.token)
            if verdict == "refuse":
                raise self._too_early(state, now)
            until = min(until, now + self.timeout)
            if now >= until or superseded >= _SUPERSEDED_MOST:
                raise out_of_time() if now >= until else _always_superseded()
            flight, is_ours = cast("Flight | None", state.flight), state.flight is None
            if flight is None:
                flight = self.start_refresh(state, reason, now, is_async=is_async)
            if flight is None:  # the state has changed meanwhile: decide again
                continue
            if verdict == "renew":
                return cast("Token", state.token)
            late = yield from wait_for(
                flight.worker, flight, is_async=is_async, until=until, may_be_orphaned=not is_ours
            )
            outcome = self._outcome_of(flight, late, began, unwanted, may_start_again=may_start_again)
            if outcome is not None and not _found(rejected, flight, outcome):
                return outcome
            unwanted = outcome or unwanted
            may_start_again = may_start_again and not flight.outcome_unknown
            superseded += store._state.session != flight.session

    def renewed(self, *, is_async: bool) -> Plan[Token]:
        """A token that is newer than the current one, even if that is usable. Raises the errors of `token`."""
        state, until = self.store._state, self.clock.monotonic() + self.timeout
        if state.token is None or (state.stored is not None and not state.stored.is_loaded):
            token = yield from self.token(is_async=is_async, until=until)
            current = self.store._state.current
            if current is None or current.token is not token or not current.is_adopted:
                return token  # the server has issued it just now
        return (yield from self.token(is_async=is_async, newer_than=self.store._state.token, until=until))

    def _outcome_of(
        self,
        flight: Flight,
        late: ReauthError | None,
        began: State,
        unwanted: Token | None,
        *,
        may_start_again: bool,
    ) -> Token | None:
        """The result of a wait for `flight`: a token; None: the call must decide again. Raises the flight's error."""
        state, outcome = self.store._state, flight.outcome or late
        if not policy.takes_over(began, state):  # somebody may have signed in or out since the flight was settled
            raise _session_ended(state)
        if outcome is None or state.session != flight.session:
            return None
        if isinstance(outcome, Token):
            return outcome  # whatever its lifetime (rule 4)
        if flight.outcome_unknown and may_start_again:
            return None  # the event loop of the refresh ended; a refresh on another loop may succeed
        if not policy.is_current(state, unwanted) and policy.is_alive(state, self.clock.monotonic()):
            return cast("Token", state.token)  # it is used until it expires
        raise copy_for_waiter(outcome)

    def start_refresh(self, state: State, reason: Reason, now: float, *, is_async: bool) -> Flight | None:
        """Start a refresh; None if `state` is no longer the state: then another refresh runs, or none is needed."""
        store, refresh = self.store, self.refresh
        loop = _tokens._refresh.running_loop() if is_async else _tokens._refresh.loop_of_caller()
        worker = _tokens._refresh.Worker(store, now, self.timeout, loop=loop, package=self.package)
        flight = _tokens._refresh.Flight(worker, refresh, reason, session=state.session)
        worker.accept(_tokens._refresh.Renewal(store, flight, refresh, state).steps())
        try:
            if not store._apply(RefreshPending(reason, flight=flight, expected=state)):
                return None
            worker.start(as_task=is_async and store._storage is None and is_coroutine_function(refresh))
        except BaseException:  # a signal, or an event loop that is ending and starts no task
            if worker.take() is not None:  # the worker does not run, and never will
                worker.finished.set()
                store._apply(FlightDropped(flight))
                flight.settled.set()
            raise
        store._notify()
        return flight

    def save_if_due(self, state: State, now: float) -> bool:
        """Start to write the pending change, in the background, if its next try is due; return whether it is."""
        stored = state.stored
        if stored is None or not stored.pending_write or now < stored.saves.until:
            return False
        if not self.store._apply(SaveStarted(policy.save_again_at(stored.saves.failures + 1, now))):
            return False
        _tokens._refresh.start_storage_job(self.store, self.timeout, self.package)
        return True

    def _too_early(self, state: State, now: float) -> ReauthError:
        """The error of the last refresh, for a call during the back-off."""
        error = copy_for_waiter(cast("ReauthError", state.phase))
        if isinstance(error, RefreshError):
            set_retry_after(error, state.refreshes.until - now)
        return error


def _found(rejected: Token | None, flight: Flight, outcome: Token) -> bool:
    """Is `outcome` the refused token, found in the storage by a refresh that began before the refusal?"""
    if rejected is None or flight.reason == "rejected":
        return False
    return outcome.access_token == rejected.access_token


def has_workers(store: TokenStore) -> bool:
    """Does a worker of `store` run: a refresh (even one that was superseded), or a write to the storage?"""
    if store._state.phase == "idle" and not store._state.session:
        return False  # nothing has begun yet
    return bool(_tokens._refresh.workers_of(store))


def is_coroutine_function(refresh: object) -> bool:
    """Is `refresh` a coroutine function, or an object whose `__call__` is a coroutine function?"""
    return iscoroutinefunction(refresh) or iscoroutinefunction(getattr(refresh, "__call__", None))  # noqa: B004


def wait_for(
    worker: Worker, flight: Flight | None = None, *, is_async: bool, until: float = inf, may_be_orphaned: bool = True
) -> Plan[ReauthError | None]:
    """Wait for `worker`. Return an error if that takes too long; raise an error if the call would wait for itself.

    Args:
        worker: the worker.
        flight: wait only until this flight of the worker has a result; by default, until the worker is finished.
        is_async: the caller is a task, so the wait blocks no thread.
        until: when the caller gives up (monotonic seconds).
        may_be_orphaned: the worker was not started just now, so check first whether it can still finish.
    """
    inside = _tokens._refresh.current_workers()
    if is_locked_here():
        raise RefreshError(
            "This call comes from a signal handler or a finalizer that has interrupted this library while it held its "
            "lock. To wait here would stop every other request. Make the call outside of the handler."
        )
    if inside and worker.is_needed_by(inside):
        raise _waits_for_itself(is_direct=worker in inside)
    for one in inside:
        one.waits_for.append(worker)
    try:
        is_first, signal = True, worker.finished if flight is None else flight.settled
        # The signal comes after the listeners, which may block. So a result is enough from the second check on.
        while not (signal.is_set or worker.finished.is_set or (not is_first and flight is not None and flight.outcome)):
            if not is_async and worker.is_blocked_here():
                raise _blocks_its_loop()
            if (may_be_orphaned or not is_first) and _tokens._refresh.reject_if_orphaned(worker):
                break
            if (left := worker.time_left(until)) <= 0:
                return _overdue(worker, flight) if worker.time_left() <= 0 else out_of_time()
            is_first = False
            yield WaitFor(signal, min(_tokens._refresh.LOOK, left))
        if worker.finished.is_set:  # a flight without a result would be a bug; then the flight fails here
            _tokens._refresh.reject_if_orphaned(worker)
    finally:
        for one in inside:
            one.waits_for.remove(worker)
    return None


def out_of_time() -> ReauthError:
    """The error for a call that has waited for one refresh timeout."""
    return RefreshError(
        "This call has waited for as long as it may (refresh_timeout). The refresh that it waits for began later, or "
        "has more time, and goes on without it."
    )


def _overdue(worker: Worker, flight: Flight | None) -> ReauthError:
    if flight is not None and hasattr(flight.refresh, "flow"):  # a grant, whose requests are bounded
        return RefreshError(
            f"The authorization server has not answered for {worker.deadline - worker.started:g} s (refresh_timeout). "
            "Its answer still counts if it comes: a refresh token may have been spent for it. Until then no second "
            "request is sent, and requests that need its token fail like this one. If the server is always that slow, "
            "give the Reauth a longer refresh_timeout."
        )
    return RefreshError(
        f"The refresh has been running for more than {worker.deadline - worker.started:g} s (refresh_timeout) and "
        "could not be stopped; until it ends, no second one starts, and requests that need its token fail like this "
        "one. Give the refresh a shorter timeout of its own."
    )


def _blocks_its_loop() -> ReauthError:
    return RefreshError(
        "This sync call would wait for itself: it blocks the thread of the event loop on which the refresh runs. "
        "Await the token (an httpx.AsyncClient, or aget_token), or call from another thread."
    )


def _waits_for_itself(*, is_direct: bool) -> ReauthError:
    if is_direct:
        return RefreshError(
            "This request comes from inside of the refresh that it would have to wait for. "
            "Send the refresh's own requests with auth=None, or by a client of its own."
        )
    return RefreshError(
        "This request would wait in a circle: the refresh that it needs waits for a refresh that this request is a "
        "part of. Two auth objects need each other's token to renew their own. Send the requests of one of the two "
        "refreshes with auth=None, or with a token of their own."
    )


def _always_superseded() -> RefreshError:
    return RefreshError(
        f"Somebody has signed in during each of the last {_SUPERSEDED_MOST} refreshes, each time with a token that has "
        "to be renewed at once. Does a listener sign in whenever a refresh begins?"
    )


def _session_ended(state: State) -> SignInRequired:
    if state.token is None:
        return SignInRequired("Signed out while the token was being renewed. Sign in again.")
    return SignInRequired(
        "Somebody has signed out, or signed in anew, while this request waited for a token. It began in the session "
        "before, so it is not sent with the new token. Send it again if it is meant for the new session."
    )
