"""Your code uses httpx2: give its client a transport, or let `pytest-httpx2` mock it (`pip install pytest-httpx2`).

pytest-httpx2 is respx for httpx2. Its routers return the `Response` of httpx. With `package=httpx2`, the authorization
server raises the errors of httpx2.
"""

from __future__ import annotations

import httpx2
import pytest
import respx

from httpx_reauth import Token
from httpx_reauth.httpx2 import Reauth
from httpx_reauth.testing import AuthorizationServer, faults

API = "https://api.example.com"


def make_client(token: Token, transport: httpx2.MockTransport | None = None) -> httpx2.AsyncClient:
    """Return the client under test, with its own refresh. A test may give the transport."""

    async def refresh(last: Token) -> Token:
        async with httpx2.AsyncClient(transport=transport) as client:
            form = {"grant_type": "refresh_token", "refresh_token": last.refresh_token}
            return Token.from_response(await client.post(f"{API}/token", data=form))

    return httpx2.AsyncClient(base_url=API, transport=transport, auth=Reauth(refresh, token=token, origins=[API]))


@pytest.mark.anyio
async def test_with_a_transport(authorization_server: AuthorizationServer) -> None:
    token = authorization_server.issue(access_token=False)
    async with make_client(token, authorization_server.transport(httpx2)) as client:
        assert (await client.get("/me")).status_code == 200
        authorization_server.api.fail(faults.dropped())
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get("/me")
    assert authorization_server.token_requests == 1


@pytest.mark.anyio
async def test_with_a_transport_by_hand() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/token":
            return httpx2.Response(200, json={"access_token": "new"})
        return httpx2.Response(200 if request.headers["Authorization"] == "Bearer new" else 401)

    async with make_client(Token("old", refresh_token="r"), httpx2.MockTransport(answer)) as client:
        assert (await client.get("/me")).status_code == 200


@pytest.mark.anyio
async def test_with_pytest_httpx2(authorization_server: AuthorizationServer, httpx2_mock: respx.MockRouter) -> None:
    authorization_server.mock(httpx2_mock, base_url=API, package=httpx2)
    async with make_client(authorization_server.issue(lifetime=0)) as client:
        assert (await client.get("/me")).status_code == 200
        authorization_server.api.fail(faults.dropped())
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get("/me")
    assert (authorization_server.token_requests, authorization_server.api_requests) == (1, 2)
