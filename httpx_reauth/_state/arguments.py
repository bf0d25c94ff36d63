"""Checks of the arguments that users give: functions, tokens, settings.

A wrong argument raises an error at once. The error names the kind of the argument, and says what to write instead. The
error never shows the value, which may be a secret in the wrong place.

The users' functions (listeners, `authorize`, `is_rejected`) are called from sync and from async code, so nobody awaits
their results. A coroutine function would never run there, and a request would be sent without its token. So a coroutine
function is an error: at once if it can be recognised, else at the call, when it returns an awaitable.
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
    """The kind of `value`, in words for a message: `the class Token`, `None`, `str`."""
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    return "None" if value is None else type(value).__qualname__


def check(name: str, value: object, kinds: type | tuple[type, ...], what: str, instead: str = "") -> None:
    """Check that the setting `name` is an object of `kinds`; `what` names these kinds in words.

    Raises:
        TypeError: `value` is another object, or a class. The message ends with `instead`, which says what to write.
    """
    if isinstance(value, type):
        instead = f"Give one of its objects: {name}={value.__qualname__}(...)."
    elif isinstance(value, kinds):
        return
    raise TypeError(f"{name} must be {what}, not {kind_of(value)}.{instead and ' '}{instead}")


def check_seconds(name: str, value: object, *, may_be_0: bool) -> None:
    """Check that `value` is a finite number of seconds, more than 0; with `may_be_0`, 0 is allowed.

    Raises:
        TypeError: `value` is not of a number type.
        ValueError: `value` is too small, infinite or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        instead = " Write its total_seconds()." if hasattr(value, "total_seconds") else ""
        raise TypeError(f"{name} must be a number of seconds, not {kind_of(value)}.{instead}")
    if not (isfinite(value) and (value > 0 or (may_be_0 and value == 0))):
        raise ValueError(f"{name} must be a number of seconds, {'0 or more' if may_be_0 else 'more than 0'}.")


def check_name(value: object) -> None:
    """Check the name of an auth object.

    Raises:
        TypeError: the name is not a string.
        ValueError: the name has a line break or a control character, which would break a log line.
    """
    check("name", value, (str, _NONE), "a string, which log lines show")
    if isinstance(value, str) and printable(value) != value:
        raise ValueError("name must be printable, since log lines show it; it has a line break or a control character.")


def check_token(name: str, value: object, write: str) -> None:
    """Check that `value` is a token.

    Args:
        name: the argument's name for the message, e.g. `token`.
        value: the argument.
        write: how to write the call, with `...` in the place of the token: `sign_in(...)`.

    Raises:
        TypeError: `value` is not a token.
    """
    if isinstance(value, Token):
        return
    given, token = kind_of(value), 'Token("...")'
    if isinstance(value, Coroutine):
        value.close()  # so Python does not warn of it as well
        token = "await ..."
    elif hasattr(value, "keys") or hasattr(value, "status_code"):  # a token endpoint's answer, or its fields
        token = "Token.from_response(...)"
    elif hasattr(value, "arun"):  # a sign-in that has not run
        token = "await your_sign_in.arun()" if "asign_in" in write else "your_sign_in.run()"
    raise TypeError(f"{name} must be a Token, not {given}. Write {write.replace('...', token)}.")


def check_refresh(value: object) -> None:
    """Check the argument `refresh`: a plain function, a coroutine function, or a grant.

    Raises:
        TypeError: `value` is something else.
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
        name: the argument's name, e.g. `authorize`.
        value: the argument.
        call: how the library calls the function, e.g. `authorize(request, token)`.

    Raises:
        TypeError: `value` cannot be called, or is a class, a coroutine function or an async generator function.
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
    """Check that a user's subclass `cls` of `base` has no setting as an attribute, which would not be used.

    Args:
        cls: the subclass.
        base: the class that is not checked, nor are its bases.
        settings: the value and the default of each setting, by name.

    Raises:
        TypeError: the subclass has such an attribute, or overrides `auth_flow`. An attribute is allowed if the subclass
            passes it on: `super().__init__(..., authorize=self.authorize)`.
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
    """A name for `answer`, the result of a user's function, if it must be awaited, which nobody does; else None.

    A coroutine is closed, so that Python does not warn about it as well.
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
    """The functions that may run when `value` is called: `value` itself, or the function in it; and its `__call__`."""
    while isinstance(value, partial) or ismethod(value):
        value = cast("partial[object]", value).func if isinstance(value, partial) else value.__func__
    return value, getattr(type(value), "__call__", None)  # noqa: B004 - its value is needed, not whether it exists
