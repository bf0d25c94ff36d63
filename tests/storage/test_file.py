"""Tests of a token in a file: private, never half written, durable, and with a lock for one holder."""

from __future__ import annotations

import errno
import json
import os
import pickle
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import httpx
import pytest

from httpx_reauth import Reauth, RefreshError, SaveFailed, StorageError, Token
from httpx_reauth.storage import FileStorage
from httpx_reauth.storage import file as _file
from httpx_reauth.testing._contract_steps import locked

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")

OLD, NEW = Token("old", refresh_token="old-secret"), Token("new", refresh_token="new-secret")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app" / "token.json"


@pytest.fixture
def storage(path: Path) -> FileStorage:
    storage = FileStorage(path)
    storage.save(OLD)
    return storage


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def left_in(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


# The path.


def test_tilde_is_the_home_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    FileStorage("~/.config/app/token.json").save(NEW)
    assert (tmp_path / ".config" / "app" / "token.json").is_file()


def test_a_relative_path_stays_where_it_was_when_the_process_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = FileStorage("token.json")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    storage.save(NEW)
    assert left_in(tmp_path) == {"elsewhere", "token.json"}


def test_nothing_is_made_before_there_is_something_to_save(path):
    storage = FileStorage(path)
    assert storage.load() is None
    storage.clear()
    assert not path.parent.exists()


def test_it_may_be_pickled_since_it_holds_a_path_and_no_secret(storage):
    assert pickle.loads(pickle.dumps(storage)).load() == OLD


@posix
@pytest.mark.parametrize("is_absolute", [True, False])
def test_a_symbolic_link_stays_and_the_file_behind_it_is_replaced(tmp_path, is_absolute):
    target = tmp_path / "elsewhere" / "real.json"
    link = tmp_path / "token.json"
    link.symlink_to(target if is_absolute else Path("elsewhere") / "real.json")
    storage = FileStorage(link)
    storage.save(OLD)
    storage.save(NEW)
    assert link.is_symlink()
    assert FileStorage(target).load() == NEW
    assert left_in(tmp_path) == {"elsewhere", "token.json"}
    storage.clear()
    assert link.is_symlink()
    assert not target.exists()


@posix
def test_a_link_and_the_file_behind_it_have_one_lock(tmp_path):
    (tmp_path / "token.json").symlink_to(tmp_path / "real.json")
    link, real = FileStorage(tmp_path / "token.json"), FileStorage(tmp_path / "real.json")
    with locked(link):
        assert real.try_lock(1) is None
    assert left_in(tmp_path) == {"token.json", "real.json.lock"}


# The file's permissions.


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_guarantee_11_file_folder_and_lock_are_for_their_owner_only(path, umask):
    before = os.umask(umask)
    try:
        storage = FileStorage(path)
        with locked(storage):
            storage.save(OLD)
            storage.save(NEW)
    finally:
        os.umask(before)
    assert mode(path.parent) == 0o700
    assert mode(path) == 0o600
    assert mode(path.with_name("token.json.lock")) == 0o600


@posix
def test_guarantee_11_the_file_is_not_readable_by_others_for_an_instant(storage, path, monkeypatch):
    modes = set()

    def look(step: str) -> None:
        modes.update(mode(one) for one in path.parent.iterdir())

    watch_steps(monkeypatch, look)
    before = os.umask(0)
    try:
        storage.save(NEW)
    finally:
        os.umask(before)
    assert modes == {0o600}


@posix
def test_a_file_that_others_could_read_is_closed_to_them_at_the_next_save(storage, path):
    path.chmod(0o644)
    storage.save(NEW)
    assert mode(path) == 0o600


@posix
def test_a_folder_that_exists_keeps_its_rights(path):
    path.parent.mkdir(mode=0o750)
    path.parent.chmod(0o750)
    FileStorage(path).save(NEW)
    assert mode(path.parent) == 0o750


# The file is always whole: the old one or the new one.


def watch_steps(monkeypatch: pytest.MonkeyPatch, tell) -> None:
    """Call `tell(step)` before and after each step that writes to the disk."""

    def watched(name: str, function):
        def call(*arguments, **options):
            tell(f"before {name}")
            result = function(*arguments, **options)
            tell(f"after {name}")
            return result

        return call

    monkeypatch.setattr(_file.tempfile, "mkstemp", watched("create", _file.tempfile.mkstemp))
    monkeypatch.setattr(_file.os, "fsync", watched("sync", os.fsync))
    monkeypatch.setattr(_file.Path, "replace", watched("replace", Path.replace))


def test_guarantee_2_what_is_in_the_file_is_whole_at_every_step(storage, path, monkeypatch):
    seen = []
    watch_steps(monkeypatch, lambda step: seen.append((step, FileStorage(path).load().access_token)))
    storage.save(NEW)
    steps = ["before create", "after create", "before sync", "after sync", "before replace"]
    later = ["after replace", *(["before sync", "after sync"] if os.name != "nt" else [])]
    assert seen == [(step, "old") for step in steps] + [(step, "new") for step in later]


@pytest.mark.parametrize("step", ["create", "sync", "replace"])
def test_guarantee_2_a_write_that_fails_leaves_the_old_token_and_nothing_else(storage, path, monkeypatch, step):
    def tell(at: str) -> None:
        if at == f"before {step}":
            raise OSError(errno.ENOSPC, "No space left on device")

    watch_steps(monkeypatch, tell)
    with pytest.raises(StorageError, match=r"No space left on device.*whole.*Make room") as caught:
        storage.save(NEW)
    assert "secret" not in str(caught.value)
    assert storage.load() == OLD
    assert left_in(path.parent) == {"token.json"}


@posix
def test_guarantee_2_a_full_disk_leaves_the_old_token_and_nothing_else(storage, path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))  # no file may be longer
    try:
        with pytest.raises(StorageError, match="File too large"):
            storage.save(NEW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert storage.load() == OLD
    assert left_in(path.parent) == {"token.json"}


def test_a_save_that_is_interrupted_leaves_no_temporary_file(storage, path, monkeypatch):
    def tell(at: str) -> None:
        if at == "before replace":
            raise KeyboardInterrupt

    watch_steps(monkeypatch, tell)
    with pytest.raises(KeyboardInterrupt):
        storage.save(NEW)
    assert storage.load() == OLD
    assert left_in(path.parent) == {"token.json"}


KILLED = """
import os, signal, sys
from pathlib import Path
from httpx_reauth import Token
from httpx_reauth.storage import FileStorage
from httpx_reauth.storage import file as _file
step, path = sys.argv[1:]
def killing(function):
    return lambda *a, **o: (os.write(1, b"!"), os.kill(os.getpid(), signal.SIGKILL))
target, name = {"lock": (FileStorage, "save"), "create": (_file.tempfile, "mkstemp"), "write": (os, "fsync"),
                "replace": (Path, "replace")}[step]
setattr(target, name, killing(getattr(target, name)))
storage = FileStorage(path)
with storage.try_lock(70):
    storage.save(Token("new", refresh_token="new-secret"))
"""


@posix
@pytest.mark.parametrize("step", ["lock", "create", "write", "replace"])
def test_guarantee_2_a_process_that_is_killed_leaves_a_whole_token_and_no_lock(storage, path, step):
    child = subprocess.run(
        [sys.executable, "-c", KILLED, step, str(path)], check=False, capture_output=True, timeout=60
    )
    assert (child.returncode, child.stdout) == (-9, b"!"), child.stderr.decode()
    with locked(storage):
        assert storage.load() == OLD
        storage.save(NEW)
    assert storage.load() == NEW


@posix
def test_what_a_killed_process_left_behind_is_private_and_removed_by_a_save_a_minute_later(storage, path):
    subprocess.run([sys.executable, "-c", KILLED, "write", str(path)], check=False, capture_output=True, timeout=60)
    (left,) = path.parent.glob(".token.json.*.tmp")
    assert mode(left) == 0o600
    storage.save(NEW)
    assert left.exists()  # another process may be writing it
    an_hour_ago = time.time() - 3600
    os.utime(left, (an_hour_ago, an_hour_ago))
    other = path.with_name(".another.json.abc.tmp")
    other.touch()
    os.utime(other, (an_hour_ago, an_hour_ago))
    storage.save(NEW)
    assert not left.exists()
    assert other.exists()


def test_file_and_folders_are_synced_to_the_disk(path, monkeypatch):
    synced = []
    sync = os.fsync
    monkeypatch.setattr(_file.os, "fsync", lambda fd: (synced.append(stat.S_ISDIR(os.fstat(fd).st_mode)), sync(fd)))
    FileStorage(path / "deep" / "token.json").save(NEW)
    folders = 3 if os.name != "nt" else 0  # the entries of the new folders in their parents
    assert synced == [True] * folders + [False] + [True] * bool(folders)


def test_a_folder_that_cannot_be_opened_is_not_synced_as_on_windows(storage, monkeypatch):
    opened = os.open

    def refuse(path, flags, *rest, **options):
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr(_file.os, "open", refuse)
    storage.save(NEW)
    assert storage.load() == NEW


def test_a_file_that_another_process_reads_is_replaced_a_moment_later_as_on_windows(storage, monkeypatch):
    attempts = []
    replace = Path.replace

    def refuse(self, target):
        attempts.append(target)
        if len(attempts) < 3:
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        return replace(self, target)

    monkeypatch.setattr(_file.Path, "replace", refuse)
    monkeypatch.setattr(_file, "_TRIES", 3)
    storage.save(NEW)
    assert storage.load() == NEW
    assert len(attempts) == 3


# Things that a save and a clear do not change.


def test_unknown_fields_are_kept_when_the_token_is_replaced(storage, path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "note": "keep me"}))
    storage.save(NEW)
    assert json.loads(path.read_text())["note"] == "keep me"
    assert storage.load() == NEW


FOREIGN = {
    "damaged": b'{"format": "httpx_reauth token", "version": 1, "access_tok',
    "foreign": b'{"access_token": "somebody-elses"}',
    "newer": b'{"format": "httpx_reauth token", "version": 2}',
    "long": b" " * (1 << 20) + b"{}",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_damaged_foreign_or_newer_file_is_an_error_and_is_never_overwritten(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    storage = FileStorage(path)
    for use in (storage.load, lambda: storage.save(NEW), storage.clear):
        with pytest.raises(StorageError, match=r"token\.json holds no token that can be read"):
            use()
    assert path.read_bytes() == content
    assert left_in(path.parent) == {"token.json"}


def test_the_error_for_a_file_of_another_program_says_where_its_token_goes(path):
    path.parent.mkdir()
    path.write_text('{"refresh_token": "s3cret"}')
    with pytest.raises(StorageError, match=r"another file.*token=Token\(") as caught:
        FileStorage(path).load()
    assert "s3cret" not in str(caught.value)


def test_a_folder_in_the_place_of_the_file_is_an_error(path):
    path.mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot be read"):
        FileStorage(path).load()


@posix
def test_a_pipe_in_the_place_of_the_file_is_an_error_and_nothing_waits_for_it(path):
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(StorageError, match="holds no token"):
        FileStorage(path).load()


# Missing rights.


@pytest.fixture
def unprivileged(tmp_path: Path):
    """Run the test as an ordinary user, so that missing rights matter."""
    if os.name == "nt":
        pytest.skip("Windows has other rights")
    if os.geteuid() != 0:
        yield
        return
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o011)
    os.chown(tmp_path, 65534, -1)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def mine(unprivileged, path: Path) -> FileStorage:
    storage = FileStorage(path)
    with locked(storage):
        storage.save(OLD)
    yield storage
    path.parent.chmod(0o700)


def test_a_read_only_folder_is_an_error_that_says_so_and_the_old_token_stays(mine, path):
    path.parent.chmod(0o500)
    with locked(mine):  # the lock's file exists already
        assert mine.load() == OLD
        with pytest.raises(StorageError, match=r"Permission denied.*let this user write to .*app"):
            mine.save(NEW)
        with pytest.raises(StorageError, match=r"cannot be deleted \(Permission denied\), so it still holds"):
            mine.clear()
    assert mine.load() == OLD


def test_a_lock_that_cannot_be_made_is_an_error_that_says_so(mine, path):
    path.parent.chmod(0o700)
    path.with_name("token.json.lock").unlink()
    path.parent.chmod(0o500)
    with pytest.raises(StorageError, match=r"token\.json\.lock cannot be taken \(Permission denied\).*create"):
        mine.try_lock(70)


def test_a_folder_that_cannot_be_made_is_an_error_that_says_so(mine, path):
    path.parent.chmod(0o500)
    storage = FileStorage(path.parent / "deeper" / "token.json")
    with pytest.raises(StorageError, match=r"folder .*deeper cannot be made \(Permission denied\)"):
        storage.try_lock(70)
    with pytest.raises(StorageError, match=r"folder .*deeper cannot be made \(Permission denied\)"):
        storage.save(NEW)


def test_a_file_that_may_not_be_read_is_an_error_that_says_so(mine, path):
    path.chmod(0o000)
    with pytest.raises(StorageError, match=r"cannot be read \(Permission denied\)"):
        mine.load()


def test_guarantee_2_with_a_read_only_folder_the_new_token_works_in_memory_and_is_saved_later(
    mine, path, server, clock
):
    path.parent.chmod(0o500)
    auth = Reauth(lambda token: server.issue(), storage=mine, clock=clock)
    failures = []
    auth.store.subscribe(lambda _, action: failures.append(action) if isinstance(action, SaveFailed) else None)
    with httpx.Client(transport=server.transport(httpx), base_url="https://api.test", auth=auth) as client:
        assert [client.get("/me").status_code for _ in range(3)] == [200] * 3
    assert len(failures) == 1
    assert "Permission denied" in str(failures[0].error)
    assert mine.load() == OLD
    path.parent.chmod(0o700)
    auth.close()
    assert mine.load() == auth.store.state.token


# The lock.


def test_guarantee_10_a_lock_that_somebody_holds_for_too_long_is_an_error_that_says_what_to_do(storage):
    storage.clear()
    auth = Reauth(lambda _: NEW, storage=storage, refresh_timeout=0.3)
    with locked(FileStorage(storage.path)), pytest.raises(RefreshError):
        auth.get_token()
    auth.close()
    error = auth.store.state.error  # on a slow machine, the caller gives up a moment before the refresh does
    assert isinstance(error, StorageError)
    assert "held the lock" in str(error)
    assert "end it" in str(error)


HOLDER = """
import sys
from httpx_reauth.storage import FileStorage
from httpx_reauth.testing._contract_steps import locked
with locked(FileStorage(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@posix
def test_the_lock_of_a_process_that_hangs_is_free_once_that_is_killed(storage, path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        assert storage.try_lock(70) is None
        holder.kill()
        holder.wait()
        with locked(storage):
            pass


@posix
def test_a_child_forked_while_the_lock_is_held_neither_frees_nor_keeps_it(storage, path):
    ready, end = os.pipe(), os.pipe()
    lock = locked(storage)
    lock.__enter__()
    child = os.fork()
    if not child:  # pragma: no cover - the child lives on for a while, with the files that it has inherited
        os.write(ready[1], b"!")
        os.read(end[0], 1)
        os._exit(0)
    try:
        assert os.read(ready[0], 1) == b"!"
        assert FileStorage(path).try_lock(70) is None
        lock.__exit__(None, None, None)
        with locked(FileStorage(path)):
            pass
    finally:
        os.write(end[1], b"!")
        os.waitpid(child, 0)
        for descriptor in (*ready, *end):
            os.close(descriptor)


def test_the_lock_is_released_immediately_by_any_thread_and_not_by_the_garbage_collector(storage, path, monkeypatch):
    monkeypatch.setattr(filelock.BaseFileLock, "__del__", lambda self: None)
    kept = []
    take = filelock.FileLock.acquire
    monkeypatch.setattr(filelock.FileLock, "acquire", lambda self, **given: (kept.append(self), take(self, **given)))
    lock = locked(storage)
    thread = threading.Thread(target=lock.__enter__)
    thread.start()
    thread.join()
    lock.__exit__(None, None, None)
    with locked(FileStorage(path)):
        pass
    assert not any(one.is_locked for one in kept)


def test_an_error_of_the_operating_system_while_locking_is_a_storage_error(storage, monkeypatch):
    def refuse(self, **_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(StorageError, match="cannot be taken \\(Input/output error\\)"):
        storage.try_lock(70)


@posix
def test_a_file_system_without_locks_is_refused(storage, path, monkeypatch, recwarn):
    import fcntl

    def refuse(descriptor, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageError, match=r"cannot be taken \(Function not implemented\)"):
        storage.try_lock(70)


def test_a_platform_without_locks_is_refused(storage, monkeypatch):
    monkeypatch.setattr(filelock, "FileLock", filelock.SoftFileLock)
    with pytest.raises(StorageError, match="has no locks on files"):
        storage.try_lock(70)


def test_many_threads_wait_for_one_lock_and_all_get_it(storage, path):
    inside, most, got = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, got
        with locked(FileStorage(path)):
            inside += 1
            most = max(most, inside)
            time.sleep(0.001)
            inside -= 1
            got += 1

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, got) == (1, 20)


def test_without_filelock_it_says_which_extra_brings_it(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(ImportError, match=r'pip install "httpx-reauth\[file\]"'):
        FileStorage(path)


def test_repr_shows_the_path_and_no_more(storage, path):
    assert repr(storage) == f"FileStorage({str(path)!r})"
