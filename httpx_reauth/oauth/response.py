"""Reads the response of a token endpoint: as in RFC 6749 sections 5.1 and 5.2, and as servers really write it.

1. A response is decoded as JSON or as a form, whatever its content type is.
2. If its status is 300 or more, or if it has an `error`, the response is a refusal; see `_refusal`. If it has no access
   token, and its code or its text means that the refresh token is dead, it is a refusal, too.
3. Otherwise its fields become the arguments of a `Token`. If servers write a field in several ways, each of these ways
   is read. A field that cannot be read is left out, unless the token would be useless without it.
4. If there is an error, a refresh token in the response is attached to the error, because it may have replaced the one
   that was sent. The message of the error repeats no token of the response.

This module reads no clock.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeAlias, cast
from urllib.parse import parse_qsl, urlsplit

from httpx_reauth._errors import (
    Meaning,
    ReauthError,
    RefreshError,
    SignInRequired,
    in_ascii,
    in_our_words,
    keep_refresh_token,
    printable,
    quoted,
    sane_retry_after,
)
from httpx_reauth._request.packages import Answer
from httpx_reauth._state.policy import means_later
from httpx_reauth._token import LATEST, NO_ACCESS_TOKEN, Token
from httpx_reauth.oauth.redaction import further_fields, redact

_log = logging.getLogger("httpx_reauth")

Dead: TypeAlias = Collection[str] | Callable[[Any], bool]  # a server's own codes, or a function that gets its response

# These codes mean that the server does not accept the refresh token, or the sign-in behind it, any more (it is dead).
# The first is that of RFC 6749 section 5.2. GitHub, HubSpot, Slack, Firebase, Supabase and Django's simplejwt send
# codes of their own. Keycloak and UAA send `invalid_token` (RFC 6750 section 3.1). Microsoft's token endpoint sends the
# last three (OpenID Connect Core section 3.1.2.6).
_DEAD = frozenset({
    "invalid_grant",
    "bad_refresh_token",
    "invalid_refresh_token",
    "refresh_token_expired",
    "token_expired",
    "refresh_token_not_found",
    "token_not_valid",
    "invalid_token",
    "interaction_required",
    "login_required",
    "consent_required",
})  # fmt: skip
# Some servers send a text in place of `invalid_grant`. The text names the refresh token, and says that it is expired,
# revoked, invalid, already used, or cannot be read. No other text counts: a false "dead" would cost a sign-in.
_REFRESH_TOKEN = r"\brefresh[ _-]?token\b(?![ _-](?:grant|type))"
_BAD = r"expired|revoked|invalid(?:ated)?|malformed|reused|(?:already|previously) used"
_UNREAD = r"(?:can(?:not|'t| not)|could(?: not|n't)|unable to|failed to) (?:be )?(?:read|(?:parse|decode|decrypte?)d?)"
_LINK = (
    r"(?:\W+(?:provided|supplied|given|sent|passed|presented|submitted|specified|you|that|is|was|has|have|been|be|either"
    r"|or|an?|the|string|value|[A-Za-z]{0,8}\d\w{0,40}|\w{20,}))*\W+"
)
_IS_NO_GOOD = re.compile(
    rf"\b(?:{_BAD}|{_UNREAD}) (?:(?:the|a|your|this|provided|supplied|given) )*{_REFRESH_TOKEN}"
    rf"|{_REFRESH_TOKEN}{_LINK}(?:{_BAD}|{_UNREAD}|(?:not|no longer) valid|already been used|been (?:already )?used"
    r"|used (?:already|before|twice|more than once))\b",
    re.IGNORECASE,
)
_DID_NOT_ARRIVE = re.compile(r"\b(?:missing|required?|empty|absent|must)\b", re.IGNORECASE)
# Salesforce and others send `invalid_grant` with such a text, although the refresh token is valid: another request is
# refreshing the token at this moment.
_BEING_PROCESSED = re.compile(
    r"\b(?:being processed|(?:already|refresh|request|rotation)\b.{0,25}\bin progress|(?:try|retry)(?: again)? later)",
    re.IGNORECASE,
)

_CODES = ("error", "errors", "error_code", "errorCode", "code", "status")  # the fields that may contain a code
_CODES_INSIDE = (*_CODES, "errorType", "type", "reason", "message")  # these fields, if the error is an object
_WORDS = (
    "error_description",
    "errorDescription",
    "error_message",
    "errorMessage",
    "message",
    "msg",
    "detail",
    "description",
    "title",
)  # fmt: skip
_CODE = re.compile(r"[\w:/-]+(?:\.[\w:/-]+)*", re.ASCII)  # a code is one word; any other text is a sentence
_SAYS_NOTHING = frozenset(
    {"error", "errors", "fail", "failed", "failure", "ko", "nok", "false", "true", "ok", "success"}
)
_MANY = 16  # a response may have this many errors; further ones are ignored

_KNOWN = frozenset({
    "access_token",
    "refresh_token",
    "expires_in",
    "expires_at",
    "expires_on",
    "token_type",
    "scope",
})  # fmt: skip
_OF_AN_ERROR = frozenset({"error", "error_description", "error_uri"})
# Schemes that need more than the token in a header (RFC 9449, RFC 9200, the draft of MAC tokens), and the type of a
# token that is not for a header (RFC 8693 section 2.2.1). Any other type is a server's own name for Bearer.
_OTHER_SCHEMES = frozenset({"mac", "dpop", "pop", NO_ACCESS_TOKEN.lower()})
_BEARER = frozenset({"", "bearer", "bearertoken"})  # RFC 6750 section 4; Apigee sends the last
_SCHEME_IN_FRONT = re.compile(r"bearer\s+", re.IGNORECASE)

_NUMBER = r"[+-]?[0-9]{1,300}(\.[0-9]{0,300})?"
_LONGEST_URL = 200  # an error shows this many characters of a URL
_WORDS_READ = 2_000  # characters at the beginning of a server's text that are searched for a dead refresh token
_LOOKED_AT = 65_536  # characters of a server's text that are kept here; `redact` removes secrets and then shortens it
_ETERNITY = 1e300  # seconds; beyond it, sums of floats and integers overflow
_MILLISECONDS_FROM = 1e11  # as seconds, this is the year 5138, so a larger number counts milliseconds or smaller units
_SINCE_THE_EPOCH_FROM = 1e9  # seconds; a smaller reset time of a rate limit counts from now, not from the epoch
_ISO_8601 = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)(?:[Tt ]\s*(\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d+))?)?)?\s*(?:[Zz]|([+-])(\d\d):?(\d\d)?)?"
)
# These headers are not in RFC 9110. The first is in draft-ietf-httpapi-ratelimit-headers; Okta sends the last.
_RATE_LIMITS = ("ratelimit-reset", "x-ratelimit-reset", "x-rate-limit-reset")

_TYPE_SHOWN = 40  # a log line shows this many characters of a token type
_NAME = re.compile(r"[A-Za-z_-]{1,30}")  # a field's name that an error may show; with digits, it might be a secret
_NAMES_SHOWN = 8  # an error shows this many names of fields
_named: set[str] = set()  # the token types that are not a scheme and that have been logged
_NAMED_AT_MOST = 32  # further token types are not logged


def token_fields(
    answer: Answer | Mapping[str, Any], dead: Dead = (), *, may_be_no_access_token: bool = False
) -> dict[str, Any]:
    """Return the arguments of `Token` for `answer`.

    Args:
        answer: a response that has been read, or its fields.
        dead: the server's own codes for a dead refresh token. Or a function that gets `answer`, and returns True if the
            refresh token is dead.
        may_be_no_access_token: accept the type `N_A` (RFC 8693 section 2.2.1).

    Raises:
        SignInRequired: the refresh token is dead (`invalid_grant`).
        RefreshError: `answer` is a different error, or has no usable token.
        TypeError: `answer` is not a response.
    """
    _check(answer)
    fields: Mapping[str, Any] | None
    if isinstance(answer, Mapping):
        fields, response = answer, None
    else:
        fields, response = _decode(answer), answer
    try:
        read = _token_fields(fields, response, lambda codes: _is_dead(codes, answer, dead))
        is_no_access_token = may_be_no_access_token and str(read["token_type"]).lower() == NO_ACCESS_TOKEN.lower()
        return {**read, "token_type": NO_ACCESS_TOKEN if is_no_access_token else _token_type(read["token_type"])}
    except ReauthError as error:
        keep_refresh_token_of(answer, error)
        raise


def unusable(why: ValueError, answer: Answer | Mapping[str, Any]) -> RefreshError:
    """Return the error for an `answer` from which no `Token` can be made; `why` is the error of `Token`."""
    error = in_our_words(RefreshError(f"The token endpoint's answer is unusable. {why}"))
    keep_refresh_token_of(answer, error)
    return error


def keep_refresh_token_of(answer: object, error: BaseException) -> None:
    """Attach the refresh token in `answer`, which is unusable, to `error`. Remove the tokens in `answer` from `error`.

    Args:
        answer: the response of a server, or the result of a refresh function that is not a `Token`.
        error: the error that is raised for `answer`.
    """
    fields: object = answer
    text = ""
    if not isinstance(answer, Mapping):
        try:
            content, headers = cast("Answer", answer).content, cast("Answer", answer).headers
        except (AttributeError, RuntimeError):  # `answer` is not a response, or was not read
            return
        if not (isinstance(cast("object", content), bytes) and isinstance(cast("object", headers), Mapping)):
            return
        fields, text = _decode(cast("Answer", answer)), content.decode("utf-8", "replace")
    fields = cast("Mapping[str, Any]", fields or {})
    refresh_token = _refresh_token(fields)
    if not isinstance(refresh_token, str):
        refresh_token = _refresh_token_in(text or _json(fields))
    access_token = fields.get("access_token")
    redact(error, refresh_token, access_token if isinstance(access_token, str) else None)
    with suppress(ValueError):  # a refresh token that cannot be sent is dropped
        keep_refresh_token(error, Token(refresh_token=refresh_token).refresh_token)


def keep_refresh_token_in(text: str, error: BaseException) -> None:
    """Attach the refresh token in `text`, which cannot be decoded, to `error`."""
    with suppress(ValueError):
        keep_refresh_token(error, Token(refresh_token=_refresh_token_in(text)).refresh_token)


def _refresh_token_in(text: str) -> str | None:
    """Return the refresh token that is anywhere in `text`: in a nested object, or in incomplete JSON."""
    found = re.search(r'"refresh_?token"\s*:\s*("(?:[^"\\]|\\.)+")', text, re.IGNORECASE)
    try:
        return None if found is None else json.loads(found[1])
    except ValueError:
        return None


def _check(answer: object) -> None:
    """Raise a `TypeError` if `answer` is not a response or a mapping; the message says what to write."""
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()  # otherwise Python would warn that it was never awaited
        raise TypeError(
            "Token.from_response got an awaitable, not a response: await the request first, as in "
            "Token.from_response(await client.post(...))."
        )
    if isinstance(answer, Mapping) or (
        isinstance(getattr(answer, "status_code", None), int) and isinstance(cast("Any", answer).content, bytes)
    ):
        return
    raise TypeError(
        f"Token.from_response takes a token endpoint's response that has been read, or its fields as a mapping, not "
        f"{type(answer).__name__}. Give it what client.post(...) returns, or response.json() if that is an object."
    )


def _token_fields(
    fields: Mapping[str, Any] | None, response: Answer | None, is_dead: Callable[[list[str]], bool]
) -> dict[str, Any]:
    if response is not None and response.status_code >= 300:
        raise _refusal(fields or {}, response, is_dead)
    if fields is None:
        raise _no_endpoint(
            "The token endpoint's answer is neither a JSON object nor a form, so it brings no token", response, {}
        )
    is_none = not fields.get("access_token")
    if fields.get("error") or (is_none and (fields.get("errors") or is_dead(_signs(fields, None, _words(fields))))):
        raise _refusal(fields, response, is_dead)
    expires_in = _seconds(fields.get("expires_in"))
    expires_at = _epoch(fields.get("expires_at"))
    if expires_at is None:
        expires_at = _epoch(fields.get("expires_on"))  # Azure sends this field
    if response is not None and expires_in is not None:
        # For a new response, only the lifetime is used, since the clocks of the two machines may differ. (A mapping may
        # be a stored token, whose lifetime began earlier.)
        expires_at = None
    return {
        "access_token": _SCHEME_IN_FRONT.sub("", _access_token(fields, response), count=1),
        "refresh_token": _as_text("refresh_token", _refresh_token(fields)),
        "expires_in": expires_in,
        "expires_at": expires_at,
        "token_type": fields.get("token_type"),  # as the server writes it
        "scope": _scope(fields.get("scope")),
        "extra": {str(name): value for name, value in fields.items() if name not in _KNOWN},
    }


# The text of a response.


def _decode(response: Answer) -> dict[str, Any] | None:
    """Return the fields of the body: a JSON object, or a form, which some servers send although we request JSON."""
    body, declared = response.content, response.headers.get("content-type", "")
    try:
        fields = json.loads(_unicode(body, declared), parse_int=_integer)
    except (ValueError, RecursionError):
        kind = declared.partition(";")[0].strip().lower()
        try:
            form = dict(parse_qsl(body.decode(), max_num_fields=100))
        except ValueError:
            return None
        is_called_one = kind in ("application/x-www-form-urlencoded", "text/plain")
        return (form or None) if is_called_one or not form.keys().isdisjoint(("access_token", "error")) else None
    return cast("dict[str, Any]", fields) if isinstance(fields, dict) else None


def _unicode(body: bytes, content_type: str) -> str | bytes:
    """Return `body` for `json.loads`: as it is if it is UTF-8 (RFC 8259 section 8.1), else decoded as declared."""
    declared = re.search(r"charset=\"?([\w.:-]+)", content_type, re.IGNORECASE | re.ASCII)
    try:
        body.decode()
    except UnicodeDecodeError:
        if declared is not None:
            with suppress(LookupError):
                return body.decode(declared[1])
    return body


def _integer(digits: str) -> float:
    """Return an integer of any length. Python's `int` refuses a text with some thousands of digits."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


# A response without a token.


def _refusal(fields: Mapping[str, Any], response: Answer | None, is_dead: Callable[[list[str]], bool]) -> ReauthError:
    """Return the error for a response that is a refusal."""
    status = None if response is None else response.status_code
    codes, words = _codes(fields), _words(fields)
    code = _code(fields, codes, status)
    said: dict[str, Any] = {
        "error": code,
        "error_description": None if words == code else words,
        "error_uri": _shown(fields.get("error_uri")),
        "extra": further_fields(fields, _OF_AN_ERROR),
    }
    if fields.get("error") == 400 and status in (None, 400) and (words or "Bad Request") == "Bad Request":
        meaning: Meaning = "dead"  # Reddit sends only this
    else:
        meaning = _meaning(code, words, status, is_dead=is_dead(_signs(fields, code, words)))
    what = quoted(code, said["error_description"])
    if meaning == "dead":
        return in_our_words(
            SignInRequired(
                f"The server does not accept the refresh token, the code or the login that it was sent: {what}. "
                "Sign in again.",
                **said,
            ),
            meaning,
        )
    if status is not None and 300 <= status < 400:
        return in_our_words(
            RefreshError(
                f"The token endpoint answered with a redirect ({status}), which is never followed, "
                "since it would carry the credentials elsewhere. Correct the token URL.",
                status_code=status,
                **said,
            )
        )
    where = "" if status is None else f" (status {status})"
    no_token = f"The token endpoint gave no token{where}: {what}"
    if code is None and status is not None and (status in (404, 405, 410) or (status < 500 and _is_html(response))):
        error = _no_endpoint(no_token, response, said)
    else:
        error = in_our_words(
            RefreshError(f"{no_token}. It is asked again after a back-off.", status_code=status, **said), meaning
        )
    if response is not None:
        read_retry_after(error, response)
    return error


def _no_endpoint(what: str, response: Answer | None, said: Mapping[str, Any]) -> RefreshError:
    """Return the error for a response that does not come from a token endpoint."""
    try:
        url = urlsplit(str(cast("Any", response).request.url))
        host = url.netloc.rpartition("@")[2]
        where = f": {in_ascii(printable(f'{url.scheme}://{host}{url.path}'[:_LONGEST_URL]))}"
    except (AttributeError, RuntimeError, ValueError):  # a response that was made by hand has no request
        where = ""
    return in_our_words(
        RefreshError(
            f"{what}. Check that the token URL is the right one{where}",
            status_code=None if response is None else response.status_code,
            **said,
        )
    )


def _is_html(response: Answer | None) -> bool:
    if response is None:
        return False
    return "html" in response.headers.get("content-type", "").lower() or response.content.lstrip()[:1] == b"<"


def _meaning(code: str | None, words: str | None, status: int | None, *, is_dead: bool) -> Meaning:
    """Return the meaning of a refusal for the next attempt, if it does not follow from status and code."""
    if is_dead:
        return "later" if words and _BEING_PROCESSED.search(words) else "dead"
    if status not in (None, 400, 401, 403):
        return ""
    spoken = (code or "").replace("_", " ")  # a code may say it as well: `REFRESH_TOKEN_REVOKED`
    start = (f"{spoken}. {words or ''}" if _is_vague(code) else spoken)[:_WORDS_READ]
    return "dead" if _IS_NO_GOOD.search(start) and not _DID_NOT_ARRIVE.search(start) else ""


def _is_dead(codes: list[str], answer: Answer | Mapping[str, Any], dead: Dead) -> bool:
    """Does one of `codes` mean that the refresh token is dead?"""
    if callable(dead):
        if dead(answer):
            return True
    elif not {code.lower() for code in dead}.isdisjoint(code.lower() for code in codes):
        return True
    status = None if isinstance(answer, Mapping) else answer.status_code
    if status is not None and means_later(status):  # a server that is down or busy cannot know this
        return False
    return any(code.lower() in _DEAD for code in codes)


def _signs(fields: Mapping[str, Any], code: str | None, words: str | None) -> list[str]:
    """Return each text that may be a code for a dead refresh token. Some servers use the description for the code."""
    return [*_codes(fields), *filter(None, (code, words if _is_vague(code) else None))]


def _is_vague(code: str | None) -> bool:
    """Does only the description say what is wrong? True if `code` is missing, too general, a number or a sentence."""
    return code is None or code == "invalid_request" or code.isdigit() or not _CODE.fullmatch(code)


def _codes(value: Any, names: tuple[str, ...] = _CODES, depth: int = 3) -> list[str]:
    """Return each text in `value` that may be a code. The field of RFC 6749 section 5.2 is the first."""
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        inside = [fields.get(name) for name in names]
        if isinstance(fields.get("detail"), Mapping):  # FastAPI puts the error there
            inside.append(fields["detail"])
    elif isinstance(value, (list, tuple)):
        inside = list(cast("list[Any]", value)[:_MANY])
    else:
        is_one = (isinstance(value, (str, int)) and not isinstance(value, bool)) and value != ""
        return [str(value)[:_LOOKED_AT].strip()] if is_one else []
    return [code for one in inside for code in _codes(one, _CODES_INSIDE, depth - 1)] if depth else []


def _code(fields: Mapping[str, Any], codes: list[str], status: int | None) -> str | None:
    """Return the code that the error shows: the field `error`, if it is a code, else the best of `codes`."""
    error = fields.get("error")
    says_nothing = {*_SAYS_NOTHING, _letters(HTTPStatus(status).phrase) if status in set(HTTPStatus) else ""}
    if isinstance(error, str) and error and _letters(error) not in says_nothing:
        return printable(error[:_LOOKED_AT])
    dead = [code for code in _signs(fields, None, _words(fields)) if code.lower() in _DEAD]
    words = [code for code in codes if _CODE.fullmatch(code) and _letters(code) not in says_nothing]
    named = [code for code in words if not code.isdigit()]
    best = dead or named or [code for code in words if code == str(error) or code != str(status)]
    return printable(best[0]) if best else None


def _letters(code: str) -> str:
    """Return `code` in lower case, without spaces and punctuation: so `NOT_FOUND` equals `Not Found`."""
    return re.sub(r"[\W_]+", "", code).lower()


def _words(fields: Mapping[str, Any]) -> str | None:
    """Return the server's description of the error."""
    for part in (fields, fields.get("error"), fields.get("errors")):
        for one in cast("list[Any]", part)[:_MANY] if isinstance(part, (list, tuple)) else (part,):
            if isinstance(one, Mapping):
                texts = (_shown(cast("Mapping[str, Any]", one).get(name)) for name in _WORDS)
                if (text := next(filter(None, texts), None)) is not None:
                    return text
            elif isinstance(part, (list, tuple)) and isinstance(one, str) and not _CODE.fullmatch(one):
                return _shown(part)
    return None


def _shown(value: Any) -> str | None:
    """Return the server's text in a form that fits in one line of a log. `value` may be a list or an object."""
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        text = _words(fields) or _json(fields)
    elif isinstance(value, (list, tuple)):
        text = "; ".join(filter(None, map(_shown, cast("list[Any]", value)[:_MANY])))
    else:
        text = "" if value is None or isinstance(value, bool) else str(value)
    return printable(text[:_LOOKED_AT]) or None


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):  # a key is not a text, or an object contains itself
        return ""


# The time of the next attempt.


def read_retry_after(error: RefreshError, response: Answer) -> None:
    """Set `error.retry_after` from `Retry-After` (RFC 9110 section 10.2.3), or from the end of a rate limit.

    If it is a date, the seconds count from the header `Date` of the response. Without this header, `error.retry_at` is
    set.
    """
    headers = response.headers
    value = headers.get("retry-after", "").strip()
    at = _http_date(value)
    if re.fullmatch(_NUMBER, value):
        error.retry_after = sane_retry_after(float(value))
    elif at is None and response.status_code == 429:
        resets = (headers.get(name, "").strip() for name in _RATE_LIMITS)
        reset = next((float(value) for value in resets if re.fullmatch(_NUMBER, value)), None)
        if reset is not None and reset < _SINCE_THE_EPOCH_FROM:
            error.retry_after = sane_retry_after(reset)
        else:
            at = _epoch(reset)
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


# The fields of a token.


def _access_token(fields: Mapping[str, Any], response: Answer | None) -> str:
    text = _as_text("access_token", fields.get("access_token"))
    if text is not None:
        return text
    words = _words(fields)
    said = "" if words is None else f" The server says: {in_ascii(words)}."
    # If the body is not JSON, it may be the token itself. Decoded as a form, the token would be the name of a field.
    names = _names(fields) if response is None or response.content.lstrip()[:1] == b"{" else []
    hint = ""
    if names and "access_token" not in fields:
        hint = f" Its fields are {', '.join(names)}."
        if words is None:
            hint += (
                f" If the token is there, write a refresh function that returns Token.from_response({_call(fields)}): "
                'docs/custom-endpoint.md, "Nested fields".'
            )
    raise in_our_words(
        RefreshError(
            "The token endpoint's answer has no access_token (RFC 6749 section 5.1): there is nothing to use."
            f"{said}{hint}",
            error_description=words,
            extra=further_fields(fields, _OF_AN_ERROR),
        )
    )


def _names(fields: Mapping[str, Any], *, inside: bool = True) -> list[str]:
    """Return the names of `fields` that can be shown, with the names in their objects: `data (accessToken)`."""
    names: list[str] = []
    for name, value in fields.items():
        if _NAME.fullmatch(str(name)):
            is_object = inside and isinstance(value, Mapping)
            inner = _names(cast("Mapping[str, Any]", value), inside=False) if is_object else []
            names.append(f"{name} ({', '.join(inner)})" if inner else name)
    return names[:_NAMES_SHOWN]


def _call(fields: Mapping[str, Any]) -> str:
    """Return the argument for `Token.from_response`, if the access token is in an object or has a different name."""
    objects = {
        f'answer["{name}"]': cast("Mapping[str, Any]", value)
        for name, value in fields.items()
        if isinstance(value, Mapping) and _NAME.fullmatch(str(name))
    }
    for place, inner in {"answer": fields, **objects}.items():
        if inner.get("access_token"):
            return place
        for name in inner:
            if str(name).lower() == "accesstoken":
                return f'{{"access_token": {place}["{name}"], ...}}'
    return '{"access_token": ..., ...}'


def _refresh_token(fields: Mapping[str, Any]) -> object:
    """Return the refresh token in `fields`; None if there is none. Some servers send `false` then.

    If the server sends a number, the result is its text.
    """
    value = fields.get("refresh_token") or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_text(name: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise in_our_words(
            RefreshError(f"The token endpoint's answer has an unusable {name}: {type(value).__name__}, not a string.")
        )
    return value


def _token_type(value: object) -> str:
    """Return `Bearer`. Servers have different names for it.

    Raises:
        RefreshError: `value` is a known different scheme, e.g. `dpop`.
    """
    name = value.strip() if isinstance(value, str) else "" if value is None else type(value).__name__
    if name.lower() in _OTHER_SCHEMES:
        raise in_our_words(
            RefreshError(
                f"The server issued a token of the type {name}, which is not sent as Bearer is; a client must not use "
                "what it does not understand (RFC 6749 section 7.1). Ask the server for a bearer token. If you know "
                "how to send this one, make the token by hand, Token(token_type=...), and use authorize=."
            )
        )
    if name.lower().replace(" ", "") not in _BEARER and name not in _named and len(_named) < _NAMED_AT_MOST:
        _named.add(name)
        shown = in_ascii(printable(name[:_TYPE_SHOWN]))
        _log.info("The server calls the type of its tokens %s, which is no scheme; they are sent as Bearer.", shown)
    return "Bearer"


def _scope(value: object) -> str | None:
    if isinstance(value, (list, tuple)):
        return " ".join(str(scope) for scope in cast("list[object]", value))
    return value if isinstance(value, str) else None


def _seconds(value: object) -> float | None:
    """Return `value`, a number or its text, as seconds; None if it is not a finite number."""
    if isinstance(value, str) and re.fullmatch(_NUMBER, value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if -_ETERNITY < value < _ETERNITY else None  # None for NaN, too


def _epoch(value: object) -> float | None:
    """Return an absolute time in seconds since the epoch. `value` is a number, its text, ISO 8601 or an HTTP date."""
    seconds = _seconds(value)
    if seconds is not None:
        for unit in (1, 1_000, 1_000_000, 1_000_000_000):  # seconds, milliseconds, microseconds, nanoseconds
            if seconds < _MILLISECONDS_FROM * unit:
                return seconds / unit if unit > 1 else seconds
        return None
    if not isinstance(value, str):
        return None
    found = _ISO_8601.fullmatch(value.strip())
    if found is None:
        return _http_date(value)
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    fraction, sign, hours, minutes = found.groups()[6:]
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)) * (-1 if sign == "-" else 1)
    try:
        date = datetime(year, month, day, hour, minute, second, tzinfo=timezone(offset))
    except ValueError:
        return None
    return min(date.timestamp() + float(f"0.{fraction or 0}"), LATEST)
