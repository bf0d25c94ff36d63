"""The auth object for httpx; `httpx_reauth.httpx2` has the one for httpx2."""

from __future__ import annotations

import httpx

from httpx_reauth._errors import RefreshError, StorageUnavailable, shown_as_its_base
from httpx_reauth._request.auth import ReauthBase
from httpx_reauth._request.packages import HttpPackage


@shown_as_its_base
class _RefreshError(RefreshError, httpx.TransportError):
    """Out of a request, a `RefreshError` is httpx's own error as well."""


@shown_as_its_base
class _StorageUnavailable(StorageUnavailable, httpx.TransportError):
    """And so is a `StorageUnavailable`."""


class Reauth(ReauthBase[httpx.Request, httpx.Response], httpx.Auth):
    """An auth object for `httpx.Client` and `httpx.AsyncClient`, both at once, on any thread and any event loop.

    Args:
        refresh: gets the last token (`Token()` if there was none: log in then) and returns the next. A coroutine
            function, a plain function or a grant of `httpx_reauth.oauth`; each serves sync and async clients. It may
            return a token that it found, which another worker has renewed; if that one has expired or is the last one,
            it is called once more, with it. What it raises becomes a `RefreshError` with that cause, unless it is a
            `ReauthError` already.
        token: the first token, e.g. `Token(refresh_token="...")`; a store that has one already keeps that.
        store: a `TokenStore` to share with other `Reauth` objects; by default a new one.
        storage: where tokens outlive the process. What it holds wins over `token`, which seeds an empty one.
        origins: where the token may go, e.g. `["https://api.example.com"]`, or `"https://*.example.com"` for one label
            in the place of the star. https admits wss, and http admits ws. By default any https origin and loopback. A
            request to anywhere else is sent without the token.
        leeway: seconds before its end from which a token is renewed in the background; at most a quarter of its
            lifetime (where refreshes are slow, up to half of it). It expires at 900, leeway 60: renewed from 840 (or up
            to 6 s earlier), awaited from 895.
        refresh_timeout: seconds after which every wait for a refresh ends. A coroutine is stopped then.
        authorize: `authorize(request, token)` puts the token on the request, instead of the header
            `Authorization: {token_type} {access_token}` (RFC 6750 §2.1). Of what it sets, httpx drops `Authorization`
            when a redirect leaves the origin, `Cookie` at every redirect, and nothing else.
        is_rejected: `is_rejected(response)`: was our token refused? By default: is it a 401 (RFC 6750 §3.1)? It alone
            decides, also where `WWW-Authenticate` says that a new token would be refused as well.
        read_body_of: the statuses whose bodies are read before `is_rejected` is asked, e.g. `{403}`; every other answer
            streams on. A subclass that sets `requires_response_body = True` has every body read.
        buffer_request_body: read every request body into memory, so that streams can be sent again, too.
        name: what log lines, spans and threads call it, e.g. `"user-42"`. Of several on one store, the first counts.
        clock: where the time is read; for tests.

    Raises:
        ValueError: an origin has no scheme or has a path; a number of seconds is out of range.
        TypeError: a setting is of another type, a class where an object is meant, or a coroutine function where a plain
            one is needed.

    Requests made with it raise, besides what the client raises:
        RefreshError: the token could not be renewed now; also an `httpx.TransportError`.
        SignInRequired: nothing but a new sign-in helps.
        InsecureOrigin: the token would have gone over plain http to another machine.
    """

    __slots__ = ()
    __module__ = "httpx_reauth"

    _package = HttpPackage(httpx.URL, httpx.ByteStream, httpx.TransportError, (_RefreshError, _StorageUnavailable))
