"""Tests of full disks, folders without write access, and a Redis that is down: what works, and what errors say."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from fleet_worker import Fleet, Order, Place
from redis_server import RedisServer

from httpx_reauth import Reauth, RefreshError, SaveFailed, Token
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.storage import FileStorage, RedisStorage
from httpx_reauth.testing import AuthorizationServer, ManualClock
from httpx_reauth.testing._contract_steps import locked

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
NOBODY = 65534


@pytest.fixture
def identity(clock: ManualClock) -> Iterator[AuthorizationServer]:
    with AuthorizationServer(clock=clock, rotate=True) as server:
        yield server


class App:
    """The auth object of one process, and the actions of its store."""

    def __init__(self, identity: AuthorizationServer, storage: FileStorage | RedisStorage, **settings: object) -> None:
        transport = identity.transport(httpx)
        grant = RefreshTokenGrant("https://id.test/token", "app", client=httpx.Client(transport=transport))
        self.auth = Reauth(grant, storage=storage, clock=identity.clock, **settings)
        self.told: list[object] = []
        self.auth.store.subscribe(lambda state, action: self.told.append(action))
        self.client = httpx.Client(transport=transport, auth=self.auth, base_url="https://api.test")

    def get(self) -> int:
        return self.client.get("/me").status_code

    @property
    def failures(self) -> list[str]:
        """Return the messages of the saves that failed."""
        return [str(action.error) for action in self.told if isinstance(action, SaveFailed)]

    @property
    def token(self) -> Token | None:
        return self.auth.store.state.token


def hold(storage: FileStorage | RedisStorage, token: Token) -> None:
    with locked(storage):
        storage.save(token)


def goes_on_in_memory_and_is_saved_later(
    app: App,
    identity: AuthorizationServer,
    clock: ManualClock,
    held: Callable[[], Token | None],
    mend: Callable[[], None],
    word: str,
) -> None:
    """Assert all that must hold when the token has expired and the new one cannot be saved."""
    before = held()
    assert app.get() == 200
    assert app.token is not None
    assert (identity.token_requests, len(app.failures)) == (1, 1)
    assert word in app.failures[0]
    for _ in range(30):
        clock.advance(10)
        assert app.get() == 200
    app.auth.close()
    assert len(app.failures) == 1, "told once"
    assert identity.token_requests == 1
    assert held() in (before, None)
    mend()
    clock.advance(120)
    assert app.get() == 200  # this request saves it
    app.auth.close()
    assert held() == app.token
    clock.advance(3600)
    assert app.get() == 200
    app.auth.close()  # the lock is released after the request has its token
    assert held() == app.token
    assert len(app.failures) == 1
    assert (identity.token_requests, identity.reuse_detected) == (2, 0)


# A file.


@pytest.fixture
def full_disk() -> Iterator[Path]:
    """Mount a small file system, so that a test can fill it."""
    folder = Path(tempfile.mkdtemp(prefix="full"))
    mounted = False
    if IS_ROOT and sys.platform == "linux" and shutil.which("mount"):
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(folder)]
        mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    try:
        if not mounted:
            pytest.skip("a file system cannot be mounted here")
        yield folder
    finally:
        for thread in threading.enumerate():  # a save takes real time, while the test's clock may have moved on
            if thread.name == "httpx_reauth refresh":
                thread.join(60)
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def test_guarantee_2_a_full_disk_leaves_the_old_file_whole_and_the_new_token_is_saved_when_there_is_room(
    identity: AuthorizationServer, clock: ManualClock, full_disk: Path
):
    storage = FileStorage(full_disk / "token.json")
    hold(storage, identity.issue(lifetime=0))
    ballast = full_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 512):
            pass
    goes_on_in_memory_and_is_saved_later(
        App(identity, storage), identity, clock, storage.load, ballast.unlink, "No space left"
    )
    assert sorted(file.name for file in full_disk.iterdir()) == ["token.json", "token.json.lock"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_guarantee_2_a_disk_that_is_found_to_be_full_at_the_last_moment_leaves_the_old_file_whole(
    identity: AuthorizationServer, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    storage = FileStorage(tmp_path / "token.json")
    hold(storage, identity.issue(lifetime=0))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[step], full)
        goes_on_in_memory_and_is_saved_later(
            App(identity, storage), identity, clock, storage.load, patch.undo, "No space left"
        )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["token.json", "token.json.lock"]


@pytest.mark.skipif(IS_ROOT or os.name == "nt", reason="no folder is read-only for this user")
def test_guarantee_2_a_read_only_folder_leaves_the_old_file_whole(
    identity: AuthorizationServer, clock: ManualClock, tmp_path: Path
):
    storage = FileStorage(tmp_path / "app" / "token.json")
    hold(storage, identity.issue(lifetime=0))
    folder = tmp_path / "app"
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        goes_on_in_memory_and_is_saved_later(
            App(identity, storage), identity, clock, storage.load, lambda: folder.chmod(0o700), "ermission denied"
        )
    finally:
        folder.chmod(0o700)


@pytest.fixture
def nobodys_folder() -> Iterator[Path]:
    """Make a folder that belongs to a user who is not root."""
    if not IS_ROOT:
        pytest.skip("only root can become somebody else")
    folder = Path(tempfile.mkdtemp(prefix="nobody"))
    os.chown(folder, NOBODY, NOBODY)
    try:
        yield folder
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_guarantee_2_a_process_that_may_not_write_leaves_the_old_file_whole_and_goes_on_in_memory(
    nobodys_folder: Path, fleet: Fleet
):
    place = Place(path=str(nobodys_folder / "token.json"))
    with AuthorizationServer(rotate=True) as identity, identity.serve() as url:
        (worker,) = fleet.start(1, Order(url, place, user=NOBODY))
        place.hold(identity.issue(lifetime=0))
        for file in nobodys_folder.iterdir():
            os.chown(file, NOBODY, NOBODY)
        before = place.held()
        nobodys_folder.chmod(0o500)
        status, told = worker.ask("get")
        assert status == 200
        assert [what for what in told if "ermission denied" in what] == told[2:], told
        assert worker.ask("get") == (200, told), "told once"
        assert place.held() == before
        nobodys_folder.chmod(0o700)


def test_a_file_that_this_user_may_not_read_is_an_error_that_says_so_before_anything_is_asked_of_the_server(
    nobodys_folder: Path, fleet: Fleet
):
    place = Place(path=str(nobodys_folder / "token.json"))
    with AuthorizationServer(rotate=True) as identity, identity.serve() as url:
        (worker,) = fleet.start(1, Order(url, place, user=NOBODY))
        place.hold(identity.issue(lifetime=0))  # saved by root
        os.chown(nobodys_folder / "token.json.lock", NOBODY, NOBODY)
        (kind, said), _ = worker.ask("get")
        assert kind == "RefreshError", said
        assert "cannot be read (Permission denied)" in said
        assert identity.token_requests == 0


def test_a_lock_that_this_user_may_not_take_is_an_error_that_says_so_before_anything_is_asked_of_the_server(
    nobodys_folder: Path, fleet: Fleet
):
    place = Place(path=str(nobodys_folder / "token.json"))
    with AuthorizationServer(rotate=True) as identity, identity.serve() as url:
        (worker,) = fleet.start(1, Order(url, place, user=NOBODY, timeout=2.0))
        place.hold(identity.issue(lifetime=0))  # root owns the file and the lock
        (kind, said), _ = worker.ask("get")
        assert kind == "RefreshError", said
        assert "nothing was asked of the server" in said
        assert identity.token_requests == 0


# A Redis.


@pytest.fixture
def redis_storage(redis_server: RedisServer) -> Iterator[Callable[[], RedisStorage]]:
    """Return a function that makes a storage for another process."""
    clients = []

    def make() -> RedisStorage:
        clients.append(redis_server.client(socket_timeout=0.5))
        return RedisStorage(clients[-1], key="app:token")

    yield make
    for client in clients:
        client.close()


def test_a_redis_that_is_gone_hurts_no_request_while_the_token_lives(
    identity: AuthorizationServer, clock: ManualClock, redis_server: RedisServer, redis_storage
):
    storage = redis_storage()
    hold(storage, identity.issue())
    app = App(identity, storage)
    assert app.get() == 200
    redis_server.stop()
    try:
        for seconds in (0, 3500, 60, 30):  # in the end, the token is due for a renewal in the background
            clock.advance(seconds)
            assert app.get() == 200
            app.auth.close()
        assert identity.token_requests == 0
        clock.advance(60)
        with pytest.raises(RefreshError, match="nothing was asked of the server"):
            app.get()
        assert identity.token_requests == 0, "without the lock, the rotation is not risked"
    finally:
        redis_server.start()
    hold(redis_storage(), app.token)
    clock.advance(31)
    assert app.get() == 200, "and then it goes on"
    assert (identity.token_requests, identity.reuse_detected) == (1, 0)


def test_guarantee_2_a_redis_that_dies_during_a_refresh_and_restarts_empty_gets_the_token_later(
    identity: AuthorizationServer, clock: ManualClock, redis_server: RedisServer, redis_storage
):
    storage, other = redis_storage(), redis_storage()
    hold(storage, identity.issue(lifetime=0))
    app = App(identity, storage)
    is_up = [True]

    def held() -> Token | None:
        return other.load() if is_up[0] else None

    def start_again() -> None:
        redis_server.start()
        is_up[0] = True

    def stop() -> None:
        redis_server.stop()
        is_up[0] = False

    try:
        with identity.token_endpoint.hold() as gate:

            def at_the_token_endpoint() -> None:
                identity.wait_until(lambda: gate.held == 1)
                stop()
                gate.release()

            dying = threading.Thread(target=at_the_token_endpoint)
            dying.start()
            goes_on_in_memory_and_is_saved_later(app, identity, clock, held, start_again, "A Redis command failed")
            dying.join()
    finally:
        if not is_up[0]:
            redis_server.start()


def test_guarantee_2_a_redis_that_answers_slowly_during_a_refresh_gets_the_token_later(
    identity: AuthorizationServer, clock: ManualClock, redis_server: RedisServer, redis_storage
):
    storage, other = redis_storage(), redis_storage()
    hold(storage, identity.issue(lifetime=0))
    app = App(identity, storage)
    with identity.token_endpoint.hold() as gate:

        def at_the_token_endpoint() -> None:
            identity.wait_until(lambda: gate.held == 1)
            redis_server.freeze()
            gate.release()

        freezing = threading.Thread(target=at_the_token_endpoint)
        freezing.start()
        assert app.get() == 200
        freezing.join()
    assert app.get() == 200
    redis_server.thaw()
    clock.advance(120)
    assert app.get() == 200
    app.auth.close()
    assert len(app.failures) == 1, "told once"
    assert other.load() == app.token
    assert identity.token_requests == 1


def test_a_redis_that_restarts_empty_between_two_refreshes_is_no_sign_out(
    identity: AuthorizationServer, clock: ManualClock, redis_server: RedisServer, redis_storage
):
    storage = redis_storage()
    hold(storage, identity.issue())
    app = App(identity, storage)
    assert app.get() == 200
    redis_server.stop()
    redis_server.start()
    clock.advance(3600)
    assert app.get() == 200
    assert redis_storage().load() == app.token
    assert identity.token_requests == 1


def test_a_redis_that_is_gone_at_the_start_is_an_error_that_says_so(
    identity: AuthorizationServer, redis_server: RedisServer, redis_storage
):
    app = App(identity, redis_storage())
    redis_server.stop()
    try:
        with pytest.raises(RefreshError, match="A Redis command failed") as caught:
            app.get()
        assert isinstance(caught.value, httpx.TransportError)
    finally:
        redis_server.start()
    assert identity.token_requests == 0
