"""Tests of `disconnect`: the user is signed out, also in the storage, and then leaves the pool."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from typing import Any

import anyio
import pytest
from pool_service import LIMIT, BrokenStorage, Service, in_threads, never

from httpx_reauth import Reauth, ReauthPool, SignedIn, SignedOut, SignInRequired, StorageError, Token, TokenStore
from httpx_reauth.storage import MemoryStorage


def not_signed_in(token: Token) -> Token:
    raise SignInRequired("there is no refresh token")


def by_del(pool: ReauthPool[str, Any], user: str) -> None:
    del pool[user]


def by_name(pool: ReauthPool[str, Any], user: str) -> None:
    pool.disconnect(user)


def by_await(pool: ReauthPool[str, Any], user: str) -> None:
    anyio.run(pool.adisconnect, user)


@pytest.fixture(params=[by_del, by_name, by_await], ids=["del", "disconnect", "adisconnect"])
def disconnect(request: pytest.FixtureRequest) -> Callable[[ReauthPool[str, Any], str], None]:
    return request.param


def test_del_signs_the_user_out_also_in_the_storage_and_removes_the_object():
    service = Service()
    service.connect("a", Token("secret", refresh_token="r"))
    pool = service.pool()
    held = pool["a"]
    assert held.get_token().access_token == "secret"
    del pool["a"]
    assert service.storages["a"].load() is None
    assert (len(pool), "a" in pool) == (0, False)
    assert held.store.state.token is None
    assert pool["a"] is not held
    assert service.made["a"] == 2


def test_del_clears_the_storage_of_a_user_whose_object_has_left():
    service = Service()
    service.connect("a", Token("secret", refresh_token="r"))
    pool = service.pool(maxsize=1)
    pool["a"], pool["b"]
    assert "a" not in pool
    del pool["a"]
    assert service.storages["a"].load() is None


def test_del_of_a_user_that_make_does_not_know_raises_what_make_raises():
    known = {"a": Token("secret")}
    pool = ReauthPool(lambda user: Reauth(never, token=known[user]), maxsize=2)
    with pytest.raises(KeyError):
        del pool["nobody"]
    assert len(pool) == 0


def test_del_that_cannot_clear_the_storage_says_so_and_may_be_tried_again():
    service = Service()
    storage = service.storages["a"] = BrokenStorage()
    pool = service.pool()
    with pytest.raises(StorageError):
        del pool["a"]
    assert "a" in pool
    storage.is_broken = False
    del pool["a"]
    assert "a" not in pool
    assert service.made["a"] == 1


@pytest.mark.anyio
async def test_adisconnect_leaves_the_event_loop_free_while_the_storage_is_cleared():
    clearing, go = threading.Event(), threading.Event()

    class Slow(MemoryStorage):
        def clear(self) -> None:
            clearing.set()
            assert go.wait(LIMIT)
            super().clear()

    service = Service()
    service.storages["a"] = Slow()
    service.connect("a", Token("secret"))
    pool = service.pool()
    held = pool["a"]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool.adisconnect, "a")
        await anyio.wait_all_tasks_blocked()  # `adisconnect` waits, and this task runs
        assert clearing.wait(LIMIT)
        assert pool["a"] is held, "until that is done, it is the one"
        go.set()
    assert service.storages["a"].load() is None
    assert "a" not in pool


def test_guarantee_13_whoever_waits_while_its_user_is_disconnected_is_asked_to_sign_in():
    begun, go = threading.Event(), threading.Event()

    def refresh(token: Token) -> Token:
        begun.set()
        assert go.wait(LIMIT)
        return Token("too late", expires_in=3600)

    service = Service(refresh)
    pool = service.pool()
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(pool["a"].get_token)
        assert begun.wait(LIMIT)
        auth = pool["a"]
        cleared = threads.submit(lambda: None)
        disconnecting = threading.Thread(target=pool.__delitem__, args=("a",))
        disconnecting.start()
        with pytest.raises(SignInRequired):
            asking.result(LIMIT)
        cleared.result(LIMIT)
        go.set()
        disconnecting.join(LIMIT)
        assert not disconnecting.is_alive()
    assert service.storages["a"].load() is None
    assert auth.store.state.token is None


def test_two_threads_that_disconnect_at_the_same_time_do_no_harm():
    service = Service()
    pool = service.pool()
    for _ in range(20):
        service.connect("a", Token("secret"))
        assert in_threads(4, lambda _: pool.__delitem__("a")) == [None] * 4
        assert service.storages["a"].load() is None


def test_a_disconnected_user_stays_so_when_a_request_gets_the_lock_of_the_storage_first():
    """The locks of files and leases have no queue: a later request may get the lock first."""
    waiting, go = threading.Event(), threading.Event()

    class Unfair(MemoryStorage):
        is_first = False

        def try_lock(self, lease: float) -> AbstractContextManager[object] | None:
            if self.is_first:
                self.is_first = False
                waiting.set()
                assert go.wait(LIMIT)
            return super().try_lock(lease)

    service = Service(not_signed_in)
    storage = service.storages["a"] = Unfair()
    service.connect("a", Token("secret", expires_in=3600, expires_at=service.clock.time() + 3600))
    pool = service.pool()
    held = pool["a"]
    held.get_token()
    storage.is_first = True
    with ThreadPoolExecutor(1) as threads:
        disconnecting = threads.submit(pool.__delitem__, "a")
        assert waiting.wait(LIMIT)
        with suppress(SignInRequired):
            held.get_token()
        go.set()
        disconnecting.result(LIMIT)
    assert storage.load() is None
    with pytest.raises(SignInRequired):
        held.get_token()


# A sign-in during a disconnect.


def test_a_sign_in_between_the_sign_out_and_the_forgetting_keeps_the_object(disconnect):
    service = Service()
    service.connect("a", Token("secret"))
    pool = service.pool()
    auth = pool["a"]

    def sign_in_again(state: Any, action: Any) -> None:
        if isinstance(action, SignedOut):
            pool["a"].store.dispatch(SignedIn(Token("new")))

    auth.get_token()
    auth.store.subscribe(sign_in_again)
    disconnect(pool, "a")
    assert pool["a"] is auth
    assert pool["a"].get_token().access_token == "new"
    assert service.made["a"] == 1


def test_a_sign_in_while_the_storage_is_being_cleared_keeps_the_object():
    clearing, go = threading.Event(), threading.Event()

    class Slow(MemoryStorage):
        def clear(self) -> None:
            clearing.set()
            assert go.wait(LIMIT)
            super().clear()

    service = Service()
    service.storages["a"] = Slow()
    service.connect("a", Token("secret"))
    pool = service.pool()
    auth = pool["a"]
    auth.get_token()
    with ThreadPoolExecutor(2) as threads:
        disconnecting = threads.submit(pool.disconnect, "a")
        assert clearing.wait(LIMIT)
        signing_in = threads.submit(lambda: pool["a"].sign_in(Token("new")))
        while auth.store.state.token is None:
            threading.Event().wait(0.001)
        go.set()
        disconnecting.result(LIMIT)
        signing_in.result(LIMIT)
    assert pool["a"] is auth
    assert service.storages["a"].load().access_token == "new"
    assert service.made["a"] == 1


def test_a_removed_object_that_its_holder_signs_in_is_the_users_object_again():
    service = Service()
    pool = service.pool()
    held = pool["a"]
    del pool["a"]
    assert "a" not in pool
    held.sign_in(Token("new"))
    assert pool["a"] is held


def test_the_object_that_was_made_after_another_disconnect_is_not_forgotten_by_the_first(disconnect):
    pool: ReauthPool[str, Any] = ReauthPool(lambda user: Reauth(never, token=Token("secret")), maxsize=2)
    first = pool["a"]
    others: list[Any] = []

    def disconnect_and_connect(state: Any, action: Any) -> None:
        if isinstance(action, SignedOut):
            del pool["a"]
            others.append(pool["a"])

    first.store.subscribe(disconnect_and_connect)
    disconnect(pool, "a")
    assert others == [pool["a"]]
    assert pool["a"] is not first
    assert pool["a"].get_token().access_token == "secret"


def test_a_user_whose_sign_out_the_storage_does_not_know_yet_does_not_leave_and_is_not_signed_in_again():
    service = Service(not_signed_in)
    storage = service.storages["a"] = BrokenStorage()
    storage.is_broken = False
    service.connect("a", Token("secret"))
    pool = service.pool(maxsize=1)
    pool["a"].get_token()
    storage.is_broken = True
    with pytest.raises(StorageError):
        pool["a"].sign_out()
    for user in "bcdef":
        pool[user]
    storage.is_broken = False
    assert "a" in pool
    with pytest.raises(SignInRequired):
        pool["a"].get_token()
    pool.close()
    assert storage.load() is None
    assert service.made["a"] == 1


def test_a_holder_whose_sign_out_the_storage_does_not_know_yet_brings_the_object_back():
    service = Service(not_signed_in)
    storage = service.storages["a"] = BrokenStorage()
    storage.is_broken = False
    service.connect("a", Token("secret"))
    pool = service.pool(maxsize=1)
    held = pool["a"]
    held.get_token()
    pool["b"]
    storage.is_broken = True
    with pytest.raises(StorageError):
        held.sign_out()
    del held
    storage.is_broken = False
    with pytest.raises(SignInRequired):
        pool["a"].get_token()


def calls_of(function: Callable[[], Any]) -> int:
    """Return how many Python functions `function` calls."""
    calls = 0

    def count(frame: Any, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


def test_a_make_that_returns_one_object_again_and_again_does_not_slow_it_down():
    cached = Reauth(never)
    pool: ReauthPool[str, Any] = ReauthPool(lambda user: cached, maxsize=1)
    calls = []
    for _ in range(100):
        pool["a"].sign_in(Token("new"))
        calls.append(calls_of(lambda: cached.sign_in(Token("newer"))))
        del pool["a"]
    assert calls == [calls[0]] * 100


def test_a_store_that_outlives_its_objects_is_not_slowed_down_by_them():
    store = TokenStore(Token("secret"))
    pool: ReauthPool[str, Any] = ReauthPool(lambda user: Reauth(never, store=store if user == "a" else None), maxsize=1)
    calls = []
    for _ in range(100):
        pool["a"].get_token()
        calls.append(calls_of(lambda: store.dispatch(SignedIn(Token("new")))))
        pool["b"]
        assert "a" not in pool
    assert calls == [calls[0]] * 100
