"""The loopback sockets to which the browser brings the answer (RFC 8252 section 7.3), and nothing that blocks.

1. They are bound before a browser opens. A port that somebody else has is an error at once: that somebody would
   receive the code.
2. `serve` does what can be done within a given time and returns, so one listener serves a sync driver, which lets it
   wait, and an async driver, which does not.
3. Every connection is bounded: in the bytes that it may send, in the seconds that it may take, and in its number. If
   there are too many, the oldest is closed, so slow ones do not keep the browser out.
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
_PATIENCE = 10.0  # seconds for one connection, from its first byte to its last
_LINGER = 1.0  # seconds to read on after a reply: closing with unread bytes would take the reply back
_CHUNK = 65_536  # bytes
_PAUSE = 0.05  # seconds without a free file descriptor before the next try
_TRIES = 20  # to find a port that is free at both addresses
_NO_SUCH_ADDRESS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}


def bind(host: str, ports: Sequence[int]) -> list[socket.socket]:
    """Sockets that listen at `host`, on the first of `ports` that is free; 0 is any port.

    Raises:
        ReauthError: every one of them is taken, or may not be used.
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
                if bound and error.errno in _NO_SUCH_ADDRESS:  # a machine without IPv6
                    continue
                raise
            bound.append(one)
            port = one.getsockname()[1]  # the same at each address: the browser may try any of them
    except BaseException:
        for one in bound:
            one.close()
        raise
    return bound


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "nt":  # pragma: no cover - there, SO_REUSEADDR would let others bind the same port
            one.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_EXCLUSIVEADDRUSE"), 1)  # noqa: B009 - Windows alone
        else:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was in use a moment ago
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
    """Answers what comes to the sockets of `bind` by `reply(head)`. It owns and closes the sockets."""

    def __init__(self, sockets: Sequence[socket.socket], reply: Callable[[bytes], bytes]) -> None:
        self._reply = reply
        self._sockets = sockets
        self._selector = selectors.DefaultSelector()
        self._connections: list[_Connection] = []  # the oldest first
        for one in sockets:
            self._selector.register(one, selectors.EVENT_READ, self._accept)

    def watch(self, file: int | socket.socket, on_readable: Callable[[object], None]) -> None:
        """Wake up for `file` as well."""
        self._selector.register(file, selectors.EVENT_READ, on_readable)

    def unwatch(self, file: int | socket.socket) -> None:
        """Wake up for `file` no longer."""
        self._selector.unregister(file)

    @property
    def is_sending(self) -> bool:
        """Is there a reply that has not been sent to its end?"""
        return any(one.unsent for one in self._connections)

    def serve(self, timeout: float) -> None:
        """Do what is to be done now, or wait up to `timeout` seconds for something to do."""
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
            return  # the browser has gone again
        except OSError:  # no file descriptor is free, for one
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
        if one not in self._connections:  # dropped for another one, in this very round
            return
        one.advance()
        wanted = selectors.EVENT_WRITE if one.unsent else selectors.EVENT_READ
        key = self._selector.get_key(one.socket)
        if key.events != wanted:
            self._selector.modify(one.socket, wanted, key.data)

    def _drop(self, one: _Connection) -> None:
        self._connections.remove(one)
        with suppress(KeyError, ValueError):  # an interrupt came before it was registered
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
    """One connection: a header is read, one reply is sent, and what still comes is read and forgotten."""

    def __init__(self, accepted: socket.socket, reply: Callable[[bytes], bytes], deadline: float) -> None:
        self.socket = accepted
        self.deadline = deadline
        self.unsent = b""
        self.is_over = False
        self._reply = reply
        self._head: bytearray | None = bytearray()  # None: it has been replied to

    def advance(self) -> None:
        try:
            if self.unsent:
                self._send()
            else:
                self._receive()
        except BlockingIOError:
            pass
        except OSError:  # the other side has gone
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
