"""Your code makes its own httpx clients, and you test with respx (`pip install respx`)."""

from __future__ import annotations

import httpx
import pytest
import respx
from my_app import API, make_auth, my_name, my_name_async

from httpx_reauth import SignInRequired, Token
from httpx_reauth.testing import AuthorizationServer, ManualClock, faults


@pytest.fixture
def server(authorization_server: AuthorizationServer, respx_mock: respx.MockRouter) -> AuthorizationServer:
    """Return an authorization server with its API, at the address that the code uses."""
    authorization_server.mock(respx_mock, base_url=API)
    authorization_server.resource = lambda _: {"name": "Ada"}
    return authorization_server


def test_a_token_is_renewed_at_its_end(server: AuthorizationServer, manual_clock: ManualClock) -> None:
    auth = make_auth(server.issue(), clock=manual_clock)
    assert my_name(auth) == "Ada"
    manual_clock.advance(3600)
    assert my_name(auth) == "Ada"
    assert (server.token_requests, server.api_unauthorized) == (1, 0)


@pytest.mark.anyio
async def test_a_token_that_was_revoked_early_costs_one_more_request(server: AuthorizationServer) -> None:
    async with make_auth(server.issue()) as auth:
        server.revoke_access_tokens()
        assert await my_name_async(auth) == "Ada"
    assert (server.token_requests, server.api_requests) == (1, 2)


def test_an_outage_of_the_token_endpoint_is_an_error_of_httpx(server: AuthorizationServer) -> None:
    server.token_endpoint.fail_always(faults.reply(500))
    with pytest.raises(httpx.HTTPError):
        my_name(make_auth(server.issue(lifetime=0)))
    assert server.api_requests == 0


def test_a_dead_refresh_token_asks_for_a_sign_in(server: AuthorizationServer) -> None:
    auth = make_auth(server.issue(lifetime=0))
    server.revoke_refresh_tokens()
    with pytest.raises(SignInRequired):
        my_name(auth)


def test_by_hand_without_a_server(respx_mock: respx.MockRouter) -> None:
    answer = {"access_token": "new", "expires_in": 3600}
    token = respx_mock.post(f"{API}/token", data__contains={"refresh_token": "old"}).respond(json=answer)
    me = respx_mock.get(f"{API}/me", headers={"Authorization": "Bearer new"}).respond(json={"name": "Ada"})
    assert my_name(make_auth(Token(refresh_token="old"))) == "Ada"
    assert (token.call_count, me.call_count) == (1, 1)
