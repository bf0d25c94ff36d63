"""Tests of Ctrl-C and cancellation: a sign-in ends immediately.

It leaves no thread, no socket and no changed terminal setting.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from signing_in import URL, get, query_of

from httpx_reauth.signin import BrowserSignIn, DeviceSignIn

PROGRAM = """
import os, signal, stat, sys, threading, warnings
sys.path[:0] = {path!r}
warnings.simplefilter("error")
import asyncio, anyio, anyio.to_thread, httpx
from httpx_reauth.oauth import Issuer
from httpx_reauth.signin import BrowserSignIn, DeviceSignIn

def sockets():
    found = set()
    for number in range(256):
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                found.add(number)
        except OSError:
            pass
    return found

def answer(request):
    if request.url.path == "/device":
        document = dict(device_code="d", user_code="u", verification_uri="{url}/go", interval=60, expires_in=600)
        return httpx.Response(200, json=document)
    return httpx.Response(200, json=dict(access_token="a"))

client = httpx.Client(transport=httpx.MockTransport(answer))
issuer = Issuer.of(
    authorization_endpoint="{url}/authorize", token_endpoint="{url}/token", device_authorization_endpoint="{url}/device"
)
sign_in = {sign_in}
before = sockets()

def show(prompt):
    print("waiting", flush=True)

def run():
    if {way!r} == "run":
        sign_in.run(show=show)
    else:
        anyio.run(lambda: sign_in.arun(show=show), backend={way!r})

try:
    run()
except (KeyboardInterrupt, asyncio.CancelledError):  # the latter: anyio.run on Python 3.10
    others = [one for one in threading.enumerate() if one is not threading.main_thread()]
    others = [one for one in others if not one.name.startswith("Trio thread")]  # trio's own reserve
    for one in others:
        one.join(10)  # anyio's reserve ends with its event loop
    names = [one.name for one in others if one.is_alive()]
    print("interrupted", names, sockets() - before)
"""

SIGN_INS = {
    "browser": 'BrowserSignIn(issuer, "cli", client=client, open=lambda url: None, host="localhost")',
    "device": 'DeviceSignIn(issuer, "cli", client=client)',
}


@pytest.mark.skipif(os.name == "nt", reason="SIGINT is sent to a process")
@pytest.mark.parametrize("way", ["run", "asyncio", "trio"])
@pytest.mark.parametrize("sign_in", SIGN_INS.values(), ids=SIGN_INS)
def test_ctrl_c_ends_a_sign_in_immediately_and_leaves_nothing_behind(way, sign_in):
    program = textwrap.dedent(PROGRAM).format(path=sys.path, url=URL, sign_in=sign_in, way=way)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "waiting\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert out == "interrupted [] set()\n"
    assert err == ""


@pytest.mark.anyio
async def test_a_cancelled_sign_in_frees_the_port(stand_in):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    shown = anyio.Event()
    one = BrowserSignIn(stand_in.issuer(), "cli", client=stand_in.client(), open=lambda _: None, port=port)

    async def sign_in() -> None:
        await one.arun(show=lambda _: shown.set())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sign_in)
        await shown.wait()
        tasks.cancel_scope.cancel()
    with pytest.raises(httpx.ConnectError):
        get(f"http://127.0.0.1:{port}/callback")


@pytest.mark.anyio
async def test_other_tasks_run_while_a_person_signs_in(stand_in):
    """One of those tasks may be the user."""
    send, receive = anyio.create_memory_object_stream[str](1)
    one = BrowserSignIn(stand_in.issuer(), "cli", client=stand_in.client(), open=lambda _: None)

    async def visit() -> None:
        with receive:
            url = await receive.receive()
        async with httpx.AsyncClient(trust_env=False, verify=False) as browser:
            assert (await browser.get(stand_in.callback(url))).status_code == 200

    with send:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit)
            token = await one.arun(show=lambda prompt: send.send_nowait(prompt.url))
    assert token.access_token == "s3cret-access"


@pytest.mark.anyio
async def test_a_cancelled_device_sign_in_polls_no_more(stand_in):
    shown = anyio.Event()
    one = DeviceSignIn(stand_in.issuer(), "cli", client=stand_in.client())

    async def sign_in() -> None:
        await one.arun(show=lambda _: shown.set())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sign_in)
        await shown.wait()
        tasks.cancel_scope.cancel()
    assert stand_in.forms("/token") == []


class At:
    """Raises KeyboardInterrupt at the line number `count` that the package runs in this thread, as Ctrl-C may."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if f"httpx_reauth{os.sep}signin" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def open_sockets() -> set[int]:
    """Return the open sockets of this process."""
    found = set()
    for number in range(256):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                found.add(number)
    return found


@pytest.mark.skipif(os.name == "nt", reason="descriptors are numbers that can be asked")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # if Python closes a forgotten socket, it is closed as well
def test_ctrl_c_at_any_line_leaves_no_socket_open(stand_in):
    """The test tries one line of 29, because each is a whole sign-in. All lines have been tried once."""
    ports: list[int | None] = []

    def open_(url: str) -> None:
        ports.append(urlsplit(query_of(url)["redirect_uri"]).port)
        stand_in.visit(url)

    one = BrowserSignIn(stand_in.issuer(), "cli", client=stand_in.client(), open=open_)
    one.run(show=lambda _: None)
    before = open_sockets()
    for count in range(1, 2000, 29):
        at, is_interrupted = At(count), False
        sys.settrace(at)
        try:
            one.run(show=lambda _: None)
        except KeyboardInterrupt:
            is_interrupted = True
        finally:
            sys.settrace(None)
        assert is_interrupted is (at.left <= 0)
        for thread in threading.enumerate():
            if thread.name == "httpx_reauth.signin":
                thread.join(20)  # the browser finds a closed port
        gc.collect()
        assert open_sockets() == before
        if at.left > 0:  # the sign-in ended before
            break
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", ports[-1] or 0)).close()
    else:
        raise AssertionError("it never ends")
