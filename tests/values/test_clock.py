"""Tests of the clock: its two readings, and the moment that holds both."""

from __future__ import annotations

import time

from httpx_reauth import Clock
from httpx_reauth._clock import SYSTEM_CLOCK, Moment, moment
from httpx_reauth.testing import ManualClock


def test_the_system_clock_reads_the_clocks_of_the_machine():
    monotonic, wall = time.monotonic(), time.time()
    assert monotonic <= SYSTEM_CLOCK.monotonic() <= monotonic + 60
    assert abs(SYSTEM_CLOCK.time() - wall) < 60


def test_a_moment_is_one_instant_on_both_clocks():
    clock = ManualClock(monotonic=5.0, time=1_000.0)
    assert moment(clock) == Moment(monotonic=5.0, wall=1_000.0)
    clock.advance(2.5)
    assert moment(clock) == Moment(monotonic=7.5, wall=1_002.5)
    clock.jump(-3600)
    assert moment(clock) == Moment(monotonic=7.5, wall=-2_597.5)


def test_a_clock_is_whatever_reads_both_times():
    assert isinstance(SYSTEM_CLOCK, Clock)
    assert isinstance(ManualClock(), Clock)
    assert isinstance(time, Clock)  # the module `time` itself is a `Clock`
    assert not isinstance(object(), Clock)
