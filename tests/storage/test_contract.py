"""Tests that each of our storages fulfils the contract, which a user's storage can inherit."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from cryptography.fernet import Fernet
from keyring_backends import KeyringInMemory, use_keyring
from redis_server import RedisServer

from httpx_reauth.storage import (
    EncryptedStorage,
    FileStorage,
    KeyringStorage,
    MemoryStorage,
    RedisStorage,
    Storage,
)
from httpx_reauth.testing import StorageContract


class TestMemoryStorage(StorageContract):
    @pytest.fixture(autouse=True)
    def place(self):
        self.storage = MemoryStorage()

    def make(self) -> Storage:
        return self.storage


class TestFileStorage(StorageContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path):
        self.path = tmp_path / "folder" / "token.json"

    def make(self) -> Storage:
        return FileStorage(self.path)


@pytest.mark.parametrize("decode_responses", [False, True])
class TestRedisStorage(StorageContract):
    @pytest.fixture(autouse=True)
    def place(self, redis_server: RedisServer, decode_responses: bool):
        self.clients: list[redis.Redis] = []
        self.server, self.decodes = redis_server, decode_responses
        yield
        for client in self.clients:
            client.close()

    def make(self) -> Storage:
        client = self.server.client(decode_responses=self.decodes)
        self.clients.append(client)
        return RedisStorage(client, key="app:token:alice")


class TestKeyringStorage(StorageContract):
    @pytest.fixture(autouse=True)
    def place(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.setenv("HOME", str(tmp_path))
        with use_keyring(KeyringInMemory()):
            yield

    def make(self) -> Storage:
        return KeyringStorage("app", user="alice")


class TestEncryptedFileStorage(TestFileStorage):
    KEY = Fernet.generate_key()

    def make(self) -> Storage:
        return EncryptedStorage(FileStorage(self.path), Fernet(self.KEY))


class TestEncryptedMemoryStorage(TestMemoryStorage):
    FERNET = Fernet(Fernet.generate_key())

    def make(self) -> Storage:
        return EncryptedStorage(self.storage, self.FERNET)
