"""Calls a function (an interrupt, a finalizer) between two lines, or between two bytecodes, of a module."""

from __future__ import annotations

import dis
import linecache
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def interrupt() -> None:
    """Raise a `KeyboardInterrupt`, as Ctrl-C does."""
    raise KeyboardInterrupt


def at_step(
    number: int,
    function: Callable[[], Any],
    happens: Callable[[], Any],
    *,
    of: str,
    file: str | tuple[str, ...],
    raises: bool = False,
) -> bool:
    """Call `function`; before the `number`th line or opcode (`of`) that runs in `file`, call `happens`.

    `file` may be a file, a folder (all files in it), or several of them.

    If `of` is "line", or `happens` raises an exception, it is never called before a line with `with`: Python runs such
    a line again to release the lock, and handles no signal before that. Nor is an exception raised before a NOT_TAKEN
    of Python 3.14: Python handles no signal there, and a `try` does not cover it.
    """
    left = number

    def is_impossible(frame: FrameType) -> bool:
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno or 0).lstrip()
        if line.startswith("with ") and (raises or of == "line"):
            return True
        return raises and dis.opname[frame.f_code.co_code[frame.f_lasti]] == "NOT_TAKEN"

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(file):
            return None
        frame.f_trace_opcodes = of == "opcode"
        if event == of and not is_impossible(frame):
            left -= 1
            if left == 0:
                happens()
        return trace

    before, here = sys.gettrace(), sys._getframe()
    here.f_trace_opcodes = True  # Python 3.12 traces opcodes only if a frame asked for them when tracing began
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
        here.f_trace_opcodes = False
    return left <= 0
