"""`python -m tests.fuzzing [--minutes 5] [--seed N] [target ...]` tries hostile input.

Ends with 1 and the smallest input found, if something did not hold.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
import traceback
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # the raw server and the Redis server are there

from hypothesis import HealthCheck, given, seed, settings
from redis_server import RedisServer, running_server

from .targets import TARGETS, Target

SLICE = 200  # the number of inputs before the next target gets its turn


def look(target: Target, server: RedisServer | None, number: int) -> int:
    """Try a slice of inputs (the seed is `number`), and return how many there were."""
    tried = 0
    with target.open(server) as check:

        def counted(value: Any) -> None:
            nonlocal tried
            tried += 1
            check(value)

        profile = settings(
            max_examples=SLICE, database=None, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
        )
        profile(seed(number)(given(target.strategy)(counted)))()
    return tried


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description="Hostile input, for as long as told.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=None, help="the first seed; each slice takes the next")
    parser.add_argument("targets", nargs="*", metavar="target", help=f"some of: {', '.join(TARGETS)}")
    said = parser.parse_args()
    logging.getLogger("httpx_reauth").addHandler(logging.NullHandler())
    # the library logs every error, which is right, but too much here
    logging.getLogger("httpx_reauth").propagate = False
    unknown = set(said.targets).difference(TARGETS)
    if unknown:
        parser.error(f"there is no target {', '.join(sorted(unknown))}; there are: {', '.join(TARGETS)}")
    names, number = said.targets or list(TARGETS), random.randrange(2**32) if said.seed is None else said.seed
    tried: Counter[str] = Counter()
    end = time.monotonic() + 60 * said.minutes
    with ExitStack() as stack:
        server = stack.enter_context(running_server())
        if server is None and "redis" in names:
            print("redis: left out, there is no Redis or Valkey server")
            names = [name for name in names if name != "redis"]
        while time.monotonic() < end:
            for name in names:
                try:
                    tried[name] += look(TARGETS[name], server, number)
                except BaseException:  # noqa: BLE001 - every exception is reported with its seed
                    traceback.print_exc()
                    print(f"\n{name}: found with --seed {number} {name}")
                    return 1
                number += 1
    for name in names:
        print(f"{name}: {tried[name]} inputs")
    print(f"{sum(tried.values())} inputs, nothing found; the next seed is {number}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
