"""Tests of `kill -9` at each step of a refresh: what the next process finds, and what it does."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from fleet_worker import Fleet, Order, Place, with_lease

from httpx_reauth import Token
from httpx_reauth.testing import AuthorizationServer

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")

LEASE = 1.0  # seconds until a Redis lock ends that nobody releases

# The steps at which the process is killed. The next process renews the stored token, adopts it, or cannot refresh.
NOTHING_LOST = ["lock taken"]
ONLY_THE_SERVER_KNOWS = ["request sent", "answer received", "about to save", "temporary file written"]
SAVED = ["replaced", "saved", "lock released"]
OF_FILES = {"temporary file written", "replaced"}


def die_at(step: str, fleet: Fleet, order: Order, identity: AuthorizationServer) -> None:
    """Start a process that refreshes, and kill it at `step`."""
    with identity.token_endpoint.hold() as gate:
        (worker,) = fleet.start(1, order)
        worker.tell("get")
        if step == "request sent":
            identity.wait_until(lambda: gate.held == 1)
        else:
            gate.release()
            while worker.hear() != step:  # the worker may first report the answer of its request
                pass
        worker.kill()


def order_for(step: str, place: Place, url: str) -> Order:
    if step in OF_FILES and not place.path:
        pytest.skip("a step of files")
    return Order(url, with_lease(place, LEASE), stop_at=step)


def temporary_files(place: Place) -> list[Path]:
    return list(Path(place.path).parent.glob("*.tmp")) + list(Path(place.path).parent.glob(".*.tmp"))


@pytest.mark.parametrize("step", NOTHING_LOST)
def test_guarantee_2_if_a_process_is_killed_before_its_request_the_next_process_refreshes_immediately(
    fleet: Fleet, place: Place, identity: AuthorizationServer, url: str, step: str
):
    order = order_for(step, place, url)
    place.hold(identity.issue(lifetime=0))
    die_at(step, fleet, order, identity)
    (follower,) = fleet.start(1, Order(url, order.place))
    assert follower.ask("get") == (200, ["RefreshPending", "renewed"])
    assert (identity.token_requests, identity.reuse_detected) == (1, 0)


@pytest.mark.parametrize("step", ONLY_THE_SERVER_KNOWS)
def test_if_a_process_is_killed_before_it_saves_the_new_token_the_next_one_says_sign_in_required_and_why(
    fleet: Fleet, place: Place, identity: AuthorizationServer, url: str, step: str
):
    order = order_for(step, place, url)
    before = identity.issue(lifetime=0)
    place.hold(before)
    die_at(step, fleet, order, identity)
    held = place.held()
    assert held is not None
    assert held.refresh_token == before.refresh_token, "the old token is whole"
    (follower,) = fleet.start(1, Order(url, order.place))
    (kind, said), _ = follower.ask("get")
    assert kind == "SignInRequired", said
    assert "invalid_grant" in said
    assert identity.token_requests == 2
    if place.path:
        assert all(not file.stat().st_mode & 0o077 for file in temporary_files(place))
    place.hold(identity.issue())  # a user signs in again
    (another,) = fleet.start(1, Order(url, order.place))
    assert another.ask("get")[0] == 200


@pytest.mark.parametrize("step", SAVED)
def test_guarantee_2_if_a_process_is_killed_after_it_saved_the_token_the_next_process_adopts_it_immediately(
    fleet: Fleet, place: Place, identity: AuthorizationServer, url: str, step: str
):
    order = order_for(step, place, url)
    place.hold(identity.issue(lifetime=0))
    die_at(step, fleet, order, identity)
    (follower,) = fleet.start(1, Order(url, order.place))
    assert follower.ask("get") == (200, ["RefreshPending", "adopted"])
    assert (identity.token_requests, identity.reuse_detected) == (1, 0)
    if place.path:
        assert not temporary_files(place)


def test_guarantee_2_a_process_that_is_killed_while_it_writes_always_leaves_a_whole_file(
    fleet: Fleet, file_place: Place, identity: AuthorizationServer, url: str
):
    for _ in range(3):
        before = identity.issue(lifetime=0)
        file_place.hold(before)
        die_at("temporary file written", fleet, Order(url, file_place, stop_at="temporary file written"), identity)
        held = file_place.held()
        assert held is not None
        assert held.refresh_token == before.refresh_token
    assert 1 <= len(temporary_files(file_place)) <= 2 * 3


def test_guarantee_10_a_process_that_stands_still_with_the_lock_holds_the_others_up_for_their_timeout_only(
    fleet: Fleet, place: Place, identity: AuthorizationServer, url: str
):
    place.hold(identity.issue(lifetime=0))
    holder, waiter = fleet.start(1, Order(url, place)) + fleet.start(1, Order(url, place, timeout=1.0))
    assert holder.ask("hold the lock") == "held"
    holder.freeze()
    (kind, said), _ = waiter.ask("get")
    while "has been running" in said:  # on a slow machine, the waiting call may give up just before the refresh does
        (kind, said), _ = waiter.ask("get")
    assert kind == "RefreshError", said
    assert "held the lock" in said
    assert "has held the" in said
    assert identity.token_requests == 0, "without the lock, nothing is asked of the server"
    holder.kill()
    if place.path:  # the operating system has released a file's lock; a lease ends later
        (follower,) = fleet.start(1, Order(url, place))
        assert follower.ask("get")[0] == 200
        assert identity.token_requests == 1


def test_a_process_that_stands_still_with_the_lock_does_not_hold_up_those_whose_token_is_good(
    fleet: Fleet, place: Place, identity: AuthorizationServer, url: str
):
    place.hold(identity.issue())
    holder, other = fleet.start(2, Order(url, place, timeout=1.0))
    assert other.ask("get")[0] == 200
    assert holder.ask("hold the lock") == "held"
    holder.freeze()
    assert [other.ask("get")[0] for _ in range(20)] == [200] * 20


def test_guarantee_1_the_lease_outlasts_the_refresh_timeout(fleet: Fleet, redis_server, identity, url: str):
    place = Place(socket=redis_server.socket)
    place.hold(identity.issue(lifetime=0))
    (worker,) = fleet.start(1, Order(url, place, timeout=30.0, stop_at="lock taken"))
    worker.tell("get")
    assert worker.hear() == "lock taken"
    with redis_server.client() as client:
        (lease,) = [key for key in client.scan_iter() if key.endswith(b":lock")]
        assert client.pttl(lease) > 30_000


def test_a_process_that_outlives_its_lease_does_not_save_over_the_newer_token(
    fleet: Fleet, redis_server, identity: AuthorizationServer, url: str
):
    place = Place(socket=redis_server.socket, lease=0.5)
    place.hold(identity.issue(lifetime=0))
    with identity.token_endpoint.hold() as gate:
        (slow,) = fleet.start(1, Order(url, place))
        slow.tell("get")
        identity.wait_until(lambda: gate.held == 1)
        slow.freeze()  # for longer than its lease
        newer = identity.issue()
        place.hold(newer)  # this waits until the lease has ended, and signs in
        gate.release()
        slow.thaw()
        status, told = slow.hear()
    assert status == 200, "its own token works, for itself"
    assert any(what.startswith("SaveFailed") and "lost its lease" in what for what in told), told
    held = place.held()
    assert held is not None
    assert held.refresh_token == newer.refresh_token


def test_token_of_a_killed_process_is_the_same_for_all_who_come_after_it(
    fleet: Fleet, place: Place, identity: AuthorizationServer, url: str
):
    place.hold(identity.issue(lifetime=0))
    die_at("saved", fleet, Order(url, with_lease(place, LEASE), stop_at="saved"), identity)
    held = place.held()
    assert isinstance(held, Token)
    followers = fleet.start(4, Order(url, with_lease(place, LEASE)))
    for follower in followers:
        follower.tell("get at the gate")
    fleet.gate.set()
    assert [follower.hear()[0] for follower in followers] == [200] * 4
    assert set(identity.authorizations("/me")) == {f"Bearer {held.access_token}"}
    assert identity.token_requests == 1
