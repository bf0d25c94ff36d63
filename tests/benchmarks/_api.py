"""An API and its token endpoint without a socket. They take so little time that the cost of the auth shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import anyio
import anyio.lowlevel
import httpx
import sniffio
import trio

from httpx_reauth import Reauth, Token

BASE_URL = "https://api.example.com"


class Transport(httpx.AsyncBaseTransport):
    """Answers each request after `latency` seconds, or else after one trip through the event loop."""

    def __init__(self, latency: float = 0.0) -> None:
        self.latency = latency

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.latency:
            await anyio.sleep(self.latency)
        else:
            await anyio.lowlevel.checkpoint()
        return httpx.Response(200, content=b"{}")


class TokenEndpoint(httpx.AsyncBaseTransport):
    """Issues a token that is good for an hour, `latency` seconds after the request."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.requests = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        await anyio.sleep(self.latency)
        return httpx.Response(200, json={"access_token": f"token-{self.requests}", "expires_in": 3600})


def signed_out(endpoint: TokenEndpoint) -> Reauth:
    """Return an auth object without a token."""

    async def refresh(token: Token) -> Token:
        async with httpx.AsyncClient(transport=endpoint) as client:
            return Token.from_response(await client.post("https://id.example.com/token"))

    return Reauth(refresh)


class SmallestWaiter(httpx.Auth):
    """The smallest auth that waits: the first task asks for a token, the others wait for one event.

    It handles nothing else.
    """

    def __init__(self, endpoint: TokenEndpoint) -> None:
        self._endpoint = endpoint
        self._event: asyncio.Event | trio.Event | None = None
        self._header = ""

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        if self._event is None:
            self._event = trio.Event() if sniffio.current_async_library() == "trio" else asyncio.Event()
            async with httpx.AsyncClient(transport=self._endpoint) as client:
                answer = await client.post("https://id.example.com/token")
            self._header = f"Bearer {answer.json()['access_token']}"
            self._event.set()
        elif not self._header:
            await self._event.wait()
        request.headers["Authorization"] = self._header
        yield request
