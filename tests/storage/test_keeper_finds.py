"""Which token a flight finds under the storage's lock, or while it waits for it, by hand."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from httpx_reauth import AuthState, Reauth, StorageError, Token
from httpx_reauth._clock import Moment
from httpx_reauth._tokens._refresh import storage_steps
from httpx_reauth._tokens._refresh.flight import Flight
from httpx_reauth._tokens._refresh.sync import Keeper
from httpx_reauth.testing import ManualClock

MINE, NEW = Token("mine", refresh_token="r0"), Token("new")


class Held:
    """A storage whose lock is free; or taken, and `beside` is what its holder has saved, once one looks."""

    def __init__(self, held: Token | None, beside: Token | None = None) -> None:
        self.held = held
        self.saved: list[Token] = []
        self.leases: list[float] = []
        self.beside = beside

    def load(self) -> Token | None:
        return self.beside or self.held

    def save(self, token: Token) -> None:
        self.saved.append(token)

    def clear(self) -> None:
        raise AssertionError

    def try_lock(self, lease: float) -> AbstractContextManager[None] | None:
        self.leases.append(lease)
        return None if self.beside else nullcontext()


class Renewed:
    """One renewal of `MINE`, with `held` in the storage that held `seen` when it was last looked at."""

    def __init__(self, storage: Held, seen: str | None, reason: Any, unsaved: Any = "", is_read: bool = True) -> None:
        clock = ManualClock()
        store = Reauth(lambda _: Token("unused"), token=MINE, clock=clock).store
        keeper, now = Keeper(storage), clock.monotonic()
        keeper.is_read, keeper.seen = is_read, seen
        flight = Flight(store, reason, started=now, overdue=now + 30.0, failures=0)
        flight.depart()
        store._state = basis = AuthState("pending", store.state.token, flight=flight, unsaved=unsaved)
        self.asked: list[Token] = []
        self.published: list[Any] = []
        self.keeper = keeper
        self.steps = keeper.renew(flight, basis, clock, self._ask, self._publish)
        self.clock = clock

    def _ask(self, last: Token, at: Moment) -> Generator[Any, Any, tuple[Token, Moment]]:
        self.asked.append(last)
        return NEW, at
        yield

    def _publish(self, token: Token, at: Moment, *, adopted: bool, unsaved: object = None) -> None:
        self.published.append((token.access_token, at.monotonic, adopted, unsaved))


def run(renewed: Renewed) -> Renewed:
    """Make each call at once; a pause moves the clock."""
    answer: Any = None
    try:
        while True:
            call = renewed.steps.send(answer)
            is_pause = call.function is storage_steps.sleep
            answer = renewed.clock.advance(*call.arguments) if is_pause else call.function(*call.arguments)
    except StopIteration:
        return renewed


@pytest.mark.parametrize(
    ("held", "seen", "reason", "unsaved", "asked", "adopted"),
    [
        # It is asked for, as the successor of:
        ("mine", "mine", "expired", "", "mine", None),
        ("other", "other", "expired", "renewed", "mine", None),  # what could not be saved goes on from there
        (None, None, "rejected", "", "mine", None),
        ("other", "mine", "expired", "signed in", "mine", None),
        # It is adopted:
        ("other", "mine", "expired", "", None, "other"),
        ("other", "mine", "expired", "renewed", None, "other"),
        ("other", None, "expired", "renewed", None, "other"),  # where there was none
        ("mine", None, "missing", "", None, "mine"),
        (None, None, "missing", "", None, "mine"),  # the first one, which is saved
        ("other", "mine", "missing", "signed in", None, "mine"),
        ("other", "mine", "missing", "signed in, told", None, "mine"),
    ],
)
def test_what_is_found_under_the_lock(
    held: str | None, seen: str | None, reason: str, unsaved: str, asked: str | None, adopted: str | None
):
    storage = Held(None if held is None else Token(held))
    renewed = run(Renewed(storage, seen, reason, unsaved))
    assert [token.access_token for token in renewed.asked] == ([] if asked is None else [asked])
    assert renewed.published == [(adopted or "new", 1000.0, adopted is not None, None)]
    assert [token.access_token for token in storage.saved] == (
        [] if adopted and adopted == held else [adopted or "new"]
    )
    assert storage.leases == [70.0]  # twice the time that a refresh has, and time to save


def test_what_could_not_be_saved_goes_on_from_what_is_held_if_that_was_never_read():
    renewed = run(Renewed(Held(Token("other")), None, "expired", "renewed", is_read=False))
    assert [token.access_token for token in renewed.asked] == ["mine"]


def test_what_is_found_while_one_waits_for_the_lock_is_remembered_and_adopted():
    storage = Held(Token("mine"), beside=Token("theirs"))
    renewed = run(Renewed(storage, "mine", "expired"))
    assert (renewed.asked, storage.saved, renewed.keeper.seen) == ([], [], "theirs")
    assert renewed.published == [("theirs", 1000.0, True, None)]


@pytest.mark.parametrize(
    ("found", "seen", "reason", "unsaved"),
    [
        (Token("theirs"), "theirs", "expired", ""),  # it was there before
        (Token("theirs", expires_in=0), "mine", "expired", ""),
        (Token("mine"), "other", "rejected", ""),
        (Token("mine"), "other", "expired", ""),
        (Token("theirs"), "mine", "expired", "renewed"),  # there is something to be saved
    ],
)
def test_what_is_not_enough_for_one_that_waits_for_the_lock(found: Token, seen: str, reason: str, unsaved: str):
    renewed = Renewed(Held(None, beside=found), seen, reason, unsaved)
    with pytest.raises(StorageError):
        run(renewed)
    assert renewed.published == renewed.asked == []
    assert renewed.clock.monotonic() == 1027.0  # a tenth of the time is left to say that the lock could not be had


def test_what_is_held_is_enough_at_the_first_look_though_it_is_the_same():
    renewed = run(Renewed(Held(None, beside=Token("mine")), "other", "missing"))
    assert renewed.published == [("mine", 1000.0, True, None)]
