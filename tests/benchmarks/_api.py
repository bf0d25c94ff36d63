"""An API and its token endpoint without a socket, so light that whatever the auth costs shows."""

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
    """Answers each request after one trip through the event loop, as a quick connection would, or after `latency`."""

    def __init__(self, latency: float = 0.0) -> None:
        self.latency = latency

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.latency:
            await anyio.sleep(self.latency)
        else:
            await anyio.lowlevel.checkpoint()
        return httpx.Response(200, content=b"{}")


class TokenEndpoint(httpx.AsyncBaseTransport):
    """Issues a token that is good for an hour, `latency` seconds after it was asked."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.requests = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        await anyio.sleep(self.latency)
        return httpx.Response(200, json={"access_token": f"token-{self.requests}", "expires_in": 3600})


def signed_out(endpoint: TokenEndpoint) -> Reauth:
    """An auth object without a token yet."""

    async def refresh(token: Token) -> Token:
        async with httpx.AsyncClient(transport=endpoint) as client:
            return Token.from_response(await client.post("https://id.example.com/token"))

    return Reauth(refresh)


class SmallestWaiter(httpx.Auth):
    """What waiting costs at the least: the first task asks, the others wait for one event. Nothing else is right."""

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
