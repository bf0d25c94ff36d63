"""Tests of what a refresh does with a storage. Each `Reauth` here has its own store, as in another process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import httpx
import httpx2
import pytest
from seams import state_of
from sites import HttpLibrary
from storages import Recording

import httpx_reauth
import httpx_reauth.httpx2
from httpx_reauth import (
    RefreshError,
    RefreshFulfilled,
    RefreshRejected,
    SaveFailed,
    SignedIn,
    SignInRequired,
    StorageError,
    Token,
)
from httpx_reauth.testing import ManualClock

A_DAY = 86_400.0


@pytest.fixture
def library(request: pytest.FixtureRequest) -> HttpLibrary:
    """Return httpx, unless a test asks for httpx2: the storage does not depend on the HTTP library."""
    is_other = getattr(request, "param", "httpx") == "httpx2"
    return HttpLibrary(httpx2, httpx_reauth.httpx2.Reauth) if is_other else HttpLibrary(httpx, httpx_reauth.Reauth)


@pytest.fixture
def storage() -> Recording:
    return Recording()


@pytest.fixture
def process(library: Any, site: Any, storage: Recording, clock: ManualClock) -> Callable[..., Any]:
    """Return a function that makes a `Reauth`. It shares only the storage with the others."""

    def make(token: Token | None = None, refresh: Any = site.function, **settings: Any) -> Any:
        return library.Reauth(refresh, **{"token": token, "storage": storage, "clock": clock, **settings})

    return make


def get(site: Any, auth: Any, path: str = "/me") -> int:
    """Make one request, and return its status."""
    with site.client(auth) as client:
        return client.get(path).status_code


def until_refused(auth: Any) -> None:
    """Wait until a server has refused the token."""
    end = time.monotonic() + 30
    while not state_of(auth).current.refused:
        assert time.monotonic() < end
        time.sleep(0.001)


def heard(auth: Any, kind: type) -> list[Any]:
    """Return a list that gets the actions of one kind when they are dispatched."""
    events: list[Any] = []
    auth.store.subscribe(lambda _, action: events.append(action) if isinstance(action, kind) else None)
    return events


# One refresh for all processes.


def test_guarantee_1_each_expiry_costs_one_token_request_however_many_processes_share_the_storage(
    process, site, server, clock
):
    first = server.issue()
    processes = [process(first) for _ in range(5)]
    for expiry in range(1, 6):
        clock.advance(server.lifetime + 1)
        assert [get(site, auth) for auth in processes] == [200] * 5
        assert server.token_requests == expiry
    assert (server.reuse_detected, server.api_unauthorized) == (0, 0)


def test_guarantee_1_processes_that_begin_together_wait_for_the_one_that_refreshes(process, site, server, clock):
    processes = [process(server.issue(access_token=False)) for _ in range(1)]
    processes += [process() for _ in range(5)]
    statuses: list[int] = []
    with server.token_endpoint.hold() as gate:
        threads = [threading.Thread(target=lambda auth=auth: statuses.append(get(site, auth))) for auth in processes]
        threads[0].start()
        server.wait_until(lambda: gate.held == 1)
        for thread in threads[1:]:
            thread.start()
        gate.release()
    for thread in threads:
        thread.join()
    assert (statuses, server.token_requests, server.reuse_detected) == ([200] * 6, 1, 0)


@pytest.mark.parametrize("overtaking", ["sign-in", "sign-out"])
def test_guarantee_1_no_process_finds_a_refresh_token_that_was_spent_by_a_superseded_refresh(
    process, site, server, storage, clock, overtaking
):
    auth, signed_in = process(server.issue()), server.issue(lifetime=A_DAY)
    assert get(site, auth) == 200
    clock.advance(server.lifetime)
    left: list[Token | None] = []
    storage.before["release"] = lambda: left.append(storage.inner.load())
    follow = {"sign-in": lambda: auth.sign_in(signed_in), "sign-out": auth.sign_out}[overtaking]
    with server.token_endpoint.hold() as gate:
        threads = [threading.Thread(target=fails, args=(auth,))]
        threads[0].start()
        server.wait_until(lambda: gate.held == 1)
        threads.append(threading.Thread(target=follow))
        threads[1].start()
        threads[0].join()  # it is superseded, although the answer has not come yet
        gate.release()
    threads[1].join()
    assert left
    assert all(one == (signed_in if overtaking == "sign-in" else None) for one in left)


def test_guarantee_2_superseded_refresh_does_not_spend_the_refresh_token_of_the_sign_in(
    process, site, server, storage, clock
):
    auth, signed_in = process(server.issue()), server.issue(lifetime=A_DAY)
    assert get(site, auth) == 200
    clock.advance(server.lifetime)

    def sign_in_first() -> None:
        storage.before.clear()
        thread = threading.Thread(target=auth.sign_in, args=(signed_in,))
        thread.start()
        thread.join()

    storage.before["lock"] = sign_in_first
    fails(auth)  # this request began in the session before
    auth.close()  # the superseded refresh runs on
    assert auth.get_token() == auth.store.state.token == storage.inner.load()
    assert server.token_requests == 0
    assert auth.store.state.token.refresh_token == signed_in.refresh_token


def test_guarantee_2_sign_in_does_not_undo_the_rotation_of_a_process_that_found_its_token_immediately(
    process, site, server, storage
):
    auth, other = process(), process()

    def others_are_faster() -> None:
        storage.before.clear()
        for step in (auth.get_token, other.get_token, lambda: other.get_token(rejected=other.store.state.token)):
            thread = threading.Thread(target=step)
            thread.start()
            thread.join()
        other.close()

    storage.before["lock"] = others_are_faster  # while the sign-in still waits for the lock
    auth.sign_in(server.issue())
    auth.close()
    assert server.token_requests == 1
    assert storage.inner.load() == other.store.state.token != auth.store.state.token


def test_guarantee_1_signed_in_token_that_others_have_spent_meanwhile_is_not_spent_again(
    process, site, server, storage
):
    auth, other = process(server.issue()), process()
    assert get(site, auth) == get(site, other) == 200
    is_waiting, is_saved = threading.Event(), threading.Event()
    request = threading.Thread(target=auth.get_token)

    def another_is_faster() -> None:
        storage.before.clear()
        is_waiting.set()
        assert is_saved.wait(30)
        thread = threading.Thread(target=lambda: other.get_token(rejected=other.store.state.token))
        thread.start()
        thread.join()
        other.close()

    def request_begins() -> None:
        storage.before["lock"] = another_is_faster
        request.start()
        assert is_waiting.wait(30)

    storage.before["lock"] = request_begins  # while the sign-in still waits for the lock
    auth.sign_in(server.issue(access_token=False))
    is_saved.set()
    request.join()
    auth.close()
    assert (server.token_requests, server.reuse_detected) == (1, 0)
    assert auth.store.state.token.access_token == other.store.state.token.access_token


def test_guarantee_1_signed_in_token_is_not_renewed_by_a_request_that_waits_for_the_lock_until_it_is_saved(
    process, server, storage
):
    auth, is_waiting, is_saved = process(), threading.Event(), threading.Event()
    request = threading.Thread(target=auth.get_token)

    def wait_until_it_is_saved() -> None:
        storage.before.clear()
        is_waiting.set()
        assert is_saved.wait(30)

    def request_begins() -> None:
        storage.before["lock"] = wait_until_it_is_saved
        request.start()
        assert is_waiting.wait(30)

    storage.before["lock"] = request_begins  # while the sign-in still waits for the lock
    signed_in = server.issue()
    auth.sign_in(signed_in)
    is_saved.set()
    request.join()
    auth.close()
    assert server.token_requests == 0
    assert auth.store.state.token.access_token == signed_in.access_token


def test_guarantee_1_signed_in_token_counts_as_saved_before_others_can_find_it(process, server, storage):
    auth, unsaved = process(), []
    storage.before["release"] = lambda: unsaved.append(auth.store._state.pending_write)
    auth.sign_in(server.issue())
    assert unsaved == [""]


def fails(auth: Any) -> None:
    with pytest.raises(SignInRequired):
        auth.get_token()


def test_an_adopted_token_is_dispatched_as_adopted(process, site, server, clock):
    one, other = process(server.issue()), process()
    assert get(site, one) == get(site, other) == 200
    clock.advance(server.lifetime)
    mine, theirs = heard(one, RefreshFulfilled), heard(other, RefreshFulfilled)
    assert get(site, one) == get(site, other) == 200
    assert ([event.adopted for event in mine], [event.adopted for event in theirs]) == ([False], [True])


def test_steps_are_lock_load_save_release(process, site, server, storage):
    assert get(site, process(server.issue(access_token=False))) == 200
    assert storage.last_calls(4) == ["lock", "load", "save", "release"]


def test_nothing_is_asked_of_the_storage_while_the_token_is_good(process, site, server, storage):
    auth = process(server.issue())
    assert get(site, auth) == 200
    storage.last_calls(1)
    storage.calls.clear()
    assert [get(site, auth) for _ in range(10)] == [200] * 10
    assert storage.calls == []


# Two tokens, of which one wins.


def test_token_seeds_an_empty_storage(process, site, server, storage):
    token = server.issue()
    assert get(site, process(token)) == 200
    assert storage.inner.load() == token
    assert server.token_requests == 0


def test_token_that_has_ended_seeds_an_empty_storage_by_way_of_its_successor(process, site, server, storage, clock):
    token = server.issue()
    clock.advance(server.lifetime)
    assert get(site, process(token)) == 200
    assert storage.inner.load().access_token != token.access_token
    assert server.token_requests == 1


def test_what_the_storage_holds_wins_over_token(process, site, server, storage):
    held, given = server.issue(), server.issue()
    storage.inner.save(held)
    auth = process(given)
    assert get(site, auth) == 200
    assert server.authorizations("/me") == [f"Bearer {held.access_token}"]
    assert auth.store.state.token.access_token == storage.inner.load().access_token == held.access_token


def test_what_the_storage_holds_wins_over_token_even_when_it_has_ended(process, site, server, storage, clock):
    held = server.issue()
    clock.advance(server.lifetime)
    given = server.issue()
    storage.inner.save(held)
    assert get(site, process(given)) == 200
    assert server.authorizations("/me") != [f"Bearer {given.access_token}"]
    assert server.token_requests == 1


@pytest.mark.parametrize("is_read", [False, True])
def test_sign_in_replaces_the_token_in_memory_and_in_the_storage(process, site, server, storage, is_read):
    storage.inner.save(server.issue())
    auth = process(server.issue())
    if is_read:
        assert get(site, auth) == 200
    signed_in = server.issue()
    auth.sign_in(signed_in)
    assert storage.inner.load() == auth.store.state.token == signed_in
    assert get(site, auth) == 200
    assert server.authorizations("/me")[-1] == f"Bearer {signed_in.access_token}"
    assert server.token_requests == 0


def test_sign_in_is_seen_by_another_process_at_its_next_refresh(process, site, server, storage, clock):
    one, other = process(server.issue()), process()
    assert get(site, one) == get(site, other) == 200
    clock.advance(server.lifetime)
    signed_in = server.issue()
    one.sign_in(signed_in)
    assert get(site, other) == 200
    assert server.authorizations("/me")[-1] == f"Bearer {signed_in.access_token}"
    assert server.token_requests == 0


def test_sign_in_that_is_dispatched_is_used_and_saved_without_a_token_request(process, site, server, storage):
    storage.inner.save(server.issue())
    auth = process()
    signed_in = server.issue()
    auth.store.dispatch(SignedIn(signed_in))
    assert get(site, auth) == 200
    auth.close()
    assert server.authorizations("/me") == [f"Bearer {signed_in.access_token}"]
    assert server.token_requests == 0
    assert storage.inner.load() == signed_in


def test_sign_in_while_the_storage_is_away_is_used_and_saved_later_without_a_token_request(
    process, site, server, storage
):
    auth = process()
    storage.fail("lock")
    signed_in = server.issue()
    failures = heard(auth, SaveFailed)
    with pytest.raises(StorageError):
        auth.sign_in(signed_in)
    assert len(failures) == 1
    assert get(site, auth) == 200
    storage.heal()
    auth.close()
    assert storage.inner.load() == signed_in
    assert get(site, auth) == 200
    assert (server.token_requests, len(failures)) == (0, 1)


def test_sign_in_that_could_not_be_saved_wins_over_the_old_token_that_another_process_renews(
    process, site, server, storage, clock
):
    one, other = process(server.issue()), process()
    assert get(site, one) == get(site, other) == 200
    storage.fail("lock")
    somebody_else = server.issue(lifetime=A_DAY)
    with pytest.raises(StorageError):
        one.sign_in(somebody_else)
    storage.heal()
    clock.advance(server.lifetime)
    assert get(site, other) == 200  # this renews the old token
    one.close()
    assert storage.inner.load() == somebody_else


# A late 401, and a refusal that comes too late.


def test_guarantee_4_a_401_for_a_token_that_another_process_has_renewed_costs_no_token_request(
    process, site, server, storage
):
    one, other = process(server.issue()), process()
    assert get(site, one) == get(site, other) == 200
    server.revoke_access_tokens()
    assert get(site, one) == 200
    assert get(site, other) == 200
    assert (server.token_requests, server.api_unauthorized, server.reuse_detected) == (1, 2, 0)


def test_a_401_for_the_token_that_the_storage_holds_as_well_is_answered_with_a_new_one(process, site, server, storage):
    token = server.issue()
    storage.inner.save(token)
    server.revoke_access_tokens()
    assert get(site, process()) == 200
    assert server.token_requests == 1


@pytest.mark.parametrize("held", ["the same token", "nothing"])
def test_a_token_that_is_refused_while_the_storage_is_read_is_not_adopted_from_there(
    process, site, server, storage, clock, held
):
    auth = process(server.issue())
    if held == "the same token":
        storage.inner.save(auth.token)
    storage.fail("load")
    assert get(site, auth) == 200  # the storage fails; it is read again in the background
    server.revoke_access_tokens()
    storage.before["load"] = lambda: until_refused(auth)
    clock.advance(1)
    assert get(site, auth) == 200
    assert (server.token_requests, server.api_unauthorized) == (1, 1)


def test_invalid_grant_because_another_process_has_just_rotated_is_no_error(process, site, server, storage, clock):
    auth = process(server.issue())
    assert get(site, auth) == 200
    clock.advance(server.lifetime)
    successor = replace(server.issue(), refresh_token="rotated")

    def refresh(token: Token) -> Token:  # another process, which does not take the lock, is faster
        storage.inner.save(successor)
        raise SignInRequired("invalid_grant")

    rejected = heard(auth, RefreshRejected)
    auth._manager.refresh = refresh
    assert get(site, auth) == 200
    assert server.authorizations("/me")[-1] == f"Bearer {successor.access_token}"
    assert rejected == []
    assert storage.last_calls(4) == ["lock", "load", "load", "release"]


def test_invalid_grant_is_tried_again_with_the_refresh_token_that_another_process_has_put_there(
    process, site, server, storage, clock
):
    seen: list[str | None] = []

    def refresh(token: Token) -> Token:
        seen.append(token.refresh_token)
        if token.refresh_token == "old":
            storage.inner.save(Token(refresh_token=newer.refresh_token))  # a process that takes no lock has signed in
            raise SignInRequired("invalid_grant")
        return site.function(token)

    newer = server.issue(access_token=False)
    auth = process(Token(refresh_token="old"), refresh)
    assert get(site, auth) == 200
    assert seen == ["old", newer.refresh_token]


def test_a_refresh_that_a_sign_out_has_superseded_does_not_ask_again_after_an_invalid_grant(
    process, site, server, storage
):
    seen: list[str | None] = []

    def refresh(token: Token) -> Token:
        seen.append(token.refresh_token)
        storage.inner.save(server.issue(access_token=False))  # a process that takes no lock saves it
        auth.sign_out()
        raise SignInRequired("invalid_grant")

    auth = process(Token(refresh_token="old"), refresh)
    fails(auth)
    auth.close()
    assert seen == ["old"]
    assert storage.inner.load() is None


def test_invalid_grant_with_nothing_newer_in_the_storage_is_final_and_not_posted_again(
    process, site, server, storage, clock
):
    auth = process(server.issue())
    assert get(site, auth) == 200
    server.revoke_refresh_tokens()
    clock.advance(server.lifetime)
    for _ in range(3):
        with pytest.raises(SignInRequired):
            get(site, auth)
        clock.advance(A_DAY)
    assert server.token_requests == 1


# Signing out.


def test_sign_out_is_seen_by_another_process_at_its_next_refresh(process, site, server, storage, clock):
    one, other = process(server.issue()), process()
    assert get(site, one) == get(site, other) == 200
    one.sign_out()
    assert storage.inner.load() is None
    clock.advance(server.lifetime)
    with pytest.raises(SignInRequired):
        get(site, other)
    assert other.store.state.token is None
    assert storage.inner.load() is None
    assert server.token_requests == 0


@pytest.mark.parametrize("dead", ["signed out", "revoked"])
def test_sign_in_in_one_process_ends_the_sign_in_required_of_the_others(process, site, server, storage, clock, dead):
    one, other = process(server.issue()), process(refresh=site.refresh("grant"))
    assert get(site, one) == get(site, other) == 200
    if dead == "signed out":
        one.sign_out()
    else:
        server.revoke_refresh_tokens()
    clock.advance(server.lifetime)
    for _ in range(2):
        with pytest.raises(SignInRequired):
            get(site, other)
    one.sign_in(server.issue(lifetime=A_DAY))
    clock.advance(61)
    assert get(site, other) == 200


def test_guarantee_5_refused_token_is_not_sent_again_while_the_storage_is_away(process, site, server, storage, clock):
    auth = process(server.issue())
    storage.fail("load")
    assert get(site, auth) == 200  # requests use the token that was given
    server.revoke_access_tokens()
    with pytest.raises(StorageError):
        get(site, auth)
    assert server.api_unauthorized == 1
    storage.heal()
    clock.advance(61)
    assert get(site, auth) == 200
    assert server.token_requests == 1


def test_sign_out_in_another_process_is_not_undone_by_a_token_that_could_not_be_saved(
    process, site, server, storage, clock
):
    one, other = process(server.issue()), process()
    assert get(site, one) == get(site, other) == 200
    clock.advance(server.lifetime)
    storage.fail("save")
    assert get(site, one) == 200  # the token is renewed, and not saved
    storage.heal()
    other.sign_out()
    assert get(site, one) == 200  # it tries to save again
    one.close()
    assert storage.inner.load() is None


def test_sign_out_with_the_storage_away_says_that_it_still_holds_the_token(process, site, server, storage):
    auth = process(server.issue())
    assert get(site, auth) == 200
    storage.fail("clear")
    with pytest.raises(StorageError):
        auth.sign_out()
    assert auth.store.state.token is None


# The storage cannot be reached.


def test_guarantee_2_a_failed_save_is_dispatched_once_and_the_token_is_saved_at_the_next_chance(
    process, site, server, storage, clock, caplog
):
    auth = process(server.issue())
    assert get(site, auth) == 200
    clock.advance(server.lifetime)
    failures = heard(auth, SaveFailed)
    storage.fail("save")
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            assert get(site, auth) == 200
            auth.close()
            clock.advance(1)
    assert len(failures) == 1
    assert isinstance(failures[0].error, StorageError)
    assert len([record for record in caplog.records if "Could not save" in record.message]) == 1
    assert server.token_requests == 1
    storage.heal()
    auth.close()
    assert storage.inner.load().access_token == auth.store.state.token.access_token


def test_a_save_is_tried_again_by_requests_after_1_2_and_4_seconds(process, site, server, storage, clock):
    auth = process(server.issue())
    assert get(site, auth) == 200
    clock.advance(server.lifetime)
    tried = threading.Semaphore(0)

    storage.fail("save")
    storage.before["release"] = tried.release
    assert get(site, auth) == 200
    assert tried.acquire(timeout=10)
    attempts = []
    for second in range(9):
        assert get(site, auth) == 200
        is_tried = second in {0, 1, 3, 7}
        assert tried.acquire(timeout=10 if is_tried else 0) is is_tried
        attempts.append(is_tried)
        clock.advance(1)
    assert server.token_requests == 1


def test_requests_go_on_with_the_token_in_memory_while_the_storage_is_away(process, site, server, storage, clock):
    auth = process(server.issue())
    assert get(site, auth) == 200
    storage.fail("lock")
    clock.advance(server.lifetime - 30)  # the token is due for renewal
    for _ in range(25):
        assert get(site, auth) == 200
        clock.advance(1)
    auth.close()
    assert server.token_requests == 0
    storage.heal()
    clock.advance(31)
    assert get(site, auth) == 200
    assert server.token_requests == 1


@pytest.mark.parametrize("library", ["httpx", "httpx2"], indirect=True)
@pytest.mark.parametrize("step", ["lock", "load"])
def test_a_refresh_that_cannot_use_the_storage_fails_as_transient_and_spends_nothing(
    process, site, server, storage, clock, step, library
):
    auth = process(server.issue())
    assert get(site, auth) == 200
    clock.advance(server.lifetime)
    storage.fail(step)
    with pytest.raises(RefreshError) as caught:
        get(site, auth)
    assert isinstance(caught.value, library.package.TransportError)
    assert isinstance(caught.value.__cause__, StorageError)
    assert server.token_requests == 0
    storage.heal()
    clock.advance(1)
    assert get(site, auth) == 200
    assert server.token_requests == 1


def test_guarantee_7_a_storage_that_is_away_from_the_start_makes_nobody_wait_a_second_time(
    process, site, server, storage, clock
):
    auth = process(server.issue())
    storage.fail("lock")
    assert get(site, auth) == 200
    clock.advance(1)
    hangs, ends = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        assert ends.wait(30)
        raise StorageError("Timed out.")

    storage.before["lock"] = hang
    statuses: list[int] = []
    request = threading.Thread(target=lambda: statuses.append(get(site, auth)), daemon=True)
    request.start()
    try:
        assert hangs.wait(10)
        request.join(5)
        assert statuses == [200]
    finally:
        ends.set()
        request.join()


def test_guarantee_7_nobody_waits_for_the_release_of_a_lock_once_the_token_is_there(process, site, server, storage):
    auth = process(server.issue(access_token=False))
    ends = threading.Event()
    storage.before["release"] = lambda: ends.wait(30)
    statuses: list[int] = []
    request = threading.Thread(target=lambda: statuses.append(get(site, auth)), daemon=True)
    request.start()
    try:
        request.join(5)
        assert statuses == [200]
    finally:
        ends.set()
        request.join()
        auth.close()


def test_guarantee_2_no_refresh_is_begun_that_would_be_stopped_immediately_because_the_lock_came_late(
    process, site, server, storage, clock
):
    auth = process(server.issue(access_token=False), refresh_timeout=30.0)
    storage.before["load"] = lambda: clock.advance(29.9)  # another process had the lock for so long
    with pytest.raises(RefreshError):
        get(site, auth)
    assert server.token_requests == 0


def test_guarantee_10_a_storage_that_hangs_makes_nobody_wait_for_longer_than_the_timeout(
    process, site, server, storage, clock
):
    auth = process(server.issue(access_token=False), refresh_timeout=0.2, clock=None)
    ends = threading.Event()
    storage.before["load"] = lambda: ends.wait(30)
    try:
        with pytest.raises(RefreshError, match="refresh_timeout"):
            get(site, auth)
    finally:
        ends.set()
        auth.close()


@pytest.mark.parametrize("name", ["lock", "load", "save", "release"])
def test_whatever_a_storage_raises_becomes_an_error_of_ours_and_shows_no_secret(
    process, site, server, storage, clock, name, caplog
):
    token = server.issue()
    auth = process(token)
    assert get(site, auth) == 200
    clock.advance(server.lifetime)

    def fail() -> None:
        raise OSError(f"no room for {token.refresh_token}")

    storage.before[name] = fail
    with caplog.at_level(logging.DEBUG):
        try:
            assert get(site, auth) == 200
        except (RefreshError, StorageError) as error:
            assert token.refresh_token not in str(error)  # noqa: PT017 - it may be raised or not
    assert token.refresh_token not in caplog.text


# Hosts whose clocks differ.


@pytest.mark.parametrize("apart", [48, 60])
def test_guarantee_12_hosts_whose_clocks_differ_by_a_minute_neither_storm_nor_use_an_ended_token(
    library, site, server, storage, clock, apart
):
    server.lifetime = 300.0
    hosts = [hasty, *_] = [
        host(library, site, storage, Shifted(clock, seconds)) for seconds in (apart / 2, -apart / 2, 0)
    ]
    hasty.sign_in(server.issue(access_token=False))
    for _ in range(200):  # twenty minutes
        for auth in hosts:
            assert get(site, auth) == 200
            auth.close()
        clock.advance(6)
    # A token is renewed up to 66 s before its end. One host sees the end up to 60 s too early, and another up to 60 s
    # too late. So the window of the late host opens 0 to 6 s before the end, and may contain no request. Then a 401
    # makes it read the storage.
    assert 1200 / 300 <= server.token_requests <= 1200 / (300 - 66 - 60 - 6) + 1
    assert server.api_unauthorized <= (server.token_requests if apart == 60 else 0)
    assert server.reuse_detected == 0


def test_guarantee_12_hosts_whose_clocks_differ_by_more_than_a_token_lives_refresh_twice_per_life_at_most(
    library, site, server, storage, clock
):
    server.lifetime = 40.0
    hosts = [hasty, _] = [host(library, site, storage, Shifted(clock, seconds)) for seconds in (30, -30)]
    hasty.sign_in(server.issue(access_token=False))
    for _ in range(200):
        for auth in hosts:
            assert get(site, auth) == 200
            auth.close()
        clock.advance(1)
    assert server.token_requests <= 2 * 200 / (40 - 10 * 1.1 - 1)
    assert server.api_unauthorized <= server.token_requests
    assert server.reuse_detected == 0


def host(library, site, storage, clock):
    return library.Reauth(site.function, storage=storage, clock=clock)


class Shifted:
    """The clock of a host whose wall clock is wrong."""

    def __init__(self, clock: ManualClock, seconds: float) -> None:
        self.monotonic = clock.monotonic
        self._clock, self._seconds = clock, seconds

    def time(self) -> float:
        return self._clock.time() + self._seconds


# Async callers.


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["coroutine", "grant"])
async def test_no_storage_blocks_the_event_loop(library, site, server, storage, clock, kind):
    turned, is_released = threading.Semaphore(0), threading.Event()
    turns = dict.fromkeys(("lock", "load", "save", "release"), 0)

    async def other_things_happen() -> None:
        while True:
            await anyio.sleep(0.01)
            turned.release()

    # a quarter of a second, or much longer if the event loop is blocked meanwhile
    def takes_its_time(name: str) -> None:
        while turned.acquire(blocking=False):
            pass
        while turns[name] < 25 and turned.acquire(timeout=20):
            turns[name] += 1
        if name == "release":
            is_released.set()

    for name in turns:
        storage.before[name] = partial(takes_its_time, name)
    auth = library.Reauth(site.refresh(kind), token=server.issue(access_token=False), storage=storage, clock=clock)
    async with site.async_client(auth) as client, anyio.create_task_group() as group:
        group.start_soon(other_things_happen)
        assert (await client.get("/me")).status_code == 200
        await anyio.to_thread.run_sync(is_released.wait, 60)
        group.cancel_scope.cancel()
    assert set(turns.values()) == {25}
    assert threading.get_ident() not in storage.threads


@pytest.mark.anyio
async def test_no_call_of_a_storage_is_made_on_the_thread_of_an_event_loop(library, site, server, storage, clock):
    auth = library.Reauth(site.coroutine, token=server.issue(), storage=storage, clock=clock)
    async with auth, site.async_client(auth) as client:
        assert (await client.get("/me")).status_code == 200
        storage.fail("save")
        with pytest.raises(StorageError):
            await auth.asign_in(server.issue())
        storage.heal()
        assert (await client.get("/me")).status_code == 200  # this request saves the token
        await auth.aclose()
        clock.advance(server.lifetime)
        assert (await client.get("/me")).status_code == 200
        await auth.asign_out()
    storage.last_calls(1)
    assert {"lock", "load", "save", "clear", "release"} == set(storage.calls)
    assert threading.get_ident() not in storage.threads


@pytest.mark.anyio
async def test_guarantee_2_a_cancelled_leader_still_saves_the_rotated_token(library, site, server, storage, clock):
    auth = library.Reauth(site.coroutine, token=server.issue(access_token=False), storage=storage, clock=clock)
    async with auth, site.async_client(auth) as client:
        with server.token_endpoint.hold() as gate:
            async with anyio.create_task_group() as group:
                group.start_soon(client.get, "/me")
                await server.await_until(lambda: gate.held == 1)
                group.cancel_scope.cancel()
            gate.release()
        await auth.aclose()
        assert storage.inner.load() == auth.store.state.token
        assert (await client.get("/me")).status_code == 200
    assert (server.token_requests, server.reuse_detected) == (1, 0)
