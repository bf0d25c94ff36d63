"""Where the tests reach behind the public names: the state, internal actions, refreshes without anybody at work.

A test that needs more of the inside than its public names show takes it from here, so that the inside may change.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from httpx_reauth import ReauthError, Token, TokenStore
from httpx_reauth._clock import Clock
from httpx_reauth._state.actions import Action, Internal, Reason, RefreshFulfilled, RefreshPending, RefreshRejected
from httpx_reauth._state.state import State
from httpx_reauth._state.store import clock_of
from httpx_reauth._tokens import sessions
from httpx_reauth._tokens._refresh import Flight, Worker, workers_of
from httpx_reauth._tokens._refresh.signal import Signal

TIMEOUT = 30.0  # seconds that a refresh of `begin_refresh` has


def state_of(holder: Any) -> State:
    """All that is known, of an auth object or a store."""
    return getattr(holder, "store", holder)._state


def apply(store: TokenStore, action: Action | Internal) -> bool:
    """Change the state by any action, and tell the listeners; answers whether it changed."""
    is_changed = store._apply(action)
    store._notify()
    return is_changed


def use_clock(store: TokenStore, clock: Clock, token: Token | None = None) -> Clock:
    """What a `Reauth(clock=..., token=...)` on `store` does; returns the clock that counts."""
    return store._use_clock(clock, token)


def busy(holder: Any) -> list[Worker]:
    """Who works for an auth object or a store: its refreshes, those too that do not count any more, and its saves."""
    return workers_of(getattr(holder, "store", holder))


def token_plan(auth: Any, *, is_async: bool = False, **settings: Any) -> Generator[Any, None, Token]:
    """The plan of `get_token`, to be driven by hand: it yields what to wait for."""
    return auth._manager.token(is_async=is_async, **settings)


def close_plan(auth: Any, *, is_async: bool = False) -> Generator[Any, None, None]:
    """The plan of `close`."""
    return sessions.close(auth._manager, is_async=is_async)


def usable_until(auth: Any) -> float:
    """Until when requests use the token without a further decision (monotonic seconds)."""
    return auth._manager.usable_until(state_of(auth), clock_of(auth.store).monotonic())


def begin_refresh(holder: Any, reason: Reason = "missing", *, seconds: float = TIMEOUT) -> Flight:
    """A refresh is under way as far as the state knows; nobody does the work."""
    store: TokenStore = getattr(holder, "store", holder)
    worker = Worker(store, clock_of(store).monotonic(), seconds)
    worker.accept(_nothing())
    flight = Flight(worker, lambda _: None, reason, session=state_of(store).session)
    assert apply(store, RefreshPending(reason, flight=flight))
    return flight


def bring(flight: Flight, token: Token, *, lifetime: float = 3600.0, elapsed: float = 0.0, **more: Any) -> Token:
    """The refresh of `begin_refresh` brings `token`; its worker goes on, as if a lock were still to be released."""
    store = flight.worker.store
    deadline = clock_of(store).monotonic() + lifetime
    assert apply(store, RefreshFulfilled(token, flight.reason, elapsed, flight=flight, deadline=deadline, **more))
    flight.outcome = token
    flight.settled.set()
    return token


def fail(flight: Flight, error: ReauthError, *, retry_at: float = float("inf")) -> None:
    """The refresh of `begin_refresh` fails."""
    assert apply(flight.worker.store, RefreshRejected(error, flight.reason, 0.0, flight=flight, retry_at=retry_at))
    flight.outcome = error
    flight.settled.set()
    finish(flight)


def finish(flight: Flight) -> None:
    """The worker of `begin_refresh` has nothing left to do."""
    flight.worker.finished.set()


def until_threads_wait(flight: Any, count: int) -> None:
    """Return once so many threads wait for a refresh. Only the event that they wait on knows."""
    give_up = time.monotonic() + 60
    while flight.settled._event is None or len(flight.settled._event._cond._waiters) < count:
        assert time.monotonic() < give_up
        time.sleep(0.001)


def wait_by(flight: Flight, wait: Callable[[], object], async_wait: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Let `wait` or `async_wait` be called in the place of every wait for `flight`."""

    class Waited(Signal):
        def wait(self, seconds: float) -> None:
            wait()

        def async_wait(self, seconds: float) -> Coroutine[Any, Any, object]:
            return async_wait()

    flight.settled = Waited()


class OpenLoop:
    """As much of an event loop as those need who wait for what runs on it."""

    def __init__(self) -> None:
        self.closed = False

    def is_closed(self) -> bool:
        return self.closed


def runs_on(flight: Any, loop: Any) -> None:
    """The refresh of `begin_refresh` runs as a task of `loop`, on this thread."""
    flight.worker.take()
    flight.worker.loop, flight.worker.loop_thread_id = loop, threading.get_ident()
    flight.worker._runs_on = object()  # the task


def _nothing() -> Generator[Any, Any, None]:
    yield from ()
