"""What fuzzing has found, each in its smallest form."""

from __future__ import annotations

import gzip
import itertools
import os
import traceback
import tracemalloc

import pytest
from raw_server import TOKEN, Connection, RawServer

from httpx_reauth import RefreshError, StorageError, Token
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.storage import FileStorage

IN_THE_ANSWER = "-".join(["access", "token", "in", "the", "answer"])  # spelt out nowhere: a traceback shows the source


def failure_of(script, refresh_token="r-1") -> RefreshError:
    with RawServer(script) as server, pytest.raises(RefreshError) as failure:
        RefreshTokenGrant(server.url, "me", timeout=5.0)(Token(refresh_token=refresh_token))
    return failure.value


def sends(data: bytes):
    def script(connection: Connection) -> None:
        connection.read_request()
        connection.send(data)

    return script


@pytest.mark.parametrize(
    "answer",
    [
        '{"access_token": "%s"}\r\n\r\n',  # a body without a head
        "HTTP/1.1 200 OK\r\nset-cookie : session=%s\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%s\r\n",
    ],
)
def test_guarantee_11_an_answer_that_is_no_http_is_not_quoted(answer: str):
    failure = failure_of(sends((answer % IN_THE_ANSWER).encode()))
    assert "RemoteProtocolError" in str(failure)
    assert "access" not in "".join(traceback.format_exception(failure)).replace("access_token", "")


@pytest.mark.parametrize("value", ["größe".encode(), b"gr\xf6\xdfe"], ids=["utf-8", "latin-1"])
def test_guarantee_2_a_header_in_any_encoding_costs_no_token(value: bytes):
    data = b"HTTP/1.1 200 OK\r\nx-said: %s\r\ncontent-length: %d\r\n\r\n%s" % (value, len(TOKEN), TOKEN)
    with RawServer(sends(data)) as server:
        token = RefreshTokenGrant(server.url, "me")(Token(refresh_token="r-1"))
    assert token.access_token == "fresh"


@pytest.mark.parametrize(
    "location", [b"\xff\xfe", b"https:no-slash", b"http://xn--zz/", b"http://host:port/", b"x" * 70_000]
)
def test_guarantee_9_a_redirect_to_what_is_no_url_is_a_redirect(location: bytes):
    failure = failure_of(sends(b"HTTP/1.1 302 Found\r\nlocation: " + location + b"\r\ncontent-length: 0\r\n\r\n"))
    assert "redirect (302)" in str(failure)
    assert failure.status_code == 302


@pytest.mark.parametrize("endless", [b"x" * 2**16, b"\0\0\0\xff\xff" * 2**13], ids=["after the end", "empty blocks"])
def test_guarantee_10_what_unpacks_to_nothing_is_bounded_too(endless: bytes):
    packed = gzip.compress(b"{}")
    packed = packed if endless[0] else packed[:10]  # the head alone; blocks of no length follow

    def script(connection: Connection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1073741824\r\n\r\n" + packed)
        connection.dribble(itertools.repeat(endless), pause=0)

    tracemalloc.start()
    try:
        failure = failure_of(script)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "longer than" in str(failure)
    assert peak < 16 * 2**20


@pytest.mark.parametrize("refresh_token", ["\u00adrefresh-token-sent", "refresh-\u200btoken-sent"])
def test_guarantee_11_a_secret_with_an_unprintable_letter_is_hidden_too(refresh_token: str):
    body = '{"error": "invalid_request", "error_description": "unknown: %s"}' % refresh_token
    data = body.encode()
    failure = failure_of(sends(b"HTTP/1.1 400 No\r\ncontent-length: %d\r\n\r\n" % len(data) + data), refresh_token)
    assert failure.error_description == "unknown: ***"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes in the file system are a thing of Unix")
def test_a_pipe_whose_writer_says_nothing_is_an_error(tmp_path):
    path = tmp_path / "token.json"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(StorageError, match="not JSON"):
            FileStorage(path).load()
    finally:
        os.close(writer)
