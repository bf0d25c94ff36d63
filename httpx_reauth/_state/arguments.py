"""Checks of what users hand over: functions, tokens, settings.

A mistake is an error at once, which says what was given and what to write instead. The value itself is never shown: it
may be a secret in the wrong place.

Functions that users hand over (listeners, `authorize`, `is_rejected`) are called from sync and from async code, so
nobody awaits what they return. A coroutine function in such a place would never run, and a request would go out without
its token. So it is an error: at once where it can be seen, else at the call, when an awaitable comes back.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Mapping
from functools import partial
from inspect import isasyncgenfunction, isawaitable, iscoroutinefunction, isgeneratorfunction, ismethod
from math import isfinite
from typing import cast

from httpx_reauth._errors import printable
from httpx_reauth._token import Token

_NONE = type(None)


def kind_of(value: object) -> str:
    """What `value` is, for a message: `the class Token`, `None`, `str`."""
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    return "None" if value is None else type(value).__qualname__


def check(name: str, value: object, kinds: type | tuple[type, ...], what: str, instead: str = "") -> None:
    """Check that the setting `name` is an object of `kinds`, which `what` says in words.

    Raises:
        TypeError: it is another, or a class. `instead` says what to write.
    """
    if isinstance(value, type):
        instead = f"Give one of its objects: {name}={value.__qualname__}(...)."
    elif isinstance(value, kinds):
        return
    raise TypeError(f"{name} must be {what}, not {kind_of(value)}.{instead and ' '}{instead}")


def check_seconds(name: str, value: object, *, may_be_0: bool) -> None:
    """Check that `value` is a number of seconds, finite and more than 0, or 0 if that may be.

    Raises:
        TypeError: it is no number.
        ValueError: it is too small, infinite or not a number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        instead = " Write its total_seconds()." if hasattr(value, "total_seconds") else ""
        raise TypeError(f"{name} must be a number of seconds, not {kind_of(value)}.{instead}")
    if not (isfinite(value) and (value > 0 or (may_be_0 and value == 0))):
        raise ValueError(f"{name} must be a number of seconds, {'0 or more' if may_be_0 else 'more than 0'}.")


def check_name(value: object) -> None:
    """Check the name of an auth object.

    Raises:
        TypeError: it is no string.
        ValueError: it would break a log line.
    """
    check("name", value, (str, _NONE), "a string, which log lines show")
    if isinstance(value, str) and printable(value) != value:
        raise ValueError("name must be printable, since log lines show it; it has a line break or a control character.")


def check_token(name: str, value: object, write: str) -> None:
    """Check that `value` is a token.

    Args:
        name: what takes it, e.g. `sign_in`.
        value: what was given.
        write: how to write it, with `...` in the place of the token: `sign_in(...)`.

    Raises:
        TypeError: it is none.
    """
    if isinstance(value, Token):
        return
    has_fields = hasattr(value, "keys") or hasattr(value, "status_code")  # a token endpoint's answer, or its fields
    token = "Token.from_response(...)" if has_fields else 'Token("...")'
    raise TypeError(f"{name} must be a Token, not {kind_of(value)}. Write {write.replace('...', token)}.")


def check_refresh(value: object) -> None:
    """Check what is to renew the tokens: a function that may be async, or a grant.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(value, Coroutine):
        value.close()
        raise TypeError(
            "refresh must be the function itself, not the coroutine that it returns. Write Reauth(refresh)."
        )
    must = (
        f"refresh must be a function that takes the last token and returns the next, or a grant, not {kind_of(value)}."
    )
    if value is Token or isinstance(value, Token):
        raise TypeError(
            f"{must} Write Reauth(refresh, token=Token(...)). A token that nothing renews needs no Reauth: "
            'httpx.Client(headers={"Authorization": ...}).'
        )
    if isinstance(value, type):
        raise TypeError(f"{must} Give one of its objects: Reauth({value.__qualname__}(...)).")
    if isinstance(value, str):
        raise TypeError(
            f"{must} For a token endpoint, write Reauth(RefreshTokenGrant(token_url, client_id), token=...)."
        )
    if hasattr(value, "headers") and hasattr(value, "url"):
        raise TypeError(f"{must} Give the client an object, not the class: httpx.Client(auth=Reauth(refresh)).")
    if not callable(value):
        raise TypeError(f"{must} Write Reauth(refresh), where refresh(token) returns a Token.")
    if any(isgeneratorfunction(one) or isasyncgenfunction(one) for one in _called(value)):
        raise TypeError(
            "refresh must return the next token, and this is a generator function. Write `return` in the place of "
            "`yield`; or make it the `flow` of a httpx_reauth.oauth.Grant."
        )


def check_function(name: str, value: object, call: str) -> None:
    """Check that `value` is a plain function.

    Args:
        name: what the user knows it as, e.g. `authorize`.
        value: what was given.
        call: how it is called, e.g. `authorize(request, token)`.

    Raises:
        TypeError: it cannot be called, is a class, or is a coroutine function or an async generator function.
    """
    if isinstance(value, type):
        raise TypeError(
            f"{name} must be a function, called as {call}, not {kind_of(value)}. "
            f"If one of its objects is meant, write {name}={value.__qualname__}(...)."
        )
    if not callable(value):
        raise TypeError(f"{name} must be a function, called as {call}, not {kind_of(value)}.")
    if any(iscoroutinefunction(one) or isasyncgenfunction(one) for one in _called(value)):
        raise TypeError(
            f"{name} is async, and nobody would await it: it is called as {call}, from sync code, too. "
            "Write it as a plain `def` that does not wait."
        )


def check_subclass(cls: type, base: type, settings: Mapping[str, tuple[object, object]]) -> None:
    """Check that a user's subclass `cls` of `base` has no settings as attributes, which would not be used.

    Args:
        cls: the subclass.
        base: from which class on nothing is looked at.
        settings: what each setting is, and what it is by default.

    Raises:
        TypeError: it has one. (Not if it hands it over: `super().__init__(..., authorize=self.authorize)`.)
    """
    for one in cls.__mro__[: cls.__mro__.index(base)]:
        if "auth_flow" in vars(one):
            raise TypeError(
                f"{one.__qualname__}.auth_flow is never called. Override sync_auth_flow and async_auth_flow instead."
            )
        for name, (value, default) in settings.items():
            if name in vars(one) and value is default and vars(one)[name] is not default:
                raise TypeError(
                    f"{one.__qualname__}.{name} is never used, since {name} is an argument. "
                    f"Write super().__init__(..., {name}=self.{name})."
                )


def lost_awaitable(answer: object) -> str | None:
    """What `answer` of a function is called if it is something to be awaited, which nobody does; else None.

    A coroutine is closed, so that Python does not warn of it as well.
    """
    if answer is None or answer is True or answer is False:
        return None
    if isinstance(answer, AsyncGenerator):
        return "an async generator"
    if isinstance(answer, Coroutine):
        answer.close()
        return "a coroutine"
    return f"an awaitable ({kind_of(answer)})" if isawaitable(answer) else None


def _called(value: object) -> tuple[object, object]:
    """What runs when `value` is called: itself, or what it wraps; and its `__call__`."""
    while isinstance(value, partial) or ismethod(value):
        value = cast("partial[object]", value).func if isinstance(value, partial) else value.__func__
    return value, getattr(type(value), "__call__", None)  # noqa: B004 - what it is, is asked; not whether it is there
