"""Many users in one process: one live auth object for each, made when it is first asked for.

1. **One object for each key.** As long as anybody holds an object, it is found (a weak reference). The pool itself
   holds the `maxsize` objects that were used last; the others leave, the least recently used one first.
2. `make` runs without any lock. If two threads make an object for one key, the one that is registered first counts for
   both; the other object is dropped, and nobody has seen it.
3. An object with work left does not leave: a refresh is under way, or its storage does not know of a renewal, a sign-in
   or a sign-out yet. Each use of the pool looks at a few objects, and tries at most one late save.
4. An object that has left and is still held comes back when its store changes: the refresh that its holder starts
   would go on without the object, and a second object would start a second one.
5. What a server has refused is remembered for longer than the object: for each key, which refresh token was spent last
   in vain (as a hash), the error, and when it may be spent again; and where the API refused fresh tokens. A sign-in or
   a sign-out ends that.
6. Disconnecting signs out first and forgets the object then, unless somebody has signed in in between.

Everything that the pool knows is guarded by the one lock of all stores. It is held for some operations on dicts only,
and a `fork` knows how to handle it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from inspect import iscoroutinefunction
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar, cast
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

_LOOKS = 8  # objects that one use of the pool looks at, to let them go: as many users may have work left
_AT_ONCE = 32  # objects that `close` waits for side by side: saving a token takes a thread for each
_MEMORIES = 4  # times `maxsize`: of how many users the pool remembers what was refused


class ReauthPool(Unpicklable, Generic[KeyT, AuthT]):
    """One live auth object for each user of a service; one client serves them all.

    `client.get(url, auth=pool["user-42"])`, however many clients there are: all requests of a user share one object,
    and so one refresh.

    The pool keeps at least the `maxsize` objects that were used last. An object that has left is made anew by `make`
    when it is asked for again, so `make` must give a `storage` or a refresh that finds the token again. An object with
    a refresh under way stays, and so does one whose token could not be saved yet. An object that has left is found
    again while anybody holds it: two objects for one user are never in use. What a server has refused stays refused,
    also when the object is made anew.

    Thread-safe. Has no thread of its own.

    Args:
        make: `make(key)` returns the auth object of that user, e.g.
            `lambda user: Reauth(grant, storage=RedisStorage(client, key=f"app:token:{user}"))`. What it raises goes
            to the caller who asked for that user, and the next caller tries again. It should only construct: the
            caller waits for it. Two threads may call it for one user at the same time; one of the two objects is used.
        maxsize: how many objects to keep, at least 1.

    Raises:
        ValueError: `maxsize` is less than 1.
        TypeError: `make` is no function, or a coroutine function.
    """

    __module__ = "httpx_reauth"

    def __init__(self, make: Callable[[KeyT], AuthT], *, maxsize: int) -> None:
        if not callable(cast("object", make)) or iscoroutinefunction(make):
            raise TypeError(
                f"make must be a plain function that returns a Reauth; {type(make).__name__} was given, or an `async "
                "def`. Write `def make(user): return Reauth(...)`: it only constructs, so there is nothing to await."
            )
        if maxsize < 1:
            raise ValueError("maxsize must be 1 or more.")
        self.maxsize = maxsize
        self._make = make
        self._alive: WeakValueDictionary[KeyT, AuthT] = WeakValueDictionary()
        self._kept: OrderedDict[KeyT, AuthT] = OrderedDict()  # the last one used is kept at the end
        self._memories: OrderedDict[KeyT, _Memory] = OrderedDict()  # the last one that changed or was asked, at the end

    def __getitem__(self, key: KeyT) -> AuthT:
        """The live object for `key`, made if there is none."""
        auth = self._use(key)
        if auth is None:
            made = self._make(key)
            if not isinstance(cast("object", made), TokenSource):
                raise TypeError(f"make must return a Reauth, not {type(made).__name__}.")
            auth = self._use(key, made)
            assert auth is not None
        return auth

    def disconnect(self, key: KeyT) -> None:
        """Sign that user out, in the storage as well, and forget the object. `del pool[key]` is the same.

        Blocks until the storage is cleared; in async code, `await pool.adisconnect(key)`. An object that has left is
        made once more, so that the token is cleared in any case. Whoever still holds the object holds one that is
        signed out. If somebody signs that user in meanwhile, the object stays.

        Raises:
            StorageError, RefreshError: the storage still holds the token; try again. The object stays.
            KeyError: as `make` has it, for a user that it does not know.
        """
        auth = self[key]
        auth.sign_out()
        self._forget(key, auth)

    async def adisconnect(self, key: KeyT) -> None:
        """`disconnect` for async code: waits without blocking the event loop."""
        auth = self[key]
        await auth.asign_out()
        self._forget(key, auth)

    def __delitem__(self, key: KeyT) -> None:
        """`pool.disconnect(key)`."""
        self.disconnect(key)

    def __contains__(self, key: object) -> bool:
        """Is there a live object for `key` now?"""
        with LOCK:
            return key in self._alive

    def __len__(self) -> int:
        """How many objects are alive: those that the pool keeps, and those that have left but are still held."""
        with LOCK:
            return len(self._alive)

    def __iter__(self) -> Iterator[KeyT]:
        """The keys of the objects that are alive now: a snapshot."""
        with LOCK:
            return iter(list(self._alive))

    def close(self) -> None:
        """Wait for all refreshes under way, and save what could not be saved so far; cancels nothing.

        Afterwards the pool works as before.
        """
        run_steps(self._settle(is_async=False))

    async def aclose(self) -> None:
        """`close` for async code. Leave by it: a coroutine refresh lives only as long as its event loop."""
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
        """The live object for `key`, `made` if there is none; it is kept, and idle ones leave if there are too many."""
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
        """Tie `made` to this pool, and tell it where the API has refused fresh tokens."""
        store, memory = made.store, self._memories.get(key, _NOTHING)
        store._membership = _Membership(self, key, made)
        if not store._state.places:
            store._state = replace(store._state, replays=memory.replays, places=memory.places)
        return made

    def _keep(self, key: KeyT, auth: AuthT) -> list[AuthT]:
        """Keep `auth`, which is used now, and let idle objects go if there are too many.

        Returns the objects that were looked at, so that they are freed outside of the lock.
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
        """The store of `auth` has changed: somebody uses it, though it may have left or may have been forgotten."""
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
    """What ties an object's store to its pool (rules 4 and 5)."""

    __slots__ = ("_auth", "_key", "_pool")

    def __init__(self, pool: ReauthPool[KeyT, AuthT], key: KeyT, auth: AuthT) -> None:
        self._pool = ref(pool)
        self._key = key
        self._auth = ref(auth)

    def learn(self, state: State, action: object, /) -> None:
        """The state has become `state` by `action`. The lock of all stores is held."""
        if (pool := self._pool()) is None:
            return
        memory = pool._memories.pop(self._key, _NOTHING)
        if isinstance(action, (SignedIn, SignedOut, RefreshFulfilled)):
            memory = _NOTHING
        elif isinstance(action, RefreshRejected) and action.asked is not None and not is_due_elsewhere(action.error):
            error = copy_for_waiter(action.error)
            error.__cause__ = None  # whose frames would be kept as well
            retry_at = inf if is_final(error) else action.retry_at
            memory = _Memory(_hash(action.asked), Refusal(error, action.failures, retry_at))
        memory = replace(memory, replays=state.replays, places=state.places)
        if memory != _NOTHING:
            pool._memories[self._key] = memory
            while len(pool._memories) > _MEMORIES * pool.maxsize:
                pool._memories.popitem(last=False)

    def come_back(self) -> None:
        """The state has changed, so the object is in use, though the pool may have let it go."""
        pool, auth = self._pool(), self._auth()
        if pool is not None and auth is not None:
            pool._come_back(self._key, auth)

    def refusal_of(self, token: Token, /) -> Refusal | None:
        """How the last refresh that spent `token` failed, if it did."""
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
    """What a server refused to one user.

    Attributes:
        token: a hash of the refresh token that was spent last in vain.
        refusal: how that ended.
        replays, places: where fresh tokens were refused, as in the state.
    """

    token: int | None = None
    refusal: Refusal | None = None
    replays: BackOff = NO_BACK_OFF
    places: Mapping[Place, BackOff] = field(default_factory=lambda: NO_PLACES)


_NOTHING = _Memory()


def _hash(token: Token) -> int:
    """What tells a refresh token from the next one: Python's own hash, since no secret is to be kept for that."""
    return hash(token.refresh_token or token.access_token)


def _manager(auth: TokenSource) -> TokenManager:
    return auth._manager


def _has_work_left(auth: TokenSource) -> bool:
    """Has it a refresh under way, or does its storage not know yet what has happened?"""
    state = auth.store._state
    return bool(state.pending_write) or (state.flight is not None and has_workers(auth.store))


def _is_done(auth: TokenSource) -> bool:
    """Is it signed out, and has it no work left?"""
    return auth.store._state.token is None and not _has_work_left(auth)


def _save_one(seen: list[AuthT]) -> None:
    """Try once more, in the background, to save a token that could not be saved: its object could leave then."""
    for auth in seen:
        manager, state = _manager(auth), auth.store._state
        if state.flight is None and manager.save_if_due(state, manager.clock.monotonic()):
            return
