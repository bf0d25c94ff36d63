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
from httpx_reauth.storage.document import Document
from httpx_reauth.storage.locks import HeldLock, make_private_folder, reason, require_filelock, try_os_lock

_T = TypeVar("_T")

_log = logging.getLogger("httpx_reauth")

_ABANDONED = 60.0  # seconds after which a temporary file is taken for one that a crash has left behind
# Windows refuses to read a file that is being replaced, and to replace one that is being read.
_TRIES = 20 if os.name == "nt" else 1
_PAUSE = 0.01  # seconds between them
_NO_WAITING = getattr(os, "O_NONBLOCK", 0)  # should it be a pipe that nobody writes to

# A file that was changed a moment ago may be changed again without a new time: the coarsest file times (FAT) tell 2 s.
_SETTLED = 2.0  # seconds after its last change from which a file is known again by its times
_HALF_WRITTEN_TRIES = 5  # looks at a file that is being written in place, `_PAUSE` apart

_MOUNT_POINT = (errno.EBUSY, errno.EXDEV)  # why a file cannot be replaced, though it can be written
_CANNOT_SYNC = (
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
)  # said by file systems that have no such thing


class FileStorage:
    """Holds one token in a file: `Reauth(grant, storage=FileStorage("~/.config/app/token.json"))`.

    The file is made readable by its owner alone (0600), in a folder likewise (0700) if that has to be made; on Windows
    it inherits the rights of its folder. It is replaced as a whole and synced to the disk, so a crash leaves the old
    token or the new one. A symbolic link is followed: the file that it points to is replaced, the link stays. Beside
    that file lies `<name>.lock`, with a lock of the operating system that dies with its holder. Keep both on a local
    disk: network file systems promise less.

    Mount the folder into a container, not the file alone: a file that is a mount point cannot be replaced, so it is
    written in place, and neither the lock nor a crash's safety is shared. A hard link's other name keeps the token that
    it had.

    Deleting the file signs out, as `sign_out` does; an empty file holds no token. What is damaged is never overwritten
    by a refresh; a sign-in or a sign-out moves it to `<name>.damaged`.

    Args:
        path: of the file; a leading `~` is the user's home.

    Raises:
        ImportError: filelock is not installed (`pip install "httpx-reauth[file]"`).
    """

    __module__ = "httpx_reauth.storage"
    __slots__ = ("_held", "_is_warned", "_place", "_seen", "path")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        require_filelock("FileStorage", "file")
        self.path = Path(path).expanduser().absolute()
        self._place = os.path.normcase(os.path.realpath(self.path))
        self._seen = _Seen()
        self._held = _Held()
        self._is_warned = False

    def load(self) -> Token | None:
        """The token that the file holds, or None if there is no file; a file that has not changed is not read again.

        Raises:
            StorageError: it cannot be read, or is no token of ours.
        """
        path, seen = self._held.target or self.path, self._seen  # to open it follows a link as well
        for _ in range(_HALF_WRITTEN_TRIES - 1):
            version, text = _read_bytes(path, seen.version)
            if text is None:
                return seen.token
            if not (document.is_damaged(text) and _is_changing(version)):
                break
            time.sleep(_PAUSE)  # somebody may be writing it in place
        else:
            version, text = _read_bytes(path, None)
        token = document.read(text or b"", str(path), _aside(path).name).token
        self._seen = _Seen() if _is_changing(version) else _Seen(version, token)
        return token

    def save(self, token: Token) -> None:
        """Replace the file by one that holds `token`; on the disk once this returns.

        Raises:
            StorageError: it cannot be written, or what it holds is no token of ours. The file is as it was.
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
            StorageError: it cannot be deleted, or is no token of ours.
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

    def try_lock(self, lease: float) -> AbstractContextManager[object] | None:  # noqa: ARG002 - it ends with its holder
        """A context that one holder at a time is in, over all threads and processes of this machine.

        While it lasts, the file is the one that the path leads to now, should a symbolic link on it be changed.

        Raises:
            StorageError: the lock's file cannot be made.
        """
        if self._held.target is not None:  # by a thread of this process
            return None
        target = self._target()
        make_private_folder(target.parent)
        lock = try_os_lock(require_filelock("FileStorage", "file"), target.with_name(f"{target.name}.lock"))
        self._held = _Held(lock, target)
        return lock

    def set_aside(self) -> bool:
        """Move a damaged file to `<name>.damaged`, in the place of one that is there; False if it is not damaged."""
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
        """The file itself, should the path be a link to it: while the lock is held, the one that it was taken for."""
        return self._held.target or Path(os.path.realpath(self.path))

    def _replace(self, target: Path, content: bytes) -> None:
        """Put a file with `content` in the place of `target`; at every instant, there is the old or the new one."""
        _remove_abandoned(target)
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target), suffix=".tmp")  # 0600
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
        """Write a file that cannot be replaced: first over all of its length, so that what is read ends in blanks."""
        if not self._is_warned:
            self._is_warned = True
            _log.warning(
                "%s is a mount point, so it is written in place: a crash meanwhile can damage it, and other containers "
                "see neither its replacement nor its lock. Mount the folder %s instead.", target, target.parent,
            )  # fmt: skip
        with open(target, "r+b", buffering=0) as file:  # noqa: PTH123 - unbuffered, so that it is one write
            _write_all(file, content.ljust(os.fstat(file.fileno()).st_size))
            _sync(file.fileno())
            file.truncate(len(content))
            _sync(file.fileno())

    def __eq__(self, other: object) -> bool:
        """Is it the same file?"""
        return type(other) is type(self) and other._place == self._place

    def __hash__(self) -> int:
        return hash((FileStorage, self._place))

    def __repr__(self) -> str:
        return f"FileStorage({str(self.path)!r})"


_Version = tuple[int, int, int, int]


class _Seen:
    """What was read last, and by what it is known again. A pickle of it holds neither."""

    __slots__ = ("token", "version")

    def __init__(self, version: _Version | None = None, token: Token | None = None) -> None:
        self.version = version
        self.token = token

    def __reduce__(self) -> tuple[Any, ...]:
        return _Seen, ()


class _Held:
    """The lock that a thread of this process holds, and the file that it was taken for. A pickle holds neither."""

    __slots__ = ("_lock", "_pid", "_target")

    def __init__(self, lock: HeldLock | None = None, target: Path | None = None) -> None:
        self._lock = None if lock is None else ref(lock)  # one that is forgotten is released by filelock
        self._pid = os.getpid()
        self._target = target

    @property
    def target(self) -> Path | None:
        """The file; None if nobody holds the lock, or the parent of this forked process does."""
        lock = None if self._lock is None else self._lock()
        return self._target if lock is not None and lock.is_held and self._pid == os.getpid() else None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Held, ()


def _read(target: Path) -> Document:
    _, text = _read_bytes(target, None)
    return document.read(text or b"", str(target), _aside(target).name)


def _read_bytes(path: Path, known: _Version | None) -> tuple[_Version | None, bytes | None]:
    """The file's version and what is in it; no version if there is no file, no content if the version is `known`."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | _NO_WAITING)

    def read() -> tuple[_Version | None, bytes | None]:
        with open(path, "rb", buffering=0, opener=opener) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise StorageError(
                    f"{path} holds no token that can be read: it is no regular file. It is left as it is."
                )
            # Opened first, since a network file system makes sure only then that the times are not old ones.
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
    """Was it changed so lately that another change need not show? A file that is missing may come at any time."""
    return version is None or max(version[2:]) > (time.time() - _SETTLED) * 1e9


def _aside(target: Path) -> Path:
    return target.with_name(f"{target.name}.damaged")


def _prefix(target: Path) -> str:
    return f".{target.name}."


def _remove_abandoned(target: Path) -> None:
    """Remove what a process left behind that was killed while it wrote."""
    for left in target.parent.glob(f"{glob.escape(_prefix(target))}*.tmp"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink()


def _sync_folder(folder: Path) -> None:
    """See to it that what was made, replaced or deleted in `folder` stays so after a power cut."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders; elsewhere one may be writable, but not readable
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
