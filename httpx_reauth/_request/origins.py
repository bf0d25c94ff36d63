"""Decides where a token may be sent. With listed origins: only there. Without: to any https origin, and to loopback.

1. An origin is a scheme, a host and a port (RFC 6454 section 4). A listed `https://` origin allows wss as well, and a
   listed `http://` origin allows ws: a websocket begins as a request of that scheme.
2. In `https://*.example.com`, the star stands for one label: neither `example.com` nor `a.b.example.com` is allowed.
   At least two labels must follow the star, since `https://*.com` would allow everybody's host. We have no list of
   public suffixes: `https://*.co.uk` is accepted, although anybody can register a host there.
3. Plain http (or ws) to another machine is allowed only if that origin is listed. Otherwise the request is an error,
   and is not sent.
4. A request to any other origin is sent without the token. A warning says so, once for each origin.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeAlias, cast

from httpx_reauth._errors import InsecureOrigin
from httpx_reauth._state.arguments import kind_of

if TYPE_CHECKING:
    from httpx_reauth._request.packages import URL

Origin: TypeAlias = tuple[str, str, "int | None"]  # scheme, host, port (None: the scheme's own)

_log = logging.getLogger("httpx_reauth")

_SECURE = frozenset({"https", "wss"})
_LOOPBACK_ONLY = frozenset({"http", "ws"})  # if no origins are listed
_SCHEMES = frozenset({"http", "https", "ws", "wss"})
_WEBSOCKET = {"https": "wss", "http": "ws"}  # the scheme that a listed scheme allows as well
_LISTED_AS = {"wss": "https", "ws": "http"}  # the reverse of it
_ENTRY = r"([A-Za-z]+://)(\*\.)?((?:\[[0-9A-Fa-f:.]+\]|[^\s/?#@*:\[\]\\]+)(?::[0-9]+)?/?)"
_MUST = 'origins must be a list of strings, as in origins=["https://api.example.com"]'
_LAST_PORT = 65_535
_DEFAULT_PORTS = {"http": 80, "https": 443}
_FEW = 64  # origins that are remembered: as many that were allowed, and as many with a warning
_SHOWN = 3  # listed origins that a warning shows

_NONE: frozenset[Origin] = frozenset()


class Origins:
    """The origins to which one auth object may send its token. Immutable: a new known origin makes a new object.

    Attributes:
        scheme: the scheme of the origin that the hot path compares first.
        host: the host of that origin; None: any host.
        port: the port of that origin.
        known: origins to which the token may be sent, as the URLs of requests spell them.
        listed: the origins that the user lists, in that order; None if there is no list. The host of a pattern begins
            with `*.`.
        warned: the origins for which a warning was logged.
    """

    __slots__ = ("host", "known", "listed", "port", "scheme", "warned")

    def __init__(
        self,
        first: tuple[str, str | None, int | None],
        listed: dict[Origin, None] | None = None,
        known: frozenset[Origin] = _NONE,
        warned: frozenset[Origin] = _NONE,
    ) -> None:
        self.scheme, self.host, self.port = first
        self.listed = listed
        self.known = known
        self.warned = warned

    def may_go_to(self, url: URL, prefix: str = "") -> tuple[bool, Origins]:
        """May the token be sent to `url`? Also returns the `Origins` for the next request.

        Args:
            url: the URL of the request.
            prefix: the beginning of a warning in the log.

        Raises:
            InsecureOrigin: the URL is plain http to another machine, and its origin is not listed.
        """
        spelt = (url.scheme, url.host, url.port)
        if spelt in self.known or (self.listed is None and url.scheme == "https"):
            return True, self
        origin = origin_of(url)
        if is_allowed(origin, self.listed):
            if self.listed is None and not any(scheme in _LOOPBACK_ONLY for scheme, _, _ in self.known):
                _warn_of_a_proxy(origin, prefix)
            most = _FEW + 2 * len(self.listed or ())
            return True, self if len(self.known) >= most else self._with(known=self.known | {spelt})
        if origin in self.warned or len(self.warned) >= _FEW:
            return False, self
        _log.warning(
            "%sA request to %s is sent without the access token, since origins= %s. "
            "If the token may go there, list it.",
            prefix,
            format_origin(origin),
            self._shown(),
        )
        return False, self._with(warned=self.warned | {origin})

    def _with(self, *, known: frozenset[Origin] | None = None, warned: frozenset[Origin] | None = None) -> Origins:
        first = (self.scheme, self.host, self.port)
        return Origins(first, self.listed, self.known if known is None else known, warned or self.warned)

    def _shown(self) -> str:
        """The listed origins, in words."""
        listed = [format_origin(origin) for origin in self.listed or ()]
        if not listed:
            return "is empty"
        more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
        return f"lists {', '.join(listed[:_SHOWN])}{more}"


ANY_HTTPS = Origins(("https", None, None))  # for auth objects without listed origins, which share it


def origin_of(url: URL) -> Origin:
    """The origin of an httpx or httpx2 `URL` (RFC 6454 section 4), in its normal form, which is ASCII."""
    host = url.raw_host.decode("ascii")
    if ":" in host:
        with suppress(ValueError):
            host = str(ip_address(host))  # the URL classes do not normalise an IPv6 address
    return url.scheme, host, url.port


def format_origin(origin: Origin) -> str:
    """An origin as text: `https://[2001:db8::1]:8443`."""
    scheme, host, port = origin
    return f"{scheme}://" + (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")


def parse_origins(entries: Iterable[str], parse: Callable[[str], URL]) -> Origins:
    """The origins that the user lists.

    Args:
        entries: what the user lists.
        parse: the `URL` class of httpx or httpx2.

    Raises:
        TypeError: `entries` is not a list of strings.
        ValueError: an entry has no scheme or host, or it has a path, a query, a fragment or credentials; or it is a
            pattern that has not the form `https://*.example.com`.
    """
    if isinstance(entries, str):
        raise ValueError(f"{_MUST}, not one string.")  # noqa: TRY004
    if hasattr(entries, "decode") or not hasattr(entries, "__iter__"):  # bytes, or no list at all
        raise TypeError(f"{_MUST}, not {kind_of(entries)}.")
    listed: dict[Origin, None] = {}
    known: dict[Origin, None] = {}
    for entry in entries:
        url, is_pattern = _parse(entry, parse)
        scheme, host, port = origin_of(url)
        listed[scheme, host.replace("x.", "*.", 1) if is_pattern else host, port] = None
        if not is_pattern:
            known |= {(one, url.host, port): None for one in (scheme, _WEBSOCKET.get(scheme, scheme))}
    first = next(iter(known), ("", "", None))
    return Origins(first, listed, frozenset(known))


def _parse(entry: str, parse: Callable[[str], URL]) -> tuple[URL, bool]:
    """An entry as a URL, and whether it is a pattern. The URL of a pattern has an `x` in the place of the star."""
    if not isinstance(cast("object", entry), str):
        instead = " Write str(url), without its path." if hasattr(entry, "raw_path") else ""
        raise TypeError(f"{_MUST}, not of {kind_of(entry)}.{instead}")
    url, star = None, None
    if match := re.fullmatch(_ENTRY, entry):
        scheme, star, rest = match.groups()
        with suppress(Exception):  # the InvalidURL of httpx or httpx2, or another error of their parsers
            url = parse(f"{scheme}{(star and 'x.') or ''}{rest}")
    if url is None or url.scheme not in _SCHEMES or not url.host or (url.port or 0) > _LAST_PORT:
        shown = entry.rpartition("@")[2]  # the text before it may be a password
        raise ValueError(
            f"{shown!a} is not an origin. Write the scheme and one host, the port where it is not the scheme's own, "
            'and no path: "https://api.example.com". "https://*.example.com" admits one label in the place of the star.'
        )
    if star:
        _check_pattern(entry, url)
    return url, bool(star)


def _check_pattern(entry: str, url: URL) -> None:
    _, *labels = url.raw_host.decode("ascii").removesuffix(".").split(".")
    if len(labels) < 2 or not all(labels) or labels[-1].isdigit() or ":" in url.host:
        raise ValueError(
            f"{entry!a} is not an origin: at least two labels of a name follow the star, as in "
            '"https://*.example.com". With fewer, the token would go to hosts of anybody.'
        )


def is_loopback(host: str) -> bool:
    """Does `host` name this machine (RFC 6761 section 6.3, RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3)?"""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_allowed(origin: Origin, listed: Collection[Origin] | None) -> bool:
    """May a token be sent to `origin`? `listed` has the listed origins; None if there is no list.

    Raises:
        InsecureOrigin: `origin` is plain http to another machine, and is not listed.
    """
    scheme, host, port = origin
    if listed is not None:
        label, _, parent = host.partition(".")
        hosts = (host, f"*.{parent}") if label else (host,)
        if any((one, name, port) in listed for one in (scheme, _LISTED_AS.get(scheme, scheme)) for name in hosts):
            return True
    if scheme not in _SECURE and not is_loopback(host):
        where = format_origin(origin)
        raise InsecureOrigin(
            f"The access token would go to {where} in the clear, so the request was not sent. Use https; or list the "
            f'origin, if nobody else can read that line: origins=["{where}"]; or send it without a token: auth=None.'
        )
    return listed is None


def is_same_place(one: Origin, other: Origin) -> bool:
    """Does a redirect from `one` to `other` keep the header? Yes: to the same origin, or from http up to https."""
    if one == other:
        return True
    return (
        one[1] == other[1]
        and (one[0], one[2] or _DEFAULT_PORTS.get(one[0])) == ("http", 80)
        and (other[0], other[2] or _DEFAULT_PORTS.get(other[0])) == ("https", 443)
    )


def _warn_of_a_proxy(origin: Origin, prefix: str) -> None:
    """Warn if `origin` is plain http on loopback, and the environment names a proxy that could read its requests.

    httpx and httpx2 use the proxies of the environment, for loopback as well, unless the client has `trust_env=False`
    or a custom transport. An auth object cannot see the settings of its client.
    """
    from urllib.request import getproxies  # httpx has imported it

    proxies, (scheme, host, _) = getproxies(), origin
    if scheme in _SECURE or not (proxies.get(scheme) or proxies.get("all")):
        return
    for entry in proxies.get("no", "").lower().split(","):
        if entry.strip().rpartition("://")[2] in {"*", host, f"[{host}]"}:
            return
    _log.warning(
        "%sThe access token goes to %s by the proxy that the environment names (HTTP_PROXY or ALL_PROXY), which can "
        "read it, since NO_PROXY does not name %s. Name it there, or make the client with trust_env=False; or list in "
        "origins= where the token may go.",
        prefix,
        format_origin(origin),
        host,
    )
