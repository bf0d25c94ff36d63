"""Finds an authorization server's endpoints from its name, the issuer (RFC 8414, OpenID Connect Discovery 1.0).

1. The metadata document of the server is requested at the first use, not before. Then it is used for 24 hours. All
   users of one `Issuer` object share the document. If several uses need it at the same time, one of them requests it,
   and the others wait for the result.
2. The document is requested from three URLs, one after the other. The first has the well-known part between host and
   path (RFC 8414 section 3.1). The second is OpenID Connect's document at the same place. The third has the well-known
   part at the end of the path (OpenID Connect Discovery 1.0 section 4.1). Next time, the URL that had the document is
   requested first.
3. A document is accepted only if it names the expected issuer (RFC 8414 section 3.3). The names are compared as
   strings; one trailing slash at the root is ignored. The endpoints in the document must be https, or on this machine.
4. If there is no usable new document, the library uses the older one, and requests the document again after 5 minutes.
   A document is also unusable if it moves an endpoint to another origin. So a running process sends its secrets only to
   the origin to which it has sent them before.
5. An endpoint that the user gives by keyword has priority over the document.

This module does no I/O. `Issuer.discover` is a generator that yields requests, like a grant's flow.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from httpx_reauth._clock import SYSTEM_CLOCK, Clock
from httpx_reauth._errors import InsecureOrigin, ReauthError, RefreshError, copy_for_waiter, in_ascii, printable
from httpx_reauth.oauth.request import MetadataRequest, check_token_url, origin_of
from httpx_reauth.oauth.response import read_retry_after

if TYPE_CHECKING:
    from typing_extensions import Self

    from httpx_reauth._request.packages import Answer

_log = logging.getLogger("httpx_reauth")

_LIFETIME = 86_400.0  # seconds for which a document is used before it is requested again: a day
_RETRY = 300.0  # seconds until the next attempt, if there is no new document and an older one is used
_BUSY = (429, 503)  # with these statuses, a server may send `Retry-After`
_SHOWN = 200  # an error repeats at most this many characters of a document

_ISSUER = re.compile(r"https?://[A-Za-z0-9\-._~:\[\]]+(/[A-Za-z0-9\-._~!$&'()*+,;=:@%/{}]*)?")
_ENDPOINTS = ("token_endpoint", "authorization_endpoint", "device_authorization_endpoint", "revocation_endpoint")
_ISS_PARAMETER = "authorization_response_iss_parameter_supported"


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """The metadata of an authorization server: its document, with the values that the user gave (RFC 8414 section 2).

    Attributes:
        issuer: the server's name, exactly as the server writes it; None if the user gave endpoints only.
        token_endpoint, authorization_endpoint, revocation_endpoint: RFC 8414 section 2.
        device_authorization_endpoint: RFC 8628 section 4.
        mtls_endpoint_aliases: the same endpoints for clients that show a certificate (RFC 8705 section 5).
        token_endpoint_auth_methods_supported: the methods of client authentication; None if the document has no such
            list. That means `client_secret_basic`.
        scopes_supported: the scopes; None if the document has no such list.
        authorization_response_iss_parameter_supported: the server's redirects contain `iss` (RFC 9207 section 3).
        place: the URL of the document; None if the server has no document.
    """

    issuer: str | None = None
    token_endpoint: str | None = None
    authorization_endpoint: str | None = None
    device_authorization_endpoint: str | None = None
    revocation_endpoint: str | None = None
    mtls_endpoint_aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    token_endpoint_auth_methods_supported: tuple[str, ...] | None = None
    scopes_supported: tuple[str, ...] | None = None
    authorization_response_iss_parameter_supported: bool = False
    place: str | None = None

    @property
    def name(self) -> str | None:
        """The issuer, as the server's name; None if it is not known, or is a template (`{tenantid}`)."""
        return None if self.issuer is None or "{" in self.issuer else self.issuer

    def endpoint(self, name: str, *, mtls: bool = False) -> str:
        """Return the URL of the endpoint `name`, e.g. `"token_endpoint"`.

        Args:
            name: the endpoint's name in RFC 8414.
            mtls: the client presents a certificate, so the alias of the endpoint is used if there is one (RFC 8705
                section 5).

        Raises:
            RefreshError: the endpoint is not known; the message says where the library looked for it.
        """
        url: str | None = getattr(self, name)
        if mtls:
            url = self.mtls_endpoint_aliases.get(name, url)
        if url is None:
            where = "Issuer.of() was given none" if self.place is None else f"the document at {self.place} names none"
            raise RefreshError(
                f"The authorization server has no {name}: {where}. If it has one all the same, say "
                f'{name}="https://..." beside the issuer.'
            )
        return url


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Issuer:
    """An authorization server, given by its name. Every grant and every sign-in accepts it in place of a token URL.

    Nothing is sent until the first use. Then the server's metadata document is read once for all users of this object,
    and again after 24 hours. The object may be used from any thread and any event loop.

    Args:
        url: the issuer identifier, as the server's documentation writes it: https, without a query or a fragment.
            Plain http is accepted on this machine, and elsewhere if the grant has `allow_http=True`.
        issuer: the issuer in the document, if it differs from `url` or is a template. For example, the document of
            Microsoft's `common` endpoint contains `"https://login.microsoftonline.com/{tenantid}/v2.0"`.
        token_endpoint: the URL to use in place of the one in the document. The next three arguments do the same.
        authorization_endpoint: the URL at which a person signs in with a browser.
        device_authorization_endpoint: the URL from which a device gets its code (RFC 8628).
        revocation_endpoint: the URL at which a sign-out revokes the token (RFC 7009).

    Raises:
        ValueError: `url` is not an issuer identifier (RFC 8414 section 2).

    Example:
        issuer = Issuer("https://id.example.com/realms/a")
        auth = Reauth(ClientCredentialsGrant(issuer, "reports", secret))
    """

    url: str | None
    _given: ServerMetadata
    _cache: _Cache = field(compare=False)

    def __init__(
        self,
        url: str,
        *,
        issuer: str | None = None,
        token_endpoint: str | None = None,
        authorization_endpoint: str | None = None,
        device_authorization_endpoint: str | None = None,
        revocation_endpoint: str | None = None,
    ) -> None:
        _check_url(url)
        given = ServerMetadata(
            issuer=issuer,
            token_endpoint=token_endpoint,
            authorization_endpoint=authorization_endpoint,
            device_authorization_endpoint=device_authorization_endpoint,
            revocation_endpoint=revocation_endpoint,
        )
        self._set(url, given)

    @classmethod
    def of(
        cls,
        *,
        issuer: str | None = None,
        token_endpoint: str | None = None,
        authorization_endpoint: str | None = None,
        device_authorization_endpoint: str | None = None,
        revocation_endpoint: str | None = None,
        mtls_endpoint_aliases: Mapping[str, str] | None = None,
        token_endpoint_auth_methods_supported: Iterable[str] | None = None,
        scopes_supported: Iterable[str] | None = None,
        authorization_response_iss_parameter_supported: bool = False,
    ) -> Self:
        """Return an issuer for a server without a metadata document. No document is requested.

        Args:
            issuer: the server's name, for assertions and redirects that must name it (RFC 7523 section 3, RFC 9207).
            token_endpoint: the URL of the token endpoint (RFC 6749 section 3.2).
            authorization_endpoint: the URL at which a person signs in with a browser (RFC 6749 section 3.1).
            device_authorization_endpoint: the URL from which a device gets its code (RFC 8628 section 3.1).
            revocation_endpoint: the URL at which a token is revoked (RFC 7009 section 2).
            mtls_endpoint_aliases: the same endpoints for clients that present a certificate (RFC 8705 section 5).
            token_endpoint_auth_methods_supported: the methods of client authentication. Without a list, the library
                uses Basic.
            scopes_supported: the scopes that the server knows.
            authorization_response_iss_parameter_supported: the server's redirects contain `iss` (RFC 9207).

        Example: `Issuer.of(token_endpoint="https://id.example.com/token", revocation_endpoint=...)`
        """
        self = cls.__new__(cls)
        self._set(
            None,
            ServerMetadata(
                issuer,
                token_endpoint,
                authorization_endpoint,
                device_authorization_endpoint,
                revocation_endpoint,
                MappingProxyType(dict(mtls_endpoint_aliases or {})),
                _strings(token_endpoint_auth_methods_supported),
                _strings(scopes_supported),
                authorization_response_iss_parameter_supported,
            ),
        )
        return self

    def _set(self, url: str | None, given: ServerMetadata) -> None:
        for name in _ENDPOINTS:
            endpoint = getattr(given, name)
            if endpoint is not None:
                # This checks only that it is a URL. The grant or sign-in that uses it decides about plain http.
                check_token_url(endpoint, allow_http=True, what=name)
        object.__setattr__(self, "url", url)
        object.__setattr__(self, "_given", given)
        object.__setattr__(self, "_cache", _Cache())

    def check(self, *, allow_http: bool) -> None:
        """Check the URLs that the user gave, without a request.

        Raises:
            InsecureOrigin: one of these URLs is plain http on another machine, and `allow_http` is not set.
        """
        for name, url in {"issuer": self.url, **_urls(self._given)}.items():
            if url is not None:
                check_token_url(url, allow_http=allow_http, what=name)

    def discover(
        self, *, allow_http: bool = False, clock: Clock = SYSTEM_CLOCK
    ) -> Generator[MetadataRequest, Answer | None, ServerMetadata]:
        """Return the metadata of the server. Each `yield` is a request, and returns the response to it.

        If a request has the attribute `shared`, another thread has already sent the same request. The driver waits for
        that one instead of sending a second one.

        Args:
            allow_http: the endpoints may be plain http on another machine.
            clock: the clock that measures the age of the document.

        Raises:
            RefreshError: there is no usable document; the message names the URLs and what each of them returned.
            InsecureOrigin: an endpoint is plain http on another machine.
        """
        if self.url is None:
            return self._given
        cache, process, mine = self._cache, os.getpid(), _Search()
        try:
            while True:
                known = cache.known_by(clock)
                if known is not None and clock.monotonic() < known.until:
                    return known.metadata
                search = cache.searches.setdefault(process, mine)  # atomic: only one of several threads sets it
                if search is mine:
                    if cache.known is known:  # else another search has ended since `known` was read
                        return (yield from self._search(mine, known, allow_http=allow_http, clock=clock))
                    cache.searches.pop(process)
                elif known is not None:
                    return known.metadata  # it is older than a day, and another thread is requesting a new one
                else:
                    answer = yield MetadataRequest(self._places()[0], shared=search.ended)
                    if search.error is not None:
                        raise copy_for_waiter(search.error)
                    if answer is not None:  # the driver does not know `shared`, and has sent the request
                        return self._read(answer, self._places()[0], allow_http=allow_http)
        finally:
            if cache.searches.get(process) is mine:
                cache.searches.pop(process, None)
            mine.ended.set()

    def _search(
        self, search: _Search, known: _Known | None, *, allow_http: bool, clock: Clock
    ) -> Generator[MetadataRequest, Answer | None, ServerMetadata]:
        last = None if known is None else known.metadata
        try:
            metadata = yield from self._look_everywhere(last, allow_http=allow_http)
        except ReauthError as error:
            if known is None:
                search.error = error
                raise
            _log.warning("The document of the authorization server is not renewed, so the last one goes on: %s", error)
            self._cache.known = _Known(known.metadata, clock, clock.monotonic() + _RETRY)
            return known.metadata
        self._cache.known = _Known(metadata, clock, clock.monotonic() + _LIFETIME)
        return metadata

    def _look_everywhere(
        self, last: ServerMetadata | None, *, allow_http: bool
    ) -> Generator[MetadataRequest, Answer | None, ServerMetadata]:
        seen: list[str] = []
        busy: Answer | None = None
        places = sorted(self._places(), key=lambda place: last is None or place != last.place)
        for place in places:
            try:
                answer = yield MetadataRequest(place)
            except RefreshError as error:
                if error.status_code is None:  # the server did not answer; the other URLs are on the same server
                    raise
                seen.append(f"{place}: {error}".rstrip("."))
                continue
            try:
                metadata = self._read(cast("Answer", answer), place, allow_http=allow_http)
                _check_not_moved(last, metadata)
            except _Unusable as error:
                seen.append(f"{place} {error}")
                if answer is not None and answer.status_code in _BUSY:
                    busy = answer
            else:
                return metadata
        found = in_ascii("; ".join(seen))
        nothing = RefreshError(
            f"There is no usable metadata document of the authorization server {self.url} (RFC 8414), so no token was "
            f"asked for and no secret was sent: {found}. Check the issuer; if the server has no document, "
            'give its endpoints: Issuer.of(token_endpoint="https://...").'
        )
        if busy is not None:
            read_retry_after(nothing, busy)
        raise nothing

    def _places(self) -> list[str]:
        """Return the possible URLs of the document, in the order of the module's docstring.

        They are those of RFC 8414 sections 3.1 and 5, and of OpenID Connect Discovery 1.0 section 4.1.
        """
        parts = urlsplit(cast("str", self.url))
        origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
        places = [
            f"{origin}/.well-known/oauth-authorization-server{path}",
            f"{origin}/.well-known/openid-configuration{path}",
            f"{origin}{path}/.well-known/openid-configuration",
        ]
        return list(dict.fromkeys(places))

    def _read(self, answer: Answer, place: str, *, allow_http: bool) -> ServerMetadata:
        """Return the metadata in `answer`, with the endpoints that the user gave in place of those in the document.

        Raises:
            _Unusable: `answer` is not a metadata document, or is the document of another issuer.
            InsecureOrigin: an endpoint is plain http on another machine.
        """
        document = _document(answer)
        self._check_issuer(document.get("issuer"))
        asked = [name for name in _ENDPOINTS if getattr(self._given, name) is None]
        aliases = document.get("mtls_endpoint_aliases")
        aliases = cast("dict[str, Any]", aliases) if isinstance(aliases, dict) else {}
        metadata = replace(
            self._given,
            **{name: _text(document, name) for name in ("issuer", *asked)},
            mtls_endpoint_aliases=MappingProxyType(
                {name: url for name in asked if (url := _text(aliases, name)) is not None}
            ),
            token_endpoint_auth_methods_supported=_strings(document.get("token_endpoint_auth_methods_supported")),
            scopes_supported=_strings(document.get("scopes_supported")),
            authorization_response_iss_parameter_supported=document.get(_ISS_PARAMETER) is True,
            place=place,
        )
        for name, url in _urls(metadata).items():
            try:
                check_token_url(url, allow_http=allow_http)
            except ValueError:
                raise _Unusable(f"has an unusable {name}") from None
            except InsecureOrigin:
                raise InsecureOrigin(
                    f"The document at {place} says that the {name} is at {origin_of(url)}: plain http on another "
                    "machine, where every secret would be readable on the way, so nothing is sent. A server behind a "
                    "proxy has to be told that it is reached by https. If plain http is meant, say allow_http=True."
                ) from None
        return metadata

    def _check_issuer(self, found: object) -> None:
        expected = self._given.issuer or cast("str", self.url)
        if not isinstance(found, str):
            raise _Unusable("does not say whose it is (it has no issuer)")
        if found != expected and _at_the_root(found) != _at_the_root(expected):
            shown = printable(found[:_SHOWN])
            raise _Unusable(
                f"is the document of {shown!r}, not of {expected!r} (RFC 8414 section 3.3). If that is the name of "
                f"this server, say issuer={shown!r}"
            )

    @property
    def shown_url(self) -> str | None:
        """The URL of the server for a log line: its issuer, or its token endpoint."""
        return self.url or self._given.token_endpoint

    def __repr__(self) -> str:
        """The arguments; none of them is a secret."""
        given = [
            f"{one.name}={value!r}"
            for one in fields(self._given)
            if (value := getattr(self._given, one.name)) not in (None, False, {})
        ]
        if self.url is None:
            return f"Issuer.of({', '.join(given)})"
        return f"Issuer({', '.join([repr(self.url), *given])})"


def choose_client_auth(metadata: ServerMetadata, *, has_secret: bool) -> str:
    """Choose a method of client authentication if the user has not set one (RFC 8414 section 2, RFC 7591 section 2).

    Without a secret, the client sends only its id. The server's list of methods does not matter then, since many
    servers leave `none` out of it.

    Raises:
        RefreshError: the server accepts no method that uses a secret; the message lists the methods that it accepts.
    """
    if not has_secret:
        return "none"
    supported = metadata.token_endpoint_auth_methods_supported
    if not supported:
        return "client_secret_basic"  # the default, by RFC 8414 section 2
    for method in ("client_secret_basic", "client_secret_post", "client_secret_jwt"):
        if method in supported:
            return method
    raise RefreshError(
        "The authorization server takes no client secret, so it was not sent. It takes: "
        f"{in_ascii(printable(', '.join(supported)[:_SHOWN]))}. Give client_auth=, e.g. PrivateKeyJWT(...); or "
        'client_auth="client_secret_basic", if the document is wrong.'
    )


class _Unusable(Exception):
    """A response is not a usable document. The caller writes the URL before the message, to make a sentence."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A document. Until the time `until` (monotonic seconds of `clock`), no newer one is requested."""

    metadata: ServerMetadata
    clock: Clock
    until: float


class _Search:
    """One search for the document. Other threads that need the document wait for its end."""

    __slots__ = ("ended", "error")

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.error: ReauthError | None = None


class _Cache:
    """The document and the searches that all users of an `Issuer` share.

    It needs no lock, because each access is one atomic operation on a dict or an attribute. Each search is stored under
    the id of its process. So a forked child never waits for a search of its parent.
    """

    __slots__ = ("known", "searches")

    def __init__(self) -> None:
        self.known: _Known | None = None
        self.searches: dict[int, _Search] = {}

    def known_by(self, clock: Clock) -> _Known | None:
        """Return the document. If `clock` is a different clock than before, as in a test, its 24 hours begin again."""
        known = self.known
        if known is not None and known.clock is not clock:
            self.known = known = replace(known, clock=clock, until=clock.monotonic() + _LIFETIME)
        return known


def _check_url(url: object) -> None:
    if not isinstance(url, str):
        raise TypeError(f'An issuer is a string: Issuer("https://id.example.com"), not {type(url).__name__}.')
    parts = urlsplit(url) if _ISSUER.fullmatch(url) else None
    if parts is None or not parts.hostname:
        raise ValueError(
            "The issuer is not one: it is an absolute https URL without a user name, a query or a fragment "
            '(RFC 8414 section 2), e.g. "https://id.example.com/realms/a".'
        )
    if "/.well-known/" in url:
        raise ValueError(
            "This is the URL of the issuer's document. Give the issuer itself, without the part that begins with "
            '"/.well-known/"; that part is added.'
        )


def _document(answer: Answer) -> dict[str, Any]:
    status = answer.status_code
    if 300 <= status < 400:
        raise _Unusable(f"answered with a redirect ({status}), which is not followed")
    if status != 200:
        raise _Unusable(f"answered {status}")
    try:
        document = json.loads(answer.content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        kind = printable(answer.headers.get("content-type", "")[:_SHOWN]) or "no content type"
        raise _Unusable(f"answered 200 with {kind}, which is no JSON object")
    return cast("dict[str, Any]", document)


def _text(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise _Unusable(f"has an unusable {name}: {type(value).__name__}, not a string")
    return value or None  # some servers write an empty string for an endpoint that they do not have


def _strings(values: object) -> tuple[str, ...] | None:
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes, Mapping)):
        return None
    return tuple(value for value in cast("Iterable[object]", values) if isinstance(value, str))


def _at_the_root(issuer: str) -> str:
    """Return `issuer` without its last slash, if that slash is its whole path."""
    return issuer[:-1] if issuer.endswith("/") and issuer.count("/") == 3 else issuer


def _urls(metadata: ServerMetadata) -> dict[str, str]:
    """Return the URLs of all endpoints that the library may use, by their names."""
    urls = {name: url for name in _ENDPOINTS if (url := getattr(metadata, name)) is not None}
    return urls | {f"mtls_endpoint_aliases.{name}": url for name, url in metadata.mtls_endpoint_aliases.items()}


def _check_not_moved(last: ServerMetadata | None, metadata: ServerMetadata) -> None:
    if last is None:
        return
    if last.token_endpoint is not None and metadata.token_endpoint is None:
        raise _Unusable("names no token_endpoint any more")
    before = _urls(last)
    for name, url in _urls(metadata).items():
        old = before.get(name, url)
        if urlsplit(url)[:2] != urlsplit(old)[:2]:
            raise _Unusable(
                f"has moved its {name} to another origin. Nothing is sent there: if that is meant, start the program "
                "anew, or make a new Issuer"
            )
