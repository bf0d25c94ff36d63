"""Tests of every target with a few inputs, the same each time. `python -m tests.fuzzing` tries more."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from .targets import TARGETS

EXAMPLES = {"answers": 100, "mappings": 80, "grants": 50, "refusals": 50}


@pytest.mark.parametrize("name", TARGETS)
def test_guarantee_11_hostile_input_ends_in_a_documented_outcome(name, request):
    target = TARGETS[name]
    server = request.getfixturevalue("redis_server") if name == "redis" else None
    with target.open(server) as check:
        profile = settings(
            max_examples=EXAMPLES.get(name, 30), derandomize=True, database=None, deadline=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        profile(given(target.strategy)(check))()
