"""What a token endpoint's answer is refused with, to the letter: these words are what a user sees first."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from httpx_reauth import ReauthError, RefreshError, SignInRequired, Token

NEITHER = (
    "The token endpoint's answer is neither a JSON object nor a form, so it brings no token. "
    "Check that the token URL is the right one."
)
A_REDIRECT = (
    "The token endpoint answered with a redirect (302), which is never followed, since it would carry the credentials "
    "elsewhere. Correct the token URL."
)
ANOTHER_TYPE = (
    "The server issued a token of a type that is not Bearer; a client must not use what it does not understand "
    "(RFC 6749 §7.1). A scheme of another name can be set by hand: Token(token_type=...)."
)

WORDS: dict[str, tuple[Any, type[ReauthError], str]] = {
    "neither JSON nor a form": (
        httpx.Response(200, text="<p>hello"),
        RefreshError,
        NEITHER,
    ),
    "dead": (
        {"error": "invalid_grant", "error_description": "It is gone"},
        SignInRequired,
        "The server no longer accepts the refresh token: invalid_grant (It is gone). Sign in again.",
    ),
    "a redirect": (
        httpx.Response(302, json={"error": "moved", "error_description": "over there", "error_uri": "https://x"}),
        RefreshError,
        A_REDIRECT,
    ),
    "refused": (
        httpx.Response(400, json={"error": "invalid_client", "error_description": "Who?"}),
        RefreshError,
        "The token endpoint gave no token (status 400): invalid_client (Who?). It is asked again after a back-off.",
    ),
    "refused without words": (
        httpx.Response(503),
        RefreshError,
        "The token endpoint gave no token (status 503): no error code. It is asked again after a back-off.",
    ),
    "refused without a status": (
        {"error": "invalid_client"},
        RefreshError,
        "The token endpoint gave no token: invalid_client. It is asked again after a back-off.",
    ),
    "no access token": (
        {"refresh_token": "r"},
        RefreshError,
        "The token endpoint's answer has no access_token (RFC 6749 §5.1): there is nothing to use.",
    ),
    "a number for a token": (
        {"access_token": 5},
        RefreshError,
        "The token endpoint's answer has an unusable access_token: int, not a string.",
    ),
    "another type": ({"access_token": "a", "token_type": "mac"}, RefreshError, ANOTHER_TYPE),
}


@pytest.mark.parametrize(("answer", "cls", "words"), WORDS.values(), ids=WORDS)
def test_an_answer_that_brings_no_token_is_refused_in_these_words(answer: Any, cls: type[ReauthError], words: str):
    with pytest.raises(ReauthError) as caught:
        Token.from_response(answer)
    assert type(caught.value) is cls
    assert str(caught.value) == words


def test_a_redirect_says_what_its_body_says():
    answer, _, _ = WORDS["a redirect"]
    with pytest.raises(RefreshError) as caught:
        Token.from_response(answer)
    error = caught.value
    assert (error.error, error.error_description, error.error_uri) == ("moved", "over there", "https://x")
