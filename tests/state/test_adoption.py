"""Tests of what a refresh does with the token of a storage: adopt it, get its successor, or sign out.

Tokens are written as words. `"-"` has only a refresh token, a word in brackets is a token that has ended, and None is
no token.
"""

from __future__ import annotations

import pytest

from httpx_reauth import Token
from httpx_reauth._clock import Moment
from httpx_reauth._state.actions import Reason
from httpx_reauth._state.adoption import Adopt, Ask, NextStep, adopt, is_adoptable, is_outdated, is_usable, next_step
from httpx_reauth._state.state import PendingWrite

AT = Moment(1000.0, 1_700_000_000.0)


def token(word: str | None) -> Token | None:
    if word is None:
        return None
    if word == "-":
        return Token(refresh_token="-")
    return Token(word.strip("()"), expires_in=0) if word.startswith("(") else Token(word)


def in_words(step: NextStep) -> str:
    if isinstance(step, Adopt):
        assert step.at == AT
        return f"{'adopt' if step.is_stored else 'store'} {step.token.access_token}"
    if isinstance(step, Ask):
        return f"ask for the successor of {step.last.access_token or step.last.refresh_token or 'nothing'}"
    return "sign out"


STEPS = [
    # Columns: current, stored, last seen, not written yet, reason, and what is done. "store" means: adopt it and write
    # it.
    (None, None, None, "", "missing", "ask for the successor of nothing"),
    (None, "stored", None, "", "missing", "adopt stored"),
    (None, "(stored)", None, "", "missing", "ask for the successor of stored"),
    (None, "-", None, "", "missing", "ask for the successor of -"),
    # Another process has renewed it, or not.
    ("mine", "stored", "mine", "", "expired", "adopt stored"),
    ("mine", "stored", "mine", "", "rejected", "adopt stored"),
    ("mine", "(stored)", "mine", "", "expired", "ask for the successor of stored"),
    ("mine", "mine", "mine", "", "expired", "ask for the successor of mine"),
    ("mine", "mine", "mine", "", "expiring", "ask for the successor of mine"),
    ("mine", "mine", None, "", "missing", "adopt mine"),
    ("mine", "mine", None, "", "rejected", "ask for the successor of mine"),
    # The storage is empty. At first a token that was given seeds it; later it means a sign-out.
    ("mine", None, None, "", "missing", "store mine"),
    ("mine", None, None, "", "rejected", "ask for the successor of mine"),
    ("(mine)", None, None, "", "expired", "ask for the successor of mine"),
    ("-", None, None, "", "missing", "ask for the successor of -"),
    ("mine", None, "mine", "", "expired", "sign out"),
    (None, None, "mine", "", "missing", "ask for the successor of nothing"),
    # Our token was renewed from the stored one, which is spent.
    ("mine", "old", "old", "renewed", "expired", "ask for the successor of mine"),
    ("mine", "old", "old", "renewed", "missing", "ask for the successor of mine"),
    ("mine", None, None, "renewed", "expired", "ask for the successor of mine"),
    ("mine", None, "old", "renewed", "expired", "sign out"),
    # Our token was signed in, and replaces the stored one.
    ("mine", "old", "old", "signed in", "missing", "store mine"),
    ("mine", None, "old", "signed in", "missing", "store mine"),
    ("mine", "old", "old", "signed in", "expired", "ask for the successor of mine"),
    ("(mine)", "old", "old", "signed in", "missing", "ask for the successor of mine"),
    ("-", "old", "old", "signed in", "missing", "ask for the successor of -"),
]


@pytest.mark.parametrize(("current", "stored", "last_seen", "pending_write", "reason", "expected"), STEPS)
def test_the_next_step_of_a_refresh_follows_from_the_two_tokens(
    current: str | None,
    stored: str | None,
    last_seen: str | None,
    pending_write: PendingWrite,
    reason: Reason,
    expected: str,
):
    step = next_step(token(current), token(stored), last_seen, pending_write=pending_write, reason=reason, at=AT)
    assert in_words(step) == expected


OUTDATED = [
    # Columns: stored, last seen, not written yet, was the storage read, was our refresh token refused; is it outdated?
    # A renewed token, whatever other processes have stored since.
    ("new", "old", "renewed", True, False, True),
    ("new", None, "renewed", True, False, True),
    ("old", "old", "renewed", True, False, False),
    ("old", "old", "renewed", True, True, False),
    ("new", None, "renewed", False, False, False),  # we do not know what the storage held before
    (None, "old", "renewed", True, True, False),
    # A token that was signed in, if the server refuses it for good.
    ("new", "old", "signed in", True, False, False),
    ("old", "old", "signed in", True, True, True),
    ("old", "old", "signed in", False, True, True),
    (None, "old", "signed in", True, True, False),
]


@pytest.mark.parametrize(("stored", "last_seen", "pending_write", "is_loaded", "is_refused", "expected"), OUTDATED)
def test_a_token_that_could_not_be_saved_is_outdated_by_a_better_one(
    stored: str | None,
    last_seen: str | None,
    pending_write: PendingWrite,
    *,
    is_loaded: bool,
    is_refused: bool,
    expected: bool,
):
    state = {"pending_write": pending_write, "is_loaded": is_loaded, "is_refused": is_refused}
    assert is_outdated(token(stored), last_seen, **state) is expected


@pytest.mark.parametrize(
    ("token", "usable"),
    [
        (Token(refresh_token="r"), False),
        (Token("a"), True),
        (Token("a", expires_in=0), False),
        (Token("a", expires_in=1), True),
        (Token("a", expires_in=100, expires_at=AT.wall + 2.0), False),  # the last fiftieth of its lifetime
        (Token("a", expires_in=100, expires_at=AT.wall + 2.001), True),
    ],
)
def test_a_token_is_usable_until_requests_wait_for_the_next(token: Token, *, usable: bool):
    assert is_usable(token, AT) is usable


ADOPTABLE = [
    # Columns: stored, reason, current, last seen; is it adopted?
    ("new", "expired", "mine", "mine", True),
    ("new", "rejected", "mine", "mine", True),
    ("new", "expired", None, "mine", True),
    ("mine", "expired", "mine", "mine", False),
    ("mine", "rejected", "mine", None, False),
    ("mine", "missing", "mine", "mine", True),
    ("mine", "expired", "mine", None, True),
    ("mine", "expired", None, "mine", True),
]


@pytest.mark.parametrize(("stored", "reason", "current", "last_seen", "adoptable"), ADOPTABLE)
def test_a_token_is_adopted_if_another_process_has_renewed_it_or_at_the_first_load(
    stored: str, reason: Reason, current: str | None, last_seen: str | None, *, adoptable: bool
):
    assert is_adoptable(Token(stored), reason, token(current), last_seen, AT) is adoptable
    assert not is_adoptable(Token(stored, expires_in=0), reason, token(current), last_seen, AT)


def test_an_adopted_token_is_stored_already_and_counts_from_now():
    stored = Token("a", refresh_token="r", expires_in=100, expires_at=AT.wall + 50.0)
    assert adopt(stored, AT) == Adopt(stored, AT, is_stored=True)
    lifetime_alone = adopt(Token("a", expires_in=100), AT).token
    assert lifetime_alone.expires_at == AT.wall + 100
