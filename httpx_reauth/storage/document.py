"""How a token is written down: one JSON object, for every storage that keeps text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

from httpx_reauth._clock import SYSTEM_CLOCK
from httpx_reauth._errors import StorageError
from httpx_reauth._token import Token, Unpicklable

_FORMAT = "httpx_reauth token"
_VERSION = 1  # raised when a reader of today would misunderstand what is written

_FIELDS = ("access_token", "refresh_token", "expires_in", "expires_at", "token_type", "scope", "extra")
_LAYOUTS = {_VERSION: _FIELDS}
LARGEST = 1 << 20  # bytes; no token is that long
_DEEPEST = 100  # levels; how deep a reader follows depends on its Python, and on where it is called from
_SIGNED_OUT = "signed_out"
_KNOWN = frozenset({"format", "version", _SIGNED_OUT, *_FIELDS})


@dataclass(frozen=True, slots=True, repr=False)
class Document(Unpicklable):
    """What is held.

    Attributes:
        token: the token; None: nothing was held, or somebody signed out.
        unknown: the fields that this version does not know, to be kept.
    """

    token: Token | None = None
    unknown: Mapping[str, Any] = field(default_factory=dict[str, Any])


class _Unreadable(NamedTuple):
    """What is wrong with a text that is no document.

    Attributes:
        why: in words that hold no secret.
        is_foreign: another program, or a newer version, may still want to read it.
    """

    why: str
    is_foreign: bool = False


_SOMETHING_ELSE = _Unreadable("it is something else", is_foreign=True)
_TOO_LONG = _Unreadable("it is too long for one", is_foreign=True)


def read(text: str | bytes, where: str, aside: str = "") -> Document:
    """The document that `text` is.

    Args:
        text: what was found.
        where: the place, as an error is to call it.
        aside: the place to which a sign-in or a sign-out moves what is damaged, likewise.

    Raises:
        StorageError: it is none, is damaged, or was written by a newer version. What it says holds no secret.
    """
    found = _parse(text)
    if isinstance(found, Document):
        return found
    # Raised here, where no exception that holds the text is being handled.
    way_out = "" if found.is_foreign or not aside else f" Signing in or out moves it to {aside}, and goes on."
    raise StorageError(f"{where} holds no token that can be read: {found.why}. It is left as it is.{way_out}")


def is_damaged(text: str | bytes) -> bool:
    """Is it no document, and nothing that another program or a newer version may still want to read?"""
    found = _parse(text)
    return isinstance(found, _Unreadable) and not found.is_foreign


def write(token: Token, unknown: Mapping[str, Any]) -> str:
    """The text for `token`, in ASCII; `unknown` are fields to be kept.

    A lifetime without an end (a token saved by hand) is counted from now, so that its end is known when it is read.
    """
    if token.expires_at is None and token.expires_in is not None:
        token = replace(token, expires_at=SYSTEM_CLOCK.time() + token.expires_in)
    fields = {name: getattr(token, name) for name in _FIELDS}
    document = {**unknown, "format": _FORMAT, "version": _VERSION, **fields}
    text = _dump(document)
    if text is None:
        raise StorageError("The token cannot be saved: its extra holds something that JSON has no word for.")
    if len(text) > LARGEST or _is_deep(document):  # nobody could read it again, so nobody could replace it either
        raise StorageError(
            f"The token cannot be saved: it is longer than {LARGEST} bytes, or its extra has more than {_DEEPEST} "
            "levels."
        )
    return text


def write_signed_out() -> str:
    """The text that says: somebody signed out, and when."""
    signed_out = {"format": _FORMAT, "version": _VERSION, _SIGNED_OUT: SYSTEM_CLOCK.time()}
    return json.dumps(signed_out)


def _parse(text: str | bytes) -> Document | _Unreadable:
    if not isinstance(cast("object", text), (str, bytes)):  # a keyring backend may return anything
        return _SOMETHING_ELSE
    if len(text) > LARGEST:
        return _TOO_LONG
    if not text.strip():  # a file that somebody has made for us to fill
        return Document()
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):  # it holds the text, so it goes no further
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
