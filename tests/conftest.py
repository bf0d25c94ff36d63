"""What all tests share: both event loops, both packages, a clock that stands still, and a server to talk to."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest

from httpx_reauth import Token
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.testing import AuthorizationServer, ManualClock

IN_MEMORY = "https://api.test"

REFRESHES = ("coroutine", "function", "grant", "callable object", "partial", "lambda")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@dataclass(frozen=True)
class Site:
    """One way to a server: through a transport in memory, or to a socket's URL. It makes clients and refreshes."""

    package: Any  # httpx or httpx2
    url: str
    settings: dict[str, Any]
    server: AuthorizationServer | None  # if it is in memory

    def client(self, auth: object = None, **settings: Any) -> Any:
        return self.package.Client(base_url=self.url, auth=auth, **{**self.settings, **settings})

    def async_client(self, auth: object = None, **settings: Any) -> Any:
        return self.package.AsyncClient(base_url=self.url, auth=auth, **{**self.settings, **settings})

    def function(self, token: Token) -> Token:
        """A refresh as a plain function."""
        with self.client() as client:
            return Token.from_response(client.post("/token", data=_form(token)))

    async def coroutine(self, token: Token) -> Token:
        """A refresh as a coroutine function."""
        async with self.async_client() as client:
            return Token.from_response(await client.post("/token", data=_form(token)))

    def refresh(self, kind: str) -> Callable[[Token], Any]:
        """A refresh of one of the `REFRESHES`."""
        if kind == "grant":
            server = self.server  # a client that needs no closing; for a socket, the grant has one of its own
            client = None if server is None else httpx.Client(transport=server.transport(httpx))
            return RefreshTokenGrant(f"{self.url}/token", "app", client=client)
        kinds = {
            "coroutine": self.coroutine,
            "function": self.function,
            "callable object": _Refresh(self),
            "partial": partial(_refresh_at, self),
            "lambda": lambda token: self.coroutine(token),  # noqa: PLW0108 - no coroutine function, but returns one
        }
        return kinds[kind]


class _Refresh:
    def __init__(self, site: Site) -> None:
        self.site = site

    async def __call__(self, token: Token) -> Token:
        return await self.site.coroutine(token)


async def _refresh_at(site: Site, token: Token) -> Token:
    return await site.coroutine(token)


def _form(token: Token) -> dict[str, str]:
    if token.refresh_token is None:
        return {"grant_type": "client_credentials"}
    return {"grant_type": "refresh_token", "refresh_token": token.refresh_token}


@dataclass(frozen=True)
class Flavour:
    """One of the two packages, with its `Reauth`."""

    package: Any
    Reauth: Any

    def at(self, where: AuthorizationServer | str) -> Site:
        """The way to `where`: a server in memory, or the base URL of one that serves a socket."""
        if isinstance(where, str):
            return Site(self.package, where, {"verify": False, "trust_env": False, "timeout": 20.0}, None)
        return Site(self.package, IN_MEMORY, {"transport": where.transport(self.package)}, where)


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
