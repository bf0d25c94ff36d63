"""Tests of what fuzzing has found, each in its smallest form."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import traceback
import tracemalloc

import pytest
from keyring_backends import KeyringInMemory, use_keyring
from raw_server import TOKEN, Connection, RawServer

from httpx_reauth import Reauth, RefreshError, StorageError, Token
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.storage import FileStorage, KeyringStorage, RedisStorage

IN_THE_ANSWER = "secret".upper() * 3  # not written in one piece, because a traceback shows the source


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
def test_guarantee_11_an_answer_that_is_not_http_is_not_quoted(answer: str):
    failure = failure_of(sends((answer % IN_THE_ANSWER).encode()))
    assert "RemoteProtocolError" in str(failure)
    assert "SECRET" not in "".join(traceback.format_exception(failure)).replace('"SECRET" not in', "")


@pytest.mark.parametrize("value", ["größe".encode(), b"gr\xf6\xdfe"], ids=["utf-8", "latin-1"])
def test_guarantee_2_a_header_in_any_encoding_costs_no_token(value: bytes):
    data = b"HTTP/1.1 200 OK\r\nx-said: %s\r\ncontent-length: %d\r\n\r\n%s" % (value, len(TOKEN), TOKEN)
    with RawServer(sends(data)) as server:
        token = RefreshTokenGrant(server.url, "me")(Token(refresh_token="r-1"))
    assert token.access_token == "fresh"


@pytest.mark.parametrize(
    "location", [b"\xff\xfe", b"https:no-slash", b"http://xn--zz/", b"http://host:port/", b"x" * 70_000]
)
def test_guarantee_9_a_redirect_to_something_that_is_not_a_url_is_a_redirect(location: bytes):
    failure = failure_of(sends(b"HTTP/1.1 302 Found\r\nlocation: " + location + b"\r\ncontent-length: 0\r\n\r\n"))
    assert "redirect (302)" in str(failure)
    assert failure.status_code == 302


@pytest.mark.parametrize("endless", [b"x" * 2**16, b"\0\0\0\xff\xff" * 2**13], ids=["after the end", "empty blocks"])
def test_guarantee_10_compressed_data_that_unpacks_to_nothing_is_bounded_too(endless: bytes):
    packed = gzip.compress(b"{}")
    packed = packed if endless[0] else packed[:10]  # only the head; blocks of no length follow

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
    data = json.dumps({"error": "invalid_request", "error_description": f"unknown: {refresh_token}"}).encode()
    failure = failure_of(sends(b"HTTP/1.1 400 No\r\ncontent-length: %d\r\n\r\n" % len(data) + data), refresh_token)
    assert failure.error_description == "unknown: ***"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes in the file system are a thing of Unix")
def test_a_pipe_whose_writer_writes_nothing_is_an_error(tmp_path):
    path = tmp_path / "token.json"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(StorageError, match="no regular file"):
            FileStorage(path).load()
    finally:
        os.close(writer)


def nested(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("extra", [{"claims": "é" * 200_000}, {"claims": nested(100)}], ids=["long", "deep"])
def test_guarantee_2_a_token_that_could_not_be_read_again_is_not_saved(tmp_path, extra):
    storage = FileStorage(tmp_path / "token.json")
    storage.save(Token("held"))
    with pytest.raises(StorageError, match=r"longer than .* bytes, or its extra has more than 100 levels"):
        storage.save(Token("new", extra=extra))
    assert storage.load().access_token == "held"


@pytest.mark.parametrize("extra", [{"claims": "x" * 1_000_000}, {"claims": nested(90)}], ids=["long", "deep"])
def test_guarantee_2_a_token_that_is_saved_can_be_read_again(tmp_path, extra):
    storage = FileStorage(tmp_path / "token.json")
    storage.save(Token("new", extra=extra))
    assert storage.load().extra == extra


def test_guarantee_2_a_token_that_is_too_long_to_be_saved_works_in_memory(tmp_path):
    storage = FileStorage(tmp_path / "token.json")
    auth = Reauth(
        lambda _: Token("new", extra={"claims": "x" * 2**20}), token=Token(refresh_token="r"), storage=storage
    )
    assert auth.get_token().access_token == "new"
    auth.close()
    assert auth.store._state.pending_write


@pytest.mark.parametrize(
    "damage",
    [
        b"\xff\xfe",
        b'{"format": "\xff"}',
        b'{"format": "httpx_reauth token", "version": 1, "access_token": "a", "extra": {"name": "\x80"}}',
    ],
)
@pytest.mark.parametrize("errors", ["surrogateescape", "surrogatepass"])
def test_bytes_that_a_lenient_redis_client_puts_up_with_are_an_error(redis_server, errors: str, damage: bytes):
    damage = damage if errors == "surrogateescape" else b"\xed\xa0\x80" + damage.decode("latin-1").encode()
    with redis_server.client(decode_responses=True, encoding_errors=errors) as client:
        with redis_server.client() as strict:
            strict.set("token", damage)
        with pytest.raises(StorageError, match="no token that can be read"):
            RedisStorage(client, key="token").load()


@pytest.mark.parametrize("value", [5, b"\xff", ["a"]])
def test_a_secret_store_that_returns_anything_is_an_error(value: object):
    backend = KeyringInMemory()
    backend.held["app", "me"] = value
    with use_keyring(backend), pytest.raises(StorageError, match="no token that can be read"):
        KeyringStorage("app", user="me").load()
