"""Shows the results in one table, with the machine and the versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        figure: what is measured, in the words of the target.
        case: the case, if the figure has several.
        measured: the result.
        must: the most that is allowed; None if there is no target. A string, because its decimals set the precision.
        splendid: an even better result.
        unit: the unit of all three; a ratio has none.
        note: a remark.
    """

    figure: str
    case: str
    measured: float
    must: str | None = None
    splendid: str | None = None
    unit: str = ""
    note: str = ""

    def meets(self, target: str) -> bool:
        """Return whether the result is good enough, at the precision of the target."""
        return round(self.measured, _decimals(target)) <= float(target)

    @property
    def verdict(self) -> str:
        if self.must is not None and not self.meets(self.must):
            return "**missed**"
        if self.splendid is not None and self.meets(self.splendid):
            return "splendid"
        return "" if self.must is None else "met"

    @property
    def cells(self) -> tuple[str, ...]:
        decimals = max((_decimals(target) for target in (self.must, self.splendid) if target), default=1)
        shown = decimals + 1 if decimals else 0  # one decimal more than the verdict uses
        return (
            self.figure,
            self.case,
            f"{self.measured:,.{shown}f}{self.unit}",
            "" if self.must is None else f"≤ {self.must}{self.unit}",
            "" if self.splendid is None else f"≤ {self.splendid}{self.unit}",
            self.verdict,
            self.note,
        )


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = ("figure", "case", "measured", "must", "splendid", "verdict", "note")
    lines = [head, ("---",) * len(head), *(row.cells for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def machine() -> str:
    """Return the kind of machine, and the versions."""
    parts = [
        f"{_cpu()}, {os.cpu_count()} cores",
        f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "",
        platform.system(),
        f"{platform.python_implementation()} {platform.python_version()}",
        *(f"{package} {_version(package)}" for package in ("httpx", "httpcore", "anyio", "trio")),
    ]
    return ", ".join(part for part in parts if part)


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(none)"


def _decimals(number: str) -> int:
    return len(number.partition(".")[2])
