"""One soak: the server, the fleet, the faults, and the report."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import httpx2

import httpx_reauth
import httpx_reauth.httpx2
from httpx_reauth.testing import AuthorizationServer

from .fleet import MODES, Shared, Worker
from .tally import EXPECTED, Held, Tally
from .trouble import Trouble

MEMORY = 64 * 2**20  # bytes by which the memory may grow after the first quarter of the time
LIBRARIES = ((httpx, httpx_reauth.Reauth), (httpx2, httpx_reauth.httpx2.Reauth))


@dataclass(frozen=True)
class Plan:
    """The duration of a soak, the number of its clients, and the frequency of its faults."""

    seconds: float
    workers: int = 1  # for each mode and HTTP library
    tasks: int = 4  # for each async worker
    lifetime: float = 2.0  # the lifetime of an access token in seconds
    pause: float = 0.5  # seconds between two faults, on average
    seed: int = 1


@dataclass(frozen=True)
class Report:
    """The result of a soak."""

    tally: Tally
    server: AuthorizationServer
    faults: int
    unserved: int
    start: Held
    quarter: Held
    running: Held  # the process before everything is closed
    end: Held

    @property
    def broken(self) -> list[str]:
        """Return the invariants that did not hold."""
        unexpected = {kind: count for kind, count in self.tally.outcomes.items() if kind not in EXPECTED}
        found = {
            f"refresh tokens used twice: {self.server.reuse_detected}": self.server.reuse_detected,
            f"unexpected outcomes: {unexpected}": unexpected,
            f"auth objects that were not served again: {self.unserved}": self.unserved,
            "nothing was served": not self.tally.outcomes["200"],
            f"open files: {self.start.files}, then {self.end.files}": self.end.files > self.start.files,
            f"threads: {self.start.threads}, then {self.end.threads}": self.end.threads > self.start.threads,
            f"memory grew by more than {MEMORY >> 20} MiB": self.running.memory - self.quarter.memory > MEMORY,
        }
        return [words for words, is_broken in found.items() if is_broken]

    def __str__(self) -> str:
        tally, server = self.tally, self.server
        outcomes = ", ".join(f"{kind}: {count}" for kind, count in sorted(tally.outcomes.items()))
        latencies = ", ".join(
            f"{name} {1000 * tally.percentile(share):.1f} ms"
            for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        )
        held = [
            f"{name}: {state.memory / 2**20:.1f} MiB, {state.files} open files, {state.threads} threads"
            for name, state in (
                ("start", self.start),
                ("a quarter", self.quarter),
                ("running", self.running),
                ("end", self.end),
            )
        ]
        lines = [
            f"requests: {tally.outcomes.total()} ({outcomes})",
            f"latency of answered requests: {latencies}",
            f"refreshes: {server.refreshes}; token requests: {server.token_requests}; faults: {self.faults}",
            f"401 at the API: {server.api_unauthorized}; refresh tokens used twice: {server.reuse_detected}",
            *held,
        ]
        return "\n".join([*lines, *(f"BROKEN: {words}" for words in self.broken)])


def soak(plan: Plan) -> Report:
    """Run `plan`, and return the report."""
    start = Held()
    tally, unserved = Tally(), 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak")))
        server = stack.enter_context(AuthorizationServer(lifetime=plan.lifetime, keep_requests=False))
        url = stack.enter_context(server.serve())
        all_shared = [Shared.of(*library, server, url, folder / f"{library[0].__name__}.json") for library in LIBRARIES]
        workers = [
            Worker(shared, mode, plan.tasks, plan.seed + number)
            for number in range(plan.workers)
            for shared in all_shared
            for mode in MODES
        ]
        for worker in workers:
            worker.thread.start()
        with Trouble(server, plan.pause, plan.seed) as trouble:
            time.sleep(plan.seconds / 4)
            quarter = Held()
            time.sleep(plan.seconds * 3 / 4)
            running = Held()
        for shared in all_shared:
            shared.over.set()
        for worker in workers:
            worker.thread.join()
            tally.add(worker.tally)
            unserved += worker.unserved
        for shared in all_shared:
            shared.close()
    return Report(tally, server, trouble.ordered, unserved, start, quarter, running, Held.after_all(start))
