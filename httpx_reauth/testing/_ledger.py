"""What has happened at a server: the counters, the requests received, and waiting until something has happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import RLock

import anyio

from httpx_reauth.testing._messages import Received
from httpx_reauth.testing._signal import Signal


class Ledger:
    """A request counts when the whole of it has arrived, whatever becomes of it.

    Attributes:
        token_requests: requests to the token endpoint, those that got an ordered fault included.
        tokens_issued: access tokens that the token endpoint has committed, even if the answer was lost.
        refreshes: those of them that came of a refresh token.
        api_requests: requests to any other path.
        api_unauthorized: those of them that were refused for their access token.
        metadata_requests: requests for the server's document, at whatever place.
        authorization_requests: browsers that were sent to sign in.
        device_requests: requests for a device code.
        revocation_requests: requests to revoke a token.
        tokens_revoked: those of them that ended one.
        assertions_replayed: signed assertions that were refused since their `jti` had been used.
        reuse_detected: times that a used-up refresh token was presented again.
        families_revoked: families of tokens ended by that.
        truncated_requests: requests whose connection ended before their body did; counted nowhere else.
        open_streams: answers of `/sse` that are open now.
        body_bytes: bytes of request bodies so far; on a real socket, those of unfinished requests too.
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
        self.lock = RLock()  # of everything that a request may change
        self._requests: list[Received] = []
        self._next_change: Signal | None = None

    @property
    def requests(self) -> list[Received]:
        """All requests so far, in the order of arrival; those with a truncated body too."""
        with self.lock:
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

    async def await_until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:  # noqa: ASYNC109 - as its twin
        """The same as `wait_until`, for a task of asyncio or trio."""
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
        """Something has happened."""
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
