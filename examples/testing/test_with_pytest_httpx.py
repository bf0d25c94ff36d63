"""Your code makes its own httpx clients, and you test with pytest-httpx (`pip install pytest-httpx`)."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from my_app import API, make_auth, my_name, my_name_async
from pytest_httpx import HTTPXMock

from httpx_reauth import Token
from httpx_reauth.testing import AuthorizationServer


@pytest.fixture
def server(authorization_server: AuthorizationServer, httpx_mock: HTTPXMock) -> AuthorizationServer:
    """Return an authorization server with its API, for sync and async clients."""
    transport = authorization_server.transport(httpx)
    httpx_mock.add_callback(transport.handle_request, is_reusable=True, is_optional=True)
    authorization_server.resource = lambda _: {"name": "Ada"}
    return authorization_server


def test_a_token_that_was_revoked_early_costs_one_more_request(server: AuthorizationServer) -> None:
    auth = make_auth(server.issue())
    server.revoke_access_tokens()
    assert my_name(auth) == "Ada"
    assert (server.token_requests, server.api_requests) == (1, 2)


@pytest.mark.anyio
async def test_one_refresh_for_many_tasks(server: AuthorizationServer) -> None:
    async with make_auth(server.issue(lifetime=0)) as auth:
        names = await asyncio.gather(*(my_name_async(auth) for _ in range(5)))
    assert (names, server.token_requests) == (["Ada"] * 5, 1)


@pytest.mark.anyio
async def test_by_hand_without_a_server(httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(url=f"{API}/token", json={"access_token": "new", "expires_in": 3600})
    httpx_mock.add_response(url=f"{API}/me", match_headers={"Authorization": "Bearer new"}, json={"name": "Ada"})
    async with make_auth(Token(refresh_token="old")) as auth:
        assert await my_name_async(auth) == "Ada"
    form = httpx_mock.get_requests()[0].content  # pytest-httpx itself checks for missing or unexpected requests
    assert b"refresh_token=old" in form
