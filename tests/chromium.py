"""A real browser: headless Chromium. Tests control it by its DevTools protocol over a pipe, without another package.

It uses a new profile, and can reach only this machine: no other host name resolves.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost , EXCLUDE [::1]",
    "--remote-debugging-pipe",
]
# The browser reads its commands from descriptor 3 and answers on 4.
_AT_3_AND_4 = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_PATIENCE = 60.0  # seconds for one answer


def binary() -> str:
    """Return the path of Chromium. Skip the test if there is no Chromium."""
    if os.name == "nt":
        pytest.skip("NO CHROMIUM: its pipe is opened as POSIX does. The tests with a real browser did not run.")
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("NO CHROMIUM: the tests with a real browser did not run (Debian: apt-get install chromium).")
    return found


@contextmanager
def running() -> Iterator[Chromium]:
    """Run a browser until the end of the block."""
    program = binary()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        command = [sys.executable, "-c", _AT_3_AND_4, str(to_read), str(from_write)]
        command += [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        with subprocess.Popen(
            command,
            pass_fds=(to_read, from_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            os.close(to_read)
            os.close(from_write)
            try:
                yield Chromium(to_write, from_read)
            finally:
                os.close(to_write)  # the browser ends when its pipe is closed
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                os.close(from_read)


class Chromium:
    """One browser process. Any thread may send commands."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._buffer = b""
        self._last = 0
        self._lock = threading.RLock()
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command; return the browser's answer."""
        with self._lock:
            self._last += 1
            number = self._last
            message: dict[str, Any] = {"id": number, "method": method, "params": params}
            if session is not None:
                message["sessionId"] = session
            os.write(self._commands, json.dumps(message).encode() + b"\0")
            overdue = threading.Timer(_PATIENCE, os.close, [self._commands])
            overdue.start()
            try:
                while True:
                    said = self._receive()
                    if said.get("id") == number:
                        assert "error" not in said, (method, said)
                        return said["result"]
                    self.events.append(said)
            finally:
                overdue.cancel()

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._answers, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def page(self) -> Page:
        """Open a new window and return it."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        return Page(self, target, self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])


class Page:
    """One window."""

    def __init__(self, browser: Chromium, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session
        self.send("Page.enable")
        self.send("Network.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.send(method, self._session, **params)

    def open(self, url: str) -> None:
        """Open `url`, and wait until the page has been loaded."""
        self.send("Page.navigate", url=url)
        self.wait_until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression. If it is a promise, return its result."""
        said = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def wait_until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true, on this page or on a page that replaces it meanwhile."""
        script = f"""new Promise((resolve) => {{
            const look = () => ({condition}) ? resolve(true) : setTimeout(look, 20);
            look();
        }})"""
        for _ in range(40):  # a page that is replaced takes the promise with it
            try:
                assert self.run(script)
            except AssertionError as error:
                if "navigated or closed" not in str(error) and "context" not in str(error):
                    raise
            else:
                return
        raise AssertionError(f"never: {condition}")

    @property
    def url(self) -> str:
        return self.run("location.href")

    @property
    def html(self) -> str:
        return self.run("document.documentElement.outerHTML")

    @property
    def text(self) -> str:
        return self.run("document.body.innerText")

    def requested(self) -> list[str]:
        """Return every URL that this window has requested so far."""
        self.run("1")
        return [
            event["params"]["request"]["url"]
            for event in self._browser.events
            if event["method"] == "Network.requestWillBeSent" and event.get("sessionId") == self._session
        ]

    def log(self) -> list[str]:
        """Return the messages of the window's console so far, e.g. about blocked resources and scripts."""
        self.send("Log.enable")
        return [
            event["params"]["entry"]["text"]
            for event in self._browser.events
            if event["method"] == "Log.entryAdded" and event.get("sessionId") == self._session
        ]

    def looks(self, *, width: int, height: int, dark: bool) -> None:
        """Set the window's size, and its light or dark colours."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = "dark" if dark else "light"
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        self._browser.send("Target.closeTarget", targetId=self._target)
