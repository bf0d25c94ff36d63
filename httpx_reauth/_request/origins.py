"""Where a token may go: the listed origins, else any https origin and loopback."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeAlias, cast

from httpx_reauth._errors import InsecureOrigin
from httpx_reauth._state.arguments import kind_of

if TYPE_CHECKING:
    from httpx_reauth._request.packages import URL

Origin: TypeAlias = tuple[str, str, "int | None"]  # scheme, host, port (None: the scheme's own)

_SECURE = frozenset({"https", "wss"})
_SCHEMES = frozenset({"http", "https", "ws", "wss"})
_ORIGIN = r"[A-Za-z]+://(\[[0-9A-Fa-f:.]+\]|[^\s/?#@*:\[\]\\]+)(:[0-9]+)?/?"
_MUST = 'origins must be a list of strings, as in origins=["https://api.example.com"]'
_LAST_PORT = 65_535
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Home:
    """The origin that a token goes to most of the time: what the hot path compares first."""

    __slots__ = ("host", "port", "scheme")

    def __init__(self, scheme: str, host: str | None, port: int | None) -> None:
        self.scheme = scheme
        self.host = host  # None: any
        self.port = port


ANY_HTTPS = Home("https", None, None)  # where no origins are listed


def origin_of(url: URL) -> Origin:
    """The origin of an httpx or httpx2 `URL` (RFC 6454 §4), in one spelling."""
    host = url.host
    if ":" in host:
        with suppress(ValueError):
            host = str(ip_address(host))  # the one thing that the URL classes leave as it was written
    return url.scheme, host, url.port


def spelt(origin: Origin) -> str:
    """An origin as one writes it: `https://[2001:db8::1]:8443`."""
    scheme, host, port = origin
    return f"{scheme}://" + (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")


def listed(origins: Iterable[str], parse: Callable[[str], URL]) -> frozenset[Origin]:
    """The origins that the user lists.

    Raises:
        TypeError: it is no list of strings.
        ValueError: an entry has no scheme or host, or it has a path, a query, a fragment or credentials.
    """
    if isinstance(origins, str):
        raise ValueError(f"{_MUST}, not one string.")  # noqa: TRY004
    if hasattr(origins, "decode") or not hasattr(origins, "__iter__"):  # bytes, or no list at all
        raise TypeError(f"{_MUST}, not {kind_of(origins)}.")
    return frozenset(_listed(entry, parse) for entry in origins)


def _listed(entry: str, parse: Callable[[str], URL]) -> Origin:
    url = None
    if not isinstance(cast("object", entry), str):
        instead = " Write str(url), without its path." if hasattr(entry, "raw_path") else ""
        raise TypeError(f"{_MUST}, not of {kind_of(entry)}.{instead}")
    if re.fullmatch(_ORIGIN, entry):
        with suppress(Exception):  # the InvalidURL of httpx or of httpx2, or what else their parsers let through
            url = parse(entry)
    if url is None or url.scheme not in _SCHEMES or not url.host or (url.port or 0) > _LAST_PORT:
        shown = entry.rpartition("@")[2]  # what stands before it may be a password
        raise ValueError(
            f"{shown!r} is not an origin. Write the scheme and one host, the port where it is not the scheme's own, "
            'and no path: "https://api.example.com".'
        )
    return origin_of(url)


def is_loopback(host: str) -> bool:
    """Does `host` name this machine (RFC 6761 §6.3, RFC 1122 §3.2.1.3, RFC 4291 §2.5.3)?"""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_admitted(origin: Origin, origins: frozenset[Origin] | None) -> bool:
    """May a token go to `origin`? `origins` are the listed ones, None if there is no list.

    Raises:
        InsecureOrigin: it would go over plain http to another machine, and nobody has listed that.
    """
    scheme, host, _ = origin
    if origins is not None and origin in origins:
        return True
    if scheme not in _SECURE and not is_loopback(host):
        where = spelt(origin)
        raise InsecureOrigin(
            f"The access token would go to {where} in the clear, so the request was not sent. Use https; or list the "
            f'origin, if nobody else can read that line: origins=["{where}"]; or send it without a token: auth=None.'
        )
    return origins is None


def is_same_place(one: Origin, other: Origin) -> bool:
    """Is a redirect from `one` to `other` one that keeps the header: to the same origin, or up to https?"""
    if one == other:
        return True
    return (
        one[1] == other[1]
        and (one[0], one[2] or _DEFAULT_PORTS.get(one[0])) == ("http", 80)
        and (other[0], other[2] or _DEFAULT_PORTS.get(other[0])) == ("https", 443)
    )
