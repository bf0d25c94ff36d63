"""Tests of a refresh with a storage, call by call: when it calls the refresh function, and what it saves."""

from __future__ import annotations

from contextlib import suppress

import pytest
from storages import Recording

from httpx_reauth import Reauth, ReauthError, RefreshError, SaveFailed, SignInRequired, StorageError, Token, TokenStore
from httpx_reauth.storage import FileStorage, MemoryStorage
from httpx_reauth.testing import ManualClock

HOUR = 3600.0


class Asked:
    """A refresh function that records its tokens. It returns or raises `answers` in turn, then `new-1`, `new-2` ..."""

    def __init__(self, *answers: Token | Exception) -> None:
        self.last: list[str] = []
        self.answers = list(answers)

    def __call__(self, token: Token) -> Token:
        self.last.append(token.refresh_token or "")
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        number = len(self.last)
        return answer or Token(f"new-{number}", refresh_token=f"r-new-{number}", expires_in=HOUR)


def token(name: str, **times: float) -> Token:
    return Token(name, refresh_token=f"r-{name}", **{"expires_in": HOUR, **times})


def holding(name: str | None, clock: ManualClock, **times: float) -> Recording:
    """Return a storage that holds the token of that name, as another process has left it."""
    inner = MemoryStorage()
    if name is not None:
        inner.save(Token().renewed(token(name, **times), clock.time()))
    return Recording(inner)


def held(storage: Recording) -> str | None:
    token = storage.inner.load()
    return None if token is None else token.access_token


def test_without_a_token_anywhere_the_refresh_is_asked_under_the_lock_and_its_answer_is_saved_before_it_is_used():
    clock, asked = ManualClock(), Asked()
    storage = holding(None, clock)
    auth = Reauth(asked, storage=storage, clock=clock)
    assert auth.get_token().access_token == "new-1"
    assert storage.last_calls(4) == ["lock", "load", "save", "release"]
    assert asked.last == [""]


def test_what_another_process_has_renewed_is_adopted_without_a_request_and_not_saved_again():
    clock, asked = ManualClock(), Asked()
    storage = holding("theirs", clock)
    auth = Reauth(asked, storage=storage, token=token("mine"), clock=clock)
    assert auth.get_token().access_token == "theirs"
    assert storage.last_calls(3) == ["lock", "load", "release"]
    assert asked.last == []


def test_a_first_token_seeds_an_empty_storage():
    clock, asked = ManualClock(), Asked()
    storage = holding(None, clock)
    auth = Reauth(asked, storage=storage, token=token("mine"), clock=clock)
    assert auth.get_token().access_token == "mine"
    assert (storage.last_calls(4), held(storage), asked.last) == (["lock", "load", "save", "release"], "mine", [])


def test_an_expired_token_of_the_storage_is_renewed_and_the_reason_is_that_it_has_expired():
    clock, asked, reasons = ManualClock(), Asked(), []
    storage = holding("theirs", clock)
    clock.advance(2 * HOUR)
    auth = Reauth(asked, storage=storage, clock=clock)
    auth.store.subscribe(lambda _, action: reasons.append(action.reason))
    assert auth.get_token().access_token == "new-1"
    assert asked.last == ["r-theirs"]
    assert reasons[-1] == "expired"


def test_a_refused_token_is_not_adopted_again():
    clock, asked = ManualClock(), Asked()
    storage = holding("theirs", clock)
    auth = Reauth(asked, storage=storage, clock=clock)
    refused = auth.get_token()
    assert auth.get_token(rejected=refused).access_token == "new-1"
    assert asked.last == ["r-theirs"]


def test_a_sign_out_in_another_process_is_followed():
    clock, asked = ManualClock(), Asked()
    storage = holding("theirs", clock)
    auth = Reauth(asked, storage=storage, clock=clock)
    auth.get_token()
    storage.inner.clear()
    clock.advance(2 * HOUR)
    with pytest.raises(SignInRequired):
        auth.get_token()
    assert (auth.token, asked.last) == (None, [])


def test_guarantee_6_a_dead_refresh_token_is_posted_once_and_looked_at_again():
    clock, asked = ManualClock(), Asked(SignInRequired("dead"), SignInRequired("dead"))
    storage = holding("theirs", clock)
    clock.advance(2 * HOUR)
    auth = Reauth(asked, storage=storage, clock=clock)
    for _ in range(3):
        with pytest.raises(SignInRequired, match="dead"):
            auth.get_token()
        clock.advance(120)  # the storage is read now, because a user may have signed in in another process
    assert asked.last == ["r-theirs"]
    storage.inner.save(Token().renewed(token("fresh"), clock.time()))
    assert auth.get_token().access_token == "fresh"
    assert asked.last == ["r-theirs"]


@pytest.mark.parametrize(("is_usable", "expected", "asked_with"), [(True, "other", 1), (False, "new-2", 2)])
def test_what_somebody_has_put_in_the_place_of_a_dead_token_is_adopted_or_asked_with(
    *, is_usable: bool, expected: str, asked_with: int
):
    clock = ManualClock()
    storage = holding("theirs", clock)
    clock.advance(2 * HOUR)

    class Rotated(Asked):
        def __call__(self, token_: Token) -> Token:
            if not self.last:  # a process that takes no lock is faster
                times = {} if is_usable else {"expires_in": 0.0}
                storage.inner.save(Token().renewed(token("other", **times), clock.time()))
            return super().__call__(token_)

    asked = Rotated(SignInRequired("dead"))
    auth = Reauth(asked, storage=storage, clock=clock)
    assert auth.get_token().access_token == expected
    assert asked.last == ["r-theirs", "r-other"][:asked_with]


def test_guarantee_2_a_renewed_token_that_cannot_be_saved_is_used_and_saved_by_a_later_request():
    clock, asked, failed = ManualClock(), Asked(), []
    storage = holding("theirs", clock)
    clock.advance(2 * HOUR)
    storage.fail("save")
    auth = Reauth(asked, storage=storage, clock=clock)
    auth.store.subscribe(lambda _, action: failed.append(action) if isinstance(action, SaveFailed) else None)
    assert auth.get_token().access_token == "new-1"
    auth.close()
    assert (len(failed), held(storage)) == (1, "theirs")
    storage.heal()
    clock.advance(60)
    auth.get_token()
    auth.close()
    assert (len(failed), held(storage)) == (1, "new-1")


def test_guarantee_2_what_others_have_saved_since_is_not_overwritten_by_a_late_save():
    clock, asked = ManualClock(), Asked()
    storage = holding("theirs", clock)
    clock.advance(2 * HOUR)
    storage.fail("save")
    auth = Reauth(asked, storage=storage, clock=clock)
    auth.get_token()
    storage.heal()
    storage.inner.save(Token().renewed(token("later"), clock.time()))
    auth.close()
    assert held(storage) == "later"
    auth.close()
    assert held(storage) == "later"


def test_a_refresh_does_not_begin_when_the_lock_comes_too_late_to_finish_it():
    clock, asked = ManualClock(), Asked()
    storage = holding("theirs", clock)
    clock.advance(2 * HOUR)
    storage.before["load"] = lambda: clock.advance(20)
    auth = Reauth(asked, storage=storage, refresh_timeout=30, clock=clock)
    with pytest.raises(RefreshError, match="too late"):
        auth.get_token()
    assert asked.last == []


def test_a_broken_lock_fails_the_refresh_immediately_and_the_refresh_function_is_not_called():
    clock, asked = ManualClock(), Asked()
    storage = holding("theirs", clock)
    clock.advance(2 * HOUR)
    storage.fail("lock")
    auth = Reauth(asked, storage=storage, clock=clock)
    with pytest.raises(StorageError, match="The storage is away"):
        auth.get_token()
    assert asked.last == []


@pytest.mark.parametrize("what", ["lock", "load"])
def test_a_grant_that_may_be_repeated_asks_without_a_storage_that_is_away(what: str):
    clock, asked, failed = ManualClock(), Asked(), []
    asked.repeatable = True
    storage = holding(None, clock)
    storage.fail(what)
    auth = Reauth(asked, storage=storage, clock=clock)
    auth.store.subscribe(lambda _, action: failed.append(action) if isinstance(action, SaveFailed) else None)
    assert auth.get_token().access_token == "new-1"
    storage.heal()
    auth.close()
    assert (len(failed), held(storage)) == (1, "new-1")


def test_a_grant_that_may_be_repeated_asks_for_nothing_without_the_storage_while_a_token_lives():
    clock, asked = ManualClock(), Asked()
    asked.repeatable = True
    storage = holding(None, clock)
    auth = Reauth(asked, storage=storage, clock=clock, leeway=60)
    auth.get_token()
    auth.close()
    storage.fail("lock")
    clock.advance(HOUR - 30)
    assert auth.get_token().access_token == "new-1"  # the renewal in the background fails
    auth.close()
    assert asked.last == [""]


def test_guarantee_2_a_sign_in_that_cannot_be_saved_says_so_counts_and_is_saved_later():
    clock = ManualClock()
    storage = holding("theirs", clock)
    auth = Reauth(Asked(), storage=storage, clock=clock)
    storage.fail("save")
    with pytest.raises(StorageError, match="not be saved"):
        auth.sign_in(token("mine"))
    assert (auth.token.access_token, held(storage)) == ("mine", "theirs")
    storage.heal()
    auth.close()
    assert held(storage) == "mine"


def test_inside_of_a_refresh_a_sign_in_does_not_wait_for_its_save():
    clock = ManualClock()
    storage = holding(None, clock)

    def refresh(_: Token) -> Token:
        auth.sign_in(token("mine"))
        return token("unused")

    auth = Reauth(refresh, storage=storage, clock=clock)
    with suppress(ReauthError):
        auth.get_token()
    auth.close()
    assert (auth.token.access_token, held(storage)) == ("mine", "mine")


def test_two_objects_on_one_store_share_its_storage_and_what_is_known_of_it():
    clock, asked = ManualClock(), Asked()
    storage = holding("theirs", clock)
    clock.advance(2 * HOUR)
    store = TokenStore()
    one = Reauth(asked, store=store, storage=storage, clock=clock)
    other = Reauth(asked, store=store, clock=clock)  # it uses the storage of the store
    assert other.get_token().access_token == "new-1"
    assert (held(storage), asked.last) == ("new-1", ["r-theirs"])
    assert one.get_token().access_token == "new-1"
    clock.advance(2 * HOUR)
    assert one.get_token().access_token == "new-2"
    assert (held(storage), asked.last) == ("new-2", ["r-theirs", "r-new-1"])


def test_a_storage_that_comes_later_counts_for_every_object_on_the_store():
    clock, asked = ManualClock(), Asked()
    store = TokenStore()
    first = Reauth(asked, store=store, clock=clock)
    first.sign_in(token("mine"))
    storage = holding("theirs", clock)
    Reauth(asked, store=store, storage=storage, clock=clock)
    assert first.get_token().access_token == "mine"
    first.close()
    assert held(storage) == "mine"  # the token that was signed in counts


def test_a_second_storage_at_another_place_is_an_error_and_one_at_the_same_place_is_none(tmp_path):
    store = TokenStore(storage=FileStorage(tmp_path / "one.json"))
    Reauth(Asked(), store=store, storage=FileStorage(tmp_path / "one.json"))
    with pytest.raises(ValueError, match="same storage"):
        Reauth(Asked(), store=store, storage=FileStorage(tmp_path / "two.json"))
