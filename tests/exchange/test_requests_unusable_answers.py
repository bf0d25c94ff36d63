"""Tests of an unusable answer with a refresh token: the error is raised, and the token is kept (guarantee 2)."""

from __future__ import annotations

import traceback
from typing import Any

import httpx
import pytest

from httpx_reauth import ReauthError, RefreshError, SignInRequired, Token
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import faults

R2 = "r2-the-next-refresh-token"
JSON = {"Content-Type": "application/json"}


def get(client):
    return client.get("/me")


def form_of(token: Token) -> dict[str, str]:
    return {"grant_type": "refresh_token", "refresh_token": token.refresh_token or ""}


def by_hand(talk):
    """Return a refresh that makes the token from those fields of the answer that `Token` has."""

    def refresh(token):
        with talk.site.client() as client:
            fields = client.post("/token", data=form_of(token)).raise_for_status().json()
        return Token(**{name: fields[name] for name in fields if name in Token.__dataclass_fields__})

    return refresh


def without_from_response(talk):
    """Return a refresh that returns the whole response."""

    def refresh(token):
        with talk.site.client() as client:
            return client.post("/token", data=form_of(token))

    return refresh


def with_words_of_its_own(talk):
    """Return a refresh that raises its own exception with its own message."""

    def refresh(token):
        with talk.site.client() as client:
            response = client.post("/token", data=form_of(token))
        try:
            return Token.from_response(response)
        except ReauthError as error:
            raise RuntimeError("Our login is broken.") from error

    return refresh


def refresh_of(talk, way: str) -> Any:
    if way == "grant":
        transport = talk.server.transport(talk.package)
        return RefreshTokenGrant("https://api.test/token", "app", client=talk.package.Client(transport=transport))
    made = {"by hand": by_hand, "a response": without_from_response, "own words": with_words_of_its_own}
    return made[way](talk) if way in made else talk.site.refresh(way)


ANSWERS = {
    "another scheme": faults.reply(200, {"access_token": "a", "refresh_token": R2, "token_type": "mac"}),
    "an access token that cannot be sent": faults.reply(200, {"access_token": "a\r\nX: y", "refresh_token": R2}),
    "an access token that is no text": faults.reply(200, {"access_token": {"a": 1}, "refresh_token": R2}),
    "no access token": faults.reply(200, {"refresh_token": R2, "expires_in": 60}),
    "an error under 200": faults.reply(200, {"error": "server_error", "access_token": "a", "refresh_token": R2}),
    "an error under 400": faults.reply(400, {"error": "invalid_client", "refresh_token": R2}),
    "a server that is down": faults.reply(503, {"refresh_token": R2}),
    "an object in an object": faults.reply(200, {"data": {"access_token": "a", "refresh_token": R2}}),
    "half a JSON": faults.reply(200, f'{{"access_token": "a", "refresh_token": "{R2}", "expires_in": 36', JSON),
}
BY_HAND = {
    "a lifetime in words": faults.reply(200, {"access_token": "a", "refresh_token": R2, "expires_in": "an hour"}),
    "an end in milliseconds": faults.reply(
        200, {"access_token": "a", "refresh_token": R2, "expires_at": 1_764_355_200_000}
    ),
    "an access token that cannot be sent": faults.reply(200, {"access_token": "a\n", "refresh_token": R2}),
    "a scheme in front": faults.reply(200, {"access_token": "Bearer a", "refresh_token": R2}),
    "a type of two words": faults.reply(200, {"access_token": "a", "refresh_token": R2, "token_type": "two words"}),
    "no access token": faults.reply(200, {"refresh_token": R2}),
    "an error under 400": faults.reply(400, {"error": "invalid_client", "refresh_token": R2}),
}
CASES = [
    *[(way, fault) for way in ("coroutine", "function", "grant", "own words") for fault in ANSWERS.values()],
    *[("by hand", fault) for fault in BY_HAND.values()],
    ("a response", faults.reply(200, {"access_token": "a", "refresh_token": R2})),
    ("by hand", faults.reply(200, f'{{"access_token": "a", "refresh_token": "{R2}", "expires_in": 36', JSON)),
]
IDS = [
    *[f"{way}, {name}" for way in ("coroutine", "function", "grant", "own words") for name in ANSWERS],
    *[f"by hand, {name}" for name in BY_HAND],
    "a response",
    "by hand, half a JSON",
]


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "storage"])
@pytest.mark.parametrize(("way", "fault"), CASES, ids=IDS)
def test_guarantee_2_refresh_token_of_an_answer_that_cannot_be_used_replaces_the_one_that_was_spent(
    talk, server, way, fault, stored
):
    storage = MemoryStorage() if stored else None
    auth = talk.auth(server.issue(access_token=False), refresh_of(talk, way), storage=storage)
    server.token_endpoint.fail(fault)
    with pytest.raises(RefreshError) as failure:
        talk(auth, get)
    assert auth.store.state.token.refresh_token == R2
    assert storage is None or storage.load().refresh_token == R2
    told = "".join(traceback.format_exception(failure.value)) + repr(failure.value) + repr(vars(failure.value))
    assert R2 not in told
    assert R2 not in repr(auth.store.state)

    talk.clock.advance(61)
    server.token_endpoint.fail(faults.reply(200, {"access_token": "fine", "expires_in": 60}))
    server.access = "open"
    if way == "a response":  # `posting` never returns a token
        with pytest.raises(RefreshError):
            talk(auth, get)
    else:
        assert talk(auth, get).status_code == 200
    assert server.requests_to("/token")[-1].form["refresh_token"] == R2


@pytest.mark.parametrize("way", ["function", "grant"])
def test_guarantee_2_refresh_token_of_an_answer_that_wants_a_sign_in_is_kept_as_well(talk, server, way):
    auth = talk.auth(server.issue(access_token=False), refresh_of(talk, way))
    server.token_endpoint.fail(faults.reply(400, {"error": "interaction_required", "refresh_token": R2}))
    with pytest.raises(SignInRequired):
        talk(auth, get)
    assert auth.store.state.token.refresh_token == R2


USABLE = {
    "a type of the server's own": ({"token_type": "weird"}, {}),
    "a type that is no text": ({"token_type": ["Bearer"]}, {}),
    "a lifetime in words": ({"expires_in": "an hour"}, {}),
    "a lifetime that is an object": ({"expires_in": {"seconds": 60}}, {}),
    "an end that is a list": ({"expires_at": [1]}, {}),
    "a scope that is an object": ({"scope": {"a": 1}}, {}),
    "a coding that is none": ({}, {"Content-Encoding": "UTF-8"}),
    "two codings that are none": ({}, {"Content-Encoding": "utf-8, none"}),
}


@pytest.mark.parametrize("way", ["coroutine", "function", "grant"])
@pytest.mark.parametrize(("fields", "headers"), USABLE.values(), ids=USABLE)
def test_guarantee_2_answer_whose_oddities_do_not_matter_is_used(socket_talk, server, way, fields, headers):
    talk = socket_talk
    refresh = RefreshTokenGrant(f"{talk.site.url}/token", "app") if way == "grant" else talk.site.refresh(way)
    auth = talk.auth(server.issue(access_token=False), refresh)
    server.access = "open"
    answer = {"access_token": "fine", "refresh_token": R2, **fields}
    server.token_endpoint.fail(faults.reply(200, answer, headers))
    assert talk(auth, get).status_code == 200
    token = auth.store.state.token
    assert (token.access_token, token.refresh_token, token.token_type) == ("fine", R2, "Bearer")


def test_a_users_own_response_with_a_coding_that_is_none_is_read(library):
    response = library.package.Response(200, content=b'{"access_token": "fine"}', headers={"Content-Encoding": "UTF-8"})
    assert Token.from_response(response) == Token("fine")
    assert isinstance(response, (httpx.Response, library.package.Response))
