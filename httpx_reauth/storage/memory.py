"""A storage in memory: for several `Reauth` objects of one process, and for tests."""

from __future__ import annotations

from contextlib import AbstractContextManager

from httpx_reauth._token import Token, Unpicklable
from httpx_reauth.storage.locks import ThreadLock


class MemoryStorage(Unpicklable):
    """Holds one token for this process, and forgets it with it."""

    __module__ = "httpx_reauth.storage"
    __slots__ = ("_lock", "_token")

    def __init__(self) -> None:
        self._token: Token | None = None
        self._lock = ThreadLock()

    def load(self) -> Token | None:
        """The token that is held, or None."""
        return self._token

    def save(self, token: Token) -> None:
        """Hold `token` from now on."""
        self._token = token

    def clear(self) -> None:
        """Hold no token from now on."""
        self._token = None

    def try_lock(self, lease: float) -> AbstractContextManager[object] | None:  # noqa: ARG002 - it ends with its holder
        """A context that one thread at a time is in; another one may leave it. None: a thread is in it."""
        return self._lock.try_lock()

    def __repr__(self) -> str:
        return "MemoryStorage()"
