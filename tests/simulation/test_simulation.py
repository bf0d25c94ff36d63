"""Tests of the simulation: a short run, the replay of a seed, and bugs that it must find."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ._many import tally
from ._mutants import MUTANTS, Mutant, mutated
from ._play import play
from ._virtual import virtual

SCHEDULES = 750
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _virtual() -> Iterator[None]:
    with virtual():
        yield


@pytest.mark.parametrize("part", range(5))
def test_every_invariant_holds_in_every_world(part):
    each = SCHEDULES // 5
    played = tally(play(seed) for seed in range(part * each, (part + 1) * each))
    assert played.failures == []
    assert played.schedules == each
    assert played.token_requests > each
    assert played.api_requests > 5 * each


def test_same_seed_makes_the_same_trace():
    seeds = range(40)
    first = [play(seed, traced=True) for seed in seeds]
    again = [play(seed, traced=True) for seed in reversed(seeds)]
    assert [one.trace for one in first] == [one.trace for one in reversed(again)]
    assert [one.settings for one in first] == [one.settings for one in reversed(again)]
    assert len({tuple(one.trace) for one in first}) == len(seeds)


def test_tracing_changes_nothing():
    assert [play(seed).steps for seed in range(20)] == [play(seed, traced=True).steps for seed in range(20)]


@pytest.mark.parametrize(("mutant", "seeds"), MUTANTS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_known_bug_is_found(mutant: Mutant, seeds: int):
    with mutated(mutant):
        found = next((result for seed in range(seeds) if (result := play(seed)).violation), None)
        assert found is not None
        again = play(found.seed, traced=True)
    assert (again.violation, again.steps) == (found.violation, found.steps)
    assert any("VIOLATION" in line and found.violation in line for line in again.trace)
    assert play(found.seed).violation == ""


def test_command_replays_a_seed_with_its_trace():
    command = [sys.executable, "-m", "tests.simulation", "--seed", "7"]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    expected = play(7, traced=True)
    assert outcome.stdout.splitlines()[: len(expected.trace)] == expected.trace
    assert outcome.stdout.endswith("seed 7: all is well\n")
