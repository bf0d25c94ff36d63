"""Tests of a save that fails: it is tried again while the lock is held, and once more when the interpreter exits."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from storages import Recording

from httpx_reauth import Reauth, RefreshError, SaveFailed, SignedIn, SignInRequired, StorageError, Token
from httpx_reauth._tokens._refresh import sync
from httpx_reauth._tokens._refresh.sync import StorageSync
from httpx_reauth._tokens._refresh.worker import Worker
from httpx_reauth.storage import FileStorage
from httpx_reauth.testing import ManualClock

REAL_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds; the other tests use shorter ones
OLD, NEW = Token("old", refresh_token="spent"), Token("new", refresh_token="new", expires_in=3600)
LATE = 30.0  # seconds; no test waits that long


@pytest.fixture
def storage() -> Recording:
    storage = Recording()
    storage.inner.save(OLD)
    return storage


def fail(storage: Recording, name: str, times: int) -> None:
    """Make the next `times` calls of `name` fail, as if there were no free file descriptor."""
    left = [OSError(errno.EMFILE, "Too many open files")] * times

    def fail() -> None:
        if left:
            raise left.pop()

    storage.before[name] = fail


def failures_of(auth: Reauth) -> list[SaveFailed]:
    failures: list[SaveFailed] = []
    auth.store.subscribe(lambda _, action: failures.append(action) if isinstance(action, SaveFailed) else None)
    return failures


# While the lock is held.


@pytest.mark.parametrize("times", [1, 3])
def test_guarantee_2_a_save_that_fails_for_a_moment_is_made_before_others_get_the_lock(
    storage: Recording, clock: ManualClock, times: int
):
    fail(storage, "save", times)
    auth = Reauth(lambda _: NEW, storage=storage, clock=clock)
    failures = failures_of(auth)
    rejected = auth.get_token()
    auth.get_token(rejected=rejected)
    auth.close()
    assert storage.last_calls(4 + times) == ["lock", "load", *["save"] * (times + 1), "release"]
    assert failures == []
    held = storage.inner.load()
    assert held is not None
    assert held.refresh_token == "new"


@pytest.mark.parametrize("by", ["sign-in", "sign-out"])
def test_a_sign_in_or_sign_out_is_written_though_the_storage_fails_for_a_moment(
    storage: Recording, clock: ManualClock, by: str
):
    fail(storage, "save" if by == "sign-in" else "clear", 2)
    auth = Reauth(lambda _: NEW, storage=storage, clock=clock)
    if by == "sign-in":
        auth.sign_in(NEW)
    else:
        auth.sign_out()
    held = storage.inner.load()
    assert (held and held.access_token) == ("new" if by == "sign-in" else None)


def test_guarantee_2_a_process_without_a_file_descriptor_for_50_ms_does_not_leave_the_spent_token_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sync, "_SAVE_PAUSES", REAL_PAUSES)
    storage, descriptors = FileStorage(tmp_path / "token.json"), threading.Event()
    storage.save(OLD)
    mkstemp = storage_file().tempfile.mkstemp

    def refuse(*arguments: Any, **options: Any) -> Any:
        if not descriptors.is_set():
            raise OSError(errno.EMFILE, "Too many open files")
        return mkstemp(*arguments, **options)

    def refresh(token: Token) -> Token:
        if token.refresh_token != "spent":
            raise AssertionError("the next process has found a token of which there is no more")
        threading.Timer(0.05, descriptors.set).start()
        return NEW

    monkeypatch.setattr(storage_file().tempfile, "mkstemp", refuse)
    auth = Reauth(refresh, storage=storage)
    failures = failures_of(auth)
    auth.get_token(rejected=auth.get_token())
    auth.close()
    assert failures == []
    assert FileStorage(tmp_path / "token.json").load() == auth.store.state.token


def storage_file() -> Any:
    from httpx_reauth.storage import file

    return file


def run(steps: Generator[Any, Any, Any], clock: ManualClock) -> Any:
    """Run `steps`, and return their result. A pause only moves the clock."""
    answer: Any = None
    while True:
        try:
            call = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
        except StopIteration as stop:
            return stop.value
        is_pause = call.function is sync.sleep
        try:
            answer = (clock.advance if is_pause else call.function)(*call.arguments)
        except Exception as error:  # noqa: BLE001 - a driver does the same
            answer = error


@pytest.mark.parametrize(
    ("left", "save_takes", "tries"),
    [
        (30.0, 0.0, 6),  # at 0, 0.05, 0.15, 0.35, 0.75 and 1.55 s
        (1.0, 0.0, 5),  # none begins after the deadline of the refresh
        (0.05, 0.0, 1),
        (30.0, 0.7, 4),  # none begins later than 2 s after the first failure
        (30.0, 5.0, 2),  # it is tried once more in any case
        (4.0, 5.0, 1),
    ],
)
def test_a_save_that_goes_on_failing_is_given_up_after_some_tries_within_two_seconds(
    storage: Recording,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    left: float,
    save_takes: float,
    tries: int,
):
    monkeypatch.setattr(sync, "_SAVE_PAUSES", REAL_PAUSES)
    monkeypatch.setattr(sync, "monotonic", clock.monotonic)
    store = Reauth(lambda _: NEW, token=OLD, clock=clock).store
    worker = Worker(store, clock.monotonic(), left)

    def fail() -> None:
        clock.advance(save_takes)
        raise OSError(errno.ENOSPC, "No space left on device")

    storage.before["save"] = fail
    error = run(StorageSync(store, storage).save(NEW, worker), clock)
    assert isinstance(error, StorageError)
    assert storage.calls == ["save"] * tries


def test_a_save_is_not_tried_again_after_a_sign_in_has_superseded_it(storage: Recording, clock: ManualClock):
    given = Token("given", refresh_token="given", expires_in=3600)

    def sign_in_and_fail() -> None:
        storage.before.clear()
        auth.store.dispatch(SignedIn(given))
        raise OSError(errno.EIO, "Input/output error")

    auth = Reauth(lambda _: NEW, storage=storage, clock=clock)
    old = auth.get_token()
    auth.close()
    storage.calls.clear()
    storage.before["save"] = sign_in_and_fail
    with pytest.raises(SignInRequired):
        auth.get_token(rejected=old)
    auth.close()
    assert storage.calls == ["lock", "load", "save", "save", "release"], "the second one is that of the sign-in"
    held = storage.inner.load()
    assert held is not None
    assert held.access_token == "given"


# When the interpreter exits.

SCRIPT = """
import gc, json, pathlib, sys, time
from httpx_reauth import Reauth, StorageError, Token
from httpx_reauth._tokens._refresh import sync
from httpx_reauth.storage import FileStorage

sync._SAVE_PAUSES = ()
path, what = sys.argv[1:]

class Failing(FileStorage):
    __slots__ = ()
    fails, hangs = True, False

    def save(self, token):
        self._fail_perhaps()
        super().save(token)

    def clear(self):
        self._fail_perhaps()
        super().clear()

    def _fail_perhaps(self):
        if Failing.hangs:
            print("hangs", flush=True)
            time.sleep(60)
        if Failing.fails:
            raise OSError(28, "No space left on device")

auth = Reauth(lambda token: Token("new", refresh_token="new", expires_in=3600), storage=Failing(path))
if what == "sign out":
    try:
        auth.sign_out()
    except StorageError:
        pass
else:
    assert auth.get_token().access_token == "new"
    auth.close()
assert json.loads(pathlib.Path(path).read_text())["access_token"] == "old"
Failing.fails = what == "stays full"
Failing.hangs = what == "hangs"
if what == "forgotten":
    del auth
    gc.collect()
if what == "forks":
    import os
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
"""


def end_of_a_process(path: Path, what: str) -> subprocess.CompletedProcess[str]:
    FileStorage(path).save(Token("old", refresh_token="old", expires_in=0, expires_at=1))
    # the script forks while threads run
    environment = {**os.environ, "PYTHONWARNINGS": "error,ignore::DeprecationWarning"}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), what],
        capture_output=True, text=True, timeout=50, check=False, env=environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("what", "held"), [("save", "new"), ("sign out", None), ("stays full", "old"), ("forgotten", "old")]
)
def test_guarantee_2_a_save_that_failed_is_tried_once_more_when_the_interpreter_ends(
    tmp_path: Path, what: str, held: str | None
):
    path = tmp_path / "token.json"
    done = end_of_a_process(path, what)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "Traceback" not in done.stderr
    found = json.loads(path.read_text())["access_token"] if path.exists() else None
    assert found == held


def test_guarantee_10_a_storage_that_hangs_delays_the_end_of_the_interpreter_by_some_seconds_only(tmp_path: Path):
    # the storage hangs for a minute, and the process waits for less
    done = end_of_a_process(tmp_path / "token.json", "hangs")
    assert (done.returncode, done.stdout) == (0, "hangs\n"), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_ends_and_leaves_the_saving_to_its_parent(tmp_path: Path):
    path = tmp_path / "token.json"
    done = end_of_a_process(path, "forks")
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    assert json.loads(path.read_text())["access_token"] == "new"


def test_guarantee_6_a_better_token_that_appears_in_the_storage_is_tried_again_if_its_renewal_fails(clock: ManualClock):
    """The current token could not be saved, and the server refuses it; the storage then holds another token."""
    storage, asked = Recording(), []

    def refresh(token: Token) -> Token:
        asked.append(token.refresh_token)
        if token.refresh_token == "r1":  # another program has saved its token meanwhile
            storage.inner.save(Token("theirs", refresh_token="r9", expires_at=clock.time() - 1))
            raise SignInRequired("It was revoked.")
        if asked.count("r9") == 1:
            raise RefreshError("The server is busy.")
        return Token(f"a{len(asked)}", refresh_token=f"r{len(asked)}", expires_in=60)

    auth = Reauth(refresh, token=Token(refresh_token="r0"), storage=storage, clock=clock)
    storage.fail("save")
    assert auth.get_token().access_token == "a1"
    auth.close()
    clock.advance(3600)
    with pytest.raises(RefreshError):
        auth.get_token()
    storage.heal()
    clock.advance(3600)
    assert auth.get_token().access_token == "a4"
    auth.close()
    assert asked == ["r0", "r1", "r9", "r9"]
