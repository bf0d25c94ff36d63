"""A loopback server whose connections a test controls: they can be dropped, be slow or hang, as on a real socket."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from httpx_reauth import RefreshError

PATIENCE = 20.0  # seconds until a script that hangs or dribbles ends by itself. No test may need that long.

Script = Callable[["Connection"], None]

TOKEN = b'{"access_token": "fresh", "token_type": "Bearer", "expires_in": 3600}'


class Connection:
    """One accepted connection; a script controls it."""

    def __init__(self, server: RawServer, sock: socket.socket) -> None:
        self.sock = sock
        self.over = server.over

    def read_request(self) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._recv()
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += self._recv()
        return head + b"\r\n\r\n" + body

    def _recv(self) -> bytes:
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError
        return data

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, status: int = 200, body: bytes = TOKEN, *headers: bytes) -> None:
        lines = [b"HTTP/1.1 %d Said" % status, b"content-length: %d" % len(body), *headers]
        self.send(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    def dribble(self, pieces: Iterator[bytes], pause: float = 0.02) -> None:
        """Send one piece after another, until the client disconnects, the test ends, or `PATIENCE` seconds are over."""
        end = time.monotonic() + PATIENCE
        with suppress(OSError):
            for piece in pieces:
                self.send(piece)
                if self.over.wait(pause) or time.monotonic() > end:
                    return


class RawServer:
    """Runs the first script for the first connection, the second for the second, and the last for all the others."""

    def __init__(self, *scripts: Script, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.scripts = list(scripts)
        self.tls = tls
        self.connections = 0
        self.over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(0.02)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}/token"
        self._start(self._accept)

    def close(self, *_: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def __enter__(self) -> RawServer:  # noqa: PYI034 - no Self before Python 3.11
        return self

    __exit__ = close

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.over.is_set():
            with suppress(TimeoutError):
                sock, _ = self._listener.accept()
                script = self.scripts[min(self.connections, len(self.scripts) - 1)]
                self.connections += 1
                self._start(self._serve, script, sock)

    def _serve(self, script: Script, sock: socket.socket) -> None:
        sock.settimeout(10)
        with sock, suppress(OSError):  # the client has disconnected, and many of these tests provoke that
            if self.tls is None:
                script(Connection(self, sock))
            else:
                with self.tls.wrap_socket(sock, server_side=True) as wrapped:
                    script(Connection(self, wrapped))


def answers(status: int = 200, body: bytes = TOKEN, *headers: bytes) -> Script:
    def script(connection: Connection) -> None:
        connection.read_request()
        connection.answer(status, body, *headers)

    return script


def drops_before_reading(connection: Connection) -> None:
    """Close the connection immediately."""


def drops_after_reading(connection: Connection) -> None:
    connection.read_request()


def hangs(connection: Connection) -> None:
    connection.read_request()
    connection.over.wait(PATIENCE)


def once_it_went_out(fail: Callable[[float], RefreshError], timeout: float) -> RefreshError:
    """Return the error of `fail(timeout)` (seconds).

    If the machine was too slow to send, call `fail` with a longer timeout.
    """
    failure = fail(timeout)
    while "never went out" in str(failure) and timeout < PATIENCE:
        timeout *= 4
        failure = fail(timeout)
    return failure
