"""200 workers send requests while a short-lived token is renewed again and again: is any request delayed?

Each worker sends one request after the other, for six seconds. The token lives half a second, and the token endpoint
takes 100 ms.

The workers run in process, against the authorization server of `httpx_reauth.testing`, which checks every token. The
API takes 400 ms for a request, so 200 workers do not keep the machine busy. The workers start at different moments
within those 400 ms. The same workers run before without auth, and show the machine's own effect on a latency. The
objects that the process has imported so far are frozen meanwhile: a full collection of all of them, once in six
seconds, would stop everything for 40 to 120 ms.

A request is delayed if it waits for anything but its own answer. That is counted, not timed: if the task of a request
is suspended more often than that of a request without auth, it has waited for a refresh.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine, Generator
from dataclasses import dataclass, field
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import httpx

from httpx_reauth import Reauth, Token
from httpx_reauth.testing import AuthorizationServer

from ._report import Row

FIGURE = "200 workers for 6 s across expiries of a 0.5 s token, token endpoint 100 ms"
WORKERS = 200
DURATION = 6.0  # seconds
LIFETIME = 0.5  # the lifetime of a token in seconds
TOKEN_LATENCY = 0.1  # seconds
API_LATENCY = 0.4  # seconds
TICK = 0.01  # seconds between two checks of how late the event loop is
WARM_UP = 6  # renewals; the policy remembers how long the last five refreshes took
# p99 ÷ p50 without auth; if it is more, the event loop itself was late, by as much as a renewal has to spare
TOO_BUSY = 1.1
IN_HAND = LIFETIME / 40  # seconds that a renewal has to spare; if it had more, there would be too many token requests
NEEDED = DURATION / (LIFETIME - TOKEN_LATENCY)  # token requests; a token can be used when its answer has arrived


@dataclass
class Seen:
    """The measurements of the workers."""

    latencies: list[float] = field(default_factory=list)  # seconds
    suspensions: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    token_requests: int = 0
    late: float = 0.0  # the most seconds by which the event loop called something too late


def run() -> list[Row]:
    gc.collect()
    gc.freeze()
    try:
        plain = asyncio.run(_run(with_auth=False))
        gc.collect()
        seen = asyncio.run(_run(with_auth=True))
    finally:
        gc.unfreeze()
    # the number of times a task is suspended if its request waits only for its own answer
    own = median(plain.suspensions)
    delayed = sum(suspended > own for suspended in seen.suspensions)
    p50, p99, slowest = _spread(seen)
    plain50, plain99, plain_slowest = _spread(plain)
    busy = "; the machine was too busy to tell" if plain99 / plain50 > TOO_BUSY else ""
    spread = f"p50 {p50 * 1e3:.0f} ms; without auth {{:.2f}}{busy}"
    late = f"the event loop was late by up to {seen.late * 1e3:.0f} ms (without auth {plain.late * 1e3:.0f}), of which "
    late += f"a renewal has {IN_HAND * 1e3:.1f} in hand"
    seen_by = f"{len(seen.latencies):,} requests{busy}"
    rates = f"{seen.token_requests} token requests, {NEEDED:g} needed{busy}"
    not_ok = len(seen.statuses) - seen.statuses.count(200)
    return [
        Row(FIGURE, "p99 ÷ p50", p99 / p50, "1.0", note=spread.format(plain99 / plain50)),
        Row(FIGURE, "max ÷ p50", slowest / p50, None, "1.0", note=spread.format(plain_slowest / plain50)),
        Row(FIGURE, "delayed requests", delayed, "0", note=f"{seen_by}; {late}"),
        Row(FIGURE, "401s", seen.statuses.count(401), "0", note=seen_by),
        Row(FIGURE, "other answers than 200", not_ok, "0", note=seen_by),
        Row(FIGURE, "token requests over duration ÷ (lifetime - latency)", seen.token_requests / NEEDED, "1.1",
            note=rates),
    ]  # fmt: skip


async def _run(*, with_auth: bool) -> Seen:
    server = AuthorizationServer(lifetime=LIFETIME, keep_requests=False, access="checked" if with_auth else "open")
    transport = server.transport(httpx)

    async def refresh(token: Token) -> Token:
        async with httpx.AsyncClient(transport=transport) as client:
            form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
            return Token.from_response(await client.post("https://id.example.com/token", data=form))

    auth = Reauth(refresh, token=server.issue(access_token=False)) if with_auth else None
    server.token_endpoint.latency, server.api.latency = TOKEN_LATENCY, API_LATENCY
    seen = Seen()
    async with httpx.AsyncClient(transport=transport, auth=auth, base_url="https://api.example.com") as client:
        if auth is not None:
            for _ in range(WARM_UP):  # the workers are signed in, and everything is imported, before the measurement
                await auth.aget_token(rejected=auth.store.state.token)
        before, end = server.token_requests, perf_counter() + DURATION

        async def watch() -> None:
            while (due := perf_counter() + TICK) < end:
                await asyncio.sleep(TICK)
                seen.late = max(seen.late, perf_counter() - due)

        async def worker(number: int) -> None:
            await asyncio.sleep(API_LATENCY * number / WORKERS)
            while perf_counter() < end:
                start = perf_counter()
                request = _Suspended(client.get("/me"))
                response = await request
                seen.latencies.append(perf_counter() - start)
                seen.suspensions.append(request.times)
                seen.statuses.append(response.status_code)

        async def count() -> None:  # at the end of the duration; the last answers come a little later
            await asyncio.sleep(end - perf_counter())
            seen.token_requests = server.token_requests - before

        await asyncio.gather(count(), watch(), *(worker(number) for number in range(WORKERS)))
        if auth is not None:
            await auth.aclose()
    return seen


class _Suspended:
    """Awaits a coroutine, and counts how often it suspends the task."""

    def __init__(self, coroutine: Coroutine[Any, Any, httpx.Response]) -> None:
        self._coroutine = coroutine
        self.times = 0

    def __await__(self) -> Generator[Any, Any, httpx.Response]:
        steps = self._coroutine.__await__()
        try:
            while True:
                waits_for = next(steps)
                self.times += 1
                yield waits_for
        except StopIteration as stop:
            response: httpx.Response = stop.value
            return response


def _spread(seen: Seen) -> tuple[float, float, float]:
    cuts = quantiles(seen.latencies, n=100)
    return cuts[49], cuts[98], max(seen.latencies)
