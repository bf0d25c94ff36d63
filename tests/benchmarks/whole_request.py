"""The cost of the auth in a whole request, in process and over a socket, compared with the smallest bearer auth.

In process, a `MockTransport` answers, so only httpx and the auth take time. Over the loopback socket, the server is
another process, and the CPU time of the client is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from statistics import median

import httpx

from ._cpu_time import more, take_turns
from ._instructions import Countable, are_countable, be_counted, count
from ._loopback import server
from ._report import Row
from ._subjects import URL, run_without_loop, subjects

FIGURE = "whole request, against the smallest bearer auth"
TARGETS = ("1.01", "0.99")
OURS = ("default", "one origin")
PER_TURN = 3  # requests
SECONDS = 8.0
COUNTED = (50, 150)  # iterations; the difference of the two runs counts

Run = Callable[[httpx.Auth, int], None]  # a function that sends a number of requests


def run() -> list[Row]:
    rows = []
    in_process = {"sync": sync_in_process(), "async": async_in_process()}
    for mode, send in in_process.items():
        rows += _timed(f"{mode}, in process", send, URL)
    if are_countable():
        rows += _counted()
    with server() as url, httpx.Client() as client, closing(asyncio.new_event_loop()) as loop:
        rows += _timed("sync, loopback socket", _sync(client, url), url)
        async_client = httpx.AsyncClient()
        rows += _timed("async, loopback socket", _async(async_client, url, loop.run_until_complete), url)
        loop.run_until_complete(async_client.aclose())
    return rows


def _timed(case: str, send: Run, url: str) -> list[Row]:
    times = take_turns({name: _turn(send, auth) for name, auth in subjects(url).items() if name != "none"}, SECONDS)
    bearer = times["bearer"]
    rows = []
    for name in OURS:
        ours = times[name]
        ratio = 1 + more(ours, bearer) / median(bearer)
        note = f"bearer {_each(median(bearer))}, ours {_each(median(ours))}; least {min(ours) / min(bearer):.3f}"
        rows.append(Row(FIGURE, f"{case}, CPU time, median, {name}", ratio, *TARGETS, note=note))
    return rows


def _each(seconds: float) -> str:
    return f"{seconds * 1e6 / PER_TURN:,.1f} µs"


def _turn(send: Run, auth: httpx.Auth) -> Callable[[], Callable[[], None]]:
    return lambda: lambda: send(auth, PER_TURN)


def _counted() -> list[Row]:
    modes, names = ("sync", "async"), ("bearer", *OURS)
    counted = count(__name__, [f"{mode} {name}" for mode in modes for name in names], *COUNTED)
    rows = []
    for mode in modes:
        bearer = counted[f"{mode} bearer"]
        for name in OURS:
            ours = counted[f"{mode} {name}"]
            note = f"bearer {bearer:,.0f}, ours {ours:,.0f}"
            rows.append(Row(FIGURE, f"{mode}, in process, instructions, {name}", ours / bearer, *TARGETS, note=note))
    return rows


def sync_in_process() -> Run:
    return _sync(httpx.Client(transport=httpx.MockTransport(_answer)), URL)


def async_in_process() -> Run:
    return _async(httpx.AsyncClient(transport=httpx.MockTransport(_answer)), URL, run_without_loop)


def _answer(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=b"{}")


def _sync(client: httpx.Client, url: str) -> Run:
    def send(auth: httpx.Auth, iterations: int) -> None:
        for _ in range(iterations):
            client.get(url, auth=auth)

    return send


def _async(client: httpx.AsyncClient, url: str, run: Callable[..., object]) -> Run:
    async def send(auth: httpx.Auth, iterations: int) -> None:
        for _ in range(iterations):
            await client.get(url, auth=auth)

    return lambda auth, iterations: run(send(auth, iterations)) and None


def _countable(send: Run, auth: httpx.Auth) -> Countable:
    return lambda iterations: lambda: send(auth, iterations)


if __name__ == "__main__":
    be_counted(
        _countable(send, subjects()[name])
        for send in (sync_in_process(), async_in_process())
        for name in ("bearer", *OURS)
    )
