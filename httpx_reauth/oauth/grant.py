"""What a grant is: a generator of token requests, and the settings with which they are posted."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from typing import Protocol

import httpx

from httpx_reauth._token import Token
from httpx_reauth.oauth.driver import run
from httpx_reauth.oauth.request import TokenRequest


class Grant(Protocol):
    """A way to get a token. Subclass it to write one of your own.

    A grant is a function from the last token to the next one, so `Reauth(grant)` takes it like any other refresh. It
    blocks while it posts; a `Reauth` calls it in a worker thread, and one grant serves sync and async clients.

    Write `flow` only: it does no I/O, so it is tested with `next` and `send`. Calling the grant posts what the flow
    yields, within the bounds that the attributes set.

    Attributes:
        timeout: seconds for one token request as a whole, from connecting to the last byte of the answer; with its
            repeats and the pauses between them, twice that.
        client: the `httpx.Client` that posts, with your proxy and TLS; it is not closed. None: one of its own.
        allow_http: post to a plain-http URL on another machine, too.

    Example, the JWT bearer grant (RFC 7523 §2.1):

        class JWTBearerGrant(Grant):
            def flow(self, token: Token) -> Generator[TokenRequest, httpx.Response, Token]:
                form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": make_assertion()}
                response = yield TokenRequest("https://id.example.com/token", form, idempotent=True)
                return Token.from_response(response)

        auth = Reauth(JWTBearerGrant())
    """

    __slots__ = ()

    timeout: float = 5.0
    client: httpx.Client | None = None
    allow_http: bool = False

    @abstractmethod
    def flow(self, token: Token, /) -> Generator[TokenRequest, httpx.Response, Token]:
        """Yield what to post, get the response (read, never a redirect that was followed), return the new token.

        Args:
            token: the last token, `Token()` if there was none.

        Raises:
            SignInRequired: there is nothing to post; raise it before the first `yield`.
            RefreshError: the answer is no token (`Token.from_response` raises it).
        """

    def __call__(self, token: Token, /) -> Token:
        """The next token; blocks until it is there, twice `timeout` per request at most.

        Raises:
            RefreshError: no answer in time, or none with a token. Its message says whether the request may have
                been processed, its cause is httpx's error, and its `retry_after` what the server asked for.
            SignInRequired: the refresh token is dead (RFC 6749 §5.2), or there is none.
            InsecureOrigin: the URL is plain http on another machine, without `allow_http`.
        """
        return run(self, token)
