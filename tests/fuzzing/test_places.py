"""Tests of odd things in the place of the token's file or its lock; and of refusals with odd headers, in every mode."""

from __future__ import annotations

import os
import socket
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from raw_server import Connection, RawServer

from httpx_reauth import Reauth, RefreshError, StorageError, Token
from httpx_reauth.storage import FileStorage

from .inputs import ACCESS, CHALLENGES, DATES, REFRESH
from .oracle import check

unix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other odd files")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def folder(path: Path) -> None:
    path.mkdir()


def link_to_a_folder(path: Path) -> None:
    path.symlink_to(path.parent)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def zeros_without_an_end(path: Path) -> None:
    path.symlink_to("/dev/zero")


def gigabyte(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**30)  # the file takes hardly any space on the disk


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path may have at most 108 characters
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


PLACES = (link_to_itself, folder, link_to_a_folder, pipe, zeros_without_an_end, gigabyte, unix_socket)


def fails_to_refresh(path: Path) -> RefreshError:
    """Make a request, and return its error. Assert that the refresh was not called and the place was not changed."""
    asked: list[Token] = []
    auth = Reauth(lambda token: asked.append(token) or Token("new"), storage=FileStorage(path))
    with pytest.raises(RefreshError) as failure:
        auth.get_token()
    auth.close()
    assert isinstance(failure.value, StorageError)
    assert not asked
    return failure.value


@unix
@pytest.mark.parametrize("put", PLACES)
def test_guarantee_2_whatever_is_in_the_place_of_the_file_is_an_error_before_anything_is_spent(tmp_path, put):
    path = tmp_path / "token.json"
    put(path)
    before = os.lstat(path)
    tracemalloc.start()
    try:
        fails_to_refresh(path)
        for act in (FileStorage(path).load, lambda: FileStorage(path).save(Token("t")), FileStorage(path).clear):
            with pytest.raises(StorageError):
                act()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)


@unix
@pytest.mark.parametrize("put", [folder, link_to_itself, link_to_a_folder, unix_socket])
def test_guarantee_2_whatever_is_in_the_place_of_the_lock_is_an_error_before_anything_is_spent(tmp_path, put):
    put(tmp_path / "token.json.lock")
    assert "lock" in str(fails_to_refresh(tmp_path / "token.json"))


@unix
def test_a_file_in_the_place_of_the_folder_is_an_error_before_anything_is_spent(tmp_path):
    (tmp_path / "app").write_text("a file")
    fails_to_refresh(tmp_path / "app" / "token.json")


HEADERS = [b"WWW-Authenticate: " + value for value in CHALLENGES] + [b"Retry-After: " + value for value in DATES]


def refuses(head: list[bytes]) -> Callable[[Connection], None]:
    """Return a script that answers the old token with a 401 and these headers, and the new token with a 200."""

    def script(connection: Connection) -> None:
        while True:
            request = connection.read_request()
            is_new = b"authorization: bearer new" in request.lower()
            connection.answer(200 if is_new else 401, b"{}", *([] if is_new else head))

    return script


@pytest.mark.parametrize("header", HEADERS)
def test_odd_headers_of_a_refusal_do_no_harm(library, header):
    """A 401 starts a refresh, unless its `WWW-Authenticate` says that a new token would be refused as well."""
    asked: list[Token] = []

    def refresh(token: Token) -> Token:
        asked.append(token)
        return Token("new", refresh_token="next")

    with RawServer(refuses([header, header])) as server:
        auth = library.Reauth(refresh, token=Token(ACCESS, refresh_token=REFRESH))
        with library.package.Client(auth=auth, verify=False, trust_env=False) as client:
            response = client.get(server.url)
    assert (response.status_code, len(asked)) in [(200, 1), (401, 0)]


def test_guarantee_11_odd_headers_of_a_refusal_in_async_clients(library, anyio_backend):
    def refresh(_: Token) -> Token:
        raise RefreshError("No.")

    async def main(url: str) -> None:
        auth = library.Reauth(refresh, token=Token(ACCESS, refresh_token=REFRESH))
        async with library.package.AsyncClient(auth=auth, verify=False, trust_env=False) as client:
            with pytest.raises(RefreshError) as failure:
                await client.get(url)
            check(failure.value, ACCESS, REFRESH)

    with RawServer(refuses(HEADERS[: len(CHALLENGES)])) as server:
        anyio.run(main, server.url, backend=anyio_backend)
