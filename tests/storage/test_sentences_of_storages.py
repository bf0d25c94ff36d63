"""Tests of the messages about a storage that fails.

They say what happened and whether something is lost, and they contain no secret.
"""

from __future__ import annotations

import logging

import pytest
from storages import Recording

from httpx_reauth import Reauth, ReauthError, RefreshError, SaveFailed, StorageError, Token
from httpx_reauth.testing import ManualClock


@pytest.fixture
def storage() -> Recording:
    return Recording()


@pytest.fixture
def auth(storage: Recording, clock: ManualClock) -> Reauth:
    return Reauth(lambda _: Token("new", expires_in=3600), storage=storage, clock=clock)


def breaks(storage: Recording, name: str, error: Exception) -> None:
    def fail() -> None:
        raise error

    storage.before[name] = fail


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def has(text: str, *words: str) -> None:
    assert [word for word in words if word not in text] == [], text
    assert "s3cret" not in text


@pytest.mark.parametrize(
    ("error", "words"), [(StorageError("It is away."), "It is away."), (OSError("s3cret"), "OSError")]
)
@pytest.mark.parametrize(("name", "what"), [("load", "could not be read"), ("lock", "lock could not be taken")])
def test_a_storage_that_cannot_be_asked(
    auth: Reauth, storage: Recording, name: str, what: str, error: Exception, words: str
):
    breaks(storage, name, error)
    with pytest.raises(RefreshError) as caught:
        auth.get_token()
    has(str(caught.value), what, words, "nothing was asked of the server", "tried again after a back-off")
    assert isinstance(caught.value, StorageError)


@pytest.mark.parametrize("name", ["lock", "save"])
def test_the_error_of_a_sign_in_that_cannot_be_saved_mentions_no_refresh(auth: Reauth, storage: Recording, name: str):
    breaks(storage, name, PermissionError(13, "s3cret"))
    with pytest.raises(StorageError) as caught:
        auth.sign_in(Token("a", refresh_token="r"))
    has(str(caught.value), "Signed in for this process", "PermissionError", "tried again at the next request or close")
    assert "asked of the server" not in str(caught.value)
    assert str(caught.value).count("tried again") == 1


@pytest.mark.parametrize("name", ["lock", "clear"])
def test_the_error_of_a_sign_out_that_cannot_be_saved_mentions_no_refresh(auth: Reauth, storage: Recording, name: str):
    auth.sign_in(Token("a", refresh_token="r"))
    breaks(storage, name, PermissionError(13, "s3cret"))
    with pytest.raises(StorageError) as caught:
        auth.sign_out()
    has(str(caught.value), "PermissionError")
    assert "asked of the server" not in str(caught.value)


def test_a_lock_that_comes_late(auth: Reauth, storage: Recording, clock: ManualClock):
    storage.before["load"] = lambda: clock.advance(29.9)
    with pytest.raises(RefreshError) as caught:
        auth.get_token()
    has(str(caught.value), "too late", "refresh_timeout", "Nothing was asked of the server")


def test_a_token_that_cannot_be_saved(auth: Reauth, storage: Recording, caplog: pytest.LogCaptureFixture):
    errors: list[ReauthError] = []
    auth.store.subscribe(lambda _, action: errors.append(action.error) if isinstance(action, SaveFailed) else None)
    breaks(storage, "save", OSError("s3cret"))
    assert auth.get_token().access_token == "new"
    auth.close()
    (error,) = errors
    assert isinstance(error, StorageError)
    has(str(error), "OSError")
    (line,) = lines(caplog)
    has(line, "Could not save the new token", "kept in memory", "tried again", "OSError")


def test_a_storage_that_cannot_be_cleared(auth: Reauth, storage: Recording):
    breaks(storage, "clear", OSError("s3cret"))
    with pytest.raises(StorageError) as caught:
        auth.sign_out()
    has(str(caught.value), "OSError")


def test_a_lock_that_cannot_be_released(auth: Reauth, storage: Recording, caplog: pytest.LogCaptureFixture):
    breaks(storage, "release", OSError("s3cret"))
    assert auth.get_token().access_token == "new"
    auth.close()
    (line,) = lines(caplog)
    has(line, "lock could not be released", "OSError")


def test_another_process_that_has_signed_out(
    auth: Reauth, storage: Recording, clock: ManualClock, caplog: pytest.LogCaptureFixture
):
    auth.get_token()
    auth.close()
    storage.inner.clear()
    clock.advance(3600)
    with caplog.at_level(logging.INFO):
        with pytest.raises(ReauthError):
            auth.get_token()
        auth.close()
    assert any("Signed out by another process" in message for message in caplog.messages)


def test_a_token_that_is_saved_in_the_end(
    auth: Reauth, storage: Recording, clock: ManualClock, caplog: pytest.LogCaptureFixture
):
    storage.fail("save")
    auth.get_token()
    auth.close()
    storage.heal()
    clock.advance(1)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        auth.get_token()
        auth.close()
    has("".join(caplog.messages), "Saved the token")
