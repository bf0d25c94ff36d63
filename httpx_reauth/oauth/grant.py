"""What a grant is: a generator of requests, and the settings with which they are sent."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from typing import Any, Protocol, cast

from httpx_reauth._token import Token
from httpx_reauth.oauth.driver import run
from httpx_reauth.oauth.http import AnyClient
from httpx_reauth.oauth.request import MetadataRequest, TokenRequest


class Grant(Protocol):
    """A way to get a token. Subclass it to write one of your own.

    A grant is a function from the last token to the next one, so `Reauth(grant)` takes it like any other refresh. It
    blocks while it posts; a `Reauth` calls it in a worker thread, and one grant serves sync and async clients.

    Write `flow` only: it does no I/O, so it is tested with `next` and `send`. Calling the grant sends what the flow
    yields, within the bounds that the attributes set: by httpx2 behind an `httpx_reauth.httpx2.Reauth`, by httpx behind
    a `Reauth` for that, and by the first of them that is installed where the grant is called directly.

    Attributes:
        timeout: seconds to connect and to send a request, and for a whole attempt that may be repeated. All attempts of
            a request together end within twice that. The answer to a request that spends something is read for longer:
            twice the `refresh_timeout` of the `Reauth` (called directly: 60 s), since a refresh token that has been
            rotated would be lost with it.
        client: the `httpx.Client` or `httpx2.Client` that sends, with your proxy and TLS; it is not closed. None: a
            new one for each refresh.
        allow_http: post to a plain-http URL on another machine, too.
        repeatable: asking twice does no harm, since the flow spends nothing that the server takes once only. Where the
            storage is out of reach, a `Reauth` asks such a grant without it.

    Example, an API key that is exchanged for a token:

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
        """Yield what to send, get the response (read, never a redirect that was followed), return the new token.

        Args:
            token: the last token, `Token()` if there was none.

        Raises:
            SignInRequired: there is nothing to post; raise it before the first `yield`.
            RefreshError: the answer is no token (`Token.from_response` raises it).
        """

    def __call__(self, token: Token, /) -> Token:
        """The next token; blocks until it is there, as long as `timeout` says.

        Raises:
            RefreshError: no answer in time, or none with a token. Its message says whether the request may have
                been processed, its cause is the client's error, and its `retry_after` what the server asked for.
            SignInRequired: the refresh token is dead (RFC 6749 section 5.2), or there is none.
            InsecureOrigin: the URL is plain http on another machine, without `allow_http`.
            TypeError: `token` is no `Token`, or `client` is no sync client of httpx or httpx2.
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
