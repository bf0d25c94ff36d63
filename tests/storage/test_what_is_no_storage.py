"""Tests of objects that are no storage: the error comes immediately, or with the first call that shows it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.fernet import Fernet

from httpx_reauth import Reauth, RefreshError, SaveFailed, StorageError, Token
from httpx_reauth.storage import EncryptedStorage, FileStorage, KeyringStorage, MemoryStorage, RedisStorage
from httpx_reauth.testing import ManualClock
from httpx_reauth.testing._contract_steps import locked

FERNET = Fernet(Fernet.generate_key())


def refresh(_: Token) -> Token:
    return Token("new", refresh_token="s3cret", expires_in=3600)


class AsyncSave(MemoryStorage):
    async def save(self, token: Token) -> None:  # type: ignore[override]
        super().save(token)


class OldLock:
    """A storage as in earlier versions."""

    load = save = clear = lock = lambda self, *_: None


@pytest.mark.parametrize(
    ("storage", "says"),
    [
        (FileStorage, "FileStorage(...)"),
        (MemoryStorage, "MemoryStorage(...)"),
        ("token.json", "FileStorage(path)"),
        (Path("token.json"), "FileStorage(path)"),
        (OldLock(), "try_lock"),
        (object(), "load, save, clear, try_lock"),
        ({}, "dict"),
        (AsyncSave(), "AsyncSave.save"),
    ],
)
def test_what_is_no_storage_is_a_type_error_that_says_what_to_write(storage: object, says: str):
    with pytest.raises(TypeError) as caught:
        Reauth(refresh, storage=storage)  # type: ignore[arg-type]
    assert says in str(caught.value)
    with pytest.raises(TypeError) as caught:
        EncryptedStorage(storage, FERNET)  # type: ignore[arg-type]
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("given", "error"), [(None, TypeError), (5, TypeError), (b"token", TypeError), ("", ValueError)]
)
@pytest.mark.parametrize("setting", ["path", "key", "service", "user"])
def test_a_place_that_is_empty_or_not_text_is_an_error_that_names_its_setting(
    setting: str, given: Any, error: type[Exception]
):
    makers: dict[str, Any] = {
        "path": FileStorage,
        "key": lambda key: RedisStorage.from_url("redis://127.0.0.1", key=key),
        "service": lambda service: KeyringStorage(service, user="me"),
        "user": lambda user: KeyringStorage("app", user=user),
    }
    with pytest.raises(error, match=rf"^{setting} .*environment variable"):
        makers[setting](given)


def test_the_class_fernet_is_refused_where_an_object_is_expected():
    with pytest.raises(TypeError, match=r"Fernet\(key\)"):
        EncryptedStorage(MemoryStorage(), Fernet)  # type: ignore[arg-type]


class Odd(MemoryStorage):
    """A storage with one function that returns `answer`."""

    def __init__(self, name: str, answer: object) -> None:
        super().__init__()
        self.name, self.answer = name, answer

    def load(self) -> Token | None:
        return self.answer if self.name == "load" else super().load()  # type: ignore[return-value]

    def try_lock(self, lease: float) -> AbstractContextManager[object] | None:
        return self.answer if self.name == "try_lock" else super().try_lock(lease)  # type: ignore[return-value]


async def coroutine() -> None:
    """A coroutine function. The coroutine is closed, so Python does not warn about it."""


@pytest.mark.parametrize(
    ("name", "answer", "says"),
    [
        ("load", coroutine, "awaitable"),
        ("load", {"access_token": "s3cret"}, "dict"),
        ("load", "s3cret", "str"),
        ("try_lock", coroutine, "awaitable"),
        ("try_lock", True, "bool"),
    ],
)
def test_a_storage_that_answers_with_something_else_spends_nothing_and_is_named(
    clock: ManualClock, name: str, answer: object, says: str
):
    asked: list[Token] = []
    answer = answer() if callable(answer) else answer
    auth = Reauth(lambda token: asked.append(token) or refresh(token), storage=Odd(name, answer), clock=clock)
    with pytest.raises(RefreshError) as caught:
        auth.get_token()
    auth.close()
    assert isinstance(caught.value, StorageError)
    assert name in str(caught.value)
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert asked == []


def test_a_save_that_returns_an_awaitable_has_not_saved(clock: ManualClock):
    class Lazy(MemoryStorage):
        def save(self, token: Token) -> object:  # type: ignore[override]
            return coroutine()

    auth, failures = Reauth(refresh, storage=Lazy(), clock=clock), []
    auth.store.subscribe(lambda _, action: failures.append(action) if isinstance(action, SaveFailed) else None)
    auth.get_token()
    auth.close()
    assert ["awaitable" in str(failure.error) for failure in failures] == [True]


# An EncryptedStorage that was not used.


@pytest.fixture(params=["memory", "file", "redis"])
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStorage | FileStorage | RedisStorage:
    if request.param == "redis":
        client: redis.Redis = request.getfixturevalue("redis_client")
        return RedisStorage(client, key="app:token")
    return FileStorage(tmp_path / "token.json") if request.param == "file" else MemoryStorage()


def test_guarantee_9_a_ciphertext_is_never_taken_for_a_token(
    inner: MemoryStorage | FileStorage | RedisStorage, clock: ManualClock
):
    asked: list[Token] = []
    with locked(EncryptedStorage(inner, FERNET)):
        EncryptedStorage(inner, FERNET).save(Token("a", refresh_token="r", expires_in=3600))
    held = inner.load()
    auth = Reauth(lambda token: asked.append(token) or refresh(token), storage=inner, clock=clock)
    with pytest.raises(RefreshError, match="EncryptedStorage") as caught:
        auth.get_token()
    auth.close()
    assert asked == []
    assert held is not None
    assert held.access_token not in str(caught.value)
    assert inner.load() == held


# Two storages of one place.


def test_storages_of_one_place_are_equal_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_client: redis.Redis
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.json").symlink_to("token.json")
    memory, other_client = MemoryStorage(), redis.Redis()
    places = [
        [FileStorage(tmp_path / "token.json"), FileStorage("token.json"), FileStorage("folder/../token.json"),
         FileStorage("link.json")],
        [FileStorage("other.json")],
        [RedisStorage(redis_client, key="a"), RedisStorage(redis_client, key="a")],
        [RedisStorage(redis_client, key="b")],
        [RedisStorage(other_client, key="a")],
        [KeyringStorage("app", user="alice"), KeyringStorage("app", user="alice")],
        [KeyringStorage("app", user="bob")],
        [KeyringStorage("other", user="alice")],
        [memory, memory],
        [MemoryStorage()],
        [EncryptedStorage(FileStorage("token.json"), FERNET), EncryptedStorage(FileStorage("token.json"), FERNET)],
        [EncryptedStorage(memory, FERNET)],
        [object()],
    ]  # fmt: skip
    for at, place in enumerate(places):
        assert len(set(place)) == 1, place
        assert all(one == place[0] for one in place)
        for other in places[at + 1 :]:
            assert place[0] != other[0]
    other_client.close()


def test_a_storage_with_a_reading_of_its_own_is_another(tmp_path: Path):
    class Own(FileStorage):
        __slots__ = ()

    assert Own(tmp_path / "a") != FileStorage(tmp_path / "a")
    assert Own(tmp_path / "a") == Own(tmp_path / "a")
