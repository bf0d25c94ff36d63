"""The pool of one process, and checks of the objects that it returns and removes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import ref

from httpx_reauth import Reauth, ReauthPool, Token

if TYPE_CHECKING:
    from ._world import Process

USER, OTHER = "user", "other"
_PUSHES = 0.4  # how often somebody else uses the pool, before and after each use


class Pool:
    """A `ReauthPool` with room for one object: other users push the one user of this world out of it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._kernel = process.world.kernel
        self._pool: ReauthPool[str, Reauth] = ReauthPool(self._make, maxsize=1)
        self._given: list[ref[Reauth]] = []  # the user's objects that somebody got
        self._made: list[ref[Reauth]] = []
        self._disconnecting = 0  # how many do so now
        self._disconnected = 0  # how often somebody has done so

    def get(self) -> Reauth:
        """The user's object. As long as anybody uses it and nobody disconnects, every call gets the same object."""
        self._push_out()
        disconnected = self._disconnected
        auth = self._pool[USER]
        self._push_out()  # and yet it is in use
        if not self._disconnecting and disconnected == self._disconnected:
            given = [known for known in self._given if known() is not None]
            if any(known() is not auth for known in given):
                self._kernel.fail("two objects of one user are in use")
            self._given = given or [ref(auth)]
        return auth

    @property
    def alive(self) -> list[Reauth]:
        auth = self._pool._alive.get(USER)  # without the lock, which belongs to the process
        return [] if auth is None else [auth]

    def disconnect(self) -> None:
        with self._disconnects():
            self._pool.disconnect(USER)

    async def adisconnect(self) -> None:
        with self._disconnects():
            await self._pool.adisconnect(USER)

    def close(self) -> None:
        self._pool.close()

    async def aclose(self) -> None:
        await self._pool.aclose()

    def _push_out(self) -> None:
        if self._kernel.random.random() < _PUSHES:
            self._pool[OTHER]

    @contextmanager
    def _disconnects(self) -> Iterator[None]:
        self._disconnecting += 1
        try:
            yield
        finally:
            self._disconnecting -= 1
            self._disconnected += 1
            self._given.clear()

    def _make(self, key: str) -> Reauth:
        process, vault = self._process, self._process.world.vault
        if key == OTHER or vault is None:
            return Reauth(_never, clock=process.home)
        self._kernel.note("pool: makes the user's object")
        store = process.store()
        auth = process.make(store, vault.storage(process))

        def is_let_go(_: ref[Reauth]) -> None:
            if process.home.is_dead or self._kernel.is_over:
                return
            flight: Any = store._state.flight
            if store._state.pending_write:
                self._kernel.fail("the pool lets go what the storage does not know yet")
            elif flight is not None and flight.worker.can_finish() and not self._kernel.stalls:
                # With stalls, a thread may start after the deadline. Until then, the refresh is taken for lost.
                self._kernel.fail("the pool lets go an object whose refresh is under way")

        self._made.append(ref(auth, is_let_go))
        return auth


def _never(token: Token) -> Token:
    raise NotImplementedError
