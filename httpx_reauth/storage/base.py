"""What a storage is: where a token outlives the process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeGuard, runtime_checkable

from httpx_reauth._token import Token


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
        """A context that one holder at a time can enter, over all threads, processes and hosts that share the token.

        Args:
            timeout: seconds to wait for it when it is entered; after that a `StorageError`.
        """
        ...


class WatchfulStorage(Storage, Protocol):
    """A storage that a herd can wait for: who waits for its lock looks at what is held, too.

    Of many that want the lock for one renewal, only the first needs it. The others want the token that it saves, and
    for reading one no lock is needed. This function is optional; without it, they take the lock one after another.
    """

    def lock_unless(self, timeout: float, is_enough: Callable[[Token], bool]) -> AbstractContextManager[Token | None]:
        """`lock`; but who has to wait gives up waiting as soon as a token is held that `is_enough`.

        Args:
            timeout: as for `lock`.
            is_enough: says whether a token that is held does, without blocking; it is not asked once the lock is had.

        Returns:
            A context, entered with that token, which holds no lock then; or with None, and it holds the lock.
        """
        ...


def is_watchful(storage: Storage) -> TypeGuard[WatchfulStorage]:
    """Has it a `lock_unless` that fits its `lock`? A subclass that has made only `lock` anew means that one."""
    for one in type(storage).__mro__:
        if "lock_unless" in vars(one):
            return True
        if "lock" in vars(one):
            return False
    return False
