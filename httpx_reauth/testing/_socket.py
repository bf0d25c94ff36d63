"""An `AuthorizationServer` on a loopback socket: HTTP/1.1 with h11, in a thread with its own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import h11

from httpx_reauth.testing._messages import Answer, Pause, Received, close
from httpx_reauth.testing._signal import Signal

if TYPE_CHECKING:
    from httpx_reauth.testing._server import AuthorizationServer

_HOST = "127.0.0.1"
_BACKLOG = 4096  # connections that wait until they are accepted


@contextmanager
def serve(server: AuthorizationServer) -> Generator[str, None, None]:
    """Run the server until the `with` block ends. The block gets the base URL.

    Raises:
        OSError: the server cannot open a socket.
    """
    running = _Running(server)
    with ThreadPoolExecutor(1, "AuthorizationServer") as pool:
        ended = pool.submit(lambda: asyncio.run(running.run()))
        either: list[Future[Any]] = [running.base_url, ended]
        wait(either, return_when=FIRST_COMPLETED)
        if ended.done():
            ended.result()  # raises the error
        try:
            yield running.base_url.result()
        finally:
            running.stop()
        ended.result()


class _Running:
    """One listening socket and its connections."""

    def __init__(self, server: AuthorizationServer) -> None:
        self.server = server
        self.base_url: Future[str] = Future()
        self.connections: set[_Connection] = set()
        self._stopping = Signal()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: _Connection(self), _HOST, 0, backlog=_BACKLOG)
        self.base_url.set_result(f"http://{_HOST}:{listener.sockets[0].getsockname()[1]}")
        await self._stopping.await_()
        # The other tasks send responses, or belong to asyncio and accept connections. If the listener were closed
        # first, asyncio would not close these connections.
        while self.connections or len(asyncio.all_tasks()) > 1:
            for connection in self.connections:
                connection.abort()
            await asyncio.sleep(0)
        listener.close()

    def stop(self) -> None:
        self._stopping.set()


class _Connection(asyncio.Protocol):
    """One connection. It reads a request only after the response to the request before it was sent."""

    def __init__(self, running: _Running) -> None:
        self._running = running
        self._server = running.server
        self._http = h11.Connection(h11.SERVER)
        self._head: h11.Request | None = None  # the request whose body is still arriving
        self._body: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._running.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's own
        self._running.connections.discard(self)
        if self._head is not None:
            self._server.truncated(self._request(self._head, truncated=True))
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._read()

    def _read(self) -> None:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError:  # not HTTP
                self._transport.close()
                return
            if isinstance(event, h11.Request):
                self._head, self._body = event, []
            elif isinstance(event, h11.Data):
                self._body.append(bytes(event.data))
                self._server.body_received(len(event.data))
            elif isinstance(event, h11.EndOfMessage) and self._head is not None:
                request, self._head = self._request(self._head), None
                self._answer(self._server.receive(request))
            else:  # h11.NEED_DATA; or h11.PAUSED, until the answer has been sent
                return

    def _request(self, head: h11.Request, *, truncated: bool = False) -> Received:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
        target, body = head.target.decode("latin-1"), b"".join(self._body)
        return Received.parse(head.method.decode("ascii"), target, headers, body, truncated=truncated)

    def _answer(self, answer: Answer) -> None:
        if answer.waits or not isinstance(answer.body, bytes):
            self._task = asyncio.get_running_loop().create_task(self._send_or_abort(answer))
        elif answer.drop:
            self._transport.close()
        else:
            self._transport.write(self._start(answer) + self._data(answer.body))
            self._end()

    async def _send_or_abort(self, answer: Answer) -> None:
        try:
            await self._send(answer)
        except Exception:  # the answer is wrong, and asyncio logs the error; the client must not wait for more
            self._transport.abort()
            raise

    async def _send(self, answer: Answer) -> None:
        for pause in answer.waits:
            await _pause(pause)
        if answer.drop:
            self._transport.close()
            return
        self._transport.write(self._start(answer))
        steps = iter((answer.body,)) if isinstance(answer.body, bytes) else answer.body()
        try:
            for step in steps:
                if isinstance(step, bytes):
                    self._transport.write(self._data(step))
                    await asyncio.sleep(0)  # other tasks run, and a lost connection is noticed
                    await self._writable.wait()
                elif isinstance(step, str):
                    self._transport.close()
                    return
                else:
                    await _pause(step)
        finally:
            close(steps)
        self._end()
        self._read()  # read what the client has sent meanwhile

    def _start(self, answer: Answer) -> bytes:
        return self._http.send(h11.Response(status_code=answer.status, headers=list(answer.headers))) or b""

    def _data(self, data: bytes) -> bytes:
        return self._http.send(h11.Data(data)) or b"" if data else b""

    def _end(self) -> None:
        self._task = None
        self._transport.write(self._http.send(h11.EndOfMessage()) or b"")
        if self._http.our_state is h11.MUST_CLOSE:
            self._transport.close()
        else:
            self._http.start_next_cycle()


async def _pause(pause: Pause) -> None:
    await (pause.await_() if isinstance(pause, Signal) else asyncio.sleep(pause))
