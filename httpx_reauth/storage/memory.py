"""A storage in memory: for several `Reauth` objects of one process, and for tests."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from httpx_reauth._errors import StorageError
from httpx_reauth._token import Discreet, Token
from httpx_reauth.storage.waiting import ThreadLock


class MemoryStorage(Discreet):
    """Holds one token for this process, and forgets it with it."""

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

    @contextmanager
    def lock(self, timeout: float) -> Generator[None, None, None]:
        """A context that one thread at a time is in; another one may leave it.

        Raises:
            StorageError: somebody else was in it for `timeout` seconds.
        """
        if not self._lock.acquire(timeout):
            raise StorageError(f"Another thread has held the lock of this MemoryStorage for {timeout:g} s.")
        try:
            yield
        finally:
            self._lock.release()

    def __repr__(self) -> str:
        return "MemoryStorage()"
