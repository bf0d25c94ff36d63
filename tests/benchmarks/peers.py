"""This library beside others, measured in the same run: `python -m tests.benchmarks peers`.

They come with the dependency group `benchmarks`; one that is not installed is left out. Two things are measured:

1. CPU time that the library adds to a request with a valid token, over a client of the same package without auth. A
   `MockTransport` answers. All take turns, so that what disturbs the machine disturbs all of them.
2. Token requests when 50 tasks, or 50 threads, need a new token at once. A server on loopback counts them. It takes
   0.3 s for each, so that all of them arrive before the first is answered.

The MCP SDK takes part only in the first. It renews only a token that it got itself.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from importlib.metadata import version
from statistics import median
from typing import Any

import httpx

from httpx_reauth import Reauth, Token
from httpx_reauth.oauth import ClientCredentialsGrant

from ._cpu_time import more, take_turns
from ._report import Row
from ._subjects import ACCESS_TOKEN, URL

PER_TURN = 20  # requests
SECONDS = 10.0
AT_ONCE = 50  # tasks or threads
TOKEN_TAKES = 0.3  # seconds
NO_TOKEN = {"access_token": "expired", "token_type": "Bearer", "expires_at": 1}


@dataclass(frozen=True)
class Peer:
    """A library, and how to make its clients, with a valid token or without one."""

    distribution: str
    package: str  # the package whose clients it works with
    # a function of the URL to get a token from (or None) and of settings
    client: Callable[[str | None, dict[str, Any]], Any]
    async_client: Callable[[str | None, dict[str, Any]], Any]
    is_counted: bool = True


def run() -> list[Row]:
    peers = [peer for peer in (_ours(), *_others()) if peer is not None]
    return [*_timed(peers, is_async=False), *_timed(peers, is_async=True), *_counted(peers)]


# The libraries


def _ours() -> Peer:
    def auth(token_url: str | None) -> Reauth:
        if token_url is None:
            return Reauth(ClientCredentialsGrant("https://id.example.com/token", "a", "b"), token=_valid())
        return Reauth(ClientCredentialsGrant(token_url, "a", "b"))

    return Peer(
        "httpx-reauth",
        "httpx",
        lambda url, settings: httpx.Client(auth=auth(url), **settings),
        lambda url, settings: httpx.AsyncClient(auth=auth(url), **settings),
    )


def _valid() -> Token:
    return Token(ACCESS_TOKEN, expires_in=3600.0)


def _others() -> Iterator[Peer | None]:
    for make in (_singleflight_auth, _httpx_auth, _authlib, _mcp):
        try:
            yield make()
        except ImportError as error:
            print(f"left out: {error}. `pip install --group benchmarks` brings it.")


def _singleflight_auth() -> Peer:
    package = import_module("singleflight_auth")

    def parts(token_url: str | None) -> tuple[Callable[[], str], Callable[[], str], Callable[[], Awaitable[str]]]:
        held = [ACCESS_TOKEN if token_url is None else "expired"]

        def refresh() -> str:
            held[0] = httpx.post(token_url or "").json()["access_token"]
            return held[0]

        async def arefresh() -> str:
            async with httpx.AsyncClient() as client:
                held[0] = (await client.post(token_url or "")).json()["access_token"]
            return held[0]

        return lambda: held[0], refresh, arefresh

    def client(token_url: str | None, settings: dict[str, Any]) -> httpx.Client:
        get_token, refresh, _ = parts(token_url)
        return httpx.Client(auth=package.SingleFlightAuth(get_token, refresh), **settings)

    def async_client(token_url: str | None, settings: dict[str, Any]) -> httpx.AsyncClient:
        get_token, _, refresh = parts(token_url)
        return httpx.AsyncClient(auth=package.AsyncSingleFlightAuth(get_token, refresh), **settings)

    return Peer("singleflight-auth", "httpx", client, async_client)


def _httpx_auth() -> Peer:
    package = import_module("httpx_auth")

    def auth(token_url: str | None) -> Any:
        package.OAuth2.token_cache.clear()
        if token_url is not None:
            return package.OAuth2ClientCredentials(token_url, "a", "b")
        answer = httpx.MockTransport(lambda _: httpx.Response(200, json=_answer()))
        return package.OAuth2ClientCredentials(
            "https://id.example.com/token", "a", "b", client=httpx.Client(transport=answer)
        )

    return Peer(
        "httpx-auth",
        "httpx",
        lambda url, settings: httpx.Client(auth=auth(url), **settings),
        lambda url, settings: httpx.AsyncClient(auth=auth(url), **settings),
    )


def _authlib() -> Peer:
    package = import_module("authlib.integrations.httpx_client")
    httpx_package = package.OAuth2Client.__mro__[2].__module__.partition(".")[0]  # httpx2 if that is installed

    def settings_of(token_url: str | None) -> dict[str, Any]:
        token = NO_TOKEN if token_url else {**NO_TOKEN, "access_token": ACCESS_TOKEN, "expires_at": time.time() + 3600}
        where = {"token_endpoint": token_url or "https://id.example.com/token", "grant_type": "client_credentials"}
        return {"client_id": "a", "client_secret": "b", "token": dict(token), **where}

    return Peer(
        "authlib",
        httpx_package,
        lambda url, settings: package.OAuth2Client(**settings_of(url), **settings),
        lambda url, settings: package.AsyncOAuth2Client(**settings_of(url), **settings),
    )


def _mcp() -> Peer:
    package, shared, httpx2 = (import_module(name) for name in ("mcp.client.auth", "mcp.shared.auth", "httpx2"))

    class Storage:
        async def get_tokens(self) -> Any:
            return shared.OAuthToken(access_token=ACCESS_TOKEN, expires_in=3600)

        async def get_client_info(self) -> Any:
            return shared.OAuthClientInformationFull(client_id="a", redirect_uris=["http://127.0.0.1/callback"])

    def async_client(_token_url: str | None, settings: dict[str, Any]) -> Any:
        metadata = shared.OAuthClientMetadata(redirect_uris=["http://127.0.0.1/callback"])
        return httpx2.AsyncClient(auth=package.OAuthClientProvider(URL, metadata, Storage()), **settings)

    return Peer("mcp", "httpx2", lambda *_: None, async_client, is_counted=False)


# CPU time


def _timed(peers: list[Peer], *, is_async: bool) -> list[Row]:
    """Measure what each library adds to a request with a valid token."""
    kind = "async" if is_async else "sync"
    loop = asyncio.new_event_loop()
    clients: dict[str, Any] = {}
    for package in {peer.package for peer in peers}:
        made = import_module(package)
        clients[package] = (made.AsyncClient if is_async else made.Client)(**_in_process(package))
    for peer in peers:
        client = (peer.async_client if is_async else peer.client)(None, _in_process(peer.package))
        if client is not None:
            clients[peer.distribution] = client

    def turn(client: Any) -> None:
        if is_async:
            loop.run_until_complete(_send_async(client))
        else:
            _send(client)

    for client in clients.values():
        turn(client)  # the first request does more: it loads modules, or gets the token
    times = take_turns({name: (lambda c=client: lambda: turn(c)) for name, client in clients.items()}, SECONDS)
    loop.close()
    figure = f"CPU time added to a request, valid token, {kind}"
    rows = []
    for peer in peers:
        if peer.distribution in clients:
            ours, nothing = times[peer.distribution], times[peer.package]
            note = f"a request takes {_each(ours)} µs, with {peer.package} alone {_each(nothing)} µs"
            added = more(ours, nothing) / PER_TURN * 1e6
            rows.append(Row(figure, _named(peer), added, unit=" µs", note=note))
    return rows


def _each(times: list[float]) -> str:
    return f"{median(times) / PER_TURN * 1e6:,.0f}"


def _in_process(package: str) -> dict[str, Any]:
    made = import_module(package)
    return {"transport": made.MockTransport(lambda _: made.Response(200, content=b"{}"))}


def _send(client: Any) -> None:
    for _ in range(PER_TURN):
        client.get(URL)


async def _send_async(client: Any) -> None:
    for _ in range(PER_TURN):
        await client.get(URL)


# Token requests


def _counted(peers: list[Peer]) -> list[Row]:
    rows = []
    for kind, herd in (("tasks", _tasks), ("threads", _threads)):
        for peer in peers:
            if peer.is_counted:
                with _server() as (url, counted):
                    outcome = herd(peer, url)
                    figure = f"token requests, {AT_ONCE} {kind} need a new token"
                    rows.append(Row(figure, _named(peer), counted[0], note=outcome, unit=""))
    return rows


def _tasks(peer: Peer, url: str) -> str:
    async def main() -> list[Any]:
        async with peer.async_client(f"{url}/token", {}) as client:
            return await asyncio.gather(*(client.get(url) for _ in range(AT_ONCE)), return_exceptions=True)

    return _outcome(asyncio.run(main()))


def _threads(peer: Peer, url: str) -> str:
    barrier = threading.Barrier(AT_ONCE)

    def send(client: Any) -> Any:
        barrier.wait()
        try:
            return client.get(url)
        except Exception as error:  # noqa: BLE001 - the outcome is shown
            return error

    with peer.client(f"{url}/token", {}) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        return _outcome(list(pool.map(send, [client] * AT_ONCE)))


def _outcome(answers: list[Any]) -> str:
    good = sum(getattr(answer, "status_code", None) == 200 for answer in answers)
    return f"{good} of {len(answers)} requests answered with 200"


def _named(peer: Peer) -> str:
    return f"{peer.distribution} {version(peer.distribution)}"


def _answer() -> dict[str, Any]:
    return {"access_token": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 3600}


@contextmanager
def _server() -> Iterator[tuple[str, list[int]]]:
    """Run a server that needs 0.3 s for a token, and refuses `expired`.

    Yield its URL, and the count of its token requests.
    """
    counted = [0]
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                counted[0] += 1
            time.sleep(TOKEN_TAKES)
            self._say(200, _answer())

        def do_GET(self) -> None:
            self._say(200 if self.headers.get("Authorization") == f"Bearer {ACCESS_TOKEN}" else 401, {})

        def _say(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 2 * AT_ONCE

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", counted
        finally:
            server.shutdown()
