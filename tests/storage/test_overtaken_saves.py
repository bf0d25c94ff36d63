"""Tests of saves that come late: another call or another process has changed the token before."""

from __future__ import annotations

import logging
import threading

import pytest
from storages import Recording

from httpx_reauth import Reauth, RefreshError, SignedOut, SignInRequired, StorageError, Token
from httpx_reauth.testing import ManualClock

LATE = 30.0  # seconds; no test waits that long


class Refresh:
    """A refresh that returns `1`, `2`, `3`, each for an hour. It refuses the refresh tokens in `dead`."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.dead: set[str] = set()
        self.down = False

    def __call__(self, token: Token) -> Token:
        self.asked.append(token.refresh_token)
        if self.down:
            raise RefreshError("The server is down.")
        if token.refresh_token in self.dead:
            raise SignInRequired("invalid_grant")
        number = str(len(self.asked))
        return Token(number, refresh_token=number, expires_in=3600)


@pytest.fixture
def refresh() -> Refresh:
    return Refresh()


@pytest.fixture
def storage() -> Recording:
    return Recording()


def signs_in_unsaved(auth: Reauth, storage: Recording, token: Token) -> None:
    storage.fail("lock")
    with pytest.raises(StorageError):
        auth.sign_in(token)


def test_unsaved_sign_in_with_only_a_refresh_token_wins_over_the_stored_token(refresh: Refresh, storage: Recording):
    storage.inner.save(Token("held", refresh_token="held"))
    auth = Reauth(refresh, storage=storage)
    signs_in_unsaved(auth, storage, Token(refresh_token="mine"))
    storage.heal()
    assert auth.get_token().access_token == "1"
    auth.close()
    assert refresh.asked == ["mine"]
    assert storage.inner.load() == auth.store.state.token


def test_a_refresh_token_that_somebody_else_has_put_in_the_place_of_a_dead_one_is_tried(
    refresh: Refresh, storage: Recording, clock: ManualClock
):
    refresh.dead.add("old")
    auth = Reauth(refresh, token=Token(refresh_token="old"), storage=storage, clock=clock)
    with pytest.raises(SignInRequired):
        auth.get_token()
    storage.inner.save(Token(refresh_token="new"))
    clock.advance(61)
    assert auth.get_token().access_token == "2"
    assert refresh.asked == ["old", "new"]


@pytest.mark.parametrize("since", ["room", "no room", "another token"])
def test_a_token_that_could_not_be_saved_is_saved_unless_somebody_else_has_saved_another_since(
    refresh: Refresh, storage: Recording, clock: ManualClock, caplog: pytest.LogCaptureFixture, since: str
):
    auth = Reauth(refresh, token=Token("first", refresh_token="0", expires_in=60), storage=storage, clock=clock)
    auth.get_token()
    clock.advance(60)
    storage.fail("save")
    auth.get_token()
    auth.close()
    if since != "no room":
        storage.heal()
    if since == "another token":
        storage.inner.save(Token("newer", refresh_token="newer"))
    clock.advance(1)
    with caplog.at_level(logging.INFO):
        auth.get_token()  # this call saves the token
        auth.close()
    held, mine = storage.inner.load(), auth.store.state.token
    assert held is not None
    assert mine is not None
    expected = {"room": mine, "no room": Token("first"), "another token": Token("newer")}[since]
    assert held.access_token == expected.access_token
    assert ("Saved the token" in caplog.text) is (since == "room")
    assert refresh.asked == ["0"]


def test_a_sign_in_that_another_one_supersedes_while_it_waits_for_the_lock_is_not_saved(
    refresh: Refresh, storage: Recording
):
    waits, may_go_on = threading.Event(), threading.Event()

    def wait() -> None:
        storage.before.clear()
        waits.set()
        assert may_go_on.wait(LATE)

    auth = Reauth(refresh, storage=storage)
    storage.before["lock"] = wait
    thread = threading.Thread(target=auth.sign_in, args=(Token("first"),))
    thread.start()
    assert waits.wait(LATE)
    auth.sign_in(Token("second"))
    may_go_on.set()
    thread.join(LATE)
    assert storage.calls == ["lock", "save", "release", "lock", "release"]
    assert storage.inner.load() == auth.store.state.token == Token("second")


def test_a_sign_out_in_two_processes_at_the_same_time_is_dispatched_once(
    refresh: Refresh, storage: Recording, clock: ManualClock, caplog: pytest.LogCaptureFixture
):
    auth = Reauth(refresh, token=Token("first", refresh_token="0", expires_in=60), storage=storage, clock=clock)
    auth.get_token()
    auth.close()
    clock.advance(60)
    told: list[object] = []

    def sign_out_here_and_there() -> None:
        storage.inner.clear()
        auth.store.dispatch(SignedOut())

    auth.store.subscribe(lambda _, action: told.append(action))
    storage.before["load"] = sign_out_here_and_there
    with pytest.raises(SignInRequired), caplog.at_level(logging.INFO):
        auth.get_token()
    auth.close()
    assert [type(action) for action in told].count(SignedOut) == 1
    assert "another process" not in caplog.text
    assert refresh.asked == []


@pytest.mark.parametrize("saving", ["works", "fails"])
def test_a_refresh_that_a_sign_in_supersedes_leaves_the_token_of_the_sign_in_in_the_storage_if_it_can(
    storage: Recording, saving: str
):
    def refresh(token: Token) -> Token:
        auth.sign_in(Token("given", refresh_token="given", expires_in=3600))
        if saving == "fails":
            storage.fail("save")
        return Token("spent", refresh_token="spent", expires_in=3600)

    storage.inner.save(Token(refresh_token="held"))
    auth = Reauth(refresh, storage=storage)
    assert auth.get_token().access_token == "given"
    auth.close()
    storage.heal()
    auth.close()  # it saves the token that could not be saved
    held = storage.inner.load()
    assert held is not None
    assert (held.access_token, held.refresh_token) == ("given", "given")


# A token that could not be saved, and another token that was saved meanwhile.


@pytest.mark.parametrize("theirs", ["usable", "to be renewed"])
def test_guarantee_6_a_dead_sign_in_that_could_not_be_saved_gives_way_to_what_others_save_later(
    refresh: Refresh, storage: Recording, clock: ManualClock, theirs: str
):
    auth = Reauth(refresh, storage=storage, clock=clock)
    signs_in_unsaved(auth, storage, Token("mine", refresh_token="mine", expires_in=60))
    storage.heal()
    refresh.dead.add("mine")
    clock.advance(60)
    with pytest.raises(SignInRequired):
        auth.get_token()
    storage.inner.save(Token("theirs" if theirs == "usable" else "", refresh_token="theirs", expires_in=3600))
    auth.close()  # closing saves the token
    held = storage.inner.load()
    assert held is not None
    assert held.refresh_token == "theirs"
    clock.advance(2)
    assert auth.get_token().access_token == ("theirs" if theirs == "usable" else "2")
    assert refresh.asked == (["mine"] if theirs == "usable" else ["mine", "theirs"])


def test_guarantee_6_a_dead_sign_in_is_posted_once_if_what_others_have_saved_is_dead_as_well(
    refresh: Refresh, storage: Recording, clock: ManualClock
):
    auth = Reauth(refresh, storage=storage, clock=clock)
    signs_in_unsaved(auth, storage, Token(refresh_token="mine"))
    storage.heal()
    storage.inner.save(Token(refresh_token="theirs"))
    refresh.dead.update({"mine", "theirs"})
    for _ in range(4):
        with pytest.raises(SignInRequired):
            auth.get_token()
        clock.advance(61)
    assert refresh.asked == ["mine", "theirs", "theirs"]  # two flights, and each looked for a better token first


def test_guarantee_6_whoever_signs_in_with_a_token_that_was_dead_has_it_asked_for_again(
    refresh: Refresh, storage: Recording, clock: ManualClock
):
    auth = Reauth(refresh, token=Token(refresh_token="old"), storage=storage, clock=clock)
    refresh.dead.add("old")
    for _ in range(2):
        with pytest.raises(SignInRequired):
            auth.get_token()
        clock.advance(61)
    refresh.dead.clear()  # the account was locked for a while
    auth.sign_in(Token(refresh_token="old"))
    assert auth.get_token().access_token == "2"
    assert refresh.asked == ["old", "old"]


def test_guarantee_2_a_sign_in_whose_renewal_failed_for_want_of_a_refresh_token_is_saved_while_it_lives(
    storage: Recording, clock: ManualClock
):
    def refresh(token: Token) -> Token:
        raise SignInRequired("There is no refresh token.")

    auth = Reauth(refresh, storage=storage, clock=clock)
    signs_in_unsaved(auth, storage, Token("mine", expires_in=3600))
    storage.heal()
    with pytest.raises(SignInRequired):
        auth.get_token(rejected=auth.store.state.token)
    auth.close()
    held = storage.inner.load()
    assert held is not None
    assert held.access_token == "mine"


def test_guarantee_1_a_first_token_that_could_not_be_saved_and_that_others_have_spent_is_not_spent_again(
    refresh: Refresh, storage: Recording, clock: ManualClock
):
    first = Token("first", refresh_token="first", expires_in=60)
    auth, other = (Reauth(refresh, token=first, storage=storage, clock=clock) for _ in range(2))
    storage.fail("save")
    assert auth.get_token().access_token == "first"
    auth.close()
    storage.heal()
    clock.advance(60)
    assert other.get_token() == auth.get_token()
    assert refresh.asked == ["first"]


def test_guarantee_2_a_first_token_that_could_not_be_saved_is_not_saved_over_its_successor(
    refresh: Refresh, storage: Recording, clock: ManualClock
):
    first = Token("first", refresh_token="first", expires_in=3600)
    auth = Reauth(refresh, token=first, storage=storage, clock=clock)
    storage.fail("save")
    auth.get_token()
    storage.heal()
    other = Reauth(refresh, token=first, storage=storage, clock=clock)
    renewed = other.get_token(rejected=other.get_token())
    assert renewed.access_token == "1"
    clock.advance(1)
    auth.get_token()  # this call saves the token
    auth.close()
    assert storage.inner.load() == renewed


def test_guarantee_2_a_token_that_could_not_be_saved_stays_behind_what_others_have_saved_if_that_cannot_be_renewed_yet(
    refresh: Refresh, storage: Recording, clock: ManualClock
):
    auth = Reauth(refresh, token=Token("first", refresh_token="0", expires_in=60), storage=storage, clock=clock)
    auth.get_token()
    clock.advance(60)
    storage.fail("save")
    assert auth.get_token().access_token == "1"
    storage.heal()
    storage.inner.save(Token(refresh_token="theirs"))
    clock.advance(3600)
    refresh.down = True
    with pytest.raises(RefreshError):
        auth.get_token()
    auth.close()  # closing saves the token
    assert storage.inner.load() == Token(refresh_token="theirs")
    refresh.down = False
    clock.advance(2)
    assert auth.get_token().access_token == "3"
    assert refresh.asked == ["0", "theirs", "theirs"]
