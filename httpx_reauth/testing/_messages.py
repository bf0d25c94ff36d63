"""The values between client and server: a received request, and the response to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from httpx_reauth._token import Unpicklable
from httpx_reauth.testing._signal import Signal

Headers: TypeAlias = tuple[tuple[str, str], ...]
Drop: TypeAlias = Literal["connect", "read"]
DROP: Final = "read"

Pause: TypeAlias = float | Signal  # seconds, or a wait until the signal is set
Step: TypeAlias = bytes | Pause | Drop  # one step of a streamed body; a `Drop` ends the body in the middle
Body: TypeAlias = bytes | Callable[[], Iterator[Step]]


@dataclass(frozen=True)
class Received(Unpicklable):
    """A request as the server received it. Its `repr` does not show headers and body.

    Attributes:
        method: e.g. `POST`.
        path: only the path, e.g. `/token`.
        query: the text after the question mark, undecoded.
        headers: name (in lower case) and value, in the order of arrival.
        body: the received part of the body.
        truncated: the connection ended before the end of the body (only on real sockets).
        origin: scheme, host and port as the client wrote them, e.g. `https://api.test`.
    """

    method: str
    path: str
    query: str = ""
    headers: Headers = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    truncated: bool = False
    origin: str = field(default="http://localhost", repr=False)

    @classmethod
    def parse(
        cls, method: str, url: str, headers: Iterable[tuple[str, str]], body: bytes, *, truncated: bool = False
    ) -> Received:
        """Make a request from its parts. `url` may be a path or a whole URL."""
        fields = tuple((name.lower(), value) for name, value in headers)
        if not url.startswith("/") or url.startswith("//"):
            parts = urlsplit(url)
            path, query, origin = parts.path or "/", parts.query, f"{parts.scheme}://{parts.netloc}"
        else:
            path, _, query = url.partition("?")
            origin = f"http://{dict(fields).get('host', 'localhost')}"
        return cls(method, path, query, fields, body, truncated, origin)

    def header(self, name: str) -> str | None:
        """Return the header `name` (upper or lower case), or None. Several values are joined (RFC 9110 §5.3)."""
        name = name.lower()
        values = [value for key, value in self.headers if key == name]
        return ", ".join(values) if values else None

    @property
    def authorization(self) -> str | None:
        """The `Authorization` header, or None."""
        return self.header("authorization")

    @property
    def bearer_token(self) -> str | None:
        """The access token in the `Authorization` header (RFC 6750 §2.1), or None."""
        scheme, _, token = (self.authorization or "").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None

    @cached_property
    def form(self) -> dict[str, str]:
        """The fields of a form body. If a field is repeated, the last one counts."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    @cached_property
    def params(self) -> dict[str, str]:
        """The parameters of the query. If a parameter is repeated, the last one counts."""
        return dict(parse_qsl(self.query, keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Answer(Unpicklable):
    """A response of the server. The adapter that sends it to the client also makes the pauses.

    Attributes:
        status: the HTTP status.
        headers: name and value. `Content-Length` is added for a body of bytes.
        body: bytes, or a function that starts a stream of steps. A step is bytes, a number (a pause in seconds), a
            `Signal` (a pause until it is set), or `"read"` (the connection ends before the end of the body).
        waits: pauses before the status is sent.
        drop: there is no response. The connection is closed after the waits (`"read"`), or is refused (`"connect"`; a
            real socket can only close it).
    """

    status: int = 200
    headers: Headers = ()
    body: Body = field(default=b"", repr=False)
    waits: tuple[Pause, ...] = ()
    drop: Drop | None = None


def json_answer(
    status: int, fields: Mapping[str, Any], *headers: tuple[str, str], waits: tuple[Pause, ...] = ()
) -> Answer:
    """Make a response whose body is a JSON object."""
    return Answer(status, (("Content-Type", "application/json"), *headers), json.dumps(fields).encode(), waits)


def close(steps: Iterator[Step]) -> None:
    """End the stream of a body early, so that the `finally` of a generator runs."""
    if isinstance(steps, Generator):
        steps.close()
