"""What can be ordered to go wrong: `server.token_endpoint.fail(faults.unavailable(), faults.dropped())`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Any

from httpx_reauth._state.arguments import check
from httpx_reauth.testing._messages import DROP, Answer, Step

__all__ = [
    "Fault",
    "access_denied",
    "authorization_pending",
    "cut_off",
    "dropped",
    "endless",
    "expired_token",
    "hanging",
    "html",
    "metadata_of",
    "redirect",
    "refused_connection",
    "replayed_jti",
    "reply",
    "slow_down",
    "too_many_requests",
    "unavailable",
    "unsupported_token_type",
]

_CHUNK = 64 * 1024
_FOR_OTHER_JSON = 'For other JSON, write faults.reply(200, json.dumps(...), {"Content-Type": "application/json"}).'


@dataclass(frozen=True, slots=True)
class Fault:
    """One answer that is not the one the request deserves.

    Attributes:
        answer: what the client gets instead.
        processed: the request takes effect nevertheless (a rotation is committed), and its own answer is lost.
            Otherwise the request changes nothing.
        hangs: `answer` never comes, until the server is closed.
    """

    answer: Answer
    processed: bool = False
    hangs: bool = False

    def after_processing(self) -> Fault:
        """The same fault, but the request has taken effect before: `dropped().after_processing()`."""
        return replace(self, processed=True)


def reply(
    status: int = 200, body: bytes | str | Mapping[str, Any] = b"", headers: Mapping[str, str] | None = None
) -> Fault:
    """Any answer whatsoever.

    Args:
        status: the HTTP status.
        body: bytes or a text as they are; a mapping becomes JSON, with its `Content-Type`.
        headers: further headers.

    Raises:
        TypeError: the status or the body is of another kind.
    """
    check("status", status, int, "an HTTP status")
    check("body", body, (bytes, str, Mapping), "bytes, a string or a mapping, which becomes JSON", _FOR_OTHER_JSON)
    fields = dict(headers or {})
    if isinstance(body, Mapping):
        fields = {"Content-Type": "application/json", **fields}
        body = json.dumps(body)
    return Fault(Answer(status, tuple(fields.items()), body.encode() if isinstance(body, str) else body))


def unavailable(retry_after: float | datetime | None = None) -> Fault:
    """503 with a body that is not JSON; `retry_after` as in `too_many_requests`."""
    return reply(503, "<h1>Service Unavailable</h1>", {"Content-Type": "text/html", **_retry_after(retry_after)})


def too_many_requests(retry_after: float | datetime | None = None) -> Fault:
    """429.

    Args:
        retry_after: seconds, or an aware time which is sent as an HTTP date (RFC 9110 §10.2.3).
    """
    return reply(429, {"error": "slow_down"}, _retry_after(retry_after))


def redirect(to: str, status: int = 307) -> Fault:
    """A redirect to the URL `to`."""
    return reply(status, headers={"Location": to})


def html(status: int = 200) -> Fault:
    """A page for people, where JSON is due: a proxy's, a captive portal's, a server's that answers to any path."""
    return reply(status, "<!doctype html><title>Welcome</title>", {"Content-Type": "text/html"})


def metadata_of(issuer: str) -> Fault:
    """For `metadata_endpoint`: the document of another server, with that server's endpoints."""
    fields = {"issuer": issuer, "token_endpoint": f"{issuer}/token", "authorization_endpoint": f"{issuer}/authorize"}
    return reply(200, {**fields, "revocation_endpoint": f"{issuer}/revoke"})


def replayed_jti() -> Fault:
    """For `token_endpoint`: the client's assertion is refused as one that came before (RFC 7523 section 3)."""
    return _error("invalid_client", "This jti has been used before.")


def authorization_pending() -> Fault:
    """For `token_endpoint`: the device's user has not answered yet (RFC 8628 section 3.5)."""
    return _error("authorization_pending", "The user has not answered yet.")


def slow_down() -> Fault:
    """For `token_endpoint`: the device looks too often (RFC 8628 section 3.5)."""
    return _error("slow_down", "Wait 5 s longer between two looks.")


def expired_token() -> Fault:
    """For `token_endpoint`: the device's code has expired (RFC 8628 section 3.5)."""
    return _error("expired_token", "The device code has expired.")


def access_denied() -> Fault:
    """For `token_endpoint`: the device's user said no (RFC 8628 section 3.5)."""
    return _error("access_denied", "The user said no.")


def unsupported_token_type() -> Fault:
    """For `revocation_endpoint`: the server does not revoke tokens of this type (RFC 7009 section 2.2.1)."""
    return _error("unsupported_token_type", "Tokens of this type are not revoked here.")


def dropped() -> Fault:
    """The connection is closed without an answer: `RemoteProtocolError` in httpx.

    `dropped().after_processing()` loses the answer of a request that has taken effect.
    """
    return Fault(Answer(drop="read"))


def refused_connection() -> Fault:
    """The connection is not even made: `ConnectError`. A real socket, having got the request, can only be `dropped`."""
    return Fault(Answer(drop="connect"))


def hanging() -> Fault:
    """No answer ever comes (until the server is closed): `ReadTimeout`, if the client has one."""
    return Fault(Answer(drop="read"), hangs=True)


def cut_off(body: bytes | str = b'{"access_to', status: int = 200) -> Fault:
    """The connection is closed in the middle of the answer's body, after `body`: `RemoteProtocolError`."""
    first = body.encode() if isinstance(body, str) else body

    def steps() -> Iterator[Step]:
        yield first
        yield DROP

    return Fault(Answer(status, (("Content-Type", "application/json"),), steps))


def endless(status: int = 200, chunk: bytes = b" " * _CHUNK) -> Fault:
    """An answer whose body has no end: `chunk` (by default 64 KiB of blanks) again and again."""

    def steps() -> Iterator[Step]:
        while True:
            yield chunk

    return Fault(Answer(status, (("Content-Type", "application/json"),), steps))


def _error(error: str, description: str) -> Fault:
    return reply(400, {"error": error, "error_description": description})


def _retry_after(value: float | datetime | None) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, datetime):
        return {"Retry-After": format_datetime(value.astimezone(timezone.utc), usegmt=True)}
    return {"Retry-After": f"{value:g}"}
