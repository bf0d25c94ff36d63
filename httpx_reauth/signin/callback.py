"""Which request to the loopback address is the answer to this sign-in, and what each request gets back. No I/O.

1. An answer comes as `GET {path}?...` with the `state` of this sign-in, each parameter at most once (RFC 6749 section
   3.1). The first such answer counts, whether it brings a code or an error; the wait is over then.
2. A wrong or missing `state`, or a second answer, gets 400, and the wait goes on: any page that is open in the browser
   can send requests to a loopback port.
3. Everything else gets 404: `/favicon.ico`, `HEAD`, `POST`.
4. An answer whose `iss` is not that of the server that was asked is this sign-in's answer all the same (it knows the
   `state`), but it is refused (RFC 9207 section 2.4).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from secrets import compare_digest
from urllib.parse import parse_qsl, urlsplit

from httpx_reauth._errors import printable
from httpx_reauth._token import Unpicklable
from httpx_reauth.signin import page

MAX_HEAD = 65_536  # bytes of a request, its header included: codes of several thousand characters exist

_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e]+) HTTP/1\.[0-9]\r?")
_READ = frozenset({"state", "code", "error", "error_description", "error_uri", "iss"})
_MAX_FIELDS = 100
_SAID_AT_MOST = 300  # characters of a server's words that are kept


@dataclass(frozen=True, slots=True, repr=False)
class Answer(Unpicklable):
    """What the authorization server answered through the browser (RFC 6749 section 4.1.2)."""

    code: str | None = None
    error: str | None = None
    error_description: str | None = None
    error_uri: str | None = None
    has_wrong_issuer: bool = False

    @property
    def is_good(self) -> bool:
        """Does it bring a code that may be used?"""
        return bool(self.code) and self.error is None and not self.has_wrong_issuer

    def __repr__(self) -> str:
        """Neither the code nor the server's words."""
        return f"Answer(is_good={self.is_good})"


@dataclass(frozen=True, slots=True, repr=False)
class Expected(Unpicklable):
    """By what the answer to one sign-in is known.

    Attributes:
        path: of the redirect URI.
        state: what came with the authorization request and must come back (RFC 6749 section 10.12).
        issuer: whose answer it must be (RFC 9207), if that is known.
        iss_required: the server says that all of its answers name the issuer.
    """

    path: str
    state: str
    issuer: str | None = None
    iss_required: bool = False

    def find(self, query: str) -> Answer | None:
        """The answer in the query of a redirect URI, or None if it does not belong to this sign-in."""
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
        """The answer in what a person pasted: the whole address, or its query alone; blanks and breaks are dropped."""
        text = re.sub(r"\x1b\[20[01]~|[\s\x00-\x20\x7f\"'<>]", "", text)  # the first: how a terminal marks a paste
        try:
            query = urlsplit(text).query
        except ValueError:
            return None
        return self.find(query or text.lstrip("?"))

    def __repr__(self) -> str:
        """Not the state."""
        return f"Expected(path={self.path!r})"


def _words(said: str | None) -> str | None:
    """What a server says, fit for one line of a log."""
    return printable(said[:_SAID_AT_MOST]) if said else None


class Callback:
    """The answer of one sign-in, once it has come, and the reply to each request until then."""

    __slots__ = ("answer", "expected")

    def __init__(self, expected: Expected) -> None:
        self.expected = expected
        self.answer: Answer | None = None

    def reply(self, head: bytes) -> bytes:
        """The response to a request whose header is `head`; keeps the answer that it may bring."""
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
