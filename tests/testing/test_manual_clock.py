"""Tests of `ManualClock`: two clocks, and three ways to move them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from httpx_reauth._clock import Clock
from httpx_reauth.testing import ManualClock


def test_it_is_a_clock():
    assert isinstance(ManualClock(), Clock)


def test_it_stands_still_until_it_is_moved():
    clock = ManualClock(monotonic=5.0, time=1000.0)
    assert (clock.monotonic(), clock.time(), clock.elapsed()) == (5.0, 1000.0, 0.0)
    assert (clock.monotonic(), clock.time(), clock.elapsed()) == (5.0, 1000.0, 0.0)


@pytest.mark.parametrize(
    ("move", "monotonic", "time", "elapsed"),
    [
        (lambda clock: clock.advance(10), 15.0, 1010.0, 10.0),
        (lambda clock: clock.advance(0), 5.0, 1000.0, 0.0),
        (lambda clock: clock.jump(3600), 5.0, 4600.0, 0.0),
        (lambda clock: clock.jump(-600), 5.0, 400.0, 0.0),
        (lambda clock: clock.sleep_through(10), 5.0, 1010.0, 10.0),
    ],
)
def test_each_move_moves_what_it_says(move, monotonic, time, elapsed):
    clock = ManualClock(monotonic=5.0, time=1000.0)
    move(clock)
    assert (clock.monotonic(), clock.time(), clock.elapsed()) == (monotonic, time, elapsed)


@pytest.mark.parametrize("move", [ManualClock.advance, ManualClock.sleep_through])
def test_time_does_not_run_backwards(move):
    clock = ManualClock(monotonic=5.0, time=1000.0)
    with pytest.raises(ValueError, match="jump"):
        move(clock, -1)
    assert (clock.monotonic(), clock.time()) == (5.0, 1000.0)


def test_it_may_be_moved_from_many_threads():
    clock = ManualClock(monotonic=0.0, time=0.0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(clock.advance, [1] * 1000))
    assert (clock.monotonic(), clock.time()) == (1000.0, 1000.0)


def test_its_repr_shows_the_time():
    assert repr(ManualClock(monotonic=1.5, time=2.5)) == "ManualClock(monotonic=1.5, time=2.5)"
