"""Tests of a token in a real Redis server: one holder has the lease, and no save overwrites a newer token."""

from __future__ import annotations

import json
import logging
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
import redis
import redis.asyncio
from redis_server import RedisServer, running_server

from httpx_reauth import Reauth, RefreshError, SaveFailed, StorageError, Token
from httpx_reauth.storage import RedisStorage
from httpx_reauth.testing._contract_steps import locked

OLD, NEW, NEWER = Token("old"), Token("new", refresh_token="new-secret"), Token("newer")

KEY = "app:token:alice"
LEASE = "{app:token:alice}:lock"


@pytest.fixture
def make(redis_server: RedisServer):
    """Return a function that makes storages as several processes would: each has its own client."""
    clients: list[redis.Redis] = []

    def make(key: str = KEY, **settings: object) -> RedisStorage:
        clients.append(redis_server.client(**settings))
        return RedisStorage(clients[-1], key=key)

    yield make
    for client in clients:
        client.close()


def save(storage: RedisStorage, token: Token) -> None:
    with locked(storage):
        storage.save(token)


def until(is_so: Callable[[], object]) -> None:
    """Wait for something that another thread or the server does."""
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


# The stored value.


def test_it_holds_json_with_a_version_under_the_key(make, redis_client):
    save(make(), NEW)
    held = json.loads(redis_client.get(KEY))
    assert (held["version"], held["access_token"]) == (1, "new")
    assert redis_client.ttl(KEY) == -1  # the key never expires


def test_unknown_fields_are_kept(make, redis_client):
    save(make(), OLD)
    redis_client.set(KEY, json.dumps({**json.loads(redis_client.get(KEY)), "note": "keep me"}))
    save(make(), NEW)
    assert json.loads(redis_client.get(KEY))["note"] == "keep me"


def test_each_key_is_a_token_and_a_lock_of_its_own(make):
    alice, bob = make("app:token:alice"), make("app:token:bob")
    with locked(alice), locked(bob):
        alice.save(OLD)
        bob.save(NEW)
    assert (alice.load(), bob.load()) == (OLD, NEW)


@pytest.mark.parametrize(
    "value", ["{", '{"access_token": "somebody-elses"}', '{"format": "httpx_reauth token", "version": 2}']
)
def test_what_is_damaged_foreign_or_newer_is_an_error_and_never_overwritten(make, redis_client, value):
    redis_client.set(KEY, value)
    storage = make()
    with locked(storage):
        for use in (storage.load, lambda: storage.save(NEW), storage.clear):
            with pytest.raises(StorageError, match=r"RedisStorage\(key='app:token:alice'\) holds no token"):
                use()
    assert redis_client.get(KEY).decode() == value


def test_a_key_of_another_type_is_an_error_and_never_overwritten(make, redis_client):
    redis_client.rpush(KEY, "somebody else's list")
    storage = make()
    with locked(storage):
        for use in (storage.load, lambda: storage.save(NEW), storage.clear):
            with pytest.raises(StorageError, match="ResponseError"):
                use()
    assert redis_client.lrange(KEY, 0, -1) == [b"somebody else's list"]


def test_it_can_be_filled_by_hand_without_the_lock(make):
    make().save(NEW)
    assert make().load() == NEW


@pytest.mark.parametrize(
    "key", ["token", "{app}:token", "app{user", "app}user", "}{", "{}app", "{}", "{{a}b}", "ключ{}"]
)
def test_the_lease_lies_in_the_slot_of_the_key_whatever_braces_that_has(make, redis_client, key):
    with locked(make(key)):
        (lease,) = redis_client.keys()
        assert redis.cluster.key_slot(lease) == redis.cluster.key_slot(key.encode())


def test_a_cluster_takes_every_key():
    with socket.socket() as one, socket.socket() as bus:
        for each in (one, bus):
            each.bind(("127.0.0.1", 0))
        ports = [str(each.getsockname()[1]) for each in (one, bus)]
    settings = ["--cluster-enabled", "yes", "--bind", "127.0.0.1", "--port", ports[0], "--cluster-port", ports[1]]
    with running_server(*settings) as server:
        if server is None:
            pytest.skip("no server")
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"))
            with pytest.raises(redis.ResponseError, match="same slot"):
                client.eval("return 1", 2, "a", "b")
            for key in ("token", "{app}:token", "app{user", "app}user", "}{", "{}app"):
                storage = RedisStorage(client, key=key)
                save(storage, NEW)
                assert storage.load() == NEW
                with locked(storage):
                    storage.clear()


def test_keys_that_differ_have_leases_that_differ(make, redis_client):
    keys = ["a", "{a}", "{a}:lock", "a:lock", "{a}:a", "b{a}", "a}", "{}a", "{a}a"]
    with ExitStack() as held:
        for key in keys:
            lock = make(key).try_lock(60)
            assert lock is not None, f"somebody else has that of {key}"
            held.enter_context(lock)
        assert len(redis_client.keys()) == len(keys)


# The lease.


def test_the_lease_lasts_as_long_as_its_holder_may_need_it(make, redis_client):
    with make().try_lock(70):
        assert 65_000 < redis_client.pttl(LEASE) <= 70_000
    assert not redis_client.exists(LEASE)


def test_the_lease_of_a_holder_that_died_is_free_when_its_time_is_over(make, redis_client):
    died = make()
    assert died.try_lock(0.3) is not None  # the holder never releases it
    begun = time.monotonic()
    with locked(make()):
        assert time.monotonic() - begun < 10
    assert not redis_client.exists(LEASE)


def test_a_holder_that_lost_its_lease_does_not_release_the_lease_of_the_next(make, redis_client):
    lost = make().try_lock(0.05)
    with locked(make()):
        lost.__exit__(None, None, None)
        assert redis_client.exists(LEASE)
    assert not redis_client.exists(LEASE)


def test_threads_of_one_storage_take_turns_even_when_the_lease_has_lapsed(make, redis_client):
    storage = make()
    with storage.try_lock(0.05):
        until(lambda: not redis_client.exists(LEASE))
        assert storage.try_lock(60) is None


class LosesAnswers:
    """A client that loses answers: Redis executes the commands, and the client gets an error."""

    def __init__(self, client: redis.Redis, losses: int = 1) -> None:
        self._client = client
        self.losses = losses

    def execute_command(self, *arguments: object) -> object:
        return self._client.execute_command(*arguments)

    def get(self, key: str) -> object:
        return self._client.get(key)

    def eval(self, *arguments: object) -> object:
        answer = self._client.eval(*arguments)
        if self.losses:
            self.losses -= 1
            raise redis.TimeoutError("Timeout reading from socket")
        return answer


def test_a_lease_whose_answer_was_lost_is_released(make, redis_client):
    storage = RedisStorage(LosesAnswers(redis_client), key=KEY)
    with pytest.raises(StorageError, match="TimeoutError"):
        storage.try_lock(60)
    assert not redis_client.exists(LEASE)
    with make().try_lock(60):
        pass


def test_a_lease_whose_answer_was_lost_and_that_cannot_be_released_is_taken_at_the_next_try(make, redis_client):
    client = LosesAnswers(redis_client)
    client.eval = lambda *_: take_in_vain(client)  # type: ignore[method-assign]
    storage = RedisStorage(client, key=KEY)
    with pytest.raises(StorageError):
        storage.try_lock(60)
    redis_client.set(LEASE, storage._owner, px=60_000)  # Redis executed the lost command later
    del client.eval
    client.losses = 0
    with storage.try_lock(60):
        assert make().try_lock(60) is None
    assert not redis_client.exists(LEASE)


def take_in_vain(_: object) -> object:
    raise redis.ConnectionError("Connection lost")


def test_guarantee_1_a_refresh_that_got_the_lease_but_lost_the_answer_is_made_at_the_next_attempt(redis_client, clock):
    asked = []
    client = LosesAnswers(redis_client)
    auth = Reauth(lambda token: asked.append(token) or NEW, storage=RedisStorage(client, key=KEY), clock=clock)
    with pytest.raises(RefreshError):
        auth.get_token()
    clock.advance(1)
    assert auth.get_token() == NEW
    auth.close()
    assert len(asked) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_does_not_own_the_lease_of_its_parent(make, redis_client):
    storage = make()
    with locked(storage):
        child = os.fork()
        if not child:  # pragma: no cover - the child ends without releasing the lease
            try:
                os._exit(1 if storage.try_lock(60) else 0)
            finally:
                os._exit(3)
        assert os.waitpid(child, 0)[1] == 0
        assert redis_client.exists(LEASE)


# Connections.


def test_guarantee_2_a_holder_saves_though_others_wait_on_the_one_connection_of_their_client(redis_server, clock):
    asked, answer = threading.Event(), threading.Event()

    def refresh(_: Token) -> Token:
        asked.set()
        assert answer.wait(30)
        return NEW

    with redis_server.client(max_connections=1) as client:
        auths = [Reauth(refresh, storage=RedisStorage(client, key=KEY), clock=clock) for _ in range(2)]
        failures = []
        auths[0].store.subscribe(lambda _, action: failures.append(action) if isinstance(action, SaveFailed) else None)
        got = []
        threads = [threading.Thread(target=lambda auth=auth: got.append(auth.get_token())) for auth in auths]
        threads[0].start()
        assert asked.wait(30)
        with redis_server.client() as watcher:
            watcher.config_resetstat()
            threads[1].start()
            # the second one waits
            until(lambda: watcher.info("commandstats").get("cmdstat_get", {}).get("calls", 0) >= 5)
        answer.set()
        for thread in threads:
            thread.join()
        for auth in auths:
            auth.close()
        assert got == [NEW, NEW]
        assert failures == []
        assert not client.exists(LEASE)


def test_guarantee_2_users_that_renew_at_one_moment_share_the_connections_of_one_client(redis_server):
    users = 300

    def refresh(token: Token) -> Token:
        return Token("new", refresh_token=f"{token.refresh_token} new", expires_in=3600)

    with redis_server.client(max_connections=5) as client:
        auths = [
            Reauth(refresh, token=Token(refresh_token=f"{user}"), storage=RedisStorage(client, key=f"user:{user}"))
            for user in range(users)
        ]
        gate, errors = threading.Event(), []

        def get(auth: Reauth) -> None:
            gate.wait(30)
            try:
                auth.get_token()
            except Exception as error:  # noqa: BLE001 - it is counted
                errors.append(error)

        threads = [threading.Thread(target=get, args=(auth,)) for auth in auths]
        for thread in threads:
            thread.start()
        gate.set()
        for thread in threads:
            thread.join()
        for auth in auths:
            auth.close()
        assert errors == []
        held = [RedisStorage(client, key=f"user:{user}").load() for user in range(users)]
        assert [token.refresh_token for token in held] == [f"{user} new" for user in range(users)]
        assert client.keys("*:lock") == []


@pytest.mark.parametrize("error", [redis.ConnectionError("Too many connections"), redis.ConnectionError("Gone")])
def test_only_a_connection_of_a_pool_is_waited_for(redis_client, monkeypatch, error):
    storage, failures = RedisStorage(redis_client, key=KEY), [error, error]
    get = redis_client.get

    def get_in_the_end(key: str) -> object:
        if failures:
            raise failures.pop()
        return get(key)

    monkeypatch.setattr(redis_client, "get", get_in_the_end)
    if "many" in str(error):
        assert storage.load() is None
    else:
        with pytest.raises(StorageError):
            storage.load()


def test_only_the_token_is_left_in_redis(make, redis_client):
    save(make(), NEW)
    with make().try_lock(0.2):
        pass
    assert redis_client.keys() == [KEY.encode()]


# Saving after the lease was lost.


def lose_lease(client: redis.Redis) -> None:
    client.delete(LEASE)


def test_guarantee_1_who_lost_its_lease_does_not_save_over_a_newer_token(make, redis_client):
    save(make(), OLD)
    late, other = make(), make()
    with locked(late):
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
    with locked(late):
        assert late.load() == OLD
        lose_lease(redis_client)
        with locked(other):
            assert other.load() == OLD
            late.save(NEW)  # its refresh token is the newest one
            assert make().load() == NEW
            other.save(NEWER)  # it is the newest until the holder of the lease saves
    assert make().load() == NEWER


@pytest.mark.parametrize("before", [None, OLD])
def test_who_lost_its_lease_does_not_undo_a_sign_out(make, redis_client, before):
    if before is not None:
        save(make(), before)
    late, other = make(), make()
    with locked(late):
        assert late.load() == before
        lose_lease(redis_client)
        with locked(other):
            other.clear()
        with pytest.raises(StorageError, match="lost its lease"):
            late.save(NEW)
    assert make().load() is None


def test_who_lost_its_lease_does_not_save_over_a_sign_in_with_the_same_history(make, redis_client):
    save(make(), OLD)
    late, other = make(), make()
    with locked(late):
        late.load()
        lose_lease(redis_client)
        with locked(other):
            other.clear()
            other.save(NEWER)
        with pytest.raises(StorageError, match="lost its lease"):
            late.save(NEW)
    assert make().load() == NEWER


def test_guarantee_1_who_lost_its_lease_does_not_clear_a_fresh_sign_in(make, redis_client):
    save(make(), OLD)
    late = make()
    with locked(late):
        lose_lease(redis_client)  # the process was stopped for longer than the lease
        save(make(), NEWER)
        with pytest.raises(StorageError, match="lost its lease"):
            late.clear()
    assert make().load() == NEWER


def test_who_lost_its_lease_still_clears_what_was_held_when_it_had_it(make, redis_client):
    save(make(), OLD)
    late = make()
    with locked(late):
        lose_lease(redis_client)
        with locked(make()):  # another process holds the lease, and has not saved yet
            late.clear()
    assert make().load() is None


def test_guarantee_1_what_another_thread_reads_meanwhile_does_not_count_as_known(make, redis_client):
    save(make(), OLD)
    late = make()
    with locked(late):
        assert late.load() == OLD
        lose_lease(redis_client)
        save(make(), NEWER)
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(late.load).result() == NEWER  # the application checks the storage from another thread
        for write in (lambda: late.save(NEW), late.clear):
            with pytest.raises(StorageError, match="lost its lease"):
                write()
    assert make().load() == NEWER


def test_a_save_that_is_sent_again_after_a_lost_answer_is_no_conflict(make, redis_client, monkeypatch):
    save(make(), OLD)
    storage = make()
    evaluate = storage._client.eval

    def evaluate_twice(*arguments: object) -> object:
        evaluate(*arguments)
        lose_lease(redis_client)
        return evaluate(*arguments)

    with locked(storage):
        storage.load()
        with monkeypatch.context() as patch:
            patch.setattr(storage._client, "eval", evaluate_twice)
            storage.save(NEW)
    assert make().load() == NEW


def test_who_saves_twice_under_one_lock_saves_over_its_own(make, redis_client):
    storage = make()
    with locked(storage):
        assert storage.load() is None
        storage.save(OLD)
        lose_lease(redis_client)
        storage.save(NEW)
    assert make().load() == NEW


# Redis cannot be reached, restarts, or hangs.


def test_redis_that_cannot_be_reached_is_an_immediate_error_that_says_so(make, redis_server):
    storage = make()
    redis_server.stop()
    try:
        begun = time.monotonic()
        for use in (storage.load, lambda: storage.save(NEW), storage.clear, lambda: storage.try_lock(60)):
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


def test_redis_that_hangs_is_an_error_after_the_timeout_of_the_client(make, redis_server):
    storage = make(socket_timeout=0.2)
    storage.load()
    redis_server.freeze()
    try:
        for use in (storage.load, lambda: storage.try_lock(60)):
            with pytest.raises(StorageError, match="TimeoutError"):
                use()
    finally:
        redis_server.thaw()
    with locked(storage):
        storage.save(NEW)


def test_redis_that_stops_while_a_refresh_waits_for_the_lease_fails_that_refresh_immediately(make, redis_server, clock):
    errors = []
    auth = Reauth(lambda _: NEW, storage=make(), clock=clock)

    def wait() -> None:
        try:
            auth.get_token()
        except RefreshError as error:
            errors.append(error)

    holder = make().try_lock(60)
    thread = threading.Thread(target=wait)
    thread.start()
    redis_server.stop()
    try:
        thread.join()  # the clock does not move, so the error is not about a deadline
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
    with caplog.at_level(logging.WARNING), locked(storage):
        assert [storage.load() for _ in range(3)] == [OLD] * 3
        storage.save(NEW)
    assert caplog.text.count("lost its data") == 1
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
    with locked(one):
        one.clear()
    assert (one.load(), other.load(), make().load()) == (None, None, None)
    assert 29 * 86_400 < redis_client.ttl(KEY) <= 30 * 86_400
    redis_client.delete(KEY)  # the 30 days have passed
    assert (one.load(), other.load()) == (None, None)
    save(one, OLD)
    with locked(one):
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
        redis_server.start()  # it starts without data
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


# The arguments.


def test_an_async_client_is_refused(redis_server):
    with pytest.raises(TypeError, match="not an async client"):
        RedisStorage(redis.asyncio.Redis(unix_socket_path=redis_server.socket), key=KEY)


def test_a_url_is_refused_and_the_way_to_write_it_is_said():
    with pytest.raises(TypeError, match=r"RedisStorage\.from_url\(url, key=") as caught:
        RedisStorage("redis://:s3cret@localhost", key=KEY)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("client", [redis.Redis, None, object(), {}])
def test_an_object_that_is_not_a_client_is_refused(client):
    with pytest.raises(TypeError, match=r"takes a redis\.Redis"):
        RedisStorage(client, key=KEY)


def test_a_storage_from_a_url_has_a_client_with_a_timeout_unless_another_is_given(redis_server):
    for settings, timeout in (({}, 5.0), ({"socket_timeout": 1.5}, 1.5)):
        storage = RedisStorage.from_url(redis_server.url, key=KEY, **settings)
        save(storage, NEW)
        assert storage.load() == NEW
        assert storage._client.connection_pool.connection_kwargs["socket_timeout"] == timeout
        storage._client.close()


def test_without_redis_it_says_which_extra_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r'pip install "httpx-reauth\[redis\]"'):
        RedisStorage.from_url("redis://localhost", key=KEY)


def test_its_repr_shows_only_its_key_and_it_refuses_to_be_pickled(make):
    storage = make(password="client-secret")
    assert repr(storage) == "RedisStorage(key='app:token:alice')"
    with pytest.raises(TypeError):
        pickle.dumps(storage)
