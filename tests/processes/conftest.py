"""The fixtures of the tests with many processes: a fleet, a server, and a place for the token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_worker import Fleet, Place, SharedClock

from httpx_reauth.testing import AuthorizationServer


@pytest.fixture(params=["file", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return the place of the token: a file, or a Redis server."""
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
    """Run a server with the machine's clock. It rotates refresh tokens, and revokes all tokens if one is used twice."""
    with AuthorizationServer(rotate=True) as server:
        yield server


@pytest.fixture
def url(identity: AuthorizationServer) -> Iterator[str]:
    """Serve the server on a real loopback socket, and return the URL."""
    with identity.serve() as url:
        yield url
