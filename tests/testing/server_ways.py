"""Four ways to a server: respx, a transport of httpx or of httpx2, a socket. The clients are sync or async."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import anyio.to_thread

HOST = "https://api.test"
WAYS = ["respx", "httpx", "httpx2", "socket"]


class Way:
    """A way in which a client of `package` reaches the server."""

    def __init__(self, name: str, package: ModuleType, base_url: str, transport: Any = None) -> None:
        self.name = name
        self.package = package
        self.base_url = base_url
        # Nothing here uses TLS, and it would take most of the time to load the certificates for each client.
        self._options = {"verify": False} if transport is None else {"transport": transport}

    def client(self, **options: Any) -> Any:
        return self.package.Client(base_url=self.base_url, **self._options, **options)

    def async_client(self, **options: Any) -> Any:
        return self.package.AsyncClient(base_url=self.base_url, **self._options, **options)


class Caller:
    """An async interface for a sync or an async client. The sync client runs in a thread."""

    def __init__(self, way: Way, client: Any, *, is_sync: bool) -> None:
        self.way = way
        self.client = client
        self.is_sync = is_sync

    async def __call__(self, method: str, path: str, **options: Any) -> Any:
        if self.is_sync:
            return await anyio.to_thread.run_sync(lambda: self.client.request(method, path, **options))
        return await self.client.request(method, path, **options)

    async def chunks(self, path: str, **options: Any) -> list[bytes]:
        """Make a streamed GET request, and return the chunks of its body."""
        if self.is_sync:
            return await anyio.to_thread.run_sync(lambda: self._chunks(path, **options))
        async with self.client.stream("GET", path, **options) as response:
            return [chunk async for chunk in response.aiter_raw()]

    def _chunks(self, path: str, **options: Any) -> list[bytes]:
        with self.client.stream("GET", path, **options) as response:
            return list(response.iter_raw())

    def error(self, name: str) -> type[Exception]:
        return getattr(self.way.package, name)


def bearer(token: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {getattr(token, 'access_token', token)}"}


def form(token: Any) -> dict[str, str]:
    return {"grant_type": "refresh_token", "refresh_token": getattr(token, "refresh_token", token)}
