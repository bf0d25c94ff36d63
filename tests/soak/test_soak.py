"""A short soak test: no refresh token is used twice, each outcome has a reason, and nothing is left behind."""

from __future__ import annotations

from .run import Plan, soak


def test_guarantee_1_a_fleet_in_trouble_uses_no_refresh_token_twice_and_leaves_nothing_behind():
    soak(Plan(0.2, lifetime=0.2, pause=0.1))  # a first run makes all objects that are made once and stay
    report = soak(Plan(3.0, tasks=2, lifetime=0.5, pause=0.15))
    assert report.broken == [], str(report)
    assert report.server.reuse_detected == 0
    assert report.server.refreshes >= 10  # one refresh for each sign-in; a token that lives so long needs no other
