"""Tests of a storage that cannot be reached: only a grant that may be asked twice is asked without it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from redis_server import RedisServer
from storages import Recording

from httpx_reauth import Reauth, RefreshError, SaveFailed, StorageError, Token
from httpx_reauth.oauth import ClientCredentialsGrant, RefreshTokenGrant
from httpx_reauth.storage import RedisStorage
from httpx_reauth.testing import AuthorizationServer, ManualClock
from httpx_reauth.testing._contract_steps import locked

URL = "https://api.test"


@pytest.fixture
def client(server: AuthorizationServer) -> Iterator[httpx.Client]:
    with httpx.Client(transport=server.transport(httpx), base_url=URL) as client:
        yield client


@pytest.fixture
def logs_in(client: httpx.Client) -> ClientCredentialsGrant:
    return ClientCredentialsGrant(f"{URL}/token", "app", "client-secret", client=client)


@pytest.fixture
def rotates(client: httpx.Client) -> RefreshTokenGrant:
    return RefreshTokenGrant(f"{URL}/token", "app", client=client)


@pytest.fixture
def storage() -> Recording:
    return Recording()


def failures_of(auth: Reauth) -> list[SaveFailed]:
    failures: list[SaveFailed] = []
    auth.store.subscribe(lambda _, action: failures.append(action) if isinstance(action, SaveFailed) else None)
    return failures


def get(client: httpx.Client, auth: Reauth) -> int:
    return client.get("/me", auth=auth).status_code


@pytest.mark.parametrize("step", ["lock", "load"])
def test_guarantee_1_a_login_that_may_be_repeated_goes_on_without_a_storage_that_is_away_and_says_so_once(
    client: httpx.Client, server: AuthorizationServer, logs_in: Any, storage: Recording, clock: ManualClock, step: str
):
    auth = Reauth(logs_in, storage=storage, clock=clock)
    failures = failures_of(auth)
    storage.fail(step)
    for expiry in range(1, 4):
        assert [get(client, auth) for _ in range(5)] == [200] * 5
        auth.close()
        assert (server.token_requests, len(failures)) == (expiry, expiry)
        clock.advance(server.lifetime)
    assert all(isinstance(failure.error, StorageError) for failure in failures)
    storage.heal()
    assert get(client, auth) == 200
    auth.close()
    held = storage.inner.load()
    assert held is not None
    assert auth.token is not None
    assert held.access_token == auth.token.access_token


def test_a_login_goes_on_without_a_redis_that_is_gone(
    client: httpx.Client, server: AuthorizationServer, logs_in: Any, redis_server: RedisServer, clock: ManualClock
):
    with redis_server.client() as redis_client:
        auth = Reauth(logs_in, storage=RedisStorage(redis_client, key="app:token"), clock=clock)
        assert get(client, auth) == 200
        redis_server.stop()
        try:
            clock.advance(server.lifetime)
            assert get(client, auth) == 200
        finally:
            redis_server.start()
        auth.close()
        assert server.token_requests == 2
        assert RedisStorage(redis_client, key="app:token").load() == auth.token


def test_a_storage_that_is_busy_is_not_away(
    client: httpx.Client, server: AuthorizationServer, logs_in: Any, storage: Recording
):
    auth = Reauth(logs_in, storage=storage, refresh_timeout=0.5)
    with locked(storage.inner), pytest.raises(RefreshError):
        get(client, auth)
    auth.close()
    assert "held the lock" in str(auth.store.state.error)
    assert server.token_requests == 0


def test_a_lock_that_comes_too_late_is_not_a_storage_that_is_away(
    client: httpx.Client, server: AuthorizationServer, logs_in: Any, storage: Recording, clock: ManualClock
):
    auth = Reauth(logs_in, storage=storage, clock=clock)
    storage.before["load"] = lambda: clock.advance(20)
    with pytest.raises(RefreshError, match="too late"):
        get(client, auth)
    auth.close()
    assert server.token_requests == 0


def test_a_background_renewal_never_goes_on_without_the_storage(
    client: httpx.Client, server: AuthorizationServer, logs_in: Any, storage: Recording, clock: ManualClock
):
    auth = Reauth(logs_in, storage=storage, clock=clock)
    assert get(client, auth) == 200
    auth.close()
    failures = failures_of(auth)
    storage.fail("lock")
    clock.advance(server.lifetime - 30)  # the token is due for renewal, and still valid
    for _ in range(5):
        assert get(client, auth) == 200
        auth.close()
        clock.advance(5)
    assert (server.token_requests, failures) == (1, [])
    clock.advance(10)
    assert get(client, auth) == 200
    auth.close()
    assert (server.token_requests, len(failures)) == (2, 1)


@pytest.mark.parametrize("step", ["lock", "load"])
def test_guarantee_2_a_refresh_token_is_not_risked_without_the_storage(
    client: httpx.Client, server: AuthorizationServer, rotates: Any, storage: Recording, clock: ManualClock, step: str
):
    auth = Reauth(rotates, token=server.issue(access_token=False), storage=storage, clock=clock)
    storage.fail(step)
    with pytest.raises(RefreshError, match="nothing was asked"):
        get(client, auth)
    assert server.token_requests == 0


def test_guarantee_1_what_two_processes_have_asked_for_without_the_storage_is_one_token_again_later(
    client: httpx.Client, server: AuthorizationServer, logs_in: Any, storage: Recording, clock: ManualClock
):
    auths = [Reauth(logs_in, storage=storage, clock=clock) for _ in range(2)]
    storage.fail("lock")
    assert [get(client, auth) for auth in auths] == [200, 200]
    for auth in auths:
        auth.close()
    assert server.token_requests == 2
    storage.heal()
    for auth in auths:
        auth.close()
    clock.advance(server.lifetime)
    threads = [threading.Thread(target=get, args=(client, auth)) for auth in auths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for auth in auths:
        auth.close()
    assert server.token_requests == 3
    assert auths[0].token == auths[1].token


def test_a_user_may_say_of_a_function_that_it_may_be_repeated(storage: Recording, clock: ManualClock):
    class Login:
        repeatable = True

        def __call__(self, token: Token) -> Token:
            return Token("new", expires_in=3600)

    storage.fail("lock")
    assert Reauth(Login(), storage=storage, clock=clock).get_token().access_token == "new"
