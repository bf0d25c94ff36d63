"""What a flight does with a storage, by hand: whom it asks, what it saves, and what it leaves as it is."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from httpx_reauth import Reauth, RefreshError, SaveFailed, SignedIn, SignedOut, SignInRequired, StorageError, Token
from httpx_reauth._clock import Moment, moment
from httpx_reauth._state.actions import Saved
from httpx_reauth._tokens._refresh.flight import Flight
from httpx_reauth._tokens._refresh.sync import Keeper
from httpx_reauth.testing import ManualClock

HOUR = 3600.0
MINE = Token("mine", refresh_token="r0", expires_in=HOUR)
ERROR = SignInRequired("dead")


class Noting:
    """A storage that writes down what it is called with; `error` is what it says to a save."""

    def __init__(self) -> None:
        self.held: Token | None = None
        self.calls: list[Any] = []
        self.error: Exception | None = None

    def load(self) -> Token | None:
        self.calls.append("load")
        return self.held

    def save(self, token: Token) -> None:
        self.calls.append(("save", token.access_token))
        if self.error is not None:
            raise self.error

    def clear(self) -> None:
        self.calls.append("clear")

    def try_lock(self, lease: float) -> AbstractContextManager[None] | None:
        self.calls.append(("lock", lease))
        return self._held()

    @contextmanager
    def _held(self) -> Iterator[None]:
        yield
        self.calls.append("release")


class Bench:
    """A keeper, a store that holds `MINE`, and a flight that has half a minute."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.storage = Noting()
        self.keeper = Keeper(self.storage)
        self.keeper.is_read, self.keeper.seen = True, "mine"
        self.store = Reauth(lambda _: Token("unused"), token=MINE, clock=self.clock).store
        self.told: list[Any] = []
        self.store.subscribe(lambda _, action: self.told.append(action))
        now = self.clock.monotonic()
        self.flight = Flight(self.store, "expired", started=now, overdue=now + 30.0, failures=0)
        self.flight.depart()
        self.asked: list[tuple[Token, Moment]] = []
        self.answers: list[Token | Exception] = []

    def ask(self, last: Token, at: Moment) -> Generator[Any, Any, tuple[Token, Moment]]:
        self.asked.append((last, at))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer, at
        yield

    def successor_of(self, last: Token) -> Any:
        at = moment(self.clock)
        return run(self.keeper._ask(last, self.flight, self.clock, self.ask, at))

    def save(self, token: Token, **settings: Any) -> list[Any]:
        """The calls that it takes."""
        run(self.keeper.save(self.flight, token, **settings))
        calls, self.storage.calls = self.storage.calls, []
        assert (calls.pop(0), calls.pop()) == (("lock", 70.0), "release")
        return calls

    def unsaved(self) -> Token:
        """The current token, which could not be saved."""
        self.store.dispatch(SaveFailed(StorageError("The disk is full."), token=self.store.state.token))
        assert self.store.state.unsaved
        self.told.clear()
        return self.current

    @property
    def current(self) -> Token:
        token = self.store.state.token
        assert token is not None
        return token


@pytest.fixture
def bench() -> Bench:
    return Bench()


def run(steps: Generator[Any, Any, Any]) -> Any:
    """What `steps` return, when each call is made at once."""
    answer: Any = None
    while True:
        try:
            call = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
        except StopIteration as stop:
            return stop.value
        try:
            answer = call.function(*call.arguments)
        except Exception as error:  # noqa: BLE001 - as a runner does
            answer = error


# Whom it asks.


def test_guarantee_2_a_refresh_begins_while_half_of_the_time_is_left_and_not_later(bench: Bench):
    bench.answers = [Token("new")]
    bench.clock.advance(15.0)
    assert bench.successor_of(MINE).token == Token("new")
    bench.clock.advance(0.001)
    with pytest.raises(RefreshError):
        bench.successor_of(MINE)
    assert len(bench.asked) == 1


@pytest.mark.parametrize("held", [None, Token("other", refresh_token="r0")])
def test_a_dead_refresh_token_is_posted_once(bench: Bench, held: Token | None):
    bench.storage.held, bench.answers = held, [ERROR, Token("new")]
    with pytest.raises(SignInRequired) as first:
        bench.successor_of(MINE)
    with pytest.raises(SignInRequired, match="dead") as second:
        bench.successor_of(MINE)
    assert first.value is ERROR is not second.value
    assert len(bench.asked) == 1
    for last in (Token("mine", refresh_token="r1"), Token("yours", refresh_token="r0")):
        bench.answers = [Token("new")]
        assert bench.successor_of(last).token == Token("new")
        bench.answers = [ERROR]
        with pytest.raises(SignInRequired):
            bench.successor_of(MINE)  # it may live again, since another one was taken
        assert bench.answers == []


def test_what_somebody_else_has_put_in_the_place_of_a_dead_one_is_adopted(bench: Bench):
    bench.storage.held, bench.answers = Token("theirs", refresh_token="r1", expires_in=HOUR), [ERROR]
    found = bench.successor_of(MINE)
    wall = bench.clock.time()
    assert found.token == Token("theirs", refresh_token="r1", expires_in=HOUR, expires_at=wall + HOUR)
    assert (found.at, found.is_adopted, found.is_held) == (moment(bench.clock), True, True)
    bench.answers = [Token("new")]
    assert bench.successor_of(MINE).token == Token("new")


def test_a_dead_sign_in_is_no_first_token_that_seeds_an_empty_storage(bench: Bench):
    given = Token("given", refresh_token="r0", expires_in=HOUR)
    bench.store.dispatch(SignedIn(given))
    bench.keeper.seen, bench.keeper.dead = None, (bench.current, ERROR)
    with pytest.raises(SignInRequired, match="dead"):
        run(bench.keeper._next(bench.flight, bench.store.state, bench.clock, bench.ask))
    assert bench.store.state.unsaved == "signed in"


def test_or_renewed_if_it_cannot_be_used(bench: Bench):
    held = Token(refresh_token="r1")
    bench.storage.held, bench.answers = held, [ERROR, Token("new")]
    found = bench.successor_of(MINE)
    assert (found.token, found.at, found.is_adopted, found.is_held) == (Token("new"), moment(bench.clock), False, False)
    assert bench.asked == [(MINE, moment(bench.clock)), (held, moment(bench.clock))]


# What it saves.


def test_a_token_is_saved_as_it_is_if_it_was_signed_in(bench: Bench):
    bench.store.dispatch(SignedIn(Token("given")))
    assert bench.save(bench.unsaved(), again=True) == [("save", "given")]
    assert (bench.store.state.unsaved, bench.flight.error) == ("", None)


@pytest.mark.parametrize(
    ("again", "held", "calls"),
    [
        (False, Token("theirs"), [("save", "given")]),
        (True, Token("theirs"), ["load"]),
        (True, None, ["load", ("save", "given")]),
    ],
)
def test_a_token_that_the_server_takes_no_more_is_not_saved_again_over_another(
    bench: Bench, held: Token | None, calls: list[Any], *, again: bool
):
    given = Token("given", refresh_token="r0")
    bench.store.dispatch(SignedIn(given))
    bench.keeper.dead, bench.storage.held = (given, ERROR), held
    assert bench.save(bench.unsaved(), again=again) == calls
    assert (bench.store.state.unsaved, bench.flight.error) == ("", None)


def test_a_token_is_saved_as_it_is_the_first_time(bench: Bench):
    assert bench.save(bench.unsaved()) == [("save", "mine")]
    assert bench.store.state.unsaved == ""


@pytest.mark.parametrize(
    ("held", "calls"), [("mine", ["load", ("save", "mine")]), ("theirs", ["load"]), (None, ["load"])]
)
def test_a_renewed_token_is_saved_again_if_nobody_else_was_there(bench: Bench, held: str | None, calls: list[Any]):
    bench.storage.held = None if held is None else Token(held)
    assert bench.save(bench.unsaved(), again=True) == calls
    assert [type(action) for action in bench.told] == ([SignedOut] if held is None else [])
    assert (bench.store.state.unsaved, bench.flight.error) == ("", None)


@pytest.mark.parametrize("again", [False, True])
def test_what_is_saved_already_or_current_no_more_is_not_saved(bench: Bench, *, again: bool):
    assert bench.save(bench.current, again=again) == []
    old = bench.current
    bench.store.dispatch(SignedIn(Token("given")))
    assert bench.store.state.unsaved
    assert bench.save(old, again=again) == []
    assert bench.store.state.unsaved


def test_what_cannot_be_saved_is_told_once_for_the_token_that_it_was(bench: Bench):
    bench.store.dispatch(SignedIn(Token("given")))
    bench.told.clear()
    token, bench.storage.error = bench.current, StorageError("The disk is full.")
    for _ in range(2):
        assert set(bench.save(token)) == {("save", "given")}
        assert bench.flight.error is bench.storage.error
        assert bench.told == [SaveFailed(bench.storage.error)]


def test_what_cannot_be_saved_is_not_told_of_another_token(bench: Bench):
    def overtaken(token: Token) -> None:
        bench.store.dispatch(SignedIn(Token("later")))
        raise StorageError("The disk is full.")

    bench.store.dispatch(SignedIn(Token("given")))
    bench.storage.save = overtaken  # type: ignore[method-assign]
    bench.save(bench.current)
    assert [type(action) for action in bench.told] == [SignedIn, SignedIn]
    assert bench.store.state.unsaved == "signed in"


def test_a_lock_that_is_broken_is_told_as_well(bench: Bench):
    def broken(lease: float) -> None:
        raise StorageError("It is broken.")

    bench.store.dispatch(SignedIn(Token("given")))
    bench.told.clear()
    bench.storage.try_lock = broken  # type: ignore[method-assign]
    run(bench.keeper.save(bench.flight, bench.current))
    assert bench.told == [SaveFailed(bench.flight.error)]
    assert "could not be taken" in str(bench.flight.error)


# What it clears, and what it makes good after it was overtaken.


@pytest.mark.parametrize("owes", [True, False])
def test_a_clear_is_made_under_the_lock_if_it_is_still_owed(bench: Bench, *, owes: bool):
    bench.store.dispatch(SignedOut())
    if not owes:  # a flight has cleared it
        bench.store.dispatch(Saved(None))
    run(bench.keeper.clear(bench.flight))
    assert bench.storage.calls == [("lock", 70.0), "clear", "release"] if owes else [("lock", 70.0), "release"]
    assert bench.flight.error is None


def test_after_it_was_overtaken_the_storage_holds_what_the_store_does(bench: Bench):
    run(bench.keeper._follow(bench.store, bench.flight))
    assert bench.storage.calls == []  # nothing to save
    bench.unsaved()
    bench.storage.error = OSError("full")
    run(bench.keeper._follow(bench.store, bench.flight))
    assert bench.store.state.unsaved == "renewed"
    bench.storage.error = None
    run(bench.keeper._follow(bench.store, bench.flight))
    assert bench.store.state.unsaved == ""
    bench.store.dispatch(SignedOut())
    run(bench.keeper._follow(bench.store, bench.flight))
    *tries, last = bench.storage.calls
    assert (set(tries), last) == ({("save", "mine")}, "clear")


def test_a_sign_in_is_saved_here_and_now_by_nobody_else_and_ends_a_clear_that_is_owed(bench: Bench):
    auth = Reauth(lambda _: Token("new"), storage=bench.storage, clock=bench.clock, refresh_timeout=30.0)
    keeper = auth._refresher.keeper
    assert keeper is not None
    keeper.owes_clear = 0
    auth.sign_in(Token("given"))
    assert keeper.save_at == bench.clock.monotonic() + 30.0
    bench.storage.held = Token("given")
    auth.get_token(rejected=auth.store.state.token)
    auth.close()
    assert "clear" not in bench.storage.calls
