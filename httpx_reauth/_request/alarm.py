"""An alarm: the opening of the renewal window starts the renewal, though no request comes just then."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import get_clock_info
from typing import TypeVar
from weakref import WeakMethod

from httpx_reauth._tokens._refresh.loops import running_loop

_T = TypeVar("_T")

_LATER = 0.001  # seconds; an event loop may call a little too early, asyncio's by the resolution of its clock (15.6 ms
# on Windows until Python 3.13)


def set_alarm(seconds: float, method: Callable[[_T], object], argument: _T) -> None:
    """Call `method(argument)` on the running event loop after so many seconds, if its object is still in use.

    It keeps neither the loop alive nor the object. Where the method raises, so does the next request, which tells.
    Where no event loop takes it, as when a flow is driven by hand, there is none, and the request goes on.
    """
    known_as = WeakMethod(method)

    def ring() -> None:
        method = known_as()
        if method is not None:
            with suppress(Exception):  # what leaves a callback would end a trio run
                method(argument)

    with suppress(Exception):
        running_loop().call_later(seconds + max(_LATER, get_clock_info("monotonic").resolution), ring)
