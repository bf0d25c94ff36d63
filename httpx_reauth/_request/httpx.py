"""The auth object for httpx; `httpx_reauth.httpx2` has the auth object for httpx2."""

from __future__ import annotations

import httpx

from httpx_reauth._errors import RefreshError, StorageUnavailable, shown_as_its_base
from httpx_reauth._request.auth import ReauthBase
from httpx_reauth._request.packages import HttpPackage


@shown_as_its_base
class _RefreshError(RefreshError, httpx.TransportError):
    """The `RefreshError` that a request raises: it is httpx's `TransportError` as well."""


@shown_as_its_base
class _StorageUnavailable(StorageUnavailable, httpx.TransportError):
    """The `StorageUnavailable` that a request raises: it is httpx's `TransportError` as well."""


class Reauth(ReauthBase[httpx.Request, httpx.Response], httpx.Auth):
    """An auth object for `httpx.Client` and `httpx.AsyncClient`, both at once, on any thread and any event loop.

    Make one for each account and keep it, e.g. at module level or in a `ReauthPool`. One for each request would ask for
    a token each time, and use a rotating refresh token twice, which signs the user out.

    Args:
        refresh: gets the last token and returns the next one. If there is no last token, it gets `Token()`, and must
            log in. A coroutine function, a plain function or a grant of `httpx_reauth.oauth`; each works with sync and
            async clients. A refresh may return a token that it found, which another worker has renewed. If that token
            has expired or is the last one, the refresh is called once more, with that token. An exception becomes the
            cause of a `RefreshError`, unless the exception is a `ReauthError`.
        token: the first token, e.g. `Token(refresh_token="...")`. A store that has a token already ignores it.
        store: a `TokenStore` to share with other `Reauth` objects; by default a new one.
        storage: saves the token beyond the end of the process. A stored token wins over `token`; `token` is written to
            an empty storage.
        origins: the origins to which the token may be sent, e.g. `["https://api.example.com"]`. In
            `"https://*.example.com"`, the star stands for one label. https allows wss as well, and http allows ws. By
            default: any https origin, and loopback. A request to another origin is sent without the token, and the log
            warns of it, once for each origin.
        leeway: seconds before its end from which a token is renewed in the background; at most a quarter of the
            lifetime (up to half of the lifetime if refreshes are slow). Example: a token expires at 900, leeway 60. The
            token is renewed from 840 on (or up to 6 s earlier), and awaited from 895 on.
        refresh_timeout: seconds after which every wait for a refresh ends. A coroutine is stopped then.
        authorize: `authorize(request, token)` puts the token on the request, instead of the header
            `Authorization: {token_type} {access_token}` (RFC 6750 §2.1). httpx removes `Authorization` when a redirect
            leaves the origin, and `Cookie` at every redirect. httpx removes no other header.
        is_rejected: `is_rejected(response)` says whether the server refused the token. By default, a 401 refuses it
            (RFC 6750 §3.1). If this function is given, it alone decides, whatever `WWW-Authenticate` says.
        read_body_of: the statuses whose bodies are read before `is_rejected` is called, e.g. `{403}`. The bodies of all
            other responses stay streams. In a subclass with `requires_response_body = True`, every body is read.
        buffer_request_body: read every request body into memory, so that a stream can be sent again, too.
        name: a name for log lines, spans and threads, e.g. `"user-42"`. If several objects on one store have a name,
            the first name counts.
        clock: reads the time; for tests.

    Raises:
        ValueError: an origin has no scheme or has a path; a number of seconds is out of range; the store already has a
            different storage.
        TypeError: a setting has the wrong type, is a class instead of an object, or is a coroutine function instead of
            a plain function. Or `read_body_of` is given without `is_rejected`.

    Requests with this object raise the client's errors, and also:
        RefreshError: the token could not be renewed now; it is an `httpx.TransportError`, too.
        SignInRequired: only a new sign-in helps.
        InsecureOrigin: the token would have been sent over plain http to another machine.
    """

    __slots__ = ()
    __module__ = "httpx_reauth"

    _package = HttpPackage(httpx.URL, httpx.ByteStream, httpx.TransportError, (_RefreshError, _StorageUnavailable))
