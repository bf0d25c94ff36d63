"""The document: a token as text. It is one JSON object, and every storage that saves text uses it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

from httpx_reauth._clock import SYSTEM_CLOCK
from httpx_reauth._errors import StorageError
from httpx_reauth._token import Token, Unpicklable

_FORMAT = "httpx_reauth token"
_VERSION = 1  # increased when older versions of this module would misread the document

_FIELDS = ("access_token", "refresh_token", "expires_in", "expires_at", "token_type", "scope", "extra")
_LAYOUTS = {_VERSION: _FIELDS}
LARGEST = 1 << 20  # bytes; a longer text is not a token
_DEEPEST = 100  # levels; the most that `json.loads` can read depends on the Python version and on the call stack
_SIGNED_OUT = "signed_out"
_KNOWN = frozenset({"format", "version", _SIGNED_OUT, *_FIELDS})


@dataclass(frozen=True, slots=True, repr=False)
class Document(Unpicklable):
    """A document that was read.

    Attributes:
        token: the token; None: there was no document, or somebody signed out.
        unknown: the fields that this version does not know; the next save writes them again.
    """

    token: Token | None = None
    unknown: Mapping[str, Any] = field(default_factory=dict[str, Any])


class _Unreadable(NamedTuple):
    """The reason why a text is not a document.

    Attributes:
        why: the reason in words, without a secret.
        is_foreign: the text may belong to another program or to a newer version.
    """

    why: str
    is_foreign: bool = False


_SOMETHING_ELSE = _Unreadable("it is something else", is_foreign=True)
_ANOTHER_PLACE = (
    " Give the storage another file, key or name. If you want the token that is in it, give that to the Reauth as "
    "token=Token(...)."
)
_TOO_LONG = _Unreadable("it is too long for one", is_foreign=True)


def read(text: str | bytes, where: str, aside: str = "") -> Document:
    """Read the document in `text`.

    Args:
        text: the stored text.
        where: the name of the storage, for the error.
        aside: the name of the place to which a sign-in or a sign-out moves a damaged document, for the error.

    Raises:
        StorageError: `text` is not a document, is damaged, or was written by a newer version. The message contains no
            secret.
    """
    found = _parse(text)
    if isinstance(found, Document):
        return found
    # The error is raised here, not in the `except` of `_parse`: the exception of `json` contains the text.
    way_out = "" if found.is_foreign or not aside else f" Signing in or out moves it to {aside}, and goes on."
    if found is _SOMETHING_ELSE:
        way_out = _ANOTHER_PLACE
    raise StorageError(f"{where} holds no token that can be read: {found.why}. It is left as it is.{way_out}")


def is_damaged(text: str | bytes) -> bool:
    """Is `text` a damaged document, rather than the text of another program or of a newer version?"""
    found = _parse(text)
    return isinstance(found, _Unreadable) and not found.is_foreign


def write(token: Token, unknown: Mapping[str, Any]) -> str:
    """Return the document for `token`, as ASCII text, with the fields `unknown` of the previous document.

    If the token has a lifetime but no end (it was saved by hand), the end is computed from now and written as well.

    Raises:
        StorageError: `token.extra` contains a value that JSON cannot represent, or the document is too large.
    """
    if token.expires_at is None and token.expires_in is not None:
        token = replace(token, expires_at=SYSTEM_CLOCK.time() + token.expires_in)
    fields = {name: getattr(token, name) for name in _FIELDS}
    document = {**unknown, "format": _FORMAT, "version": _VERSION, **fields}
    text = _dump(document)
    if text is None:
        raise StorageError("The token cannot be saved: its extra holds something that JSON has no word for.")
    if len(text) > LARGEST or _is_deep(document):  # such a document could neither be read again nor replaced
        raise StorageError(
            f"The token cannot be saved: it is longer than {LARGEST} bytes, or its extra has more than {_DEEPEST} "
            "levels."
        )
    return text


def write_signed_out() -> str:
    """Return the document of a sign-out, with its time."""
    signed_out = {"format": _FORMAT, "version": _VERSION, _SIGNED_OUT: SYSTEM_CLOCK.time()}
    return json.dumps(signed_out)


def _parse(text: str | bytes) -> Document | _Unreadable:
    if not isinstance(cast("object", text), (str, bytes)):  # a keyring backend may return anything
        return _SOMETHING_ELSE
    if len(text) > LARGEST:
        return _TOO_LONG
    if not text.strip():  # an empty file
        return Document()
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):  # the exception contains the text, so it is not raised again
        return _Unreadable("it is not JSON, so it is damaged or something else")
    if not isinstance(found, dict):
        return _Unreadable("it is no JSON object, so it is damaged or something else")
    return _from_fields(cast("dict[str, Any]", found))


def _from_fields(fields: dict[str, Any]) -> Document | _Unreadable:
    version = fields.get("version")
    if not fields:
        return _Unreadable("it is empty")
    if fields.get("format") != _FORMAT:
        return _SOMETHING_ELSE
    if isinstance(version, int) and version > _VERSION:
        why = f"a newer httpx-reauth has written it (version {version} of the format); upgrade this one"
        return _Unreadable(why, is_foreign=True)
    try:
        names = _LAYOUTS[cast("int", version)]
        token = None if _SIGNED_OUT in fields else Token(**{name: fields[name] for name in names})
    except (KeyError, TypeError, ValueError):
        return _Unreadable("it is damaged")
    return Document(token, {name: value for name, value in fields.items() if name not in _KNOWN})


def _dump(document: dict[str, Any]) -> str | None:
    try:
        return json.dumps(document)
    except (TypeError, ValueError, RecursionError):
        return None


def _is_deep(document: dict[str, Any]) -> bool:
    level: list[Any] = [document]
    for _ in range(_DEEPEST):
        level = [value for one in level for value in _inside(one)]
        if not level:
            return False
    return True


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).values()
    return cast("Iterable[Any]", value) if isinstance(value, (list, tuple)) else ()
