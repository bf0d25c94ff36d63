"""A loopback server that answers each connection with given bytes, and closes it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Wire:
    """A loopback server with one thread.

    Attributes:
        data: the bytes that the next connections get.
        requests: how many have come.
        url: where it is.
    """

    def __init__(self) -> None:
        self.data = b""
        self.requests = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, suppress(OSError):  # the client may disconnect at any time
                if self._over.is_set():
                    return
                connection.settimeout(10)
                head = b""
                while b"\r\n\r\n" not in head:
                    received = connection.recv(65536)
                    if not received:
                        break
                    head += received
                self.requests += 1
                connection.sendall(self.data)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # else the client may get a reset, and lose what it has not read yet
                    pass

    def __enter__(self) -> Wire:  # noqa: PYI034 - no Self before Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join()
        self._listener.close()
