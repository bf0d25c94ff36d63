"""Measures the CPU time of several things that take turns, so that the machine's other load affects them equally."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter, process_time

ROUNDS_BETWEEN_COLLECTIONS = 20

Times = list[float]  # seconds of CPU time, one for each turn


def more(ours: Times, others: Times) -> float:
    """Return by how much ours typically takes longer: the median of the differences within one round.

    A slow moment of the machine slows both sides of such a difference.
    """
    return median(one - other for one, other in zip(ours, others, strict=True))


def take_turns(turns: Mapping[str, Callable[[], Callable[[], None]]], seconds: float) -> dict[str, Times]:
    """Return the times of each of `turns`.

    Args:
        turns: functions by name. Each prepares one turn, which is not timed, and returns the function that is timed.
            Turns should be short: a short disturbance of the machine then spoils one of them, and not the median.
        seconds: for how long they take turns. Each round begins with the next one in the row. The first tenth does not
            count: caches fill, and the interpreter specialises its code.
    """
    names = list(turns)
    taken: dict[str, Times] = {name: [] for name in names}
    begin = perf_counter()
    number = 0
    gc.collect()
    gc.freeze()  # the garbage collector need not look at older objects again and again
    gc.disable()
    try:
        while (now := perf_counter()) < begin + seconds:
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                run = turns[name]()
                start = process_time()
                run()
                took = process_time() - start
                if now > begin + seconds / 10:
                    taken[name].append(took)
            number += 1
            if number % ROUNDS_BETWEEN_COLLECTIONS == 0:
                gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()
    return taken
