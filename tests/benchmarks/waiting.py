"""10,000 tasks need the first token at once: the time until all have their answer, over the 50 ms of the token
endpoint and what the same requests take without auth.

The requests are sent in process; they and the refresh share one event loop. Each turn is a new client, a new auth
object and a new event loop; the turns with auth and those without alternate, and medians are compared.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter, process_time

import anyio
import httpx

from ._api import BASE_URL, TokenEndpoint, Transport, signed_out
from ._report import Row

FIGURE = "10,000 waiting tasks, token endpoint 50 ms: time over (50 ms + the same requests without auth)"
TASKS = 10_000
LATENCY = 0.05  # seconds
TURNS = 5
PATIENCE = 25.0  # seconds: after that, no further turn begins
BACKENDS = ("asyncio", "trio")


def run() -> list[Row]:
    return [row for backend in BACKENDS if _is_there(backend) for row in _rows(backend)]


def _rows(backend: str) -> list[Row]:
    with_auth: list[float] = []
    without: list[float] = []
    cpu_with_auth: list[float] = []
    cpu_without: list[float] = []
    end = perf_counter() + PATIENCE
    while not with_auth or (len(with_auth) < TURNS and perf_counter() < end):
        cpu = process_time()
        without.append(anyio.run(_all_at_once, None, backend=backend))
        cpu_without.append(process_time() - cpu)
        endpoint = TokenEndpoint(LATENCY)
        cpu = process_time()
        with_auth.append(anyio.run(_all_at_once, signed_out(endpoint), backend=backend))
        cpu_with_auth.append(process_time() - cpu)
        assert endpoint.requests == 1
    ours, plain = median(with_auth), median(without)
    cpu_ratio = median(cpu_with_auth) / median(cpu_without)
    note = f"ours {ours * 1e3:,.0f} ms, without auth {plain * 1e3:,.0f} ms; CPU time {cpu_ratio:.2f}; 1 token request"
    return [Row(FIGURE, backend, ours / (LATENCY + plain), "1.10", "1.0", note=note)]


async def _all_at_once(auth: httpx.Auth | None) -> float:
    """Seconds until every task has its answer."""
    async with httpx.AsyncClient(transport=Transport(), base_url=BASE_URL, auth=auth) as client:

        async def task() -> None:
            assert (await client.get("/me")).status_code == 200

        return await timed([task] * TASKS)


async def timed(tasks: list[Callable[[], Awaitable[None]]]) -> float:
    """Seconds that all of `tasks` take side by side."""
    start = perf_counter()
    async with anyio.create_task_group() as group:
        for task in tasks:
            group.start_soon(task)
    return perf_counter() - start


def _is_there(backend: str) -> bool:
    try:
        anyio.run(anyio.sleep, 0, backend=backend)
    except LookupError:
        return False
    return True
