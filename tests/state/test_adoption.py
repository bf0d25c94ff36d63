"""What is made of what a storage holds: adopted, gone on from, given way to, or taken for a sign-out. By hand."""

from __future__ import annotations

import pytest

from httpx_reauth import Token
from httpx_reauth._clock import Moment
from httpx_reauth._state.actions import Reason
from httpx_reauth._state.adoption import Found, adopted, choose, gives_way, is_adoptable, is_usable
from httpx_reauth._state.state import Unsaved

AT = Moment(1000.0, 1_700_000_000.0)


def token(name: str | None) -> Token | None:
    """The token of that name; one that has ended is in brackets, and `"-"` has a refresh token alone."""
    if name is None:
        return None
    if name == "-":
        return Token(refresh_token="-")
    return Token(name.strip("()"), expires_in=0) if name.startswith("(") else Token(name)


CHOICES = [
    # mine, held, before, unsaved, reason: what is chosen. "=": adopted as it is held; "+": to be put there; "?": its
    # successor is asked for; "!": signed out by somebody else.
    (None, None, None, "", "missing", "? nothing"),
    (None, "held", None, "", "missing", "= held"),
    (None, "(held)", None, "", "missing", "? held"),
    (None, "-", None, "", "missing", "? -"),
    # Somebody else has renewed it, or not.
    ("mine", "held", "mine", "", "expired", "= held"),
    ("mine", "held", "mine", "", "rejected", "= held"),
    ("mine", "(held)", "mine", "", "expired", "? held"),
    ("mine", "mine", "mine", "", "expired", "? mine"),
    ("mine", "mine", "mine", "", "expiring", "? mine"),
    ("mine", "mine", None, "", "missing", "= mine"),
    ("mine", "mine", None, "", "rejected", "? mine"),
    # There is nothing: at first the seed, later a sign-out.
    ("mine", None, None, "", "missing", "+ mine"),
    ("mine", None, None, "", "rejected", "? mine"),
    ("(mine)", None, None, "", "expired", "? mine"),
    ("-", None, None, "", "missing", "? -"),
    ("mine", None, "mine", "", "expired", "!"),
    (None, None, "mine", "", "missing", "? nothing"),
    # Ours is renewed from what is held, which it has spent.
    ("mine", "old", "old", "renewed", "expired", "? mine"),
    ("mine", "old", "old", "renewed", "missing", "? mine"),
    ("mine", None, None, "renewed", "expired", "? mine"),
    ("mine", None, "old", "renewed", "expired", "!"),
    # Ours was signed in, and replaces whatever is held.
    ("mine", "old", "old", "signed in", "missing", "+ mine"),
    ("mine", None, "old", "signed in", "missing", "+ mine"),
    ("mine", "old", "old", "signed in, told", "missing", "+ mine"),
    ("mine", "old", "old", "signed in", "expired", "? mine"),
    ("(mine)", "old", "old", "signed in", "missing", "? mine"),
    ("-", "old", "old", "signed in, told", "missing", "? -"),
    (None, "held", "old", "signed in", "missing", "= held"),
]


@pytest.mark.parametrize(("mine", "held", "before", "unsaved", "reason", "expected"), CHOICES)
def test_what_is_chosen(
    mine: str | None, held: str | None, before: str | None, unsaved: Unsaved, reason: Reason, expected: str
):
    chosen = choose(token(mine), token(held), before, unsaved=unsaved, reason=reason, at=AT)
    if chosen is None:
        told = "!"
    elif isinstance(chosen, Found):
        assert (chosen.at, chosen.is_adopted) == (AT, True)
        told = f"{'=' if chosen.is_held else '+'} {chosen.token.access_token}"
    else:
        told = f"? {chosen.access_token or chosen.refresh_token or 'nothing'}"
    assert told == expected


@pytest.mark.parametrize(
    ("held", "before", "unsaved", "is_read", "is_dead", "expected"),
    [
        # A renewed one, to whatever others have put there.
        ("new", "old", "renewed", True, False, True),
        ("new", None, "renewed", True, False, True),
        ("old", "old", "renewed", True, False, False),
        ("old", "old", "renewed", True, True, False),
        ("new", None, "renewed", False, False, False),  # nobody knows what it was
        (None, "old", "renewed", True, True, False),
        # One that was signed in, if it is dead.
        ("new", "old", "signed in", True, False, False),
        ("old", "old", "signed in", True, True, True),
        ("old", "old", "signed in, told", False, True, True),
        (None, "old", "signed in", True, True, False),
    ],
)
def test_what_a_token_that_could_not_be_saved_gives_way_to(
    held: str | None, before: str | None, unsaved: Unsaved, *, is_read: bool, is_dead: bool, expected: bool
):
    assert gives_way(token(held), before, unsaved=unsaved, is_read=is_read, is_dead=is_dead) is expected


@pytest.mark.parametrize(
    ("token", "usable"),
    [
        (Token(refresh_token="r"), False),
        (Token("a"), True),
        (Token("a", expires_in=0), False),
        (Token("a", expires_in=1), True),
        (Token("a", expires_in=100, expires_at=AT.wall + 2.0), False),  # the last fiftieth of its life
        (Token("a", expires_in=100, expires_at=AT.wall + 2.001), True),
    ],
)
def test_a_token_is_usable_until_one_waits_for_the_next(token: Token, *, usable: bool):
    assert is_usable(token, AT) is usable


@pytest.mark.parametrize(
    ("held", "reason", "mine", "before", "adoptable"),
    [
        ("new", "expired", "mine", "mine", True),
        ("new", "rejected", "mine", "mine", True),
        ("new", "expired", None, "mine", True),
        ("mine", "expired", "mine", "mine", False),
        ("mine", "rejected", "mine", None, False),
        ("mine", "missing", "mine", "mine", True),
        ("mine", "expired", "mine", None, True),
        ("mine", "expired", None, "mine", True),
    ],
)
def test_a_token_is_adopted_if_somebody_else_has_renewed_it_or_at_the_first_look(
    held: str, reason: Reason, mine: str | None, before: str | None, *, adoptable: bool
):
    own = None if mine is None else Token(mine)
    assert is_adoptable(Token(held), reason, own, before, AT) is adoptable
    assert not is_adoptable(Token(held, expires_in=0), reason, own, before, AT)


def test_an_adopted_token_is_held_already_and_counts_from_now():
    held = Token("a", refresh_token="r", expires_in=100, expires_at=AT.wall + 50.0)
    found = adopted(held, AT)
    assert (found.token, found.at, found.is_adopted, found.is_held) == (held, AT, True, True)
