"""Tests of the driver on real sockets: dropped connections, headers that never end, and more that a mock cannot do."""

from __future__ import annotations

import gzip
import itertools
import socket
import threading
import time
import tracemalloc
from contextlib import ExitStack
from dataclasses import replace

import httpx
import pytest
from raw_server import (
    PATIENCE,
    TOKEN,
    Connection,
    RawServer,
    answers,
    drops_after_reading,
    drops_before_reading,
    hangs,
    once_it_went_out,
)
from sites import HttpLibrary

from httpx_reauth import Reauth, RefreshError, Token
from httpx_reauth.oauth import ClientCredentialsGrant, RefreshTokenGrant
from httpx_reauth.oauth import driver as _driver
from httpx_reauth.oauth import http as _post
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import AuthorizationServer, ManualClock, faults

OLD = Token("old", refresh_token="r-1")


def repeatable(server: RawServer, timeout: float = 5.0) -> ClientCredentialsGrant:
    return ClientCredentialsGrant(server.url, "me", "secret", timeout=timeout)


def once(server: RawServer, timeout: float = 5.0, client: httpx.Client | None = None) -> RefreshTokenGrant:
    return RefreshTokenGrant(server.url, "me", "secret", timeout=timeout, client=client)


def fails(grant, token: Token = OLD, timeout: float | None = None) -> RefreshError:
    """How it fails; with `timeout`, what was spent is waited for that long as well."""
    with pytest.raises(RefreshError) as failure:
        _driver.run(grant, token, refresh_timeout=30.0 if timeout is None else timeout / 2)
    return failure.value


# --- lost connections ---


@pytest.mark.parametrize("drops", [drops_before_reading, drops_after_reading])
def test_dropped_connection_is_tried_again_for_client_credentials(drops):
    with RawServer(drops, answers()) as server:
        assert repeatable(server)(OLD).access_token == "fresh"
    assert server.connections == 2


@pytest.mark.parametrize("drops", [drops_before_reading, drops_after_reading])
def test_guarantee_2_dropped_connection_may_have_spent_the_refresh_token(drops):
    with RawServer(drops, answers()) as server:
        failure = fails(once(server))
    assert "outcome is unknown" in str(failure)
    assert server.connections == 1


def test_answer_that_breaks_off_has_an_unknown_outcome():
    def breaks_off(connection: Connection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n" + TOKEN[:20])

    with RawServer(breaks_off) as server:
        assert "outcome is unknown" in str(fails(once(server)))


ROTATED = b'{"access_token": "fresh", "refresh_token": "r-2", "expires_in": 3600}'
BROKEN_OFF = {
    "less than its length": [b"content-length: 999", b"", ROTATED],
    "half a JSON": [b"content-length: 99", b"", ROTATED[:50]],
    "no last chunk": [b"transfer-encoding: chunked", b"", b"%x" % len(ROTATED), ROTATED, b""],
    "half of what is packed": [b"content-encoding: gzip", b"content-length: 999", b"", gzip.compress(ROTATED)],
}


@pytest.mark.parametrize("lines", BROKEN_OFF.values(), ids=BROKEN_OFF)
@pytest.mark.parametrize("of_ones_own", [False, True], ids=["a client of its own", "client="])
def test_guarantee_2_refresh_token_that_came_before_the_answer_broke_off_is_not_lost(
    library: HttpLibrary, lines, *, of_ones_own: bool
):
    def breaks_off(connection: Connection) -> None:
        connection.read_request()
        connection.send(b"\r\n".join([b"HTTP/1.1 200 OK", *lines]))

    def answers_r2(connection: Connection) -> None:
        assert b"refresh_token=r-2" in connection.read_request()
        connection.answer()

    storage = MemoryStorage()
    with RawServer(breaks_off, answers_r2) as server, library.package.Client() as client:
        clock = ManualClock()
        grant = RefreshTokenGrant(server.url, "app", client=client if of_ones_own else None)
        auth = library.Reauth(grant, token=OLD, storage=storage, clock=clock)
        with pytest.raises(RefreshError) as failure:
            auth.get_token(rejected=OLD)
        assert auth.token.refresh_token == storage.load().refresh_token == "r-2"
        assert "r-2" not in str(failure.value) + repr(failure.value.__cause__)
        clock.advance(60)
        assert auth.get_token().access_token == "fresh"


@pytest.mark.parametrize("grant_type", [ClientCredentialsGrant, RefreshTokenGrant])
def test_refused_connection_is_tried_again(grant_type):
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with ExitStack() as stack:
        opened: list[RawServer] = []

        def sleep(_seconds: float) -> None:
            opened.append(stack.enter_context(RawServer(answers(), port=port)))

        token = _driver.run(grant_type(f"http://127.0.0.1:{port}/token", "me", "secret"), OLD, sleep=sleep)
    assert token.access_token == "fresh"
    assert [server.connections for server in opened] == [1]


# --- servers that take their time ---


@pytest.mark.parametrize("grant", [repeatable, once])
def test_guarantee_10_hanging_server_is_given_up(grant):
    def fail(timeout: float) -> RefreshError:
        with RawServer(hangs) as server:
            failure = fails(grant(server, timeout=timeout), timeout=timeout)
        assert "never went out" in str(failure) or f"within {timeout:g} s" in str(failure)
        return failure

    assert isinstance(once_it_went_out(fail, 0.3).__cause__, httpx.ReadTimeout)


def dribbles_headers(connection: Connection) -> None:
    connection.read_request()
    connection.dribble(itertools.chain([b"HTTP/1.1 200 OK\r\nx: "], itertools.repeat(b"x")))


def dribbles_body(connection: Connection) -> None:
    connection.read_request()
    connection.dribble(itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(b" ")))


@pytest.mark.parametrize("grant", [repeatable, once])
@pytest.mark.parametrize("dribbles", [dribbles_headers, dribbles_body])
def test_guarantee_10_dribbling_server_is_given_up(grant, dribbles):
    def fail(timeout: float) -> RefreshError:
        with RawServer(dribbles) as server:
            return fails(grant(server, timeout=timeout), timeout=timeout)

    assert isinstance(once_it_went_out(fail, 0.4).__cause__, httpx.ReadTimeout)


@pytest.mark.parametrize("dribbles", [dribbles_headers, dribbles_body])
def test_guarantee_10_dribbling_server_is_given_up_by_a_client_of_ones_own(dribbles):
    def fail(timeout: float) -> RefreshError:
        with RawServer(dribbles, answers()) as server, httpx.Client(timeout=None) as client:
            failure = fails(once(server, timeout=timeout, client=client), timeout=timeout)
            assert once(server, client=client)(OLD).access_token == "fresh"
        return failure

    assert isinstance(once_it_went_out(fail, 0.4).__cause__, httpx.ReadTimeout)


def test_no_thread_is_left_once_the_answer_is_there():
    with RawServer(answers()) as server:
        once(server, timeout=60)(OLD)
        for thread in [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]:
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.mark.parametrize("dribbles", [dribbles_headers, dribbles_body, hangs])
def test_guarantee_10_dribbling_server_is_given_up_behind_tls(tls, dribbles):
    server_side, client_side = tls

    def fail(timeout: float) -> RefreshError:
        with RawServer(dribbles, answers(), tls=server_side) as server, httpx.Client(verify=client_side) as client:
            failure = fails(once(server, timeout=timeout, client=client), timeout=timeout)
            assert once(server, client=client)(OLD).access_token == "fresh"
        return failure

    failure = once_it_went_out(fail, 0.5)
    assert "outcome is unknown" in str(failure)
    assert isinstance(failure.__cause__, httpx.ReadTimeout)


@pytest.mark.parametrize("grant_type", [ClientCredentialsGrant, RefreshTokenGrant])
def test_guarantee_10_handshake_that_hangs_is_given_up_with_nothing_sent(grant_type):
    with RawServer(lambda connection: connection.over.wait(PATIENCE)) as server:
        failure = fails(grant_type(server.url.replace("http:", "https:"), "me", "secret", timeout=0.3))
    assert "never went out" in str(failure)


def test_proxy_that_refuses_passes_nothing_on(monkeypatch):
    with RawServer(answers(407)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        failure = fails(RefreshTokenGrant("https://id.example.com/token", "me", "secret"))
    assert "never went out" in str(failure)
    assert isinstance(failure.__cause__, httpx.ProxyError)
    assert proxy.connections == 3


def test_untrusted_certificate_gets_no_request(tls):
    with RawServer(answers(), tls=tls[0]) as server:
        failure = fails(once(server))
    assert "never went out" in str(failure)
    assert "CERTIFICATE_VERIFY_FAILED" in str(failure)


def test_guarantee_10_where_no_thread_can_start_the_timeout_of_each_step_remains(monkeypatch):
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with RawServer(hangs, answers()) as server:
        server_start = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            (refuse if isinstance(thread, threading.Timer) else server_start)(thread)

        monkeypatch.setattr(threading.Thread, "start", start)
        assert isinstance(fails(once(server), timeout=0.3).__cause__, httpx.TimeoutException)
        assert once(server)(OLD).access_token == "fresh"


def test_guarantee_10_connection_that_opens_too_late_carries_no_request(monkeypatch):
    # A host with several addresses: each of them may take the time to connect, and the last one may answer at last.
    real = socket.create_connection

    def slow(*args, **kwargs) -> socket.socket:
        opened = real(*args, **kwargs)
        time.sleep(0.3)
        return opened

    with RawServer(answers()) as server:
        monkeypatch.setattr(socket, "create_connection", slow)
        failure = fails(once(server, timeout=0.2))
    assert isinstance(failure.__cause__, httpx.ConnectTimeout)
    assert "never went out" in str(failure)


# --- answers without an end ---


def gigabyte(*, packed: bool):
    chunk = gzip.compress(b" " * 2**26, 9) if packed else b" " * 2**16

    def script(connection: Connection) -> None:
        connection.read_request()
        headers = [b"HTTP/1.1 200 OK", b"content-length: 1073741824"]
        if packed:
            headers.append(b"content-encoding: gzip")
        connection.send(b"\r\n".join(headers) + b"\r\n\r\n")
        connection.dribble(itertools.repeat(chunk, 2**14), pause=0)

    return script


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("grant", [repeatable, once])
def test_guarantee_10_answer_of_a_gigabyte_is_not_read(grant, packed):
    with RawServer(gigabyte(packed=packed)) as server:
        tracemalloc.start()
        try:
            failure = fails(grant(server))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert "longer than" in str(failure)
    assert server.connections == 1
    assert peak < 16 * _post.MAX_ANSWER


# --- against the server of the test kit ---


@pytest.fixture
def kit():
    with AuthorizationServer(clients={"me": "secret"}) as server, server.serve() as base_url:
        yield server, base_url + "/token"


def test_each_way_of_authenticating_is_accepted(kit):
    server, url = kit
    for grant_type in (ClientCredentialsGrant, RefreshTokenGrant):
        for client_auth in ("client_secret_basic", "client_secret_post"):
            token = server.issue(client_id="me")
            assert grant_type(url, "me", "secret", client_auth=client_auth)(token).access_token
    server.clients = {"app": None}
    token = server.issue(client_id="app")
    assert RefreshTokenGrant(url, "app")(token).refresh_token != token.refresh_token


@pytest.mark.parametrize("secret", ["a:b", "50%", "a&b=c", "a+b c", "ünïcödé", "密码"])
def test_awkward_client_names_and_secrets_are_accepted(kit, secret):
    server, url = kit
    server.clients = {secret: secret}
    for client_auth in ("client_secret_basic", "client_secret_post"):
        assert ClientCredentialsGrant(url, secret, secret, client_auth=client_auth)(OLD).access_token


def test_503_twice_then_an_answer(kit):
    server, url = kit
    server.token_endpoint.fail(faults.unavailable(), faults.unavailable())
    token = server.issue(client_id="me")
    assert RefreshTokenGrant(url, "me", "secret")(token).access_token
    assert (server.token_requests, server.reuse_detected) == (3, 0)


def test_guarantee_6_only_the_first_refresh_of_a_row_of_failures_repeats_its_request(kit):
    server, url = kit
    server.token_endpoint.fail_always(faults.unavailable())
    clock = ManualClock()
    auth = Reauth(RefreshTokenGrant(url, "me", "secret"), token=server.issue(client_id="me"), clock=clock)
    requests = []
    for _ in range(3):
        with pytest.raises(RefreshError):
            auth.get_token(rejected=auth.store.state.token)
        requests.append(server.token_requests)
        clock.advance(60)
    assert requests == [3, 4, 5]
    server.token_endpoint.heal()
    assert auth.get_token(rejected=auth.store.state.token).access_token
    server.token_endpoint.fail(faults.unavailable(), faults.unavailable())
    assert auth.get_token(rejected=auth.store.state.token).access_token
    assert server.token_requests == 6 + 3


def test_guarantee_9_redirect_to_another_host_is_not_followed(kit):
    server, url = kit
    with RawServer(answers()) as elsewhere:
        for status in (301, 302, 303, 307, 308):
            server.token_endpoint.fail(faults.redirect(elsewhere.url, status=status))
            assert "never followed" in str(fails(RefreshTokenGrant(url, "me", "secret"), server.issue(client_id="me")))
    assert (elsewhere.connections, server.token_requests) == (0, 5)


def test_guarantee_2_lost_answer_does_not_make_the_grant_spend_the_token_twice(kit):
    server, url = kit
    server.token_endpoint.fail(faults.dropped().after_processing())
    assert "outcome is unknown" in str(fails(RefreshTokenGrant(url, "me", "secret"), server.issue(client_id="me")))
    assert (server.token_requests, server.reuse_detected) == (1, 0)


def test_one_grant_serves_many_threads(kit):
    _, url = kit
    grant = replace(ClientCredentialsGrant(url, "me", "secret"), timeout=20.0)
    tokens: list[Token] = []
    threads = [threading.Thread(target=lambda: tokens.append(grant(OLD))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({token.access_token for token in tokens}) == 8
