"""Tests of refusals that a grant gets behind a `Reauth`: some are final, some wait a minute, some a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sites import HttpLibrary

from httpx_reauth import ReauthError, ReauthPool, RefreshError, SignInRequired, Token
from httpx_reauth.oauth import ClientCredentialsGrant, Grant, JWTBearerGrant, RefreshTokenGrant, TokenExchangeGrant
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import AuthorizationServer, Fault, ManualClock, faults

URL = "https://id.test/token"
HOUR = 3600.0

UNSPENT: dict[str, Callable[[Any], Grant]] = {
    "client credentials": lambda client: ClientCredentialsGrant(URL, "app", "s3cret", client=client),
    "JWT bearer": lambda client: JWTBearerGrant(URL, assertion=lambda: "a.b.c", client=client),
    "token exchange": lambda client: TokenExchangeGrant(URL, subject_token="a.b.c", client=client),
}
unspent = pytest.mark.parametrize("kind", UNSPENT)


class Refuses:
    """An auth object whose server refuses, and how often that was asked."""

    def __init__(self, library: HttpLibrary, server: AuthorizationServer, clock: ManualClock) -> None:
        self.library, self.server, self.clock = library, server, clock
        self.client = library.package.Client(transport=server.transport(library.package))

    def by(self, fault: Fault) -> None:
        self.server.token_endpoint.fail_always(fault)

    def auth(self, make: Callable[[Any], Any], **settings: Any) -> Any:
        return self.library.Reauth(make(self.client), clock=self.clock, **settings)

    def error_of(self, auth: Any) -> ReauthError:
        with pytest.raises(ReauthError) as failure:
            auth.renew() if auth.token is not None else auth.get_token()
        return failure.value

    def requests_during(self, auth: Any, seconds: float, every: float = 1.0) -> int:
        before = self.server.token_requests
        for _ in range(int(seconds / every)):
            self.error_of(auth)
            self.clock.advance(every)
        return self.server.token_requests - before


@pytest.fixture
def refuses(library: HttpLibrary, server: AuthorizationServer, clock: ManualClock) -> Refuses:
    return Refuses(library, server, clock)


# A grant that spends nothing


@unspent
@pytest.mark.parametrize("storage", [None, MemoryStorage], ids=["in memory", "with a storage"])
def test_guarantee_6_invalid_grant_to_a_grant_that_spends_nothing_waits_60_s_growing_to_10_min(kind, storage, refuses):
    refuses.by(faults.reply(400, {"error": "invalid_grant"}))
    settings = {} if storage is None else {"storage": storage()}
    auth = refuses.auth(UNSPENT[kind], **settings)
    assert isinstance(refuses.error_of(auth), RefreshError)
    waits = [60, 120, 240, 480, 600, 600]
    for wait in waits:
        before = refuses.server.token_requests
        refuses.clock.advance(wait - 1)
        refuses.error_of(auth)
        assert refuses.server.token_requests == before
        refuses.clock.advance(1)
        refuses.error_of(auth)
        assert refuses.server.token_requests == before + 1
    refuses.server.token_endpoint.heal()
    refuses.server.trusted_issuers, refuses.server.subject_tokens = None, lambda *_: True
    refuses.clock.advance(600)
    if kind != "JWT bearer":  # whose assertion here is none
        assert auth.get_token().access_token


@unspent
def test_sign_out_clears_what_is_remembered_of_refusals(kind, refuses):
    refuses.by(faults.reply(400, {"error": "invalid_grant"}))
    for storage in (None, MemoryStorage()):
        auth = refuses.auth(UNSPENT[kind], storage=storage)
        refuses.error_of(auth)
        refuses.error_of(auth)
        before = refuses.server.token_requests
        auth.sign_out()
        refuses.error_of(auth)
        assert refuses.server.token_requests == before + 1


@unspent
@pytest.mark.parametrize(
    "answer",
    [
        {"error": "invalid_token"},
        {"errors": [{"errorType": "invalid_grant"}]},
        {"status": "BAD_REFRESH_TOKEN"},
        {"error": "invalid_request", "error_description": "The refresh token is expired."},
    ],
)
def test_other_words_for_a_dead_refresh_token_are_not_final_either_where_none_was_sent(kind, answer, refuses):
    refuses.by(faults.reply(400, answer))
    assert isinstance(refuses.error_of(refuses.auth(UNSPENT[kind])), RefreshError)


@unspent
@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (401, {"error": "invalid_client"}),
        (400, {"error": "unauthorized_client"}),
        (403, {}),
        (422, {"error": "invalid_scope"}),
    ],
)
def test_guarantee_6_a_refusal_waits_60_s_each_time(kind, status, answer, refuses):
    refuses.by(faults.reply(status, answer))
    assert refuses.requests_during(refuses.auth(UNSPENT[kind]), 600) == 10


@unspent
@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (400, {"error": "temporarily_unavailable"}),
        (400, {"error": "server_error"}),
        (404, {}),
        (409, {}),
        (423, {}),
        (503, {"error": "invalid_grant"}),
        (429, {"error": "invalid_grant"}),
        (408, {"error": "invalid_client"}),
    ],
)
def test_guarantee_6_what_says_later_backs_off_normally(kind, status, answer, refuses):
    refuses.by(faults.reply(status, answer))
    auth = refuses.auth(UNSPENT[kind])
    error = refuses.error_of(auth)
    assert isinstance(error, RefreshError)
    assert error.retry_after is not None
    assert 0.4 <= error.retry_after <= 0.5


# A grant that spends its refresh token


def rotating(**settings: Any) -> Callable[[Any], Grant]:
    return lambda client: RefreshTokenGrant(URL, "app", client=client, **settings)


def test_guarantee_6_invalid_grant_to_a_refresh_token_is_final_and_posted_once(refuses):
    refuses.by(faults.reply(400, {"error": "invalid_grant"}))
    auth = refuses.auth(rotating(), token=Token(refresh_token="r-1"))
    assert isinstance(refuses.error_of(auth), SignInRequired)
    assert refuses.requests_during(auth, HOUR, every=60.0) == 0
    refuses.server.token_endpoint.heal()
    auth.sign_in(refuses.server.issue(access_token=False))
    assert auth.get_token().access_token


def test_a_request_that_is_already_being_processed_is_asked_again(refuses):
    words = "token request is already being processed"
    refuses.server.token_endpoint.fail(faults.reply(400, {"error": "invalid_grant", "error_description": words}))
    auth = refuses.auth(rotating(), token=refuses.server.issue(access_token=False))
    assert isinstance(refuses.error_of(auth), RefreshError)
    refuses.clock.advance(1)
    assert auth.get_token().access_token


def is_gone(response: httpx.Response) -> bool:
    return response.status_code == 410 or b"gone" in response.content


@pytest.mark.parametrize(
    "dead",
    [{"session_gone"}, ["SESSION_GONE"], "session_gone", is_gone],
    ids=["a set", "a list", "a word", "a function"],
)
@pytest.mark.parametrize("status", [400, 401, 200])
def test_dead_adds_codes_of_a_servers_own_that_are_final(dead, status, refuses):
    refuses.by(faults.reply(status, {"error": "session_gone"}))
    auth = refuses.auth(rotating(dead=dead), token=Token(refresh_token="r-1"))
    error = refuses.error_of(auth)
    assert isinstance(error, SignInRequired)
    assert error.error == "session_gone"
    assert refuses.requests_during(auth, HOUR, every=60.0) == 0


def test_without_dead_the_same_code_is_a_refusal(refuses):
    refuses.by(faults.reply(400, {"error": "session_gone"}))
    auth = refuses.auth(rotating(), token=Token(refresh_token="r-1"))
    assert refuses.requests_during(auth, 600) == 10


def test_dead_leaves_other_answers_alone(refuses):
    refuses.by(faults.reply(400, {"error": "invalid_client"}))
    auth = refuses.auth(rotating(dead={"session_gone"}), token=Token(refresh_token="r-1"))
    assert isinstance(refuses.error_of(auth), RefreshError)


def test_dead_may_be_a_function_of_an_answer_without_any_code(refuses):
    refuses.by(faults.reply(410, "<h1>Gone</h1>", {"Content-Type": "text/html"}))
    auth = refuses.auth(rotating(dead=is_gone), token=Token(refresh_token="r-1"))
    assert isinstance(refuses.error_of(auth), SignInRequired)


def test_a_dead_function_that_fails_is_said_and_is_not_final(refuses):
    def dead(_: httpx.Response) -> bool:
        raise KeyError("status")

    refuses.by(faults.reply(400, {"error": "invalid_client"}))
    auth = refuses.auth(rotating(dead=dead), token=Token(refresh_token="r-1"))
    error = refuses.error_of(auth)
    assert isinstance(error, RefreshError)
    assert "KeyError" in str(error)


def test_what_is_dead_stays_dead_in_a_pool_that_lets_its_user_go(refuses):
    refuses.by(faults.reply(400, {"error": "session_gone"}))
    storages = {name: MemoryStorage() for name in ("ada", "bob")}
    for storage in storages.values():
        storage.save(Token(refresh_token="r-1"))
    make = rotating(dead={"session_gone"})
    pool = ReauthPool(lambda name: refuses.auth(make, storage=storages[name]), maxsize=1)
    for _ in range(3):
        for name in storages:
            assert isinstance(refuses.error_of(pool[name]), SignInRequired)
    assert refuses.server.token_requests == 2


@pytest.mark.parametrize("dead", [5, b"session_gone", [None], is_gone.__class__])
def test_dead_of_another_type_is_refused_when_the_grant_is_made(dead):
    with pytest.raises(TypeError, match="dead"):
        RefreshTokenGrant(URL, "app", dead=dead)
