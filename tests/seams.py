"""The access of tests to the library's internals: the state, internal actions, and refreshes that no worker runs.

A test that needs more than the public names uses these functions. So the internals can change without changes in tests.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from types import CodeType, FrameType
from typing import Any

from httpx_reauth import ReauthError, Token, TokenStore
from httpx_reauth._clock import Clock
from httpx_reauth._state.actions import Action, Internal, Reason, RefreshFulfilled, RefreshPending, RefreshRejected
from httpx_reauth._state.state import State
from httpx_reauth._state.store import clock_of
from httpx_reauth._tokens import sessions
from httpx_reauth._tokens._refresh import Flight, Renewal, Worker, running_loop, workers_of
from httpx_reauth._tokens._refresh.signal import Signal

TIMEOUT = 30.0  # seconds that a refresh of `begin_refresh` may take


def state_of(holder: Any) -> State:
    """Return the state of an auth object or a store."""
    return getattr(holder, "store", holder)._state


def apply(store: TokenStore, action: Action | Internal) -> bool:
    """Apply any action to the state, and call the listeners; return whether the state changed."""
    is_changed = store._apply(action)
    store._notify()
    return is_changed


def use_clock(store: TokenStore, clock: Clock, token: Token | None = None) -> Clock:
    """Do the same as `Reauth(clock=..., token=...)` on `store`; return the clock that the store uses."""
    return store._use_clock(clock, token)


def busy(holder: Any) -> list[Worker]:
    """Return the workers of an auth object or a store: of its refreshes, even superseded ones, and of its saves."""
    return workers_of(getattr(holder, "store", holder))


def join_refreshes(seconds: float = 60.0) -> bool:
    """Wait for the threads of all refreshes, at most `seconds` for each. Return whether all of them have ended."""
    have_ended = True
    for thread in threading.enumerate():
        if thread.name.startswith("httpx_reauth refresh"):
            thread.join(seconds)
            have_ended = have_ended and not thread.is_alive()
    return have_ended


def token_plan(auth: Any, *, is_async: bool = False, **settings: Any) -> Generator[Any, None, Token]:
    """Return the plan of `get_token`. The test runs it by hand, and the plan yields its waits."""
    return auth._manager.token(is_async=is_async, **settings)


def close_plan(auth: Any, *, is_async: bool = False) -> Generator[Any, None, None]:
    """Return the plan of `close`."""
    return sessions.close(auth._manager, is_async=is_async)


def usable_until(auth: Any) -> float:
    """Return until when requests use the token without another decision (monotonic seconds)."""
    return auth._manager.usable_until(state_of(auth), clock_of(auth.store).monotonic())


def begin_refresh(holder: Any, reason: Reason = "missing", *, seconds: float = TIMEOUT) -> Flight:
    """Put a refresh into the state; no worker runs its steps."""
    store: TokenStore = getattr(holder, "store", holder)
    worker = Worker(store, clock_of(store).monotonic(), seconds)
    worker.accept(_nothing())
    flight = Flight(worker, lambda _: None, reason, session=state_of(store).session)
    assert apply(store, RefreshPending(reason, flight=flight))
    return flight


def bring(flight: Flight, token: Token, *, lifetime: float = 3600.0, elapsed: float = 0.0, **more: Any) -> Token:
    """Finish the refresh of `begin_refresh` with `token`.

    Its worker stays unfinished, as before the release of a lock.
    """
    store = flight.worker.store
    deadline = clock_of(store).monotonic() + lifetime
    assert apply(store, RefreshFulfilled(token, flight.reason, elapsed, flight=flight, deadline=deadline, **more))
    flight.outcome = token
    flight.settled.set()
    return token


def fail(flight: Flight, error: ReauthError, *, retry_at: float = float("inf")) -> None:
    """Finish the refresh of `begin_refresh` with `error`."""
    assert apply(flight.worker.store, RefreshRejected(error, flight.reason, 0.0, flight=flight, retry_at=retry_at))
    flight.outcome = error
    flight.settled.set()
    finish(flight)


def finish(flight: Flight) -> None:
    """Finish the worker of `begin_refresh`."""
    flight.worker.finished.set()


def until_threads_wait(_: Any, count: int) -> None:
    """Return when `count` threads wait for a refresh."""
    give_up, waits = time.monotonic() + 60, Signal.wait.__code__
    while sum(waits in _codes(frame) for frame in sys._current_frames().values()) < count:
        assert time.monotonic() < give_up
        time.sleep(0.001)


def _codes(frame: FrameType | None) -> list[CodeType]:
    codes = []
    while frame is not None:
        codes.append(frame.f_code)
        frame = frame.f_back
    return codes


def wait_by(flight: Flight, wait: Callable[[], object], async_wait: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Replace each wait for `flight` by a call of `wait` or `async_wait`."""

    class Waited(Signal):
        def wait(self, seconds: float) -> None:
            wait()

        def async_wait(self, seconds: float) -> Coroutine[Any, Any, object]:
            return async_wait()

    flight.settled = Waited()


class OpenLoop:
    """The part of an event loop that the waiters for its tasks use."""

    def __init__(self) -> None:
        self.closed = False

    def is_closed(self) -> bool:
        return self.closed


def runs_on(flight: Any, loop: Any) -> None:
    """Make the refresh of `begin_refresh` look like a task of `loop`, on this thread."""
    flight.worker.take()
    flight.worker.loop, flight.worker.loop_thread_id = loop, threading.get_ident()
    flight.worker._runs_on = object()  # the task


def renewal_by_hand(auth: Any, refresh: Any, reason: Reason = "expiring") -> tuple[Flight, Generator[Any, Any, None]]:
    """Start a refresh of `auth` in the state, without a worker. Return it and its steps.

    The test makes the calls that the steps yield.
    """
    began = state_of(auth)
    flight = begin_refresh(auth, reason)
    flight.refresh = refresh
    return flight, Renewal(auth.store, flight, refresh, began).steps()


def waiters_of(signal: Signal) -> tuple[int, int]:
    """Return how many gates of threads, and how many events of event loops, a signal has to open."""
    return int(signal._gate is not None), len(signal._waiters)


def timer_of(signal: Signal) -> Callable[[], bool]:
    """Return a function that says whether the one event loop that waits for `signal` has a timer for that."""
    (waiters,) = signal._waiters.values()
    return lambda: waiters._cancel_timer is not None


def worker_of(
    steps: Generator[Any, Any, None], *, is_async: bool = False, seconds: float = 60.0, store: Any = None
) -> Worker:
    """Return a worker for `steps` that has not started. It will run on the running event loop if `is_async`."""
    store = store or TokenStore()
    worker = Worker(store, clock_of(store).monotonic(), seconds, loop=running_loop() if is_async else None)
    worker.accept(steps)
    return worker


def runner_of(worker: Worker) -> Any:
    """Return the thread or the task that does the work, or that watches over it."""
    return worker._runs_on


def _nothing() -> Generator[Any, Any, None]:
    yield from ()
