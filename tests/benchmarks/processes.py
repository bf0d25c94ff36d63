"""Many processes with one token: the number of token requests, the time of a renewal, and the cost of a storage.

The time of a renewal ends when the last of 50 processes has the new token. The cost of a storage is what it adds to a
request with a valid token.

The processes, the loopback server, the file, and the Redis on a unix socket are real. The token endpoint takes 400 ms,
like an identity provider on the Internet: TLS, a database, a rotation. The rest of the time goes to the lock, to the
storage, and to the machine, on which 50 processes wake at the same moment on few cores. Bare processes, which renew
without this package, take turns with the others, and show the machine's part.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx

from httpx_reauth import Reauth
from httpx_reauth.storage import FileStorage, MemoryStorage
from httpx_reauth.testing import AuthorizationServer

from ._cpu_time import take_turns
from ._instructions import Countable, are_countable, be_counted, count
from ._report import Row
from ._subjects import RUNS, URL, Run, reauth, requests, without_token

for _folder in ("processes", "."):
    sys.path.append(str(Path(__file__).parents[1] / _folder))

from fleet_worker import Fleet, Order, Place, SharedClock, Worker  # noqa: E402 - the path above makes it importable
from redis_server import running_server  # noqa: E402 - likewise

from ._bare_fleet import work as work_bare  # noqa: E402 - it needs those two

EXPIRIES = 10
BUSY = 8  # processes
FLEET = 50  # processes
LATENCY = 0.4  # the latency of the token endpoint in seconds
TURNS = 5
PER_TURN = 200  # flows
SECONDS = 3.0
COUNTED = (50, 250)  # iterations; the difference of the two runs counts


def run() -> list[Row]:
    rows = []
    for name, place in _places():
        rows.append(
            Row(f"{BUSY} busy processes: token requests per expiry", name, _per_expiry(place), "1.00",
                note=f"{EXPIRIES} expiries")
        )  # fmt: skip
        rows += _renewals(name, place)
    return rows + _valid_token()


def _renewals(name: str, place: Place) -> list[Row]:
    """Measure how long renewals take. The ways take turns, because the load of the machine changes."""
    figure = f"{FLEET} processes renew at one moment: time until the last has the token, over the token endpoint's"
    ways: dict[str, Callable[[], float]] = {
        f"{name}, token endpoint {LATENCY * 1e3:.0f} ms": lambda: _renewal(place),
        f"{name}, all of them have just started": lambda: _renewal_by_new_processes(place),
        f"(in turns with {name}) bare processes: one posts, the others look for a file": _renewal_by_bare_processes,
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(TURNS):
        for way, renew in ways.items():
            times[way].append(renew())
    return [
        Row(figure, way, median(times[way]) / LATENCY, None if number else "1.5", note=_spread(times[way]))
        for number, way in enumerate(ways)
    ]


def _spread(times: list[float]) -> str:
    return f"least {min(times) * 1e3:.0f} ms, median {median(times) * 1e3:.0f} ms, most {max(times) * 1e3:.0f} ms"


def _places() -> Iterator[tuple[str, Place]]:
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        yield "file", Place(path=f"{folder}/app/token.json")
    with running_server() as server:
        if server is not None:
            yield "Redis", Place(socket=server.socket)


@contextmanager
def _fleet(fleet: Fleet, count: int, order: Order) -> Iterator[list[Worker]]:
    try:
        yield fleet.start(count, order)
    finally:
        fleet.end()


def _per_expiry(place: Place) -> float:
    clock = SharedClock()
    with AuthorizationServer(clock=clock, keep_requests=False) as server, server.serve() as url:
        place.hold(server.issue())
        with _fleet(Fleet(), BUSY, Order(url, place, clock=clock)) as workers:
            for worker in workers:
                worker.tell("be busy")
            for expiry in range(EXPIRIES + 1):
                clock.advance(3600 if expiry else 0)
                answers = [worker.hear() for worker in workers]
                assert {outcome for _, outcome in answers} == {200}
        assert server.reuse_detected == 0
        return server.token_requests / EXPIRIES


def _renewal(place: Place) -> float:
    """Return the seconds from the moment at which all processes need a new token until the last of them has it."""
    clock = SharedClock()
    with _slow_server(clock) as (server, url):
        place.hold(server.issue())
        fleet = Fleet()
        with _fleet(fleet, FLEET, Order(url, place, clock=clock)) as workers:
            assert len({worker.ask("get token") for worker in workers}) == 1
            clock.advance(3600)
            return _time_from_the_gate(fleet, workers, ["get token at the gate"] * FLEET)


def _renewal_by_new_processes(place: Place) -> float:
    """Return the same for processes that have neither read the storage nor connected to it."""
    clock = SharedClock()
    with _slow_server(clock) as (server, url):
        place.hold(server.issue(lifetime=0))
        fleet = Fleet()
        with _fleet(fleet, FLEET, Order(url, place, clock=clock)) as workers:
            return _time_from_the_gate(fleet, workers, ["get token at the gate"] * FLEET)


def _renewal_by_bare_processes() -> float:
    """Return the same for processes that do the least that is needed."""
    with _slow_server(SharedClock()) as (server, url), tempfile.TemporaryDirectory(prefix="bench") as folder:
        fleet = Fleet(work=work_bare)
        with _fleet(fleet, FLEET, Order(url, Place(path=f"{folder}/token.json"))) as workers:
            refresh_token = server.issue().refresh_token
            return _time_from_the_gate(fleet, workers, [refresh_token] + [None] * (FLEET - 1))


@contextmanager
def _slow_server(clock: SharedClock) -> Iterator[tuple[AuthorizationServer, str]]:
    with AuthorizationServer(clock=clock) as server, server.serve() as url:
        server.token_endpoint.latency = LATENCY
        yield server, url
        assert server.token_requests == 1


def _time_from_the_gate(fleet: Fleet, workers: list[Worker], orders: list[str | None]) -> float:
    for worker, order in zip(workers, orders, strict=True):
        worker.tell(order)
    time.sleep(0.5)  # all of them wait at the gate
    start = time.monotonic()
    fleet.gate.set()
    return max(worker.hear() for worker in workers) - start


# The cost of a storage.

STORAGES = ("none", "memory", "file")


def _auths(folder: str) -> dict[str, Reauth]:
    return {
        "none": reauth(URL),
        "memory": reauth(URL, storage=MemoryStorage()),
        "file": reauth(URL, storage=FileStorage(f"{folder}/token.json")),
    }


def _valid_token() -> list[Row]:
    figure = "auth flow, valid token: with a storage, against one without"
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        for mode, drive in RUNS.items():
            times = take_turns({name: _turn(drive, auth) for name, auth in _auths(folder).items()}, SECONDS)
            for name in STORAGES[1:]:
                ratio = min(times[name]) / min(times["none"])
                rows.append(Row(figure, f"{mode}, CPU time, least, {name}", ratio, None, "1.01"))
    if are_countable():
        counted = count(__name__, [f"{mode} {name}" for mode in RUNS for name in STORAGES], *COUNTED)
        for mode in RUNS:
            for name in STORAGES[1:]:
                ratio = counted[f"{mode} {name}"] / counted[f"{mode} none"]
                rows.append(Row(figure, f"{mode}, instructions, {name}", ratio, "1.01"))
    return rows


def _turn(drive: Run, auth: Reauth) -> Callable[[], Callable[[], None]]:
    batch = requests(PER_TURN)

    def prepare() -> Callable[[], None]:
        without_token(batch)
        return lambda: drive(auth, batch)

    return prepare


def _countable(drive: Run, auth: Reauth, batch: list[httpx.Request]) -> Countable:
    def prepare(iterations: int) -> Callable[[], None]:
        without_token(batch)
        return lambda: drive(auth, batch[:iterations])

    return prepare


if __name__ == "__main__":
    one_batch = requests(COUNTED[-1])
    with tempfile.TemporaryDirectory(prefix="bench") as one_folder:
        be_counted(
            _countable(drive, auth, one_batch) for drive in RUNS.values() for auth in _auths(one_folder).values()
        )
