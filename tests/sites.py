"""Ways to a server, for every test: through a transport in memory or by a socket, with httpx or httpx2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from httpx_reauth import Token
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.testing import AuthorizationServer

IN_MEMORY = "https://api.test"

REFRESHES = ("coroutine", "function", "grant", "callable object", "partial", "lambda")


@dataclass(frozen=True)
class Site:
    """One way to a server: a transport in memory, or the URL of a socket. It makes clients and refreshes."""

    package: Any  # httpx or httpx2
    url: str
    settings: dict[str, Any]
    server: AuthorizationServer | None  # the server, if it is in memory

    def client(self, auth: object = None, **settings: Any) -> Any:
        return self.package.Client(base_url=self.url, auth=auth, **{**self.settings, **settings})

    def async_client(self, auth: object = None, **settings: Any) -> Any:
        return self.package.AsyncClient(base_url=self.url, auth=auth, **{**self.settings, **settings})

    def function(self, token: Token) -> Token:
        """Run a refresh as a plain function."""
        with self.client() as client:
            return Token.from_response(client.post("/token", data=_form(token)))

    async def coroutine(self, token: Token) -> Token:
        """Run a refresh as a coroutine function."""
        async with self.async_client() as client:
            return Token.from_response(await client.post("/token", data=_form(token)))

    def refresh(self, kind: str) -> Callable[[Token], Any]:
        """Return a refresh of the given kind, one of `REFRESHES`."""
        if kind == "grant":
            # a client in memory needs no closing; for a socket, the grant has a client that it closes itself
            server = self.server
            client = None if server is None else self.package.Client(transport=server.transport(self.package))
            return RefreshTokenGrant(f"{self.url}/token", "app", client=client)
        kinds = {
            "coroutine": self.coroutine,
            "function": self.function,
            "callable object": _Refresh(self),
            "partial": partial(_refresh_at, self),
            "lambda": lambda token: self.coroutine(token),  # noqa: PLW0108 - a function that returns a coroutine
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
class HttpLibrary:
    """One of the two HTTP libraries (httpx, httpx2), with its `Reauth`."""

    package: Any
    Reauth: Any

    def at(self, where: AuthorizationServer | str) -> Site:
        """Return a way to `where`: to a server in memory, or to the base URL of a server on a socket."""
        if isinstance(where, str):
            return Site(self.package, where, {"verify": False, "trust_env": False, "timeout": 20.0}, None)
        return Site(self.package, IN_MEMORY, {"transport": where.transport(self.package)}, where)
