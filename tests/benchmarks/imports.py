"""The CPU time of `import httpx_reauth` in a process that has imported httpx already.

The byte code is in a cache. Each import runs in a new process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from os import environ
from pathlib import Path
from statistics import median

from ._report import Row

FIGURE = "import, on top of httpx, compiled"
PROCESSES = 31
_TOP = Path(__file__).parents[2]
_PROGRAM = """
import httpx, sys, time
known = len(sys.modules)
start = time.process_time()
import httpx_reauth
print(time.process_time() - start, len(sys.modules) - known)
"""


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as cache:
        environment = {name: value for name, value in environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache
        _import(environment)  # this compiles everything
        measured = [_import(environment) for _ in range(PROCESSES)]
    times = [seconds * 1e3 for seconds, _ in measured]
    note = f"least {min(times):.1f} ms; {measured[0][1]} modules"
    return [Row(FIGURE, "CPU time, median", median(times), "13", "6", unit=" ms", note=note)]


def _import(environment: Mapping[str, str]) -> tuple[float, int]:
    command = [sys.executable, "-c", _PROGRAM]
    printed = subprocess.run(command, cwd=_TOP, env=environment, check=True, capture_output=True, text=True).stdout
    seconds, modules = printed.split()
    return float(seconds), int(modules)
