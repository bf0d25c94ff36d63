"""Tests of a token in the desktop's secret store, and of the errors if there is none."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import keyring
import keyring.backends.fail
import keyring.backends.null
import pytest
from keyring_backends import KeyringInMemory, use_keyring

from httpx_reauth import Reauth, RefreshError, StorageError, Token
from httpx_reauth.storage import KeyringStorage
from httpx_reauth.testing._contract_steps import locked

NEW = Token("new", refresh_token="new-secret")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@pytest.fixture
def backend():
    backend = KeyringInMemory()
    with use_keyring(backend):
        yield backend


@pytest.fixture
def storage(backend: KeyringInMemory) -> KeyringStorage:
    return KeyringStorage("app", user="alice")


def test_it_is_an_entry_of_the_service_and_the_user(storage, backend):
    storage.save(NEW)
    assert json.loads(backend.held["app", "alice"])["access_token"] == "new"


def test_unknown_fields_are_kept(storage, backend):
    storage.save(Token("old"))
    backend.held["app", "alice"] = json.dumps({**json.loads(backend.held["app", "alice"]), "note": "keep me"})
    storage.save(NEW)
    assert json.loads(backend.held["app", "alice"])["note"] == "keep me"


def test_clear_deletes_the_entry(storage, backend):
    storage.save(NEW)
    storage.clear()
    assert backend.held == {}


def test_an_entry_of_somebody_else_is_an_error_and_never_overwritten(storage, backend):
    backend.held["app", "alice"] = "a password"
    for use in (storage.load, lambda: storage.save(NEW), storage.clear):
        with pytest.raises(StorageError, match=r"KeyringStorage\('app', user='alice'\) holds no token"):
            use()
    assert backend.held["app", "alice"] == "a password"


def test_users_of_one_service_take_turns_and_services_do_not(storage):
    bob, other = KeyringStorage("app", user="bob"), KeyringStorage("other", user="alice")
    with locked(storage):
        assert bob.try_lock(1) is None
        with locked(other):
            pass


def test_its_lock_lies_in_the_cache_of_the_home_and_names_nobody(storage, home):
    with locked(storage):
        (lock,) = (home / ".cache" / "httpx_reauth").iterdir()
    assert "alice" not in lock.name
    assert "app" not in lock.name


@pytest.mark.parametrize("backend", [keyring.backends.fail.Keyring(), keyring.backends.null.Keyring()])
def test_a_machine_without_a_secret_store_says_what_is_missing(backend, home):
    storage = KeyringStorage("app", user="alice")
    with use_keyring(backend):
        for use in (lambda: storage.try_lock(1), storage.load, lambda: storage.save(NEW), storage.clear):
            with pytest.raises(StorageError, match=r"no secret store.*D-Bus.*FileStorage"):
                use()
    assert list(home.iterdir()) == []


def test_guarantee_2_a_machine_without_a_secret_store_says_so_before_a_grant_is_spent(clock):
    asked = []
    auth = Reauth(
        asked.append, token=Token(refresh_token="r"), storage=KeyringStorage("app", user="alice"), clock=clock
    )
    with use_keyring(keyring.backends.fail.Keyring()), pytest.raises(RefreshError, match="no secret store"):
        auth.get_token()
    assert asked == []


def test_a_secret_store_that_is_locked_says_so_before_a_grant_is_spent(storage, backend):
    backend.is_locked = True
    with locked(storage), pytest.raises(StorageError, match=r"cannot be read \(KeyringLocked.*Unlock it"):
        storage.load()


def test_a_token_that_is_too_long_for_it_says_how_long_it_is_and_the_old_one_stays(storage, backend):
    storage.save(NEW)
    backend.room = 1280
    with pytest.raises(StorageError, match=r"PasswordSetError.*takes \d{4} characters; Windows.* 1280") as caught:
        storage.save(Token("secret" * 500))
    assert "secretsecret" not in str(caught.value)
    assert storage.load() == NEW


def test_an_entry_that_cannot_be_deleted_says_that_it_is_still_there(storage, backend, monkeypatch):
    storage.save(NEW)

    def refuse(*_: object) -> None:
        raise keyring.errors.PasswordDeleteError("denied")

    monkeypatch.setattr(backend, "delete_password", refuse)
    with pytest.raises(StorageError, match=r"PasswordDeleteError.*still holds it"):
        storage.clear()


def test_a_backend_that_is_set_and_not_there_is_an_error_that_says_where_to_look(monkeypatch):
    storage = KeyringStorage("app", user="alice")
    monkeypatch.setattr(keyring.core, "_keyring_backend", None)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "nowhere.Keyring")
    with pytest.raises(StorageError, match=r"ModuleNotFoundError.*PYTHON_KEYRING_BACKEND"):
        storage.load()


@pytest.mark.parametrize("missing", ["keyring", "filelock"])
def test_without_its_packages_it_says_which_extra_brings_them(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf'needs {missing}: pip install "httpx-reauth\[keyring\]"'):
        KeyringStorage("app", user="alice")


def test_it_may_be_pickled_since_it_holds_names_and_no_secret(storage):
    storage.save(NEW)
    assert pickle.loads(pickle.dumps(storage)).load() == NEW
    assert repr(storage) == "KeyringStorage('app', user='alice')"
