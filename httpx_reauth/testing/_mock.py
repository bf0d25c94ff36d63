"""Carries an `AuthorizationServer`'s answers into clients without a socket: by a `MockTransport`, or by respx."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
import httpx

from ._messages import Answer, Pause, Received, Step, close
from ._signal import Signal

if TYPE_CHECKING:
    import respx

    from ._server import AuthorizationServer

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class Package(Protocol[_T_co]):
    """The module httpx, or the module httpx2."""

    @property
    def MockTransport(self) -> Callable[..., _T_co]: ...  # noqa: N802 - the packages' own name


def transport(server: AuthorizationServer, package: Package[_T]) -> _T:
    """A `MockTransport` of `package` that asks `server`."""
    made: _T = _kit(package).transport(server)
    return made


def mock(server: AuthorizationServer, router: respx.Router, base_url: httpx.URL | None) -> respx.Route:
    """A route of `router` that asks `server`."""
    patterns: dict[str, Any] = {}
    if base_url is not None:
        port = base_url.port or {"http": 80, "https": 443}[base_url.scheme]
        patterns = {"scheme": base_url.scheme, "host": base_url.host, "port": port}
    return router.route(**patterns).mock(side_effect=lambda request: _Either(server, request))


class _Kit:
    """What is made of a package once: a transport class and a stream class."""

    def __init__(self, package: Any) -> None:
        self.package = package
        self.stream: Any = type("ServerStream", (_Stream, package.SyncByteStream, package.AsyncByteStream), {})
        self.transport: Any = type("ServerTransport", (_Transport, package.MockTransport), {"kit": self})

    def response(self, answer: Answer, request: Any) -> Any:
        """The response that `answer` is; its body is still to be read."""
        self.check_connection(answer, request)
        return self.package.Response(
            answer.status, headers=answer.headers, stream=self.stream(self, answer, request), request=request
        )

    def check_connection(self, answer: Answer, request: Any) -> None:
        if answer.drop == "connect":
            raise self.package.ConnectError("All connection attempts failed", request=request)
        if answer.drop == "read":
            raise self.package.RemoteProtocolError("Server disconnected without sending a response.", request=request)

    def timed_out(self, request: Any) -> Exception:
        error: Exception = self.package.ReadTimeout("The read operation timed out", request=request)
        return error


@lru_cache(maxsize=None)
def _kit(package: object) -> _Kit:
    return _Kit(package)


class _Transport:
    """What a `MockTransport` does here.

    It takes the body from the request's stream, as a real connection does. `request.read()` would keep the body in the
    request, and one that can be sent but once would pass for one that can be sent again.
    """

    kit: _Kit

    def __init__(self, server: AuthorizationServer) -> None:
        self._server = server

    def handle_request(self, request: Any) -> Any:
        answer = _ask(self._server, request, b"".join(request.stream))
        _wait(answer.waits, request, self.kit)
        return self.kit.response(answer, request)

    async def handle_async_request(self, request: Any) -> Any:
        answer = _ask(self._server, request, b"".join([part async for part in request.stream]))
        await _await(answer.waits, request, self.kit)
        return self.kit.response(answer, request)


class _Either(httpx.Response):
    """What respx gets: it awaits this for an async client, and for a sync one takes it as the response itself.

    respx does not say which of the two it is working for, and whether an event loop runs in this thread does not tell
    either. So the sync wait begins when respx first looks at the response's stream.
    """

    def __init__(self, server: AuthorizationServer, request: httpx.Request) -> None:
        self._request = request
        self._answer = _ask(server, request, request.content)
        self._made: Any = None

    def __await__(self) -> Generator[Any, Any, httpx.Response]:
        return self._wait_and_make().__await__()

    async def _wait_and_make(self) -> httpx.Response:
        kit = _kit(httpx)
        await _await(self._answer.waits, self._request, kit)
        response: httpx.Response = kit.response(self._answer, self._request)
        return response

    @property
    def stream(self) -> Any:
        if self._made is None:
            kit = _kit(httpx)
            _wait(self._answer.waits, self._request, kit)
            kit.check_connection(self._answer, self._request)
            self._made = kit.stream(kit, self._answer, self._request)
            super().__init__(
                self._answer.status, headers=self._answer.headers, stream=self._made, request=self._request
            )
        return self._made

    @stream.setter
    def stream(self, value: Any) -> None:
        self._made = value


class _Stream:
    """The body of a response, for sync and async clients."""

    def __init__(self, kit: _Kit, answer: Answer, request: Any) -> None:
        self._kit = kit
        self._request = request
        body = answer.body
        self._steps: Iterator[Step] = body() if callable(body) else iter((body,) if body else ())

    def __iter__(self) -> Iterator[bytes]:
        for step in self._steps:
            if isinstance(step, bytes):
                yield step
            else:
                _wait((self._pause(step),), self._request, self._kit)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for step in self._steps:
            if isinstance(step, bytes):
                yield step
            else:
                await _await((self._pause(step),), self._request, self._kit)

    def close(self) -> None:
        close(self._steps)

    async def aclose(self) -> None:
        close(self._steps)

    def _pause(self, step: Step) -> Pause:
        if isinstance(step, (float, int, Signal)):
            return step
        raise self._kit.package.RemoteProtocolError(
            "peer closed connection without sending complete message body", request=self._request
        )


def _ask(server: AuthorizationServer, request: Any, body: bytes) -> Answer:
    server.body_received(len(body))
    return server.receive(Received.parse(request.method, str(request.url), request.headers.multi_items(), body))


def _wait(waits: Iterable[Pause], request: Any, kit: _Kit) -> None:
    limit = _read_timeout(request)
    deadline = None if limit is None else time.monotonic() + limit
    for pause in waits:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if isinstance(pause, Signal):
            in_time = pause.wait(left)
        else:
            in_time = left is None or pause <= left
            time.sleep(pause if left is None else min(pause, left))
        if not in_time:
            raise kit.timed_out(request)


async def _await(waits: Iterable[Pause], request: Any, kit: _Kit) -> None:
    with anyio.move_on_after(_read_timeout(request)):
        await anyio.lowlevel.checkpoint()  # a real connection would let others run too
        for pause in waits:
            await (pause.await_() if isinstance(pause, Signal) else anyio.sleep(pause))
        return
    raise kit.timed_out(request)


def _read_timeout(request: Any) -> float | None:
    timeout: float | None = request.extensions.get("timeout", {}).get("read")
    return timeout
