"""The authorization server as a test sees it: what it issues, and the ways that requests take to it."""

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

    `POST /token` takes the grants `refresh_token`, `client_credentials` and `authorization_code` (RFC 6749, with PKCE),
    signed assertions (RFC 7523), token exchange (RFC 8693) and device codes (RFC 8628). The server's document (RFC
    8414) names it, `GET /authorize` (a browser, whose user says yes at once), `POST /device_authorization` and `POST
    /revoke` (RFC 7009). The page of a device's user is `GET /device_authorization?user_code=...`.

    Every other path is the API, which wants a good access token and answers with JSON: `method`, `path`, and `length`
    and `sha256` of the body it got. Four paths do more: `/slow?seconds=1` answers late; `/stream?chunks=10&size=1024`
    streams that many chunks of that many bytes; `/sse` is a stream of events that stays open until `end_streams()`;
    `/redirect?to=URL&status=302` redirects.

    All of it may be used from many threads and event loops at once. Leaving it as a context manager closes it.

    Attributes:
        token_endpoint, api, metadata_endpoint, authorization_endpoint, device_endpoint, revocation_endpoint: what goes
            wrong with each, how late it answers, and what is held back (`Endpoint`).
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
        """A `MockTransport` of `package` (the module httpx or httpx2), for its `Client` and its `AsyncClient` alike.

        The host of a request does not matter. It works on asyncio and trio, keeps the client's read timeout, streams
        answers, raises what a real connection would raise, and reads each body once, as a real connection does.

        Example: `httpx.Client(transport=server.transport(httpx), base_url="https://api.test")`
        """
        return _mock.transport(self, package)

    def mock(
        self, router: respx.Router, *, base_url: str | None = None, package: _mock.Package[Any] | None = None
    ) -> respx.Route:
        """Serve what `router` sees, in sync and async clients; with `base_url`, only requests to that origin.

        Example: `server.mock(respx_mock, base_url="https://api.test")`; with the fixture of pytest-httpx2,
        `server.mock(httpx2_mock, base_url="https://api.test", package=httpx2)`.

        Args:
            router: respx's.
            base_url: the origin to serve; None: every one.
            package: whose errors the faults are: the module httpx2, where respx stands in front of that; None: httpx.

        Returns:
            the route, e.g. to look at its `calls`.
        """
        from httpx_reauth.testing import _respx

        return _respx.mock(self, router, base_url, package)

    def serve(self) -> AbstractContextManager[str]:
        """A real HTTP/1.1 server on a free port of 127.0.0.1; the `with` block gets its base URL.

        It runs in its own thread, which ends with the block, as do all connections. Several may run at once.

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
        """What is answered to a request; it takes effect at once. For an adapter to yet another client.

        Args:
            method: e.g. `POST`.
            url: a path, or a whole URL whose origin does not matter.
            headers: pairs of name and value, e.g. `headers.items()`.
            body: all of it.
        """
        self.body_received(len(body))
        return self.receive(Received.parse(method, url, headers, body))

    def __repr__(self) -> str:
        return f"AuthorizationServer(token_requests={self.token_requests}, api_requests={self.api_requests})"
