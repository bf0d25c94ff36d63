"""The loopback sockets at which the program receives the browser's answer (RFC 8252 section 7.3).

1. The sockets are bound before the browser opens. If another program has the port, that is an error: the other program
   would receive the code.
2. `serve` does the work that is due, waits at most for a given time, and returns. The sync driver lets it wait. The
   async driver lets it wait for 0 seconds. So both use the same class.
3. The number of connections is limited. So are the bytes and the seconds of each connection. If there are too many
   connections, the oldest is closed, so slow connections do not keep the browser out.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from httpx_reauth._errors import ReauthError
from httpx_reauth.signin import page
from httpx_reauth.signin.callback import MAX_HEAD

ADDRESSES = {"127.0.0.1": ("127.0.0.1",), "::1": ("::1",), "localhost": ("127.0.0.1", "::1")}

_MAX_CONNECTIONS = 32
_PATIENCE = 10.0  # seconds for one connection, from `accept` to its last byte
_LINGER = 1.0  # seconds to read after a reply: a socket that is closed with unread bytes may lose the reply
_CHUNK = 65_536  # bytes
_PAUSE = 0.05  # seconds before the next `accept`, if no file descriptor is free
_TRIES = 20  # attempts to find a port that is free at both addresses
_NO_SUCH_ADDRESS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}


def bind(host: str, ports: Sequence[int]) -> list[socket.socket]:
    """Return sockets that listen at `host`, on the first of `ports` that is free. Port 0 is any free port.

    Raises:
        ReauthError: each of the ports is in use, or may not be used.
    """
    failure: OSError | None = None
    for port in ports:
        for _ in range(1 if port else _TRIES):
            try:
                return _bind(ADDRESSES[host], port)
            except OSError as error:
                failure = error
    listed = ", ".join(map(str, ports))
    why = "" if failure is None else f" ({failure.strerror})"
    raise ReauthError(
        f"Cannot listen at {host} on port {listed} for the answer of the browser{why}, so no browser was opened. "
        "If another program has the port, end that program, or list several ports that are registered for this client: "
        "port=[8400, 8401]. Where the server admits any port (RFC 8252 section 7.3), use port=0."
    ) from failure


def _bind(addresses: Sequence[str], port: int) -> list[socket.socket]:
    bound: list[socket.socket] = []
    try:
        for address in addresses:
            try:
                one = _listen(address, port)
            except OSError as error:
                if bound and error.errno in _NO_SUCH_ADDRESS:  # the machine has no IPv6
                    continue
                raise
            bound.append(one)
            port = one.getsockname()[1]  # both addresses need the same port, since the browser may use either
    except BaseException:
        for one in bound:
            one.close()
        raise
    return bound


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "nt":  # pragma: no cover - on Windows, SO_REUSEADDR would let other programs bind the port
            one.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_EXCLUSIVEADDRUSE"), 1)  # noqa: B009 - only on Windows
        else:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the port may have been in use a moment ago
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((address, port))
        one.listen()
        one.setblocking(False)  # noqa: FBT003
    except BaseException:
        one.close()
        raise
    return one


class Listener:
    """Answers each request to the sockets of `bind` with `reply(head)`. It owns the sockets, and closes them."""

    def __init__(self, sockets: Sequence[socket.socket], reply: Callable[[bytes], bytes]) -> None:
        self._reply = reply
        self._sockets = sockets
        self._selector = selectors.DefaultSelector()
        self._connections: list[_Connection] = []  # the oldest is the first
        for one in sockets:
            self._selector.register(one, selectors.EVENT_READ, self._accept)

    def watch(self, file: int | socket.socket, on_readable: Callable[[object], None]) -> None:
        """Let `serve` also wait for `file`, and call `on_readable` when `file` can be read."""
        self._selector.register(file, selectors.EVENT_READ, on_readable)

    def unwatch(self, file: int | socket.socket) -> None:
        """Undo `watch(file)`."""
        self._selector.unregister(file)

    @property
    def is_sending(self) -> bool:
        """Is there a reply that has not been sent completely?"""
        return any(one.unsent for one in self._connections)

    def serve(self, timeout: float) -> None:
        """Serve the sockets once. If there is nothing to do, wait up to `timeout` seconds for it."""
        now = time.monotonic()
        soonest = min((one.deadline for one in self._connections), default=float("inf"))
        for key, _ in self._selector.select(max(0.0, min(timeout, soonest - now))):
            key.data(key.fileobj)
        now = time.monotonic()
        for one in [one for one in self._connections if one.is_over or one.deadline <= now]:
            self._drop(one)

    def _accept(self, listening: object) -> None:
        assert isinstance(listening, socket.socket)
        try:
            accepted, _ = listening.accept()
        except BlockingIOError:
            return  # the browser has closed the connection
        except OSError:  # for example, no file descriptor is free
            if self._connections:
                self._drop(self._connections[0])
            time.sleep(_PAUSE)
            return
        accepted.setblocking(False)  # noqa: FBT003
        one = _Connection(accepted, self._reply, time.monotonic() + _PATIENCE)
        if len(self._connections) >= _MAX_CONNECTIONS:
            self._drop(self._connections[0])
        self._connections.append(one)

        def advance(_: object) -> None:
            self._advance(one)

        self._selector.register(accepted, selectors.EVENT_READ, advance)

    def _advance(self, one: _Connection) -> None:
        if one not in self._connections:  # `_accept` has dropped it in this call of `serve`
            return
        one.advance()
        wanted = selectors.EVENT_WRITE if one.unsent else selectors.EVENT_READ
        key = self._selector.get_key(one.socket)
        if key.events != wanted:
            self._selector.modify(one.socket, wanted, key.data)

    def _drop(self, one: _Connection) -> None:
        self._connections.remove(one)
        with suppress(KeyError, ValueError):  # an interrupt came before the socket was registered
            self._selector.unregister(one.socket)
        one.socket.close()

    def close(self) -> None:
        """Close every connection and every socket."""
        for one in list(self._connections):
            self._drop(one)
        self._selector.close()
        for listening in self._sockets:
            listening.close()


class _Connection:
    """One connection. It reads a header and sends one reply; any further bytes are read and ignored."""

    def __init__(self, accepted: socket.socket, reply: Callable[[bytes], bytes], deadline: float) -> None:
        self.socket = accepted
        self.deadline = deadline
        self.unsent = b""
        self.is_over = False
        self._reply = reply
        self._head: bytearray | None = bytearray()  # None: the reply has been made

    def advance(self) -> None:
        try:
            if self.unsent:
                self._send()
            else:
                self._receive()
        except BlockingIOError:
            pass
        except OSError:  # the other side has closed the connection
            self.unsent, self.is_over = b"", True

    def _receive(self) -> None:
        received = self.socket.recv(_CHUNK)
        if not received:
            self.is_over = True
        elif self._head is not None:
            self._head += received
            if b"\r\n\r\n" in self._head or b"\n\n" in self._head:
                head, self._head = bytes(self._head), None
                self.unsent = self._reply(head)
            elif len(self._head) > MAX_HEAD:
                self._head = None
                self.unsent = page.reply(431, page.NOT_HTTP)
            if self.unsent:
                self._send()

    def _send(self) -> None:
        self.unsent = self.unsent[self.socket.send(self.unsent) :]
        if not self.unsent:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
            self.deadline = min(self.deadline, time.monotonic() + _LINGER)
