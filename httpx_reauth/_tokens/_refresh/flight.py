"""A flight: one refresh under way, started away from every caller, joinable from any thread and any loop."""

from __future__ import annotations

import os
import threading
from collections.abc import Coroutine
from contextvars import ContextVar
from math import inf
from typing import TYPE_CHECKING, Any

from httpx_reauth._state.actions import FlightDropped
from httpx_reauth._state.store import LOCK, TokenStore
from httpx_reauth._tokens._refresh.loops import AsyncioLoop, Loop, WaitingRoom, running_loop, whereabouts

if TYPE_CHECKING:
    from httpx_reauth._errors import ReauthError
    from httpx_reauth._state.actions import Reason
    from httpx_reauth._token import Token

LOOK = 1.0  # seconds between two looks at a flight that is waited for: is it still there?

# Flights under way. It keeps their tasks alive, and tells a forked child which ones it has not inherited.
_under_way: set[Flight] = set()

_aboard: ContextVar[tuple[Flight, ...]] = ContextVar("httpx_reauth_aboard", default=())


def is_inside_a_refresh(store: TokenStore | None = None) -> bool:
    """Does the caller run inside of a refresh (or in a listener that it tells), of `store` or of any?"""
    return any(not flight.ended and (store is None or flight.store is store) for flight in _aboard.get())


def innermost_flight() -> Flight | None:
    """The refresh inside of which the caller runs, the innermost of several; None outside of any."""
    aboard = _aboard.get()
    return aboard[-1] if aboard else None


def under_way(store: TokenStore) -> list[Flight]:
    """The flights of `store` whose work is not done."""
    with LOCK:
        return [flight for flight in _under_way if flight.store is store]


class Flight:
    """One refresh under way.

    Attributes:
        store: whose token is being renewed.
        reason: why it is.
        refresh: who is asked for the next one; for the log.
        session: the state's, when it began; another one means that somebody has signed in or out since.
        started: when it began, in monotonic seconds of the store's clock.
        overdue: when waiting for it ends, likewise.
        failures: refreshes in a row that failed before it.
        package: `"httpx"` or `"httpx2"`: which of them the client uses that this is for.
        token: what it brought, once it has landed; None if it failed or was overtaken.
        error: why it failed.
        overtaken: somebody signed in or out meanwhile; whatever it brings counts no more.
        stopped: it failed because it was stopped from outside, so that its outcome is unknown.
        home: the event loop that its coroutine runs on, if that is not its own.
        is_task: nothing but a task of that loop does its work.
        thread: the thread of that loop; what blocks it waits for itself.
        keep: the task or thread that does the work.
        has_answered: its coroutine has, on `home`; a thread goes on with that, whatever becomes of the loop.
    """

    __slots__ = (
        "_begun", "_event", "_rooms", "ended", "error", "failures", "has_answered", "home", "is_task",
        "keep", "landed", "overdue", "overtaken", "package", "reason", "refresh", "session", "started", "stopped",
        "store", "thread", "token",
    )  # fmt: skip

    def __init__(self, store: TokenStore, reason: Reason, *, started: float, overdue: float, failures: int) -> None:
        self.store = store
        self.reason: Reason = reason
        self.refresh: object = None
        self.session = store.state.session
        self.started = started
        self.overdue = overdue
        self.failures = failures
        self.package: str | None = None
        self.landed = False
        self.ended = False
        self.token: Token | None = None
        self.error: ReauthError | None = None
        self.overtaken = False
        self.stopped = False
        self.home: Loop | None = None
        self.is_task = False
        self.thread: int | None = None
        self.keep: object = None
        self.has_answered = False
        self._begun = False
        self._event: threading.Event | None = None
        self._rooms: dict[object, WaitingRoom] = {}

    def depart(self) -> None:
        """From now on it is under way, until it ends."""
        with LOCK:
            _under_way.add(self)

    def begin(self) -> bool:
        """Its work begins, wherever that is done; False if it has been given up before."""
        with LOCK:
            self._begun = not self.ended
            return self._begun

    def give_up(self) -> bool:
        """Whoever starts it is interrupted; False if its work has begun all the same, and goes on."""
        with LOCK:
            self.ended = self.ended or not self._begun
            return not self._begun

    def board(self) -> None:
        """Mark the current context: what runs in it is this flight, and must not wait for it."""
        _aboard.set((*(flight for flight in _aboard.get() if not flight.ended), self))

    def is_aboard(self) -> bool:
        """Does the caller run inside of this very refresh?"""
        return self in _aboard.get()

    def land(self) -> None:
        """What it was for is decided: wake everybody who waits, wherever they are. May be called again."""
        with LOCK:
            self.landed = True
        self._wake()

    def end(self) -> None:
        """Its work is done, a storage's lock released: it is under way no more. Lands it, if it has not landed."""
        with LOCK:
            self.landed = self.ended = True
            _under_way.discard(self)
        self._wake()

    def overtake(self) -> None:
        """Somebody signed in or out: nobody needs to wait for it any longer. It goes on all the same."""
        with LOCK:
            self.overtaken = True
        self._wake()

    def drop(self) -> None:
        """After a `fork`, in the child: its thread or loop stayed in the parent, and so did all who wait for it."""
        _under_way.discard(self)
        self.landed = self.ended = self.stopped = True
        self._event, self._rooms = None, {}
        self.store.dispatch(FlightDropped(self))

    def is_over(self, *, for_end: bool = False) -> bool:
        """Is there nothing left to wait for: its outcome, or with `for_end` the end of its work?"""
        return self.ended if for_end else self.landed or self.overtaken

    def _room_of_its_own(self, until: float) -> WaitingRoom:
        """A room for one that has less patience than the others; it is left when that ends."""

        def left() -> float:
            seconds = self._left_for_a_timer(until)
            if seconds <= 0:
                self._rooms.pop(room, None)
            return seconds

        room = WaitingRoom(running_loop(), left)
        self._rooms[room] = room
        return room

    def _wake(self) -> None:
        with LOCK:
            event, rooms = self._event, self._rooms
            self._event, self._rooms = None, {}
        if event is not None:
            event.set()
        for room in rooms.values():
            room.loop.call_soon(room.wake)  # a closed loop has nobody left to wake

    def is_lost(self) -> bool:
        """Can it not land any more? The event loop that it ran on has been closed, or may never run again."""
        return not (self.landed or self.has_answered) and (self._is_loop_closed() or self._is_forgotten())

    def _is_forgotten(self) -> bool:
        """Has its loop not even stopped it in time, as nobody runs it any more, though it was not closed?"""
        if not (self.is_task and isinstance(self.home, AsyncioLoop) and self.home.stands_still()):
            return False
        return self.store.clock.monotonic() >= self.overdue + LOOK

    def is_blocked_here(self) -> bool:
        """Does whatever blocks this thread block the flight?"""
        return self.thread == threading.get_ident() and not self._is_loop_closed()

    def _is_loop_closed(self) -> bool:
        return self.home is not None and self.home.is_closed()

    def left(self, until: float = inf) -> float:
        """Seconds until whoever waits must look at it, if nothing wakes them; 0 if it is ended, lost or out of time."""
        if self.ended or self.is_lost():
            return 0.0
        return self.time_left(until)

    def _left_for_a_timer(self, until: float = inf) -> float:
        """`left` for an event loop's own callback: of a clock that raises, whoever waits hears when it looks."""
        try:
            return self.left(until)
        except Exception:  # noqa: BLE001 - what leaves a callback would end a trio run, and an asyncio timer
            return 0.0

    def time_left(self, until: float = inf) -> float:
        """Seconds until waiting for it ends, `until` a moment at the latest; 0 if it is overdue."""
        return max(0.0, min(self.overdue, until) - self.store.clock.monotonic())

    def wait(self, seconds: float = LOOK, *, for_end: bool = False, until: float = inf) -> None:
        """Block this thread until it is over or out of time, `seconds` at most; the caller looks again either way."""
        with LOCK:
            if self.is_over(for_end=for_end):
                return
            if self._event is None:
                self._event = threading.Event()
            event = self._event
        event.wait(min(seconds, self.time_left(until)))

    def async_wait(
        self, seconds: float = LOOK, *, for_end: bool = False, until: float = inf
    ) -> Coroutine[Any, Any, object]:
        """`wait` for async code; of all tasks of this event loop, one looks every `seconds` whether to go on.

        It hands out the coroutine of another instead of being one: a coroutine less for each of 10,000 that wait.
        """
        here = whereabouts()
        with LOCK:
            if self.is_over(for_end=for_end):
                return _at_once()
            room = self._room_of_its_own(until) if until < self.overdue else self._rooms.get(here)
            if room is None:
                room = self._rooms[here] = WaitingRoom(running_loop(), self._left_for_a_timer)
        return room.enter(seconds).wait()  # until it is over, lost or out of time


async def _at_once() -> None:
    """There is nothing to wait for."""


def _after_fork_in_child() -> None:
    for flight in list(_under_way):
        flight.drop()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows knows no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
