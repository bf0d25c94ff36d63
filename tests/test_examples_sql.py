"""Tests of the examples with a database.

They run as scripts in a new process, and their storage fulfils the contract.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest

from httpx_reauth import Reauth, SignInRequired, StorageError, Token
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.storage import Storage
from httpx_reauth.testing import AuthorizationServer, StorageContract
from httpx_reauth.testing._contract_steps import locked

ROOT = Path(__file__).parent.parent


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # SQLAlchemy looks for the annotations there
    spec.loader.exec_module(module)
    return module


sql = example("sql_storage")
async_sql = example("async_sql_refresh")


@pytest.mark.parametrize("name", ["sql_storage", "async_sql_refresh"])
def test_as_a_script_four_workers_make_one_token_request(name: str):
    done = subprocess.run(
        [sys.executable, f"examples/{name}.py"], cwd=ROOT, capture_output=True, timeout=60, check=False, text=True
    )
    *workers, last = done.stdout.splitlines()
    assert sorted(workers) == [f"worker {number}: 200" for number in range(4)], done.stderr
    assert last == "token requests: 1"
    assert not done.stderr


# The storage.


@contextmanager
def database(path: Path) -> Iterator[Any]:
    engine = sql.create_engine(f"sqlite:///{path}")
    sql.Base.metadata.create_all(engine)
    try:
        yield engine
    finally:
        engine.dispose()


class TestSqlStorage(StorageContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path):
        with database(tmp_path / "tokens.db") as self.engine:
            yield

    def make(self) -> Storage:
        return sql.SqlStorage(self.engine, "alice")


def test_users_do_not_see_each_others_tokens(tmp_path: Path):
    with database(tmp_path / "tokens.db") as engine:
        alice, bob = sql.SqlStorage(engine, "alice"), sql.SqlStorage(engine, "bob")
        with locked(alice), locked(bob):
            alice.save(Token("a"))
            bob.save(Token("b"))
            bob.clear()
        assert (alice.load(), bob.load()) == (Token("a"), None)


def test_who_has_lost_its_lock_does_not_save_over_the_newer_token(tmp_path: Path):
    with database(tmp_path / "tokens.db") as engine:
        slow, quick = sql.SqlStorage(engine, "alice"), sql.SqlStorage(engine, "alice")
        with slow.try_lock(-1.0), locked(quick):  # the first lease ends as soon as it begins
            quick.save(Token("newer"))
            with pytest.raises(StorageError, match="lost its lock"):
                slow.save(Token("older"))
        assert quick.load() == Token("newer")


def test_a_database_that_is_gone_is_a_storage_error_without_a_secret(tmp_path: Path):
    engine = sql.create_engine(f"sqlite:///{tmp_path}/nowhere/tokens.db")
    storage = sql.SqlStorage(engine, "alice")
    for call in (storage.load, storage.clear, lambda: storage.save(Token("secret-0451")), lambda: storage.try_lock(1)):
        with pytest.raises(StorageError) as caught:
            call()
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None
    engine.dispose()


def test_guarantee_1_auth_objects_on_one_row_make_one_token_request(tmp_path: Path):
    with database(tmp_path / "tokens.db") as engine, AuthorizationServer() as server:
        seed = sql.SqlStorage(engine, "alice")
        with locked(seed):
            seed.save(server.issue(lifetime=0))
        transport = server.transport(httpx)
        with httpx.Client(transport=transport, base_url="https://api.test") as client:
            grant = RefreshTokenGrant("https://api.test/token", "app", client=client)
            auths = [Reauth(grant, storage=sql.SqlStorage(engine, "alice")) for _ in range(5)]
            assert [client.get("/me", auth=auth).status_code for auth in auths] == [200] * 5
        assert server.token_requests == 1
        for auth in auths:
            auth.close()


# The refresh.


@asynccontextmanager
async def sessions_in(path: Path, token: Token | None) -> AsyncIterator[Any]:
    engine = async_sql.make_engine(f"sqlite+aiosqlite:///{path}")
    async with engine.begin() as connection:
        await connection.run_sync(async_sql.Base.metadata.create_all)
    sessions = async_sql.async_sessionmaker(engine)
    if token is not None:
        async with sessions.begin() as session:
            row = async_sql.Row(user="alice")
            row.write(token)
            session.add(row)
    try:
        yield sessions
    finally:
        await engine.dispose()


async def held_in(sessions: Any) -> Token:
    async with sessions() as session:
        return (await session.get(async_sql.Row, "alice")).read()


@pytest.fixture
def url() -> Iterator[tuple[AuthorizationServer, str]]:
    with AuthorizationServer() as server, server.serve() as url:
        yield server, url


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_guarantee_1_workers_with_a_refresh_coroutine_each_make_one_token_request(tmp_path: Path, url):
    server, base_url = url
    async with sessions_in(tmp_path / "tokens.db", server.issue(lifetime=0)) as sessions:
        auths = [Reauth(async_sql.refresh_in(sessions, "alice", f"{base_url}/token")) for _ in range(8)]
        statuses = []

        async def worker(auth: Reauth) -> None:
            async with auth, httpx.AsyncClient(base_url=base_url, auth=auth, trust_env=False) as client:
                statuses.append((await client.get("/me")).status_code)

        for turn in (1, 2):
            async with anyio.create_task_group() as tasks:
                for auth in auths:
                    tasks.start_soon(worker, auth)
            assert (server.token_requests, server.reuse_detected) == (turn, 0)
            server.revoke_access_tokens()
        assert statuses == [200] * 16
        held = await held_in(sessions)
        assert {auth.store.state.token.access_token for auth in auths} == {held.access_token}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_token_that_another_worker_has_renewed_is_found_without_a_token_request(tmp_path: Path, url):
    server, base_url = url
    async with sessions_in(tmp_path / "tokens.db", server.issue()) as sessions:
        auth = Reauth(async_sql.refresh_in(sessions, "alice", f"{base_url}/token"), token=server.issue(lifetime=0))
        assert (await auth.aget_token()).access_token == (await held_in(sessions)).access_token
        assert server.token_requests == 0
        await auth.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_user_without_a_row_is_asked_to_sign_in(tmp_path: Path, url):
    _, base_url = url
    async with sessions_in(tmp_path / "tokens.db", None) as sessions:
        auth = Reauth(async_sql.refresh_in(sessions, "alice", f"{base_url}/token"))
        with pytest.raises(SignInRequired, match="no token for alice"):
            await auth.aget_token()
        await auth.aclose()
