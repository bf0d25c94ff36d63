"""An adapter from an `AuthorizationServer` to clients with respx, which needs httpx."""

from __future__ import annotations

from collections.abc import Generator
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import httpx

from httpx_reauth.testing._mock import Adapter, Package, ask, await_, wait_for

if TYPE_CHECKING:
    import respx

    from httpx_reauth.testing._server import AuthorizationServer


def mock(
    server: AuthorizationServer, router: respx.Router, base_url: str | None, package: Package[Any] | None
) -> respx.Route:
    """Add a route to `router` that sends requests to `server`. It raises the errors of `package`, by default httpx."""
    # respx uses the requests and responses of httpx, also if it mocks httpx2.
    adapter = Adapter(httpx, cast("ModuleType", package or httpx))

    def side_effect(request: httpx.Request) -> httpx.Response:
        return _Either(server, request, adapter)

    patterns: dict[str, Any] = {}
    if base_url is not None:
        url = httpx.URL(base_url)
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        patterns = {"scheme": url.scheme, "host": url.host, "port": port}
    return router.route(**patterns).mock(side_effect=side_effect)


class _Either(httpx.Response):
    """The result for respx. For an async client, respx awaits it. For a sync client, respx uses it as the response.

    respx does not say which kind of client it has, and a running loop in this thread does not show it either. So the
    sync wait begins when respx first reads the response's stream.
    """

    def __init__(self, server: AuthorizationServer, request: httpx.Request, adapter: Adapter) -> None:
        self._request = request
        self._adapter = adapter
        self._answer = ask(server, request, request.content)
        self._waited = False

    def __await__(self) -> Generator[Any, Any, httpx.Response]:
        return self._awaited().__await__()

    async def _awaited(self) -> httpx.Response:
        await await_(self._answer.waits, cast("httpx.Request", self._request), self._adapter)
        return self._adapter.response(self._answer, cast("httpx.Request", self._request))

    @property
    def stream(self) -> httpx.SyncByteStream | httpx.AsyncByteStream:
        if not self._waited:
            self._waited = True
            adapter, request = self._adapter, cast("httpx.Request", self._request)
            wait_for(self._answer.waits, request, adapter)
            self.__dict__.update(adapter.response(self._answer, request).__dict__)
        return cast("httpx.SyncByteStream", self.__dict__["stream"])

    @stream.setter
    def stream(self, value: httpx.SyncByteStream | httpx.AsyncByteStream) -> None:
        self.__dict__["stream"] = value
