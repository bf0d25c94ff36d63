"""Tests of forked children, of the interpreter's exit, and of threads: there are none when idle, or none can start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import httpx
import pytest
from crowd import Threads, statuses, tasks
from sites import REFRESHES, HttpLibrary, Site

import httpx_reauth
from httpx_reauth import Reauth, Token
from httpx_reauth.testing import AuthorizationServer, ManualClock

ROOT = Path(httpx_reauth.__file__).parents[1]

PRELUDE = """
import os, sys, threading, time
import httpx
from httpx_reauth import Reauth, RefreshFulfilled, Token

url, refresh_token = sys.argv[1:3]
# Made once, beforehand: a child that is forked while a thread of its parent is inside of OpenSSL finds its locks held.
TLS = httpx.create_ssl_context(verify=False)

def refresh(token):
    with httpx.Client(base_url=url, verify=TLS, trust_env=False, timeout=30) as client:
        form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
        return Token.from_response(client.post("/token", data=form))

async def coroutine(token):
    async with httpx.AsyncClient(base_url=url, verify=TLS, trust_env=False, timeout=30) as client:
        form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
        return Token.from_response(await client.post("/token", data=form))

def wait_for_line():
    assert sys.stdin.readline() == "go on\\n"
"""


class Program:
    """A Python program in a new process. It waits where the test wants, and continues when the test says so."""

    def __init__(self, source: str, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "error",
                "-W",
                "ignore::DeprecationWarning",
                "-c",
                PRELUDE + dedent(source),
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # so that its children can be killed with it
        )

    def go_on(self) -> None:
        self._process.stdin.write("go on\n")
        self._process.stdin.flush()

    def is_alive_after(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def output(self) -> list[str]:
        try:
            out, err = self._process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self._end()
            out, err = self._process.communicate()
            pytest.fail(f"it hangs\n{out}{err}")
        assert (self._process.returncode, err) == (0, "")
        return sorted(out.splitlines())

    def __enter__(self) -> Program:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._process.communicate()

    def _end(self) -> None:
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL) if hasattr(os, "killpg") else self._process.kill()


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@forks
@pytest.mark.parametrize("kind", ["thread", "task", "listener"])
def test_guarantee_2_forked_child_works_and_does_not_wait_for_the_refresh_of_its_parent(kind):
    program = """
        def in_child():
            # The parent's flight hangs until the child is done.
            print("child", auth.store.state.status)
            with httpx.Client(base_url=url, auth=auth, verify=TLS, trust_env=False, timeout=30) as client:
                print("child", client.get("/me").status_code)
            auth.close()
            sys.stdout.flush()
            os._exit(0)

        def fork():
            wait_for_line()
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                in_child()
            _, status = os.waitpid(child, 0)
            print("parent: child ended with", status, flush=True)
    """
    program += {
        "thread": """
        auth = Reauth(refresh, token=Token(refresh_token=refresh_token))
        waiting = threading.Thread(target=auth.get_token)
        waiting.start()
        fork()
        waiting.join()
        """,
        "task": """
        import asyncio

        auth = Reauth(coroutine, token=Token(refresh_token=refresh_token))

        async def main():
            task = asyncio.ensure_future(auth.aget_token())
            await asyncio.to_thread(wait_for_line)
            fork()
            await task

        asyncio.run(main())
        """,
        "listener": """
        # Forked while another thread holds what it holds to tell a listener.
        held, go = threading.Event(), threading.Event()

        def listener(state, action):
            if threading.current_thread() is not threading.main_thread() and not forked:
                held.set()
                go.wait(30)

        forked = []
        auth = Reauth(refresh, token=Token(refresh_token=refresh_token))
        auth.store.subscribe(listener)
        waiting = threading.Thread(target=auth.get_token)
        waiting.start()
        assert held.wait(30)
        forked.append(True)
        fork()
        go.set()
        waiting.join()
        """,
    }[kind]
    program += """
        print("parent", auth.store.state.status, flush=True)
    """
    # Both use the same refresh token, as processes without a storage do.
    with AuthorizationServer(rotate=False) as server, server.serve() as url, server.token_endpoint.hold() as gate:
        token = server.issue(access_token=False)
        with Program(program, url, token.refresh_token) as process:
            server.wait_until(lambda: gate.held == 1, timeout=60)
            process.go_on()
            if kind == "task":
                process.go_on()  # the first line lets the event loop continue, this one lets it fork
            server.wait_until(lambda: gate.held == 2, timeout=60)
            gate.release()
            assert process.output() == [
                "child 200",
                "child idle",
                "parent fulfilled",
                "parent: child ended with 0",
            ]
    assert server.token_requests == 2


@forks
def test_guarantee_2_forked_child_may_fork_again_and_both_get_a_token():
    program = """
        auth = Reauth(refresh, token=Token(refresh_token=refresh_token))
        auth.get_token()
        children = []
        for _ in range(3):
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                grandchild = os.fork()
                token = auth.get_token(rejected=auth.store.state.token)
                print(f"token {bool(token.access_token)}\\n", end="", flush=True)  # in one piece: six write at once
                if grandchild:
                    os.waitpid(grandchild, 0)
                os._exit(0)
            children.append(child)
        print("ended with", {os.waitpid(child, 0)[1] for child in children})
    """
    with AuthorizationServer(rotate=False) as server, server.serve() as url:
        process = Program(program, url, server.issue(access_token=False).refresh_token)
        assert process.output() == ["ended with {0}"] + ["token True"] * 6
    assert server.token_requests == 7


@pytest.mark.parametrize("kind", ["waiting daemon", "background", "grant", "lambda"])
def test_guarantee_2_exit_of_the_interpreter_waits_for_a_rotation_under_way(kind, tmp_path: Path):
    kept = tmp_path / "refresh_token"
    program = """
        from pathlib import Path

        def keep(state, action):
            if isinstance(action, RefreshFulfilled):
                Path(sys.argv[3]).write_text(action.token.refresh_token)
    """
    program += {
        "waiting daemon": """
        auth = Reauth(refresh, token=Token(refresh_token=refresh_token))
        auth.store.subscribe(keep)
        threading.Thread(target=auth.get_token, daemon=True).start()
        """,
        "background": """
        auth = Reauth(refresh, token=Token("old", refresh_token=refresh_token, expires_at=time.time() + 30))
        auth.store.subscribe(keep)
        assert auth.get_token().access_token == "old"
        """,
        "grant": """
        from httpx_reauth.oauth import RefreshTokenGrant

        auth = Reauth(RefreshTokenGrant(url + "/token", "app"), token=Token(
            "old", refresh_token=refresh_token, expires_at=time.time() + 30))
        auth.store.subscribe(keep)
        assert auth.get_token().access_token == "old"
        """,
        "lambda": """
        auth = Reauth(lambda token: coroutine(token), token=Token(refresh_token=refresh_token))
        auth.store.subscribe(keep)
        threading.Thread(target=auth.get_token, daemon=True).start()
        """,
    }[kind]
    program += """
        wait_for_line()
    """
    with AuthorizationServer() as server, server.serve() as url, server.token_endpoint.hold() as gate:
        token = server.issue(access_token=False)
        with Program(program, url, token.refresh_token, str(kept)) as process:
            server.wait_until(lambda: gate.held == 1, timeout=60)
            process.go_on()  # the main thread ends
            assert process.is_alive_after(0.5)
            assert not kept.exists()
            gate.release()
            assert process.output() == []
        assert server.token_requests == 1
        # The program has written down the rotated refresh token, and that works.
        auth = Reauth(HttpLibrary(httpx, Reauth).at(url).function, token=Token(refresh_token=kept.read_text()))
        assert auth.get_token().access_token
    assert server.reuse_detected == 0


# --- threads ---


def refresh_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "httpx_reauth refresh"]


@pytest.mark.parametrize("kind", REFRESHES)
def test_no_thread_is_left_when_idle(
    kind, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    before = threading.enumerate()
    auth = library.Reauth(site.refresh(kind), token=server.issue(access_token=False), clock=clock)
    with site.client(auth) as client:
        for _ in range(5):
            assert client.get("/me").status_code == 200
            clock.advance(2 * server.lifetime)
    for thread in set(threading.enumerate()) - set(before):  # it does not wait for threads of earlier tests
        if thread.name.startswith("httpx_reauth"):
            thread.join(60)
    assert not set(threading.enumerate()) - set(before)
    assert server.token_requests == 5


@pytest.mark.anyio
async def test_no_thread_at_all_for_a_coroutine_in_async_code(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock, monkeypatch
):
    started: list[threading.Thread] = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (started.append(thread), start(thread)))
    auth = library.Reauth(site.coroutine, token=server.issue(access_token=False), clock=clock)
    async with auth, site.async_client(auth) as client:
        for _ in range(5):
            assert statuses(await tasks(20, lambda: client.get("/me"))) == [200] * 20
            clock.advance(2 * server.lifetime)
    assert started == []
    assert server.token_requests == 5


@pytest.fixture
def no_threads(monkeypatch):
    """Make each start of a thread fail, as at a limit, or while the interpreter shuts down (Python 3.12 and later)."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("httpx_reauth refresh"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.mark.usefixtures("no_threads")
@pytest.mark.parametrize("kind", REFRESHES)
def test_guarantee_1_where_no_thread_can_start_a_refresh_works_in_place(
    kind, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.refresh(kind), token=server.issue(access_token=False), clock=clock)
    with site.client(auth) as client:
        for number in range(1, 4):
            assert statuses(Threads([lambda: client.get("/me")] * 10).join()) == [200] * 10
            assert server.token_requests == number
            clock.advance(2 * server.lifetime)


@pytest.mark.anyio
@pytest.mark.usefixtures("no_threads")
@pytest.mark.parametrize("kind", REFRESHES)
async def test_guarantee_1_where_no_thread_can_start_a_refresh_works_in_async_code_as_well(
    kind, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.refresh(kind), token=server.issue(access_token=False), clock=clock)
    async with site.async_client(auth) as client:
        for number in range(1, 4):
            assert statuses(await tasks(10, lambda: client.get("/me"))) == [200] * 10
            assert server.token_requests == number
            clock.advance(2 * server.lifetime)
