"""An API and its token endpoint without a socket, so light that whatever the auth costs shows."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import httpx

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
