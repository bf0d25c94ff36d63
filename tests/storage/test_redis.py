"""A token in Redis: a lease for one at a time, and no save over a newer token. The server is a real one."""

from __future__ import annotations

import json
import logging
import os
import pickle
import threading
import time
from collections.abc import Callable

import httpx
import pytest
import redis
import redis.asyncio
from redis_server import RedisServer

from httpx_reauth import Reauth, RefreshError, SaveFailed, StorageError, Token
from httpx_reauth.storage import RedisStorage
from httpx_reauth.storage import redis as _redis

OLD, NEW, NEWER = Token("old"), Token("new", refresh_token="new-secret"), Token("newer")

KEY = "app:token:alice"
LEASE = "{app:token:alice}:lock"


@pytest.fixture
def make(redis_server: RedisServer):
    """Makes storages as several processes would: each with a client of its own."""
    clients: list[redis.Redis] = []

    def make(key: str = KEY, *, lease: float | None = None, **settings: object) -> RedisStorage:
        clients.append(redis_server.client(**settings))
        return RedisStorage(clients[-1], key=key, lease=lease)

    yield make
    for client in clients:
        client.close()


def save(storage: RedisStorage, token: Token) -> None:
    with storage.lock(5):
        storage.save(token)


def until(is_so: Callable[[], object]) -> None:
    """Wait for something that another thread or the server does."""
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


# What is held.


def test_it_holds_json_with_a_version_under_the_key(make, redis_client):
    save(make(), NEW)
    held = json.loads(redis_client.get(KEY))
    assert (held["version"], held["access_token"]) == (1, "new")
    assert redis_client.ttl(KEY) == -1  # for ever


def test_unknown_fields_are_kept(make, redis_client):
    save(make(), OLD)
    redis_client.set(KEY, json.dumps({**json.loads(redis_client.get(KEY)), "note": "keep me"}))
    save(make(), NEW)
    assert json.loads(redis_client.get(KEY))["note"] == "keep me"


def test_each_key_is_a_token_and_a_lock_of_its_own(make):
    alice, bob = make("app:token:alice"), make("app:token:bob")
    with alice.lock(1), bob.lock(1):
        alice.save(OLD)
        bob.save(NEW)
    assert (alice.load(), bob.load()) == (OLD, NEW)


@pytest.mark.parametrize(
    ("key", "lease"), [("token", "{token}:lock"), ("{app}:token", "{app}:token:lock")], ids=["plain", "with a hash tag"]
)
def test_the_lease_lies_in_the_slot_of_the_key(make, redis_client, key, lease):
    with make(key).lock(1):
        assert redis_client.exists(lease)
        slots = {redis.cluster.key_slot(one.encode()) for one in (key, lease)}
        assert len(slots) == 1


@pytest.mark.parametrize(
    "value", ["{", '{"access_token": "somebody-elses"}', '{"format": "httpx_reauth token", "version": 2}']
)
def test_what_is_damaged_foreign_or_newer_is_an_error_and_never_overwritten(make, redis_client, value):
    redis_client.set(KEY, value)
    storage = make()
    with storage.lock(1):
        for use in (storage.load, lambda: storage.save(NEW), storage.clear):
            with pytest.raises(StorageError, match=r"RedisStorage\(key='app:token:alice'\) holds no token"):
                use()
    assert redis_client.get(KEY).decode() == value


def test_a_key_of_another_type_is_an_error_and_never_overwritten(make, redis_client):
    redis_client.rpush(KEY, "somebody else's list")
    storage = make()
    with storage.lock(1):
        for use in (storage.load, lambda: storage.save(NEW), storage.clear):
            with pytest.raises(StorageError, match="ResponseError"):
                use()
    assert redis_client.lrange(KEY, 0, -1) == [b"somebody else's list"]


def test_it_can_be_filled_by_hand_without_the_lock(make):
    make().save(NEW)
    assert make().load() == NEW


# The lease.


@pytest.mark.parametrize(("lease", "seconds"), [(None, 40), (7, 7)])
def test_the_lease_outlasts_the_timeout_unless_it_is_given(make, redis_client, lease, seconds):
    with make(lease=lease).lock(30):
        assert 1000 * (seconds - 5) < redis_client.pttl(LEASE) <= 1000 * seconds
    assert not redis_client.exists(LEASE)


def test_the_lease_of_a_holder_that_died_is_free_when_its_time_is_over(make, redis_client):
    make(lease=0.3).lock(1).__enter__()  # and is never heard of again
    begun = time.monotonic()
    with make().lock(20):
        assert time.monotonic() - begun < 10
    assert not redis_client.exists(LEASE)


def test_a_lease_that_is_held_for_too_long_says_when_it_ends(make):
    with make().lock(1), pytest.raises(StorageError, match=r"lease .* for 0\.1 s.*ends in \d+"), make().lock(0.1):
        pass


def test_a_holder_that_lost_its_lease_does_not_give_back_that_of_the_next(make, redis_client):
    one, other = make(lease=0.05), make()
    lost = one.lock(1)
    lost.__enter__()
    with other.lock(20):
        lost.__exit__(None, None, None)
        assert redis_client.exists(LEASE)
    assert not redis_client.exists(LEASE)


def test_threads_of_one_storage_take_turns_even_when_the_lease_has_lapsed(make, redis_client):
    storage = make(lease=0.05)
    with storage.lock(1):
        until(lambda: not redis_client.exists(LEASE))
        with pytest.raises(StorageError, match="Another thread"):
            enter_in_another_thread(storage, 0.1)


def enter_in_another_thread(storage: RedisStorage, timeout: float) -> None:
    errors: list[Exception] = []

    def enter() -> None:
        try:
            with storage.lock(timeout):
                pass
        except StorageError as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def test_a_lease_that_was_had_without_hearing_of_it_is_had_at_the_next_attempt(make, redis_client):
    storage = make()
    redis_client.set(LEASE, storage._owner, px=60_000)  # the answer was lost
    with storage.lock(0):
        pass
    assert not redis_client.exists(LEASE)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_is_somebody_else(make, redis_client):
    storage = make()
    with storage.lock(5):
        child = os.fork()
        if not child:  # pragma: no cover - ends without a word
            try:
                with storage.lock(0.05):
                    os._exit(1)
            except StorageError as error:
                os._exit(0 if "lease" in str(error) else 2)
            finally:
                os._exit(3)
        assert os.waitpid(child, 0)[1] == 0
        assert redis_client.exists(LEASE)


# Waiting for it.


def test_who_waits_is_woken_when_the_lease_is_given_back(make, redis_client, monkeypatch):
    monkeypatch.setattr(_redis, "_LOOK", 20.0)  # nobody looks by himself
    got = []

    def wait(storage: RedisStorage) -> None:
        with storage.lock(60):
            got.append(storage)

    with make().lock(5):
        threads = [threading.Thread(target=wait, args=(make(socket_timeout=60),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: redis_client.info("clients")["blocked_clients"] == 8)
    begun = time.monotonic()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert time.monotonic() - begun < 10  # one after another, each woken by the one before


def test_who_waits_asks_redis_about_once_a_second(make, redis_client):
    waiter = make()
    with make().lock(5):
        thread = threading.Thread(target=lambda: enter_in_another_thread(waiter, 30))
        thread.start()
        until(lambda: redis_client.info("clients")["blocked_clients"] == 1)
        before = redis_client.info("stats")["total_commands_processed"]
        time.sleep(1.5)
        asked = redis_client.info("stats")["total_commands_processed"] - before
    thread.join()
    assert asked <= 10  # those of this test included


def test_who_waits_stays_within_the_patience_of_its_client(make, redis_client):
    waiter = make(socket_timeout=0.4)
    waiter.load()
    with make().lock(5):
        before = redis_client.info("stats")["total_connections_received"]
        with pytest.raises(StorageError, match="lease"):
            enter_in_another_thread(waiter, 1.5)
        assert redis_client.info("stats")["total_connections_received"] == before  # none had to be given up


def test_a_wake_up_that_is_lost_costs_a_second(make, redis_client):
    waiter, got = make(), threading.Event()

    def wait() -> None:
        with waiter.lock(60):
            got.set()

    holder = make().lock(5)
    holder.__enter__()
    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: redis_client.info("clients")["blocked_clients"] == 1)
    redis_client.delete(LEASE)  # nobody rings
    assert got.wait(10)
    thread.join()
    holder.__exit__(None, None, None)


def test_where_waiting_is_not_allowed_it_looks_again_and_again(make, redis_client):
    redis_client.execute_command("ACL", "SETUSER", "app", "on", "nopass", "~*", "+@all", "-blpop")
    with make().lock(5):
        redis_client.config_resetstat()
        with pytest.raises(StorageError, match="lease"):
            enter_in_another_thread(make(username="app", password="x"), 0.5)
        assert redis_client.info("commandstats")["cmdstat_eval"]["calls"] <= 102  # it rests for 5 to 10 ms
    with make(username="app", password="x").lock(5):
        pass


def test_nothing_is_left_but_the_token(make, redis_client):
    save(make(), NEW)
    with make(lease=0.2).lock(5):
        pass
    until(lambda: set(redis_client.keys()) == {KEY.encode()})


# Saving after the lease was lost.


def lose_lease(client: redis.Redis) -> None:
    client.delete(LEASE)


def test_guarantee_1_who_lost_its_lease_does_not_save_over_a_newer_token(make, redis_client):
    save(make(), OLD)
    late, other = make(), make()
    with late.lock(5):
        assert late.load() == OLD
        lose_lease(redis_client)
        save(other, NEWER)
        with pytest.raises(StorageError, match="lost its lease") as caught:
            late.save(NEW)
    assert make().load() == NEWER
    assert "secret" not in str(caught.value)


def test_guarantee_1_who_lost_its_lease_to_a_holder_that_has_not_saved_yet_still_saves_its_token(make, redis_client):
    save(make(), OLD)
    late, other = make(), make()
    with late.lock(5):
        assert late.load() == OLD
        lose_lease(redis_client)
        with other.lock(5):
            assert other.load() == OLD
            late.save(NEW)  # its refresh token is the newest there is
            assert make().load() == NEW
            other.save(NEWER)  # until the holder of the lease has saved its own
    assert make().load() == NEWER


@pytest.mark.parametrize("before", [None, OLD])
def test_who_lost_its_lease_does_not_undo_a_sign_out(make, redis_client, before):
    if before is not None:
        save(make(), before)
    late, other = make(), make()
    with late.lock(5):
        assert late.load() == before
        lose_lease(redis_client)
        with other.lock(5):
            other.clear()
        with pytest.raises(StorageError, match="lost its lease"):
            late.save(NEW)
    assert make().load() is None


def test_who_lost_its_lease_does_not_save_over_a_sign_in_with_the_same_history(make, redis_client):
    save(make(), OLD)
    late, other = make(), make()
    with late.lock(5):
        late.load()
        lose_lease(redis_client)
        with other.lock(5):
            other.clear()
            other.save(NEWER)
        with pytest.raises(StorageError, match="lost its lease"):
            late.save(NEW)
    assert make().load() == NEWER


def test_a_save_that_is_sent_again_after_a_lost_answer_is_no_conflict(make, redis_client, monkeypatch):
    save(make(), OLD)
    storage = make()
    evaluate = storage._client.eval

    def evaluate_twice(*arguments: object) -> object:
        evaluate(*arguments)
        lose_lease(redis_client)
        return evaluate(*arguments)

    with storage.lock(5):
        storage.load()
        with monkeypatch.context() as patch:
            patch.setattr(storage._client, "eval", evaluate_twice)
            storage.save(NEW)
    assert make().load() == NEW


def test_who_saves_twice_under_one_lock_saves_over_its_own(make, redis_client):
    storage = make()
    with storage.lock(5):
        assert storage.load() is None
        storage.save(OLD)
        lose_lease(redis_client)
        storage.save(NEW)
    assert make().load() == NEW


# Redis is away, restarts, or stands still.


def test_redis_away_is_an_error_that_says_so_at_once(make, redis_server):
    storage = make()
    redis_server.stop()
    try:
        begun = time.monotonic()
        for use in (storage.load, lambda: storage.save(NEW), storage.clear, storage.lock(5).__enter__):
            with pytest.raises(
                StorageError, match=r"A Redis command failed .*ConnectionError.* Is it running"
            ) as caught:
                use()
            assert isinstance(caught.value.__cause__, redis.ConnectionError)
        assert time.monotonic() - begun < 10
    finally:
        redis_server.start()
    save(storage, NEW)
    assert make().load() == NEW


def test_redis_that_stands_still_is_an_error_after_the_patience_of_the_client(make, redis_server):
    storage = make(socket_timeout=0.2)
    storage.load()
    redis_server.freeze()
    try:
        for use in (storage.load, storage.lock(5).__enter__):
            with pytest.raises(StorageError, match="TimeoutError"):
                use()
    finally:
        redis_server.thaw()
    with storage.lock(5):
        storage.save(NEW)


def test_redis_that_goes_away_while_one_waits_for_the_lease_is_an_error(make, redis_server, redis_client):
    waiter, errors = make(), []

    def wait() -> None:
        try:
            enter_in_another_thread(waiter, 30)
        except StorageError as error:
            errors.append(error)

    holder = make().lock(5)
    holder.__enter__()
    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: redis_client.info("clients")["blocked_clients"] == 1)
    redis_server.stop()
    try:
        thread.join()
        assert "ConnectionError" in str(errors[0])
        with pytest.raises(StorageError):
            holder.__exit__(None, None, None)
    finally:
        redis_server.start()


def test_redis_that_restarted_empty_is_no_sign_out(make, redis_server, caplog):
    storage = make()
    save(storage, OLD)
    assert storage.load() == OLD
    redis_server.stop()
    redis_server.start()
    with caplog.at_level(logging.WARNING), storage.lock(5):
        assert storage.load() == OLD
        storage.save(NEW)
    assert "lost its data" in caplog.text
    assert make().load() == NEW


def test_redis_that_restarted_empty_is_empty_for_who_has_not_seen_a_token_there(make, redis_server):
    save(make(), OLD)
    redis_server.stop()
    redis_server.start()
    assert make().load() is None


def test_sign_out_is_remembered_for_30_days_and_seen_by_who_knew_the_token(make, redis_client):
    one, other = make(), make()
    save(one, OLD)
    assert other.load() == OLD
    with one.lock(5):
        one.clear()
    assert (one.load(), other.load(), make().load()) == (None, None, None)
    assert 29 * 86_400 < redis_client.ttl(KEY) <= 30 * 86_400
    redis_client.delete(KEY)  # the 30 days are over
    assert (one.load(), other.load()) == (None, None)
    save(one, OLD)
    with one.lock(5):
        one.clear()
    redis_client.delete(KEY)
    assert one.load() is None
    save(one, NEW)
    assert redis_client.ttl(KEY) == -1


def get(auth: Reauth, server) -> int:
    with httpx.Client(transport=server.transport(httpx), base_url="https://api.test", auth=auth) as client:
        return client.get("/me").status_code


def form(token: Token) -> dict[str, str]:
    return {"grant_type": "refresh_token", "refresh_token": token.refresh_token or ""}


@pytest.fixture
def refresh(server):
    def refresh(token: Token) -> Token:
        with httpx.Client(transport=server.transport(httpx), base_url="https://api.test") as client:
            return Token.from_response(client.post("/token", data=form(token)))

    return refresh


def test_guarantee_2_a_redis_that_dies_during_a_refresh_costs_nothing(make, redis_server, server, clock, refresh):
    def dying(token: Token) -> Token:
        answer = refresh(token)
        redis_server.stop()
        return answer

    auth = Reauth(dying, token=server.issue(access_token=False), storage=make(), clock=clock)
    failures = []
    auth.store.subscribe(lambda _, action: failures.append(action) if isinstance(action, SaveFailed) else None)
    try:
        assert [get(auth, server) for _ in range(3)] == [200] * 3
        assert len(failures) == 1
    finally:
        redis_server.start()  # empty
    auth.close()
    assert make().load() == auth.store.state.token
    assert (server.token_requests, server.reuse_detected) == (1, 0)


def test_guarantee_1_a_redis_that_restarts_empty_between_refreshes_costs_nobody_the_session(
    make, redis_server, server, clock, refresh
):
    one = Reauth(refresh, token=server.issue(), storage=make(), clock=clock)
    other = Reauth(refresh, storage=make(), clock=clock)
    assert (get(one, server), get(other, server)) == (200, 200)
    redis_server.stop()
    redis_server.start()
    clock.advance(server.lifetime)
    assert (get(one, server), get(other, server)) == (200, 200)
    assert (server.token_requests, server.reuse_detected) == (1, 0)


def test_requests_go_on_while_redis_is_away_and_a_refresh_without_it_spends_nothing(
    make, redis_server, server, clock, refresh
):
    auth = Reauth(refresh, token=server.issue(), storage=make(), clock=clock)
    assert get(auth, server) == 200
    redis_server.stop()
    try:
        clock.advance(server.lifetime - 30)
        assert [get(auth, server) for _ in range(3)] == [200] * 3
        auth.close()
        clock.advance(30)
        with pytest.raises(RefreshError) as caught:
            get(auth, server)
        assert isinstance(caught.value, httpx.TransportError)
        assert server.token_requests == 0
    finally:
        redis_server.start()
    clock.advance(2)
    assert get(auth, server) == 200
    assert server.token_requests == 1


# What it is made of.


def test_an_async_client_is_refused(redis_server):
    with pytest.raises(TypeError, match="not an async client"):
        RedisStorage(redis.asyncio.Redis(unix_socket_path=redis_server.socket), key=KEY)


@pytest.mark.parametrize("lease", [0, -1])
def test_a_lease_of_no_time_is_refused(redis_client, lease):
    with pytest.raises(ValueError, match="lease"):
        RedisStorage(redis_client, key=KEY, lease=lease)


def test_it_shows_its_key_alone_and_refuses_to_be_pickled(make):
    storage = make(password="client-secret")
    assert repr(storage) == "RedisStorage(key='app:token:alice')"
    with pytest.raises(TypeError):
        pickle.dumps(storage)
