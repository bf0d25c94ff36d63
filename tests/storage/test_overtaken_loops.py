"""Tests of a requested token that is not lost although the event loop, the lock or another `Reauth` gets in the way."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import pytest
from storages import Recording

from httpx_reauth import Reauth, RefreshRejected, SaveFailed, SignInRequired, StorageError, Token, TokenStore
from httpx_reauth._tokens._refresh import worker as _runner
from httpx_reauth.testing import ManualClock

LATE = 30.0  # seconds; no test waits that long


def test_guarantee_2_the_answer_of_a_coroutine_is_saved_though_its_loop_is_closed_immediately(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str | None] = []
    told: list[type] = []
    storage, loop = Recording(), asyncio.new_event_loop()

    async def refresh(token: Token) -> Token:
        asked.append(token.refresh_token)
        loop.stop()  # the loop stops after this step of the task, so nobody learns that the task has ended
        return Token(f"new {len(asked)}", refresh_token=f"new {len(asked)}", expires_in=100)

    first = Token("first", refresh_token="first", expires_in=100)
    auth = Reauth(refresh, token=first, storage=storage, clock=clock)
    loop.run_until_complete(auth.aget_token())
    auth.store.subscribe(lambda _, action: told.append(type(action)))
    monkeypatch.setattr(_runner, "LOOK", 0.2)  # seconds until the thread notices that the loop is closed
    clock.advance(90)
    # this also starts a renewal in the background
    assert loop.run_until_complete(auth.aget_token()).access_token == "first"
    loop.run_forever()
    loop.close()
    assert auth.get_token(rejected=auth.store.state.token).access_token == "new 1"
    auth.close()
    assert asked == ["first"]
    assert RefreshRejected not in told
    assert storage.inner.load() == auth.store.state.token


def test_guarantee_2_a_sign_in_that_never_got_the_lock_counts_as_saved_if_the_superseded_refresh_has_saved_it():
    told: list[type] = []
    storage = Recording()
    is_asked, may_answer, may_fail = (threading.Event() for _ in range(3))

    def refresh(_: Token) -> Token:
        is_asked.set()
        assert may_answer.wait(LATE)
        return Token("spent", refresh_token="spent", expires_in=3600)

    def wait_in_vain() -> None:
        storage.before.clear()
        may_answer.set()
        assert may_fail.wait(LATE)
        raise StorageError("Somebody else has held the lock for too long.")

    storage.inner.save(Token(refresh_token="held"))
    auth = Reauth(refresh, storage=storage)
    auth.store.subscribe(lambda _, action: told.append(type(action)))

    def sign_in() -> None:
        with suppress(StorageError):
            auth.sign_in(Token("given", refresh_token="given", expires_in=3600))

    def get_token() -> None:
        with suppress(SignInRequired):
            auth.get_token()

    request = threading.Thread(target=get_token)
    request.start()
    assert is_asked.wait(LATE)
    storage.before["lock"] = wait_in_vain
    person = threading.Thread(target=sign_in)
    person.start()
    request.join(LATE)
    storage.last_calls(2)
    renewed = Token("theirs", refresh_token="theirs", expires_in=3600)
    storage.inner.save(renewed)  # another process has renewed the token that was saved
    may_fail.set()
    person.join(LATE)
    auth.close()  # it saves the token that could not be saved
    assert SaveFailed not in told
    assert storage.inner.load() == renewed


def test_guarantee_1_a_token_that_a_superseded_refresh_spends_is_not_adopted_by_another_object_on_its_store(
    clock: ManualClock,
):
    asked: list[str | None] = []
    is_asked, is_waiting, may_answer = (threading.Event() for _ in range(3))
    storage, store = Recording(), TokenStore()

    def refresh(token: Token) -> Token:
        asked.append(token.refresh_token)
        if len(asked) == 1:
            is_asked.set()
            assert may_answer.wait(LATE)
        return Token(f"new {len(asked)}", refresh_token=f"new {len(asked)}", expires_in=3600)

    storage.inner.save(Token("held", refresh_token="held", expires_in=3600))
    one, other = (Reauth(refresh, store=store, storage=storage, clock=clock) for _ in range(2))
    held = one.get_token()
    overtaken: list[str] = []

    def renew() -> None:
        try:
            one.get_token(rejected=held)
        except SignInRequired as error:
            overtaken.append(str(error))

    request = threading.Thread(target=renew)
    request.start()
    assert is_asked.wait(LATE)
    storage.before["lock"] = is_waiting.set
    person = threading.Thread(target=one.sign_out)
    person.start()
    assert is_waiting.wait(LATE)
    request.join(LATE)  # the request ends, but the refresh runs on
    storage.before["lock"] = may_answer.set  # the next refresh waits for the lock, and that makes the server answer
    got = other.get_token()
    storage.before.clear()
    may_answer.set()
    person.join(LATE)
    one.close()
    assert len(overtaken) == 1
    assert asked == ["held", None]
    assert got.access_token == "new 2"
