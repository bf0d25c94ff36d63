"""Counts machine instructions with valgrind's callgrind. The same program always gives the same counts.

Another layout of memory (other code, another directory) may change the counts: hardly on Python 3.11 and later, but on
3.10 by up to a tenth of what the flow adds.

The counted program runs in a new process, under valgrind. Where a part begins, the program makes a system call that
nothing else here makes (`sched_yield`), and callgrind writes down its counts. Each part runs twice, with different
numbers of iterations. So the difference contains nothing else.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

_PART = re.compile(r"^desc: Trigger: --dump-before=sched_yield$.*?^totals: (\d+)$", re.MULTILINE | re.DOTALL)
_TOP = Path(__file__).parents[2]
_PATIENCE = 300.0  # seconds; on an idle machine it takes about fifteen

Countable = Callable[[int], Callable[[], None]]


def are_countable() -> bool:
    """Return whether valgrind is installed."""
    return shutil.which("valgrind") is not None


def count(module: str, names: Iterable[str], few: int, many: int) -> dict[str, float]:
    """Return the instructions for one iteration of each of the things `names`.

    `python -m` runs `module`, which counts them.
    """
    names = list(names)
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "callgrind.out")
        command = [
            *("valgrind", "--tool=callgrind", "--combine-dumps=yes", "--dump-before=sched_yield"),
            *(f"--callgrind-out-file={out}", sys.executable, "-m", module, str(few), str(many)),
        ]
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        subprocess.run(command, cwd=_TOP, env=environment, check=True, capture_output=True, timeout=_PATIENCE)
        counted = [int(total) for total in _PART.findall(out.read_text())]
    if len(counted) != 4 * len(names):
        raise RuntimeError("callgrind has not noticed the marks between the parts, so its counts cannot be told apart.")
    return {
        name: (counted[4 * number + 3] - counted[4 * number + 1]) / (many - few) for number, name in enumerate(names)
    }


def be_counted(things: Iterable[Countable]) -> None:
    """Run in the counted program: each of `things` prepares a number of iterations, and returns what runs them."""
    few, many = map(int, sys.argv[1:])
    gc.disable()
    for thing in things:
        thing(many)()  # this warms it up, and the interpreter specialises its code
        for iterations in (few, many):
            run = thing(iterations)
            os.sched_yield()
            run()
            os.sched_yield()
