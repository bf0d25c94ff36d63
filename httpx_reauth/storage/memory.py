"""A storage in memory, for several `Reauth` objects of one process, and for tests."""

from __future__ import annotations

from contextlib import AbstractContextManager

from httpx_reauth._token import Token, Unpicklable
from httpx_reauth.storage.locks import ThreadLock


class MemoryStorage(Unpicklable):
    """Saves one token in memory, until the end of the process."""

    __module__ = "httpx_reauth.storage"
    __slots__ = ("_lock", "_token")

    def __init__(self) -> None:
        self._token: Token | None = None
        self._lock = ThreadLock()

    def load(self) -> Token | None:
        """Return the stored token, or None."""
        return self._token

    def save(self, token: Token) -> None:
        """Store `token`."""
        self._token = token

    def clear(self) -> None:
        """Delete the stored token."""
        self._token = None

    def try_lock(self, lease: float) -> AbstractContextManager[object] | None:  # noqa: ARG002 - needs no lease
        """Take the lock between threads; None: a thread holds it. Another thread may release it."""
        return self._lock.try_lock()

    def __repr__(self) -> str:
        return "MemoryStorage()"
