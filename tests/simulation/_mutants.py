"""Known bugs: each takes the place of something in the library, and the simulation must find it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from typing import Any
from unittest import mock

import httpx_reauth._request.auth
import httpx_reauth._state.policy
import httpx_reauth._state.state
import httpx_reauth._state.store
import httpx_reauth._token
import httpx_reauth._tokens._refresh.flight
import httpx_reauth._tokens._refresh.loops
import httpx_reauth._tokens._refresh.renewal
import httpx_reauth._tokens._refresh.sync
import httpx_reauth._tokens.manager
from httpx_reauth import RefreshFulfilled, RefreshPending, RefreshRejected
from httpx_reauth._state.state import reduce
from httpx_reauth._state.store import TokenStore
from httpx_reauth._token import Token
from httpx_reauth._tokens._refresh.flight import Flight
from httpx_reauth._tokens._refresh.loops import AsyncioLoop
from httpx_reauth._tokens._refresh.sync import Keeper

from ._storage import SimStorage

Mutant = Callable[[], "list[Any]"]

_dispatch, _renewed = TokenStore.dispatch, Token.renewed
_start, _async_wait = AsyncioLoop.start, Flight.async_wait


def everybody_is_elected() -> list[Any]:
    """The store says yes to each who wants to refresh."""

    def dispatch(self: TokenStore, action: Any) -> bool:
        return _dispatch(self, action) or isinstance(action, RefreshPending)

    return [mock.patch.object(TokenStore, "dispatch", dispatch)]


def late_answers_count() -> list[Any]:
    """An answer counts, though its flight has been overtaken by a sign-in."""

    def forgetful(state: Any, action: Any) -> Any:
        if isinstance(action, (RefreshFulfilled, RefreshRejected)):
            state = replace(state, status="pending", flight=action.flight)
        return reduce(state, action)

    return [mock.patch.object(httpx_reauth._state.store, "reduce", forgetful)]


def rotated_token_is_not_kept() -> list[Any]:
    """The answer's refresh token is dropped for the old one."""

    def renewed(self: Token, answer: Token, now: float) -> Token:
        return replace(_renewed(self, answer, now), refresh_token=self.refresh_token or answer.refresh_token)

    return [mock.patch.object(Token, "renewed", renewed)]


def refresh_is_a_child_of_its_leader() -> list[Any]:
    """Whoever has started the refresh takes it along when it is cancelled."""

    def start(self: AsyncioLoop, run: Any, context: Any, ended: Any) -> object:
        task: Any = _start(self, run, context, ended)
        task.leader = asyncio.current_task()
        return task

    async def async_wait(self: Any, **how: Any) -> None:
        try:
            await _async_wait(self, **how)
        except asyncio.CancelledError:
            if getattr(self.keep, "leader", None) is asyncio.current_task():
                self.keep.cancel()
            raise

    return [mock.patch.object(AsyncioLoop, "start", start), mock.patch.object(Flight, "async_wait", async_wait)]


def lock_is_not_taken() -> list[Any]:
    """Nobody waits for the storage's lock."""

    @contextmanager
    def hold(self: SimStorage) -> Iterator[None]:
        self._vault.holder, before = self._home, self._vault.holder
        yield
        self._vault.holder = before

    return [mock.patch.object(SimStorage, "try_lock", lambda self, _lease: hold(self))]


def saved_after_publishing() -> list[Any]:
    """The token is published first, and then its process dies."""
    sync = httpx_reauth._tokens._refresh.sync

    def renew(self: Keeper, flight: Any, basis: Any, clock: Any, ask: Any, publish: Any) -> Any:
        until = flight.overdue
        lock, _ = yield from sync.acquire_lock(self.storage, flight, until=until, is_over=lambda: False)
        try:
            found = yield from self._next(flight, basis, clock, ask)
            publish(found.token, found.at, adopted=found.is_adopted)
        finally:
            sync.leave(lock)

    return [mock.patch.object(Keeper, "renew", renew)]


def no_back_off() -> list[Any]:
    """A refresh that failed is tried again at once."""
    return [mock.patch.object(httpx_reauth._state.policy, "back_off", return_value=0.0)]


def any_origin() -> list[Any]:
    """The token goes wherever a request goes."""
    return [mock.patch.object(httpx_reauth._request.auth.ReauthBase, "may_go_to", return_value=True)]


def flights_never_land() -> list[Any]:
    """Nobody who waits for a flight hears of its end."""
    return [mock.patch.object(Flight, "land"), mock.patch.object(Flight, "end")]


def wall_clock_counts() -> list[Any]:
    """Deadlines are counted by the wall clock."""

    def deadline_of(token: Token, at: Any) -> float:
        return inf if token.expires_at is None else token.expires_at - 1_700_000_000.0 + 1_000.0

    return [mock.patch.object(httpx_reauth._state.policy, "deadline_of", deadline_of)]


def sends_without_a_token() -> list[Any]:
    """A request whose refresh failed goes out as it is."""
    original = httpx_reauth._request.auth.ReauthBase.token_for

    def token_for(self: Any, request: Any, **how: Any) -> Any:
        try:
            return (yield from original(self, request, **how))
        except httpx_reauth.ReauthError:
            return Token("")

    return [mock.patch.object(httpx_reauth._request.auth.ReauthBase, "token_for", token_for)]


def late_answers_are_dropped() -> list[Any]:
    """What a coroutine answers after a tenth of its time is dropped, as if it had been stopped."""
    original = httpx_reauth._tokens._refresh.renewal.Renewal._publish

    def publish(self: Any, token: Any, at: Any, **how: Any) -> None:
        if self._flight.time_left() <= 0.9 * (self._flight.overdue - self._flight.started):
            raise httpx_reauth._tokens._refresh.loops.Stopped
        original(self, token, at, **how)

    return [mock.patch.object(httpx_reauth._tokens._refresh.renewal.Renewal, "_publish", publish)]


# Each mutant, and within how many seeds it must be found.
MUTANTS: dict[Mutant, int] = {
    everybody_is_elected: 600,
    late_answers_count: 600,
    rotated_token_is_not_kept: 100,
    refresh_is_a_child_of_its_leader: 600,
    lock_is_not_taken: 300,
    saved_after_publishing: 600,
    no_back_off: 300,
    any_origin: 300,
    flights_never_land: 100,
    wall_clock_counts: 600,
    sends_without_a_token: 100,
    late_answers_are_dropped: 600,
}


@contextmanager
def mutated(mutant: Mutant) -> Iterator[None]:
    """The library with this bug."""
    patches = mutant()
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()
