"""The single steps with a storage, by hand: what is called with what, and what is remembered of it."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from httpx_reauth._tokens._refresh.storage_steps import StorageSteps, as_storage_error, leave

from httpx_reauth import AuthState, Reauth, RefreshError, SignedOut, StorageError, Token, TokenStore
from httpx_reauth._tokens._refresh.flight import Flight
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import ManualClock


def flight_of(store: TokenStore) -> Flight:
    now = store.clock.monotonic()
    return Flight(store, "missing", started=now, overdue=now + 30.0, failures=0)


def always() -> bool:
    return True


@pytest.fixture
def flight() -> Flight:
    return flight_of(Reauth(lambda _: Token("unused"), clock=ManualClock()).store)


class Plain:
    """A storage that writes down what it is called with."""

    def __init__(self, held: Token | None = None) -> None:
        self.held = held
        self.calls: list[Any] = []
        self.error: Exception | None = None

    def load(self) -> Token | None:
        return self._do("load") or self.held

    def save(self, token: Token) -> None:
        self._do("save", token)

    def clear(self) -> None:
        self._do("clear")

    def try_lock(self, lease: float) -> None:
        self._do("try_lock", lease)

    def _do(self, *call: Any) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error


def run(steps: Generator[Any, Any, Any]) -> Any:
    """What `steps` return, when each call is made at once."""
    call = next(steps)
    while True:
        try:
            try:
                answer = call.function(*call.arguments)
            except Exception as error:  # noqa: BLE001 - as a runner does
                call = steps.throw(error)
            else:
                call = steps.send(answer)
        except StopIteration as stop:
            return stop.value


def test_a_lock_is_left_as_after_a_block_that_went_well():
    class Lock(AbstractContextManager[None]):
        def __exit__(self, *how: object) -> None:
            left.append(how)

    left: list[object] = []
    leave(Lock())
    assert left == [(None, None, None)]


def test_a_save_that_failed_is_due_at_once_and_then_after_1_2_4_to_60_seconds():
    steps = StorageSteps(MemoryStorage())
    unsaved, now = AuthState(token=Token("a"), unsaved="renewed"), 1000.0
    assert steps.is_due(unsaved, now)
    for pause in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        assert steps.save_at == now + pause
        assert not steps.is_due(unsaved, now + pause - 0.001)
        now += pause
        assert steps.is_due(unsaved, now)
    assert not steps.is_due(AuthState(token=Token("a")), now + 60.0)  # saved, so a later one begins anew
    assert steps.is_due(unsaved, now + 60.0)
    assert steps.save_at == now + 61.0


@pytest.mark.parametrize("held", [None, Token("held")])
def test_what_is_loaded_is_remembered(held: Token | None):
    steps = StorageSteps(Plain(held))
    assert (steps.is_read, steps.seen, steps.owes_clear, steps.save_at) == (False, None, None, float("-inf"))
    steps.seen = "another"
    assert run(steps.load_token()) is held
    assert (steps.is_read, steps.seen) == (True, held and "held")


def test_what_cannot_be_loaded_changes_nothing():
    storage = Plain()
    storage.error = OSError("away")
    steps = StorageSteps(storage)
    steps.seen = "another"
    with pytest.raises(RefreshError):
        run(steps.load_token())
    assert (steps.is_read, steps.seen) == (False, "another")


def test_what_is_saved_is_remembered_and_what_cannot_be_is_told(flight: Flight):
    storage = Plain()
    steps = StorageSteps(storage)
    assert run(steps.save_token(Token("new"), flight, always)) is None
    assert storage.calls == [("save", Token("new"))]
    assert (steps.is_read, steps.seen) == (True, "new")
    storage.error = StorageError("away")
    assert run(steps.save_token(Token("newer"), flight, always)) is storage.error
    storage.error = OSError("away")
    error = run(steps.save_token(Token("newer"), flight, always))
    assert (type(error), error.__cause__, steps.seen) == (StorageError, storage.error, "new")


@pytest.mark.parametrize("again", [False, True])
def test_a_save_is_news_if_it_failed_before(caplog: pytest.LogCaptureFixture, flight: Flight, *, again: bool):
    steps = StorageSteps(Plain())
    with caplog.at_level(logging.DEBUG):
        run(
            steps.save_token(Token("new"), flight, always, again=True)
            if again
            else steps.save_token(Token("new"), flight, always)
        )
    assert caplog.messages == ["Saved the token that could not be saved before."] * again


def test_a_clear_that_is_owed_is_owed_until_it_is_done():
    storage = Plain(Token("held"))
    steps = StorageSteps(storage)
    store = TokenStore(Token("mine"))
    store.dispatch(SignedOut())
    steps.owes_clear, steps.seen, storage.error = 1, "held", OSError("away")
    with pytest.raises(OSError, match="away"):
        run(steps.clear_storage(store, flight_of(store)))
    assert (steps.owes_clear, steps.seen, store.state.unsaved) == (1, "held", "signed out")
    assert steps.must_clear(store.state)
    storage.error = None
    run(steps.clear_storage(store, flight_of(store)))
    assert (steps.owes_clear, steps.seen, steps.is_read, store.state.unsaved) == (None, None, True, "")
    assert not steps.must_clear(store.state)
    assert set(storage.calls) == {("clear",)}


@pytest.mark.parametrize(
    ("state", "owes", "must"),
    [
        (AuthState(), False, False),
        (AuthState(), True, True),
        (AuthState(unsaved="signed out"), False, True),
        (AuthState("pending", unsaved="signed out"), False, True),
        (AuthState(token=Token("a"), unsaved="signed in"), True, False),
        (AuthState(token=Token("a")), True, False),
        (AuthState(session=1), True, False),  # somebody has signed in since
    ],
)
def test_a_storage_must_be_cleared_if_nobody_is_signed_in_and_it_does_not_know(
    state: AuthState, *, owes: bool, must: bool
):
    steps = StorageSteps(MemoryStorage())
    steps.owes_clear = 0 if owes else None
    assert steps.must_clear(state) is must


def test_an_error_of_ours_stays_what_it_is():
    error = RefreshError("down")
    assert as_storage_error(error) is error
