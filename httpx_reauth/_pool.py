"""Many users in one process: one auth object for each user, made at its first use.

1. **One object for each key.** The pool has a weak reference to each object. So it finds the object as long as anybody
   has a reference to it. The pool also has strong references to the `maxsize` objects that were used last. The least
   recently used object is removed first.
2. `make` runs without a lock. If two threads make an object for one key, both use the one that is registered first. The
   other object is dropped, and nobody has seen it.
3. An object with unfinished work is not removed: its refresh is under way, or a renewal, a sign-in or a sign-out must
   still be written to its storage. Each use of the pool looks at a few objects, and tries at most one late save.
4. An object that was removed, but is still referenced, is put back into the pool when its store changes. Otherwise it
   could be collected during a refresh, and a second object would start a second refresh.
5. The pool remembers the refusals of servers for longer than the object. For each key, the pool remembers the refresh
   token of the last refresh that failed (as a hash), the error, and the time from which the next refresh may start. The
   pool also remembers the places of the API that refused fresh tokens. A sign-in or a sign-out deletes these facts.
6. `disconnect` first signs out, and then removes the object, unless somebody has signed in meanwhile.

The one lock of all stores guards the data of the pool. The pool holds this lock only during some operations on dicts. A
`fork` takes it, too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from inspect import iscoroutinefunction
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from weakref import WeakValueDictionary, ref

from httpx_reauth._errors import copy_for_waiter, is_due_elsewhere, is_final
from httpx_reauth._state.actions import Place, RefreshFulfilled, RefreshRejected, SignedIn, SignedOut
from httpx_reauth._state.membership import Refusal
from httpx_reauth._state.state import NO_BACK_OFF, NO_PLACES, BackOff, State
from httpx_reauth._state.store import LOCK
from httpx_reauth._token import Token, Unpicklable
from httpx_reauth._tokens.manager import TokenManager, has_workers
from httpx_reauth._tokens.sessions import close
from httpx_reauth._tokens.source import TokenSource
from httpx_reauth._tokens.steps import arun_steps, run_steps

if TYPE_CHECKING:
    from typing_extensions import Self

    from httpx_reauth._tokens.manager import WaitFor

KeyT = TypeVar("KeyT", bound=Hashable)
AuthT = TypeVar("AuthT", bound=TokenSource)

_LOOKS = 8  # objects that one use of the pool checks for removal; some may have unfinished work
_AT_ONCE = 32  # objects for which `close` waits at the same time; each may need a thread, to save its token
_MEMORIES = 4  # the pool remembers the refusals of `maxsize` times this number of users


class ReauthPool(Unpicklable, Generic[KeyT, AuthT]):
    """One auth object for each user of a service; all users share one client.

    Write `client.get(url, auth=pool["user-42"])`. All requests of a user share one auth object, in any number of
    clients. So they share one refresh.

    The pool keeps at least the `maxsize` objects that were used last. Older objects are removed, but no object whose
    refresh is under way or whose token could not be saved yet. If the user of a removed object comes back, `make` makes
    a new object. So `make` must give a `storage`, or a refresh that finds the token again. If anybody still has a
    reference to the removed object, the pool returns that object: so no two objects for one user are in use. The pool
    remembers the refusals of a server for the new object.

    The pool is thread-safe. An idle pool has no thread.

    Args:
        make: `make(key)` returns the auth object of that user, e.g.
            `lambda user: Reauth(grant, storage=RedisStorage(client, key=f"app:token:{user}"))`. If `make` raises an
            error, `pool[key]` raises it, and the next use calls `make` again. `make` should not be slow, since the
            caller waits. Two threads may call `make` for one user at the same time; one of the two objects is used.
        maxsize: the number of objects to keep, at least 1.

    Raises:
        ValueError: `maxsize` is less than 1.
        TypeError: `make` is not a function, or is a coroutine function. Or `maxsize` is not a whole number.
    """

    __module__ = "httpx_reauth"

    def __init__(self, make: Callable[[KeyT], AuthT], *, maxsize: int) -> None:
        if not callable(cast("object", make)) or iscoroutinefunction(make):
            raise TypeError(
                f"make must be a plain function that returns a Reauth; {type(make).__name__} was given, or an `async "
                "def`. Write `def make(user): return Reauth(...)`: it only constructs, so there is nothing to await."
            )
        if isinstance(maxsize, bool) or not isinstance(cast("object", maxsize), int):
            raise TypeError(f"maxsize must be a whole number, not {type(maxsize).__name__}. Write, e.g., 10_000.")
        if maxsize < 1:
            raise ValueError("maxsize must be 1 or more.")
        self.maxsize = maxsize
        self._make = make
        self._alive: WeakValueDictionary[KeyT, AuthT] = WeakValueDictionary()
        self._kept: OrderedDict[KeyT, AuthT] = OrderedDict()  # the object used last is at the end
        self._memories: OrderedDict[KeyT, _Memory] = OrderedDict()  # the entry changed or read last is at the end

    def __getitem__(self, key: KeyT) -> AuthT:
        """Return the auth object for `key`; `make` makes it if there is none."""
        auth = self._use(key)
        if auth is None:
            made = self._make(key)
            if not isinstance(cast("object", made), TokenSource):
                raise TypeError(f"make must return a Reauth, not {type(made).__name__}.")
            auth = self._use(key, made)
            assert auth is not None
        return auth

    def disconnect(self, key: KeyT) -> None:
        """Sign that user out, in the storage as well, and remove the object. `del pool[key]` does the same.

        The call blocks until the storage is cleared. In async code, use `await pool.adisconnect(key)`. If the object
        was removed before, it is made once more, so the storage is cleared in any case. The object is signed out for
        everybody who still has a reference to it. If somebody signs that user in meanwhile, the object stays in the
        pool.

        Raises:
            StorageError, RefreshError: the storage still has the token; try again. The object stays.
            KeyError: `make` raised it, e.g. for a user that it does not know.
        """
        auth = self[key]
        auth.sign_out()
        self._forget(key, auth)

    async def adisconnect(self, key: KeyT) -> None:
        """`disconnect` for async code. It waits without blocking the event loop."""
        auth = self[key]
        await auth.asign_out()
        self._forget(key, auth)

    def __delitem__(self, key: KeyT) -> None:
        """The same as `pool.disconnect(key)`."""
        self.disconnect(key)

    def __contains__(self, key: object) -> bool:
        """Does an object for `key` exist now?"""
        with LOCK:
            return key in self._alive

    def __len__(self) -> int:
        """The number of objects that exist: those in the pool, and removed objects that are still referenced."""
        with LOCK:
            return len(self._alive)

    def __iter__(self) -> Iterator[KeyT]:
        """Iterate over a snapshot of the keys of the objects that exist now."""
        with LOCK:
            return iter(list(self._alive))

    def close(self) -> None:
        """Wait for all refreshes under way, and save the changes that could not be saved so far. Nothing is cancelled.

        Afterwards the pool works as before. If many objects have work left, `close` waits for some of them at a time,
        so it can take several refresh timeouts.
        """
        run_steps(self._settle(is_async=False))

    async def aclose(self) -> None:
        """`close` for async code. Await it before the event loop ends: a coroutine refresh stops with its loop."""
        await arun_steps(self._settle(is_async=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"ReauthPool({len(self)} alive, maxsize={self.maxsize})"

    def _use(self, key: KeyT, made: AuthT | None = None) -> AuthT | None:
        """Return the object for `key`, or `made` if there is none. Mark it as used, and perhaps remove idle objects."""
        with LOCK:
            auth = self._alive.get(key)
            if auth is None and made is not None:
                auth = self._alive[key] = self._enroll(key, made)
            if auth is None:
                return None
            seen = self._keep(key, auth)
        _save_one(seen)
        return auth

    def _enroll(self, key: KeyT, made: AuthT) -> AuthT:
        """Link the store of `made` to this pool, and give it the back-offs of places that the pool remembers."""
        store, memory = made.store, self._memories.get(key, _NOTHING)
        store._membership = _Membership(self, key, made)
        if not store._state.places:
            store._state = store._state._replace(replays=memory.replays, places=memory.places)
        return made

    def _keep(self, key: KeyT, auth: AuthT) -> list[AuthT]:
        """Put `auth` at the end, since it is used now, and remove idle objects if there are too many.

        Returns:
            The objects that were checked. The caller drops them only after it has released the lock.
        """
        kept, seen = self._kept, list[AuthT]()
        kept[key] = auth
        kept.move_to_end(key)
        for _ in range(min(_LOOKS, len(kept) - 1)):
            if len(kept) <= self.maxsize:
                break
            oldest = next(iter(kept))
            seen.append(kept[oldest])
            if _has_work_left(seen[-1]):
                kept.move_to_end(oldest)
            else:
                del kept[oldest]
        return seen

    def _come_back(self, key: KeyT, auth: AuthT) -> None:
        """Put `auth` back into the pool, since its store has changed; but not if `auth` is signed out and idle."""
        with LOCK:
            is_the_one = not _is_done(auth) and self._alive.setdefault(key, auth) is auth
            seen = self._keep(key, auth) if is_the_one else []
        del seen

    def _forget(self, key: KeyT, auth: AuthT) -> None:
        with LOCK:
            if self._alive.get(key) is auth and _is_done(auth):
                del self._alive[key]
                self._kept.pop(key, None)

    def _settle(self, *, is_async: bool) -> Generator[WaitFor, None, None]:
        with LOCK:
            alive = list(self._alive.values())
        busy = [auth for auth in alive if _has_work_left(auth) or has_workers(auth.store)]
        for first in range(0, len(busy), _AT_ONCE):
            plans = [close(_manager(auth), is_async=is_async) for auth in busy[first : first + _AT_ONCE]]
            for plan, begun in [(plan, next(plan, None)) for plan in plans]:
                if begun is not None:
                    yield begun
                    yield from plan


class _Membership(Generic[KeyT, AuthT]):
    """The link from an object's store to its pool (rules 4 and 5)."""

    __slots__ = ("_auth", "_key", "_pool")

    def __init__(self, pool: ReauthPool[KeyT, AuthT], key: KeyT, auth: AuthT) -> None:
        self._pool = ref(pool)
        self._key = key
        self._auth = ref(auth)

    def learn(self, state: State, action: object, /) -> None:
        """Remember the refusals in `state`, the state after `action`. The caller holds the lock of all stores."""
        if (pool := self._pool()) is None:
            return
        memory = pool._memories.pop(self._key, _NOTHING)
        if isinstance(action, (SignedIn, SignedOut, RefreshFulfilled)):
            memory = _NOTHING
        elif isinstance(action, RefreshRejected) and action.asked is not None and not is_due_elsewhere(action.error):
            error = copy_for_waiter(action.error)
            error.__cause__ = None  # the pool would keep its frames as well
            retry_at = inf if is_final(error) else action.retry_at
            memory = _Memory(_hash(action.asked), Refusal(error, action.failures, retry_at))
        memory = replace(memory, replays=state.replays, places=state.places)
        if memory != _NOTHING:
            pool._memories[self._key] = memory
            while len(pool._memories) > _MEMORIES * pool.maxsize:
                pool._memories.popitem(last=False)

    def come_back(self) -> None:
        """Put the object back into its pool: its state has changed, so it is in use."""
        pool, auth = self._pool(), self._auth()
        if pool is not None and auth is not None:
            pool._come_back(self._key, auth)

    def refusal_of(self, token: Token, /) -> Refusal | None:
        """Return the failure of the last refresh that spent `token`; None if no failure is known."""
        if (pool := self._pool()) is None:
            return None
        with LOCK:
            memory = pool._memories.get(self._key, _NOTHING)
            if memory.token != _hash(token):
                return None
            pool._memories.move_to_end(self._key)
            return memory.refusal


@dataclass(frozen=True, slots=True)
class _Memory:
    """The refusals of servers that the pool remembers for one user.

    Attributes:
        token: a hash of the refresh token of the last refresh that failed.
        refusal: the failure of that refresh.
        replays, places: the back-offs of places that refused fresh tokens, as in `State`.
    """

    token: int | None = None
    refusal: Refusal | None = None
    replays: BackOff = NO_BACK_OFF
    places: Mapping[Place, BackOff] = field(default_factory=lambda: NO_PLACES)


_NOTHING = _Memory()


def _hash(token: Token) -> int:
    """Return a hash of the refresh token. The pool compares hashes, since it must not keep the secret."""
    return hash(token.refresh_token or token.access_token)


def _manager(auth: TokenSource) -> TokenManager:
    return auth._manager


def _has_work_left(auth: TokenSource) -> bool:
    """Does a refresh of `auth` run, or must a change still be written to its storage?"""
    state = auth.store._state
    flight: Any = state.flight
    return bool(state.pending_write) or (flight is not None and flight.worker.can_finish())


def _is_done(auth: TokenSource) -> bool:
    """Is `auth` signed out, without a refresh and without a change that must still be written?"""
    state = auth.store._state
    return state.token is None and state.flight is None and not state.pending_write


def _save_one(seen: list[AuthT]) -> None:
    """Start one save that failed before, in the background. After this save, the pool can remove the object."""
    for auth in seen:
        manager, state = _manager(auth), auth.store._state
        if state.flight is None and manager.save_if_due(state, manager.clock.monotonic()):
            return
