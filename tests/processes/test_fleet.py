"""Tests that many processes with one token make one refresh, with each storage."""

from __future__ import annotations

import pytest
from fleet_worker import Fleet, Order, Place, SharedClock

from httpx_reauth.testing import AuthorizationServer


@pytest.mark.parametrize("count", [4, 16, 50])
def test_guarantee_1_processes_that_start_with_the_same_expired_token_make_one_token_request(
    fleet: Fleet, place: Place, identity: AuthorizationServer, url: str, count: int
):
    place.hold(identity.issue(lifetime=0))
    identity.token_endpoint.latency = 0.1  # all requests begin before the answer comes
    workers = fleet.start(count, Order(url, place))
    for worker in workers:
        worker.tell("get at the gate")
    fleet.gate.set()
    answers = [worker.hear() for worker in workers]
    assert [status for status, _ in answers] == [200] * count
    assert identity.token_requests == 1
    assert (identity.reuse_detected, identity.families_revoked, identity.api_unauthorized) == (0, 0, 0)
    assert sorted(told[-1] for _, told in answers) == ["adopted"] * (count - 1) + ["renewed"]
    assert len(set(identity.authorizations("/me"))) == 1


def test_guarantee_4_processes_whose_token_is_refused_at_one_moment_make_one_token_request(
    fleet: Fleet, place: Place, identity: AuthorizationServer, url: str
):
    count = 8
    place.hold(identity.issue())
    identity.token_endpoint.latency = 0.1
    workers = fleet.start(count, Order(url, place))
    assert [worker.ask("get")[0] for worker in workers] == [200] * count
    identity.revoke_access_tokens()
    for worker in workers:
        worker.tell("get at the gate")
    fleet.gate.set()
    assert [worker.hear()[0] for worker in workers] == [200] * count
    assert (identity.token_requests, identity.reuse_detected) == (1, 0)
    assert identity.api_requests <= 3 * count, "one replay at most"


def test_guarantee_1_eight_busy_processes_go_through_twenty_expiries_with_one_token_request_each(
    fleet: Fleet, place: Place, shared_clock: SharedClock
):
    expiries, count = 20, 8
    with AuthorizationServer(clock=shared_clock, rotate=True, keep_requests=False) as identity, identity.serve() as url:
        place.hold(identity.issue())
        workers = fleet.start(count, Order(url, place, clock=shared_clock))
        for worker in workers:
            worker.tell("be busy")
        tokens = []
        for expiry in range(expiries + 1):
            if expiry % 4 == 3:
                identity.revoke_access_tokens()  # before the token's end: a 401 shows it
            elif expiry:
                shared_clock.advance(3600)
            said = [worker.hear() for worker in workers]
            assert [outcome for _, outcome in said] == [200] * count
            assert len({token for token, _ in said}) == 1, "all use the same one"
            tokens.append(said[0][0])
            assert identity.token_requests == expiry
        assert len(set(tokens)) == expiries + 1
        assert (identity.reuse_detected, identity.families_revoked) == (0, 0)


def test_guarantee_1_a_token_that_another_process_has_renewed_is_adopted_without_a_token_request(
    fleet: Fleet, place: Place, shared_clock: SharedClock
):
    with AuthorizationServer(clock=shared_clock, rotate=True) as identity, identity.serve() as url:
        place.hold(identity.issue())
        first, second = fleet.start(2, Order(url, place, clock=shared_clock))
        assert [first.ask("get"), second.ask("get")] == [(200, ["RefreshPending", "adopted"])] * 2
        shared_clock.advance(3600)
        assert first.ask("get")[1][-1] == "renewed"
        assert second.ask("get")[1][-1] == "adopted"
        assert identity.token_requests == 1


def test_a_sign_out_in_one_process_is_seen_by_the_others_at_their_next_refresh(
    fleet: Fleet, place: Place, shared_clock: SharedClock
):
    with AuthorizationServer(clock=shared_clock, rotate=True) as identity, identity.serve() as url:
        place.hold(identity.issue())
        first, *others = fleet.start(4, Order(url, place, clock=shared_clock))
        for worker in (first, *others):
            assert worker.ask("get")[0] == 200
        assert first.ask("sign out") is None
        assert place.held() is None
        for other in others:
            assert other.ask("get")[0] == 200, "until then, their token is good"
        shared_clock.advance(3600)
        for worker in (first, *others):
            (kind, said), _ = worker.ask("get")
            assert kind == "SignInRequired", said
        assert identity.token_requests == 0
        assert place.held() is None


def test_guarantee_6_a_dead_refresh_token_is_posted_once_by_each_process_and_by_nobody_again(
    fleet: Fleet, place: Place, identity: AuthorizationServer, url: str
):
    place.hold(identity.issue(lifetime=0))
    identity.revoke_refresh_tokens()
    workers = fleet.start(4, Order(url, place))
    for _ in range(2):
        for worker in workers:
            (kind, said), _ = worker.ask("get")
            assert kind == "SignInRequired", said
            assert "invalid_grant" in said
    assert identity.token_requests == 4
