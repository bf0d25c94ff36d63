"""Reads a token endpoint's answer: RFC 6749 §5.1 and §5.2, and what servers really send.

It returns the fields of a token, or raises the error that the answer means. It reads no clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import parse_qsl

from httpx_reauth._errors import ReauthError, RefreshError, SignInRequired, printable, sane_retry_after
from httpx_reauth._request.packages import Answer

# The refresh token (or the sign-in behind it) is dead: RFC 6749 §5.2, then what GitHub, Slack and
# Firebase say instead, then OpenID Connect Core §3.1.2.6, as Microsoft's token endpoint answers.
_DEAD = frozenset({
    "invalid_grant",
    "bad_refresh_token",
    "invalid_refresh_token",
    "token_expired",
    "interaction_required",
    "login_required",
    "consent_required",
})  # fmt: skip
_KNOWN = frozenset({"access_token", "refresh_token", "expires_in", "expires_at", "token_type", "scope"})
_BEARER = frozenset({"", "bearer", "bearertoken"})  # RFC 6750 §4; the last is Apigee's
_NUMBER = r"[+-]?[0-9]{1,300}(\.[0-9]{0,300})?"
_LOOKED_AT = 65_536  # characters of a server's words that are looked at; a `Reauth` hides secrets in them, then cuts
_ETERNITY = 1e300  # seconds; more is infinity, or an integer beyond any float
_MILLISECONDS_FROM = 1e11  # as seconds that is the year 5138; some servers count in milliseconds


def token_fields(answer: Answer | Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Token` that `answer` comes to.

    Raises:
        SignInRequired: it says that the refresh token is dead (`invalid_grant`).
        RefreshError: it says anything else than a token.
    """
    if isinstance(answer, Mapping):
        fields: Mapping[str, Any] = answer
        if fields.get("error"):
            raise _refusal(fields, None)
    else:
        decoded = _decode(answer)
        if answer.status_code >= 300 or (decoded is not None and decoded.get("error")):
            raise _refusal(decoded or {}, answer)
        if decoded is None:
            raise RefreshError(
                "The token endpoint's answer is neither a JSON object nor a form, so it brings no token. "
                "Check that the token URL is the right one.",
                status_code=answer.status_code,
            )
        # Of a fresh answer, the lifetime is what counts: it needs no agreement about the time of day.
        # (A mapping may be a stored token, whose lifetime began long ago.)
        fields = decoded
        if _seconds(decoded.get("expires_in")) is not None:
            fields = {name: value for name, value in decoded.items() if name != "expires_at"}
    return {
        "access_token": _text(fields, "access_token", required=True),
        "refresh_token": _text(fields, "refresh_token"),
        "expires_in": _seconds(fields.get("expires_in")),
        "expires_at": _epoch(fields.get("expires_at")),
        "token_type": _token_type(fields.get("token_type")),
        "scope": _scope(fields.get("scope")),
        "extra": {str(name): value for name, value in fields.items() if name not in _KNOWN},
    }


def _decode(response: Answer) -> dict[str, Any] | None:
    """The fields of the body: a JSON object, or the form that some servers send although JSON was asked for."""
    body, declared = response.content, response.headers.get("content-type", "")
    try:
        fields = json.loads(_unicode(body, declared), parse_int=_integer)
    except (ValueError, RecursionError):
        kind = declared.partition(";")[0].strip().lower()
        if kind not in ("application/x-www-form-urlencoded", "text/plain"):
            return None
        try:
            return dict(parse_qsl(body.decode(), max_num_fields=100)) or None
        except ValueError:
            return None
    return cast("dict[str, Any]", fields) if isinstance(fields, dict) else None


def _unicode(body: bytes, content_type: str) -> str | bytes:
    """JSON as it is (RFC 8259 §8.1: UTF-8), or in the encoding that some servers declare instead."""
    declared = re.search(r"charset=\"?([\w.:-]+)", content_type, re.IGNORECASE)
    try:
        body.decode()
    except UnicodeDecodeError:
        if declared is not None:
            with suppress(LookupError):
                return body.decode(declared[1])
    return body


def _integer(digits: str) -> float:
    """An integer however long, which Python refuses to read past some thousands of digits."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _refusal(fields: Mapping[str, Any], response: Answer | None) -> ReauthError:
    status = None if response is None else response.status_code
    code: Any = fields.get("error")
    if isinstance(code, dict):  # {"error": {"code": 400, "message": "TOKEN_EXPIRED"}}, as Google's APIs say it
        code = cast("dict[str, Any]", code).get("message")
    said: dict[str, Any] = {
        "error": _printable(code),
        "error_description": _printable(fields.get("error_description")),
        "error_uri": _printable(fields.get("error_uri")),
    }
    words = f"{said['error'] or 'no error code'}"
    if said["error_description"]:
        words += f" ({said['error_description']})"
    if said["error"] is not None and said["error"].lower() in _DEAD and (status is None or status < 500):
        return SignInRequired(f"The server no longer accepts the refresh token: {words}. Sign in again.", **said)
    if status is not None and 300 <= status < 400:
        return RefreshError(
            f"The token endpoint answered with a redirect ({status}), which is never followed, "
            "since it would carry the credentials elsewhere. Correct the token URL.",
            status_code=status,
            **said,
        )
    where = "" if status is None else f" (status {status})"
    error = RefreshError(
        f"The token endpoint gave no token{where}: {words}. It is asked again after a back-off.",
        status_code=status,
        **said,
    )
    if response is not None:
        _read_retry_after(error, response.headers)
    return error


def _read_retry_after(error: RefreshError, headers: Mapping[str, str]) -> None:
    """`Retry-After` (RFC 9110 §10.2.3): seconds, or a date. A date is counted from the response's own `Date`."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(_NUMBER, value):
        error.retry_after = sane_retry_after(float(value))
        return
    at = _http_date(value)
    if at is None:
        return
    date = _http_date(headers.get("date", ""))
    if date is not None:
        error.retry_after = sane_retry_after(at - date)
    else:
        error.retry_at = at


def _http_date(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        return date.replace(tzinfo=date.tzinfo or timezone.utc).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _text(fields: Mapping[str, Any], name: str, *, required: bool = False) -> str | None:
    value = fields.get(name)
    if value is None or value == "":
        if required:
            raise RefreshError(f"The token endpoint's answer has no {name} (RFC 6749 §5.1): there is nothing to use.")
        return None
    if not isinstance(value, str):
        raise RefreshError(f"The token endpoint's answer has an unusable {name}: {type(value).__name__}, not a string.")
    return value


def _token_type(value: object) -> str:
    if value is None or (isinstance(value, str) and value.strip().lower().replace(" ", "") in _BEARER):
        return "Bearer"
    raise RefreshError(
        "The server issued a token of a type that is not Bearer; a client must not use what it does not "
        "understand (RFC 6749 §7.1). A scheme of another name can be set by hand: Token(token_type=...)."
    )


def _scope(value: object) -> str | None:
    if isinstance(value, (list, tuple)):
        return " ".join(str(scope) for scope in cast("list[object]", value))
    return value if isinstance(value, str) else None


def _seconds(value: object) -> float | None:
    """A number of seconds, however it is spelt; None for what is none (or infinite)."""
    if isinstance(value, str) and re.fullmatch(_NUMBER, value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if -_ETERNITY < value < _ETERNITY else None  # nor NaN


def _epoch(value: object) -> float | None:
    """An absolute time in seconds since the epoch, from a number, its string, or ISO 8601."""
    seconds = _seconds(value)
    if seconds is not None:
        return seconds / 1000 if seconds >= _MILLISECONDS_FROM else seconds
    if not isinstance(value, str):
        return None
    try:
        date = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
        return date.replace(tzinfo=date.tzinfo or timezone.utc).timestamp()
    except (ValueError, OverflowError):
        return None


def _printable(value: object) -> str | None:
    """A server's words, fit for one line of a log."""
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else type(value).__name__
    return printable(text[:_LOOKED_AT])
