"""The faults that a test can choose: `server.token_endpoint.fail(faults.unavailable(), faults.dropped())`."""

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
    """A response that replaces the normal response to a request.

    Attributes:
        answer: the response that the client gets.
        processed: if true, the request takes effect (for example, the refresh token is rotated), and its normal
            response is lost. If false, the request changes nothing.
        hangs: if true, the response is not sent before the server is closed.
    """

    answer: Answer
    processed: bool = False
    hangs: bool = False

    def after_processing(self) -> Fault:
        """Return the same fault, but the request takes effect first: `dropped().after_processing()`."""
        return replace(self, processed=True)


def reply(
    status: int = 200, body: bytes | str | Mapping[str, Any] = b"", headers: Mapping[str, str] | None = None
) -> Fault:
    """Return a fault with any response.

    Args:
        status: the HTTP status.
        body: bytes or a string are sent unchanged; a mapping is sent as JSON, with its `Content-Type`.
        headers: more headers.

    Raises:
        TypeError: the status or the body has a wrong type.
    """
    check("status", status, int, "an HTTP status")
    check("body", body, (bytes, str, Mapping), "bytes, a string or a mapping, which becomes JSON", _FOR_OTHER_JSON)
    fields = dict(headers or {})
    if isinstance(body, Mapping):
        fields = {"Content-Type": "application/json", **fields}
        body = json.dumps(body)
    return Fault(Answer(status, tuple(fields.items()), body.encode() if isinstance(body, str) else body))


def unavailable(retry_after: float | datetime | None = None) -> Fault:
    """Return a 503 with a body that is not JSON. `retry_after` is the same as for `too_many_requests`."""
    return reply(503, "<h1>Service Unavailable</h1>", {"Content-Type": "text/html", **_retry_after(retry_after)})


def too_many_requests(retry_after: float | datetime | None = None) -> Fault:
    """Return a 429.

    Args:
        retry_after: seconds, or a time with a time zone, which is sent as an HTTP date (RFC 9110 §10.2.3).
    """
    return reply(429, {"error": "slow_down"}, _retry_after(retry_after))


def redirect(to: str, status: int = 307) -> Fault:
    """Return a redirect to the URL `to`."""
    return reply(status, headers={"Location": to})


def html(status: int = 200) -> Fault:
    """Return an HTML page in place of JSON, as a proxy, a captive portal or a web server for people does."""
    return reply(status, "<!doctype html><title>Welcome</title>", {"Content-Type": "text/html"})


def metadata_of(issuer: str) -> Fault:
    """Return the document of a different server, with that server's endpoints. For `metadata_endpoint`."""
    fields = {"issuer": issuer, "token_endpoint": f"{issuer}/token", "authorization_endpoint": f"{issuer}/authorize"}
    return reply(200, {**fields, "revocation_endpoint": f"{issuer}/revoke"})


def replayed_jti() -> Fault:
    """Refuse the client's assertion, because it was used before (RFC 7523 section 3). For `token_endpoint`."""
    return _error("invalid_client", "This jti has been used before.")


def authorization_pending() -> Fault:
    """Say that the user of the device has not answered yet (RFC 8628 section 3.5). For `token_endpoint`."""
    return _error("authorization_pending", "The user has not answered yet.")


def slow_down() -> Fault:
    """Say that the device polls too often (RFC 8628 section 3.5). For `token_endpoint`."""
    return _error("slow_down", "Wait 5 s longer between two looks.")


def expired_token() -> Fault:
    """Say that the code of the device has expired (RFC 8628 section 3.5). For `token_endpoint`."""
    return _error("expired_token", "The device code has expired.")


def access_denied() -> Fault:
    """Say that the user of the device refused (RFC 8628 section 3.5). For `token_endpoint`."""
    return _error("access_denied", "The user said no.")


def unsupported_token_type() -> Fault:
    """Say that the server does not revoke tokens of this type (RFC 7009 section 2.2.1). For `revocation_endpoint`."""
    return _error("unsupported_token_type", "Tokens of this type are not revoked here.")


def dropped() -> Fault:
    """Close the connection without a response: a `RemoteProtocolError` in httpx.

    With `dropped().after_processing()`, the request takes effect and its response is lost.
    """
    return Fault(Answer(drop="read"))


def refused_connection() -> Fault:
    """Refuse the connection: a `ConnectError`. On a real socket this is the same as `dropped`."""
    return Fault(Answer(drop="connect"))


def hanging() -> Fault:
    """Send no response before the server is closed: a `ReadTimeout`, if the client has a read timeout."""
    return Fault(Answer(drop="read"), hangs=True)


def cut_off(body: bytes | str = b'{"access_to', status: int = 200) -> Fault:
    """Close the connection in the middle of the response body, after `body`: a `RemoteProtocolError`."""
    first = body.encode() if isinstance(body, str) else body

    def steps() -> Iterator[Step]:
        yield first
        yield DROP

    return Fault(Answer(status, (("Content-Type", "application/json"),), steps))


def endless(status: int = 200, chunk: bytes = b" " * _CHUNK) -> Fault:
    """Send a response whose body has no end: `chunk` (by default 64 KiB of spaces) again and again."""

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
