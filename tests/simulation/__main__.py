"""`python -m tests.simulation` plays many schedules, or one with its trace."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from itertools import chain
from multiprocessing import get_context

from ._many import play_some
from ._play import play
from ._virtual import virtual

_AT_ONCE = 1_000  # the number of seeds that a job plays before it reports


def show(seed: int) -> bool:
    """Play one seed and print its trace; is all well?"""
    with virtual():
        result = play(seed, traced=True)
    print("\n".join(result.trace))
    print(result.settings)
    if result.cause is not None:
        traceback.print_exception(type(result.cause), result.cause, result.cause.__traceback__, file=sys.stdout)
    print(f"\nseed {seed}: {result.violation or 'all is well'}")
    return not result.violation


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Plays simulated schedules.")
    parser.add_argument("--schedules", type=int, default=10_000, help="how many (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes play them (%(default)s)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after that long")
    parser.add_argument("--seed", type=int, help="play this one and print its trace")
    options = parser.parse_args()
    if options.seed is not None:
        sys.exit(not show(options.seed))
    last = options.first + options.schedules
    chunks = [range(first, min(first + _AT_ONCE, last)) for first in range(options.first, last, _AT_ONCE)]
    began, tallies, told = time.monotonic(), [], 0.0
    with get_context("spawn").Pool(options.jobs) as pool:
        for one in pool.imap(play_some, chunks):
            tallies.append(one)
            for seed, violation in one.failures:
                print(f"seed {seed}: {violation}\n  python -m tests.simulation --seed {seed}", flush=True)
            seconds = time.monotonic() - began
            if seconds - told > 10 or seconds > 60 * options.minutes:
                told = seconds
                done = sum(one.schedules for one in tallies)
                print(f"{done} of {options.schedules}, {done / seconds:.0f} a second", file=sys.stderr, flush=True)
            if seconds > 60 * options.minutes:
                pool.terminate()
                break
    seconds = time.monotonic() - began
    total = [sum(column) for column in zip(*(one[:4] for one in tallies), strict=True)]
    failures = list(chain.from_iterable(one.failures for one in tallies))
    print(
        f"{total[0]} schedules, seeds {options.first} to {options.first + total[0] - 1}, in {seconds:.0f} s: "
        f"{total[1]} switches, {total[2]} token requests, {total[3]} requests; {len(failures)} violations."
    )
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
