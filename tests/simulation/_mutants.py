"""Known bugs: each takes the place of something in the library, and the simulation must find it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from typing import Any
from unittest import mock

import httpx_reauth._pool
import httpx_reauth._request.origins
import httpx_reauth._state.policy
import httpx_reauth._state.reduce
import httpx_reauth._state.store
import httpx_reauth._token
import httpx_reauth._tokens._refresh.loops
import httpx_reauth._tokens._refresh.renewal
import httpx_reauth._tokens.manager
import httpx_reauth.storage.redis
from httpx_reauth import RefreshFulfilled, RefreshPending, RefreshRejected
from httpx_reauth._state.reduce import reduce
from httpx_reauth._token import Token
from httpx_reauth._tokens._refresh.loops import AsyncioLoop
from httpx_reauth._tokens._refresh.renewal import Renewal
from httpx_reauth._tokens._refresh.signal import Signal
from httpx_reauth.storage import RedisStorage

from ._primitives import FLIGHTS, get_ident
from ._redis import DELETE
from ._storage import SimStorage

Mutant = Callable[[], "list[Any]"]

_is_stale, _renewed = httpx_reauth._state.reduce.is_stale, Token.renewed
_start, _async_wait = AsyncioLoop.start, Signal.async_wait
_write, _try_lock, _give_back = RedisStorage._write, RedisStorage.try_lock, RedisStorage._give_back
_keep = httpx_reauth._pool.ReauthPool._keep


def everybody_is_elected() -> list[Any]:
    """The store says yes to each who wants to refresh."""

    def is_stale(state: Any, action: Any) -> bool:
        return not isinstance(action, RefreshPending) and _is_stale(state, action)

    return [mock.patch.object(httpx_reauth._state.reduce, "is_stale", is_stale)]


def late_answers_count() -> list[Any]:
    """An answer counts, though a sign-in has superseded its flight."""

    def forgetful(state: Any, action: Any) -> Any:
        if isinstance(action, (RefreshFulfilled, RefreshRejected)):
            state = state._replace(phase="pending", flight=action.flight)
        return reduce(state, action)

    return [mock.patch.object(httpx_reauth._state.store, "reduce", forgetful)]


def rotated_token_is_not_kept() -> list[Any]:
    """The answer's refresh token is dropped for the old one."""

    def renewed(self: Token, answer: Token, now: float) -> Token:
        return replace(_renewed(self, answer, now), refresh_token=self.refresh_token or answer.refresh_token)

    return [mock.patch.object(Token, "renewed", renewed)]


def refresh_is_a_child_of_its_leader() -> list[Any]:
    """Whoever has started the refresh takes it along when it is cancelled."""

    def start(self: AsyncioLoop, run: Any, context: Any, on_end: Any) -> object:
        task: Any = _start(self, run, context, on_end)
        task.leader = asyncio.current_task()
        return task

    async def async_wait(self: Signal, seconds: float) -> None:
        try:
            await _async_wait(self, seconds)
        except asyncio.CancelledError:
            for flight in [one for one in FLIGHTS.values() if one.settled is self]:
                task: Any = flight.worker._runs_on
                if getattr(task, "leader", None) is asyncio.current_task():
                    task.cancel()
            raise

    return [mock.patch.object(AsyncioLoop, "start", start), mock.patch.object(Signal, "async_wait", async_wait)]


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

    def renew(self: Renewal, last: Any, at: Any) -> Any:
        token, at, ended = yield from self._ask(last, at)
        self._publish(token, at, ended=ended)

    return [mock.patch.object(Renewal, "_renew", renew)]


def no_back_off() -> list[Any]:
    """A refresh that failed is tried again at once."""
    return [mock.patch.object(httpx_reauth._state.policy, "back_off", return_value=0.0)]


def any_origin() -> list[Any]:
    """The token goes wherever a request goes."""
    return [
        mock.patch.object(httpx_reauth._request.origins.Origins, "may_go_to", lambda self, _url, _prefix: (True, self))
    ]


def flights_are_never_settled() -> list[Any]:
    """Nobody who waits for a flight hears of its outcome."""

    def publish(self: Renewal, *_: Any, **__: Any) -> None:
        self._flight.worker.finished.is_set = False

    return [mock.patch.object(Renewal, "_publish", publish)]


def wall_clock_counts() -> list[Any]:
    """Deadlines are counted by the wall clock."""

    def deadline_of(token: Token, at: Any) -> float:
        return inf if token.expires_at is None else token.expires_at - 1_700_000_000.0 + 1_000.0

    return [mock.patch.object(httpx_reauth._state.policy, "deadline_of", deadline_of)]


def sends_without_a_token() -> list[Any]:
    """A request whose refresh failed goes out as it is."""
    original = httpx_reauth._tokens.manager.TokenManager.token

    def token(self: Any, **how: Any) -> Any:
        try:
            return (yield from original(self, **how))
        except httpx_reauth.ReauthError:
            return Token("")

    return [mock.patch.object(httpx_reauth._tokens.manager.TokenManager, "token", token)]


def late_answers_are_dropped() -> list[Any]:
    """What a coroutine answers after a tenth of its time is dropped, as if it had been stopped."""
    original = Renewal._publish

    def publish(self: Any, token: Any, at: Any, **how: Any) -> None:
        worker = self._flight.worker
        if worker.time_left() <= 0.9 * (worker.deadline - worker.started):
            raise httpx_reauth._tokens._refresh.loops.Stopped
        original(self, token, at, **how)

    return [mock.patch.object(Renewal, "_publish", publish)]


def requests_go_over_to_the_next_session() -> list[Any]:
    """A request that began in one session goes on with the token of the next."""
    policy = httpx_reauth._state.policy
    return [mock.patch.object(policy, "takes_over", lambda _began, state: state.current is not None)]


def written_without_a_comparison() -> list[Any]:
    """A write to Redis is compared with what is there now, not with what was there when the lease was taken."""

    def write(self: RedisStorage, _expected: bytes, text: str, seconds: int) -> None:
        _write(self, self._read(), text, seconds)

    return [mock.patch.object(RedisStorage, "_write", write)]


def released_though_lost() -> list[Any]:
    """A holder that has lost its lease deletes the lease of the next holder."""
    return [mock.patch.object(httpx_reauth.storage.redis, "GIVE_BACK", DELETE)]


def lost_reply_keeps_the_lease() -> list[Any]:
    """A lease whose reply was lost is not given back."""
    taking: set[int] = set()

    def try_lock(self: RedisStorage, lease: float) -> Any:
        taking.add(get_ident())
        try:
            return _try_lock(self, lease)
        finally:
            taking.discard(get_ident())

    def give_back(self: RedisStorage) -> None:
        if get_ident() not in taking:
            _give_back(self)

    patch = mock.patch.object
    return [patch(RedisStorage, "try_lock", try_lock), patch(RedisStorage, "_give_back", give_back)]


def pool_forgets_refusals() -> list[Any]:
    """A new object knows nothing of what was refused to the one before."""

    def refusal_of(_self: Any, _token: Token) -> None:
        return None

    return [mock.patch.object(httpx_reauth._pool._Membership, "refusal_of", refusal_of)]


def pool_lets_go_what_has_work_left() -> list[Any]:
    """An object leaves the pool though its refresh is under way, or its storage does not know its sign-out yet."""

    def has_work_left(_auth: Any) -> bool:  # a mock would keep the objects alive
        return False

    return [mock.patch.object(httpx_reauth._pool, "_has_work_left", has_work_left)]


def pool_makes_a_second_object() -> list[Any]:
    """An object that is in use, but was pushed out of the pool, is made once more."""

    def keep(self: Any, key: Any, auth: Any) -> Any:
        seen = _keep(self, key, auth)
        for one in set(self._alive) - set(self._kept):
            del self._alive[one]
        return seen

    return [mock.patch.object(httpx_reauth._pool.ReauthPool, "_keep", keep)]


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
    flights_are_never_settled: 100,
    wall_clock_counts: 600,
    sends_without_a_token: 100,
    late_answers_are_dropped: 600,
    requests_go_over_to_the_next_session: 600,
    written_without_a_comparison: 1_000,
    released_though_lost: 1_000,
    lost_reply_keeps_the_lease: 600,
    pool_forgets_refusals: 2_000,
    pool_lets_go_what_has_work_left: 300,
    pool_makes_a_second_object: 100,
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
