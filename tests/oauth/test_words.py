"""Tests of the errors for a token endpoint's answer: what happened, what the server said, and what to do next."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from httpx_reauth import ReauthError, RefreshError, SignInRequired, Token

WORDS: dict[str, tuple[Any, type[ReauthError], list[str]]] = {
    "neither JSON nor a form": (
        httpx.Response(200, text="<p>hello"),
        RefreshError,
        ["neither a JSON object nor a form", "Check that the token URL is the right one"],
    ),
    "dead": (
        {"error": "invalid_grant", "error_description": "It is gone"},
        SignInRequired,
        ["invalid_grant (It is gone)", "Sign in again."],
    ),
    "a redirect": (
        httpx.Response(302, json={"error": "moved", "error_description": "over there", "error_uri": "https://x"}),
        RefreshError,
        ["redirect (302)", "never followed", "Correct the token URL."],
    ),
    "refused": (
        httpx.Response(400, json={"error": "invalid_client", "error_description": "Who?"}),
        RefreshError,
        ["(status 400): invalid_client (Who?)", "after a back-off"],
    ),
    "refused without words": (httpx.Response(503), RefreshError, ["(status 503): no error code", "after a back-off"]),
    "refused without a status": ({"error": "invalid_client"}, RefreshError, ["invalid_client", "after a back-off"]),
    "no access token": ({"refresh_token": "r"}, RefreshError, ["no access_token", "nothing to use"]),
    "a number for a token": ({"access_token": 5}, RefreshError, ["unusable access_token: int, not a string"]),
    "another type": (
        {"access_token": "a", "token_type": "mac"},
        RefreshError,
        ["type mac", "token_type=", "authorize="],
    ),
    "words beyond ASCII": (
        {"error": "x", "error_description": "sch\u00f6n \u65e5"},
        RefreshError,
        ["x (sch\\xf6n \\u65e5)"],
    ),
}


@pytest.mark.parametrize(("answer", "cls", "words"), WORDS.values(), ids=WORDS)
def test_an_answer_that_brings_no_token_is_refused_with_what_matters(
    answer: Any, cls: type[ReauthError], words: list[str]
):
    with pytest.raises(ReauthError) as caught:
        Token.from_response(answer)
    assert type(caught.value) is cls
    assert [part for part in words if part not in str(caught.value)] == []
    assert str(caught.value).isascii()


def test_a_redirect_says_what_its_body_says():
    answer, _, _ = WORDS["a redirect"]
    with pytest.raises(RefreshError) as caught:
        Token.from_response(answer)
    error = caught.value
    assert (error.error, error.error_description, error.error_uri) == ("moved", "over there", "https://x")
