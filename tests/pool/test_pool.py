"""Tests of a pool: it makes one object for each user, and keeps it while it is needed."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import anyio
import pytest
from pool_service import LIMIT, BrokenStorage, Service, in_threads, never
from steps import at_step, interrupt

import httpx_reauth
from httpx_reauth import (
    Reauth,
    ReauthPool,
    SaveFailed,
    SignedIn,
    StorageError,
    Token,
    TokenStore,
)
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import AuthorizationServer, ManualClock

# One object for each key.


def test_a_key_has_one_object_however_often_it_is_asked_for():
    service = Service()
    pool = service.pool()
    assert pool["user-42"] is pool["user-42"]
    assert pool["user-43"] is not pool["user-42"]
    assert service.made == {"user-42": 1, "user-43": 1}


def test_guarantee_1_fifty_threads_that_make_an_object_at_the_same_time_get_the_first_registered_one():
    all_make, made = threading.Barrier(50), []

    def make(user: str) -> Any:
        all_make.wait(LIMIT)
        auth = Reauth(never)
        made.append(weakref.ref(auth))
        return auth

    pool = ReauthPool(make, maxsize=10)
    objects = in_threads(50, lambda _: pool["user-42"])
    assert len(set(map(id, objects))) == 1
    assert len(made) == 50
    assert [one() for one in made if one() is not None] == [pool["user-42"]], "the others are gone"


def test_while_an_object_is_made_all_others_are_made_and_found():
    service = Service()
    begun, go = threading.Event(), threading.Event()

    def make(user: str) -> Any:
        if user == "slow":
            begun.set()
            assert go.wait(LIMIT)
        return service.make(user)

    pool = ReauthPool(make, maxsize=10)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(lambda: pool["slow"])
        assert begun.wait(LIMIT)
        assert pool["quick"] is pool["quick"]
        assert "slow" not in pool
        go.set()
        assert slow.result(LIMIT) is pool["slow"]


def test_two_threads_whose_make_asks_for_the_object_of_the_other_do_not_wait_for_each_other():
    service = Service()
    both, thread = threading.Barrier(2), threading.local()
    partner = {"a": "b", "b": "a"}

    def make(user: str) -> Any:
        if not hasattr(thread, "asks"):
            thread.asks = True
            both.wait(LIMIT)
            pool[partner[user]]
        return service.make(user)

    pool: ReauthPool[str, Any] = ReauthPool(make, maxsize=10)
    a, b = in_threads(2, lambda number: pool["ab"[number]])
    assert (a, b) == (pool["a"], pool["b"])


@pytest.mark.anyio
async def test_guarantee_1_fifty_tasks_that_ask_at_the_same_time_get_one_object_and_one_refresh(library, server, clock):
    site = library.at(server)
    service = Service(site.coroutine, library.Reauth, clock)
    service.connect("user-42", server.issue(lifetime=0))
    pool = service.pool()
    answers = []

    async def ask() -> None:
        async with site.async_client() as client:  # a new client for each request
            answers.append(await client.get("/me", auth=pool["user-42"]))

    async with pool, anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(ask)
    assert [answer.status_code for answer in answers] == [200] * 50
    assert (server.token_requests, service.made) == (1, {"user-42": 1})


@pytest.mark.anyio
async def test_one_client_serves_many_users(library, server, clock):
    site = library.at(server)
    service = Service(site.function, library.Reauth, clock)
    users = [f"user-{number}" for number in range(5)]
    for user in users:
        service.connect(user, server.issue(lifetime=0))
    pool = service.pool(maxsize=2)
    async with pool, site.async_client() as client:
        for _ in range(3):
            for user in users:
                assert (await client.get("/me", auth=pool[user])).status_code == 200
    with site.client() as client:
        for user in users:
            assert client.get("/me", auth=pool[user]).status_code == 200
    assert server.token_requests == 5, "whoever has left finds its token again"
    assert service.made["user-0"] > 1
    assert len(set(server.authorizations("/me"))) == 5


def test_what_make_raises_goes_to_whoever_asked_and_leaves_nothing_behind():
    service = Service()
    failing = [True]

    def make(user: str) -> Any:
        if failing.pop():
            raise LookupError("no such user")
        return service.make(user)

    pool = ReauthPool(make, maxsize=2)
    with pytest.raises(LookupError):
        pool["user-42"]
    assert (len(pool), "user-42" in pool) == (0, False)
    failing.append(False)
    assert pool["user-42"] is pool["user-42"]


def test_an_interrupt_during_make_or_between_any_two_lines_of_the_pool_leaves_a_pool_that_works():
    service = Service()
    step, was_reached = 0, True
    while was_reached:
        step += 1
        pool = service.pool()
        was_reached = True
        with suppress(KeyboardInterrupt):
            was_reached = at_step(
                step, lambda pool=pool: pool["a"], interrupt, of="line", file=inspect.getfile(ReauthPool.__getitem__)
            )
        assert pool["a"] is pool["a"], f"before line {step}"
        pool["b"], pool["c"]
        assert sorted(pool) == ["b", "c"], f"before line {step}"
    assert step > 10


def test_an_interrupt_of_make_itself_goes_to_the_caller_and_the_next_one_makes_the_object():
    service = Service()
    interrupts = [KeyboardInterrupt()]

    def make(user: str) -> Any:
        if interrupts:
            raise interrupts.pop()
        return service.make(user)

    pool = ReauthPool(make, maxsize=2)
    with pytest.raises(KeyboardInterrupt):
        pool["a"]
    assert pool["a"] is pool["a"]


def test_a_make_that_asks_for_its_own_object_is_an_error_and_no_deadlock():
    service = Service()
    is_circle = [True]

    def make(user: str) -> Any:
        return pool[user] if is_circle else service.make(user)

    pool: ReauthPool[str, Any] = ReauthPool(make, maxsize=2)
    with pytest.raises(RecursionError):
        pool["user-42"]
    assert len(pool) == 0
    is_circle.clear()
    assert pool["user-42"] is pool["user-42"]


def test_a_make_may_ask_the_pool_for_another_object():
    service = Service()
    pool: ReauthPool[str, Any] = ReauthPool(
        lambda user: pool["boss"] if user == "deputy" else service.make(user), maxsize=2
    )
    assert pool["deputy"] is pool["boss"]


def test_a_make_that_returns_something_else_is_an_error_that_says_so():
    pool: Any = ReauthPool(lambda user: "no auth", maxsize=2)
    with pytest.raises(TypeError, match="must return a Reauth, not str"):
        pool["user-42"]
    assert len(pool) == 0


@pytest.mark.parametrize("make", [Reauth(never), None, "user"])
def test_a_make_that_is_no_function_is_refused_with_what_to_write(make: Any):
    with pytest.raises(TypeError, match="return Reauth"):
        ReauthPool(make, maxsize=1)


def test_an_async_make_is_refused_with_what_to_write():
    async def make(user: str) -> Reauth:
        return Reauth(never)

    with pytest.raises(TypeError, match="return Reauth"):
        ReauthPool(make, maxsize=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("maxsize", [0, -1])
def test_a_pool_without_room_is_refused(maxsize: int):
    with pytest.raises(ValueError, match="1 or more"):
        ReauthPool(Service().make, maxsize=maxsize)


# Objects that leave the pool, and objects that stay.


def test_the_least_recently_used_objects_leave():
    pool = Service().pool(maxsize=2)
    pool["a"], pool["b"]
    pool["a"]
    pool["c"]
    assert sorted(pool) == ["a", "c"]
    assert (len(pool), "b" in pool) == (2, False)


@pytest.mark.parametrize("maxsize", ["1000", None, 1.5, True], ids=repr)
def test_a_maxsize_that_is_no_whole_number_is_a_type_error(maxsize):
    with pytest.raises(TypeError, match="maxsize must be a whole number"):
        ReauthPool(lambda _: None, maxsize=maxsize)


def test_a_pool_of_one_serves_all():
    service = Service()
    pool = service.pool(maxsize=1)
    for user in "abcabc":
        pool[user]
        assert list(pool) == [user]
    assert service.made == {"a": 2, "b": 2, "c": 2}


def test_an_object_that_has_left_is_not_kept_alive_by_the_pool_nor_by_the_garbage_collector():
    service = Service()
    pool = service.pool(maxsize=10)
    gc.disable()
    try:
        for number in range(1000):
            pool[f"user-{number}"]
        assert len(pool) == 10
    finally:
        gc.enable()


def test_guarantee_1_an_object_that_has_left_but_is_held_is_found_again():
    service = Service()
    pool = service.pool(maxsize=2)
    held = pool["a"]
    for user in "bcdef":
        pool[user]
    assert "a" in pool
    assert pool["a"] is held
    assert service.made["a"] == 1
    del held
    for user in "bcdef":
        pool[user]
    assert "a" not in pool


def test_guarantee_2_an_object_with_a_running_refresh_does_not_leave():
    begun, go = threading.Event(), threading.Event()

    def refresh(token: Token) -> Token:
        begun.set()
        assert go.wait(LIMIT)
        return Token("new", refresh_token="r2", expires_in=3600)

    service = Service(refresh)
    service.connect("busy", Token("old", refresh_token="r1", expires_in=3600, expires_at=service.clock.time() + 3600))
    pool = service.pool(maxsize=1)
    pool["busy"].get_token()
    service.clock.advance(3590)
    pool["busy"].get_token()  # this uses the old token, and starts a renewal in the background
    assert begun.wait(LIMIT)
    for user in "bcdef":
        pool[user]
    assert sorted(pool) == ["busy", "f"]
    state = pool["busy"].store.state
    assert state.status == "pending"
    go.set()
    pool.close()
    assert pool["busy"].store.state.token.access_token == "new"
    assert service.made["busy"] == 1
    pool["g"]
    assert list(pool) == ["g"]


def test_guarantee_2_an_object_that_has_left_comes_back_when_its_holder_starts_a_refresh():
    begun, go = threading.Event(), threading.Event()

    def refresh(token: Token) -> Token:
        begun.set()
        assert go.wait(LIMIT)
        return Token("new", refresh_token="r2", expires_in=3600)

    service = Service(refresh)
    service.connect("a", Token("old", refresh_token="r1", expires_in=3600, expires_at=service.clock.time() + 3600))
    pool = service.pool(maxsize=1)
    held = pool["a"]
    held.get_token()
    pool["b"]
    service.clock.advance(3590)
    held.get_token()
    assert begun.wait(LIMIT)
    del held  # the refresh runs on, and no code holds its object
    pool["c"]
    assert "a" in pool
    assert pool["a"].store.state.status == "pending"
    go.set()
    pool.close()
    assert service.made["a"] == 1


def test_guarantee_1_an_object_that_has_left_without_a_token_comes_back_when_its_holder_starts_a_refresh():
    begun, go, asked = threading.Event(), threading.Event(), []

    def log_in(token: Token) -> Token:
        asked.append(token)
        begun.set()
        assert go.wait(LIMIT)
        return Token("new", expires_in=3600)

    async def request_is_cancelled() -> None:
        held = pool["a"]
        pool["b"]
        request = asyncio.create_task(held.aget_token())
        del held
        assert await asyncio.to_thread(begun.wait, LIMIT)
        request.cancel()
        await asyncio.wait([request])

    pool = ReauthPool(lambda user: Reauth(log_in), maxsize=1)
    asyncio.run(request_is_cancelled())
    pool["c"]
    assert "a" in pool
    go.set()
    assert pool["a"].get_token().access_token == "new"
    assert len(asked) == 1


def test_when_its_refresh_is_over_there_is_room_again():
    go = threading.Event()

    def refresh(token: Token) -> Token:
        assert go.wait(LIMIT)
        return Token("new", expires_in=3600)

    service = Service(refresh)
    pool = service.pool(maxsize=2)
    users = [f"user-{number}" for number in range(8)]

    def ask(number: int) -> str:
        return pool[users[number]].get_token().access_token

    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(ask, number) for number in range(8)]
        for user in users:
            while user not in pool or pool[user].store.state.status != "pending":
                threading.Event().wait(0.001)
        assert len(pool) == 8
        go.set()
        assert [answer.result(LIMIT) for answer in answers] == ["new"] * 8
    pool.close()
    assert len(pool) == 2
    assert sum(service.made.values()) == 8


def test_guarantee_2_an_object_with_an_unsaved_token_stays_until_it_is_saved():
    service = Service()
    storage = service.storages["a"] = BrokenStorage()
    pool = service.pool(maxsize=1)
    told = []
    pool["a"].store.subscribe(lambda state, action: told.append(type(action)))
    with pytest.raises(StorageError):
        pool["a"].sign_in(Token("new", refresh_token="r", expires_in=3600))
    assert told == [SignedIn, SaveFailed]
    for user in "bcdef":
        pool[user]
    assert "a" in pool
    assert pool["a"].get_token().access_token == "new"
    storage.is_broken = False
    service.clock.advance(3600 / 2)
    pool["g"]  # the pool checks whether "a" could leave, and saves its token
    pool.close()
    assert storage.load() == pool["a"].store.state.token
    pool["h"]
    assert list(pool) == ["h"]


def test_one_use_of_a_pool_of_100_users_and_a_full_disk_starts_one_thread(monkeypatch):
    service = Service(storages={f"user-{number}": BrokenStorage() for number in range(100)})
    pool = service.pool(maxsize=1)
    for user in service.storages:
        with suppress(StorageError):
            pool[user].sign_in(Token("new", refresh_token="r", expires_in=36000))
    service.clock.advance(600.0)
    started: list[threading.Thread] = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (started.append(thread), start(thread))[1])
    pool["somebody else"]
    assert len(started) <= 2  # the thread that saves, and the thread that the exit waits for
    pool.close()
    assert len(pool) >= 100


def test_a_token_without_a_storage_does_not_keep_its_object():
    pool = ReauthPool(lambda user: Reauth(never), maxsize=1)
    pool["a"].sign_in(Token("new"))
    pool["b"]
    assert list(pool) == ["b"]


def test_an_object_whose_event_loop_was_closed_in_the_middle_of_a_refresh_may_leave():
    clock = ManualClock()

    async def refresh(token: Token) -> Token:
        asyncio.current_task()._log_destroy_pending = False
        await asyncio.sleep(LIMIT)
        raise AssertionError

    async def ask_and_leave_the_refresh_behind() -> None:
        assert (await pool["a"].aget_token()).access_token == "old"
        await asyncio.sleep(0)
        assert pool["a"].store.state.status == "pending"

    pool = ReauthPool(lambda user: Reauth(refresh, token=Token("old", expires_in=3600), clock=clock), maxsize=1)
    pool["a"]
    clock.advance(3590)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(ask_and_leave_the_refresh_behind())
        pool["b"]
        assert "a" in pool
    finally:
        loop.close()
    pool["c"]
    assert list(pool) == ["c"]


def test_a_pool_that_nobody_holds_is_gone_and_its_objects_work_on():
    service = Service(lambda token: Token("new", expires_in=3600))
    held = service.pool()["a"]
    assert held.get_token().access_token == "new"


# Closing.


def test_close_waits_for_every_refresh_under_way_and_cancels_none():
    go = threading.Event()
    begun = threading.Semaphore(0)

    def refresh(token: Token) -> Token:
        begun.release()
        assert go.wait(LIMIT)
        return Token("new", refresh_token="r", expires_in=3600)

    service = Service(refresh)
    users = [f"user-{number}" for number in range(70)]
    now = service.clock.time()
    for user in users:
        service.connect(user, Token("old", refresh_token="r", expires_in=3600, expires_at=now + 3600))
    with service.pool(maxsize=3) as pool:
        auths = [pool[user] for user in users]
        for auth in auths:
            auth.get_token()
        service.clock.advance(3590)
        for auth in auths:
            auth.get_token()
        for _ in users:
            assert begun.acquire(timeout=LIMIT)
        threading.Timer(0.05, go.set).start()
    assert {auth.store.state.token.access_token for auth in auths} == {"new"}
    assert pool[users[0]] is auths[0]


@pytest.mark.anyio
async def test_aclose_waits_for_refreshes_under_way_and_saves_what_is_unsaved():
    gate, begun = anyio.Event(), []

    async def refresh(token: Token) -> Token:
        begun.append(token)
        await gate.wait()
        return Token("new", refresh_token="r", expires_in=3600)

    service = Service(refresh)
    now = service.clock.time()
    service.connect("a", Token("old", refresh_token="r", expires_in=3600, expires_at=now + 3600))
    broken = service.storages["b"] = BrokenStorage()
    pool = service.pool(maxsize=2)
    with pytest.raises(StorageError):
        await pool["b"].asign_in(Token("signed-in", expires_in=36000))
    await pool["a"].aget_token()
    service.clock.advance(3590)
    await pool["a"].aget_token()
    await anyio.wait_all_tasks_blocked()
    broken.is_broken = False
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool.aclose)
        await anyio.wait_all_tasks_blocked()
        gate.set()
    assert service.storages["a"].load().access_token == "new"
    assert broken.load().access_token == "signed-in"
    await pool.aclose()  # everything is closed already


def test_close_without_a_running_refresh_returns_immediately():
    pool = Service().pool()
    pool["a"]
    pool.close()
    assert "a" in pool


def test_no_thread_when_idle():
    service = Service(lambda token: Token("new", expires_in=3600))
    before = threading.enumerate()
    with service.pool(maxsize=5) as pool:
        for number in range(20):
            pool[f"user-{number}"].get_token()
    for thread in set(threading.enumerate()) - set(before):  # threads of earlier tests may end meanwhile
        thread.join(LIMIT)
        assert not thread.is_alive()


# A pool as an ordinary object.


def test_iterating_is_a_snapshot():
    pool = Service().pool(maxsize=3)
    pool["a"], pool["b"]
    seen = []
    for user in pool:
        seen.append(user)
        pool["c"]
    assert seen == ["a", "b"]


def test_guarantee_11_repr_shows_no_key_and_no_secret_and_the_pool_refuses_to_be_pickled():
    service = Service()
    service.connect("alice@example.com", Token("secret-0451"))
    pool = service.pool()
    pool["alice@example.com"].get_token()
    assert repr(pool) == "ReauthPool(1 alive, maxsize=2)"
    with pytest.raises(TypeError):
        pickle.dumps(pool)
    assert copy.deepcopy(pool) is pool


def test_keys_may_be_any_hashable_value():
    pool = ReauthPool(lambda key: Reauth(never), maxsize=2)
    assert pool["tenant", 7] is pool["tenant", 7]
    with pytest.raises(TypeError):
        pool[[]]  # type: ignore[index]


def test_importing_the_package_does_not_import_the_pool_until_it_is_wanted():
    code = (
        "import sys, httpx_reauth; assert 'httpx_reauth._pool' not in sys.modules;"
        "from httpx_reauth import ReauthPool; assert ReauthPool is httpx_reauth.ReauthPool;"
        "assert 'httpx_reauth._pool' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_name_that_the_package_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'ReauthPoool'"):
        httpx_reauth.ReauthPoool  # noqa: B018


def test_users_come_and_go_in_many_threads_and_no_two_objects_of_one_are_in_use():
    service = Service(lambda token: Token("new", expires_in=3600))
    pool = service.pool(maxsize=3)
    in_use: dict[str, tuple[int, int]] = {}
    lock = threading.Lock()

    def work(number: int) -> None:
        for turn in range(200):
            user = f"user-{(number * 7 + turn * 3) % 8}"
            auth = pool[user]
            with lock:
                known, count = in_use.get(user, (id(auth), 0))
                assert known == id(auth), "two live objects for one user"
                in_use[user] = (known, count + 1)
            auth.get_token()
            with lock:
                known, count = in_use[user]
                if count == 1:
                    del in_use[user]
                else:
                    in_use[user] = (known, count - 1)
            del auth

    assert in_threads(8, work) == [None] * 8
    pool.close()
    pool["one more"]
    assert len(pool) <= 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_an_object_that_was_being_made_when_the_process_was_forked_is_made_in_the_child():
    service = Service()
    begun, go = threading.Event(), threading.Event()
    parent = os.getpid()

    def make(user: str) -> Any:
        begun.set()
        if os.getpid() == parent:
            assert go.wait(LIMIT)
        return service.make(user)

    pool = ReauthPool(make, maxsize=2)
    with ThreadPoolExecutor(1) as threads:
        making = threads.submit(lambda: pool["a"])
        assert begun.wait(LIMIT)
        child = os.fork()
        if not child:
            signal.alarm(int(LIMIT))  # ends the test if it hangs
            status = 1
            with suppress(BaseException):
                status = 0 if pool["a"] is pool["a"] else 2
            os._exit(status)
        _, status = os.waitpid(child, 0)
        go.set()
        assert making.result(LIMIT) is pool["a"]
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_store_that_the_user_makes_is_watched_as_well():
    stores = {"a": TokenStore(Token("secret"))}
    pool = ReauthPool(lambda user: Reauth(never, store=stores.get(user)), maxsize=1)
    held = pool["a"]
    pool["b"]
    stores["a"].dispatch(SignedIn(Token("another")))  # the object is used, so it comes back
    del held
    assert "a" in pool
    assert pool["a"].get_token().access_token == "another"


def test_the_server_sees_one_refresh_for_each_user_of_a_busy_service(server: AuthorizationServer, clock, library):
    site = library.at(server)
    service = Service(site.function, library.Reauth, clock)
    for number in range(6):
        service.connect(f"user-{number}", server.issue(lifetime=0))
    pool = service.pool(maxsize=2)
    with site.client() as client:
        statuses = in_threads(
            12, lambda number: [client.get("/me", auth=pool[f"user-{number % 6}"]).status_code for _ in range(10)]
        )
    assert statuses == [[200] * 10] * 12
    assert (server.token_requests, server.reuse_detected) == (6, 0)


def test_close_waits_until_the_lock_of_the_storage_is_released():
    released, go = threading.Event(), threading.Event()

    class Leisurely(MemoryStorage):
        def try_lock(self, lease: float) -> AbstractContextManager[object] | None:
            lock = super().try_lock(lease)
            return None if lock is None else self.held(lock)

        @contextmanager
        def held(self, lock: AbstractContextManager[object]) -> Iterator[None]:
            with lock:
                yield
                assert go.wait(LIMIT)
            released.set()

    service = Service(lambda token: Token("new", expires_in=3600))
    service.storages["a"] = Leisurely()
    with ThreadPoolExecutor(1) as threads:
        with service.pool() as pool:
            assert threads.submit(pool["a"].get_token).result(LIMIT).access_token == "new"
            threading.Timer(0.05, go.set).start()
        assert released.is_set()
