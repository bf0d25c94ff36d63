"""Tests of files in unusual places: mount points, links, file systems that cannot sync; and of damaged files."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import pytest
from cryptography.fernet import Fernet

from httpx_reauth import Reauth, RefreshError, SaveFailed, StorageError, Token
from httpx_reauth.storage import EncryptedStorage, FileStorage
from httpx_reauth.storage import file as _file
from httpx_reauth.testing._contract_steps import locked

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")

OLD, NEW = Token("old", refresh_token="old-secret"), Token("new", refresh_token="new-secret", expires_in=3600)
SHORT, LONG = Token("a"), Token("a" * 5000, refresh_token="b" * 5000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    return folder / "token.json"


def left_in(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# A file that is a mount point.


@pytest.fixture(params=["EBUSY", "EXDEV", "a real bind mount"])
def mount_point(request: pytest.FixtureRequest, path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a file with `OLD` in it that can be written, but neither replaced nor deleted."""
    FileStorage(path).save(OLD)
    if request.param == "a real bind mount":
        with bind_mount(path.with_name("outside.json"), path):
            yield path
        return
    number = getattr(errno, request.param)

    def refusing(function: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
            if path in (self, *arguments):
                raise OSError(number, os.strerror(number))
            return function(self, *arguments, **options)

        return refuse

    monkeypatch.setattr(Path, "replace", refusing(Path.replace))
    monkeypatch.setattr(Path, "unlink", refusing(Path.unlink))
    yield path


class bind_mount:  # noqa: N801 - it is used as a context
    """Mounts `outside`, a copy of `path`, on `path`."""

    def __init__(self, outside: Path, path: Path) -> None:
        self.outside, self.path = outside, path

    def __enter__(self) -> None:
        if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("mount"):
            pytest.skip("a file cannot be mounted here")
        shutil.copyfile(self.path, self.outside)
        done = subprocess.run(["mount", "--bind", self.outside, self.path], check=False, capture_output=True)
        if done.returncode != 0:
            pytest.skip("a file cannot be mounted here")

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", self.path], check=True)


def test_a_file_that_is_a_mount_point_is_written_in_place_and_that_is_said_once(
    mount_point: Path, caplog: pytest.LogCaptureFixture
):
    storage, inode = FileStorage(mount_point), mount_point.stat().st_ino
    before = left_in(mount_point.parent)
    for token in (NEW, LONG, SHORT, LONG, NEW):
        with locked(storage):
            storage.save(token)
        assert FileStorage(mount_point).load() == token or token is NEW
        assert mount_point.stat().st_ino == inode
    (warning,) = warnings_in(caplog)
    for word in ("mount point", "in place", "lock", str(mount_point.parent)):
        assert word in warning
    assert "secret" not in warning
    assert left_in(mount_point.parent) == {*before, "token.json.lock"}


def test_guarantee_2_a_refresh_on_a_mount_point_saves_its_token(mount_point: Path):
    auth = Reauth(lambda _: NEW, storage=FileStorage(mount_point))
    failures: list[object] = []
    auth.store.subscribe(lambda _, action: failures.append(action) if isinstance(action, SaveFailed) else None)
    auth.get_token(rejected=auth.get_token())
    auth.close()
    assert failures == []
    held = FileStorage(mount_point).load()
    assert held is not None
    assert held.refresh_token == "new-secret"


def test_a_mount_point_is_emptied_by_a_sign_out(mount_point: Path):
    storage = FileStorage(mount_point)
    auth = Reauth(lambda _: NEW, storage=storage)
    auth.sign_out()
    assert mount_point.read_bytes() == b""
    assert storage.load() is FileStorage(mount_point).load() is None
    auth.sign_in(NEW)
    assert FileStorage(mount_point).load() == auth.token


def test_guarantee_2_what_is_written_in_place_can_be_read_at_every_step(
    mount_point: Path, monkeypatch: pytest.MonkeyPatch
):
    storage, seen = FileStorage(mount_point), []
    sync = os.fsync

    def look(descriptor: int) -> None:
        seen.append(FileStorage(mount_point).load())
        sync(descriptor)

    monkeypatch.setattr(_file.os, "fsync", look)
    for token in (LONG, SHORT):
        seen.clear()
        storage.save(token)
        assert seen[-1] == token
        assert all(one in (OLD, LONG, SHORT) for one in seen)


def test_a_damaged_mount_point_is_copied_aside_by_a_sign_in(mount_point: Path):
    mount_point.write_bytes(b"{")
    auth = Reauth(lambda _: NEW, storage=FileStorage(mount_point))
    auth.sign_in(NEW)
    assert FileStorage(mount_point).load() == auth.token
    assert mount_point.with_name("token.json.damaged").read_bytes() == b"{"


def test_another_reason_why_a_file_cannot_be_replaced_is_an_error_and_nothing_is_written_in_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    storage = FileStorage(path)
    storage.save(OLD)
    content = path.read_bytes()

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StorageError, match="Input/output error"):
        storage.save(NEW)
    assert path.read_bytes() == content


# File systems.


@posix
@pytest.mark.parametrize(
    ("name", "what", "is_failure"),
    [
        ("EINVAL", "folder", False),
        ("ENOTSUP", "folder", False),
        ("EOPNOTSUPP", "folder", False),
        ("ENOSYS", "folder", False),
        ("EIO", "folder", True),
        ("EINVAL", "file", False),
        ("EIO", "file", True),
    ],
)
def test_a_file_system_that_knows_no_sync_is_no_failure_and_one_that_fails_is(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str, *, is_failure: bool
):
    def refuse(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir() is (what == "folder"):
            raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(_file.os, "fsync", refuse)
    storage = FileStorage(path)
    if is_failure:
        with pytest.raises(StorageError):
            storage.save(NEW)
    else:
        storage.save(NEW)
        assert storage.load() == FileStorage(path).load()
        storage.clear()
        assert storage.load() is None


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\t"])
def test_an_empty_file_is_no_token_and_is_filled(path: Path, content: bytes):
    path.write_bytes(content)
    auth = Reauth(lambda _: NEW, token=Token("given", expires_in=60), storage=FileStorage(path))
    assert auth.get_token().access_token == "given"
    auth.close()
    held = FileStorage(path).load()
    assert held is not None
    assert held.access_token == "given"


def test_a_file_that_is_half_written_is_whole_a_moment_later(path: Path, monkeypatch: pytest.MonkeyPatch):
    storage = FileStorage(path)
    storage.save(OLD)
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    monkeypatch.setattr(time, "sleep", lambda _: path.write_bytes(whole))  # the other process finishes during the pause
    assert storage.load() == OLD


# Places where nothing can be written.


def test_a_place_where_no_lock_can_be_made_is_an_error_immediately(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Some file systems answer as if the file were only missing. filelock then expects that it can be made."""

    def time_out(self: Any, **_: Any) -> None:
        raise filelock.Timeout(str(self.lock_file))

    monkeypatch.setattr(filelock.FileLock, "acquire", time_out)
    auth = Reauth(lambda _: NEW, storage=FileStorage(path))
    begun = time.monotonic()
    with pytest.raises(RefreshError, match=r"token\.json\.lock") as caught:
        auth.get_token()
    assert time.monotonic() - begun < 15
    assert "held the lock" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc")
def test_no_token_is_kept_in_proc(clock):
    auth = Reauth(lambda _: NEW, storage=FileStorage("/proc/self/token.json"), clock=clock)
    with pytest.raises(RefreshError, match=r"cannot be (taken|made)"):
        auth.get_token()  # the clock does not move, so the error is not about a deadline


# Links.


@posix
def test_guarantee_2_a_link_that_is_changed_during_a_refresh_leads_to_no_token_of_somebody_else(path: Path):
    mine, theirs, link = path.with_name("mine.json"), path.with_name("theirs.json"), path
    FileStorage(mine).save(Token(refresh_token="mine"))
    FileStorage(theirs).save(Token(refresh_token="theirs"))
    link.symlink_to(mine)

    def refresh(token: Token) -> Token:
        link.unlink()
        link.symlink_to(theirs)
        return NEW

    auth = Reauth(refresh, storage=FileStorage(link))
    auth.get_token()
    auth.close()
    held = FileStorage(mine).load()
    assert held is not None
    assert held.refresh_token == "new-secret"
    assert FileStorage(theirs).load() == Token(refresh_token="theirs")
    assert FileStorage(link).load() == Token(refresh_token="theirs")


@posix
def test_a_sign_out_during_which_a_link_is_changed_signs_nobody_else_out(path: Path, monkeypatch: pytest.MonkeyPatch):
    mine, theirs, link = path.with_name("mine.json"), path.with_name("theirs.json"), path
    FileStorage(mine).save(OLD)
    FileStorage(theirs).save(NEW)
    link.symlink_to(mine)
    storage = FileStorage(link)
    with locked(storage):
        link.unlink()
        link.symlink_to(theirs)
        assert storage.load() == OLD
        storage.clear()
    assert not mine.exists()
    assert theirs.exists()
    assert storage.load() == FileStorage(theirs).load()


@posix
def test_a_link_that_is_changed_does_not_matter_though_another_thread_wanted_the_lock_at_the_same_moment(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    mine, theirs, link = path.with_name("mine.json"), path.with_name("theirs.json"), path
    FileStorage(mine).save(OLD)
    FileStorage(theirs).save(Token("theirs"))
    link.symlink_to(mine)
    storage, held = FileStorage(link), ExitStack()

    def another_thread_is_faster(folder: Path) -> None:
        monkeypatch.undo()
        held.enter_context(locked(storage))

    monkeypatch.setattr("httpx_reauth.storage.file.make_private_folder", another_thread_is_faster)
    with held:
        assert storage.try_lock(70) is None
        link.unlink()
        link.symlink_to(theirs)
        storage.save(NEW)
    assert FileStorage(theirs).load() == Token("theirs")
    saved = FileStorage(mine).load()
    assert saved is not None
    assert saved.access_token == NEW.access_token


@posix
def test_the_other_name_of_a_hard_link_keeps_the_token_that_it_had(path: Path):
    other = path.with_name("other.json")
    FileStorage(path).save(OLD)
    other.hardlink_to(path)
    FileStorage(path).save(NEW)
    assert FileStorage(other).load() == OLD


# A damaged file.

DAMAGED = {
    "cut": b'{"format": "httpx_reauth token", "version": 1, "access_tok',
    "zeros": b"\x00" * 100,
    "something else": b"hello",
    "fields are missing": b'{"format": "httpx_reauth token", "version": 1}',
}
FOREIGN = {
    "of another program": b'{"theme": "dark"}',
    "of a newer version": b'{"format": "httpx_reauth token", "version": 2}',
}
ALL = {**DAMAGED, **FOREIGN}


@pytest.mark.parametrize("content", ALL.values(), ids=ALL)
def test_guarantee_2_a_refresh_overwrites_no_damaged_file_and_names_the_way_out(path: Path, content: bytes):
    path.write_bytes(content)
    asked: list[Token] = []
    auth = Reauth(lambda token: asked.append(token) or NEW, storage=FileStorage(path))
    with pytest.raises(RefreshError) as caught:
        auth.get_token()
    auth.close()
    assert (asked, path.read_bytes()) == ([], content)
    assert ("token.json.damaged" in str(caught.value)) is (content in DAMAGED.values())


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("by", ["a sign-in", "a sign-out", "a sign-in that is dispatched"])
@pytest.mark.parametrize("is_encrypted", [False, True])
def test_who_signs_in_or_out_moves_a_damaged_file_aside_and_goes_on(
    path: Path, caplog: pytest.LogCaptureFixture, content: bytes, by: str, *, is_encrypted: bool
):
    path.write_bytes(content)
    storage: Any = FileStorage(path)
    if is_encrypted:
        storage = EncryptedStorage(storage, Fernet(Fernet.generate_key()))
    auth = Reauth(lambda _: NEW, storage=storage)
    if by == "a sign-out":
        auth.sign_out()
    elif by == "a sign-in":
        auth.sign_in(NEW)
    else:
        from httpx_reauth import SignedIn

        auth.store.dispatch(SignedIn(NEW))
        assert auth.get_token().access_token == "new"
    auth.close()
    assert path.with_name("token.json.damaged").read_bytes() == content
    held = storage.load()
    assert (held and held.access_token) == (None if by == "a sign-out" else "new")
    assert any("token.json.damaged" in warning for warning in warnings_in(caplog))


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("by", ["sign_in", "sign_out"])
def test_a_file_that_another_program_may_want_to_read_is_never_moved(path: Path, content: bytes, by: str):
    path.write_bytes(content)
    auth = Reauth(lambda _: NEW, storage=FileStorage(path))
    with pytest.raises(StorageError, match="holds no token that can be read"):
        auth.sign_in(NEW) if by == "sign_in" else auth.sign_out()
    assert path.read_bytes() == content
    assert left_in(path.parent) == {"token.json", "token.json.lock"}


def test_a_damaged_file_that_cannot_be_moved_is_an_error_and_stays(path: Path, monkeypatch: pytest.MonkeyPatch):
    path.write_bytes(b"{")

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StorageError):
        Reauth(lambda _: NEW, storage=FileStorage(path)).sign_in(NEW)
    assert path.read_bytes() == b"{"


def test_what_is_not_damaged_is_not_set_aside(path: Path):
    storage = FileStorage(path)
    assert storage.set_aside() is False
    storage.save(OLD)
    assert storage.set_aside() is False
    assert left_in(path.parent) == {"token.json"}


# A file that has not changed is not read again.

VERSION = {"st_ino": 7, "st_size": 300, "st_mtime_ns": 10**18, "st_ctime_ns": 10**18}


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Return what the operating system says of the file. A test may change it."""
    said, fstat = dict(VERSION), os.fstat
    monkeypatch.setattr(_file.os, "fstat", lambda fd: SimpleNamespace(st_mode=fstat(fd).st_mode, **said))
    return said


def test_a_file_that_has_not_changed_is_not_read_again(path: Path, versions: dict[str, int]):
    storage = FileStorage(path)
    storage.save(OLD)
    token = storage.load()
    assert token == OLD
    path.write_bytes(b"{")  # neither the times nor the size of the file show this
    assert storage.load() is token


@pytest.mark.parametrize("what", VERSION)
def test_a_file_that_differs_in_one_thing_is_read_again(path: Path, versions: dict[str, int], what: str):
    """An inode may be used again after its file was replaced, and two tokens of one server may be equally long."""
    storage = FileStorage(path)
    storage.save(OLD)
    assert storage.load() == OLD
    versions[what] += 1
    FileStorage(path).save(SHORT)
    assert storage.load() == SHORT


def test_a_file_that_was_changed_a_moment_ago_is_read_again(path: Path, versions: dict[str, int]):
    versions["st_ctime_ns"] = time.time_ns() - 10**9
    storage = FileStorage(path)
    storage.save(OLD)
    assert storage.load() == OLD
    FileStorage(path).save(SHORT)  # within the same tick of the clock
    assert storage.load() == SHORT


def test_a_file_that_is_gone_is_seen_to_be_gone(path: Path, versions: dict[str, int]):
    storage = FileStorage(path)
    storage.save(OLD)
    assert storage.load() == OLD
    FileStorage(path).clear()
    assert storage.load() is None
    FileStorage(path).save(OLD)
    assert storage.load() == OLD


@posix
def test_the_cached_token_belongs_to_the_file_and_not_to_the_link(path: Path, versions: dict[str, int]):
    target, other = path.with_name("one.json"), path.with_name("two.json")
    FileStorage(target).save(OLD)
    FileStorage(other).save(SHORT)
    path.symlink_to(target)
    storage = FileStorage(path)
    assert storage.load() == OLD
    path.unlink()
    path.symlink_to(other)
    versions["st_ino"] += 1
    assert storage.load() == SHORT
