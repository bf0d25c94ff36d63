"""A lock of the operating system on a file: it dies with its holder (filelock)."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from httpx_reauth._errors import StorageError
from httpx_reauth.storage.waiting import wait_for_lock

_T = TypeVar("_T")

_INSTEAD = (
    "Without it two processes could spend one refresh token: let this user create and write that file, or keep the "
    "token in another folder, on a local disk."
)


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
def os_lock(
    filelock: Any, path: Path, timeout: float, find: Callable[[], _T | None] | None = None
) -> Generator[_T | None, None, None]:
    """Hold the lock on the file `path`, which is created if need be and stays; any thread may leave the context.

    Args:
        filelock: the package.
        path: the file that is locked, which has nothing in it.
        timeout: seconds to wait for it.
        find: looks for something that makes the lock needless while somebody else holds it; asked often.

    Returns:
        A context that is entered with what was found, and holds no lock then; or with None, and it holds the lock.

    Raises:
        StorageError: another process or thread has held it for `timeout` seconds; or it cannot be created here.
    """
    if filelock.FileLock is filelock.SoftFileLock:  # which would outlive a crash of its holder
        raise StorageError(f"The lock {path} cannot be taken: this platform has no locks on files. {_INSTEAD}")
    lock = filelock.FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False)

    def take() -> bool:
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            return False
        return True

    try:
        found = wait_for_lock(take, timeout, find)
    except TimeoutError:
        raise StorageError(
            f"Another process or thread has held the lock {path} for {timeout:g} s. If it hangs, end it: the operating "
            "system frees the lock then. Do not delete the file, or two may hold it."
        ) from None
    except (OSError, RuntimeError, NotImplementedError) as error:
        raise StorageError(f"The lock {path} cannot be taken ({reason(error)}). {_INSTEAD}") from error
    if found is not None:
        yield found
        return
    try:
        yield None
    finally:
        lock.release()


def make_private_folder(folder: Path) -> list[Path]:
    """Make `folder`, for this user alone, if it is missing; one that exists is left as it is.

    Returns:
        The folders that were made.

    Raises:
        StorageError: it cannot be made.
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
    """What the operating system said."""
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
