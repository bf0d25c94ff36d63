"""The work of one flight, driven by hand: what it calls, what it makes of the answers, what it tells the store."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from httpx_reauth import Reauth, RefreshError, SignInRequired, StorageError, Token
from httpx_reauth._clock import moment
from httpx_reauth._state.actions import Action, RefreshFulfilled, RefreshPending, RefreshRejected, SaveFailed, SignedIn
from httpx_reauth._tokens._refresh import renewal as _renewal
from httpx_reauth._tokens._refresh.flight import Flight
from httpx_reauth._tokens._refresh.loops import Stopped
from httpx_reauth._tokens._refresh.renewal import Renewal, reject
from httpx_reauth.testing import ManualClock

HOUR = 3600.0
LAST = Token("a0", refresh_token="r0-secret", expires_in=HOUR)


class Bench:
    """One flight of an auth object that has `LAST`; it began a second ago, after `failures` others."""

    def __init__(self, clock: ManualClock, *, refresh: object = None, failures: int = 0) -> None:
        self.clock = clock
        self.auth = Reauth(lambda _: Token("unused"), token=LAST, clock=clock)
        self.store = self.auth.store
        basis, now = self.store.state, clock.monotonic()
        self.flight = Flight(self.store, "expiring", started=now, overdue=now + 30.0, failures=failures)
        self.flight.depart()
        self.flight.refresh = refresh = refresh or (lambda _: None)
        assert self.store.dispatch(RefreshPending("expiring", flight=self.flight))
        self.told: list[Action] = []
        self.store.subscribe(lambda _, action: self.told.append(action))
        self.renewal = Renewal(self.flight, basis, refresh, None, clock)
        self.asked: list[Token] = []
        clock.advance(1.0)

    def run(self, *answers: Token | Exception) -> None:
        """Give these answers; between two of them, 10 seconds pass. It must ask for all of them, and no more."""
        work = self.renewal.work()
        call = next(work)
        for number, answer in enumerate(answers, 1):
            self.asked.append(call.arguments[0])
            self.clock.advance(10.0)
            try:
                call = work.throw(answer) if isinstance(answer, Exception) else work.send(answer)
            except StopIteration:
                assert number == len(answers)
                return
        raise AssertionError("It asks for more.")

    @property
    def error(self) -> Any:
        """Why it failed."""
        assert [type(action) for action in self.told] == [RefreshRejected]
        return self.store.state.error


@pytest.fixture
def bench(clock: ManualClock) -> Bench:
    return Bench(clock)


# What it makes of answers.


def test_a_token_counts_from_when_it_was_asked_for_and_is_told_with_reason_and_seconds(
    bench: Bench, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(_renewal, "a_spread", lambda: 0.25)
    at = moment(clock)
    with caplog.at_level(logging.INFO):
        bench.run(Token("a1", expires_in=HOUR))
    state = bench.store.state
    assert [token.access_token for token in bench.asked] == ["a0"]
    assert state.token is bench.flight.token
    assert state.token == Token("a1", refresh_token="r0-secret", expires_in=HOUR, expires_at=at.wall + HOUR)
    assert (state.deadline, state.spread) == (at.monotonic + HOUR, 0.25)
    assert bench.told == [RefreshFulfilled(state.token, "expiring", 11.0, adopted=False)]
    assert bench.flight.landed
    name = "test_renewal.Bench.__init__.<locals>.<lambda>"
    assert caplog.messages == [f"Renewed the access token (expiring) by {name} in 11.000 s."]


def test_an_adopted_token_is_told_as_such_and_one_that_is_not_saved_with_the_reason(
    bench: Bench, clock: ManualClock, caplog: pytest.LogCaptureFixture
):
    token, error = Token("a1", expires_in=HOUR), StorageError("The disk is full.")
    with caplog.at_level(logging.INFO):
        bench.renewal._publish(token, moment(clock), adopted=True, unsaved=error)
    assert bench.told == [RefreshFulfilled(token, "expiring", 1.0, adopted=True), SaveFailed(error)]
    assert bench.store.state.unsaved == "renewed"
    name = "test_renewal.Bench.__init__.<locals>.<lambda>"
    assert caplog.messages == [
        f"Adopted the access token (expiring) by {name} in 1.000 s.",
        "Could not save the new token, which is kept in memory and saved later: The disk is full.",
    ]


def test_what_could_not_be_saved_is_not_told_of_a_token_that_a_listener_has_put_in_its_place(
    bench: Bench, clock: ManualClock
):
    def listener(_: object, action: Action) -> None:
        if isinstance(action, RefreshFulfilled):
            bench.auth.sign_in(Token("given"))

    bench.store.subscribe(listener)
    bench.renewal._publish(Token("a1"), moment(clock), unsaved=StorageError("The disk is full."))
    assert [type(action) for action in bench.told] == [RefreshFulfilled, SignedIn]
    assert bench.store.state.unsaved == "signed in"


NO_BETTER: dict[str, Callable[[float], Token]] = {
    "the same": lambda _: Token("a0", refresh_token="r1"),
    "one that has just ended": lambda wall: Token("old", refresh_token="r1", expires_at=wall),
}


def test_guarantee_1_a_renewal_that_was_overtaken_is_not_asked_once_more(clock: ManualClock):
    bench = Bench(clock)
    bench.store.dispatch(SignedIn(Token("given", expires_in=HOUR)))
    bench.run(Token("a1", refresh_token="r1", expires_at=clock.time() - 1))  # no better, and for nobody
    assert bench.store.state.token is not None
    assert bench.store.state.token.access_token == "given"


@pytest.mark.parametrize("answer", NO_BETTER.values(), ids=NO_BETTER)
def test_a_token_that_is_no_better_is_renewed_in_its_turn(
    bench: Bench, clock: ManualClock, answer: Callable[[float], Token]
):
    at = moment(clock)
    bench.run(answer(at.wall), Token("a2", expires_in=HOUR))
    state = bench.store.state
    assert [token.refresh_token for token in bench.asked] == ["r0-secret", "r1"]
    assert state.token == Token("a2", refresh_token="r1", expires_in=HOUR, expires_at=at.wall + 10.0 + HOUR)
    assert state.deadline == at.monotonic + 10.0 + HOUR


def test_a_token_that_has_not_quite_ended_is_the_next_one(bench: Bench, clock: ManualClock):
    bench.run(Token("a1", expires_at=clock.time() + 0.001))
    assert bench.store.state.token.access_token == "a1"


def test_a_grant_is_asked_once_whatever_it_says(clock: ManualClock):
    class Grant:
        flow = None

    bench = Bench(clock, refresh=Grant())
    bench.run(Token("a0"))
    assert bench.store.state.token.access_token == "a0"


@pytest.mark.parametrize("rotated", [True, False])
def test_a_token_that_is_no_better_is_kept_if_its_renewal_fails_and_it_has_spent_the_refresh_token(
    bench: Bench, *, rotated: bool
):
    bench.run(Token("a0", refresh_token="r1" if rotated else None), OSError("down"))
    if rotated:
        assert bench.store.state.token.refresh_token == "r1"
    else:
        assert str(bench.error).startswith("The refresh raised OSError")


def test_if_that_renewal_says_that_only_a_sign_in_helps_it_is_believed(bench: Bench):
    bench.run(Token("a0", refresh_token="r1"), SignInRequired("dead"))
    assert isinstance(bench.error, SignInRequired)


def test_guarantee_11_no_token_that_was_sent_on_the_way_is_shown_by_the_error(bench: Bench):
    bench.run(
        Token("a0", refresh_token="r1-secret"),
        SignInRequired("r0-secret, r1-secret and a0 are dead"),
    )
    assert str(bench.error) == "***, *** and *** are dead"


@pytest.mark.parametrize(("passed", "left"), [(0.0, 28.9), (27.0, 1.9), (28.5, 0.475), (29.0, 0.0), (40.0, 0.0)])
def test_a_coroutine_has_the_time_that_is_left_but_for_a_moment_in_which_those_who_wait_hear_of_it(
    bench: Bench, clock: ManualClock, passed: float, left: float
):
    clock.advance(passed)
    work = bench.renewal.work()
    assert next(work).seconds == pytest.approx(left)
    work.close()


# How it fails.


@pytest.mark.parametrize(("failures", "wait"), [(0, 0.5), (1, 1.0), (2, 2.0)])
def test_guarantee_6_each_failure_in_a_row_doubles_the_wait(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch, failures: int, wait: float
):
    monkeypatch.setattr(_renewal, "random", lambda: 0.0)
    bench = Bench(clock, failures=failures)
    bench.run(RefreshError("down"))
    state = bench.store.state
    assert (bench.error.retry_after, state.record.retry_at) == (wait, clock.monotonic() + wait)
    assert bench.told == [RefreshRejected(bench.error, "expiring", 11.0)]
    assert bench.flight.error is bench.error


def test_guarantee_6_what_the_server_asks_for_is_kept(bench: Bench, clock: ManualClock):
    error = RefreshError("down")
    error.retry_at = clock.time() + 100.0
    bench.run(error)
    assert bench.error.retry_after == pytest.approx(90.0)


def test_without_a_storage_nothing_but_a_sign_in_ends_a_sign_in_required(bench: Bench, clock: ManualClock):
    reject(bench.flight, clock, SignInRequired("dead"))
    assert bench.store.state.record.retry_at == float("inf")


def test_a_refresh_that_is_stopped_ends_its_flight(bench: Bench):
    work = bench.renewal.work()
    next(work)
    with pytest.raises(StopIteration):
        work.throw(Stopped())
    assert (bench.flight.stopped, bench.flight.ended) == (True, True)
    assert "stopped before it had answered" in str(bench.error)


@pytest.mark.parametrize(
    ("status", "cls"), [(400, SignInRequired), (401, SignInRequired), (399, RefreshError), (None, RefreshError)]
)
def test_an_error_that_carries_the_answer_says_what_that_says(bench: Bench, status: int | None, cls: type[Exception]):
    error: Any = OSError("s3cret")
    if status is not None:
        error.response = httpx.Response(status, json={"error": "invalid_grant"})
    bench.run(error)
    assert type(bench.error) is cls
    assert bench.error.__cause__ is error
    assert "s3cret" not in str(bench.error)
