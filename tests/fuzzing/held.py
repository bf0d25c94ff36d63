"""Targets: the bytes that a storage may find in the place of the token."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from keyring_backends import KeyringInMemory, use_keyring
from redis_server import RedisServer

from httpx_reauth import Reauth, RefreshError, StorageError, Token
from httpx_reauth.storage import EncryptedStorage, FileStorage, KeyringStorage, MemoryStorage, RedisStorage

from .inputs import ACCESS, REFRESH
from .oracle import outcome_of

NEW = Token("new", refresh_token="next", expires_in=3600, expires_at=1_893_456_000)


def _keeps(storage: Any, put: Callable[[bytes], None], get: Callable[[], bytes | None]) -> Callable[[bytes], None]:
    """Put bytes into the place of the token.

    Assert that they are read, or that they are an error and left unchanged.
    """

    def check(held: bytes) -> None:
        put(held)
        loaded = outcome_of(storage.load, ACCESS, REFRESH, documented=StorageError)
        assert loaded is None or type(loaded) in (Token, StorageError)
        saved = outcome_of(lambda: storage.save(NEW), ACCESS, REFRESH, NEW.access_token * 5, documented=StorageError)
        if isinstance(loaded, StorageError):
            assert type(saved) is StorageError
            assert get() == held
            auth = Reauth(lambda _: NEW, storage=storage)
            error = outcome_of(auth.get_token, ACCESS, REFRESH)
            assert isinstance(error, StorageError)
            assert isinstance(error, RefreshError)
            auth.close()
        elif saved is None:
            assert storage.load() == NEW
        else:  # fields that this version does not know, and which are nested too deeply
            assert "cannot be saved" in str(saved)
            assert get() == held

    return check


@contextmanager
def files(_: RedisServer | None) -> Generator[Callable[[bytes], None], None, None]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "token.json"
        yield _keeps(FileStorage(path), path.write_bytes, path.read_bytes)


@contextmanager
def keyrings(_: RedisServer | None) -> Generator[Callable[[bytes], None], None, None]:
    backend = KeyringInMemory()

    def put(held: bytes) -> None:
        backend.held["app", "me"] = held.decode("utf-8", "surrogateescape")

    def get() -> bytes:
        return backend.held["app", "me"].encode("utf-8", "surrogateescape")

    with use_keyring(backend):
        yield _keeps(KeyringStorage("app", user="me"), put, get)


@contextmanager
def ciphertexts(_: RedisServer | None) -> Generator[Callable[[bytes], None], None, None]:
    fernet, inner = Fernet(Fernet.generate_key()), MemoryStorage()

    def put(held: bytes) -> None:
        inner.save(Token(fernet.encrypt(held).decode(), token_type="Fernet"))

    def get() -> bytes:
        token = inner.load()
        assert token is not None
        return fernet.decrypt(token.access_token.encode())

    yield _keeps(EncryptedStorage(inner, fernet), put, get)


@contextmanager
def redis_values(server: RedisServer | None) -> Generator[Callable[[bytes], None], None, None]:
    assert server is not None
    with server.client() as client, server.client(decode_responses=True, encoding_errors="surrogateescape") as lenient:

        def check(held: bytes) -> None:
            for one in (client, lenient):
                storage = RedisStorage(one, key="token")
                _keeps(storage, lambda held: client.set("token", held), lambda: client.get("token"))(held)

        yield check
