"""Tests of a connection that `client=` has kept and the server has closed: no token request is lost on it."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest
from raw_server import Connection, RawServer, answers
from sites import HttpLibrary

from httpx_reauth import Token
from httpx_reauth.oauth import ClientCredentialsGrant, RefreshTokenGrant

OLD = Token("old", refresh_token="r-1")
WARM = 3  # connections that the client keeps

each_grant = pytest.mark.parametrize("grant_type", [ClientCredentialsGrant, RefreshTokenGrant])


class AnswersOnce:
    """Answers one request, keeps the connection open, and drops it when a second request comes on it."""

    def __init__(self, together: int = 1) -> None:
        self.all_here = threading.Barrier(together)
        self.second_requests: list[bytes] = []

    def __call__(self, connection: Connection) -> None:
        connection.read_request()
        self.all_here.wait(20)
        connection.answer(200, b"{}")
        with suppress(OSError):
            self.second_requests.append(connection.sock.recv(65536))  # b"": the client has closed it


def warm_up(client, url: str, connections: int) -> None:
    threads = [threading.Thread(target=client.get, args=(url,)) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@each_grant
@pytest.mark.parametrize("kept", [1, WARM])
@pytest.mark.parametrize("way", ["plain", "tls", "proxy"])
def test_guarantee_2_token_request_goes_out_on_a_new_connection(library: HttpLibrary, grant_type, kept, way, tls):
    once = AnswersOnce(kept)
    server_side, client_side = tls if way == "tls" else (None, True)
    with RawServer(*[once] * kept, answers(), tls=server_side) as server:
        settings = {"proxy": f"http://127.0.0.1:{server.port}"} if way == "proxy" else {"trust_env": False}
        with library.package.Client(verify=client_side, **settings) as client:
            warm_up(client, server.url, kept)
            auth = library.Reauth(grant_type(server.url, "me", "secret", client=client), token=OLD)
            assert auth.get_token(rejected=OLD).access_token == "fresh"
            assert not client.is_closed
    assert once.second_requests == [b""] * kept
    assert server.connections == kept + 1


def test_the_client_keeps_its_connections_to_other_servers(library: HttpLibrary):
    once = AnswersOnce()
    with RawServer(once) as other, RawServer(answers()) as server, library.package.Client(trust_env=False) as client:
        warm_up(client, other.url, 1)
        auth = library.Reauth(RefreshTokenGrant(server.url, "me", client=client), token=OLD)
        assert auth.get_token(rejected=OLD).access_token == "fresh"
        with pytest.raises(library.package.RemoteProtocolError):
            client.get(other.url)  # on the connection that it has kept
    assert once.second_requests != [b""]


def test_client_whose_pool_is_full_gets_its_new_connection(library: HttpLibrary):
    once = AnswersOnce()
    limits = library.package.Limits(max_connections=1)
    with RawServer(once, answers()) as server, library.package.Client(limits=limits, trust_env=False) as client:
        warm_up(client, server.url, 1)
        auth = library.Reauth(RefreshTokenGrant(server.url, "me", client=client), token=OLD)
        assert auth.get_token(rejected=OLD).access_token == "fresh"
    assert server.connections == 2
