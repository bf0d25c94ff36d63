"""Many users in one process: one live auth object for each, made when it is wanted."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar, cast
from weakref import WeakValueDictionary, ref

from httpx_reauth._state.store import LOCK
from httpx_reauth._token import Discreet
from httpx_reauth._tokens._refresh.flight import Flight, under_way
from httpx_reauth._tokens.errands import settle
from httpx_reauth._tokens.manager import Refresher
from httpx_reauth._tokens.source import TokenSource
from httpx_reauth._tokens.steps import arun_steps, run_steps

if TYPE_CHECKING:
    from typing_extensions import Self

    from httpx_reauth._tokens.wait import Wait

KeyT = TypeVar("KeyT", bound=Hashable)
AuthT = TypeVar("AuthT", bound=TokenSource)

_AT_ONCE = 32  # objects that `close` waits for side by side: saving a token takes a thread for each


class ReauthPool(Discreet, Generic[KeyT, AuthT]):
    """One live auth object for each user of a service; one client serves them all.

    `client.get(url, auth=pool["user-42"])`, however many clients there are: all requests of a user share one object,
    and so one refresh.

    The pool keeps `maxsize` objects at least as long as they are used; those that nobody has asked for the longest
    leave first. What has left is made anew by `make` when it is asked for again, so `make` must give a `storage` or a
    refresh that finds the token again. One with a refresh under way stays, and so does one whose token could not be
    saved yet; and while anybody still holds an object that has left, it is found again: two objects for one user are
    never in use.

    Thread-safe; `make` is never called twice at a time for the same key. Has no thread of its own.

    Args:
        make: `make(key)` gives the auth object of that user, e.g.
            `lambda user: Reauth(grant, storage=RedisStorage(client, key=f"app:token:{user}"))`. What it raises goes
            to whoever asked, and the next one who asks tries again. It blocks whoever asks for that key, so it
            should do no more than to construct.
        maxsize: how many objects to keep, at least 1.

    Raises:
        ValueError: `maxsize` is less than 1.
    """

    def __init__(self, make: Callable[[KeyT], AuthT], *, maxsize: int) -> None:
        if maxsize < 1:
            raise ValueError("maxsize must be 1 or more.")
        self.maxsize = maxsize
        self._make = make
        # All under the lock of all stores, which a `fork` knows how to handle. The last one used is kept at the end.
        self._alive: WeakValueDictionary[KeyT, AuthT] = WeakValueDictionary()
        self._kept: OrderedDict[KeyT, AuthT] = OrderedDict()
        self._making: dict[tuple[int, KeyT], _Making] = {}

    def __getitem__(self, key: KeyT) -> AuthT:
        """The live object for `key`, made if there is none."""
        place = (os.getpid(), key)  # what was being made when the process was forked stays in the parent
        while True:
            with LOCK:
                auth = self._alive.get(key)
                if auth is not None:
                    seen = self._keep(key, auth)
                    break
                mine = _Making()
                making = self._making.setdefault(place, mine)
            if making is not mine:
                making.wait()
                continue
            try:
                auth, seen = self._made(key)
            finally:
                del self._making[place]
                mine.over.set()
            break
        _save_again(seen)
        return auth

    def __delitem__(self, key: KeyT) -> None:
        """Disconnect that user: sign out, in the storage as well, and forget the object.

        Blocks until the storage is cleared; in async code, `await pool.adisconnect(key)`. If the object has left for
        being idle, it is made once more, so that the token is cleared in any case. Whoever still holds the object
        holds one that is signed out.

        Raises:
            StorageError, RefreshError: the storage still holds the token; try again. The object stays.
            KeyError: as `make` has it, for a user that it does not know.
        """
        auth = self[key]
        auth.sign_out()
        self._forget(key, auth)

    async def adisconnect(self, key: KeyT) -> None:
        """`del pool[key]` for async code: waits without blocking the event loop."""
        auth = self[key]
        await auth.asign_out()
        self._forget(key, auth)

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

    def _made(self, key: KeyT) -> tuple[AuthT, list[AuthT]]:
        auth = self._make(key)
        if not isinstance(cast("object", auth), TokenSource):
            raise TypeError(f"make must return a Reauth, not {type(auth).__name__}.")
        auth.store.subscribe(_Watch(self, key, auth))
        with LOCK:
            self._alive[key] = auth
            return auth, self._keep(key, auth)

    def _keep(self, key: KeyT, auth: AuthT) -> list[AuthT]:
        """Somebody uses it: keep it, and let idle ones go if there are too many.

        The lock is held; what was looked at is returned, to be dropped outside of it.
        """
        kept = self._kept
        kept[key] = auth
        kept.move_to_end(key)
        seen: list[AuthT] = []
        looks = len(kept) - 1  # not at this one
        while looks and len(kept) > self.maxsize:
            looks -= 1
            oldest = next(iter(kept))
            seen.append(kept[oldest])
            if _is_busy(seen[-1]):
                kept.move_to_end(oldest)
            else:
                del kept[oldest]
        return seen

    def _forget(self, key: KeyT, auth: AuthT) -> None:
        with LOCK:
            if self._alive.get(key) is auth:
                del self._alive[key]
                self._kept.pop(key, None)

    def _settle(self, *, is_async: bool) -> Generator[Wait, None, None]:
        with LOCK:
            busy = [auth for auth in self._alive.values() if _is_busy(auth) or under_way(auth.store)]
        for first in range(0, len(busy), _AT_ONCE):
            plans = [settle(_refresher(auth), is_async=is_async) for auth in busy[first : first + _AT_ONCE]]
            for plan, begun in [(plan, next(plan, None)) for plan in plans]:
                if begun is not None:
                    yield begun
                    yield from plan


class _Making:
    """An object that is being made; `over` is set once that has ended, either way."""

    __slots__ = ("_thread", "over")

    def __init__(self) -> None:
        self.over = threading.Event()
        self._thread = threading.get_ident()

    def wait(self) -> None:
        if self._thread == threading.get_ident():
            raise RuntimeError("make asks the pool for the very object that it is to make.")
        self.over.wait()


class _Watch(Generic[KeyT, AuthT]):
    """A listener: an object that has left, and starts a refresh because somebody still holds it, comes back."""

    __slots__ = ("_auth", "_key", "_pool")

    def __init__(self, pool: ReauthPool[KeyT, AuthT], key: KeyT, auth: AuthT) -> None:
        self._pool = ref(pool)
        self._key = key
        self._auth = ref(auth)

    def __call__(self, *_: object) -> None:
        pool, auth = self._pool(), self._auth()
        if pool is None or auth is None:
            return
        with LOCK:
            seen = pool._keep(self._key, auth) if pool._alive.get(self._key) is auth else []  # pyright: ignore[reportPrivateUsage]
        _save_again(seen)


def _refresher(auth: TokenSource) -> Refresher:
    return auth._refresher  # pyright: ignore[reportPrivateUsage]


def _is_busy(auth: TokenSource) -> bool:
    """Has it a refresh under way, or a token that is not in its storage yet?"""
    state, keeper = auth.store.state, _refresher(auth).keeper
    if isinstance(state.flight, Flight):
        return not state.flight.is_lost()
    return keeper is not None and (bool(state.unsaved) or keeper.must_clear(state))


def _save_again(seen: Iterable[TokenSource]) -> None:
    """Try once more, in the background, to save tokens that could not be saved; the objects could leave then."""
    for auth in seen:
        if (state := auth.store.state).status != "pending":
            _refresher(auth).save_if_due(state, auth.store.clock.monotonic())
