"""Tests that an error shows no secret, even if the server or the user has repeated one in it (guarantee 11)."""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from httpx_reauth import Reauth, RefreshError, SignInRequired, Token
from httpx_reauth.oauth.redaction import redact, redacted

SECRET = "ab+c/d=e f&g<h>\"i'j\\k%l~m.n_o-p#q?r:s;t@u,v!w(x)y*z[1]{2}|3^4`5$ßé日🎉"
PLAIN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.s1gn-at_ure"

SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent codes": lambda secret: quote(secret, safe=""),
    "percent codes but for slashes": quote,
    "some percent codes lower-case": lambda secret: quote(secret, safe="").replace("%2B", "%2b").replace("%2F", "%2f"),
    "all percent codes lower-case": lambda secret: re.sub("%..", lambda code: code[0].lower(), quote(secret, safe="")),
    "a form": quote_plus,
    "percent codes twice": lambda secret: quote(quote(secret, safe=""), safe=""),
    "HTML": html.escape,
    "HTML without quotes": lambda secret: html.escape(secret, quote=False),
    "HTML, decimal": lambda secret: "".join(char if char.isalnum() else f"&#{ord(char)};" for char in secret),
    "HTML, hexadecimal": lambda secret: "".join(char if char.isalnum() else f"&#x{ord(char):X};" for char in secret),
    "HTML, names": lambda secret: secret.replace("&", "&amp;").replace("+", "&plus;").replace("=", "&equals;"),
    "JSON": lambda secret: json.dumps(secret)[1:-1],
    "JSON in Unicode": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    "JSON of PHP": lambda secret: json.dumps(secret)[1:-1].replace("/", "\\/"),
    "JSON of .NET": lambda secret: (
        json.dumps(secret)[1:-1].replace("+", "\\u002B").replace("<", "\\u003C").replace("&", "\\u0026")
    ),
    "JSON of Java": lambda secret: json.dumps(secret)[1:-1].replace("=", "\\u003d").replace("'", "\\u0027"),
    "a repr": lambda secret: repr(secret)[1:-1],
    "a repr of bytes": lambda secret: repr(secret.encode())[2:-1],
}


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("secret", [SECRET, SECRET[::-1], PLAIN, "a/b", "p@ss wörd"])
def test_guarantee_11_a_secret_is_taken_out_however_it_is_spelt(spell: Callable[[str], str], secret: str):
    said = f"unknown: {spell(secret)} (again: {secret})"
    error = RefreshError(said, error="x", error_description=said, error_uri=said)
    redact(error, secret)
    for text in (str(error), error.error_description, error.error_uri, redacted(said, secret)):
        assert text == "unknown: *** (again: ***)"


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_guarantee_11_the_beginning_of_a_secret_is_taken_out_to_the_end_however_it_is_spelt(
    spell: Callable[[str], str],
):
    error = RefreshError(f"unknown: {spell(SECRET[:20])}...")
    redact(error, SECRET)
    assert str(error) == "unknown: ***"


class Request:
    """An object that is neither text nor a collection, and whose `repr` shows everything."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"Request({self.text})"


class Unreadable(dict[str, str]):
    """A mapping that raises, and whose `repr` shows everything."""

    def __getitem__(self, name: str) -> str:
        raise RuntimeError(PLAIN)


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError(PLAIN)


ARGUMENTS: dict[str, Any] = {
    "a mapping": {"grant": PLAIN},
    "a mapping by its keys": {PLAIN: 1},
    "bytes": f"no {PLAIN}".encode(),
    "a bytearray": bytearray(PLAIN.encode()),
    "a list": ["no", PLAIN],
    "a tuple": ("no", PLAIN),
    "a set": {PLAIN},
    "a frozenset": frozenset({PLAIN}),
    "lists in mappings in lists": [{"a": [{"b": (PLAIN.encode(),)}]}],
    "very deep": json.loads("[" * 50 + json.dumps(PLAIN) + "]" * 50),
    "an exception": ValueError(PLAIN),
    "an object": Request(PLAIN),
    "an object in a list": [Request(PLAIN)],
    "an object that cannot be shown": Unspeakable(),
    "a mapping that cannot be read": Unreadable({"a": PLAIN}),
    "a number": 1234567890123456,
    "a long list": [PLAIN] * 1_000,
}


@pytest.mark.parametrize("argument", ARGUMENTS.values(), ids=ARGUMENTS)
def test_guarantee_11_a_secret_is_taken_out_of_arguments_that_are_no_text(argument: Any):
    error = RefreshError("First.", error_description=PLAIN)
    error.args = ("First.", argument)
    redact(error, PLAIN, "1234567890123456")
    told = f"{error} {error!r} {error.args}"
    assert PLAIN not in told
    assert "1234567890123456" not in told
    assert error.args[0] == "First."
    assert len(told) < 3_000


@pytest.mark.parametrize(
    "argument", [{"a": 1}, ["a"], b"abc", 5, None, True, 1.5, ("a",), {"a"}, Token("a"), [{"a": (1,)}]]
)
def test_an_argument_without_a_secret_is_the_same_object(argument: Any):
    error = RefreshError("First.")
    error.args = (argument,)
    redact(error, PLAIN, "5", "abc/")
    assert error.args[0] is argument


@pytest.mark.parametrize(
    "said",
    [
        {"refresh_token": "unknown-to-us"},
        {"error": "x", "sent": {"client_secret": "unknown-to-us", "Password": "unknown-to-us"}},
        '{"access_token": "unknown-to-us", "x": 1}',
        "{'refreshToken': 'unknown-to-us'}",
        "POST refresh_token=unknown-to-us&x=1",
        "Token(access_token='unknown-to-us')",
        b'{"id_token":"unknown-to-us"}',
    ],
)
def test_guarantee_11_a_value_whose_name_says_that_it_is_secret_is_removed_though_it_is_unknown(said: Any):
    error = RefreshError(said)
    redact(error)
    assert "unknown-to-us" not in f"{error} {error!r}"
    assert "***" in str(error)


@pytest.mark.parametrize(
    "said",
    [
        "The refresh_token: expired.",
        '{"error": "invalid_token"}',
        "token=",
        "id_token is missing",
        '"code": "invalid_grant"',
    ],
)
def test_text_that_only_mentions_a_token_is_not_changed(said: str):
    error = RefreshError(said)
    redact(error)
    assert str(error) == said


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with Python 3.11")
def test_guarantee_11_a_secret_is_taken_out_of_notes():
    error = RefreshError("First.")
    error.add_note(f"while posting {PLAIN}")
    error.__notes__.append({"a": PLAIN})  # Python does not check what notes are
    redact(error, PLAIN)
    assert error.__notes__ == ["while posting ***", {"a": "***"}]


def test_guarantee_11_a_secret_is_taken_out_of_a_users_own_attributes():
    class Refused(RefreshError):
        def __init__(self, body: str, codes: list[str], count: int) -> None:
            super().__init__("Refused.")
            self.body = body
            self.codes = codes
            self.count = count

    error = Refused(f"no {PLAIN}", ["a", PLAIN], 5)
    redact(error, PLAIN)
    assert (error.body, error.codes, error.count) == ("no ***", ["a", "***"], 5)


def test_guarantee_11_a_secret_is_taken_out_of_a_description_that_is_a_list():
    error = RefreshError("First.", error=5, error_description=["no", PLAIN], error_uri={"a": PLAIN})  # type: ignore[arg-type]
    redact(error, PLAIN)
    assert (error.error, error.error_description, error.error_uri) == (5, ["no", "***"], {"a": "***"})


def test_guarantee_11_a_secret_is_taken_out_of_further_fields():
    error = RefreshError("First.", extra={"claims": f"a {PLAIN}", "list": [PLAIN], "count": 5})
    redact(error, PLAIN)
    assert error.extra == {"claims": "a ***", "list": ["***"], "count": 5}


# Texts that are not changed.


@pytest.mark.parametrize("answer", [None, "text", 5])
@pytest.mark.parametrize(
    "access_token", ["a", "Token", "not", "refresh", "returned", "The", "The refresh returned", "see"]
)
def test_the_words_of_this_library_are_not_changed(answer: Any, access_token: str):
    with pytest.raises(RefreshError) as caught:
        Reauth(lambda _: answer, token=Token(access_token, expires_in=0, refresh_token="no")).get_token()
    assert str(caught.value).startswith(f"The refresh returned {type(answer).__name__}, not a Token")


@pytest.mark.parametrize("secret", ["a", "A", "the", "Token", "refresh", "access", "4", "60", "400"])
def test_ordinary_words_and_small_numbers_in_the_texts_of_others_are_not_changed(secret: str):
    said = "A refresh token is not a token of access. The status is 400, after 60 s and 4 tries."
    error = SignInRequired(said, error_description=said)
    redact(error, secret)
    assert (str(error), error.error_description) == (said, said)


@pytest.mark.parametrize("secret", ["r", "abc", "s3cret", "hunter2", "1234", "ab-cd"])
def test_guarantee_11_another_short_secret_is_taken_out_where_it_is_a_word(secret: str):
    error = RefreshError(f"no {secret}; {secret}", error_description=f"x{secret}x ({secret})")
    redact(error, secret)
    assert str(error) == "no ***; ***"
    assert error.error_description == f"x{secret}x (***)"


def test_an_error_of_another_library_is_not_changed():
    foreign = ValueError("s3cret")
    redact(foreign, "s3cret")
    assert foreign.args == ("s3cret",)


# Several secrets, and long ones.


def test_guarantee_11_of_two_secrets_one_of_which_is_a_part_of_the_other_nothing_is_left():
    error = RefreshError("no such token: abcdefgh-and-the-rest")
    redact(error, "abcdefgh", "abcdefgh-and-the-rest")
    assert str(error) == "no such token: ***"


def test_guarantee_11_a_text_with_many_cut_echoes_ends_at_the_first():
    error = RefreshError("unknown:" + f" {PLAIN[:20]}..." * 9)
    redact(error, PLAIN)
    assert str(error) == "unknown: ***"


def test_guarantee_11_a_secret_of_eight_letters_is_taken_out_of_the_middle_of_a_word():
    error = RefreshError("xxs3cretlyxx", error="xxs3cretlxx")
    redact(error, "s3cretly")
    assert str(error) == "xx***xx"
    redact(error, "s3cretl")
    assert error.error == "xxs3cretlxx"  # a secret of seven letters is hidden only where it is a whole word


def test_guarantee_11_a_secret_cut_short_by_the_bound_leaves_no_prefix():
    for filling in range(270, 620):
        said = "x" * filling + "s3cret-refresh-token"
        error = RefreshError(said, error=said, error_description=said, error_uri=said)
        redact(error, "s3cret-refresh-token")
        for text in (str(error), error.error, error.error_description, error.error_uri):
            assert text is not None
            assert "s3" not in text


def test_what_an_error_says_is_bounded():
    error = RefreshError("m" * 10_000, error="e" * 10_000, error_description="d" * 10_000, error_uri="u" * 10_000)
    redact(error)
    assert len(str(error)) == 600
    assert [len(text or "") for text in (error.error, error.error_description, error.error_uri)] == [300, 300, 300]


def test_what_a_server_says_is_bounded_in_our_own_sentence_too():
    with pytest.raises(RefreshError) as caught:
        Token.from_response({"error": "e" * 10_000, "error_description": "d" * 10_000})
    redact(caught.value)
    assert len(str(caught.value)) < 1_000
    assert str(caught.value).endswith("after a back-off.")


@given(st.text(), st.text() | st.text(min_size=16))
def test_any_secret_can_be_taken_out(text: str, secret: str):
    error = RefreshError(text, error=text, error_description=text, error_uri=text)
    redact(error, secret)
    if len(secret) >= 16 and "*" not in secret:
        assert secret not in str(error)


def test_half_a_letter_can_be_taken_out():
    error = RefreshError("no \ud800 here")
    redact(error, "\ud800")
    assert str(error) == "no *** here"


def test_urls_are_shown_without_their_queries_where_a_users_exception_names_them():
    said = "Client error for url 'https://me:pw@id.example.com:8443/token?api_key=k#f' and http://a.test/b?c=d"
    assert redacted(said) == "Client error for url 'https://id.example.com:8443/token' and http://a.test/b"
