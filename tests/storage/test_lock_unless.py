"""Waiting for a lock only until its holder has saved what the lock was wanted for: a herd reads it side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from cryptography.fernet import Fernet
from redis_server import RedisServer
from storages import Recording

from httpx_reauth import Reauth, RefreshFulfilled, StorageError, Token
from httpx_reauth.storage import EncryptedStorage, FileStorage, MemoryStorage, RedisStorage, Storage
from httpx_reauth.storage import redis as _redis
from httpx_reauth.storage.base import WatchfulStorage, is_watchful

OLD, NEW, NEWER = Token("old"), Token("new", refresh_token="secret"), Token("newer")
FERNET = Fernet(Fernet.generate_key())
LATE = 30.0  # seconds


@pytest.fixture(params=["file", "redis", "encrypted file"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], WatchfulStorage]]:
    """Makes storages on one place, as several processes would."""
    clients: list[redis.Redis] = []

    def make() -> WatchfulStorage:
        if request.param == "redis":
            clients.append(request.getfixturevalue("redis_server").client(socket_timeout=LATE))
            return RedisStorage(clients[-1], key="app:token")
        file = FileStorage(tmp_path / "token.json")
        return EncryptedStorage(file, FERNET) if request.param == "encrypted file" else file

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def _nobody_looks_by_himself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_redis, "_LOOK", 20.0)  # seconds: who is not rung for is late


def save(storage: Storage, token: Token) -> None:
    with storage.lock(LATE):
        storage.save(token)


class Waiter:
    """One that waits, in a thread of its own; `asked` are the tokens that it was asked about."""

    def __init__(self, storage: WatchfulStorage, wanted: Token) -> None:
        self.storage, self.wanted = storage, wanted
        self.asked: list[Token] = []
        self._news = threading.Condition()
        self._outcome: object = "nothing"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self.storage.lock_unless(LATE, self._is_enough) as self._outcome:
                pass
        except (StorageError, KeyError) as error:
            self._outcome = error

    def _is_enough(self, token: Token) -> bool:
        with self._news:
            self.asked.append(token)
            self._news.notify_all()
        return token == self.wanted

    def wait_until_asked(self, count: int) -> None:
        with self._news:
            assert self._news.wait_for(lambda: len(self.asked) >= count, LATE), "it has not looked"

    def result(self) -> object:
        """What it has found, or None: it has had the lock."""
        self._thread.join(LATE)
        assert not self._thread.is_alive()
        return self._outcome


def test_a_lock_that_is_free_is_had_and_nothing_is_asked(make):
    save(make(), OLD)
    storage = make()
    with storage.lock_unless(0.0, lambda _: pytest.fail("it was asked")) as found:
        assert found is None
        with pytest.raises(StorageError), make().lock(0.0):
            pass
        storage.save(NEW)
    assert make().load() == NEW


@pytest.mark.usefixtures("_nobody_looks_by_himself")
def test_guarantee_1_a_herd_has_the_new_token_while_its_holder_still_has_the_lock(make):
    save(make(), OLD)
    holder = make()
    with holder.lock(LATE):
        herd = [Waiter(make(), NEW) for _ in range(5)]
        for waiter in herd:
            waiter.wait_until_asked(1)
        holder.save(NEW)
        assert [waiter.result() for waiter in herd] == [NEW] * 5
        with pytest.raises(StorageError), make().lock(0.0):
            pass
    assert {tuple(waiter.asked) for waiter in herd} == {(OLD, NEW)}, "each is looked at once"
    for waiter in herd:
        with waiter.storage.lock(0.0):  # none of them has kept anything
            assert waiter.storage.load() == NEW


@pytest.mark.usefixtures("_nobody_looks_by_himself")
def test_a_token_that_is_not_enough_is_waited_past(make):
    holder = make()
    with holder.lock(LATE):
        waiter = Waiter(make(), NEWER)
        for count, token in enumerate((OLD, NEW), start=1):
            holder.save(token)
            waiter.wait_until_asked(count)
        holder.save(NEWER)
        assert waiter.result() == NEWER
    assert waiter.asked[-3:] == [OLD, NEW, NEWER]


def test_a_holder_that_saves_nothing_leaves_the_lock_to_the_next(make):
    save(make(), OLD)
    with make().lock(LATE):
        waiter = Waiter(make(), NEW)
        waiter.wait_until_asked(1)
    assert waiter.result() is None
    assert waiter.asked == [OLD]


def test_a_holder_that_signs_out_leaves_the_lock_to_the_next(make):
    save(make(), OLD)
    holder = make()
    with holder.lock(LATE):
        waiter = Waiter(make(), NEW)
        waiter.wait_until_asked(1)
        holder.clear()
    assert waiter.result() is None
    assert waiter.asked == [OLD]


def test_who_has_waited_in_vain_gets_a_storage_error(make):
    save(make(), OLD)
    with make().lock(LATE), pytest.raises(StorageError, match="has held the"):  # noqa: SIM117
        with make().lock_unless(0.05, lambda _: False):
            pass


def test_an_exception_of_who_is_asked_leaves_the_lock_alone(make):
    save(make(), OLD)
    storage = make()
    with make().lock(LATE), pytest.raises(KeyError):  # noqa: SIM117
        with storage.lock_unless(LATE, lambda token: {}[token]):
            pass
    with storage.lock(0.0):
        assert storage.load() == OLD


@pytest.mark.parametrize("damage", [b"{", b""])
def test_what_cannot_be_read_is_said_to_who_has_the_lock_and_to_nobody_before(tmp_path: Path, damage: bytes):
    path = tmp_path / "token.json"
    save(FileStorage(path), OLD)
    with FileStorage(path).lock(LATE):
        waiter = Waiter(FileStorage(path), NEW)
        waiter.wait_until_asked(1)
        path.write_bytes(damage)
    assert waiter.result() is None
    assert waiter.asked == [OLD]


def test_what_cannot_be_read_in_redis_is_said_to_who_has_the_lease_and_to_nobody_before(
    redis_server: RedisServer, redis_client: redis.Redis
):
    redis_client.set("app:token", "{")
    storage = RedisStorage(redis_client, key="app:token")
    with redis_server.client() as client, RedisStorage(client, key="app:token").lock(LATE):  # noqa: SIM117
        with pytest.raises(StorageError, match="has held the lease"), storage.lock_unless(0.05, lambda _: True):
            pass
    with storage.lock(0.0), pytest.raises(StorageError, match="holds no token"):
        storage.load()


def test_what_was_encrypted_with_another_key_is_not_enough(tmp_path: Path):
    file = FileStorage(tmp_path / "token.json")
    save(EncryptedStorage(file, Fernet(Fernet.generate_key())), NEW)
    with file.lock(LATE), pytest.raises(StorageError, match="has held the lock"):  # noqa: SIM117
        with EncryptedStorage(FileStorage(file.path), FERNET).lock_unless(0.05, lambda _: True):
            pass


# Which storages it is asked of.


class OwnLock(FileStorage):
    """One that has made the lock anew."""

    __slots__ = ()

    @contextmanager
    def lock(self, timeout: float) -> Generator[None, None, None]:
        with super().lock(timeout):
            yield


class Rot13(FileStorage):
    """One that reads what is held in its own way."""

    __slots__ = ()

    def load(self) -> Token | None:
        return None if super().load() is None else NEW


def test_a_subclass_that_has_made_the_lock_anew_is_locked_by_that_one(tmp_path: Path):
    path = tmp_path / "token.json"
    assert is_watchful(FileStorage(path))
    assert not is_watchful(OwnLock(path))
    assert not is_watchful(MemoryStorage())
    assert not is_watchful(object())


def test_a_subclass_that_reads_in_its_own_way_is_asked_about_what_it_reads(tmp_path: Path):
    path = tmp_path / "token.json"
    save(FileStorage(path), OLD)
    with FileStorage(path).lock(LATE), Rot13(path).lock_unless(LATE, lambda token: token == NEW) as found:
        assert found == NEW


def test_what_is_held_already_when_one_comes_while_the_lock_is_taken_is_enough(make):
    save(make(), NEW)
    with make().lock(LATE), make().lock_unless(LATE, lambda token: token == NEW) as found:
        assert found == NEW


def test_a_storage_without_it_is_wrapped_with_its_lock():
    inner = Recording()
    with EncryptedStorage(inner, FERNET).lock_unless(0.0, lambda _: True) as found:
        assert found is None
        assert inner.calls == ["lock"]
    assert inner.calls == ["lock", "release"]


# What a refresh makes of it.


def never(token: Token) -> Token:
    raise AssertionError("a token request was made")


def test_guarantee_1_a_refresh_that_waits_adopts_what_the_holder_of_the_lock_has_saved(make):
    save(make(), Token("old", refresh_token="1", expires_at=1.0))
    new = Token("new", refresh_token="2")
    holder, got = make(), []
    auth = Reauth(never, storage=make())
    thread = threading.Thread(target=lambda: got.append(auth.get_token()))
    with holder.lock(LATE):
        thread.start()
        holder.save(new)
        thread.join(LATE)
        assert got == [new], "it did not take the lock"
    auth.close()


class Watchful(Recording):
    """A storage that writes down whether a refresh would be content with a token."""

    @contextmanager
    def lock_unless(self, timeout: float, is_enough: Callable[[Token], bool]) -> Iterator[Token | None]:
        self._note("lock unless")
        with self.inner.lock(timeout):
            yield None
            self._note("release")


def test_a_refresh_that_owes_the_storage_something_takes_the_lock_in_any_case(server, clock):
    storage = Watchful()
    auth = Reauth(lambda _: server.issue(), token=server.issue(lifetime=0), storage=storage, clock=clock)
    storage.fail("save")
    auth.get_token()
    assert storage.last_calls(4) == ["lock unless", "load", "save", "release"]
    clock.advance(3600)
    auth.get_token()  # what could not be saved counts, not what is held
    assert storage.last_calls(4) == ["lock", "load", "save", "release"]


# What it costs Redis.


class Counting(redis.Redis):
    """A client that writes down its commands."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.commands: list[str] = []

    def execute_command(self, *arguments: object, **options: object) -> object:
        self.commands.append(str(arguments[0]))
        return super().execute_command(*arguments, **options)


@pytest.mark.usefixtures("_nobody_looks_by_himself")
def test_what_an_expiry_costs_redis(redis_server: RedisServer):
    asked, answer, adopted = threading.Event(), threading.Event(), threading.Event()

    def keep_the_lease(_: object, action: object) -> None:
        if isinstance(action, RefreshFulfilled):  # the token is saved
            assert adopted.wait(LATE)

    def refresh(_: Token) -> Token:
        asked.set()
        assert answer.wait(LATE)
        return Token("new", refresh_token="2", expires_in=3600)

    clients = [Counting(unix_socket_path=redis_server.socket, socket_timeout=LATE) for _ in range(4)]
    holder, *others, late = [RedisStorage(client, key="app:token") for client in clients]
    save(holder, Token("old", refresh_token="1", expires_at=1.0))
    clients[0].commands.clear()
    auths = [Reauth(refresh, storage=holder), *(Reauth(never, storage=other) for other in others)]
    auths[0].store.subscribe(keep_the_lease)
    threads = [threading.Thread(target=auth.get_token) for auth in auths]
    threads[0].start()
    assert asked.wait(LATE)
    for thread in threads[1:]:
        thread.start()
    with redis_server.client() as client:
        while client.info("clients")["blocked_clients"] < len(others):
            pass
    answer.set()
    for thread in threads[1:]:
        thread.join(LATE)
    adopted.set()
    threads[0].join(LATE)
    for auth in auths:
        auth.close()
    last = Reauth(never, storage=late)
    assert last.get_token() == auths[0].get_token()
    last.close()
    assert [client.commands for client in clients] == [
        ["EVAL", "GET", "EVAL", "EVAL"],  # takes the lease, which brings the token; saves; gives it back
        ["EVAL", "BLPOP", "GET"],  # tries for the lease, waits, reads the token
        ["EVAL", "BLPOP", "GET"],
        ["EVAL", "EVAL"],  # takes the lease, which brings the token, and gives it back
    ]
    with redis_server.client() as client:
        assert client.keys() == [b"app:token"], "all that were counted have been rung for, and have heard it"
    for client in clients:
        client.close()
