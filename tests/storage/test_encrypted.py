"""Tests of a storage that nobody can read without the key."""

from __future__ import annotations

import pickle
import sys

import pytest
from cryptography.fernet import Fernet, MultiFernet

from httpx_reauth import StorageError, Token
from httpx_reauth.storage import EncryptedStorage, FileStorage, MemoryStorage
from httpx_reauth.testing._contract_steps import locked

KEY, OTHER_KEY = Fernet.generate_key(), Fernet.generate_key()
TOKEN = Token(
    "access-secret", refresh_token="refresh-secret", expires_at=1234567, scope="s3cr3t", extra={"x": "id-secret"}
)


@pytest.fixture
def inner() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def storage(inner: MemoryStorage) -> EncryptedStorage:
    storage = EncryptedStorage(inner, Fernet(KEY))
    storage.save(TOKEN)
    return storage


def test_guarantee_11_the_inner_storage_holds_a_ciphertext_and_nothing_to_read(tmp_path):
    path = tmp_path / "token.json"
    EncryptedStorage(FileStorage(path), Fernet(KEY)).save(TOKEN)
    for secret in ("secret", "s3cr3t", "1234567", "Bearer"):
        assert secret not in path.read_text()


def test_the_inner_storage_holds_a_token_of_the_type_fernet(storage, inner):
    held = inner.load()
    assert held == Token(held.access_token, token_type="Fernet")
    assert b"access-secret" in Fernet(KEY).decrypt(held.access_token.encode())


def test_another_key_is_an_error_that_says_what_to_do_and_overwrites_nothing(storage, inner):
    held = inner.load()
    other = EncryptedStorage(inner, Fernet(OTHER_KEY))
    for use in (other.load, lambda: other.save(Token("new-secret"))):
        with pytest.raises(StorageError, match=r"MemoryStorage\(\) holds cannot be decrypted.*sign out") as caught:
            use()
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is sys.exc_info()[1]  # the tests may run while another error is handled
    assert inner.load() is held


def test_signing_out_needs_no_key(storage, inner):
    other = EncryptedStorage(inner, Fernet(OTHER_KEY))
    other.clear()
    other.save(Token("new"))
    assert other.load() == Token("new")


def test_what_was_saved_without_encryption_is_an_error(inner):
    inner.save(Token("plain"))
    with pytest.raises(StorageError, match="saved without EncryptedStorage"):
        EncryptedStorage(inner, Fernet(KEY)).load()


@pytest.mark.parametrize("text", [b"not json", b'{"format": "httpx_reauth token", "version": 2}'])
def test_what_decrypts_to_something_else_is_an_error(inner, text):
    inner.save(Token(Fernet(KEY).encrypt(text).decode()))
    with pytest.raises(StorageError, match=r"EncryptedStorage\(MemoryStorage\(\)\) holds no token"):
        EncryptedStorage(inner, Fernet(KEY)).load()


def test_multi_fernet_reads_with_any_key_and_saves_with_the_first(storage, inner):
    both = EncryptedStorage(inner, MultiFernet([Fernet(OTHER_KEY), Fernet(KEY)]))
    token = both.load()
    assert token == TOKEN
    both.save(token)
    assert EncryptedStorage(inner, Fernet(OTHER_KEY)).load() == TOKEN
    with pytest.raises(StorageError):
        storage.load()


def test_its_lock_is_that_of_the_inner_storage(storage, inner):
    with locked(storage):
        assert inner.try_lock(1) is None


@pytest.mark.parametrize("key", [KEY, KEY.decode(), None], ids=["bytes", "str", "none"])
def test_a_key_instead_of_a_fernet_is_refused_without_showing_it(inner, key):
    with pytest.raises(TypeError, match=r"httpx-reauth\[encrypted\].*Fernet\(key\)") as caught:
        EncryptedStorage(inner, key)
    assert KEY.decode() not in str(caught.value)


def test_it_shows_no_key_and_refuses_to_be_pickled(storage):
    assert repr(storage) == "EncryptedStorage(MemoryStorage())"
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(storage)
