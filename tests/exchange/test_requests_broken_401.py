"""Tests of a 401 whose body cannot be read, on a real socket. The next request has a new token."""

from __future__ import annotations

import gzip

import httpx
import pytest
from raw_server import Connection, RawServer

from httpx_reauth import Reauth, Token

UNREADABLE = {
    "cut off": (b"content-length: 500", b"half of it", httpx.RemoteProtocolError),
    "no gzip": (b"content-encoding: gzip\r\ncontent-length: 12", b"not gzip at all"[:12], httpx.DecodingError),
    "half a gzip": (b"content-encoding: gzip\r\ncontent-length: 99", gzip.compress(b"x" * 99)[:9], httpx.HTTPError),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_guarantee_5_a_401_that_cannot_be_read_is_an_error_once_and_the_next_request_has_a_new_token(
    kind: str, *, is_streamed: bool
):
    headers, body, error = UNREADABLE[kind]
    authorizations: list[bytes] = []

    def serve(connection: Connection) -> None:
        head = connection.read_request().lower()
        authorizations.append(next(line for line in head.split(b"\r\n") if line.startswith(b"authorization:"))[22:])
        if authorizations[-1] == b"new":
            connection.answer(200, b"welcome")
        else:
            connection.send(b"HTTP/1.1 401 No\r\n" + headers + b"\r\n\r\n" + body)

    refreshed: list[Token] = []

    def refresh(last: Token) -> Token:
        refreshed.append(last)
        return Token("new", expires_in=3600)

    auth = Reauth(refresh, token=Token("old", expires_in=3600))
    limits = httpx.Limits(max_connections=1)
    with RawServer(serve) as server, httpx.Client(auth=auth, limits=limits, timeout=10) as client:
        request = client.build_request("GET", server.url)
        with pytest.raises(error):
            client.send(request, stream=is_streamed)
        assert client.get(server.url).text == "welcome"
    assert (authorizations, len(refreshed)) == ([b"old", b"new"], 1)
