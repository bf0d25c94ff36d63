"""What a storage is: where a token outlives the process (floor 0)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from ._token import Token


@runtime_checkable
class Storage(Protocol):
    """Where one token is kept, for several processes or for the next one.

    Plain functions, which may block: they are called while refreshing, signing in or out, never on the thread of an
    event loop, and by one thread at a time for each `Reauth`. Whatever goes wrong is raised as a `StorageError`.
    """

    def load(self) -> Token | None:
        """The token that is held, or None if there is none (never one, or signed out)."""
        ...

    def save(self, token: Token) -> None:
        """Hold `token` from now on, durably: once this returns, a crash does not lose it. The lock is held."""
        ...

    def clear(self) -> None:
        """Hold no token from now on. The lock is held."""
        ...

    def lock(self, timeout: float) -> AbstractContextManager[object]:
        """A context that only one holder at a time is in, over all threads, processes and hosts that share the token.

        Args:
            timeout: seconds to wait for it when it is entered; after that a `StorageError`.
        """
        ...
