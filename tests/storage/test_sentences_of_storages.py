"""What is said where a storage is away, to the letter: whoever reads it must know that nothing is lost, or what is."""

from __future__ import annotations

import logging

import pytest
from storages import Recording

from httpx_reauth import Reauth, ReauthError, RefreshError, SaveFailed, StorageError, Token
from httpx_reauth.testing import ManualClock

NOT_READ = "The storage could not be read ({}), so nothing was asked of the server. It is tried again after a back-off."
NOT_LOCKED = (
    "The storage's lock could not be taken ({}), so nothing was asked of the server: without it, "
    "two processes could spend one refresh token. It is tried again after a back-off."
)
LOCKED_LATE = (
    "The storage's lock was taken too late to finish a refresh within refresh_timeout, and one that is stopped "
    "half-way can lose the refresh token. Nothing was asked of the server; it is tried again after a back-off."
)
RAISED = "The storage raised OSError; see the cause."


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


@pytest.mark.parametrize(
    ("error", "words"), [(StorageError("It is away."), "It is away."), (OSError("s3cret"), "OSError")]
)
@pytest.mark.parametrize(("name", "sentence"), [("load", NOT_READ), ("lock", NOT_LOCKED)])
def test_a_storage_that_cannot_be_asked(
    auth: Reauth, storage: Recording, name: str, sentence: str, error: Exception, words: str
):
    breaks(storage, name, error)
    with pytest.raises(RefreshError) as caught:
        auth.get_token()
    assert str(caught.value) == sentence.format(words)
    assert caught.value.__cause__ is error


def test_a_lock_that_comes_late(auth: Reauth, storage: Recording, clock: ManualClock):
    storage.before["load"] = lambda: clock.advance(29.9)
    with pytest.raises(RefreshError) as caught:
        auth.get_token()
    assert str(caught.value) == LOCKED_LATE


def test_a_token_that_cannot_be_saved(auth: Reauth, storage: Recording, caplog: pytest.LogCaptureFixture):
    errors: list[ReauthError] = []
    auth.store.subscribe(lambda _, action: errors.append(action.error) if isinstance(action, SaveFailed) else None)
    breaks(storage, "save", cause := OSError("s3cret"))
    assert auth.get_token().access_token == "new"
    auth.close()
    assert [(type(error), str(error), error.__cause__) for error in errors] == [(StorageError, RAISED, cause)]
    assert lines(caplog) == [f"Could not save the new token, which is kept in memory and saved later: {RAISED}"]


def test_a_storage_that_cannot_be_cleared(auth: Reauth, storage: Recording):
    breaks(storage, "clear", cause := OSError("s3cret"))
    with pytest.raises(StorageError) as caught:
        auth.sign_out()
    assert (str(caught.value), caught.value.__cause__) == (RAISED, cause)


def test_a_lock_that_cannot_be_released(auth: Reauth, storage: Recording, caplog: pytest.LogCaptureFixture):
    breaks(storage, "release", OSError("s3cret"))
    assert auth.get_token().access_token == "new"
    auth.close()
    assert lines(caplog) == ["The storage's lock could not be released (OSError)."]


def test_another_process_that_has_signed_out(
    auth: Reauth, storage: Recording, clock: ManualClock, caplog: pytest.LogCaptureFixture
):
    auth.get_token()
    auth.close()
    storage.inner.clear()
    clock.advance(3600)
    with pytest.raises(ReauthError), caplog.at_level(logging.INFO):
        auth.get_token()
    auth.close()
    assert caplog.messages[-1] == "Signed out by another process: the storage holds no token any more."


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
    assert caplog.messages == ["Saved the token that could not be saved before."]
