"""One exchange with an authorization server, with httpx or httpx2, limited in time and size.

Only this module sends requests.

1. A token request does not use a connection that `client=` has kept from an earlier request. The server may have just
   closed it, and then it would be unknown whether the server received the request. httpcore reports each of its steps
   to us. If it is about to send the first byte on a kept connection, we raise an error. This closes the kept
   connection, and the exchange begins again. (A kept HTTP/2 connection is used, since other requests may be under way
   on it.)
2. Connecting and sending end at the deadline. If the response may be lost without harm, reading ends at the same
   deadline. If the request spends something, the server may process it as soon as it is sent. So reading has its own,
   longer time then.
3. A timeout of httpx limits one operation. A server that sends a header letter by letter would never reach it. So each
   step gets only the time that is left, and the connection is cut at the deadline.
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

MAX_ANSWER = 1024 * 1024  # bytes; a normal response has a few thousand

_PACKAGES = ("httpx", "httpx2")
_LEAST = 0.001  # seconds; a socket with a timeout of 0 does not wait at all
_OPENED = (".connect_tcp.complete", ".connect_unix_socket.complete", ".start_tls.complete")
_FIRST_BYTE = "http11.send_request_headers.started"
_SENT = ".receive_response_headers.started"  # the request was sent, or the server closed the connection meanwhile
_HEADED = ".receive_response_headers.complete"  # its value is (version, status, ...); for HTTP/2 (status, headers)
_FRAMES = frozenset({"content-length", "transfer-encoding"})
_OF_THE_TRANSFER = frozenset({b"content-length", b"transfer-encoding", b"content-encoding"})


def package_of(client: object) -> Any:
    """Return the package of `client`: httpx or httpx2.

    Raises:
        TypeError: `client` is not a sync client of httpx or httpx2.
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
    """Return the package `name`; without a name, the first of httpx and httpx2 that is installed.

    Raises:
        ImportError: the package is not installed; without a name, neither of the two is.
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
    """Send one request, and return its response, which has been read completely.

    The client's `auth` and its `Authorization` header are not used. A redirect is not followed.

    Args:
        client: the client that sends the request.
        package: the package of the client: httpx or httpx2.
        method: `POST`, for which a new connection is opened, or `GET`, which may be sent twice.
        url: the URL of the request.
        headers: the headers of the request, by their lower-case names.
        content: the body of the request.
        deadline: the end of the exchange, on the monotonic clock. With `patience`: the end of connecting and sending.
        patience: seconds in which the response must arrive and end, counted from the end of sending.
        clock: the clock for `deadline` and `patience`.

    Raises:
        TransportError: the error of `package`: there is no response, or it did not end in time.
        RefreshError: the response is longer than `MAX_ANSWER`, or cannot be decompressed.
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
            if "authorization" not in headers:  # a request must not authenticate in two ways (RFC 6749 section 2.3)
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
    except package.HTTPStatusError as error:  # an event hook of the client calls raise_for_status()
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
        # httpx parses the `Location` of a redirect even if it does not follow it. This one is not a URL.
        response, body = package.Response(watch.status, request=sent), b""
    kept = [(name, value) for name, value in response.headers.raw if name.lower() not in _OF_THE_TRANSFER]
    return package.Response(response.status_code, headers=kept, content=body, request=sent)


def _read(package: Any, response: Any, watch: _Watch) -> bytes:
    if response.is_stream_consumed:  # a mock transport or an event hook has read it
        read: bytes = response.content
        if len(read) > MAX_ANSWER:
            raise _too_long(response)
        return read
    body = bytearray()
    try:
        _read_into(body, package, response, watch)
    except Exception as error:
        keep_refresh_token_in(body.decode("utf-8", "replace"), error)  # it may be in the part that arrived
        raise
    return bytes(body)


def _read_into(body: bytearray, package: Any, response: Any, watch: _Watch) -> None:
    unpack = _unpacker(response)
    received = bytearray()  # its size is limited as well, since some bytes add nothing to `body`
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
            unpack, body[:] = None, received  # it is not compressed: a proxy has decompressed it
        if max(len(body), len(received)) > MAX_ANSWER:
            raise _too_long(response)
        late = watch.left() <= 0  # if this is the last chunk, it is used: it may have a new refresh token
    if watch.has_cut and _FRAMES.isdisjoint(response.headers):
        raise _endless(package, response)  # only the end of its connection ends it, and we have cut that


def _unpacker(response: Any) -> Callable[[bytes, int], bytes] | None:
    """Return a function that decompresses the body; None if the response is not compressed.

    Some servers compress the response although the request forbids it. An unknown coding, e.g. "UTF-8", is ignored.
    """
    codings = {coding.strip().lower() for coding in response.headers.get("content-encoding", "").split(",")}
    if codings.isdisjoint(("gzip", "x-gzip", "deflate")):
        return None
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress  # 32: gzip or zlib, as its header says


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
    """The request would have been sent on a connection that an earlier request has opened. Nothing was sent."""


class _Watch:
    """Makes one exchange end in time, with httpx's `timeout` and `trace` extensions.

    It cuts only a connection that was opened for this exchange. For a kept connection, and for a transport that reports
    no steps, only the timeouts of the single operations hold.
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
        self.status = 0  # the status of the response, as soon as it is known
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
        if self.left() <= 0:  # httpcore allows the connect timeout for each address of a host
            connection.close()
            raise self._package.ConnectTimeout("Connecting took the whole time.")
        self._sockets.append(connection)
        if self._timer is None:
            self._set_timer()

    def _set_timer(self) -> None:
        self.stop()
        self._timer = threading.Timer(self.left(_LEAST), self._cut, (self._deadline,))
        self._timer.daemon = True
        with suppress(RuntimeError):  # no thread can be started: only the timeouts of the operations hold
            self._timer.start()

    def _cut(self, deadline: float) -> None:
        if deadline != self._deadline:  # the request was just sent, and there is a new deadline
            return
        self.has_cut = True  # set first, so that the thread that wakes up knows that we have cut it
        for connection in self._sockets:
            with suppress(OSError):  # it is already closed
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # skips TLS, and wakes the thread that reads

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
