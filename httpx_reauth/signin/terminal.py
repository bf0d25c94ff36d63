"""Finds out whether this machine has a browser, and reads text that a person pastes into the terminal."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

_END = (b"\x04", b"\x1a")  # Ctrl-D, Ctrl-Z


def has_browser() -> bool:
    """Would the person see a browser that this program opens? Not over SSH, nor in a container without a display.

    If the variable `BROWSER` is set, the result is True: an editor that is connected to this machine sets it to a
    program that opens the browser on the person's machine.
    """
    if os.environ.get("BROWSER"):
        return True
    if sys.platform in ("win32", "darwin", "cygwin"):
        return not (os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"))
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"))


class Terminal:
    """Reads the lines that a person types or pastes into the terminal, without blocking (only on POSIX).

    A terminal with line editing cuts lines, at 1,024 characters on macOS and at 4,096 on Linux. The URL with the answer
    may be longer. So line editing is off from `open` to `close`. The terminal still shows what is typed, and Ctrl-C
    works.
    """

    def __init__(self, file: int) -> None:
        self.file = file
        self._before: list[Any] | None = None
        self._typed = b""

    @classmethod
    def find(cls) -> Terminal | None:
        """Return the program's terminal; None if it has no terminal, or if it runs in the background."""
        try:
            import termios
        except ImportError:  # pragma: no cover - Windows
            return None
        try:
            file = sys.stdin.fileno()
            is_ours = sys.stdin.isatty() and os.tcgetpgrp(file) == os.getpgrp()
            termios.tcgetattr(file)
        except (OSError, ValueError, AttributeError, termios.error):
            return None
        return cls(file) if is_ours else None

    def open(self) -> None:
        """Switch line editing off."""
        import termios

        self._before = termios.tcgetattr(self.file)
        without_lines = termios.tcgetattr(self.file)
        without_lines[3] &= ~termios.ICANON
        termios.tcsetattr(self.file, termios.TCSADRAIN, without_lines)

    def read(self) -> str | None:
        """Return the line, if it is complete; None if it is not; an empty string if the input has ended."""
        try:
            received = os.read(self.file, 65_536)
        except OSError:
            received = b""
        for byte in (received[i : i + 1] for i in range(len(received))):
            if byte in _END:
                return ""
            if byte in b"\r\n":
                line, self._typed = self._typed, b""
                if line:
                    return line.decode(errors="replace")
            elif byte in b"\x7f\x08":
                self._typed = self._typed[:-1]
            else:
                self._typed += byte
        return None if received else ""

    def close(self) -> None:
        """Switch line editing on again."""
        import termios

        if self._before is not None:
            with suppress(OSError, termios.error):
                termios.tcsetattr(self.file, termios.TCSADRAIN, self._before)
