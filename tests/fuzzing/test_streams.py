"""Tests of answers that never end, or have a gigabyte: the server counts how many bytes were read."""

from __future__ import annotations

import gzip
import threading
import tracemalloc
import zlib
from collections.abc import Callable

import httpx
import pytest
from raw_server import Connection, RawServer

from httpx_reauth import Reauth, RefreshError, Token
from httpx_reauth.oauth import ClientCredentialsGrant, RefreshTokenGrant
from httpx_reauth.oauth.http import MAX_ANSWER

from .inputs import ACCESS, CLIENT, REFRESH
from .oracle import check

GIGABYTE = 2**30
BLOCK = b" " * 2**16
MEMORY = 32 * 2**20  # bytes; the library keeps a megabyte, and some copies of it
BUFFERED = 16 * 2**20  # bytes that the sockets of both sides may hold, unread; at most these and a megabyte are sent
OPENED = b'{"access_token": "' + ACCESS.encode()  # no message may show what has been read


class Source:
    """Sends an answer for as long as the client reads it.

    Attributes:
        sent: the number of bytes sent so far.
    """

    def __init__(self, head: bytes, first: bytes, block: bytes, pause: float = 0.0) -> None:
        self.head, self.first, self.block, self.pause = head, first, block, pause
        self.sent = 0

    def __call__(self, connection: Connection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + self.head + b"\r\n" + self.first)

        def blocks():
            while self.sent < GIGABYTE:
                yield self.block
                self.sent += len(self.block)

        connection.dribble(blocks(), self.pause)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def bomb() -> Source:
    """Return a source of more than a gigabyte of blanks, compressed to a megabyte."""
    return Source(b"content-encoding: gzip\r\n", b"", gzip.compress(BLOCK * 1024, 9))


def endless_deflate() -> Source:
    packer = zlib.compressobj(9)
    first = packer.compress(OPENED) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(BLOCK * 64) + packer.flush(zlib.Z_FULL_FLUSH)
    return Source(b"content-encoding: deflate\r\ntransfer-encoding: chunked\r\n", chunk(first), chunk(again))


FAST: dict[str, Callable[[], Source]] = {
    "a gigabyte with a length": lambda: Source(b"content-length: %d\r\n" % GIGABYTE, OPENED, BLOCK),
    "a gigabyte in chunks": lambda: Source(b"transfer-encoding: chunked\r\n", chunk(OPENED), chunk(BLOCK)),
    "until the connection ends": lambda: Source(b"", OPENED, BLOCK),
    "deep JSON without an end": lambda: Source(b"", b'{"access_token":', b"[" * 2**16),
    "a number without an end": lambda: Source(b"", b'{"expires_in":', b"9" * 2**16),
    "a bomb": bomb,
    "a bomb without an end": endless_deflate,
}


def own_grant(url: str) -> RefreshTokenGrant:
    return RefreshTokenGrant(url, "me", CLIENT)


def grant_with_a_client(url: str) -> ClientCredentialsGrant:
    return ClientCredentialsGrant(url, "me", CLIENT, client=httpx.Client(verify=False, trust_env=False))


@pytest.mark.parametrize("make", [own_grant, grant_with_a_client])
@pytest.mark.parametrize("name", FAST)
def test_guarantee_10_an_answer_without_an_end_is_taken_up_to_a_megabyte(name, make):
    source = FAST[name]()
    with RawServer(source) as server:
        grant = make(server.url)
        auth = Reauth(grant, token=Token(refresh_token=REFRESH))
        tracemalloc.start()
        try:
            with pytest.raises(RefreshError, match="longer than") as failure:
                auth.get_token()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        auth.close()
        if grant.client is not None:
            grant.client.close()
    assert server.connections == 1
    assert source.sent < MAX_ANSWER + BUFFERED
    assert peak < MEMORY
    check(failure.value, ACCESS, REFRESH, CLIENT)


SLOW: dict[str, Callable[[], Source]] = {
    "a body": lambda: Source(b"content-length: 1000\r\n", OPENED, b" ", 0.02),
    "chunks": lambda: Source(b"transfer-encoding: chunked\r\n", chunk(OPENED), chunk(b" "), 0.02),
    "a header": lambda: Source(b"x-token: ", b"", ACCESS.encode(), 0.02),
    "trailers": lambda: Source(b"transfer-encoding: chunked\r\n", b"0\r\n", b"x: y\r\n", 0.02),
}


class Interim(Source):
    """Sends interim responses (status 1xx) again and again."""

    def __call__(self, connection: Connection) -> None:
        connection.read_request()
        connection.dribble(iter(lambda: b"HTTP/1.1 103 Early Hints\r\nlink: <" + ACCESS.encode() + b">\r\n\r\n", b""))


SLOW["interim answers"] = lambda: Interim(b"", b"", b"")


@pytest.mark.parametrize("name", SLOW)
def test_guarantee_10_an_answer_that_comes_slowly_without_an_end_is_given_up(name):
    with RawServer(SLOW[name]()) as server:
        grant = RefreshTokenGrant(server.url, "me", CLIENT, timeout=5.0)
        auth = Reauth(grant, token=Token(refresh_token=REFRESH), refresh_timeout=0.5)
        failed = threading.Event()
        auth.store.subscribe(lambda state, _: failed.set() if state.status == "rejected" else None)
        with pytest.raises(RefreshError):  # a waiting call gives up after 0.5 s; the answer is read for twice as long
            auth.get_token()
        assert failed.wait(60)
        assert server.connections <= 1
    failure = auth.store.state.error
    assert "outcome is unknown" in str(failure)
    assert isinstance(failure.__cause__, httpx.ReadTimeout)
    check(failure, ACCESS, REFRESH, CLIENT)
