"""Decides which request to the loopback address is the answer to this sign-in, and makes the response to each request.

1. An answer is a request `GET {path}?...` with the `state` of this sign-in. No parameter may occur twice (RFC 6749
   section 3.1). The first answer ends the wait, whether it contains a code or an error.
2. A request with a wrong or missing `state` gets a 400, and the wait goes on: any page that is open in the browser can
   send requests to a loopback port. A second answer gets a 400, too.
3. Every other request gets a 404: `/favicon.ico`, `HEAD`, `POST`.
4. An answer with the right `state` and a wrong `iss` ends the wait, too, but it is refused (RFC 9207 section 2.4).

This module does no I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from secrets import compare_digest
from urllib.parse import parse_qsl, urlsplit

from httpx_reauth._errors import printable
from httpx_reauth._token import Unpicklable
from httpx_reauth.signin import page

MAX_HEAD = 65_536  # bytes of a request with its headers; some servers send codes of several thousand characters

_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e]+) HTTP/1\.[0-9]\r?")
_READ = frozenset({"state", "code", "error", "error_description", "error_uri", "iss"})
_MAX_FIELDS = 100
_SAID_AT_MOST = 300  # characters of the server's text that are kept


@dataclass(frozen=True, slots=True, repr=False)
class Answer(Unpicklable):
    """The answer of the authorization server, which the browser has brought (RFC 6749 section 4.1.2)."""

    code: str | None = None
    error: str | None = None
    error_description: str | None = None
    error_uri: str | None = None
    has_wrong_issuer: bool = False

    @property
    def is_good(self) -> bool:
        """Does the answer contain a code that may be used?"""
        return bool(self.code) and self.error is None and not self.has_wrong_issuer

    def __repr__(self) -> str:
        """Whether the answer is good, without the code and the server's text."""
        return f"Answer(is_good={self.is_good})"


@dataclass(frozen=True, slots=True, repr=False)
class Expected(Unpicklable):
    """The values by which the program recognizes the answer to one sign-in.

    Attributes:
        path: the path of the redirect URI.
        state: the random value of the authorization request, which the answer must repeat (RFC 6749 section 10.12).
        issuer: the name of the server (RFC 9207), if it is known.
        iss_required: every answer must name the issuer. The server's metadata document says so.
    """

    path: str
    state: str
    issuer: str | None = None
    iss_required: bool = False

    def find(self, query: str) -> Answer | None:
        """Return the answer in `query`, the query of a redirect URI; None if it does not belong to this sign-in."""
        try:
            pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
        except ValueError:
            return None
        read = [(name, value) for name, value in pairs if name in _READ]
        fields = dict(read)
        state = fields.get("state", "").encode(errors="replace")
        if len(fields) != len(read) or not compare_digest(state, self.state.encode()):
            return None
        iss = fields.get("iss")
        return Answer(
            code=fields.get("code") or None,
            error=_words(fields.get("error")),
            error_description=_words(fields.get("error_description")),
            error_uri=_words(fields.get("error_uri")),
            has_wrong_issuer=self.issuer is not None and iss != self.issuer and (iss is not None or self.iss_required),
        )

    def find_in_pasted(self, text: str) -> Answer | None:
        """Return the answer in `text`, which a person has pasted: the whole URL, or only its query.

        Spaces and line breaks in `text` are ignored.
        """
        text = re.sub(r"\x1b\[20[01]~|[\s\x00-\x20\x7f\"'<>]", "", text)  # ESC [200~ and ESC [201~ enclose a paste
        try:
            query = urlsplit(text).query
        except ValueError:
            return None
        return self.find(query or text.lstrip("?"))

    def __repr__(self) -> str:
        """The path, without the state."""
        return f"Expected(path={self.path!r})"


def _words(said: str | None) -> str | None:
    """Return the server's text in a form that fits in one line of a log."""
    return printable(said[:_SAID_AT_MOST]) if said else None


class Callback:
    """Makes the response to each request at the loopback address, and keeps the answer of the sign-in."""

    __slots__ = ("answer", "expected")

    def __init__(self, expected: Expected) -> None:
        self.expected = expected
        self.answer: Answer | None = None

    def reply(self, head: bytes) -> bytes:
        """Return the response to the request with the header `head`. If the request is the answer, keep the answer."""
        line = _REQUEST_LINE.fullmatch(head.partition(b"\n")[0])
        if line is None:
            return page.reply(400, page.NOT_HTTP)
        method, target = line[1], line[2].decode("ascii")
        path, _, query = target.partition("?")
        if method != b"GET" or path != self.expected.path:
            return page.reply(404, page.NOT_FOUND, with_body=method != b"HEAD")
        answer = self.expected.find(query) if self.answer is None else None
        if answer is None:
            return page.reply(400, page.NOT_OURS)
        self.answer = answer
        if answer.is_good:
            return page.reply(200, page.RECEIVED)
        return page.reply(400 if answer.has_wrong_issuer else 200, page.REFUSED)
