"""Errors without the frames that they went through, whose local variables a crash reporter would send along."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from httpx_reauth._errors import drop_frames

_F = TypeVar("_F", bound=Callable[..., None])
_T = TypeVar("_T", bound="type[Any]")


def hides_arguments(init: _F) -> _F:
    """An `__init__` whose arguments are secrets: no frame that holds them is part of what it raises."""

    @wraps(init)
    def discreet(self: object, *arguments: Any, **named: Any) -> None:
        error = _raised_by(init, self, arguments, named)
        if error is not None:
            del self, arguments, named
            try:
                raise error
            finally:
                del error  # it refers to this frame, which would refer to it

    return cast("_F", discreet)


def hides_settings(cls: _T) -> _T:
    """A dataclass whose fields are secrets: the same for the `__init__` that was made for it."""
    cls.__init__ = hides_arguments(cls.__init__)
    return cls


def _raised_by(
    init: Callable[..., None], self: object, arguments: tuple[Any, ...], named: dict[str, Any]
) -> Exception | None:
    try:
        init(self, *arguments, **named)
    except Exception as error:  # noqa: BLE001 - it is raised by who calls this, without its frames
        drop_frames(error)
        return error
    return None
