"""Tests of the loopback sockets with real connections: slow, huge, malformed, many, and on both addresses."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator

import pytest
from signing_in import skip_without

from httpx_reauth import ReauthError
from httpx_reauth.signin import listener as listeners
from httpx_reauth.signin.callback import MAX_HEAD, Callback, Expected
from httpx_reauth.signin.listener import Listener, bind

GOOD = b"GET /callback?code=c0de&state=s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Site:
    """A listener at any free port, and connections to it."""

    def __init__(self) -> None:
        self.callback = Callback(Expected("/callback", "s"))
        self.sockets = bind("127.0.0.1", [0])
        self.listener = Listener(self.sockets, self.callback.reply)
        self.port: int = self.sockets[0].getsockname()[1]

    def connect(self, data: bytes = b"") -> socket.socket:
        one = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        one.setblocking(False)
        if data:
            one.send(data)
        return one

    def reply_to(self, *connections: socket.socket) -> list[bytes]:
        """Serve until each of them has been closed from this side, and return what it got."""
        got = dict.fromkeys(connections, b"")
        left = list(connections)
        end = time.monotonic() + 20
        while left:
            assert time.monotonic() < end
            self.listener.serve(0.01)
            for one in list(left):
                try:
                    data = one.recv(65_536)
                except BlockingIOError:
                    continue
                except ConnectionError:
                    data = b""
                got[one] += data
                if not data:
                    left.remove(one)
                    one.close()
        return list(got.values())


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.listener.close()


def test_a_request_gets_its_reply_and_the_connection_ends(site):
    (reply,) = site.reply_to(site.connect(GOOD))
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert reply.endswith(b"</html>\n")
    assert site.callback.answer.code == "c0de"


def test_a_request_may_come_byte_by_byte(site):
    one = site.connect()
    for i in range(len(GOOD)):
        one.send(GOOD[i : i + 1])
        site.listener.serve(0)
    (reply,) = site.reply_to(one)
    assert reply.startswith(b"HTTP/1.1 200 ")


def test_connections_that_send_nothing_do_not_block_others(site):
    """A browser opens more connections than it uses, and a hostile page may open many."""
    silent = [site.connect() for _ in range(100)]
    (reply,) = site.reply_to(site.connect(GOOD))
    assert reply.startswith(b"HTTP/1.1 200 ")
    for one in silent:
        one.close()


def test_connections_that_never_finish_their_request_do_not_block_others(site):
    slow = [site.connect(b"GET /callback?code=") for _ in range(100)]
    (reply,) = site.reply_to(site.connect(GOOD))
    assert reply.startswith(b"HTTP/1.1 200 ")
    for one in slow:
        one.close()


def test_a_slow_connection_is_closed_after_some_seconds(site, monkeypatch):
    monkeypatch.setattr(listeners, "_PATIENCE", 0.0)
    (reply,) = site.reply_to(site.connect(b"GET /"))
    assert reply == b""


def test_a_huge_request_is_refused_and_not_kept(site):
    one = site.connect()
    one.setblocking(True)
    one.settimeout(10)
    one.send(b"GET /callback?code=")
    sent = 0
    while sent <= MAX_HEAD:
        sent += one.send(b"a" * 16_384)
        site.listener.serve(0)
    one.setblocking(False)
    (reply,) = site.reply_to(one)
    assert reply.startswith(b"HTTP/1.1 431 ")
    assert site.callback.answer is None


def test_a_body_that_nobody_reads_does_not_take_the_reply_back(site):
    head = b"POST /callback HTTP/1.1\r\nContent-Length: 100000\r\n\r\n"
    (reply,) = site.reply_to(site.connect(head + b"x" * 50_000))
    assert reply.startswith(b"HTTP/1.1 404 ")
    assert reply.endswith(b"</html>\n")


@pytest.mark.parametrize("data", [b"\r\n\r\n", b"\x16\x03\x01\x02\x00\n\n", b"hello\n\n", b"GET / HTTP/9.9\xff\n\n"])
def test_bytes_that_are_not_http_do_no_harm(site, data):
    (reply,) = site.reply_to(site.connect(data))
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert site.callback.answer is None


def test_a_client_that_disconnects_does_no_harm(site):
    site.connect(b"GET /").close()
    one = site.connect(GOOD)
    # the client resets the connection while the reply is sent
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    one.close()
    (reply,) = site.reply_to(site.connect(b"GET / HTTP/1.1\r\n\r\n"))
    assert reply.startswith(b"HTTP/1.1 404 ")


def test_several_requests_at_the_same_time_are_each_answered(site):
    many = [site.connect(b"GET /%d HTTP/1.1\r\n\r\n" % i) for i in range(20)]
    replies = site.reply_to(*many, site.connect(GOOD))
    assert [reply[9:12] for reply in replies] == [b"404"] * 20 + [b"200"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit that a test could lower")
def test_without_a_free_file_descriptor_it_goes_on_as_soon_as_there_is_one(site):
    import resource

    slow = site.connect(b"GET /")
    site.listener.serve(0.1)
    waiting = site.connect(GOOD)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        site.listener.serve(0.1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    (reply,) = site.reply_to(waiting)
    assert reply.startswith(b"HTTP/1.1 200 ")
    slow.close()


# Ports and addresses.


def test_a_taken_port_is_an_immediate_error_that_names_the_port_and_the_remedy():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ReauthError, match=f"{port}.*port="):
            bind("127.0.0.1", [port])


def test_of_several_ports_the_first_free_one_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        (first,) = bind("127.0.0.1", [0])
        free = first.getsockname()[1]
        first.close()
        (second,) = bind("127.0.0.1", [taken, free])
        with second:
            assert second.getsockname() == ("127.0.0.1", free)


def test_a_port_can_be_used_again_immediately(site):
    site.reply_to(site.connect(GOOD))
    site.listener.close()
    (again,) = bind("127.0.0.1", [site.port])
    again.close()


def test_localhost_is_listened_at_with_one_port_at_both_addresses():
    skip_without("::1")
    sockets = bind("localhost", [0])
    addresses = [one.getsockname()[:2] for one in sockets]
    for one in sockets:
        one.close()
    assert [host for host, _ in addresses] == ["127.0.0.1", "::1"]
    assert len({port for _, port in addresses}) == 1


@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_a_port_that_is_taken_only_at_ipv6_counts_as_taken(host):
    """The browser may try that address first, and would give the code to the other program."""
    skip_without("::1")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        failures: list[str] = []
        try:
            bind(host, [port])
        except ReauthError as error:
            failures.append(str(error))
    assert str(port) in failures[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_listener_may_use_only_one_of_the_two_addresses(host):
    skip_without(host)
    (one,) = bind(host, [0])
    with one:
        assert one.getsockname()[0] == host


@pytest.mark.parametrize("why", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_localhost_does_without_ipv6_where_there_is_none(why, monkeypatch):
    class NoIPv6(socket.socket):
        def bind(self, address):
            if ":" in address[0]:
                raise OSError(why, "no such address")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", NoIPv6)
    (one,) = bind("localhost", [0])
    with one:
        assert one.getsockname()[0] == "127.0.0.1"


def test_a_port_that_may_not_be_used_is_an_error_too(monkeypatch):
    class Forbidden(socket.socket):
        def bind(self, address):
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "socket", Forbidden)
    with pytest.raises(ReauthError, match="Permission denied"):
        bind("127.0.0.1", [80])
