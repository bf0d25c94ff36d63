"""Authorization servers of other projects, which run on Node.js on loopback; and a simulated user of their pages.

`tests/signin/node/package.json` lists their packages, each with one version. They are installed once, into a folder of
the user's cache whose name is made from the lock file. If `node`, `npm` or a registry is missing, the tests with these
servers are skipped, and the reason says so.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from filelock import FileLock

SOURCES = Path(__file__).parent / "signin" / "node"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
_INSTALLATION = 180  # seconds that the installation may take
_NODE = 20  # the oldest major version of Node.js that works
_START = 30  # seconds until a server listens


def packages() -> Path:
    """Return the folder with the servers and their packages. Skip the test if they cannot be installed."""
    found = _packages()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@cache
def _packages() -> Path | str:
    """Return the same folder, or the reason why the packages cannot be installed. It is tried only once."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return "NO NODE.JS: `node` and `npm` are needed for the tests against oidc-provider. They did not run."
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    if int(version.strip("v").split(".")[0]) < _NODE:
        return f"NO NODE.JS that is new enough: {version.strip()}. The tests against oidc-provider did not run."
    lock = (SOURCES / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(tempfile.gettempdir(), f"cache-{_user()}"))
    folder = cache / "httpx-reauth-tests" / hashlib.sha256(lock).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock"), timeout=_INSTALLATION + 20):
        if not (folder / "complete").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(SOURCES / name, folder)
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            command += ["--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
            try:
                done = subprocess.run(
                    command, cwd=folder, capture_output=True, text=True, timeout=_INSTALLATION, check=False
                )
                said = (done.stderr.strip().splitlines() or ["npm failed"])[0] if done.returncode else ""
            except subprocess.TimeoutExpired:
                said = f"no answer within {_INSTALLATION} s"
            if said:
                return f"NO PACKAGES FROM NPM, so the tests against oidc-provider did not run: {said}"
            (folder / "complete").touch()
    for script in SOURCES.glob("*.mjs"):
        _copy_if_changed(script, folder / script.name)
    return folder


def _copy_if_changed(source: Path, target: Path) -> None:
    if not target.exists() or target.read_bytes() != source.read_bytes():
        fresh = target.with_suffix(f".{os.getpid()}")
        shutil.copy(source, fresh)
        fresh.replace(target)


def _user() -> str:
    return str(os.getuid()) if sys.platform != "win32" else "user"


@contextmanager
def running(script: str, settings: dict[str, object]) -> Iterator[str]:
    """Start the server in `script`, and yield its URL. The server stops at the end of the block."""
    command = ["node", script]
    with subprocess.Popen(
        command, cwd=packages(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
        reader.start()
        overdue = threading.Timer(_START, process.kill)
        overdue.start()
        try:
            process.stdin.write(json.dumps(settings) + "\n")
            process.stdin.flush()
            url = process.stdout.readline().strip()
            overdue.cancel()
            assert url, "".join(said)
            yield url
        finally:
            overdue.cancel()
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            reader.join(10)


# The clients that the tests register.

NATIVE = {
    "client_id": "cli",
    "application_type": "native",
    "token_endpoint_auth_method": "none",
    "redirect_uris": ["http://127.0.0.1/callback", "http://localhost/callback", "http://[::1]/callback"],
    "grant_types": ["authorization_code", "refresh_token", DEVICE_CODE],
    "response_types": ["code"],
}


@dataclass
class Person:
    """A user whose browser runs no scripts. It fills in the forms of oidc-provider's development pages."""

    refuses: bool = False

    def __call__(self, url: str) -> httpx.Response:
        """Sign in at `url`, consent or refuse, and follow all redirects; return the last page."""
        with httpx.Client(follow_redirects=True, timeout=10.0, trust_env=False, verify=False) as browser:
            page = browser.get(url)
            for _ in range(6):
                form = _form_of(page)
                if form is None:
                    return page
                action, fields = form
                if self.refuses and "/interaction/" in str(page.url):
                    (abort,) = re.findall(r'href="([^"]*/abort)"', page.text)
                    page = browser.get(urljoin(str(page.url), html.unescape(abort)))
                    continue
                if self.refuses and 'name="abort"' in page.text:
                    return browser.post(urljoin(str(page.url), action), data={**fields, "abort": "yes"})
                page = browser.post(urljoin(str(page.url), action), data=fields)
        raise AssertionError(f"no end of forms: {page.url}")

    def enter(self, url: str, user_code: str) -> httpx.Response:
        """Open `url`, and enter the user code of a device."""
        return self(f"{url}?user_code={user_code}")


def _form_of(page: httpx.Response) -> tuple[str, dict[str, str]] | None:
    found = re.search(r"<form\b([^>]*)>(.*?)</form>", page.text, re.DOTALL | re.IGNORECASE)
    if found is None:
        return None
    action = re.search(r'action="([^"]*)"', found[1])
    fields: dict[str, str] = {}
    for field in re.findall(r"<(?:input|button)\b[^>]*>", found[2]):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', field))
        if "name" in attributes:
            fields[attributes["name"]] = html.unescape(attributes.get("value", "")) or "ada"
    return html.unescape(action[1] if action else str(page.url)), fields
