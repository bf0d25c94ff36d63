"""The authorization server for tests: its tokens, and the ways in which requests reach it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import EllipsisType
from typing import TYPE_CHECKING, Any, TypeVar

from httpx_reauth._token import Token
from httpx_reauth.testing import _mock, _socket
from httpx_reauth.testing._core import Core
from httpx_reauth.testing._grants import Family
from httpx_reauth.testing._messages import Answer, Received
from httpx_reauth.testing._token_endpoint import seconds

if TYPE_CHECKING:
    import respx
    from typing_extensions import Self

_T = TypeVar("_T")


class AuthorizationServer(Core):
    """An OAuth 2.0 authorization server and the API that it protects, in memory.

    `POST /token` accepts the grants `refresh_token`, `client_credentials` and `authorization_code` (RFC 6749, with
    PKCE), signed assertions (RFC 7523), token exchange (RFC 8693) and device codes (RFC 8628). The server's document
    (RFC 8414) names this endpoint, `GET /authorize` (for a browser, whose user agrees immediately), `POST
    /device_authorization` and `POST /revoke` (RFC 7009). The user of a device opens `GET
    /device_authorization?user_code=...`.

    Every other path belongs to the API, which needs a valid access token. It returns JSON with `method`, `path`, and
    the `length` and `sha256` of the request body. Four paths do something else. `/slow?seconds=1` responds late.
    `/stream?chunks=10&size=1024` streams that many chunks of that many bytes. `/sse` is a stream of events that stays
    open until `end_streams()`. `/redirect?to=URL&status=302` redirects.

    Many threads and event loops may use it at the same time. As a context manager, it is closed at the end of the
    block.

    Attributes:
        token_endpoint, api, metadata_endpoint, authorization_endpoint, device_endpoint, revocation_endpoint: the
            faults, the latency and the held responses of each (`Endpoint`).
    """

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
        """Return the token of a first sign-in, as an application would hold it. It begins a family, and is not counted.

        Args:
            lifetime: of the access token, in seconds. None: it never expires; `...`: the server's setting; 0: it has
                expired.
            scope: the scope of the token; a refresh cannot get a larger scope (RFC 6749 §6).
            client_id: the only client that may use the refresh token; None: any.
            access_token: whether there is an access token; without one, the token must be renewed first.
            refresh_token: whether there is a refresh token.
        """
        life = self.lifetime if isinstance(lifetime, EllipsisType) else lifetime
        family = Family(client_id, scope)
        with self.lock:
            refresh = self.grants.new_refresh_token(family) if refresh_token else None
            if not access_token:
                return Token(refresh_token=refresh, scope=scope)
            access = self.grants.new_access_token(family, None if life is None else self.now() + life)
        ends = None if life is None else self.clock.time() + life
        life = None if life is None else seconds(life)
        return Token(access, refresh_token=refresh, expires_in=life, expires_at=ends, scope=scope)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # How requests get here

    def transport(self, package: _mock.Package[_T]) -> _T:
        """Return a `MockTransport` of `package` (the module httpx or httpx2), for its `Client` and its `AsyncClient`.

        Requests may have any host. The transport works on asyncio and trio, respects the client's read timeout, and
        streams responses. It raises the errors of a real connection, and reads each body once, as a real connection
        does.

        Example: `httpx.Client(transport=server.transport(httpx), base_url="https://api.test")`
        """
        return _mock.transport(self, package)

    def mock(
        self, router: respx.Router, *, base_url: str | None = None, package: _mock.Package[Any] | None = None
    ) -> respx.Route:
        """Answer the requests that `router` gets from sync and async clients. `base_url` selects one origin.

        Example: `server.mock(respx_mock, base_url="https://api.test")`; with the fixture of pytest-httpx2,
        `server.mock(httpx2_mock, base_url="https://api.test", package=httpx2)`.

        Args:
            router: the router of respx.
            base_url: the origin to serve; None: every origin.
            package: the module whose errors are raised: httpx2, if respx mocks httpx2; None: httpx.

        Returns:
            the route, e.g. to look at its `calls`.
        """
        from httpx_reauth.testing import _respx

        return _respx.mock(self, router, base_url, package)

    def serve(self) -> AbstractContextManager[str]:
        """Run a real HTTP/1.1 server on a free port of 127.0.0.1. The `with` block gets its base URL.

        It runs in its own thread. The thread and all connections end with the block. Several may run at the same time.

        Example: `with server.serve() as base_url: httpx.get(f"{base_url}/me")`
        """
        return _socket.serve(self)

    def respond(
        self,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Answer:
        """Return the response to a request, which takes effect immediately.

        Use this for an adapter to a client that is not httpx or httpx2.

        Args:
            method: e.g. `POST`.
            url: a path, or a whole URL with any origin.
            headers: pairs of name and value, e.g. `headers.items()`.
            body: the whole body.
        """
        self.body_received(len(body))
        return self.receive(Received.parse(method, url, headers, body))

    def __repr__(self) -> str:
        return f"AuthorizationServer(token_requests={self.token_requests}, api_requests={self.api_requests})"
