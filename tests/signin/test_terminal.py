"""Tests of pasting an address into a real terminal: a program runs in a pseudo-terminal, and the test types."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlencode

import pytest
from signing_in import CODE, URL, query_of

pty = pytest.importorskip("pty", reason="pseudo-terminals are POSIX")
import select  # noqa: E402
import termios  # noqa: E402

PROGRAM = """
import os, sys, termios
sys.path[:0] = {path!r}
import asyncio, anyio, httpx
from httpx_reauth.oauth import Issuer
from httpx_reauth.signin import BrowserSignIn, SignInExpired

client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, json=dict(access_token="a"))))
issuer = Issuer.of(authorization_endpoint="{url}/authorize", token_endpoint="{url}/token")
sign_in = BrowserSignIn(issuer, "cli", client=client, open=lambda url: False, timeout={timeout})
before = termios.tcgetattr(0)
outcome = "nothing"
try:
    if {way!r} == "run":
        sign_in.run()
    else:
        anyio.run(sign_in.arun, backend={way!r})
    outcome = "signed in"
except (KeyboardInterrupt, asyncio.CancelledError):  # the latter: anyio.run on Python 3.10
    outcome = "interrupted"
except SignInExpired:
    outcome = "expired"
print("OUTCOME", outcome, "THE TERMINAL IS AS BEFORE" if termios.tcgetattr(0) == before else "CHANGED", "END")
"""


class Screen:
    """A program in a terminal."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.text = ""

    def wait_for(self, words: str) -> str:
        """Read until `words` are on the screen. Return everything read since then."""
        end = time.monotonic() + 30
        while words not in self.text:
            assert time.monotonic() < end, self.text
            if select.select([self.file], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.file, 65_536).decode(errors="replace")
                except OSError:  # the program has ended
                    assert words in self.text, self.text
        return self.text

    def type(self, text: str) -> None:
        os.write(self.file, text.encode())

    def answer(self, **fields: str) -> str:
        """Return the address of the last page of the sign-in that is shown."""
        shown = self.wait_for("press Enter:")
        (url,) = [word for word in shown.split() if word.startswith(f"{URL}/authorize?")][-1:]
        asked = query_of(url)
        return f"{asked['redirect_uri']}?{urlencode({'code': CODE, 'state': asked['state'], **fields})}"


@contextmanager
def in_a_terminal(way: str, timeout: float = 60) -> Iterator[Screen]:
    program = textwrap.dedent(PROGRAM).format(path=sys.path, url=URL, way=way, timeout=timeout)
    pid, file = pty.fork()
    if pid == 0:  # pragma: no cover - the child becomes another program
        os.execv(sys.executable, [sys.executable, "-c", program])
    try:
        yield Screen(file)
    finally:
        os.close(file)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


WAYS = pytest.mark.parametrize("way", ["run", "asyncio", "trio"])


@WAYS
def test_the_address_of_the_last_page_is_pasted(way):
    with in_a_terminal(way) as screen:
        screen.type(screen.answer() + "\n")
        assert "signed in THE TERMINAL IS AS BEFORE" in screen.wait_for(" END")


def test_an_address_may_be_longer_than_a_line_of_a_terminal():
    """A line has at most 1,024 characters on macOS, and 4,096 on Linux."""
    with in_a_terminal("run") as screen:
        screen.type(screen.answer(session_state="a" * 5_000) + "\r")
        screen.wait_for("signed in")


def test_what_is_typed_wrongly_is_asked_for_again_and_may_be_corrected():
    with in_a_terminal("run") as screen:
        answer = screen.answer()
        screen.type("what?\n")
        screen.wait_for("That is not the address")
        screen.type(f"{answer}oops\x7f\x7f\x08\x08\n")
        screen.wait_for("signed in")


@pytest.mark.parametrize("way", ["run", "asyncio"])
def test_ctrl_c_ends_it_and_the_terminal_is_given_back(way):
    with in_a_terminal(way) as screen:
        screen.wait_for("press Enter:")
        screen.type("half an addr\x03")
        assert "interrupted THE TERMINAL IS AS BEFORE" in screen.wait_for(" END")


@pytest.mark.parametrize("end", ["\x04", "nonsense\n" * 5])
def test_who_has_nothing_to_paste_still_has_the_port_until_the_time_is_over(end):
    with in_a_terminal("run", timeout=1.5) as screen:
        screen.wait_for("press Enter:")
        screen.type(end)
        assert "expired THE TERMINAL IS AS BEFORE" in screen.wait_for(" END")


def test_without_a_terminal_nothing_is_asked_for(stand_in):
    from httpx_reauth.signin import BrowserPrompt, BrowserSignIn

    shown: list[BrowserPrompt] = []

    def show(prompt: BrowserPrompt) -> None:
        shown.append(prompt)
        if len(shown) == 2:
            raise LookupError

    one = BrowserSignIn(stand_in.issuer(), "cli", client=stand_in.client(), open=lambda _: False)
    with pytest.raises(LookupError):
        one.run(show=show)
    assert [prompt.can_paste for prompt in shown] == [False, False]
    assert "paste" not in str(shown[-1])
    assert termios
