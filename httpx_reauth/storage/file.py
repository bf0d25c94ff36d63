"""A storage in a file, for the processes of one machine."""

from __future__ import annotations

import glob
import os
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from httpx_reauth._errors import StorageError
from httpx_reauth._token import Token
from httpx_reauth.storage import document
from httpx_reauth.storage.document import Document
from httpx_reauth.storage.os_lock import make_private_folder, os_lock, reason, require_filelock

_T = TypeVar("_T")

_ABANDONED = 60.0  # seconds after which a temporary file is taken for one that a crash has left behind
# Windows refuses to read a file that is being replaced, and to replace one that is being read.
_TRIES = 20 if os.name == "nt" else 1
_PAUSE = 0.01  # seconds between them
_NO_WAITING = getattr(os, "O_NONBLOCK", 0)  # should it be a pipe that nobody writes to


class FileStorage:
    """Holds one token in a file: `Reauth(grant, storage=FileStorage("~/.config/app/token.json"))`.

    The file is made readable by its owner alone (0600), in a folder likewise (0700) if that has to be made; on Windows
    it inherits the rights of its folder. It is replaced as a whole and synced to the disk, so a crash leaves the old
    token or the new one. A symbolic link is followed: the file that it points to is replaced, the link stays. Beside
    that file lies `<name>.lock`, with a lock of the operating system that dies with its holder. Keep both on a local
    disk: network file systems promise less.

    Deleting the file signs out, as `sign_out` does.

    Args:
        path: of the file; a leading `~` is the user's home.

    Raises:
        ImportError: filelock is not installed (`pip install "httpx-reauth[file]"`).
    """

    __slots__ = ("path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        require_filelock("FileStorage", "file")
        self.path = Path(path).expanduser().absolute()

    def load(self) -> Token | None:
        """The token that the file holds, or None if there is no file.

        Raises:
            StorageError: it cannot be read, or is no token of ours.
        """
        return _read(self._target()).token

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
            _replace(target, text.encode())
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
            with suppress(FileNotFoundError):
                _patiently(target.unlink)
                _sync_folder(target.parent)
        except OSError as error:
            raise StorageError(
                f"{target} cannot be deleted ({reason(error)}), so it still holds the token. "
                f"Delete it, or let this user write to {target.parent}."
            ) from error

    @contextmanager
    def lock(self, timeout: float) -> Generator[None, None, None]:
        """A context that one holder at a time is in, over all threads and processes of this machine.

        Raises:
            StorageError: somebody else was in it for `timeout` seconds, or the lock file cannot be made.
        """
        with self._os_lock(self._target(), timeout):
            yield

    @contextmanager
    def lock_unless(self, timeout: float, is_enough: Callable[[Token], bool]) -> Generator[Token | None, None, None]:
        """`lock`; or a context without it, entered with the token that somebody else has put into the file meanwhile.

        Args:
            timeout: seconds to wait for either.
            is_enough: says whether that token is a reason to wait no longer.

        Raises:
            StorageError: as for `lock`.
        """
        target = self._target()
        path, seen = str(target), None

        def find() -> Token | None:
            nonlocal seen
            version = _version(path)
            if version == seen:
                return None
            seen = version
            try:
                held = self.load()
            except StorageError:  # said to whoever reads it with the lock
                return None
            return held if held is not None and is_enough(held) else None

        with self._os_lock(target, timeout, find) as found:
            yield found

    def _os_lock(
        self, target: Path, timeout: float, find: Callable[[], Token | None] | None = None
    ) -> AbstractContextManager[Token | None]:
        make_private_folder(target.parent)
        filelock = require_filelock("FileStorage", "file")
        return os_lock(filelock, target.with_name(f"{target.name}.lock"), timeout, find)

    def _target(self) -> Path:
        """The file itself, should the path be a link to it."""
        return Path(os.path.realpath(self.path))

    def __repr__(self) -> str:
        return f"FileStorage({str(self.path)!r})"


def _read(target: Path) -> Document:
    try:
        text = _patiently(lambda: _read_bytes(target))
    except FileNotFoundError:
        return Document()
    except OSError as error:
        raise StorageError(f"{target} cannot be read ({reason(error)}). Let this user read it.") from error
    return document.read(text, str(target))


def _version(path: str) -> tuple[int, int, int] | None:
    """Something that is another once the file `path` has been replaced; None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a herd that waits calls it some 5,000 times a second
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read_bytes(target: Path) -> bytes:
    with open(target, "rb", opener=lambda path, flags: os.open(path, flags | _NO_WAITING)) as file:
        return file.read(document.LARGEST + 1) or b""  # None: a pipe whose writer has said nothing yet


def _replace(target: Path, content: bytes) -> None:
    """Put a file with `content` in the place of `target`; at every instant, there is the old or the new one."""
    _remove_abandoned(target)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target), suffix=".tmp")  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _patiently(lambda: Path(temporary).replace(target))
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
    _sync_folder(target.parent)


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
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _patiently(function: Callable[[], _T]) -> _T:
    for _ in range(_TRIES - 1):
        try:
            return function()
        except PermissionError:
            time.sleep(_PAUSE)
    return function()
