"""Keeps secrets out of the tracebacks of errors.

The traceback of an error refers to frames. The local variables of these frames may be secrets, and a crash reporter
sends local variables to its server. So the functions here raise an error without the frames that hold secrets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from httpx_reauth._errors import drop_frames

_F = TypeVar("_F", bound=Callable[..., None])
_T = TypeVar("_T", bound="type[Any]")


def hides_arguments(init: _F) -> _F:
    """Return a wrapper of `init`, a method `__init__` whose arguments are secrets.

    An error that `init` raises keeps its type and its message, but its traceback has no frame that holds the arguments.
    """

    @wraps(init)
    def wrapper(self: object, *arguments: Any, **named: Any) -> None:
        error = _raised_by(init, self, arguments, named)
        if error is not None:
            del self, arguments, named
            try:
                raise error
            finally:
                del error  # the error refers to this frame; a variable here would make a reference cycle

    return cast("_F", wrapper)


def hides_settings(cls: _T) -> _T:
    """Apply `hides_arguments` to the `__init__` of `cls`, a dataclass whose fields are secrets."""
    cls.__init__ = hides_arguments(cls.__init__)
    return cls


def _raised_by(
    init: Callable[..., None], self: object, arguments: tuple[Any, ...], named: dict[str, Any]
) -> Exception | None:
    try:
        init(self, *arguments, **named)
    except Exception as error:  # noqa: BLE001 - the caller raises it, without its frames
        drop_frames(error)
        return error
    return None
