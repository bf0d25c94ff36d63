"""What all tests share: both event loops, both packages, a clock that stands still, and a server to talk to."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from sites import Flavour, Site

from httpx_reauth.testing import AuthorizationServer, ManualClock

# Properties are tested with the same examples in every run, however slow the machine is.
settings.register_profile(
    "steady", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["httpx", "httpx2"])
def flavour(request: pytest.FixtureRequest) -> Flavour:
    face = {"httpx": "httpx_reauth", "httpx2": "httpx_reauth.httpx2"}[request.param]
    return Flavour(pytest.importorskip(request.param), importlib.import_module(face).Reauth)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server(clock: ManualClock) -> Iterator[AuthorizationServer]:
    """A server whose tokens expire by `clock`."""
    with AuthorizationServer(clock=clock) as server:
        yield server


@pytest.fixture
def site(flavour: Flavour, server: AuthorizationServer) -> Site:
    """The way to `server`, in memory."""
    return flavour.at(server)


@pytest.fixture
def socket_site(flavour: Flavour, server: AuthorizationServer) -> Iterator[Site]:
    """The way to `server` by a real loopback socket."""
    with server.serve() as url:
        yield flavour.at(url)
