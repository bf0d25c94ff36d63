"""The API is your own ASGI app in the same process: no socket, and plain http to a host that does not exist.

A token is sent over plain http only to loopback. So the app's invented origin must be listed:
`origins=["http://test"]`.
"""

from __future__ import annotations

from typing import Annotated

import httpx
import pytest
from fastapi import FastAPI, Header, HTTPException

from httpx_reauth import InsecureOrigin, Reauth
from httpx_reauth.oauth import ClientCredentialsGrant
from httpx_reauth.testing import AuthorizationServer

app = FastAPI()
revoked: set[str] = set()


@app.get("/orders")
async def orders(authorization: Annotated[str, Header()]) -> list[str]:
    """Your app. It accepts every token that it has not revoked."""
    if authorization in revoked:
        raise HTTPException(401)
    return ["tea"]


@pytest.fixture
def grant(authorization_server: AuthorizationServer) -> ClientCredentialsGrant:
    """Return the source of the tokens: here a server in memory."""
    client = httpx.Client(transport=authorization_server.transport(httpx))
    return ClientCredentialsGrant("https://id.test/token", "tests", "secret", client=client)


def in_process(auth: httpx.Auth) -> httpx.AsyncClient:
    """Return a client of the app."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", auth=auth)


@pytest.mark.anyio
async def test_the_app_is_called_with_a_token(
    grant: ClientCredentialsGrant, authorization_server: AuthorizationServer
) -> None:
    async with Reauth(grant, origins=["http://test"]) as auth, in_process(auth) as client:
        assert (await client.get("/orders")).json() == ["tea"]
        token = auth.store.state.token
        assert token
        revoked.add(f"Bearer {token.access_token}")
        assert (await client.get("/orders")).json() == ["tea"]
    assert authorization_server.token_requests == 2


@pytest.mark.anyio
async def test_without_the_origin_nothing_is_sent(
    grant: ClientCredentialsGrant, authorization_server: AuthorizationServer
) -> None:
    async with Reauth(grant) as auth, in_process(auth) as client:
        with pytest.raises(InsecureOrigin, match=r'origins=\["http://test"\]'):
            await client.get("/orders")
    assert authorization_server.token_requests == 0
