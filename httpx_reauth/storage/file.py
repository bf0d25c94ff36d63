"""A storage in a file, for the processes of one machine."""

from __future__ import annotations

import errno
import glob
import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, TypeVar
from weakref import ref

from httpx_reauth._errors import StorageError
from httpx_reauth._token import Token
from httpx_reauth.storage import document
from httpx_reauth.storage.base import check_place
from httpx_reauth.storage.document import Document
from httpx_reauth.storage.locks import HeldLock, make_private_folder, reason, require_filelock, try_os_lock

_T = TypeVar("_T")

_log = logging.getLogger("httpx_reauth")

_ABANDONED = 60.0  # seconds; if a temporary file is older, its process has crashed
# Windows refuses to read a file while it is replaced, and to replace a file while it is read.
_TRIES = 20 if os.name == "nt" else 1
_PAUSE = 0.01  # seconds between two tries
_NO_WAITING = getattr(os, "O_NONBLOCK", 0)  # otherwise `open` would wait, if the path is a pipe without a writer

# A file may change twice and keep its time: on the coarsest file system (FAT), times have a resolution of 2 s.
_SETTLED = 2.0  # seconds since the last change of a file; after them, an equal time means an equal content
_HALF_WRITTEN_TRIES = 5  # a file that may be half written is read this many times, with `_PAUSE` between the reads

_MOUNT_POINT = (errno.EBUSY, errno.EXDEV)  # errors for a file that can be written, but not replaced
_CANNOT_SYNC = (
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
)  # errors of file systems without `fsync`


class FileStorage:
    """Saves one token in a file: `Reauth(grant, storage=FileStorage("~/.config/app/token.json"))`.

    Only the owner can read the file (mode 0600). If the storage makes a folder, the folder is private as well (0700).
    On Windows, a new file has the permissions of its folder. Each save replaces the whole file and syncs it to the
    disk: after a crash, the file has the old token or the new one. If the path is a symbolic link, the target of the
    link is replaced, and the link stays.

    The lock is a lock of the operating system on the file `<name>.lock` in the same folder. The lock ends with the
    process of its holder. Keep both files on a local disk: network file systems are less reliable.

    Mount the folder into a container, not only the file. A file that is a mount point cannot be replaced, so it is
    written in place: a crash can damage such a file, and other containers do not see its lock. If the file has a second
    hard link, that link keeps the old token.

    If you delete the file, you are signed out. An empty file has no token. A refresh never overwrites a damaged file; a
    sign-in or a sign-out moves it to `<name>.damaged`.

    Args:
        path: the path of the file; a leading `~` is the user's home folder. Do not use a name that people choose in the
            path: the name `../../x` would lead to a different folder. Use a hash or a number in place of the name.

    Raises:
        ImportError: filelock is not installed (`pip install "httpx-reauth[file]"`).
        TypeError: `path` is not a path.
        ValueError: `path` is empty.
    """

    __module__ = "httpx_reauth.storage"
    __slots__ = ("_held", "_is_warned", "_place", "_seen", "path")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        require_filelock("FileStorage", "file")
        check_place("path", os.fspath(path) if hasattr(path, "__fspath__") else path)
        self.path = Path(path).expanduser().absolute()
        self._place = os.path.normcase(os.path.realpath(self.path))
        self._seen = _Seen()
        self._held = _Held()
        self._is_warned = False

    def load(self) -> Token | None:
        """Return the token in the file; None if there is no file. A file that has not changed is not read again.

        Raises:
            StorageError: the file cannot be read, or is not a document of this library.
        """
        path, seen = self._held.target or self.path, self._seen  # `open` follows a link as well
        for _ in range(_HALF_WRITTEN_TRIES - 1):
            version, text = _read_bytes(path, seen.version)
            if text is None:
                return seen.token
            if not (document.is_damaged(text) and _is_changing(version)):
                break
            time.sleep(_PAUSE)  # another process may be writing it in place
        else:
            version, text = _read_bytes(path, None)
        token = document.read(text or b"", str(path), _aside(path).name).token
        self._seen = _Seen() if _is_changing(version) else _Seen(version, token)
        return token

    def save(self, token: Token) -> None:
        """Replace the file by a file with `token`, and sync it to the disk.

        Raises:
            StorageError: the file cannot be written, or is not a document of this library. The file is unchanged.
        """
        target = self._target()
        text = document.write(token, _read(target).unknown)
        made = make_private_folder(target.parent)
        try:
            for folder in made:
                _sync_folder(folder.parent)
            self._replace(target, text.encode())
        except OSError as error:
            raise StorageError(
                f"The token cannot be written to {target} ({reason(error)}). What is in that file is whole. "
                f"Make room on the disk, or let this user write to {target.parent}."
            ) from error

    def clear(self) -> None:
        """Delete the file.

        Raises:
            StorageError: the file cannot be deleted, or is not a document of this library.
        """
        target = self._target()
        _read(target)
        try:
            self._delete(target)
        except OSError as error:
            raise StorageError(
                f"{target} cannot be deleted ({reason(error)}), so it still holds the token. "
                f"Delete it, or let this user write to {target.parent}."
            ) from error

    def try_lock(self, lease: float) -> AbstractContextManager[object] | None:  # noqa: ARG002 - needs no lease
        """Take the lock between all threads and processes of this machine; None: another thread or process holds it.

        While the lock is held, this object uses the file to which the path leads now, even if a symbolic link changes.

        Raises:
            StorageError: the lock's file cannot be made.
        """
        if self._held.target is not None:  # a thread of this process holds the lock
            return None
        target = self._target()
        make_private_folder(target.parent)
        lock = try_os_lock(require_filelock("FileStorage", "file"), target.with_name(f"{target.name}.lock"))
        if lock is not None:  # else another thread may have just taken it, and `_held` is about that thread's lock
            self._held = _Held(lock, target)
        return lock

    def set_aside(self) -> bool:
        """Move a damaged file to `<name>.damaged`, and return True. If the file is not damaged, return False.

        An older file with this name is replaced.

        Raises:
            StorageError: the file cannot be moved.
        """
        target = self._target()
        try:
            _, text = _read_bytes(target, None)
            if not document.is_damaged(text or b""):
                return False
            aside = _aside(target)
            try:
                _patiently(lambda: target.replace(aside))
            except OSError as error:
                if error.errno not in _MOUNT_POINT:
                    raise
                self._replace(aside, text or b"")
                self._delete(target)
        except OSError as error:
            raise StorageError(f"{target} is damaged and cannot be moved aside ({reason(error)}).") from error
        _log.warning("%s was damaged. It is kept as %s.", target, aside.name)
        return True

    def _target(self) -> Path:
        """Return the file to which the path leads. While the lock is held, this is the file for which it was taken."""
        return self._held.target or Path(os.path.realpath(self.path))

    def _replace(self, target: Path, content: bytes) -> None:
        """Replace `target` by a file with `content`. At every moment, `target` is the old file or the new one."""
        _remove_abandoned(target)
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target), suffix=".tmp")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                _sync(file.fileno())
            _patiently(lambda: Path(temporary).replace(target))
        except BaseException as error:
            with suppress(OSError):
                Path(temporary).unlink()
            if not isinstance(error, OSError) or error.errno not in _MOUNT_POINT:
                raise
            self._write_in_place(target, content)
        _sync_folder(target.parent)

    def _delete(self, target: Path) -> None:
        try:
            with suppress(FileNotFoundError):
                _patiently(target.unlink)
                _sync_folder(target.parent)
        except OSError as error:
            if error.errno not in _MOUNT_POINT:
                raise
            self._write_in_place(target, b"")

    def _write_in_place(self, target: Path, content: bytes) -> None:
        """Write a file that cannot be replaced. Spaces overwrite the rest of the old content before it is cut off."""
        if not self._is_warned:
            self._is_warned = True
            _log.warning(
                "%s is a mount point, so it is written in place: a crash meanwhile can damage it, and other containers "
                "see neither its replacement nor its lock. Mount the folder %s instead.", target, target.parent,
            )  # fmt: skip
        with open(target, "r+b", buffering=0) as file:  # noqa: PTH123 - unbuffered, so one write
            _write_all(file, content.ljust(os.fstat(file.fileno()).st_size))
            _sync(file.fileno())
            file.truncate(len(content))
            _sync(file.fileno())

    def __eq__(self, other: object) -> bool:
        """Is `other` a `FileStorage` for the same file?"""
        return type(other) is type(self) and other._place == self._place

    def __hash__(self) -> int:
        return hash((FileStorage, self._place))

    def __repr__(self) -> str:
        return f"FileStorage({str(self.path)!r})"


_Version = tuple[int, int, int, int]


class _Seen:
    """The token that was read last, and the version of its file. A pickle contains neither."""

    __slots__ = ("token", "version")

    def __init__(self, version: _Version | None = None, token: Token | None = None) -> None:
        self.version = version
        self.token = token

    def __reduce__(self) -> tuple[Any, ...]:
        return _Seen, ()


class _Held:
    """The lock that a thread of this process holds, and the file for which it was taken. A pickle contains neither."""

    __slots__ = ("_lock", "_pid", "_target")

    def __init__(self, lock: HeldLock | None = None, target: Path | None = None) -> None:
        self._lock = None if lock is None else ref(lock)  # weak: filelock releases a lock that nobody references
        self._pid = os.getpid()
        self._target = target

    @property
    def target(self) -> Path | None:
        """The file; None if no thread of this process holds the lock. In a forked child, the parent may hold it."""
        lock = None if self._lock is None else self._lock()
        return self._target if lock is not None and lock.is_held and self._pid == os.getpid() else None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Held, ()


def _read(target: Path) -> Document:
    _, text = _read_bytes(target, None)
    return document.read(text or b"", str(target), _aside(target).name)


def _read_bytes(path: Path, known: _Version | None) -> tuple[_Version | None, bytes | None]:
    """Return the version and the content of a file.

    The version is None if there is no file. The content is None if the version is still `known`.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | _NO_WAITING)

    def read() -> tuple[_Version | None, bytes | None]:
        with open(path, "rb", buffering=0, opener=opener) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise StorageError(
                    f"{path} holds no token that can be read: it is no regular file. It is left as it is."
                )
            # The times are read after `open`, since a network file system updates them when a file is opened.
            version = found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
            return version, None if version == known else _read_all(file)

    try:
        return _patiently(read)
    except FileNotFoundError:
        return None, b""
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({reason(error)}). Let this user read it.") from error


def _read_all(file: Any) -> bytes:
    parts: list[bytes] = []
    left = document.LARGEST + 1
    while left and (part := file.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _write_all(file: Any, content: bytes) -> None:
    while content:
        content = content[file.write(content) :]


def _is_changing(version: _Version | None) -> bool:
    """Was the file changed so recently that a further change may keep its times? Also True if there is no file."""
    return version is None or max(version[2:]) > (time.time() - _SETTLED) * 1e9


def _aside(target: Path) -> Path:
    return target.with_name(f"{target.name}.damaged")


def _prefix(target: Path) -> str:
    return f".{target.name}."


def _remove_abandoned(target: Path) -> None:
    """Remove the temporary files of processes that were killed during a save."""
    for left in target.parent.glob(f"{glob.escape(_prefix(target))}*.tmp"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink()


def _sync_folder(folder: Path) -> None:
    """Sync `folder`, so that a power cut does not undo the creation, replacement or deletion of a file in it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows cannot open a folder; on other systems, the folder may not be readable
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def _patiently(function: Callable[[], _T]) -> _T:
    for _ in range(_TRIES - 1):
        try:
            return function()
        except PermissionError:
            time.sleep(_PAUSE)
    return function()
