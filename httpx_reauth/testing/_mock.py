"""An adapter from an `AuthorizationServer` to clients of httpx or httpx2, with a `MockTransport` and no socket."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import anyio
import anyio.lowlevel

from httpx_reauth.testing._messages import Answer, Pause, Received, Step, close
from httpx_reauth.testing._signal import Signal

if TYPE_CHECKING:
    import httpx

    from httpx_reauth.testing._server import AuthorizationServer

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class Package(Protocol[_T_co]):
    """The module httpx, or the module httpx2."""

    @property
    def MockTransport(self) -> Callable[..., _T_co]: ...  # noqa: N802 - the packages' own name


def transport(server: AuthorizationServer, package: Package[_T]) -> _T:
    """Return a `MockTransport` of `package` that sends requests to `server`."""
    return cast("_T", _adapter(cast("ModuleType", package)).transport(server))


class Adapter:
    """Turn an `Answer` into a response of one package, or into an error of that package or of a different one.

    The annotations have the types of httpx. Those of httpx2 are the same.
    """

    def __init__(self, package: ModuleType, errors: ModuleType | None = None) -> None:
        self._package = package
        self._errors = errors or package
        self._stream = type("ServerStream", (_Stream, package.SyncByteStream, package.AsyncByteStream), {})
        self.transport = type("ServerTransport", (_Transport, package.MockTransport), {"adapter": self})

    def response(self, answer: Answer, request: httpx.Request) -> httpx.Response:
        """Return the response for `answer`, with an unread body, or raise the error for it."""
        if answer.drop == "connect":
            raise self._errors.ConnectError("All connection attempts failed", request=request)
        if answer.drop == "read":
            raise self.disconnected("Server disconnected without sending a response.", request)
        stream = self._stream(self, answer, request)
        made = self._package.Response(answer.status, headers=answer.headers, stream=stream, request=request)
        return cast("httpx.Response", made)

    def disconnected(self, words: str, request: httpx.Request) -> Exception:
        """Return the error for a connection that was closed."""
        return cast("Exception", self._errors.RemoteProtocolError(words, request=request))

    def timed_out(self, request: httpx.Request) -> Exception:
        """Return the error for a response that is later than the client's read timeout."""
        return cast("Exception", self._errors.ReadTimeout("The read operation timed out", request=request))


def _adapter(package: ModuleType) -> Adapter:
    name = package.__name__
    return _ADAPTERS.get(name) or _ADAPTERS.setdefault(name, Adapter(package))


_ADAPTERS: dict[str, Adapter] = {}


class _Transport:
    """The methods that replace those of a `MockTransport`.

    They read the body from the request's stream, as a real connection does. `request.read()` would keep the body in the
    request. Then a body that can be sent only once would look like a body that can be sent again.
    """

    adapter: Adapter

    def __init__(self, server: AuthorizationServer) -> None:
        self._server = server

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        stream = cast("httpx.SyncByteStream", request.stream)
        answer = ask(self._server, request, b"".join(stream))
        wait_for(answer.waits, request, self.adapter)
        return self.adapter.response(answer, request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        stream = cast("httpx.AsyncByteStream", request.stream)
        answer = ask(self._server, request, b"".join([part async for part in stream]))
        await await_(answer.waits, request, self.adapter)
        return self.adapter.response(answer, request)


class _Stream:
    """The body of a response, for sync and async clients."""

    def __init__(self, adapter: Adapter, answer: Answer, request: httpx.Request) -> None:
        self._adapter = adapter
        self._request = request
        body = answer.body
        self._steps: Iterator[Step] = body() if callable(body) else iter((body,) if body else ())

    def __iter__(self) -> Iterator[bytes]:
        for step in self._steps:
            if isinstance(step, bytes):
                yield step
            else:
                wait_for((self._pause(step),), self._request, self._adapter)

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> bytes:  # not a generator: without a full read, the garbage collector would end it
        for step in self._steps:
            if isinstance(step, bytes):
                return step
            await await_((self._pause(step),), self._request, self._adapter)
        raise StopAsyncIteration

    def close(self) -> None:
        close(self._steps)

    async def aclose(self) -> None:
        close(self._steps)

    def _pause(self, step: Pause | str) -> Pause:
        if isinstance(step, str):
            words = "peer closed connection without sending complete message body"
            raise self._adapter.disconnected(words, self._request)
        return step


def ask(server: AuthorizationServer, request: httpx.Request, body: bytes) -> Answer:
    """Return the response of `server` to `request`, which has this body."""
    server.body_received(len(body))
    return server.receive(Received.parse(request.method, str(request.url), request.headers.multi_items(), body))


def wait_for(waits: Iterable[Pause], request: httpx.Request, adapter: Adapter) -> None:
    """Wait in this thread, at most for the client's read timeout."""
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
            raise adapter.timed_out(request)


async def await_(waits: Iterable[Pause], request: httpx.Request, adapter: Adapter) -> None:
    """Wait in this task, at most for the client's read timeout."""
    with anyio.move_on_after(_read_timeout(request)):
        await anyio.lowlevel.checkpoint()  # with a real connection, other tasks run here too
        for pause in waits:
            await (pause.await_() if isinstance(pause, Signal) else anyio.sleep(pause))
        return
    raise adapter.timed_out(request)


def _read_timeout(request: httpx.Request) -> float | None:
    return cast("dict[str, float | None]", request.extensions.get("timeout", {})).get("read")
