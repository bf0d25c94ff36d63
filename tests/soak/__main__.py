"""`python -m tests.soak [--minutes 5] [--workers 2] [--tasks 4] [--lifetime 2] [--pause 0.5] [--seed N]`.

The exit status is 1 if an invariant was broken: a refresh token was used twice, no fault explains an outcome, an auth
object gets no token after the faults have ended, open files or threads are left, or the memory grows by more than 64
MiB after the first quarter of the time.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys

from .run import Plan, soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="A fleet, a server and faults.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=1, help="for each mode (asyncio, trio, sync) and HTTP library")
    parser.add_argument("--tasks", type=int, default=4, help="of each async worker")
    parser.add_argument("--lifetime", type=float, default=2.0, help="of an access token, in seconds")
    parser.add_argument("--pause", type=float, default=0.5, help="between two faults, in seconds")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the faults and pauses")
    said = parser.parse_args()
    logging.getLogger("httpx_reauth").addHandler(logging.NullHandler())
    # the library logs every failed refresh, which is right, but too much here
    logging.getLogger("httpx_reauth").propagate = False
    soak(Plan(0.3, lifetime=0.2, pause=0.1))  # a first run makes all objects that are made once and stay
    plan = Plan(60 * said.minutes, said.workers, said.tasks, said.lifetime, said.pause, said.seed)
    print(f"{plan}", flush=True)
    report = soak(plan)
    print(report)
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
