"""Something that happens between two lines, or two bytecodes, of a module: an interrupt, a finalizer."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def interrupt() -> None:
    """Ctrl-C."""
    raise KeyboardInterrupt


def at_step(number: int, function: Callable[[], Any], happens: Callable[[], Any], *, of: str, file: str) -> bool:
    """Call `function`; `happens` before the line, or the opcode, of that number that it runs in `file`. Was it reached?

    Not before a line with `with`: Python returns to it to release the lock, and no signal comes before it has.
    """
    left = number

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != file:
            return None
        frame.f_trace_opcodes = of == "opcode"
        if event == of and not (of == "line" and linecache.getline(file, frame.f_lineno).lstrip().startswith("with ")):
            left -= 1
            if left == 0:
                happens()
        return trace

    before, here = sys.gettrace(), sys._getframe()
    here.f_trace_opcodes = True  # Python 3.12 has them for no frame, unless one had them when tracing began
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
        here.f_trace_opcodes = False
    return left <= 0
