"""CPU time of several things that take turns, so that whatever else the machine does hits them alike."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter, process_time

ROUNDS_BETWEEN_COLLECTIONS = 20

Times = list[float]  # seconds of CPU time, one for each turn


def more(ours: Times, others: Times) -> float:
    """By how much ours typically takes longer: the median of the differences within one round.

    What slows the machine down for a while slows both sides of such a difference.
    """
    return median(one - other for one, other in zip(ours, others, strict=True))


def take_turns(turns: Mapping[str, Callable[[], Callable[[], None]]], seconds: float) -> dict[str, Times]:
    """The times of each of `turns`.

    Args:
        turns: by name; called without the clock running, each prepares one turn and returns what is to be timed. Turns
            are better short: what disturbs the machine for a moment then spoils one of them and not the median.
        seconds: for how long they take turns. Each round begins with the next in the row. The first tenth does not
            count: caches fill, the interpreter specialises its code.
    """
    names = list(turns)
    taken: dict[str, Times] = {name: [] for name in names}
    begin = perf_counter()
    number = 0
    gc.collect()
    gc.freeze()  # what is there already need not be looked at again and again
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
