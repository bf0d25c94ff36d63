"""Waits for the browser's answer at the loopback sockets, or for a person who pastes it.

1. `open(url)` is called in a thread while the sockets are served. With some browsers, it returns only when the browser
   is closed, and the answer may arrive before that. If it returns `False` or raises `webbrowser.Error` or `OSError`,
   there is no browser on this machine. In an environment without a display, `webbrowser.open` is not called at all.
2. If there is no browser, the program shows the URL. The person opens it on another machine, and can paste the URL of
   the last page. The sockets stay open, because their port may be forwarded from that machine.
3. The first answer ends the wait, whether it is pasted or arrives at the sockets.
"""

from __future__ import annotations

import socket
import threading
import time
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from inspect import signature
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, cast

from httpx_reauth._token import Unpicklable
from httpx_reauth.signin.callback import Answer, Callback, Expected
from httpx_reauth.signin.listener import Listener
from httpx_reauth.signin.terminal import Terminal, has_browser

Open: TypeAlias = Callable[[str], object]
Paste: TypeAlias = Callable[[], "str | None"] | Callable[[str], "str | None"]

_PASTES = 5  # a person may paste this many times
_GRACE = 1.0  # seconds to wait for `open` and for the last reply, after the answer has arrived


@dataclass(frozen=True, slots=True)
class BrowserPrompt:
    """The values that a person needs to sign in with a browser. `str()` makes a text of them.

    Attributes:
        url: the URL to open.
        is_opening: the program opens a browser. False: the person opens one, perhaps on another machine.
        can_paste: the program waits until the person pastes the URL of the last page.
        is_repeated: the person has pasted something else than this URL.
    """

    url: str
    is_opening: bool
    can_paste: bool
    is_repeated: bool = False

    def __str__(self) -> str:
        """Plain text for a terminal."""
        if self.is_repeated:
            return "That is not the address of the last page of this sign-in. Copy all of it, paste it and press Enter:"
        if self.is_opening:
            return f"Your browser opens so that you can sign in. If it does not, open this address:\n\n    {self.url}\n"
        text = f"Open this address in a browser and sign in:\n\n    {self.url}\n"
        if self.can_paste:
            text += (
                "\nIf that browser runs on another machine, it cannot show the last page. Copy the address of that "
                "page, which begins with http://, paste it here and press Enter:"
            )
        return text


@dataclass(frozen=True, slots=True, repr=False)
class AwaitRedirect(Unpicklable):
    """A step of a sign-in: open `url` in a browser, and wait up to `timeout` seconds for the answer `expected`."""

    url: str
    expected: Expected
    open: Open
    paste: Paste | None
    timeout: float


class Redirect:
    """One wait for the browser's answer. Call `start`, then `look` until it `is_over`. It owns the sockets."""

    def __init__(self, sockets: Sequence[socket.socket], step: AwaitRedirect) -> None:
        self._step = step
        self._callback = Callback(step.expected)
        self._listener = Listener(sockets, self._callback.reply)
        self._deadline = time.monotonic() + step.timeout
        self._prompts: list[BrowserPrompt] = []
        self._events: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._is_opening = False
        self._ending: list[threading.Thread] = []  # threads whose function has returned
        self._answered_at: float | None = None
        self._pastes = 0
        self._to_paste = False  # call `paste` in the next `look`, after the prompt has been shown
        self._terminal: Terminal | None = None
        self._waker, self._woken = socket.socketpair()
        self._woken.setblocking(False)  # noqa: FBT003
        self._listener.watch(self._woken, self._wake_up)

    @property
    def answer(self) -> Answer | None:
        """The answer; None if it has not arrived. If it is None when the wait is over, no answer arrived in time."""
        return self._callback.answer

    @property
    def is_over(self) -> bool:
        """Is the time over? Or has the answer arrived, and has the browser received its page?"""
        now = time.monotonic()
        if self._answered_at is None:
            return now >= self._deadline
        return not (self._is_opening or self._listener.is_sending) or now >= self._answered_at + _GRACE

    def look(self, seconds: float) -> list[BrowserPrompt]:
        """Serve the sockets and the threads once, and wait up to `seconds` for something to do.

        Returns:
            The prompts to show.
        """
        end = self._deadline if self._answered_at is None else self._answered_at + _GRACE
        if self._to_paste:
            self._to_paste = False
            self._ask_to_paste()
        if not self._prompts:
            self._listener.serve(min(seconds, max(0.0, end - time.monotonic())))
        with suppress(Empty):
            while True:
                self._events.get_nowait()()
        if self._answered_at is None and self.answer is not None:
            self._answered_at = time.monotonic()
        prompts, self._prompts = self._prompts, []
        return prompts

    def close(self) -> None:
        """Close the sockets, and switch the terminal's line editing on again."""
        try:
            if self._terminal is not None:
                self._terminal.close()
        finally:
            self._listener.close()
            self._waker.close()
            self._woken.close()
        for thread in self._ending:
            thread.join(_GRACE)

    # --- the browser ---

    def start(self) -> None:
        """Open the browser, if there is one. Else prepare for a paste."""
        step = self._step
        if step.open is webbrowser.open and not has_browser():
            self._opened(is_there=False)
            return
        self._is_opening = True
        self._prompts.append(BrowserPrompt(step.url, is_opening=True, can_paste=False))
        self._start(lambda: step.open(step.url), self._has_opened)

    def _has_opened(self, result: object, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, (webbrowser.Error, OSError)):
            raise error
        self._opened(is_there=error is None and result is not False)

    def _opened(self, *, is_there: bool) -> None:
        self._is_opening = False
        if is_there:
            return
        if self._step.paste is None:
            self._terminal = Terminal.find()
            if self._terminal is not None:
                self._terminal.open()
                self._listener.watch(self._terminal.file, self._type)
        can_paste = self._step.paste is not None or self._terminal is not None
        self._prompts.append(BrowserPrompt(self._step.url, is_opening=False, can_paste=can_paste))
        self._to_paste = can_paste

    # --- the paste ---

    def _ask_to_paste(self) -> None:
        self._pastes += 1
        paste, url = cast("Callable[..., Any] | None", self._step.paste), self._step.url
        if paste is not None:
            self._start(lambda: paste(url) if _takes_one(paste) else paste(), self._has_pasted)

    def _has_pasted(self, text: object, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, EOFError):
            raise error
        self._pasted(text if isinstance(text, str) else "")

    def _type(self, _: object) -> None:
        assert self._terminal is not None
        text = self._terminal.read()
        if text is not None:
            self._pasted(text)

    def _pasted(self, text: str) -> None:
        if self.answer is not None:
            return
        found = self._step.expected.find_in_pasted(text)
        if found is not None:
            self._callback.answer = found
        elif text.strip() and self._pastes < _PASTES:
            self._prompts.append(BrowserPrompt(self._step.url, is_opening=False, can_paste=True, is_repeated=True))
            self._to_paste = True
        elif self._terminal is not None:
            self._listener.unwatch(self._terminal.file)  # an empty or ended input, or too many pastes

    # --- threads ---

    def _start(self, function: Callable[[], object], then: Callable[[object, BaseException | None], None]) -> None:
        """Call `function` in a thread. The next `look` calls `then` with its result or its error."""

        def work() -> None:
            result, error = None, None
            try:
                result = function()
            except BaseException as raised:  # noqa: BLE001 - the next `look` raises it
                error = raised
            self._ending.append(thread)
            self._events.put(lambda: then(result, error))
            with suppress(OSError):  # the wait is over, and `close` has closed the socket
                self._waker.send(b"\0")

        thread = threading.Thread(target=work, name="httpx_reauth.signin", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread can be started: treat this like a missing browser
            self._events.put(lambda: then(False, None))  # noqa: FBT003

    def _wake_up(self, _: object) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(4096)


def _takes_one(function: Callable[..., object]) -> bool:
    """Must `function` be called with an argument?"""
    try:
        signature(function).bind()
    except TypeError:
        return True
    except ValueError:  # a function of C without a signature, like `input` of some Python versions
        return False
    return False
