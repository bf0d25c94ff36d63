"""Which token a flight finds under the storage's lock, or while it waits for it, by hand."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest

from httpx_reauth import AuthState, Reauth, Token
from httpx_reauth._clock import Moment
from httpx_reauth._tokens._refresh.flight import Flight
from httpx_reauth._tokens._refresh.sync import Keeper
from httpx_reauth.testing import ManualClock

MINE, NEW = Token("mine", refresh_token="r0"), Token("new")


class Held:
    """A storage whose lock says for how long it was waited for; `beside` it finds what is held, if that is enough."""

    def __init__(self, held: Token | None) -> None:
        self.held = held
        self.saved: list[Token] = []
        self.waits: list[float] = []
        self.is_enough: Callable[[Token], bool] | None = None
        self.beside: Token | None = None

    def load(self) -> Token | None:
        return self.held

    def save(self, token: Token) -> None:
        self.saved.append(token)

    def clear(self) -> None:
        raise AssertionError

    @contextmanager
    def lock(self, timeout: float) -> Generator[None, None, None]:
        self.waits.append(timeout)
        yield

    @contextmanager
    def lock_unless(self, timeout: float, is_enough: Callable[[Token], bool]) -> Generator[Token | None, None, None]:
        self.waits.append(timeout)
        self.is_enough = is_enough
        yield self.beside


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
        run(keeper.renew(flight, basis, clock, self._ask, self._publish))

    def _ask(self, last: Token, at: Moment) -> Generator[Any, Any, tuple[Token, Moment]]:
        self.asked.append(last)
        return NEW, at
        yield

    def _publish(self, token: Token, at: Moment, *, adopted: bool, unsaved: object = None) -> None:
        self.published.append((token.access_token, at.monotonic, adopted, unsaved))


def run(steps: Generator[Any, Any, Any]) -> None:
    """Make each call at once."""
    answer: Any = None
    try:
        while True:
            call = steps.send(answer)
            answer = call.function(*call.arguments)
    except StopIteration:
        return


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
    renewed = Renewed(storage, seen, reason, unsaved)
    assert [token.access_token for token in renewed.asked] == ([] if asked is None else [asked])
    assert renewed.published == [(adopted or "new", 1000.0, adopted is not None, None)]
    assert [token.access_token for token in storage.saved] == (
        [] if adopted and adopted == held else [adopted or "new"]
    )
    assert storage.waits == [27.0]  # a tenth of the time is left to say that the lock could not be had
    assert (storage.is_enough is None) is bool(unsaved)


def test_what_could_not_be_saved_goes_on_from_what_is_held_if_that_was_never_read():
    renewed = Renewed(Held(Token("other")), None, "expired", "renewed", is_read=False)
    assert [token.access_token for token in renewed.asked] == ["mine"]


def test_what_is_found_while_one_waits_for_the_lock_is_remembered_and_adopted():
    storage = Held(Token("mine"))
    storage.beside = Token("theirs")
    renewed = Renewed(storage, "mine", "expired")
    assert (renewed.asked, storage.saved, renewed.keeper.seen) == ([], [], "theirs")
    assert renewed.published == [("theirs", 1000.0, True, None)]


@pytest.mark.parametrize(
    ("found", "seen", "reason", "is_enough"),
    [
        ("theirs", "mine", "expired", True),
        ("theirs", "theirs", "expired", False),  # it was there before
        ("mine", "other", "rejected", False),
        ("mine", "other", "expired", False),
        ("mine", "other", "missing", True),
    ],
)
def test_what_is_enough_for_whoever_waits_for_the_lock(found: str, seen: str, reason: str, *, is_enough: bool):
    storage = Held(Token(found))
    renewed = Renewed(storage, "mine", reason)
    assert storage.is_enough is not None
    renewed.keeper.seen = seen
    assert storage.is_enough(Token(found)) is is_enough
    assert not storage.is_enough(Token(found, expires_in=0))
