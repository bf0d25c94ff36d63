"""Plays many seeds, and counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ._play import Result, play
from ._virtual import virtual


class Tally(NamedTuple):
    """What came of some seeds."""

    schedules: int
    switches: int
    token_requests: int
    api_requests: int
    failures: list[tuple[int, str]]


def play_some(seeds: range) -> Tally:
    """Play these seeds."""
    with virtual():
        return tally(play(seed) for seed in seeds)


def tally(results: Iterable[Result]) -> Tally:
    total, failures = [0, 0, 0, 0], []
    for result in results:
        for at, number in enumerate((1, result.steps, result.token_requests, result.api_requests)):
            total[at] += number
        if result.violation:
            failures.append((result.seed, result.violation))
    return Tally(*total, failures)
