"""Tests of the whole library against Authlib's OAuth server, on a loopback socket, with rotation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import authlib.oauth2.rfc7523
import httpx
import pytest
from authlib_server import Client, ForeignServer
from joserfc.jwk import ECKey, RSAKey

from httpx_reauth import Reauth, ReauthError, RefreshError, SignInRequired, Token
from httpx_reauth.oauth import ClientCredentialsGrant, JWTBearerGrant, RefreshTokenGrant, SignedAssertion

TASKS, THREADS = 50, 10

pytestmark = pytest.mark.anyio


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")  # else it refuses plain http, on loopback too
    server = ForeignServer()
    with server.serve():
        yield server


def refresh_grant(server: ForeignServer) -> RefreshTokenGrant:
    return RefreshTokenGrant(f"{server.url}/token", "app", timeout=20.0)


def async_client(server: ForeignServer, auth: Reauth) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=TASKS)
    return httpx.AsyncClient(base_url=server.url, auth=auth, timeout=20.0, limits=limits, verify=False)


async def off_the_loop(function: Callable[[], object]) -> None:
    await anyio.to_thread.run_sync(function)


async def herd(server: ForeignServer, auth: Reauth) -> list[object]:
    """What each of the tasks and threads gets that ask at once: a status, or the type of an error."""
    outcomes: list[object] = []
    start = threading.Barrier(THREADS)

    def in_thread() -> None:
        with httpx.Client(base_url=server.url, auth=auth, timeout=20.0, verify=False) as client:
            start.wait(20)
            try:
                outcomes.append(client.get("/me").status_code)
            except ReauthError as error:
                outcomes.append(type(error))

    async def in_task(client: httpx.AsyncClient) -> None:
        try:
            outcomes.append((await client.get("/me")).status_code)
        except ReauthError as error:
            outcomes.append(type(error))

    with ThreadPoolExecutor(THREADS) as pool:
        threads = [pool.submit(in_thread) for _ in range(THREADS)]
        async with async_client(server, auth) as client, anyio.create_task_group() as group:
            for _ in range(TASKS):
                group.start_soon(in_task, client)
        for thread in threads:
            await off_the_loop(thread.result)
    return outcomes


@pytest.mark.parametrize("known", [True, False], ids=["known to the client", "known to the server only"])
async def test_guarantee_1_herd_at_expiry_makes_one_token_request(foreign, known):
    token = foreign.sign_in()
    foreign.expire_access_tokens()
    if known:
        token = Token(token.access_token, refresh_token=token.refresh_token, expires_in=3600, expires_at=1.0)
    assert await herd(foreign, Reauth(refresh_grant(foreign), token=token)) == [200] * (TASKS + THREADS)
    assert (foreign.token_requests, foreign.reuse_detected) == (1, 0)
    assert (foreign.refused > 0) is not known


async def test_guarantee_1_herd_without_a_token_makes_one_client_credentials_request(foreign):
    grant = ClientCredentialsGrant(f"{foreign.url}/token", "shop", foreign.clients["shop"].secret, timeout=20.0)
    assert await herd(foreign, Reauth(grant)) == [200] * (TASKS + THREADS)
    assert (foreign.token_requests, foreign.refused) == (1, 0)


@pytest.mark.parametrize("early_revocation", [False, True])
async def test_guarantee_1_each_expiry_is_one_rotation_and_no_reuse(foreign, early_revocation):
    foreign.early_revocation = early_revocation
    auth = Reauth(refresh_grant(foreign), token=foreign.sign_in())
    for rotation in range(1, 4):
        foreign.expire_access_tokens()
        assert await herd(foreign, auth) == [200] * (TASKS + THREADS)
        assert (foreign.token_requests, foreign.reuse_detected) == (rotation, 0)
    assert [issued.spent for issued in foreign.issued] == [True] * 3 + [False]


async def test_guarantee_7_early_revocation_is_bridged(foreign):
    # The server kills the old access token the moment it commits the refresh. Its answer is still on the way, and
    # everybody goes on with the old token in good faith.
    foreign.early_revocation = True
    old = foreign.sign_in()
    nearly_over = Token(old.access_token, refresh_token=old.refresh_token, expires_in=3600, expires_at=time.time() + 20)
    auth = Reauth(refresh_grant(foreign), token=nearly_over)
    statuses: list[int] = []

    async def ask(client: httpx.AsyncClient) -> None:
        statuses.append((await client.get("/me")).status_code)

    async with auth, async_client(foreign, auth) as client, anyio.create_task_group() as group:
        with foreign.held():
            assert await auth.aget_token() == nearly_over  # it still serves, and its renewal begins
            await off_the_loop(foreign.committed.wait)
            for _ in range(TASKS):
                group.start_soon(ask, client)
            await off_the_loop(lambda: foreign.wait_until_refused(TASKS))
    assert statuses == [200] * TASKS
    assert (foreign.token_requests, foreign.refused, foreign.reuse_detected) == (1, TASKS, 0)


async def test_guarantee_6_reuse_by_somebody_else_ends_in_one_sign_in(foreign):
    token = foreign.sign_in()
    stolen = refresh_grant(foreign)(token)  # whoever got hold of the refresh token is faster
    foreign.expire_access_tokens()
    auth = Reauth(refresh_grant(foreign), token=token)
    assert await herd(foreign, auth) == [SignInRequired] * (TASKS + THREADS)
    assert (foreign.token_requests, foreign.reuse_detected) == (2, 1)
    assert await herd(foreign, auth) == [SignInRequired] * (TASKS + THREADS)
    assert (foreign.token_requests, foreign.reuse_detected) == (2, 1)  # the dead refresh token is not posted again
    with pytest.raises(SignInRequired, match="invalid_grant"):
        refresh_grant(foreign)(stolen)  # the whole family is revoked
    auth.sign_in(foreign.sign_in())
    assert await herd(foreign, auth) == [200] * (TASKS + THREADS)
    assert foreign.token_requests == 3


async def test_guarantee_2_cancelled_request_does_not_lose_the_rotated_refresh_token(foreign):
    auth = Reauth(refresh_grant(foreign), token=foreign.sign_in())
    foreign.expire_access_tokens()
    async with auth, async_client(foreign, auth) as client:
        with foreign.held():
            async with anyio.create_task_group() as group:
                group.start_soon(client.get, "/me")
                await off_the_loop(foreign.committed.wait)
                group.cancel_scope.cancel()
        assert (await client.get("/me")).status_code == 200
        assert (foreign.token_requests, foreign.reuse_detected) == (1, 0)
        foreign.expire_access_tokens()
        assert (await client.get("/me")).status_code == 200
    assert (foreign.token_requests, foreign.reuse_detected) == (2, 0)


@pytest.mark.parametrize("client_auth", ["client_secret_basic", "client_secret_post"])
def test_awkward_secret_is_accepted_by_a_server_of_others(foreign, client_auth):
    secret = foreign.clients["shop"].secret
    grant = ClientCredentialsGrant(f"{foreign.url}/token", "shop", secret, client_auth=client_auth, scope="a b")
    assert grant(Token()).scope == "a b"
    wrong = ClientCredentialsGrant(f"{foreign.url}/token", "shop", "no", client_auth=client_auth)
    with pytest.raises(RefreshError, match="invalid_client"):
        wrong(Token())


# A signed assertion for a token (RFC 7523), checked by Authlib


KEYS = {"RS256": RSAKey.generate_key(2048), "ES256": ECKey.generate_key("P-256")}


class Trusting(ForeignServer):
    """It knows the keys of two robots, which are called as their algorithms."""

    def register(self, app: Any, authorization: Any) -> None:
        memory = self

        class Bearer(authlib.oauth2.rfc7523.JWTBearerGrant):
            LEEWAY = 0

            def resolve_issuer_client(self, issuer: str) -> Client | None:
                return Client(issuer, None) if issuer in KEYS else None

            def resolve_client_public_key(self, client: Client) -> Any:
                return KEYS[client.client_id]

            def authenticate_user(self, subject: str) -> str | None:
                return subject if subject == "ada" else None

            def get_audiences(self) -> list[str]:
                return [f"{memory.url}/token"]

            def has_granted_permission(self, client: Client, user: str) -> bool:
                return True

        app.config["OAUTH2_TOKEN_EXPIRES_IN"]["urn:ietf:params:oauth:grant-type:jwt-bearer"] = 3600
        authorization.register_grant(Bearer)


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
    server = Trusting()
    with server.serve():
        yield server


def robot(server: ForeignServer, alg: str, **settings: Any) -> JWTBearerGrant:
    key, url = KEYS[alg], f"{server.url}/token"
    names = {"iss": alg, "sub": "ada", "aud": url, **settings}
    return JWTBearerGrant(url, assertion=SignedAssertion(key.as_pem(private=True), **names), timeout=20.0, scope="read")


@pytest.mark.parametrize("alg", KEYS)
async def test_guarantee_1_herd_with_an_assertion_makes_one_request_at_a_server_of_others(trusting, alg):
    auth = Reauth(robot(trusting, alg))
    assert await herd(trusting, auth) == [200] * (TASKS + THREADS)
    assert (trusting.token_requests, trusting.refused) == (1, 0)
    assert auth.get_token().scope == "read"


@pytest.mark.parametrize("settings", [{"sub": "eve"}, {"aud": "https://other.example.com"}, {"iss": "nobody"}], ids=str)
async def test_an_assertion_that_a_server_of_others_does_not_accept_is_not_final(trusting, settings):
    with pytest.raises(RefreshError) as failure:
        await Reauth(robot(trusting, "ES256", **settings)).aget_token()
    assert failure.value.error == "invalid_grant"
    assert failure.value.retry_after == 60.0
