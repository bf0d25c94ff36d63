"""What the tests with many processes share: a fleet, a server, and a place for the token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_worker import Fleet, Place, SharedClock

from httpx_reauth.testing import AuthorizationServer


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
