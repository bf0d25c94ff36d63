"""100 slow requests at the same time with a valid token: their time, divided by the time without auth.

Sync clients send them from 100 threads, async clients from 100 tasks. A request takes half a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter

import anyio
import httpx

from ._api import BASE_URL, Transport
from ._report import Row
from ._subjects import reauth
from .waiting import timed

FIGURE = "100 slow requests with a valid token, side by side, over the same without auth"
REQUESTS = 100
LATENCY = 0.5  # seconds
TURNS = 5


def run() -> list[Row]:
    return [
        _row("100 threads, httpx.Client", _threads),
        _row("100 tasks, httpx.AsyncClient, asyncio", lambda auth: anyio.run(_tasks, auth)),
    ]


def _row(case: str, run: Callable[[httpx.Auth | None], float]) -> Row:
    auth = reauth(BASE_URL)
    with_auth, without = [], []
    for _ in range(TURNS):
        without.append(run(None))
        with_auth.append(run(auth))
    ours, plain = median(with_auth), median(without)
    note = f"ours {ours * 1e3:.0f} ms, without auth {plain * 1e3:.0f} ms, a single one {LATENCY * 1e3:.0f} ms"
    return Row(FIGURE, case, ours / plain, "1.0", note=note)


def _threads(auth: httpx.Auth | None) -> float:
    def answer(request: httpx.Request) -> httpx.Response:
        time.sleep(LATENCY)
        return httpx.Response(200)

    transport = httpx.MockTransport(answer)
    with (
        httpx.Client(transport=transport, base_url=BASE_URL, auth=auth) as client,
        ThreadPoolExecutor(REQUESTS) as pool,
    ):
        start = perf_counter()
        for response in pool.map(lambda _: client.get("/me"), range(REQUESTS)):
            assert response.status_code == 200
        return perf_counter() - start


async def _tasks(auth: httpx.Auth | None) -> float:
    async with httpx.AsyncClient(transport=Transport(LATENCY), base_url=BASE_URL, auth=auth) as client:

        async def task() -> None:
            assert (await client.get("/me")).status_code == 200

        return await timed([task] * REQUESTS)
