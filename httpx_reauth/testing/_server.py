"""The authorization server: ties the token endpoint, the API, their faults and the counters together, without any I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from threading import RLock
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, TypeVar

import anyio
import httpx

from .._token import Token
from . import _mock, _socket
from ._api import refusal, resource
from ._endpoint import Endpoint
from ._grants import Family, Grants
from ._manual_clock import ManualClock
from ._messages import Answer, Received
from ._settings import Counts, Settings
from ._signal import Signal
from ._token_endpoint import answer_token_request, seconds

if TYPE_CHECKING:
    import respx

_T = TypeVar("_T")


@dataclass(kw_only=True, eq=False, repr=False)
class AuthorizationServer(Settings, Counts):
    """An OAuth 2.0 authorization server and the API that it protects, in memory.

    `POST /token` takes the grants `refresh_token` and `client_credentials` (RFC 6749). Every other path is the API,
    which wants a good access token and answers with JSON: `method`, `path`, and `length` and `sha256` of the body it
    got. Four paths do more: `/slow?seconds=1` answers late; `/stream?chunks=10&size=1024` streams that many chunks of
    that many bytes; `/sse` is a stream of events that stays open until `end_streams()`; `/redirect?to=URL&status=302`
    redirects.

    All of it may be used from many threads and event loops at once. Leaving it as a context manager closes it.

    Attributes:
        token_endpoint, api: what goes wrong with either, how late they answer, and what is held back (`Endpoint`).
    """

    def __post_init__(self) -> None:
        self._lock = RLock()
        self._grants = Grants()
        self._requests: list[Received] = []
        self._closing = Signal()
        self._streams_end = Signal()
        self._next_change: Signal | None = None
        self.token_endpoint = Endpoint(self._closing)
        self.api = Endpoint(self._closing)

    # What a test orders

    def issue(
        self,
        *,
        lifetime: float | EllipsisType | None = ...,
        scope: str | None = None,
        client_id: str | None = None,
        access_token: bool = True,
        refresh_token: bool = True,
    ) -> Token:
        """The token of a first sign-in, as an application would hold it. It begins a family; nothing is counted.

        Args:
            lifetime: of the access token, in seconds; None: for ever; `...`: the server's. With 0 it has expired.
            scope: what it is good for; a refresh cannot ask for more (RFC 6749 §6).
            client_id: the only client that may use the refresh token; None: any.
            access_token: whether there is one; without it, the token is one that has to be renewed first.
            refresh_token: whether there is one.
        """
        life = self.lifetime if isinstance(lifetime, EllipsisType) else lifetime
        family = Family(client_id, scope)
        with self._lock:
            refresh = self._grants.new_refresh_token(family) if refresh_token else None
            if not access_token:
                return Token(refresh_token=refresh, scope=scope)
            access = self._grants.new_access_token(family, None if life is None else self._now() + life)
        ends = None if life is None else self.clock.time() + life
        life = None if life is None else seconds(life)
        return Token(access, refresh_token=refresh, expires_in=life, expires_at=ends, scope=scope)

    def expire_access_tokens(self) -> None:
        """Let every access token given out so far have expired; their holders do not know."""
        with self._lock:
            self._grants.expire_all_access(self._now())

    def revoke_access_tokens(self) -> None:
        """Revoke every access token given out so far."""
        with self._lock:
            self._grants.revoke_all_access()

    def revoke_refresh_tokens(self) -> None:
        """Revoke every refresh token given out so far (`invalid_grant` from now on); access tokens live on."""
        with self._lock:
            self._grants.revoke_all_refresh()

    def end_streams(self) -> None:
        """Let every open `/sse` send its last event and end."""
        with self._lock:
            end, self._streams_end = self._streams_end, Signal()
        end.set()

    def close(self) -> None:
        """Let everybody go: held answers are sent, streams end, and hanging connections are dropped."""
        self._closing.set()
        self.token_endpoint.let_go()
        self.api.let_go()
        self.end_streams()

    def __enter__(self) -> AuthorizationServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # What a test looks at

    @property
    def requests(self) -> list[Received]:
        """All requests so far, in the order of arrival, those with a truncated body too."""
        with self._lock:
            return list(self._requests)

    def requests_to(self, path: str) -> list[Received]:
        """The requests to `path` so far, in the order of arrival."""
        return [request for request in self.requests if request.path == path]

    def authorizations(self, path: str | None = None) -> list[str | None]:
        """The `Authorization` headers of the requests so far (to `path`, if given), None where there was none."""
        return [request.authorization for request in self.requests if path in (None, request.path)]

    def wait_until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Block this thread until `condition()` is true; it is looked at whenever something has happened here.

        Example: `server.wait_until(lambda: server.token_requests == 1)`

        Raises:
            TimeoutError: it is not true after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while (change := self._change_unless(condition)) is not None:
            if not change.wait(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(self._so_far(timeout))

    async def await_until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """The same as `wait_until`, for a task of asyncio or trio."""
        with anyio.move_on_after(timeout):
            while (change := self._change_unless(condition)) is not None:
                await change.await_()
            return
        raise TimeoutError(self._so_far(timeout))

    # How requests get here

    def transport(self, package: _mock.Package[_T]) -> _T:
        """A `MockTransport` of `package` (the module httpx or httpx2), for its `Client` and its `AsyncClient` alike.

        The host of a request does not matter. It works on asyncio and trio, keeps the client's read timeout, streams
        answers, raises what a real connection would raise, and reads each body once, as a real connection does.

        Example: `httpx.Client(transport=server.transport(httpx), base_url="https://api.test")`
        """
        return _mock.transport(self, package)

    def mock(self, router: respx.Router, *, base_url: str | None = None) -> respx.Route:
        """Serve what `router` sees, in sync and async clients; with `base_url`, only requests to that origin.

        Example: `server.mock(respx_mock, base_url="https://api.test")`

        Returns:
            the route, e.g. to look at its `calls`.
        """
        return _mock.mock(self, router, None if base_url is None else httpx.URL(base_url))

    def serve(self) -> AbstractContextManager[str]:
        """A real HTTP/1.1 server on a free port of 127.0.0.1; the `with` block gets its base URL.

        It runs in a thread of its own, which ends with the block, as do all connections. Several may run at once.

        Example: `with server.serve() as base_url: httpx.get(f"{base_url}/me")`
        """
        return _socket.serve(self)

    def respond(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Answer:
        """What is answered to a request; it takes effect at once. For an adapter to yet another client.

        Args:
            method: e.g. `POST`.
            url: a path, or a whole URL whose origin does not matter.
            headers: a mapping, or pairs.
            body: all of it.
        """
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        self.body_received(len(body))
        return self.receive(Received.parse(method, url, pairs, body))

    def receive(self, request: Received) -> Answer:
        """Used by the adapters: `request` has arrived as a whole; what to answer."""
        is_token_request = request.path == self.token_path
        endpoint = self.token_endpoint if is_token_request else self.api
        with self._lock:
            if self.keep_requests:
                self._requests.append(request)
            fault = endpoint.next_fault()
            if is_token_request:
                self.token_requests += 1
            else:
                self.api_requests += 1
            if fault is not None and not fault.processed:
                answer = fault.answer
            else:
                process = self._process_token_request if is_token_request else self._process_api_request
                answer = process(request)
                if fault is not None:
                    answer = fault.answer
            answer = endpoint.delayed(answer, fault)
            self._changed()
        return _framed(answer, request.method)

    def body_received(self, length: int) -> None:
        """Used by the adapters: so many more bytes of some request's body have arrived."""
        with self._lock:
            self.body_bytes += length
            self._changed()

    def truncated(self, request: Received) -> None:
        """Used by the adapters: the connection ended before the body of `request` did."""
        with self._lock:
            self.truncated_requests += 1
            if self.keep_requests:
                self._requests.append(request)
            self._changed()

    def _process_token_request(self, request: Received) -> Answer:
        return answer_token_request(request, self, self._grants, self, self._now())

    def _process_api_request(self, request: Received) -> Answer:
        refused = refusal(request, self, self._grants, self._now())
        if refused is None:
            return resource(request, self._stream)
        self.api_unauthorized += 1
        return refused

    def _stream(self, opened: bool) -> Signal:
        with self._lock:
            self.open_streams += 1 if opened else -1
            self._changed()
            return self._streams_end

    def _now(self) -> float:
        clock = self.clock  # a server is another machine: it does not sleep along
        return clock.elapsed() if isinstance(clock, ManualClock) else clock.monotonic()

    def _changed(self) -> None:
        if self._next_change is not None:
            self._next_change.set()
            self._next_change = None

    def _change_unless(self, condition: Callable[[], bool]) -> Signal | None:
        with self._lock:
            if condition():
                return None
            if self._next_change is None:
                self._next_change = Signal()
            return self._next_change

    def _so_far(self, timeout: float) -> str:
        counted = ", ".join(f"{name}={getattr(self, name)}" for name in Counts.__annotations__)
        return f"What was waited for has not happened within {timeout:g} seconds. So far: {counted}."

    def __repr__(self) -> str:
        return f"AuthorizationServer(token_requests={self.token_requests}, api_requests={self.api_requests})"


def _framed(answer: Answer, method: str) -> Answer:
    """`answer` with the length of its body; without the body itself where there must be none (RFC 9110 §6.4.1)."""
    if isinstance(answer.body, bytes):
        answer = replace(answer, headers=(*answer.headers, ("Content-Length", str(len(answer.body)))))
    return replace(answer, body=b"") if method == "HEAD" else answer
