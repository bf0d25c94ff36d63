"""Removes secrets from an error's message and attributes, since a server or a user's function may have repeated them.

1. A secret is removed in every spelling that programs use: unchanged, percent-encoded, form-encoded, with JSON escapes,
   with HTML entities. Every character except letters and digits may be written as itself or as an escape.
2. If only the first `_BEGINNING` characters of a secret are found, they and the rest of the text are removed. The
   server has then repeated the secret and cut it off.
3. A secret with fewer than `_SHORT` characters is removed only if it is a whole word. A secret that is an ordinary word
   or a small number is not removed: "a" stays in "not a Token".
4. This library's own sentences are not changed, except where they quote `error` and `error_description`.
5. A value under a name such as `refresh_token` is removed, even if it is not one of the known secrets.
6. Long texts are cut only after this. If they were cut before, the beginning of a secret could be left at their end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from html.entities import html5
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from httpx_reauth._errors import ReauthError, is_ours, printable, quoted

if TYPE_CHECKING:
    from httpx_reauth._token import Token

_HIDDEN = "***"

_SAID_AT_MOST = 300  # an error keeps this many characters of a server's text; a message may be twice as long
_FIELD_AT_MOST = 2_000  # characters of a further field; it may be long claims (OpenID Connect Core section 5.5)
_FIELDS_AT_MOST = 32  # an error keeps this many further fields
_LEVELS_AT_MOST = 8  # a further field of an error may have this many levels of nested objects and lists
_SHORT = 8  # characters; a shorter secret is removed only if it is a whole word
_SMALL_NUMBER = 3  # digits; such a number may be a status, or a number of seconds
_ORDINARY_WORD = re.compile(
    r"a|access|again|an|and|another|any|are|as|at|auth|be|been|but|by|can|client|code|error|expired|for"
    r"|from|grant|has|have|http|i|id|if|in|invalid|is|it|its|key|login|may|missing|more|must|new|no|none"
    r"|not|of|old|on|one|or|out|read|refresh|request|revoked|scope|secret|server|so|than|that|the|this|to"
    r"|token|try|type|unknown|used|user|valid|was|with|write|wrong|you|your",
    re.IGNORECASE,
)
_BEGINNING = 16  # a secret is recognized by this many characters at its beginning
_DEPTH = 8  # levels of nested mappings and lists that are searched; a deeper value is treated as one text

_NAMES = (
    r"(?:(?:access|refresh|id|device|subject|actor)_?token|client_?secret|(?:client_)?assertion|password|code_verifier)"
)
_SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)
# A name and its value: the first line is for a value in quotes (JSON, a `repr`), the second for one without (a form).
_NAMED = re.compile(
    rf"""((?<![A-Za-z]){_NAMES}(?:["']\s*:\s*b?["']|=["']))(?!\*)(?:[^"'\\]|\\.)+"""
    rf"""|((?<![A-Za-z]){_NAMES}=)(?!None\b|\*)[^"'\\&\s,;)]+""",
    re.IGNORECASE,
)
_URL = re.compile(r"""(https?://)(?:[^\s/?#"'@]*@)?([^\s?#"']*)(?:\?[^\s"']*)?""", re.IGNORECASE)

_Clean: TypeAlias = Callable[[str], str]


def redact(error: BaseException, *secrets: str | None) -> None:
    """Remove `secrets` from the message and the attributes of `error`, if it is a `ReauthError`."""
    if not isinstance(error, ReauthError):
        return
    clean = _cleaner(secrets)
    before = quoted(error.error, error.error_description)
    for name, value in list(vars(error).items()):
        if name in ("error", "error_description", "error_uri"):
            _set(error, name, _cleaned(value, clean, _SAID_AT_MOST))
        elif name == "__notes__" or not name.startswith("_"):
            _set(error, name, _cleaned(value, clean, _FIELD_AT_MOST if name == "extra" else None))
    if is_ours(error):
        after = quoted(error.error, error.error_description)
        args = tuple(arg.replace(before, after) if isinstance(arg, str) else arg for arg in error.args)
    else:
        args = tuple(_clean_argument(arg, clean) for arg in error.args)
    BaseException.__setattr__(error, "args", args)  # this also works for a frozen dataclass


def redacted(text: str, *secrets: str | None) -> str:
    """Return `text` without `secrets`, without the queries of URLs, printable, and at most as long as a message."""
    return printable(_URL.sub(r"\1\2", _cleaner(secrets)(text))[: 2 * _SAID_AT_MOST])


def secrets_of(token: Token) -> list[str | None]:
    """Return the strings in `token` that no error may repeat."""
    further = [value for name, value in token.extra.items() if _is_secret(name) and isinstance(value, str)]
    return [token.access_token, token.refresh_token, *further]


def further_fields(fields: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Return the fields of an error response that are not `known`, without tokens, printable, and limited in size."""
    names = [name for name in fields if name not in known and not _is_secret(name) and _is_shallow(fields[name])]
    return {
        printable(name[:_SAID_AT_MOST]): _cleaned(fields[name], printable, _FIELD_AT_MOST)
        for name in names[:_FIELDS_AT_MOST]
    }


def _is_shallow(value: object) -> bool:
    """Has `value` at most `_LEVELS_AT_MOST` levels, so that it can be copied, shown and pickled?"""
    layer: list[Any] = [value]
    for _ in range(_LEVELS_AT_MOST):
        inner: list[Any] = []
        for one in layer:
            if issubclass(type(one), dict):
                inner.extend(one.values())
            elif issubclass(type(one), list):
                inner.extend(one)
        layer = inner
        if not layer:
            return True
    return False


def _set(error: ReauthError, name: str, value: object) -> None:
    with suppress(AttributeError):  # the error is a user's frozen dataclass
        setattr(error, name, value)


def _clean_argument(arg: object, clean: _Clean) -> object:
    """Return an argument of an error without secrets. The arguments are part of the error's `str`."""
    try:
        cleaned = _cleaned(arg, clean, in_message=True)
        text = str(cleaned)
    except Exception:  # noqa: BLE001 - the object is the user's, for example a mapping
        return _HIDDEN
    return text[: 2 * _SAID_AT_MOST] if len(text) > 2 * _SAID_AT_MOST else cleaned


def _cleaned(
    value: Any, clean: _Clean, length: int | None = None, *, in_message: bool = False, depth: int = _DEPTH
) -> Any:
    """Return `value` without secrets; the same object if it has none.

    Args:
        value: any object.
        clean: removes the secrets from a text.
        length: the maximal length of a text; None: no limit.
        in_message: `value` is part of a message, so the `str` of any object in it must have no secret.
        depth: the number of levels that are searched.
    """
    if isinstance(value, (str, bytes, bytearray)):
        return _cleaned_text(value, clean, length)
    if not depth or not isinstance(value, (Mapping, list, tuple, set, frozenset)):
        is_a_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return _clean_object(value, clean) if in_message or is_a_number or not depth else value

    def inside(one: Any) -> Any:
        return _cleaned(one, clean, length, in_message=in_message, depth=depth - 1)

    if isinstance(value, Mapping):
        fields: dict[Any, Any] = {**value}
        cleaned = {
            inside(name): _HIDDEN if _is_secret(name) and fields[name] else inside(fields[name]) for name in fields
        }
        return cast("Any", value) if cleaned == fields else cleaned
    collection = cast("list[Any]", value)
    members = [inside(one) for one in collection]
    if all(one is other for one, other in zip(members, collection, strict=True)):
        return collection
    kinds: tuple[Any, ...] = (tuple, set, frozenset, list)
    return next(kind for kind in kinds if isinstance(collection, kind))(members)


def _cleaned_text(value: str | bytes | bytearray, clean: _Clean, length: int | None) -> str | bytes | bytearray:
    text = value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
    cleaned = clean(text)[:length]
    if cleaned == text:
        return value
    return cleaned if isinstance(value, str) else cleaned.encode("utf-8", "surrogateescape")


def _is_secret(name: object) -> bool:
    return isinstance(name, str) and _SECRET_NAME.fullmatch(name) is not None


def _clean_object(value: object, clean: _Clean) -> object:
    """Return `value`, which is not text or a collection; or its cleaned `str` or `repr`, if that has a secret."""
    for speak in (str, repr):
        try:
            said = speak(value)
        except Exception:  # noqa: BLE001 - the object is the user's
            return _HIDDEN
        if (text := clean(said)) != said:
            return text
    return value


def _cleaner(secrets: Iterable[str | None]) -> _Clean:
    known = {secret for secret in secrets if secret and not _is_ordinary(secret)}
    known |= {printable(secret) for secret in known}
    longest_first = sorted(known, key=len, reverse=True)  # one secret may be a part of another one

    def clean(text: str) -> str:
        for secret in longest_first:
            text = _without(text, secret)
        return _NAMED.sub(lambda found: f"{found[1] or found[2]}{_HIDDEN}", text)

    return clean


def _is_ordinary(secret: str) -> bool:
    """Is `secret` an ordinary word or a small number? Removing it would make every sentence hard to read."""
    return _ORDINARY_WORD.fullmatch(secret) is not None or (secret.isdigit() and len(secret) <= _SMALL_NUMBER)


def _without(text: str, secret: str) -> str:
    beginning = secret[:_BEGINNING]
    # A quick check first: most texts have no secret, and a pattern of 6,000 characters is slow.
    if not all(letters in text for letters in re.findall(r"[0-9A-Za-z]+", beginning)):
        return text
    if len(secret) < _SHORT:
        return re.sub(rf"(?<!\w){_pattern_of(secret)}(?!\w)", _HIDDEN, text)
    text = re.sub(_pattern_of(secret), _HIDDEN, text)
    cut = re.search(_pattern_of(beginning), text) if len(secret) >= _BEGINNING else None
    return text if cut is None else text[: cut.start()] + _HIDDEN  # "unknown token eyJhbGciOiJ..."


def _pattern_of(secret: str) -> str:
    """Return a pattern that matches `secret` in every spelling that programs use."""
    return "".join(char if char.isascii() and char.isalnum() else _spellings(char) for char in secret)


@lru_cache(maxsize=64)
def _spellings(char: str) -> str:
    code = ord(char)
    ways = [rf"\\?{re.escape(char)}", rf"&#0*{code};?", rf"&#[xX]0*(?i:{code:x});?"]
    ways += [f"&{name.rstrip(';')};?" for name, meant in html5.items() if meant == char]
    with suppress(UnicodeEncodeError):  # a surrogate: half of a UTF-16 pair
        ways.append("".join(f"%(?:25)*(?i:{byte:02x})" for byte in char.encode()))
        ways.append("".join(rf"\\x(?i:{byte:02x})" for byte in char.encode()))
        units = char.encode("utf-16-be").hex()
        ways.append("".join(rf"\\u(?i:{units[at : at + 4]})" for at in range(0, len(units), 4)))
    if char == " ":
        ways.append(r"\+")
    return f"(?:{'|'.join(ways)})"
