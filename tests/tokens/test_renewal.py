"""Tests of the six steps of a refresh.

The test runs them by hand with `next` and `send`, and checks which calls they make and what they do with the answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from seams import apply, finish, renewal_by_hand, state_of
from storages import Recording

from httpx_reauth import (
    Action,
    Reauth,
    RefreshError,
    RefreshFulfilled,
    RefreshRejected,
    SaveFailed,
    SignedIn,
    SignedOut,
    SignInRequired,
    StorageError,
    Token,
)
from httpx_reauth._clock import moment
from httpx_reauth._state.actions import Loaded
from httpx_reauth._tokens._refresh import renewal as _renewal
from httpx_reauth._tokens._refresh import sync as _sync
from httpx_reauth._tokens._refresh.loops import Stopped
from httpx_reauth.testing import ManualClock

HOUR = 3600.0
LAST = Token("a0", refresh_token="r0-secret", expires_in=HOUR)


class Bench:
    """One refresh of an auth object that has `LAST`. The refresh began a second ago.

    `run` makes the storage's calls immediately, and answers the calls of the refresh. `asked` lists the tokens that the
    refresh was called with.
    """

    def __init__(
        self,
        clock: ManualClock,
        *,
        refresh: Any = None,
        storage: Any = None,
        reason: Any = "expiring",
        seen: Any = "a0",
    ) -> None:
        self.clock = clock
        self.refresh = refresh or (lambda _: None)
        self.auth = Reauth(lambda _: Token("unused"), token=LAST, clock=clock, storage=storage)
        self.store = self.auth.store
        if storage is not None:
            apply(self.store, Loaded(None if seen is None else Token(seen)))
        self.heard: list[Action] = []
        self.store.subscribe(lambda _, action: self.heard.append(action))
        self.asked: list[Token] = []
        self.reason = reason

    def run(self, *answers: Token | Exception) -> None:
        """Run the steps, and give these answers. 10 seconds pass between two of them.

        The steps must ask for each answer.
        """
        self.flight, steps = renewal_by_hand(self.auth, self.refresh, self.reason)
        self.heard.clear()
        self.clock.advance(1.0)
        left = list(answers)
        answer: Any = None
        while True:
            try:
                call = steps.throw(answer) if isinstance(answer, BaseException) else steps.send(answer)
            except StopIteration:
                break
            answer = self._answer(call, left)
        assert left == []
        finish(self.flight)

    def _answer(self, call: Any, left: list[Any]) -> Any:
        if call.function is self.refresh:
            self.asked.append(call.arguments[0])
            self.clock.advance(10.0)
            return left.pop(0)
        try:
            return call.function(*call.arguments)
        except Exception as error:  # noqa: BLE001 - a worker does the same
            return error

    @property
    def token(self) -> Token:
        token = self.store.state.token
        assert token is not None
        return token

    @property
    def error(self) -> Any:
        """Assert that the refresh failed, and return its error."""
        assert [type(action) for action in self.heard] == [RefreshRejected]
        return self.store.state.error


@pytest.fixture
def bench(clock: ManualClock) -> Bench:
    return Bench(clock)


@pytest.fixture
def storage() -> Recording:
    """Return a storage that holds `LAST`."""
    storage = Recording()
    storage.inner.save(LAST)
    return storage


@pytest.fixture
def stored(clock: ManualClock, storage: Recording) -> Bench:
    return Bench(clock, storage=storage, reason="expired")


# Answers of the refresh.


def test_a_token_counts_from_when_it_was_asked_for_and_is_dispatched_with_reason_and_seconds(
    bench: Bench, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_renewal, "draw_jitter", lambda: 0.25)
    clock_at_start = clock.monotonic()
    wall = clock.time()
    bench.run(Token("a1", expires_in=HOUR))
    current = state_of(bench.auth).current
    assert current is not None
    assert [token.access_token for token in bench.asked] == ["a0"]
    assert bench.flight.outcome is current.token
    assert current.token.refresh_token == "r0-secret"  # from the token before
    # In these tests, the steps begin a second after the flight.
    assert current.token.expires_at == wall + 1.0 + HOUR
    assert (current.deadline, current.jitter) == (clock_at_start + 1.0 + HOUR, 0.25)
    assert bench.heard == [RefreshFulfilled(current.token, "expiring", 11.0)]
    assert bench.flight.settled.is_set


NO_BETTER: dict[str, Callable[[float], Token]] = {
    "the same": lambda _: Token("a0", refresh_token="r1"),
    "one that has just ended": lambda wall: Token("old", refresh_token="r1", expires_at=wall),
}


@pytest.mark.parametrize("answer", NO_BETTER.values(), ids=NO_BETTER)
def test_a_found_token_that_is_no_better_is_renewed_in_the_same_refresh(
    bench: Bench, clock: ManualClock, answer: Callable[[float], Token]
):
    bench.run(answer(clock.time() + 1.0), Token("a2", expires_in=HOUR))
    assert [token.refresh_token for token in bench.asked] == ["r0-secret", "r1"]
    assert (bench.token.access_token, bench.token.refresh_token) == ("a2", "r1")
    assert bench.token.expires_at == clock.time() - 10.0 + HOUR


def test_guarantee_1_a_refresh_that_a_sign_in_has_superseded_is_not_asked_once_more(clock: ManualClock):
    bench = Bench(clock)

    def answer(call: Any, left: list[Any]) -> Any:
        bench.asked.append(call.arguments[0])
        bench.auth.sign_in(Token("given", expires_in=HOUR))
        return left.pop(0)

    bench._answer = answer  # type: ignore[method-assign]
    # it has ended already, and the sign-in has superseded the refresh
    bench.run(Token("a1", refresh_token="r1", expires_at=clock.time() - 1))
    assert len(bench.asked) == 1
    assert bench.token.access_token == "given"


def test_a_token_that_has_not_quite_ended_is_the_next_one(bench: Bench, clock: ManualClock):
    bench.run(Token("a1", expires_at=clock.time() + 1.001))
    assert bench.token.access_token == "a1"


def test_a_grant_is_asked_once_whatever_it_says(clock: ManualClock):
    class Grant:
        flow = None

    bench = Bench(clock, refresh=Grant())
    bench.run(Token("a0"))
    assert bench.token.access_token == "a0"


@pytest.mark.parametrize("rotated", [True, False])
def test_a_token_that_is_no_better_is_kept_if_its_renewal_fails_and_it_has_spent_the_refresh_token(
    bench: Bench, *, rotated: bool
):
    bench.run(Token("a0", refresh_token="r1" if rotated else None), OSError("down"))
    if rotated:
        assert bench.token.refresh_token == "r1"
    else:
        assert "OSError" in str(bench.error)


def test_if_the_renewal_of_a_found_token_says_that_only_a_sign_in_helps_that_is_final(bench: Bench):
    bench.run(Token("a0", refresh_token="r1"), SignInRequired("dead"))
    assert isinstance(bench.error, SignInRequired)


def test_guarantee_11_no_token_that_was_sent_on_the_way_is_shown_by_the_error(bench: Bench):
    bench.run(Token("a0", refresh_token="r1-secret"), SignInRequired("r0-secret, r1-secret and a0 are dead"))
    for secret in ("r0-secret", "r1-secret", "a0"):
        assert secret not in str(bench.error)


@pytest.mark.parametrize(("passed", "left"), [(0.0, 28.9), (27.0, 1.9), (28.5, 0.475), (29.0, 0.0), (40.0, 0.0)])
def test_a_coroutine_has_the_time_that_is_left_except_a_moment_in_which_waiters_get_the_result(
    bench: Bench, clock: ManualClock, passed: float, left: float
):
    flight, steps = renewal_by_hand(bench.auth, bench.refresh)
    clock.advance(1.0 + passed)
    assert next(steps).seconds == pytest.approx(left)
    steps.close()
    finish(flight)


# Failures.


@pytest.mark.parametrize(("failures", "wait"), [(0, 0.5), (1, 1.0), (2, 2.0)])
def test_guarantee_6_each_failure_in_a_row_doubles_the_wait(
    bench: Bench, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, failures: int, wait: float
):
    monkeypatch.setattr(_renewal, "random", lambda: 0.0)
    for _ in range(failures):
        bench.run(RefreshError("down"))
    bench.run(RefreshError("down"))
    assert bench.error.retry_after == wait
    assert state_of(bench.auth).refreshes.until == clock.monotonic() + wait
    assert bench.heard == [RefreshRejected(bench.error, "expiring", 11.0)]
    assert bench.flight.outcome is bench.error


def test_guarantee_6_what_the_server_asks_for_is_kept(bench: Bench, clock: ManualClock):
    error = RefreshError("down")
    error.retry_at = clock.time() + 100.0
    bench.run(error)
    assert bench.error.retry_after == pytest.approx(89.0)


def test_without_a_storage_only_a_sign_in_ends_a_sign_in_required(bench: Bench):
    bench.run(SignInRequired("dead"))
    assert state_of(bench.auth).refreshes.until == float("inf")


def test_guarantee_2_a_refresh_that_is_stopped_from_outside_fails_with_an_unknown_outcome_and_costs_no_wait(
    bench: Bench, clock: ManualClock
):
    bench.run(Stopped())
    assert bench.flight.outcome_unknown
    assert bench.flight.settled.is_set
    assert "unknown" in str(bench.error)
    assert state_of(bench.auth).refreshes.until == clock.monotonic()


@pytest.mark.parametrize(
    ("status", "cls"), [(400, SignInRequired), (401, SignInRequired), (399, RefreshError), (None, RefreshError)]
)
def test_an_error_that_carries_the_answer_says_what_that_says(bench: Bench, status: int | None, cls: type[Exception]):
    error: Any = OSError("s3cret")
    if status is not None:
        error.response = httpx.Response(status, json={"error": "invalid_grant"})
    bench.run(error)
    assert type(bench.error) is cls
    assert "s3cret" not in str(bench.error)


def with_refresh_token(refresh_token: str) -> RefreshError:
    """Return the error of an answer whose only usable field is a refresh token."""
    error = RefreshError("The answer has a type that nobody knows.")
    error._refresh_token = refresh_token
    return error


def test_guarantee_2_a_refresh_token_that_comes_with_a_useless_answer_replaces_the_spent_one(bench: Bench):
    bench.run(with_refresh_token("r1"))
    assert (bench.token.access_token, bench.token.refresh_token) == ("a0", "r1")
    assert bench.error._refresh_token is None
    assert "r1" not in repr(bench.error)


# With a storage.


def test_guarantee_2_a_new_token_is_saved_under_the_lock_before_anybody_gets_it(stored: Bench, storage: Recording):
    published: list[bool] = []
    storage.before["save"] = lambda: published.append(stored.flight.outcome is not None)
    stored.run(Token("a1", refresh_token="r1", expires_in=HOUR))
    assert storage.calls == ["lock", "load", "save", "release"]
    assert published == [False]
    assert storage.inner.load() == stored.token


def test_guarantee_1_the_token_that_another_process_has_renewed_is_adopted(stored: Bench, storage: Recording):
    storage.inner.save(Token("theirs", refresh_token="r1", expires_in=HOUR))
    stored.run()
    assert stored.asked == []
    (event,) = stored.heard
    assert (event.token.access_token, event.adopted) == ("theirs", True)
    assert storage.calls == ["lock", "load", "release"]


def test_guarantee_1_the_token_that_another_process_renews_meanwhile_is_adopted_without_the_lock(
    stored: Bench, storage: Recording, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_sync, "sleep", lambda _: storage.inner.save(Token("theirs", expires_in=HOUR)))
    with storage.inner.try_lock(1.0):
        stored.run()
    assert stored.asked == []
    assert stored.token.access_token == "theirs"
    assert "lock" not in storage.calls


def test_a_token_that_could_not_be_saved_is_published_and_the_failed_save_is_dispatched(
    stored: Bench, storage: Recording
):
    storage.fail("save")
    stored.run(Token("a1", expires_in=HOUR))
    assert [type(action) for action in stored.heard] == [RefreshFulfilled, SaveFailed]
    assert stored.token.access_token == "a1"
    assert state_of(stored.auth).pending_write == "renewed"
    assert storage.calls.count("save") == 6  # once, and five times more while the lock is held
    assert storage.calls[-1] == "release"


def test_guarantee_2_a_save_that_fails_for_a_moment_is_tried_again_before_others_get_the_lock(
    stored: Bench, storage: Recording
):
    tries = iter([OSError("too many open files"), OSError("too many open files")])

    def fail_twice() -> None:
        error = next(tries, None)
        if error is not None:
            raise error

    storage.before["save"] = fail_twice
    stored.run(Token("a1", expires_in=HOUR))
    assert storage.calls == ["lock", "load", "save", "save", "save", "release"]
    assert [type(action) for action in stored.heard] == [RefreshFulfilled]
    assert storage.inner.load() == stored.token


def test_a_dead_refresh_token_is_posted_once(stored: Bench, storage: Recording):
    stored.run(SignInRequired("dead"))
    stored.run()  # the steps do not call the refresh
    assert isinstance(stored.error, SignInRequired)
    assert len(stored.asked) == 1
    assert storage.calls == ["lock", "load", "load", "release", "lock", "load", "release"]


@pytest.mark.parametrize("theirs", [Token("theirs", refresh_token="r1", expires_in=HOUR), Token(refresh_token="r1")])
def test_a_token_that_another_process_has_put_in_the_place_of_a_dead_one_is_adopted_or_renewed(
    stored: Bench, storage: Recording, theirs: Token
):
    def somebody_takes_no_lock() -> None:
        if storage.calls.count("load") == 2:
            storage.inner.save(theirs)

    storage.before["load"] = somebody_takes_no_lock
    stored.run(SignInRequired("dead"), *([] if theirs.access_token else [Token("new", expires_in=HOUR)]))
    assert stored.token.access_token == (theirs.access_token or "new")
    assert [token.refresh_token for token in stored.asked] == ["r0-secret"] + ([] if theirs.access_token else ["r1"])


def test_guarantee_2_a_refresh_calls_the_refresh_function_twice_at_most(stored: Bench, storage: Recording):
    tokens = iter(range(1, 9))

    def somebody_rotates() -> None:
        if stored.asked:
            storage.inner.save(Token(refresh_token=f"r{next(tokens)}"))

    storage.before["load"] = somebody_rotates
    stored.run(SignInRequired("dead"), SignInRequired("dead as well"))
    assert isinstance(stored.error, SignInRequired)
    assert len(stored.asked) == 2


def test_a_sign_out_by_another_process_is_followed(stored: Bench, storage: Recording):
    storage.inner.clear()
    stored.run()
    assert stored.asked == []
    assert [type(action) for action in stored.heard] == [SignedOut]
    assert stored.store.state.token is None
    assert state_of(stored.auth).pending_write == ""  # the storage holds the current token


@pytest.mark.parametrize("change", [SignedIn(Token("given", refresh_token="g0")), SignedOut()])
def test_guarantee_2_what_a_superseded_refresh_brings_is_not_saved_but_the_change_is(
    stored: Bench, storage: Recording, change: Action
):
    answer = stored._answer

    def change_meanwhile(call: Any, left: list[Any]) -> Any:
        if call.function is stored.refresh:
            stored.store.dispatch(change)
        return answer(call, left)

    stored._answer = change_meanwhile  # type: ignore[method-assign]
    stored.run(Token("late", refresh_token="late"))
    is_sign_in = isinstance(change, SignedIn)
    assert storage.calls == ["lock", "load", "save" if is_sign_in else "clear", "release"]
    held = storage.inner.load()
    assert (held and held.access_token) == ("given" if is_sign_in else None)
    assert (stored.store.state.token and stored.token.access_token) == (held and "given")
    assert stored.flight.outcome is None
    assert state_of(stored.auth).pending_write == ""


def test_guarantee_2_a_refresh_that_is_superseded_while_it_waits_for_the_lock_asks_nothing(
    stored: Bench, storage: Recording, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_sync, "sleep", lambda _: stored.store.dispatch(SignedIn(Token("given"))))
    with storage.inner.try_lock(1.0):
        stored.run()
    assert stored.asked == []
    assert stored.token.access_token == "given"


@pytest.mark.parametrize("step", ["lock", "load"])
def test_guarantee_2_a_storage_that_is_away_spends_nothing(stored: Bench, storage: Recording, step: str):
    storage.fail(step)
    stored.run()
    assert isinstance(stored.error, RefreshError)
    assert isinstance(stored.error, StorageError)
    assert stored.asked == []
    assert ("release" in storage.calls) == (step == "load")


def test_where_asking_twice_does_no_harm_a_storage_that_is_away_is_done_without_once_no_token_is_left(
    clock: ManualClock, storage: Recording
):
    class Repeatable:
        repeatable = True

        def __call__(self, token: Token) -> Token:
            raise AssertionError

    bench = Bench(clock, refresh=Repeatable(), storage=storage, reason="expired")
    storage.fail("load")
    bench.run()  # in the background: the current token can still be used
    assert isinstance(bench.error, StorageError)
    clock.advance(HOUR)
    bench.run(Token("a1", expires_in=HOUR))
    assert [type(action) for action in bench.heard] == [RefreshFulfilled, SaveFailed]
    assert bench.token.access_token == "a1"


@pytest.mark.parametrize(("late", "asks"), [(13.999, True), (14.001, False)])
def test_guarantee_2_a_refresh_begins_while_half_of_the_time_is_left_and_not_later(
    stored: Bench, storage: Recording, clock: ManualClock, late: float, *, asks: bool
):
    storage.before["load"] = lambda: clock.advance(late)  # another process had the lock for so long
    if asks:
        stored.run(Token("a1", expires_in=HOUR))
    else:
        stored.run()
    assert len(stored.asked) == asks


def test_the_lease_is_long_enough_for_twice_the_time_of_a_refresh_and_to_save(stored: Bench, storage: Recording):
    stored.run(Token("a1", expires_in=HOUR))
    assert storage.leases == [2 * 30.0 + 10.0]


def test_guarantee_2_a_refresh_token_that_comes_with_a_useless_answer_is_saved(stored: Bench, storage: Recording):
    stored.run(with_refresh_token("r1"))
    assert storage.calls == ["lock", "load", "save", "release"]
    held = storage.inner.load()
    assert held is not None
    assert held.refresh_token == stored.token.refresh_token == "r1"
    assert state_of(stored.auth).pending_write == ""


def test_guarantee_2_such_a_refresh_token_that_cannot_be_saved_is_kept_in_memory_and_saved_later(
    stored: Bench, storage: Recording
):
    storage.fail("save")
    stored.run(with_refresh_token("r1"))
    assert [type(action) for action in stored.heard] == [RefreshRejected, SaveFailed]
    assert stored.token.refresh_token == "r1"
    storage.heal()
    stored.auth.close()
    held = storage.inner.load()
    assert held is not None
    assert held.refresh_token == "r1"


def test_a_lock_that_cannot_be_released_is_no_failure_of_the_refresh(
    stored: Bench, storage: Recording, caplog: pytest.LogCaptureFixture
):
    def fail() -> None:
        raise OSError("s3cret")

    storage.before["release"] = fail
    with caplog.at_level(logging.WARNING):
        stored.run(Token("a1", expires_in=HOUR))
    assert stored.token.access_token == "a1"
    assert "OSError" in caplog.text
    assert "s3cret" not in caplog.text


def test_the_times_count_from_after_the_wait_for_the_lock(stored: Bench, storage: Recording, clock: ManualClock):
    storage.before["load"] = lambda: clock.advance(5.0)
    stored.run(Token("a1", expires_in=HOUR))
    current = state_of(stored.auth).current
    assert current is not None
    assert current.deadline == moment(clock).monotonic - 10.0 + HOUR
