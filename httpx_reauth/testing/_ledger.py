"""The counters of a server, the received requests, and a wait until something has happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import RLock

import anyio

from httpx_reauth.testing._messages import Received
from httpx_reauth.testing._signal import Signal


class Ledger:
    """A request is counted when it has arrived completely, for every response to it.

    Attributes:
        token_requests: requests to the token endpoint, also those that got a fault.
        tokens_issued: access tokens that the token endpoint has issued, even if the response was lost.
        refreshes: issued access tokens for a refresh token.
        api_requests: requests to any other path.
        api_unauthorized: requests to the API that were refused because of their access token.
        metadata_requests: requests for the server's document, at any path for it.
        authorization_requests: requests of browsers to sign in.
        device_requests: requests for a device code.
        revocation_requests: requests to revoke a token.
        tokens_revoked: requests that revoked a token.
        assertions_replayed: signed assertions that were refused because their `jti` had been used.
        reuse_detected: how often a used refresh token was sent again.
        families_revoked: token families that were revoked because of this.
        truncated_requests: requests whose connection ended before the end of their body; no other counter has them.
        open_streams: responses of `/sse` that are open now.
        body_bytes: bytes of request bodies so far; on a real socket, also the bytes of unfinished requests.
    """

    token_requests: int = 0
    tokens_issued: int = 0
    refreshes: int = 0
    api_requests: int = 0
    api_unauthorized: int = 0
    metadata_requests: int = 0
    authorization_requests: int = 0
    device_requests: int = 0
    revocation_requests: int = 0
    tokens_revoked: int = 0
    assertions_replayed: int = 0
    reuse_detected: int = 0
    families_revoked: int = 0
    truncated_requests: int = 0
    open_streams: int = 0
    body_bytes: int = 0

    def __init__(self) -> None:
        self.lock = RLock()  # guards everything that a request may change
        self._requests: list[Received] = []
        self._next_change: Signal | None = None

    @property
    def requests(self) -> list[Received]:
        """All requests so far, in the order of arrival, also those with a truncated body."""
        with self.lock:
            return list(self._requests)

    def requests_to(self, path: str) -> list[Received]:
        """Return the requests to `path` so far, in the order of arrival."""
        return [request for request in self.requests if request.path == path]

    def authorizations(self, path: str | None = None) -> list[str | None]:
        """Return the `Authorization` headers of the requests so far (with `path`: to that path); None: no header."""
        return [request.authorization for request in self.requests if path in (None, request.path)]

    def wait_until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Block this thread until `condition()` is true. The condition is checked after each change at this server.

        Example: `server.wait_until(lambda: server.token_requests == 1)`

        Raises:
            TimeoutError: the condition is not true after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while (change := self._change_unless(condition)) is not None:
            if not change.wait(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(self._so_far(timeout))

    async def await_until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:  # noqa: ASYNC109 - as its twin
        """Do the same as `wait_until`, for a task of asyncio or trio."""
        with anyio.move_on_after(timeout):
            while (change := self._change_unless(condition)) is not None:
                await change.await_()
            return
        raise TimeoutError(self._so_far(timeout))

    def record(self, request: Received) -> None:
        """Keep `request`."""
        with self.lock:
            self._requests.append(request)

    def changed(self) -> None:
        """Wake those that wait for a change."""
        with self.lock:
            if self._next_change is not None:
                self._next_change.set()
                self._next_change = None

    def _change_unless(self, condition: Callable[[], bool]) -> Signal | None:
        with self.lock:
            if condition():
                return None
            if self._next_change is None:
                self._next_change = Signal()
            return self._next_change

    def _so_far(self, timeout: float) -> str:
        counted = ", ".join(f"{name}={getattr(self, name)}" for name in Ledger.__annotations__)
        return f"What was waited for has not happened within {timeout:g} seconds. So far: {counted}."
