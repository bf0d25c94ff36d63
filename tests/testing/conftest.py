"""Fixtures that run each test with every way to a server, sync and async, on asyncio and trio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack

import httpx
import httpx2
import pytest
import respx
from server_ways import HOST, WAYS, Caller, Way

from httpx_reauth.testing import AuthorizationServer, ManualClock


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server(clock) -> Iterator[AuthorizationServer]:
    with AuthorizationServer(clock=clock) as server:
        yield server


@pytest.fixture(params=WAYS)
def way(request, server) -> Iterator[Way]:
    with ExitStack() as stack:
        match request.param:
            case "respx":
                router = stack.enter_context(respx.mock(assert_all_called=False))
                server.mock(router, base_url=HOST)
                yield Way("respx", httpx, HOST)
            case "socket":
                yield Way("socket", httpx, stack.enter_context(server.serve()))
            case name:
                package = {"httpx": httpx, "httpx2": httpx2}[name]
                yield Way(name, package, HOST, server.transport(package))


@pytest.fixture(params=["async", "sync"])
async def call(request, way, anyio_backend) -> AsyncIterator[Caller]:
    async with AsyncExitStack() as stack:
        if request.param == "sync":
            client = stack.enter_context(way.client())
        else:
            client = await stack.enter_async_context(way.async_client())
        yield Caller(way, client, is_sync=request.param == "sync")
