"""10,000 tasks need the first token at the same time: how much longer than necessary does it take?

The time until all have their answer is divided by the 50 ms of the token endpoint plus the time of the same requests
without auth.

The requests are sent in process. They and the refresh share one event loop. Each turn has a new client, a new auth
object and a new event loop. Turns with auth, turns without auth, and turns with the smallest auth that waits alternate,
and their medians are compared. The smallest auth shows what 10,000 suspended requests cost by themselves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter, process_time

import anyio
import httpx

from ._api import BASE_URL, SmallestWaiter, TokenEndpoint, Transport, signed_out
from ._report import Row

FIGURE = "10,000 waiting tasks, token endpoint 50 ms: time over (50 ms + the same requests without auth)"
TASKS = 10_000
LATENCY = 0.05  # seconds
TURNS = 5
PATIENCE = 30.0  # seconds; no turn begins after that
BACKENDS = ("asyncio", "trio")


def run() -> list[Row]:
    return [row for backend in BACKENDS if _is_there(backend) for row in _rows(backend)]


def _rows(backend: str) -> list[Row]:
    times: dict[str, list[float]] = {"ours": [], "smallest": [], "without": []}
    cpu_times: dict[str, list[float]] = {name: [] for name in times}
    end = perf_counter() + PATIENCE
    while not times["ours"] or (len(times["ours"]) < TURNS and perf_counter() < end):
        for name, taken in times.items():
            endpoint = TokenEndpoint(LATENCY)
            auth = {"ours": signed_out, "smallest": SmallestWaiter, "without": lambda _: None}[name](endpoint)
            cpu = process_time()
            taken.append(anyio.run(_all_at_once, auth, backend=backend))
            cpu_times[name].append(process_time() - cpu)
            assert endpoint.requests == (name != "without")
    ours, smallest, plain = (median(times[name]) for name in times)
    cpu_ratio = median(cpu_times["ours"]) / median(cpu_times["without"])
    note = (
        f"ours {ours * 1e3:,.0f} ms, without auth {plain * 1e3:,.0f} ms; CPU time {cpu_ratio:.2f}; 1 token request; "
        f"the smallest auth that waits: {smallest / (LATENCY + plain):.2f}"
    )
    return [Row(FIGURE, backend, ours / (LATENCY + plain), "1.25", "1.0", note=note)]


async def _all_at_once(auth: httpx.Auth | None) -> float:
    """Return the seconds until every task has its answer."""
    async with httpx.AsyncClient(transport=Transport(), base_url=BASE_URL, auth=auth) as client:

        async def task() -> None:
            assert (await client.get("/me")).status_code == 200

        return await timed([task] * TASKS)


async def timed(tasks: list[Callable[[], Awaitable[None]]]) -> float:
    """Return the seconds that all of `tasks` take at the same time."""
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
