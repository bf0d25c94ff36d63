"""Ctrl-C and cancellation: a sign-in ends at once, and leaves no thread, no socket and no terminal setting behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap

import anyio
import httpx
import pytest
from signing_in import URL, get

from httpx_reauth.signin import BrowserSignIn, DeviceSignIn

PROGRAM = """
import os, signal, stat, sys, threading, warnings
sys.path[:0] = {path!r}
warnings.simplefilter("error")
import anyio, anyio.to_thread, httpx
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
except KeyboardInterrupt:
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
def test_ctrl_c_ends_it_at_once_and_leaves_nothing_behind(way, sign_in):
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
    """And the person who signs in may be one of them."""
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
