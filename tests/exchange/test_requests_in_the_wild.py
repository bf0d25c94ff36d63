"""Tests of uses as in a user's code and tests: respx, websockets, one object in many clients."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import anyio
import httpx
import pytest
import respx

from httpx_reauth import Reauth, RefreshError, SignInRequired, Token

API = "https://api.test"


# --- respx, as in a user's test suite ---


def renew(token: Token) -> Token:
    response = httpx.post(f"{API}/token", data={"refresh_token": token.refresh_token})
    return Token.from_response(response)


async def renew_async(token: Token) -> Token:
    async with httpx.AsyncClient() as client:
        return Token.from_response(await client.post(f"{API}/token", data={"refresh_token": token.refresh_token}))


def me(request: httpx.Request) -> httpx.Response:
    good = request.headers.get("Authorization") == "Bearer new"
    return httpx.Response(200, json={"name": "me"}) if good else httpx.Response(401)


@pytest.fixture
def routes():
    with respx.mock(base_url=API) as mock:
        mock.post("/token", name="token").respond(200, json={"access_token": "new", "expires_in": 60})
        mock.get("/me", name="me").mock(side_effect=me)
        yield mock


@pytest.mark.parametrize("refresh", [renew, renew_async])
def test_respx_with_a_sync_client(routes, refresh):
    auth = Reauth(refresh, token=Token("old", refresh_token="r-1"))
    with auth, httpx.Client(base_url=API, auth=auth) as client:
        assert client.get("/me").json() == {"name": "me"}
        assert client.get("/me").json() == {"name": "me"}
    assert routes["token"].call_count == 1
    assert routes["token"].calls.last.request.content == b"refresh_token=r-1"
    assert [call.request.headers["Authorization"] for call in routes["me"].calls[1:]] == ["Bearer new"] * 2
    assert routes["me"].call_count == 3


@pytest.mark.anyio
@pytest.mark.parametrize("refresh", [renew, renew_async])
async def test_respx_with_an_async_client(routes, refresh, anyio_backend):
    auth = Reauth(refresh, token=Token("old", refresh_token="r-1"))
    async with auth, httpx.AsyncClient(base_url=API, auth=auth) as client:
        assert (await client.get("/me")).json() == {"name": "me"}
        assert (await client.get("/me")).json() == {"name": "me"}
    assert routes["token"].call_count == 1
    assert routes["me"].call_count == 3


@pytest.mark.anyio
async def test_respx_with_a_failing_token_endpoint(anyio_backend):
    with respx.mock(base_url=API, assert_all_called=False) as mock:
        token = mock.post("/token").mock(side_effect=httpx.ConnectError("no route"))
        api = mock.get("/me").respond(200)
        auth = Reauth(renew_async, token=Token(refresh_token="r-1"))
        async with httpx.AsyncClient(base_url=API, auth=auth) as client:
            with pytest.raises(httpx.TransportError) as failure:
                await client.get("/me")
        assert isinstance(failure.value, RefreshError)
        assert isinstance(failure.value.__cause__, httpx.ConnectError)
        assert token.call_count == 1
        assert not api.called


def test_server_of_the_kit_behind_respx_with_both_clients(server, clock):
    with respx.mock() as mock:
        server.mock(mock, base_url=API)
        auth = Reauth(renew_with_grant_type, token=server.issue(), clock=clock)
        server.revoke_access_tokens()
        with httpx.Client(base_url=API, auth=auth) as client:
            assert client.get("/me").status_code == 200

        async def main():
            async with httpx.AsyncClient(base_url=API, auth=auth) as client:
                assert (await client.get("/me")).status_code == 200
                server.revoke_access_tokens()
                assert (await client.get("/me")).status_code == 200

        anyio.run(main)
    assert (server.token_requests, server.reuse_detected) == (2, 0)


def renew_with_grant_type(token: Token) -> Token:
    form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
    return Token.from_response(httpx.post(f"{API}/token", data=form))


def test_mock_transport_of_a_user(library):
    httpx_ = library.package

    def handler(request):
        if request.url.path == "/token":
            return httpx_.Response(200, json={"access_token": "new"})
        good = request.headers.get("Authorization") == "Bearer new"
        return httpx_.Response(200 if good else 401)

    transport = httpx_.MockTransport(handler)

    def refresh(token):
        with httpx_.Client(transport=transport) as client:
            return Token.from_response(client.post(f"{API}/token"))

    auth = library.Reauth(refresh, token=Token("old"))
    with httpx_.Client(transport=transport, auth=auth) as client:
        assert client.get(f"{API}/me").status_code == 200


# --- a token for something that is not an HTTP client ---


def test_get_token_gives_a_usable_token_and_renews_it_only_if_need_be(talk, server):
    auth = talk.auth(server.issue(access_token=False))
    token = talk.token(auth)
    assert token is auth.store.state.token
    assert talk.token(auth) is token
    assert server.token_requests == 1


def test_websocket_that_was_refused_gets_another_token_by_rejected(talk, server):
    auth = talk.auth()
    first = talk.token(auth)
    assert server.token_requests == 0
    second = talk.token(auth, rejected=first)
    assert second.access_token != first.access_token
    assert server.token_requests == 1
    # A second socket was refused with the old token, but later. It gets the current token, without a refresh.
    assert talk.token(auth, rejected=first) is second
    assert server.token_requests == 1


def test_rejected_by_the_current_token_forces_a_renewal(talk, server):
    auth = talk.auth()
    for expected in (1, 2):
        talk.token(auth, rejected=auth.store.state.token)
        assert server.token_requests == expected


def test_rejected_may_be_an_equal_token_that_was_read_back(talk, server):
    auth = talk.auth()
    copy = Token(**dataclasses.asdict(auth.store.state.token))
    assert talk.token(auth, rejected=copy).access_token != copy.access_token
    assert server.token_requests == 1


def test_rejected_without_any_refresh_token_left_asks_to_sign_in(talk, server):
    auth = talk.auth(server.issue(refresh_token=False), talk.site.refresh("grant"))
    with pytest.raises(SignInRequired):
        talk.token(auth, rejected=auth.store.state.token)


def test_websocket_of_httpx2_carries_the_token_and_is_tried_again(clock):
    """The handshake of a websocket is a request like any other. It needs wsproto, the extra `httpx2[ws]`."""
    httpx2 = pytest.importorskip("httpx2")
    pytest.importorskip("wsproto")
    if not hasattr(httpx2.Client, "websocket"):
        pytest.skip("this httpx2 opens no websockets")
    from httpx_reauth.httpx2 import Reauth as Reauth2

    seen = []
    with refusing_handshakes(seen) as url:
        auth = Reauth2(lambda token: Token("new"), token=Token("old"), clock=clock)
        with (
            httpx2.Client(auth=auth, trust_env=False) as client,
            pytest.raises(Exception),  # noqa: B017, PT011 - the server accepts no websocket; any exception will do
            client.websocket(f"{url}/feed"),
        ):
            pass
    assert seen == ["Bearer old", "Bearer new"]


@contextlib.contextmanager
def refusing_handshakes(seen):
    """Run a server that refuses every handshake with a 401."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            seen.append(self.headers["Authorization"])
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"ws://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()


# --- one object in many places ---


def test_one_object_serves_sync_and_async_clients_of_its_package(library, socket_site, server, clock):
    auth = library.Reauth(socket_site.refresh("coroutine"), token=server.issue(), clock=clock)

    async def main():
        async with socket_site.async_client(auth) as client:
            return (await client.get("/me")).status_code

    for _ in range(2):
        server.revoke_access_tokens()
        with socket_site.client(auth) as client:
            assert client.get("/me").status_code == 200
        server.revoke_access_tokens()
        for backend in ("asyncio", "trio"):  # two event loops, one after the other
            assert anyio.run(main, backend=backend) == 200
    assert (server.token_requests, server.reuse_detected) == (4, 0)


def test_one_store_serves_auth_objects_of_both_packages(server, clock):
    httpx2 = pytest.importorskip("httpx2")
    from httpx_reauth.httpx2 import Reauth as Reauth2

    def refresh(token):
        with httpx.Client(transport=server.transport(httpx)) as client:
            form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
            return Token.from_response(client.post(f"{API}/token", data=form))

    one = Reauth(refresh, token=server.issue(), clock=clock)
    other = Reauth2(refresh, store=one.store, clock=clock)
    server.revoke_access_tokens()
    with httpx.Client(transport=server.transport(httpx), auth=one) as client:
        assert client.get(f"{API}/me").status_code == 200
    with httpx2.Client(transport=server.transport(httpx2), auth=other) as client:
        assert client.get(f"{API}/me").status_code == 200
    assert server.token_requests == 1


def test_sign_in_and_sign_out_hold_from_the_next_request_on(talk, server):
    auth = talk.auth()
    other = server.issue()
    talk(auth, lambda client: client.get("/me"))
    auth.sign_in(other)
    talk(auth, lambda client: client.get("/me"))
    assert server.authorizations()[-1] == f"Bearer {other.access_token}"
    assert server.token_requests == 0
