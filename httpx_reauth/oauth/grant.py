"""The base class of all grants. A grant is a generator of requests, and the settings with which they are sent."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from typing import Any, Protocol, cast

from httpx_reauth._token import Token
from httpx_reauth.oauth.driver import run
from httpx_reauth.oauth.http import AnyClient
from httpx_reauth.oauth.request import MetadataRequest, TokenRequest


class Grant(Protocol):
    """A way to get a token. To write your own grant, make a subclass.

    A grant takes the last token and returns the next one, so `Reauth(grant)` uses it like a refresh function. It blocks
    while it waits for the server. A `Reauth` calls it in a worker thread, so one grant works for sync and async
    clients.

    Write only the method `flow`. It does no I/O, so you can test it with `next` and `send`. A call of the grant sends
    the requests that the flow yields, within the limits that the attributes set. An `httpx_reauth.httpx2.Reauth` sends
    them with httpx2. A `Reauth` for httpx sends them with httpx. If you call the grant directly, it uses the first of
    httpx and httpx2 that is installed.

    Attributes:
        timeout: seconds to connect and to send a request, and for a whole attempt that may be repeated. All attempts of
            a request together end within twice that time. The response to a request that spends something is read for
            longer: for twice the `refresh_timeout` of the `Reauth` (for 60 s if you call the grant directly). Such a
            response may contain a new refresh token, which must not be lost.
        client: the `httpx.Client` or `httpx2.Client` that sends the requests, with your proxy and TLS. The grant does
            not close it. None: a new client for each refresh.
        allow_http: the URL may also be plain http on another machine.
        repeatable: the flow spends nothing that the server accepts only once, so a second request does no harm. If the
            storage cannot be reached, a `Reauth` calls such a grant without the storage.

    Example, a grant that exchanges an API key for a token:

        class ApiKeyGrant(Grant):
            repeatable = True

            def flow(self, token: Token) -> Generator[TokenRequest, httpx.Response, Token]:
                form = {"grant_type": "urn:example:api-key", "api_key": os.environ["API_KEY"]}
                response = yield TokenRequest("https://id.example.com/token", form)
                return Token.from_response(response)

        auth = Reauth(ApiKeyGrant())
    """

    __slots__ = ()

    timeout: float = 5.0
    client: AnyClient | None = None
    allow_http: bool = False
    repeatable: bool = False

    @abstractmethod
    def flow(self, token: Token, /) -> Generator[TokenRequest | MetadataRequest, Any, Token]:
        """Yield the requests to send, and return the new token.

        Each `yield` returns the response to its request. The body of the response has been read. Redirects are not
        followed.

        Args:
            token: the last token, `Token()` if there was none.

        Raises:
            SignInRequired: the flow has nothing to send. Raise it before the first `yield`.
            RefreshError: the response contains no token (`Token.from_response` raises this error).
        """

    def __call__(self, token: Token, /) -> Token:
        """Return the next token. The call blocks until the server has answered; `timeout` limits the time.

        Raises:
            RefreshError: the server did not answer in time, or its response contains no token. The message says whether
                the server may have processed the request. The cause is the client's error. `retry_after` is the time
                for which the server wants no further request.
            SignInRequired: the server does not accept the refresh token any more (RFC 6749 section 5.2), or there is no
                refresh token.
            InsecureOrigin: the URL is plain http on another machine, and `allow_http` is not set.
            TypeError: `token` is not a `Token`, or `client` is not a sync client of httpx or httpx2.
        """
        if not isinstance(cast("object", token), Token):
            name = type(self).__name__
            if hasattr(token, "headers"):
                raise TypeError(
                    f"A grant is no auth object: it renews tokens, and a Reauth puts them on requests. Write "
                    f"auth=Reauth({name}(...)) in place of auth={name}(...)."
                )
            raise TypeError(f"A grant is called with the last token, Token() if there was none, not {type(token)!r}.")
        return run(self, token)
