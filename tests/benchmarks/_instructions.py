"""Counts machine instructions with valgrind's callgrind: the same program gives the same counts, whatever the load.

Another layout of memory (other code, another directory) may shift them: hardly on Python 3.11 and later, by as much as
a tenth of what the flow adds on 3.10.

The counted program runs in a process of its own, under valgrind. It marks where a part begins by a system call that
nothing else here makes (`sched_yield`), and callgrind writes down what it has counted whenever it comes by there. Each
thing is run twice, with different numbers of iterations: the difference is free of what does not belong to them.
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
_PATIENCE = 300.0  # seconds; it takes some fifteen, if the machine has nothing else to do

Countable = Callable[[int], Callable[[], None]]


def are_countable() -> bool:
    """Is there a valgrind?"""
    return shutil.which("valgrind") is not None


def count(module: str, names: Iterable[str], few: int, many: int) -> dict[str, float]:
    """Instructions for one iteration of each thing that `module` counts when it is run by `python -m`."""
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
    """Called by the counted program: each of `things` prepares so many iterations and returns what runs them."""
    few, many = map(int, sys.argv[1:])
    gc.disable()
    for thing in things:
        thing(many)()  # warmed up, and specialised for this thing
        for iterations in (few, many):
            run = thing(iterations)
            os.sched_yield()
            run()
            os.sched_yield()
