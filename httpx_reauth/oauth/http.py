"""One exchange with an authorization server, by httpx or httpx2, bounded in time and size. Nothing else does I/O.

1. A connection that `client=` kept from an earlier request is not used for a token request: the server may have closed
   it just now, and then nobody could say whether the request arrived. httpcore tells of every step. If the first byte
   of the request would follow without a connection having been opened, the exchange gives up, which closes the kept
   one, and begins again. (A connection of HTTP/2 is used as it is: several requests may be under way on it.)
2. Connecting and sending end at one deadline. Where the answer may be lost without harm, reading ends there, too. A
   request that spends something is out of our hands once it is sent: then reading has a time for itself.
3. httpx's timeouts are for one operation each. So every step is given what is left of the whole, and the connection is
   cut at the deadline: a server that sends a header line letter by letter makes no single operation last.
"""

from __future__ import annotations

import socket
import sys
import threading
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from httpx_reauth._clock import Clock
from httpx_reauth._errors import RefreshError, in_our_words
from httpx_reauth.oauth.response import keep_refresh_token_in

if TYPE_CHECKING:
    import httpx
    import httpx2

    AnyClient: TypeAlias = httpx.Client | httpx2.Client
else:
    AnyClient = Any

MAX_ANSWER = 1024 * 1024  # bytes; an answer has a few thousand

_PACKAGES = ("httpx", "httpx2")
_LEAST = 0.001  # seconds; to a socket, 0 means "do not wait at all"
_OPENED = (".connect_tcp.complete", ".connect_unix_socket.complete", ".start_tls.complete")
_FIRST_BYTE = "http11.send_request_headers.started"
_SENT = ".receive_response_headers.started"  # the request is out, or the server has gone while it was being sent
_HEADED = ".receive_response_headers.complete"  # it tells (version, status, ...); of HTTP/2 (status, headers)
_FRAMES = frozenset({"content-length", "transfer-encoding"})
_OF_THE_TRANSFER = frozenset({b"content-length", b"transfer-encoding", b"content-encoding"})


def package_of(client: object) -> Any:
    """The package, httpx or httpx2, whose client `client` is.

    Raises:
        TypeError: it is no sync client of either.
    """
    for name in _PACKAGES:
        package = sys.modules.get(name)
        if package is not None and isinstance(client, package.Client):
            return package
    kind = client if isinstance(client, type) else type(client)
    name = f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"
    if "Async" in name:
        remedy = "A grant runs in a worker thread, for async clients as well, so it needs no AsyncClient."
    elif isinstance(client, type):
        remedy = f"That is the class: write client={name}()."
    else:
        remedy = "Without client=, a grant makes one."
    raise TypeError(f"client must be an httpx.Client or an httpx2.Client, not {name}. {remedy}")


def package_named(name: str | None) -> Any:
    """The package `name`; without one, the first of httpx and httpx2 that is installed.

    Raises:
        ImportError: neither is.
    """
    for one in _PACKAGES if name is None else (name,):
        with suppress(ModuleNotFoundError):
            return import_module(one)
    raise ModuleNotFoundError("A grant posts by httpx or by httpx2, and neither is installed: pip install httpx")


def is_transport_error(error: object) -> bool:
    """Is `error` a `TransportError` of httpx or httpx2?"""
    packages: list[Any] = [sys.modules[name] for name in _PACKAGES if sys.modules.get(name) is not None]
    return any(isinstance(error, package.TransportError) for package in packages)


def exchange(
    client: Any,
    package: Any,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    content: bytes | None = None,
    deadline: float,
    patience: float | None = None,
    clock: Clock,
) -> Any:
    """The answer to one request, read to its end.

    Neither the client's `auth` nor its `Authorization` header takes part, and a redirect is not followed.

    Args:
        client: what sends it.
        package: httpx or httpx2, whose client that is.
        method: `POST`, for which a new connection is opened, or `GET`, which may be sent twice.
        url: where it goes.
        headers: its headers, by their lower-case names.
        content: its body.
        deadline: when the exchange ends, on the monotonic clock; with `patience`, connecting and sending.
        patience: seconds for which the answer is waited for and read, once the request is out.
        clock: where the time is read.

    Raises:
        TransportError: of `package`: there is no answer, or it did not end in time.
        RefreshError: the answer is longer than `MAX_ANSWER`, or cannot be unpacked to its end.
    """
    watch = _Watch(package, deadline, patience, clock, wants_new_connection=method == "POST")
    try:
        while True:
            sent = client.build_request(
                method,
                url,
                content=content,
                headers=headers,
                extensions={"timeout": watch.timeouts, "trace": watch},
            )
            if "authorization" not in headers:  # one way of authenticating per request (RFC 6749 section 2.3)
                sent.headers.pop("authorization", None)
            try:
                return _exchange(client, package, sent, watch)
            except _KeptConnection:
                if watch.left() <= 0:
                    raise package.ConnectTimeout("No new connection could be had in time.", request=sent) from None
    finally:
        watch.stop()


def _exchange(client: Any, package: Any, sent: Any, watch: _Watch) -> Any:
    try:
        response = client.send(sent, stream=True, auth=None, follow_redirects=False)
        with closing(response):
            body = _read(package, response, watch)
    except package.HTTPStatusError as error:  # an event hook of the client's that calls raise_for_status()
        response = error.response
        body = response.content if response.is_stream_consumed else b""
    except (
        package.ReadError,
        package.WriteError,
        package.RemoteProtocolError,
        package.InvalidURL,
        UnicodeError,
    ) as error:
        if watch.has_cut:
            raise package.ReadTimeout("The answer did not come in time.", request=sent) from error
        if not 300 <= watch.status < 400:
            raise
        # httpx looks where a redirect leads, even if it is not to follow it; and this one leads to no URL.
        response, body = package.Response(watch.status, request=sent), b""
    kept = [(name, value) for name, value in response.headers.raw if name.lower() not in _OF_THE_TRANSFER]
    return package.Response(response.status_code, headers=kept, content=body, request=sent)


def _read(package: Any, response: Any, watch: _Watch) -> bytes:
    if response.is_stream_consumed:  # a mock's, or read by an event hook
        read: bytes = response.content
        if len(read) > MAX_ANSWER:
            raise _too_long(response)
        return read
    body = bytearray()
    try:
        _read_into(body, package, response, watch)
    except Exception as error:
        keep_refresh_token_in(body.decode("utf-8", "replace"), error)  # it may have come before the answer broke off
        raise
    return bytes(body)


def _read_into(body: bytearray, package: Any, response: Any, watch: _Watch) -> None:
    unpack = _unpacker(response)
    received = bytearray()  # bytes that unpack to nothing, or follow the end of what is packed, are bounded, too
    late = False
    for chunk in response.iter_raw():
        if late:
            raise _endless(package, response)
        received += chunk
        try:
            body += chunk if unpack is None else unpack(chunk, MAX_ANSWER + 1 - len(body))
        except zlib.error:
            if body:
                raise _unusable(response, "cannot be unpacked") from None
            unpack, body[:] = None, received  # it was not packed: something on the way has unpacked it already
        if max(len(body), len(received)) > MAX_ANSWER:
            raise _too_long(response)
        late = watch.left() <= 0  # if this was the last chunk, it still counts: it may hold a token, already rotated
    if watch.has_cut and _FRAMES.isdisjoint(response.headers):
        raise _endless(package, response)  # only the connection's end was its end, and that was of our making


def _unpacker(response: Any) -> Callable[[bytes, int], bytes] | None:
    """For a server that packs its answer although it was asked not to. A coding that nobody knows, "UTF-8", is none."""
    codings = {coding.strip().lower() for coding in response.headers.get("content-encoding", "").split(",")}
    if codings.isdisjoint(("gzip", "x-gzip", "deflate")):
        return None
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress  # 32: gzip or zlib, whichever its header says


def _endless(package: Any, response: Any) -> Exception:
    error: Exception = package.ReadTimeout("The answer did not end in time.", request=response.request)
    return error


def _too_long(response: Any) -> RefreshError:
    return _unusable(response, f"is longer than {MAX_ANSWER} bytes")


def _unusable(response: Any, what: str) -> RefreshError:
    return in_our_words(
        RefreshError(
            f"The authorization server's answer {what}, so it was not read. Check that the URL is the right one.",
            status_code=response.status_code,
        )
    )


class _KeptConnection(Exception):
    """The request was about to go out on a connection that was opened for another one; nothing was sent."""


class _Watch:
    """Holds one exchange to its times, through httpx's `timeout` and `trace` extensions.

    (Only a connection that was opened for this exchange is cut; to another, and where a transport tells of no steps,
    the timeouts apply.)
    """

    def __init__(
        self, package: Any, deadline: float, patience: float | None, clock: Clock, *, wants_new_connection: bool
    ) -> None:
        self._package = package
        self._deadline = deadline
        self._patience = patience
        self._clock = clock
        self._wants_new_connection = wants_new_connection
        self._timer: threading.Timer | None = None
        self._sockets: list[socket.socket] = []
        self.has_cut = False
        self.status = 0  # of the answer, as soon as it is known
        self.timeouts = dict.fromkeys(("connect", "read", "write", "pool"), self.left(_LEAST))
        if patience is not None:
            self.timeouts["read"] = patience

    def left(self, least: float = float("-inf")) -> float:
        return max(self._deadline - self._clock.monotonic(), least)

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(".started"):
            self._starts(event, info)
        elif event.endswith(_HEADED):
            self.status = next(part for part in info["return_value"] if isinstance(part, int))
        elif event.endswith(_OPENED):
            self._opened(info["return_value"].get_extra_info("socket"))

    def _starts(self, event: str, info: Mapping[str, Any]) -> None:
        if event == _FIRST_BYTE and self._wants_new_connection and not self._sockets:
            raise _KeptConnection
        if self._patience is not None and event.endswith(_SENT) and info["request"].method != b"CONNECT":
            self._deadline = self._clock.monotonic() + self._patience
            self._patience = None
            self._set_timer()
        self.timeouts.update(dict.fromkeys(self.timeouts, self.left(_LEAST)))

    def _opened(self, connection: socket.socket) -> None:
        if self.left() <= 0:  # a host with several addresses gets the time to connect for each of them
            connection.close()
            raise self._package.ConnectTimeout("Connecting took the whole time.")
        self._sockets.append(connection)
        if self._timer is None:
            self._set_timer()

    def _set_timer(self) -> None:
        self.stop()
        self._timer = threading.Timer(self.left(_LEAST), self._cut, (self._deadline,))
        self._timer.daemon = True
        with suppress(RuntimeError):  # no thread to be had: the timeouts of each step remain
            self._timer.start()

    def _cut(self, deadline: float) -> None:
        if deadline != self._deadline:  # the request went out at this very moment
            return
        self.has_cut = True  # first, so that the thread that wakes up can tell it from the server's own going
        for connection in self._sockets:
            with suppress(OSError):  # closed already
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # below TLS; wakes the thread that reads

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
