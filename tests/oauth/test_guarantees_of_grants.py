"""Tests of the guarantees with each grant: many calls at the same time, cancelled, timed out, interrupted, forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from joserfc.jwk import ECKey
from sites import HttpLibrary

import httpx_reauth
from httpx_reauth import RefreshError, SaveFailed, Token
from httpx_reauth.oauth import (
    ClientCredentialsGrant,
    Issuer,
    JWTBearerGrant,
    PrivateKeyJWT,
    RefreshTokenGrant,
    SignedAssertion,
    TokenExchangeGrant,
)
from httpx_reauth.storage import FileStorage, MemoryStorage
from httpx_reauth.testing import AuthorizationServer

TASKS, THREADS, LOOPS = 500, 50, 8
PATIENCE = 30.0  # seconds
IN_THE_ENVIRONMENT = "HTTPX_REAUTH_TESTS_KEY"  # for the process that forks
PRIVATE = os.environ.get(IN_THE_ENVIRONMENT, "").encode() or ECKey.generate_key("P-256").as_pem(private=True)
PUBLIC = ECKey.import_key(PRIVATE).as_pem(private=False)


class World:
    """One server, one auth object with a grant, and the clients of one package."""

    def __init__(self, library: HttpLibrary, kind: str, url: str, server: AuthorizationServer) -> None:
        self.library, self.server, self.kind = library, server, kind
        made: list[Any] = []

        def reauth(grant: Any, **settings: Any) -> Any:
            made.append(grant)
            return library.Reauth(grant, **settings)

        self.auth = AUTHS[kind](reauth, Issuer(url), server)
        self.grant = made[-1]

    @property
    def asked(self) -> Counter[str]:
        """How often each kind of grant was asked for; what signs is asked as `client_credentials` with an assertion."""
        return Counter(request.form["grant_type"].rpartition(":")[2] for request in self.server.requests_to("/token"))

    def check(self) -> None:
        """Every link has made one request, and the document was read once."""
        assert self.asked == Counter(EXPECTED[self.kind])
        assert self.server.metadata_requests == 1
        assert (self.server.reuse_detected, self.server.assertions_replayed) == (0, 0)


def with_a_key(reauth: Any, issuer: Issuer, _: AuthorizationServer) -> Any:
    return reauth(ClientCredentialsGrant(issuer, "app", client_auth=PrivateKeyJWT(PRIVATE)))


def rotating_with_a_key(reauth: Any, issuer: Issuer, server: AuthorizationServer) -> Any:
    grant = RefreshTokenGrant(issuer, "app", client_auth=PrivateKeyJWT(PRIVATE))
    return reauth(grant, token=server.issue(access_token=False))


def with_an_assertion(reauth: Any, issuer: Issuer, _: AuthorizationServer) -> Any:
    signed = SignedAssertion(PRIVATE, iss="robot", sub="robot", aud=str(issuer.url))
    return reauth(JWTBearerGrant(issuer, client_id="app", client_auth=PrivateKeyJWT(PRIVATE), assertion=signed))


def chained(reauth: Any, issuer: Issuer, server: AuthorizationServer) -> Any:
    first = rotating_with_a_key(reauth, issuer, server)
    return reauth(TokenExchangeGrant(issuer, "app", client_auth=PrivateKeyJWT(PRIVATE), subject_token=first))


AUTHS: dict[str, Callable[[Any, Issuer, AuthorizationServer], Any]] = {
    "client credentials with a key": with_a_key,
    "refresh token with a key": rotating_with_a_key,
    "JWT bearer": with_an_assertion,
    "token exchange, chained": chained,
}
EXPECTED = {
    "client credentials with a key": ["client_credentials"],
    "refresh token with a key": ["refresh_token"],
    "JWT bearer": ["jwt-bearer"],
    "token exchange, chained": ["refresh_token", "token-exchange"],
}


@pytest.fixture
def on_a_socket() -> Iterator[tuple[AuthorizationServer, str]]:
    server = AuthorizationServer(client_keys={"app": PUBLIC}, trusted_issuers={"robot": PUBLIC})
    with server, server.serve() as url:
        yield server, url


@pytest.fixture(params=AUTHS)
def world(request: pytest.FixtureRequest, library: HttpLibrary, on_a_socket: tuple[AuthorizationServer, str]) -> World:
    server, url = on_a_socket
    return World(library, request.param, url, server)


async def tokens_of_tasks(auth: Any, count: int) -> list[Token]:
    """What `count` tasks got."""
    tokens: list[Token] = []

    async def one() -> None:
        tokens.append(await auth.aget_token())

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(one)
    return tokens


def check_one(tokens: list[Token], count: int) -> None:
    assert len(tokens) == count
    assert len({token.access_token for token in tokens}) == 1


# Guarantee 1


@pytest.mark.anyio
async def test_guarantee_1_500_tasks_share_one_request(world, anyio_backend):
    with world.server.token_endpoint.hold() as gate:
        tokens: list[Token] = []

        async def herd() -> None:
            tokens.extend(await tokens_of_tasks(world.auth, TASKS))

        async with anyio.create_task_group() as group:
            group.start_soon(herd)
            await world.server.await_until(lambda: gate.held == 1)
            await anyio.wait_all_tasks_blocked()
            gate.release()
    check_one(tokens, TASKS)
    world.check()


def test_guarantee_1_50_threads_share_one_request(world):
    barrier = threading.Barrier(THREADS)

    def use(_: int) -> Token:
        barrier.wait(PATIENCE)
        return world.auth.get_token()

    with world.server.token_endpoint.hold() as gate, ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(use, number) for number in range(THREADS)]
        world.server.wait_until(lambda: gate.held == 1)
        gate.release()
        check_one([future.result(PATIENCE) for future in futures], THREADS)
    world.check()


def test_guarantee_1_8_event_loops_share_one_request(world):
    barrier = threading.Barrier(LOOPS)

    def loop(number: int) -> list[Token]:
        barrier.wait(PATIENCE)
        return anyio.run(tokens_of_tasks, world.auth, 20, backend=("asyncio", "trio")[number % 2])

    with world.server.token_endpoint.hold() as gate, ThreadPoolExecutor(LOOPS) as pool:
        futures = [pool.submit(loop, number) for number in range(LOOPS)]
        world.server.wait_until(lambda: gate.held == 1)
        gate.release()
        check_one([token for future in futures for token in future.result(PATIENCE)], LOOPS * 20)
    world.check()


# Guarantee 2


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_guarantee_2_a_request_that_is_given_up_does_not_stop_the_refresh(world, how, anyio_backend):
    with world.server.token_endpoint.hold() as gate:
        async with anyio.create_task_group() as group:
            scope = anyio.CancelScope()

            async def use() -> None:
                with scope:
                    await world.auth.aget_token()

            group.start_soon(use)
            await world.server.await_until(lambda: gate.held == 1)
            if how == "cancelled":
                scope.cancel()
            else:
                scope.deadline = -1.0
    assert scope.cancelled_caught
    assert (await world.auth.aget_token()).access_token
    world.check()


def test_guarantee_2_an_event_loop_that_ends_does_not_stop_the_refresh(world):
    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(world.auth.aget_token)
            await world.server.await_until(lambda: gate.held == 1)
            group.cancel_scope.cancel()

    with world.server.token_endpoint.hold() as gate:
        anyio.run(main)
    assert world.auth.get_token().access_token
    world.check()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="a signal cannot be sent to a thread here")
def test_guarantee_2_ctrl_c_in_one_who_waits_does_not_stop_the_refresh(world):
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        world.server.wait_until(lambda: gate.held == 1)
        signal.pthread_kill(main, signal.SIGINT)

    with world.server.token_endpoint.hold() as gate:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            world.auth.get_token()
        thread.join(PATIENCE)
    assert world.auth.get_token().access_token
    world.check()


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_guarantee_1_two_auth_objects_with_one_storage_make_one_request(world, kind, tmp_path):
    """Each has a state, as two processes have."""
    memory = MemoryStorage()
    storages = [memory if kind == "memory" else FileStorage(tmp_path / "token.json") for _ in range(2)]
    refresh = world.grant
    token = world.auth.token
    auths = [world.library.Reauth(refresh, token=token, storage=storage) for storage in storages]
    with world.server.token_endpoint.hold() as gate, ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(auth.get_token) for auth in auths]
        world.server.wait_until(lambda: gate.held == 1)
        gate.release()
        check_one([future.result(PATIENCE) for future in futures], 2)
    world.check()


class Away:
    """A storage that is out of reach."""

    def load(self) -> Token | None:
        raise OSError

    def save(self, token: Token) -> None:
        raise OSError

    def clear(self) -> None:
        raise OSError

    def try_lock(self, lease: float) -> None:
        raise OSError


def test_with_a_storage_that_is_away_a_grant_that_spends_nothing_asks_without_it(world):
    saves: list[object] = []
    auth = world.library.Reauth(world.grant, token=world.auth.token, storage=Away())
    auth.store.subscribe(lambda _, action: saves.append(action) if isinstance(action, SaveFailed) else None)
    if world.kind == "refresh token with a key":  # a second process could spend the same refresh token
        with pytest.raises(RefreshError):
            auth.get_token()
        assert world.server.token_requests == 0
        return
    assert auth.get_token().access_token
    auth.close()  # the listeners hear of it last
    world.check()
    assert saves


FORK = """
    import os, sys, threading
    import httpx
    from httpx_reauth import Reauth, Token
    from httpx_reauth.oauth import Issuer
    from test_guarantees_of_grants import AUTHS

    kind, url, refresh_token = sys.argv[1:]
    httpx.create_ssl_context()  # a child that is forked inside of OpenSSL finds its locks held

    class Issued:
        def issue(self, **_):
            return Token(refresh_token=refresh_token)

    auth = AUTHS[kind](Reauth, Issuer(url), Issued())
    waiting = threading.Thread(target=auth.get_token)
    waiting.start()
    sys.stdin.readline()
    child = os.fork()
    if child == 0:
        good = bool(auth.get_token().access_token)
        os._exit(0 if good else 1)
    print(os.waitpid(child, 0)[1], flush=True)
    waiting.join()
    print(auth.store.state.status, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(
    ("kind", "endpoint"), [*((kind, "token_endpoint") for kind in AUTHS), ("JWT bearer", "metadata_endpoint")]
)
def test_guarantee_2_a_forked_child_does_not_wait_for_the_request_of_its_parent(kind, endpoint, on_a_socket):
    pytest.importorskip("httpx")  # the program in FORK uses it
    server, url = on_a_socket
    server.rotate = False  # both spend the same refresh token, as processes without a storage do
    root = Path(httpx_reauth.__file__).parents[1]
    path = os.pathsep.join([str(root), str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, IN_THE_ENVIRONMENT: PRIVATE.decode()}
    refresh_token = str(server.issue().refresh_token)
    command = [sys.executable, "-c", textwrap.dedent(FORK), kind, url, refresh_token]
    with (
        getattr(server, endpoint).hold() as gate,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as process,
    ):
        assert process.stdin is not None
        overdue = threading.Timer(2 * PATIENCE, process.kill)
        overdue.start()
        try:
            server.wait_until(lambda: gate.held == 1, timeout=PATIENCE)
            process.stdin.write("\n")
            process.stdin.flush()
            server.wait_until(lambda: gate.held == 2, timeout=PATIENCE)  # the child's, while the parent's is held
            gate.release()
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            overdue.cancel()
            process.kill()
    assert out.split() == ["0", "fulfilled"], err
