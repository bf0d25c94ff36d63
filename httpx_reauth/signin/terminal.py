"""Is there a browser here, and a terminal into which a person can paste?"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

_END = (b"\x04", b"\x1a")  # Ctrl-D, Ctrl-Z


def has_browser() -> bool:
    """May a browser be opened that the person sees? Not over SSH, nor in a container, where there is no display.

    `BROWSER` says yes: an editor with a remote host sets it to a program that opens the browser at the person's side.
    """
    if os.environ.get("BROWSER"):
        return True
    if sys.platform in ("win32", "darwin", "cygwin"):
        return not (os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"))
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"))


class Terminal:
    """Lines that a person types or pastes into the terminal, read without waiting for them (POSIX alone).

    A terminal that edits lines cuts them, at 1,024 characters on macOS and at 4,096 on Linux, and the address with the
    answer may be longer. So its line editing is off until `close`; what is typed is still shown, and Ctrl-C works.
    """

    def __init__(self, file: int) -> None:
        self.file = file
        self._before: list[Any] | None = None
        self._typed = b""

    @classmethod
    def find(cls) -> Terminal | None:
        """The program's own terminal; None if it has none, or if it is another program's turn."""
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
        """Take its line editing off."""
        import termios

        self._before = termios.tcgetattr(self.file)
        without_lines = termios.tcgetattr(self.file)
        without_lines[3] &= ~termios.ICANON
        termios.tcsetattr(self.file, termios.TCSADRAIN, without_lines)

    def read(self) -> str | None:
        """The line that has come to its end, an empty one if nothing will come any more, or None if it goes on."""
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
        """Give it its line editing back."""
        import termios

        if self._before is not None:
            with suppress(OSError, termios.error):
                termios.tcsetattr(self.file, termios.TCSADRAIN, self._before)
