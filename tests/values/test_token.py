"""Tests of the token: its arguments, its repr, and the token that follows another one."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, replace
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from httpx_reauth import RefreshError, Token

FULL = Token(
    "s3cret-access",
    refresh_token="s3cret-refresh",
    expires_in=3600,
    expires_at=1_700_003_600.5,
    token_type="DPoP",
    scope="a b",
    extra={"id_token": "s3cret-id", "nested": {"s3cret": [1, 2]}},
)


def test_a_token_is_empty_by_default():
    assert Token() == Token(
        "", refresh_token=None, expires_in=None, expires_at=None, token_type="Bearer", scope=None, extra={}
    )


def test_only_the_access_token_may_be_given_by_position():
    with pytest.raises(TypeError):
        Token("a", "r")  # type: ignore[misc]


def test_a_token_is_frozen_and_slotted():
    with pytest.raises(FrozenInstanceError):
        FULL.access_token = "other"  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        FULL.expires = 5  # type: ignore[attr-defined]
    assert not hasattr(FULL, "__dict__")


@pytest.mark.parametrize(
    "change",
    [
        lambda extra: extra.update(a=1),
        lambda extra: extra.__setitem__("a", 1),
        lambda extra: extra.__delitem__("id_token"),
        lambda extra: extra.pop("id_token"),
        lambda extra: extra.popitem(),
        lambda extra: extra.clear(),
        lambda extra: extra.setdefault("a", 1),
        lambda extra: extra.__ior__({"a": 1}),
    ],
)
def test_the_extra_fields_are_frozen_too(change: Callable[[Any], object]):
    with pytest.raises(TypeError) as caught:
        change(FULL.extra)
    assert str(caught.value) == "A token is frozen, its extra fields too. Use dataclasses.replace(token, extra=...)."
    assert FULL.extra == {"id_token": "s3cret-id", "nested": {"s3cret": [1, 2]}}


def test_the_extra_fields_are_a_copy_of_what_was_given():
    given_fields = {"a": 1}
    token = Token("a", extra=given_fields)
    given_fields["b"] = 2
    assert token.extra == {"a": 1}


def test_the_extra_fields_can_be_copied_dumped_and_merged():
    assert copy.deepcopy(FULL.extra) == FULL.extra
    assert copy.deepcopy(FULL.extra)["nested"] is not FULL.extra["nested"]
    assert json.loads(json.dumps(FULL.extra)) == FULL.extra
    assert {**FULL.extra, "b": 1}["b"] == 1
    assert FULL.extra | {"b": 1} == {"id_token": "s3cret-id", "nested": {"s3cret": [1, 2]}, "b": 1}


def test_what_the_extra_fields_share_with_others_is_shared_by_the_copies_too():
    shared = [1]
    extra, other = copy.deepcopy((Token("a", extra={"b": shared}).extra, shared))
    assert extra["b"] is other


def test_tokens_without_extra_fields_share_the_empty_ones():
    assert Token("a").extra is Token("b").extra


@pytest.mark.parametrize("token", [Token(), FULL, Token("a", expires_in=0), Token(refresh_token="r")])
def test_the_result_of_asdict_reads_back(token: Token):
    assert Token(**asdict(token)) == token
    assert Token(**json.loads(json.dumps(asdict(token)))) == token


def test_tokens_are_compared_and_hashed_by_their_values():
    twin = Token(**asdict(FULL))
    assert twin == FULL
    assert hash(twin) == hash(FULL)
    assert replace(FULL, extra={}) != FULL
    assert replace(FULL, scope=None) != FULL
    assert len({FULL, twin, Token()}) == 2


@pytest.mark.parametrize(
    "access_token",
    ["a", "a.b-c_d~e+f/g==", "two words", "!", "~", "x" * 100_000, "a\x20b", 'quote"and\\backslash', "a,b;c"],
)
def test_an_access_token_is_any_visible_ascii(access_token: str):
    assert Token(access_token).access_token == access_token


@pytest.mark.parametrize(
    "access_token",
    ["a\n", "\na", "a\r\nX-Evil: 1", "a\tb", "a\x00", "a\x7f", " a", "a ", " ", "ä", "a\u2028b", "\ufeffa", "\ud800",
     "a\x0b", "\x1b[31m", "a\u200b", "\uff41"],
)  # fmt: skip
def test_guarantee_11_an_access_token_that_would_break_a_header_is_refused_without_being_shown(access_token: str):
    with pytest.raises(ValueError, match="cannot be sent") as caught:
        Token(access_token)
    if len(access_token.strip()) > 1:
        assert access_token not in str(caught.value)


@pytest.mark.parametrize("refresh_token", ["r", "", "with blanks ", "ärger", "a" * 10_000, None, "1//0g-x_y"])
def test_a_refresh_token_is_any_text_since_it_is_form_encoded(refresh_token: str | None):
    assert Token(refresh_token=refresh_token).refresh_token == refresh_token


@pytest.mark.parametrize("refresh_token", ["r\n", "\rr", "a\x00b", "\x7f", "a\tb", "\ud800", "a\udfffb"])
def test_a_refresh_token_with_a_control_character_or_half_a_letter_is_refused(refresh_token: str):
    with pytest.raises(ValueError, match="refresh token"):
        Token(refresh_token=refresh_token)


@pytest.mark.parametrize("token_type", ["Bearer", "bearer", "DPoP", "MAC", "x!#$%&'*+.^_`|~9-"])
def test_a_type_set_by_hand_stays_as_it_is(token_type: str):
    assert Token("a", token_type=token_type).token_type == token_type


@pytest.mark.parametrize("token_type", ["", " ", "Bearer ", "two words", "a\n", "a:b", "ä", "a,b", "a\x00"])
def test_a_type_that_is_not_one_word_is_refused(token_type: str):
    with pytest.raises(ValueError, match="token_type must be one word"):
        Token("a", token_type=token_type)


@pytest.mark.parametrize(
    "fields",
    [{"access_token": None}, {"access_token": b"a"}, {"access_token": 1}, {"token_type": None}, {"token_type": 5},
     {"refresh_token": 1}, {"refresh_token": b"r"}, {"scope": ["a"]}, {"scope": 1}, {"expires_in": "3600"},
     {"expires_in": True}, {"expires_at": False}, {"expires_at": "2030-01-01"}, {"expires_in": [1]}],
)  # fmt: skip
def test_a_field_of_another_type_is_a_type_error_that_names_it(fields: dict[str, Any]):
    (name,) = fields
    with pytest.raises(TypeError, match=f"^{name} must be"):
        Token(**fields)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"access_token": "a\n"}, ["cannot be sent", ".strip()"]),
        ({"refresh_token": "r\n"}, ["refresh token", "line break", ".strip()"]),
        ({"token_type": "two words"}, ["token_type must be one word", "authorize="]),
        ({"expires_in": math.inf}, ["expires_in must be a number of seconds", "infinity is None"]),
        ({"expires_at": 1_764_355_200_000}, ["expires_at", "milliseconds?", "1000"]),
        ({"expires_at": 1_764_355_200_000_000}, ["expires_at", "milliseconds?", "1000"]),
        ({"expires_at": 1e300}, ["expires_at", "milliseconds?"]),
        *[
            ({"access_token": given}, ["scheme", "Token('abc')", "token_type"])
            for given in ("Bearer abc", "bearer abc", "BEARER  abc", "Basic abc", "DPoP abc", "token abc",
                          "Authorization: Bearer abc")
        ],
    ],
)  # fmt: skip
def test_a_value_error_says_what_is_wrong_and_what_to_do(fields: dict[str, Any], says: list[str]):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the test checks the message
        Token(**fields)
    assert [words for words in says if words not in str(caught.value)] == []
    assert str(caught.value).isascii()


@pytest.mark.parametrize("access_token", ["Bearer", "Bearertoken abc", "bearer_abc", "tokens abc", "x Bearer abc"])
def test_what_only_looks_like_a_scheme_is_a_part_of_the_token(access_token: str):
    assert Token(access_token).access_token == access_token


def test_a_scheme_in_front_of_a_servers_token_is_read_over():
    assert Token.from_response({"access_token": "Bearer abc"}).access_token == "abc"


@pytest.mark.parametrize("name", ["expires_in", "expires_at"])
@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, 10**400, -(10**400), 1.1e300])
def test_a_time_that_is_no_number_of_seconds_is_a_value_error(name: str, seconds: float):
    with pytest.raises(ValueError, match=f"^{name} must be a number of seconds"):
        Token("a", **{name: seconds})


@pytest.mark.parametrize("seconds", [0, -5, 0.5, 1e300, -1e300, 10**100, 3600])
def test_any_other_lifetime_stays_what_it_is(seconds: float):
    assert Token("a", expires_in=seconds).expires_in == seconds


@pytest.mark.parametrize(
    "seconds", [0, -5, 0.5, -1e300, 3600, 1_764_355_200, datetime.max.replace(tzinfo=timezone.utc).timestamp() - 1]
)
def test_any_other_end_stays_what_it_is(seconds: float):
    assert Token("a", expires_at=seconds).expires_at == seconds


# The repr.


def test_guarantee_11_a_token_shows_no_secret():
    for text in (repr(FULL), str(FULL), f"{FULL}", f"{[FULL]}"):
        assert "s3cret" not in text
    assert repr(FULL) == (
        "Token('***', refresh_token='***', expires_in=3600, expires_at=1700003600.5, token_type='DPoP', "
        "scope='a b', extra=<2 fields>)"
    )


def test_what_it_shows_tells_missing_secrets_from_hidden_ones():
    assert repr(Token()).startswith("Token('', refresh_token=None, expires_in=None")
    assert repr(Token("a")).startswith("Token('***', refresh_token=None")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_guarantee_11_a_token_refuses_to_be_pickled(protocol: int):
    with pytest.raises(TypeError) as caught:
        pickle.dumps({"token": FULL}, protocol)
    assert str(caught.value) == (
        "Token holds secrets and refuses to be pickled. Give the other process a storage, or make the object there."
    )


def test_copying_a_token_returns_the_same_object():
    assert copy.copy(FULL) is FULL
    assert copy.deepcopy({"a": [FULL]})["a"][0] is FULL


# One token after another.

LAST = Token("old", refresh_token="r1", expires_in=60, expires_at=900, scope="a b", extra={"id_token": "i"})

RENEWED = {
    # the answer -> refresh token, scope, expires_in, expires_at; refreshed at 1000
    "nothing but a token": (Token("new"), ("r1", "a b", None, None)),
    "the lifetime": (Token("new", expires_in=3600), ("r1", "a b", 3600, 4600)),
    "the end": (Token("new", expires_at=4600), ("r1", "a b", 3600, 4600)),
    "both, as they are": (Token("new", expires_in=3600, expires_at=2000), ("r1", "a b", 3600, 2000)),
    "zero": (Token("new", expires_in=0), ("r1", "a b", 0, 1000)),
    "a negative lifetime": (Token("new", expires_in=-5), ("r1", "a b", -5, 995)),
    "an end that has passed": (Token("new", expires_at=400), ("r1", "a b", -600, 400)),
    "the end of the epoch's first second": (Token("new", expires_at=0), ("r1", "a b", -1000, 0)),
    "a rotated refresh token": (Token("new", refresh_token="r2"), ("r2", "a b", None, None)),
    "an empty refresh token": (Token("new", refresh_token=""), ("r1", "a b", None, None)),
    "another scope": (Token("new", scope="a"), ("r1", "a", None, None)),
    "an empty scope": (Token("new", scope=""), ("r1", "", None, None)),
}


@pytest.mark.parametrize(("answer", "expected"), RENEWED.values(), ids=RENEWED)
def test_an_answer_becomes_the_successor_of_a_token(answer: Token, expected: tuple[Any, ...]):
    token = LAST.renewed(answer, 1000)
    assert (token.refresh_token, token.scope, token.expires_in, token.expires_at) == expected
    assert token.access_token == "new"


def test_a_successor_keeps_the_further_fields_that_the_answer_leaves_out_but_for_lifetimes():
    of_last = {
        "id_token": "i",
        "instance_url": "https://a",
        "refresh_expires_in": 5,
        "issued_at": 6,
        "expires_on": 7,
        "expiresIn": 8,
        "refreshTokenExpiresAt": 9,
        "plugin": 10,
        "born_in_": 11,
    }
    token = replace(LAST, token_type="MAC", extra=of_last).renewed(Token("new", extra={"b": 1, "id_token": "j"}), 1000)
    assert token.token_type == "Bearer"
    assert token.extra == {"id_token": "j", "instance_url": "https://a", "plugin": 10, "born_in_": 11, "b": 1}
    assert LAST.renewed(Token("new"), 1000).extra == {"id_token": "i"}
    assert LAST.access_token == "old"


def test_a_token_that_is_its_own_successor_keeps_all_of_its_fields():
    token = replace(LAST, extra={"issued_at": 6})
    assert token.renewed(token, 1000).extra == {"issued_at": 6}


def test_a_successor_that_lives_almost_for_ever_ends_with_the_calendar():
    token = LAST.renewed(Token("new", expires_in=1e299), 1000)
    assert token.expires_in == 1e299
    assert token.expires_at == datetime.max.replace(tzinfo=timezone.utc, microsecond=0).timestamp()


def test_the_first_token_succeeds_an_empty_one():
    assert Token().renewed(Token("new", refresh_token="r"), 1000) == Token("new", refresh_token="r")


times = st.none() | st.floats(-1e12, 1e12) | st.integers(-(10**12), 10**12)
ends = st.none() | st.floats(-1e12, 2e11) | st.integers(-(10**12), 2 * 10**11)


@given(times, ends, st.floats(0, 1e11))
def test_a_successor_knows_both_times_or_none_and_renewing_it_changes_nothing(
    expires_in: float | None, expires_at: float | None, now: float
):
    token = LAST.renewed(Token("new", expires_in=expires_in, expires_at=expires_at), now)
    assert (token.expires_in is None) == (token.expires_at is None) == (expires_in is None and expires_at is None)
    if expires_in is not None:
        assert token.expires_in == expires_in
    if expires_at is not None:
        assert token.expires_at == expires_at
    assert LAST.renewed(token, now + 5000) == token


@given(st.text())
def test_any_access_token_is_taken_or_refused_as_a_value_error_and_can_be_sent_if_it_is_taken(text: str):
    try:
        token = Token(text)
    except ValueError:
        return
    header = f"Bearer {token.access_token}"
    assert header.encode("ascii").isascii()
    assert text == text.strip()
    assert all(32 <= ord(letter) < 127 for letter in text)


def test_an_answer_that_cannot_be_sent_is_an_error_that_says_why():
    with pytest.raises(
        RefreshError, match=r"^The token endpoint's answer is unusable\. This access token cannot be sent"
    ):
        Token.from_response({"access_token": "two\nlines"})
