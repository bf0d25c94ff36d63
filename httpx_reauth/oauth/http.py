"""One exchange with a token endpoint, bounded in total time and in size: the only place that does I/O."""

from __future__ import annotations

import socket
import threading
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from typing import Any

import httpx

from httpx_reauth._clock import Clock
from httpx_reauth._errors import RefreshError
from httpx_reauth.oauth.request import TokenRequest

MAX_ANSWER = 1024 * 1024  # bytes; a token endpoint's answer has a few thousand

_LEAST = 0.001  # seconds; to a socket, 0 means "do not wait at all"
_OPENED = (".connect_tcp.complete", ".connect_unix_socket.complete", ".start_tls.complete")
_HEADED = ".receive_response_headers.complete"  # it tells (version, status, ...); of HTTP/2 (status, headers)
_FRAMES = frozenset({"content-length", "transfer-encoding"})
_OF_THE_TRANSFER = frozenset({b"content-length", b"transfer-encoding", b"content-encoding"})


def post(client: httpx.Client, request: TokenRequest, deadline: float, clock: Clock) -> httpx.Response:
    """The answer to `request`, read to its end.

    Neither the client's `auth` nor its `Authorization` header takes part, and a redirect is not followed.

    Args:
        client: what sends it.
        request: what is sent.
        deadline: when the whole exchange ends, on the monotonic clock.
        clock: where the time is read.

    Raises:
        httpx.TransportError: there is no answer, or it did not end in time.
        RefreshError: the answer is longer than `MAX_ANSWER`, or packed in an unknown way.
    """
    watch = _Watch(deadline, clock)
    headers = request.all_headers
    sent = client.build_request(
        "POST",
        request.url,
        content=request.body,
        headers=headers,
        extensions={"timeout": watch.timeouts, "trace": watch},
    )
    if "authorization" not in headers:  # one way of authenticating per request (RFC 6749 §2.3)
        sent.headers.pop("authorization", None)
    try:
        response = client.send(sent, stream=True, auth=None, follow_redirects=False)
        with closing(response):
            body = _read(response, watch)
    except httpx.HTTPStatusError as error:  # an event hook of the client's that calls raise_for_status()
        response = error.response
        body = response.content if response.is_stream_consumed else b""
    except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.InvalidURL, UnicodeError) as error:
        if watch.has_cut:
            raise httpx.ReadTimeout("The answer did not come in time.", request=sent) from error
        if not 300 <= watch.status < 400:
            raise
        # httpx looks where a redirect leads, even if it is not to follow it; and this one leads to no URL.
        response, body = httpx.Response(watch.status, request=sent), b""
    finally:
        watch.stop()
    kept = [(name, value) for name, value in response.headers.raw if name.lower() not in _OF_THE_TRANSFER]
    return httpx.Response(response.status_code, headers=kept, content=body, request=sent)


def _read(response: httpx.Response, watch: _Watch) -> bytes:
    if response.is_stream_consumed:  # a mock's, or read by an event hook
        if len(response.content) > MAX_ANSWER:
            raise _too_long(response)
        return response.content
    unpack = _unpacker(response)
    body = bytearray()
    received = 0  # bytes: those that unpack to nothing, or follow the end of what is packed, are bounded, too
    late = False
    for chunk in response.iter_raw():
        if late:
            raise _endless(response)
        received += len(chunk)
        try:
            body += chunk if unpack is None else unpack(chunk, MAX_ANSWER + 1 - len(body))
        except zlib.error:
            raise _unusable(response, "cannot be unpacked") from None
        if max(len(body), received) > MAX_ANSWER:
            raise _too_long(response)
        late = watch.left() <= 0  # if this was the last chunk, it still counts: it may hold a token, already rotated
    if watch.has_cut and _FRAMES.isdisjoint(response.headers):
        raise _endless(response)  # only the connection's end was its end, and that was of our making
    return bytes(body)


def _unpacker(response: httpx.Response) -> Callable[[bytes, int], bytes] | None:
    """For a server that packs its answer although it was asked not to."""
    packed = response.headers.get("content-encoding", "identity").strip().lower()
    if packed in ("", "identity"):
        return None
    if packed in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress  # 32: gzip or zlib, whichever its header says
    raise _unusable(response, "is packed in an unknown way, although none was asked for")


def _endless(response: httpx.Response) -> httpx.ReadTimeout:
    return httpx.ReadTimeout("The answer did not end in time.", request=response.request)


def _too_long(response: httpx.Response) -> RefreshError:
    return _unusable(response, f"is longer than {MAX_ANSWER} bytes")


def _unusable(response: httpx.Response, what: str) -> RefreshError:
    return RefreshError(
        f"The token endpoint's answer {what}, so it was not read. Check that the token URL is the right one.",
        status_code=response.status_code,
    )


class _Watch:
    """Holds an exchange to its deadline, through httpx's `timeout` and `trace` extensions.

    httpx's timeouts are for one operation each. So every step is given what is left of the whole, and the connection
    is cut at the deadline: a server that sends a header line letter by letter makes no single operation last. (Only one
    that was opened for this exchange is known here; to one that a client of the user's kept, the timeouts apply.)
    """

    def __init__(self, deadline: float, clock: Clock) -> None:
        self._deadline = deadline
        self._clock = clock
        self._timer: threading.Timer | None = None
        self._sockets: list[socket.socket] = []
        self.has_cut = False
        self.status = 0  # of the answer, as soon as it is known
        self.timeouts = dict.fromkeys(("connect", "read", "write", "pool"), self.left(_LEAST))

    def left(self, least: float = float("-inf")) -> float:
        return max(self._deadline - self._clock.monotonic(), least)

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(".started"):
            self.timeouts.update(dict.fromkeys(self.timeouts, self.left(_LEAST)))
        elif event.endswith(_HEADED):
            self.status = next(part for part in info["return_value"] if isinstance(part, int))
        elif event.endswith(_OPENED):
            self._opened(info["return_value"].get_extra_info("socket"))

    def _opened(self, connection: socket.socket) -> None:
        if self.left() <= 0:  # a host with several addresses gets the time to connect for each of them
            connection.close()
            raise httpx.ConnectTimeout("Connecting took the whole time.")
        self._sockets.append(connection)
        if self._timer is None:
            self._timer = threading.Timer(self.left(_LEAST), self._cut)
            self._timer.daemon = True
            with suppress(RuntimeError):  # no thread to be had: the timeouts of each step remain
                self._timer.start()

    def _cut(self) -> None:
        self.has_cut = True  # first, so that whoever wakes up can tell it from the server's own going
        for connection in self._sockets:
            with suppress(OSError):  # closed already
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # below TLS; wakes whoever reads

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
