"""Two locks that never wait: one between the threads of this process, and one of the operating system on a file.

The second one needs the package filelock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from httpx_reauth._errors import StorageError

_INSTEAD = (
    "Without it two processes could spend one refresh token: let this user create and write that file, or keep the "
    "token in another folder, on a local disk."
)


class HeldLock:
    """A context manager for a lock that is already taken: its first exit, on any thread, releases the lock."""

    __slots__ = ("__weakref__", "_release")

    def __init__(self, release: Callable[[], object]) -> None:
        self._release: Callable[[], object] | None = release

    @property
    def is_held(self) -> bool:
        """Is the lock still held?"""
        return self._release is not None

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()


class ThreadLock:
    """A lock between the threads of this process. In a forked child it is free, since its holder is in the parent."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}

    def try_lock(self) -> HeldLock | None:
        """Take the lock; None: a thread holds it. Any thread may release it."""
        lock = self._locks.setdefault(os.getpid(), threading.Lock())
        return HeldLock(lock.release) if lock.acquire(blocking=False) else None


def require_filelock(user: str, extra: str) -> Any:
    """Return the package filelock, which the class `user` needs.

    Raises:
        ImportError: filelock is not installed. The message names the extra that installs it.
    """
    try:
        import filelock
    except ImportError as error:
        raise ImportError(f'{user} needs filelock: pip install "httpx-reauth[{extra}]"', name="filelock") from error
    return filelock


def try_os_lock(filelock: Any, path: Path) -> HeldLock | None:
    """Take the lock on the file `path`; None: a process or a thread holds it.

    If the file is missing, it is made. It is not deleted later.

    Args:
        filelock: the package.
        path: the file that is locked; it is empty.

    Raises:
        StorageError: the file cannot be made, or this platform has no locks on files.
    """
    if filelock.FileLock is filelock.SoftFileLock:  # a soft lock would survive a crash of its holder
        raise StorageError(f"The lock {path} cannot be taken: this platform has no locks on files. {_INSTEAD}")
    lock = filelock.FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        if path.exists():
            return None
        # Some file systems (/proc) report that the file is missing. Some versions of filelock then wait for the file.
        raise StorageError(f"The lock {path} cannot be taken: its file cannot be made there. {_INSTEAD}") from None
    except (OSError, RuntimeError, NotImplementedError) as error:
        raise StorageError(f"The lock {path} cannot be taken ({reason(error)}). {_INSTEAD}") from error
    return HeldLock(lock.release)


def make_private_folder(folder: Path) -> list[Path]:
    """Make `folder`, if it is missing; only this user can use it. An existing folder is not changed.

    Returns:
        The folders that were made.

    Raises:
        StorageError: the folder cannot be made.
    """
    if folder.is_dir():
        return []
    try:
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The folder {folder} cannot be made ({reason(error)}). Make it, writable for this user."
        ) from error
    return missing


def reason(error: Exception) -> str:
    """Return the operating system's text for `error`; the name of its class, if there is no such text."""
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
