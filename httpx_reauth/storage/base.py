"""What a storage is: where a token outlives the process."""

from __future__ import annotations

from contextlib import AbstractContextManager
from inspect import iscoroutinefunction
from typing import Protocol, runtime_checkable

from httpx_reauth._token import Token

CIPHERTEXT = "Fernet"  # the `token_type` of what EncryptedStorage keeps in the storage that it wraps

_FUNCTIONS = ("load", "save", "clear", "try_lock")
_WHAT_IT_IS = "storage must be a Storage (something with load, save, clear and try_lock)"


@runtime_checkable
class Storage(Protocol):
    """Where one token is kept, for several processes or for the next one.

    Plain functions, which may block: they are called while refreshing, signing in or out, never on the thread of an
    event loop. What goes wrong is raised as a `StorageError`.

    One function more is optional: `set_aside() -> bool`. It is called under the lock, when somebody signs in or out
    and `save` or `clear` has failed. If what is held is damaged, it moves that out of the way and returns True; then
    the sign-in or sign-out is tried again. A refresh never calls it.
    """

    def load(self) -> Token | None:
        """The token that is held, or None if there is none (never one, or signed out).

        May be called at any time, by several threads, also while another thread or process holds the lock.
        """
        ...

    def save(self, token: Token) -> None:
        """Hold `token` from now on, durably: once this returns, a crash does not lose it. The lock is held."""
        ...

    def clear(self) -> None:
        """Hold no token from now on. The lock is held."""
        ...

    def try_lock(self, lease: float) -> AbstractContextManager[object] | None:
        """The lock, unless somebody holds it: one holder at a time, over all that share the token.

        It does not wait. The caller looks at what is held meanwhile (`load`), and tries again.

        Args:
            lease: for how many seconds the holder may need the lock. A lock that does not end with its holder ends by
                itself after that time, and not earlier.

        Returns:
            A context to be entered and left, perhaps by another thread; leaving it gives the lock back. None: somebody
            else holds the lock.

        Raises:
            StorageError: the lock is broken or out of reach. The refresh fails at once.
        """
        ...


def check_storage(storage: object, instead: str = "") -> None:
    """Raise a `TypeError` that says what to write, if `storage` is no storage: a class, a path, `async` functions.

    Args:
        storage: what was given.
        instead: what to write for it, if the caller knows.
    """
    if isinstance(storage, type):
        raise TypeError(f"{_WHAT_IT_IS}, not the class {storage.__name__}. Make one: storage={storage.__name__}(...).")
    if not isinstance(storage, Storage):
        lacking = [name for name in _FUNCTIONS if not callable(getattr(storage, name, None))]
        if isinstance(storage, str) or hasattr(storage, "__fspath__"):
            instead = "For a file, write storage=FileStorage(path)."
        said = f"{_WHAT_IT_IS}, not {type(storage).__name__}, which lacks {', '.join(lacking)}. {instead}"
        raise TypeError(said.rstrip())
    for name in _FUNCTIONS:
        if iscoroutinefunction(getattr(storage, name)):
            raise TypeError(
                f"{type(storage).__name__}.{name} must be a plain function, not `async def`: a storage is called in a "
                "thread, where it may block. Use the package's sync client there."
            )
