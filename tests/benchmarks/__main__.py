"""`python -m tests.benchmarks [name ...]` runs the benchmarks and prints one Markdown table."""

from __future__ import annotations

import sys
from importlib import import_module

from ._report import machine, table

NAMES = (
    "flow",
    "whole_request",
    "waiting",
    "expiries",
    "slow_requests",
    "memory",
    "imports",
    "signatures",
    "processes",
    "house",
)
ON_REQUEST = ("peers",)  # it needs the dependency group `benchmarks`


def main() -> None:
    names = sys.argv[1:] or NAMES
    unknown = set(names).difference(NAMES + ON_REQUEST)
    if unknown:
        sys.exit(f"There is no benchmark {', '.join(sorted(unknown))}. There are: {', '.join(NAMES + ON_REQUEST)}.")
    print(machine() + "\n", flush=True)
    rows = []
    for name in names:
        print(f"running {name} ...", file=sys.stderr, flush=True)
        rows += import_module(f".{name}", __package__).run()
    print(table(rows))


if __name__ == "__main__":
    main()
