"""A lock of the operating system on a file: it dies with its holder (filelock)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from httpx_reauth._errors import StorageError

from ._waiting import wait_until


def require_filelock(user: str, extra: str) -> Any:
    """The filelock package, for the class `user`.

    Raises:
        ImportError: it is not installed; the message names the extra that brings it.
    """
    try:
        import filelock
    except ImportError as error:
        raise ImportError(f'{user} needs filelock: pip install "httpx-reauth[{extra}]"', name="filelock") from error
    return filelock


@contextmanager
def os_lock(filelock: Any, path: Path, timeout: float, *, guarded: Path | None = None) -> Generator[None, None, None]:
    """Hold the lock on the file `path`, which is created if need be and stays; any thread may leave the context.

    Args:
        filelock: the package.
        path: the file that is locked, which has nothing in it.
        timeout: seconds to wait for it.
        guarded: a file that its holder replaces just before leaving, after which it is looked at more often: so a
            herd that waits for one token gets it in a row, without hurrying for all the time before.

    Raises:
        StorageError: another process or thread has held it for `timeout` seconds; or it cannot be created here.
    """
    lock = filelock.FileLock(path, mode=0o600, thread_local=False)

    def is_mine() -> bool:
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            return False
        return True

    try:
        before = _version(guarded)
        is_held = wait_until(is_mine, timeout, lambda: _version(guarded) != before)
    except (OSError, RuntimeError, NotImplementedError) as error:
        raise StorageError(
            f"The lock {path} cannot be taken ({reason(error)}). Without it two processes could spend one refresh "
            "token: let this user create and write that file, or keep the token in another folder."
        ) from error
    if not is_held:
        raise StorageError(
            f"Another process or thread has held the lock {path} for {timeout:g} s. If it hangs, end it: the operating "
            "system frees the lock then. Do not delete the file, or two may hold it."
        )
    try:
        if isinstance(lock, filelock.SoftFileLock):  # what filelock falls back to; it outlives a crash
            raise StorageError(f"The file system of {path} has no locks; keep the token on a local disk.")
        yield
    finally:
        lock.release()


def _version(file: Path | None) -> object:
    """Something that is another once `file` has been replaced."""
    if file is None:
        return None
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def make_private_folder(folder: Path) -> list[Path]:
    """Make `folder`, for this user alone, if it is missing; one that exists is left as it is.

    Returns:
        The folders that were made.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The folder {folder} cannot be made ({reason(error)}). Make it, writable for this user."
        ) from error
    return missing


def reason(error: Exception) -> str:
    """What the operating system said."""
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
