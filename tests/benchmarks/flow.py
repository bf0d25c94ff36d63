"""The cost of the auth flow with a valid token, compared with the smallest bearer auth.

The benchmark drives the flows as the clients do, without a client around them. From each time it subtracts the time of
`httpx.Auth()`, which does nothing. A ratio of 1.0 means: the flow costs as much as an `auth_flow` that sets a header
and yields.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import httpx

from ._cpu_time import more, take_turns
from ._instructions import Countable, are_countable, be_counted, count
from ._report import Row
from ._subjects import RUNS, Run, requests, subjects, without_token

FIGURE = "auth flow, valid token: overhead over `httpx.Auth()`, against the smallest bearer auth"
TARGETS = {"default": ("0.85", "0.75"), "one origin": ("1.15", "0.95")}
PER_TURN = 200  # flows
SECONDS = 5.0
COUNTED = (50, 250)  # iterations; the difference of the two runs counts


def run() -> list[Row]:
    rows = []
    for mode in RUNS:
        times = take_turns({name: _turn(mode, auth) for name, auth in subjects().items()}, SECONDS)
        nothing, bearer = times["none"], times["bearer"]
        for name in TARGETS:
            ours = times[name]
            note = f"Auth() {_each(median(nothing))}, bearer {_each(median(bearer))}, ours {_each(median(ours))}"
            ratio = more(ours, nothing) / more(bearer, nothing)
            rows.append(_row(f"{mode}, CPU time, median", name, ratio, note))
            note = f"Auth() {_each(min(nothing))}, bearer {_each(min(bearer))}, ours {_each(min(ours))}"
            ratio = (min(ours) - min(nothing)) / (min(bearer) - min(nothing))
            rows.append(_row(f"{mode}, CPU time, least", name, ratio, note))
    return rows + _counted() if are_countable() else rows


def _counted() -> list[Row]:
    rows = []
    counted = count(__name__, [f"{mode} {name}" for mode in RUNS for name in subjects()], *COUNTED)
    for mode in RUNS:
        nothing, bearer = counted[f"{mode} none"], counted[f"{mode} bearer"]
        for name in TARGETS:
            ours = counted[f"{mode} {name}"]
            note = f"Auth() {nothing:,.0f}, bearer {bearer:,.0f}, ours {ours:,.0f}"
            rows.append(_row(f"{mode}, instructions", name, (ours - nothing) / (bearer - nothing), note))
    return rows


def _row(case: str, name: str, ratio: float, note: str) -> Row:
    return Row(FIGURE, f"{case}, {name}", ratio, *TARGETS[name], note=note)


def _each(seconds: float) -> str:
    return f"{seconds * 1e9 / PER_TURN:,.0f} ns"


def _turn(mode: str, auth: httpx.Auth) -> Callable[[], Callable[[], None]]:
    drive, batch = RUNS[mode], requests(PER_TURN)

    def prepare() -> Callable[[], None]:
        without_token(batch)
        return lambda: drive(auth, batch)

    return prepare


def _countable(drive: Run, auth: httpx.Auth, batch: list[httpx.Request]) -> Countable:
    def prepare(iterations: int) -> Callable[[], None]:
        without_token(batch)
        return lambda: drive(auth, batch[:iterations])

    return prepare


if __name__ == "__main__":
    one_batch = requests(COUNTED[-1])
    be_counted(_countable(drive, auth, one_batch) for drive in RUNS.values() for auth in subjects().values())
