"""Tests of waiting for the lock. A refresh tries the lock again and again, and reads what its holder has saved."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.fernet import Fernet
from redis_server import RedisServer
from seams import join_refreshes
from storages import Recording

from httpx_reauth import Reauth, RefreshError, RefreshFulfilled, SignInRequired, StorageError, Token, TokenStore
from httpx_reauth._tokens._refresh import sync
from httpx_reauth._tokens._refresh.sync import StorageSync
from httpx_reauth._tokens._refresh.worker import Worker
from httpx_reauth.storage import EncryptedStorage, FileStorage, RedisStorage, Storage
from httpx_reauth.testing import ManualClock
from httpx_reauth.testing._contract_steps import locked, save

OLD, NEW = Token("old", refresh_token="1", expires_at=1.0), Token("new", refresh_token="2", expires_in=3600)
FERNET = Fernet(Fernet.generate_key())
LATE = 30.0  # seconds; no test waits that long


def never(token: Token) -> Token:
    raise AssertionError("a token request was made")


@pytest.fixture(params=["file", "redis", "encrypted file"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Storage]]:
    """Return a function that makes storages of one place, as several processes would."""
    clients: list[redis.Redis] = []

    def make() -> Storage:
        if request.param == "redis":
            clients.append(request.getfixturevalue("redis_server").client())
            return RedisStorage(clients[-1], key="app:token")
        file = FileStorage(tmp_path / "token.json")
        return EncryptedStorage(file, FERNET) if request.param == "encrypted file" else file

    yield make
    for client in clients:
        client.close()


class Request:
    """One request for a token, in a thread."""

    def __init__(self, auth: Reauth) -> None:
        self.auth = auth
        self._outcome: list[Any] = []
        self._thread = threading.Thread(target=self._get, daemon=True)
        self._thread.start()

    def _get(self) -> None:
        try:
            self._outcome.append(self.auth.get_token().access_token)
        except Exception as error:  # noqa: BLE001 - the test checks it
            self._outcome.append(error)

    def outcome(self) -> Any:
        self._thread.join(LATE)
        assert self._outcome, "it hangs"
        return self._outcome[0]


# Tokens that a waiting refresh finds.


def test_guarantee_1_those_that_wait_adopt_what_the_holder_has_saved_while_it_still_has_the_lock(make):
    save(make(), OLD)
    holder = make()
    auths = [Reauth(never, storage=make()) for _ in range(5)]
    with locked(holder):
        requests = [Request(auth) for auth in auths]
        holder.save(NEW)
        assert [request.outcome() for request in requests] == ["new"] * 5
    for auth in auths:
        auth.close()


def test_guarantee_1_a_holder_that_fails_leaves_the_lock_to_the_next(make):
    save(make(), OLD)
    auth = Reauth(lambda _: NEW, storage=make())
    with locked(make()):
        request = Request(auth)
    assert request.outcome() == "new"
    auth.close()
    assert make().load().access_token == "new"


def test_a_token_that_cannot_be_used_is_waited_past(make):
    save(make(), OLD)
    holder, auth = make(), Reauth(never, storage=make())
    with locked(holder):
        request = Request(auth)
        for token in (Token(refresh_token="only"), Token("ended", expires_at=2.0), NEW):
            holder.save(token)
        assert request.outcome() == "new"
    auth.close()


@pytest.mark.parametrize("damage", [b"{", b"", b'{"format": "httpx_reauth token", "version"'])
def test_half_a_file_is_no_reason_to_fail_for_one_that_looks_without_the_lock(tmp_path: Path, damage: bytes):
    path = tmp_path / "token.json"
    save(FileStorage(path), OLD)
    whole = path.read_bytes()
    looks = threading.Semaphore(0)

    class Watched(FileStorage):
        __slots__ = ()

        def load(self) -> Token | None:
            try:
                return super().load()
            finally:
                looks.release()

    auth = Reauth(never, storage=Watched(path))
    with locked(FileStorage(path)):
        path.write_bytes(damage)
        request = Request(auth)
        for _ in range(3):
            assert looks.acquire(timeout=LATE)
        path.write_bytes(whole)
        FileStorage(path).save(NEW)
        assert request.outcome() == "new"
    auth.close()


def test_what_stays_damaged_is_said_by_the_one_with_the_lock(tmp_path: Path):
    path = tmp_path / "token.json"
    path.write_bytes(b"{")
    auth = Reauth(never, storage=FileStorage(path))
    with pytest.raises(RefreshError, match="holds no token that can be read"):
        auth.get_token()
    auth.close()


def test_who_has_something_to_write_takes_the_lock_in_any_case(clock: ManualClock):
    storage, asked = Recording(), []
    storage.inner.save(OLD)
    auth = Reauth(lambda token: asked.append(token.refresh_token) or NEW, storage=storage, clock=clock)
    storage.fail("save")
    auth.get_token()
    auth.close()
    storage.heal()
    storage.inner.save(Token("theirs", refresh_token="theirs", expires_in=3600))
    clock.advance(3600)
    storage.calls.clear()
    with locked(storage.inner):
        request = Request(auth)
        tries = threading.Semaphore(0)
        storage.before["lock"] = tries.release
        for _ in range(2):
            assert tries.acquire(timeout=LATE)
        assert "load" not in storage.calls, "what is held does not matter: its own token replaces it"
    assert request.outcome() == "theirs"  # it finds the token when it has the lock
    auth.close()
    assert asked == ["1"]


# When the waiting ends.


def test_a_broken_lock_fails_the_refresh_immediately(clock: ManualClock):
    storage = Recording()
    storage.fail("lock")
    auth = Reauth(never, storage=storage, clock=clock)  # the clock does not move, so the error is not about a deadline
    with pytest.raises(RefreshError, match="The storage is away"):
        auth.get_token()


@pytest.mark.parametrize("by", ["a sign-in", "a sign-out"])
def test_a_refresh_that_is_superseded_while_it_waits_releases_the_lock_and_spends_nothing(clock: ManualClock, by: str):
    storage = Recording()
    storage.inner.save(Token("held", refresh_token="held", expires_in=60))
    auth = Reauth(never, storage=storage, clock=clock)
    auth.get_token()
    auth.close()
    clock.advance(60)
    storage.calls.clear()
    held = storage.inner.try_lock(70)
    assert held is not None
    tries = threading.Semaphore(0)
    storage.before["lock"] = tries.release
    request = Request(auth)
    assert tries.acquire(timeout=LATE)
    person = threading.Thread(target=auth.sign_out if by == "a sign-out" else lambda: auth.sign_in(NEW))
    person.start()
    assert isinstance(request.outcome(), SignInRequired)  # the request began in the session before
    held.__exit__(None, None, None)
    person.join(LATE)
    auth.close()
    assert join_refreshes(LATE)
    now = storage.inner.load()
    assert (now and now.access_token) == (None if by == "a sign-out" else "new")
    assert storage.calls.count("lock") == 1, "that of the person; the refresh does not want it any more"


def test_guarantee_10_a_refresh_that_does_not_get_the_lock_fails_before_its_deadline(make):
    auth = Reauth(never, storage=make(), refresh_timeout=3.0)  # it gets the error 0.1 s before its deadline
    with locked(make()), pytest.raises(RefreshError, match="held the lock") as caught:
        auth.get_token()
    auth.close()
    assert isinstance(caught.value, StorageError)


# The number of reads, in time that a test moves.


class Held:
    """A storage whose lock another process holds. Each read takes `seconds`."""

    def __init__(self, clock: ManualClock, seconds: float = 0.0) -> None:
        self.clock, self.seconds = clock, seconds
        self.looks: list[float] = []
        self.tries: list[float] = []
        self.leases: set[float] = set()

    def load(self) -> Token | None:
        self.looks.append(self.clock.monotonic())
        self.clock.advance(self.seconds)
        return OLD

    def save(self, token: Token) -> None:
        raise AssertionError

    def clear(self) -> None:
        raise AssertionError

    def try_lock(self, lease: float) -> AbstractContextManager[object] | None:
        self.tries.append(self.clock.monotonic())
        self.leases.add(lease)
        return None


def wait_in_vain(storage: Held, monkeypatch: pytest.MonkeyPatch, timeout: float = 30.0) -> None:
    clock = storage.clock
    monkeypatch.setattr(sync, "monotonic", clock.monotonic)
    store = TokenStore()
    store._use_clock(clock)
    worker = Worker(store, clock.monotonic(), timeout)
    steps, answer = StorageSync(store, storage).wait_for_lock(worker, lambda _: None), None

    def go_on() -> None:
        nonlocal answer
        call = steps.send(answer)
        answer = (clock.advance if call.function is sync.sleep else call.function)(*call.arguments)

    with pytest.raises(StorageError, match="held the lock"):
        for _ in iter(go_on, object()):
            pass


def gaps(moments: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(moments)]


def test_it_looks_every_25_ms_at_first_and_every_quarter_of_a_second_in_the_end(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
):
    storage = Held(clock)
    wait_in_vain(storage, monkeypatch)
    begun = 1000.0
    for at, gap in zip(storage.looks, gaps(storage.looks), strict=False):
        longest = min(0.25, 0.025 + 0.05 * (at - begun))
        assert longest / 2 - 0.001 <= gap <= longest + 0.001
    assert len(set(gaps(storage.looks))) > 100, "with jitter"
    assert storage.looks[-1] <= begun + 27.0 <= clock.monotonic() + 0.001, "a tenth of the time is left to say so"


def test_it_tries_the_lock_four_times_a_second(clock: ManualClock, monkeypatch: pytest.MonkeyPatch):
    storage = Held(clock)
    wait_in_vain(storage, monkeypatch)
    assert len(storage.tries) in range(100, 112)
    assert storage.leases == {70.0}, "twice the refresh timeout, and time to save"


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.5])
def test_looks_take_a_tenth_of_its_time_at_most(clock: ManualClock, monkeypatch: pytest.MonkeyPatch, seconds: float):
    storage = Held(clock, seconds)
    wait_in_vain(storage, monkeypatch)
    assert len(storage.looks) * seconds <= 0.1 * 30.0 + seconds
    assert len(storage.looks) >= 3


# The number of Redis commands.


class Counting(redis.Redis):
    """A client that records its commands."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.commands: list[str] = []

    def execute_command(self, *arguments: object, **options: object) -> object:
        self.commands.append(str(arguments[0]))
        return super().execute_command(*arguments, **options)


def test_what_an_expiry_costs_redis(redis_server: RedisServer):
    asked, answer, adopted = threading.Event(), threading.Event(), threading.Event()

    def keep_the_lease(_: object, action: object) -> None:
        if isinstance(action, RefreshFulfilled):  # the token is saved
            adopted.set()

    def refresh(_: Token) -> Token:
        asked.set()
        assert answer.wait(LATE)
        return NEW

    clients = [Counting(unix_socket_path=redis_server.socket, socket_timeout=LATE) for _ in range(3)]
    holder, waiter, late = [RedisStorage(client, key="app:token") for client in clients]
    save(holder, OLD)
    clients[0].commands.clear()
    auth, other = Reauth(refresh, storage=holder), Reauth(never, storage=waiter)
    auth.store.subscribe(keep_the_lease)
    first = Request(auth)
    assert asked.wait(LATE)
    second = Request(other)
    while len(clients[1].commands) < 3:  # it waits for the lock
        pass
    answer.set()
    assert (first.outcome(), second.outcome()) == ("new", "new")
    auth.close()
    other.close()
    last = Reauth(never, storage=late)
    assert last.get_token().access_token == "new"
    last.close()
    assert clients[0].commands == ["EVAL", "GET", "EVAL", "EVAL"], "takes the lease, reads, saves, gives back"
    assert clients[1].commands[:2] == ["EVAL", "GET"], "tries for the lease, looks, and looks again"
    assert clients[1].commands[-1] == "GET"
    assert clients[2].commands == ["EVAL", "GET", "EVAL"], "takes the lease, reads, gives back"
    with redis_server.client() as client:
        assert client.keys() == [b"app:token"]
    for client in clients:
        client.close()
