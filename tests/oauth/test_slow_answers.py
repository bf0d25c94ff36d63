"""Tests of slow answers: if a refresh token was spent, the grant waits longer, but not for ever."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from raw_server import PATIENCE, TOKEN, Connection, RawServer, answers, drops_before_reading, hangs
from sites import HttpLibrary

from httpx_reauth import RefreshError, RefreshFulfilled, RefreshRejected, Token
from httpx_reauth.oauth import ClientCredentialsGrant, RefreshTokenGrant
from httpx_reauth.storage import MemoryStorage

TIMEOUT = 1.0  # seconds, of the grants here
SLOW = 1.6  # seconds that the server takes

OLD = Token("old", refresh_token="r-1")
ROTATED = TOKEN.replace(b"}", b', "refresh_token": "r-2"}')


class RotatesAndDawdles:
    """Spends the refresh token at once, and answers after `seconds`, or when it is told to."""

    def __init__(self, seconds: float = PATIENCE) -> None:
        self.seconds = seconds
        self.posted = 0
        self.may_answer = threading.Event()

    def __call__(self, connection: Connection) -> None:
        connection.read_request()
        self.posted += 1
        if self.posted > 1:
            connection.answer(400, b'{"error": "invalid_grant"}')
            return
        self.may_answer.wait(self.seconds)
        connection.answer(200, ROTATED)


def grant_at(server: RawServer, **settings: Any) -> RefreshTokenGrant:
    return RefreshTokenGrant(server.url, "app", **{"timeout": TIMEOUT, **settings})


def test_guarantee_2_answer_that_comes_after_the_timeout_of_the_grant_counts(library: HttpLibrary):
    server_side = RotatesAndDawdles(SLOW)
    with RawServer(server_side) as server:
        auth = library.Reauth(grant_at(server), token=OLD)
        assert auth.get_token(rejected=OLD) == Token(
            "fresh", refresh_token="r-2", expires_in=3600, expires_at=auth.store.state.token.expires_at
        )
    assert server_side.posted == 1


def test_guarantee_2_answer_that_comes_late_to_a_renewal_in_the_background_counts(library: HttpLibrary, clock):
    server_side = RotatesAndDawdles(SLOW)
    with RawServer(server_side) as server:
        auth = library.Reauth(grant_at(server), token=Token("old", refresh_token="r-1", expires_in=3600), clock=clock)
        clock.advance(3580)
        assert auth.get_token().access_token == "old"
        auth.close()
        assert auth.store.state.token.refresh_token == "r-2"
    assert server_side.posted == 1


@pytest.mark.parametrize("with_storage", [False, True], ids=["in memory", "with a storage"])
def test_guarantee_10_callers_give_up_at_refresh_timeout_and_the_late_answer_counts(library: HttpLibrary, with_storage):
    server_side, storage = RotatesAndDawdles(), MemoryStorage()
    with RawServer(server_side) as server:
        settings = {"storage": storage} if with_storage else {}
        auth = library.Reauth(grant_at(server), token=OLD, refresh_timeout=2.0, **settings)
        for _ in range(2):  # the second one at once, and without a second request
            with pytest.raises(RefreshError, match="refresh_timeout") as failure:
                auth.get_token(rejected=OLD)
            assert "authorization server has not answered" in str(failure.value)  # the user has written no function
        renewed = threading.Event()
        auth.store.subscribe(lambda _, action: renewed.set() if isinstance(action, RefreshFulfilled) else None)
        server_side.may_answer.set()
        assert renewed.wait(PATIENCE)
        assert auth.get_token().access_token == "fresh"
    assert auth.store.state.token.refresh_token == "r-2"
    assert server_side.posted == 1
    if with_storage:
        assert storage.load().refresh_token == "r-2"


def test_guarantee_10_answer_that_never_comes_is_given_up_after_twice_refresh_timeout(library: HttpLibrary):
    failures, failed = [], threading.Event()

    def listener(_state: object, action: object) -> None:
        if isinstance(action, RefreshRejected):
            failures.append(action)
            failed.set()

    with RawServer(hangs) as server:
        auth = library.Reauth(grant_at(server), token=OLD, refresh_timeout=1.0)
        auth.store.subscribe(listener)
        with pytest.raises(RefreshError):
            auth.get_token(rejected=OLD)
        assert failed.wait(PATIENCE)
    assert isinstance(failures[0].error.__cause__, library.package.ReadTimeout)
    assert "outcome is unknown" in str(failures[0].error)
    assert "within 2 s" in str(failures[0].error)
    assert failures[0].elapsed >= 2
    assert server.connections == 1


@pytest.mark.parametrize("client", [False, True], ids=["a client of its own", "client="])
def test_a_slow_answer_to_client_credentials_is_not_waited_for(library: HttpLibrary, client):
    with RawServer(hangs, answers()) as server, library.package.Client() as own:
        grant = ClientCredentialsGrant(server.url, "me", "secret", timeout=2, client=own if client else None)
        assert library.Reauth(grant).get_token().access_token == "fresh"
    assert server.connections == 2


def test_what_could_not_be_sent_is_not_waited_for(library: HttpLibrary):
    with RawServer(lambda connection: connection.over.wait(PATIENCE)) as server:  # no handshake
        grant = RefreshTokenGrant(server.url.replace("http:", "https:"), "app", timeout=TIMEOUT)
        with pytest.raises(RefreshError, match="never went out"):
            library.Reauth(grant, token=OLD).get_token(rejected=OLD)


def test_guarantee_2_connection_that_is_lost_after_the_request_is_not_replaced(library: HttpLibrary):
    with RawServer(drops_before_reading) as server:
        auth = library.Reauth(grant_at(server), token=OLD)
        with pytest.raises(RefreshError, match="outcome is unknown"):
            auth.get_token(rejected=OLD)
    assert server.connections == 1
