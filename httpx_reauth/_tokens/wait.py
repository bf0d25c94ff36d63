"""Waiting for a flight, step by step: for how long, and what would wait for itself."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from httpx_reauth._errors import ReauthError, RefreshError
from httpx_reauth._tokens.steps import Step

if TYPE_CHECKING:
    from httpx_reauth._tokens._refresh.flight import Flight


class Wait(Step):
    """Wait for a flight, until the next look at it.

    Attributes:
        flight: the flight.
        for_end: until its work is done as well.
        until: when whoever waits has waited long enough, though the flight has time left (monotonic seconds).
    """

    __slots__ = ("flight", "for_end", "until")

    def __init__(self, flight: Flight, *, for_end: bool = False, until: float = inf) -> None:
        self.flight = flight
        self.for_end = for_end
        self.until = until

    def run(self) -> None:
        """Wait on this thread."""
        self.flight.wait(for_end=self.for_end, until=self.until)

    def arun(self) -> Coroutine[Any, Any, object]:
        """Wait in this task."""
        return self.flight.async_wait(for_end=self.for_end, until=self.until)


_T = TypeVar("_T")

Plan: TypeAlias = Generator[Wait, None, _T]  # yields what to wait for, returns what came of it


def wait_for(flight: Flight, *, is_async: bool, for_end: bool = False, until: float = inf) -> Plan[ReauthError | None]:
    """Wait until `flight` is over; returns an error if that takes too long, raises one if it waits for itself.

    Args:
        flight: the flight.
        is_async: who waits is a task, which blocks nobody.
        for_end: wait until its work is done as well.
        until: when the patience of whoever waits ends, if it is not that of the flight (monotonic seconds).
    """
    if flight.is_aboard():
        raise RefreshError(
            "This request comes from inside of the refresh that it would have to wait for. "
            "Send the refresh's own requests with auth=None, or by a client of its own."
        )
    if flight.is_lost():
        _reject_lost(flight)
    if not is_async and flight.is_blocked_here() and not flight.is_over(for_end=for_end):
        raise RefreshError(
            "This sync call would wait for itself: it blocks the thread of the event loop on which the refresh runs. "
            "Await the token (an httpx.AsyncClient, or aget_token), or call from another thread."
            if flight.home is not None
            else "This call comes from a listener that is told of the very refresh it would have to wait for. "
            "Let the listener return first, or call from another thread."
        )
    while not flight.is_over(for_end=for_end):
        if flight.time_left(until) <= 0:
            return _overdue(flight) if flight.time_left() <= 0 else _out_of_patience()
        if flight.is_lost():
            _reject_lost(flight)
            break
        yield Wait(flight, for_end=for_end, until=until)
    if flight.store.state.flight is flight and not flight.overtaken:  # landed without a word: a defect, not a reason
        _reject_lost(flight)  # to wait for ever
    return None


def _reject_lost(flight: Flight) -> None:
    from httpx_reauth._tokens._refresh.renewal import reject_lost

    reject_lost(flight, flight.store.clock)


def _overdue(flight: Flight) -> ReauthError:
    return RefreshError(
        f"The refresh has been running for more than {flight.overdue - flight.started:g} s (refresh_timeout) and could "
        "not be stopped; until it ends, no second one starts, and requests that need its token fail like this one. "
        "Give the refresh a shorter timeout of its own."
    )


def _out_of_patience() -> ReauthError:
    return RefreshError(
        "This call has waited for as long as it may (refresh_timeout). The refresh that it waits for began later, or "
        "has more time, and goes on without it."
    )
