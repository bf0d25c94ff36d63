"""A short soak: nothing used twice, no outcome without a reason, nothing left behind."""

from __future__ import annotations

from .run import Plan, soak


def test_guarantee_1_a_fleet_in_trouble_uses_no_refresh_token_twice_and_leaves_nothing_behind():
    soak(Plan(0.2, lifetime=0.2, pause=0.1))  # whatever is made once and stays is made now
    report = soak(Plan(3.0, tasks=2, lifetime=0.5, pause=0.15))
    assert report.broken == [], str(report)
    assert report.server.reuse_detected == 0
    assert report.server.refreshes >= 10  # one for each sign-in; none began with a token that lasts so long
