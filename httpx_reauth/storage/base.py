"""The protocol of a storage, which saves a token beyond the end of the process."""

from __future__ import annotations

from contextlib import AbstractContextManager
from inspect import iscoroutinefunction
from typing import Protocol, runtime_checkable

from httpx_reauth._token import Token

CIPHERTEXT = "Fernet"  # the `token_type` of the token that EncryptedStorage saves in its inner storage

_FUNCTIONS = ("load", "save", "clear", "try_lock")
_WHAT_IT_IS = "storage must be a Storage (something with load, save, clear and try_lock)"


@runtime_checkable
class Storage(Protocol):
    """Saves one token, for several processes or for the next run of a program.

    The functions are plain functions and may block. The library calls them during a refresh, a sign-in or a sign-out,
    never on the thread of an event loop. A function that fails raises a `StorageError`.

    One more function is optional: `set_aside() -> bool`. The library calls `set_aside` under the lock, if somebody
    signs in or out and the storage cannot be read or written. If the stored document is damaged, `set_aside` moves the
    document to another place and returns True; then the failed call is tried again. A refresh never calls `set_aside`.
    """

    def load(self) -> Token | None:
        """Return the stored token; None if there is none, because no token was saved yet or somebody signed out.

        Several threads may call `load` at any time, even while another thread or process holds the lock.
        """
        ...

    def save(self, token: Token) -> None:
        """Save `token` durably, so that a crash after this call does not lose it. The caller holds the lock."""
        ...

    def clear(self) -> None:
        """Delete the stored token. The caller holds the lock."""
        ...

    def try_lock(self, lease: float) -> AbstractContextManager[object] | None:
        """Take the lock, if it is free. Of all threads and processes that share the token, only one can hold it.

        `try_lock` does not wait. The caller tries again later, and calls `load` meanwhile.

        Args:
            lease: the number of seconds for which the caller may need the lock. If the lock survives a crash of its
                holder, it must expire after this time, and not earlier.

        Returns:
            A context manager: `__exit__` releases the lock. Another thread may call `__enter__` and `__exit__`. None:
            another thread or process holds the lock.

        Raises:
            StorageError: the lock does not work, or cannot be reached. The refresh fails immediately.
        """
        ...


def check_place(name: str, value: object) -> None:
    """Raise an error if `value`, the setting `name` of a storage, is not a string or is empty.

    Raises:
        TypeError: `value` is not a string.
        ValueError: `value` is empty.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}. Was an environment variable not set?")
    if not value:
        raise ValueError(f"{name} is empty. Was an environment variable not set?")


def check_storage(storage: object, instead: str = "") -> None:
    """Raise a `TypeError` if `storage` is not a storage: if it is a class or a path, or has `async` functions.

    Args:
        storage: the argument to check.
        instead: for the message: the right argument, if the caller knows it.
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
