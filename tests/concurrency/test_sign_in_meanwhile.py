"""Tests of a sign-in or a sign-out while a refresh runs or waits for a lock, and of one by the refresh itself."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import anyio
import pytest

from httpx_reauth import (
    AuthState,
    Reauth,
    RefreshFulfilled,
    RefreshPending,
    SaveFailed,
    SignedIn,
    SignedOut,
    SignInRequired,
    Token,
)
from httpx_reauth._state.actions import Action
from httpx_reauth.storage import FileStorage, MemoryStorage
from httpx_reauth.testing import ManualClock

LIMIT = 30.0  # seconds until a wait counts as a failure


@pytest.fixture(params=["memory", "file"])
def storage(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    return MemoryStorage() if request.param == "memory" else FileStorage(tmp_path / "token.json")


# `close` waits for all refreshes of its object.


@pytest.mark.anyio
@pytest.mark.parametrize("first_to_end", ["the overtaken one", "the one after the sign-in"])
async def test_guarantee_2_aclose_waits_for_a_refresh_that_a_sign_in_has_superseded_and_for_the_one_after_it(
    first_to_end,
):
    gates, begun, ended = {}, [], []

    async def refresh(token: Token) -> Token:
        name = token.refresh_token
        gates[name] = anyio.Event()
        begun.append(name)
        await gates[name].wait()
        ended.append(name)
        return Token(f"new-{name}", refresh_token=name, expires_in=3600)

    async def ask() -> None:
        with suppress(SignInRequired):  # its session has ended
            await auth.aget_token()

    async def close() -> None:
        await auth.aclose()
        ended.append("close")

    auth = Reauth(refresh, token=Token(refresh_token="first"), clock=ManualClock())
    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        auth.store.dispatch(SignedIn(Token(refresh_token="second")))
        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert begun == ["first", "second"]
        group.start_soon(close)
        await anyio.wait_all_tasks_blocked()
        order = ["first", "second"] if first_to_end == "the overtaken one" else ["second", "first"]
        for name in order:
            assert "close" not in ended
            gates[name].set()
            for _ in range(10):  # one task wakes the next
                await anyio.wait_all_tasks_blocked()
    assert ended == [*order, "close"]


@pytest.mark.parametrize("first_to_end", ["the overtaken one", "the one after the sign-in"])
def test_guarantee_2_close_waits_for_a_refresh_that_a_sign_in_has_superseded_and_for_the_one_after_it(first_to_end):
    begun = {name: threading.Event() for name in ("first", "second")}
    go = {name: threading.Event() for name in ("first", "second")}
    ended = []

    def refresh(token: Token) -> Token:
        name = str(token.refresh_token)
        begun[name].set()
        assert go[name].wait(LIMIT)
        ended.append(name)
        return Token(f"new-{name}", refresh_token=name, expires_in=3600)

    auth = Reauth(refresh, token=Token(refresh_token="first"), clock=ManualClock())
    with ThreadPoolExecutor(3) as threads:
        threads.submit(auth.get_token)
        assert begun["first"].wait(LIMIT)
        auth.store.dispatch(SignedIn(Token(refresh_token="second")))
        asking = threads.submit(auth.get_token)
        assert begun["second"].wait(LIMIT)
        closing = threads.submit(auth.close)
        order = ["first", "second"] if first_to_end == "the overtaken one" else ["second", "first"]
        go[order[0]].set()
        while ended != order[:1]:
            threading.Event().wait(0.001)
        threading.Timer(0.05, go[order[1]].set).start()
        closing.result(LIMIT)
        assert ended == order
        assert asking.result(LIMIT).access_token == "new-second"


# A refresh that waits for the storage's lock.


@pytest.mark.parametrize("is_sign_in", [True, False], ids=["sign-in", "sign-out"])
def test_a_refresh_that_is_superseded_while_it_waits_for_the_lock_makes_no_request(storage, is_sign_in):
    asked = []

    def refresh(token: Token) -> Token:
        asked.append(token.refresh_token)
        raise SignInRequired("dead")

    storage.save(Token(refresh_token="old"))
    auth = Reauth(refresh, storage=storage)
    lock = storage.try_lock(60.0)
    assert lock is not None
    with ThreadPoolExecutor(2) as threads:
        with lock:
            asking = threads.submit(auth.get_token)
            while auth.store.state.status != "pending":
                threading.Event().wait(0.001)
            before, new = auth.store.state, Token("new", expires_in=3600)
            changing = threads.submit(auth.sign_in, new) if is_sign_in else threads.submit(auth.sign_out)
            while auth.store.state is before:
                threading.Event().wait(0.001)
        changing.result(LIMIT)
        if is_sign_in:
            assert asking.result(LIMIT).access_token == "new"
        else:
            with pytest.raises(SignInRequired):
                asking.result(LIMIT)
        auth.close()
    assert asked == []
    held = storage.load()
    assert (held and held.access_token) == ("new" if is_sign_in else None)


def test_a_refresh_that_is_superseded_at_the_moment_in_which_it_gets_the_lock_makes_no_request():
    asked = []

    class SignsIn(MemoryStorage):
        def try_lock(self, lease: float) -> Any:
            lock = super().try_lock(lease)
            if auth.store.state.status == "pending":
                auth.store.dispatch(SignedIn(Token("new", expires_in=3600)))
            return lock

    def refresh(token: Token) -> Token:
        asked.append(token.refresh_token)
        raise SignInRequired("dead")

    storage = SignsIn()
    storage.save(Token(refresh_token="old"))
    auth = Reauth(refresh, storage=storage)
    assert auth.get_token().access_token == "new"
    auth.close()
    assert asked == []
    assert storage.load().access_token == "new"


# A refresh that reads the storage.


class HeldUp(MemoryStorage):
    """A storage whose next `load` reads, calls `meanwhile`, and then returns what it has read."""

    meanwhile: Any = None

    def load(self) -> Token | None:
        read, meanwhile, self.meanwhile = super().load(), self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return read


@pytest.mark.parametrize("reader", ["a refresh", "a late save"])
def test_a_sign_in_counts_that_comes_while_a_refresh_reads_the_sign_out_of_another_process(reader):
    storage, refused = HeldUp(), SignInRequired("dead")

    def refresh(token: Token) -> Token:
        if token.refresh_token != "old":
            raise refused
        return Token("renewed", refresh_token="r1", expires_in=3600)

    auth = Reauth(refresh, token=Token("old", refresh_token="old"), storage=storage)
    auth.get_token()
    if reader == "a late save":
        storage.save = broken = lambda _: 1 / 0  # type: ignore[method-assign]
        assert auth.renew().access_token == "renewed"
        assert storage.save is broken
        del storage.save  # type: ignore[method-assign]
    storage.clear()
    storage.meanwhile = lambda: auth.store.dispatch(SignedIn(Token("new", expires_in=3600)))
    if reader == "a late save":
        auth.close()
    else:
        with pytest.raises(SignInRequired):
            auth.renew()
    auth.close()
    assert auth.get_token().access_token == "new"
    assert storage.load().access_token == "new"


@pytest.mark.parametrize("is_sign_in", [True, False], ids=["sign-in", "sign-out"])
@pytest.mark.parametrize("held", ["a token", "nothing"])
def test_a_refresh_that_is_superseded_while_it_reads_the_storage_makes_no_request_and_saves_nothing(held, is_sign_in):
    asked, saved, storage = [], [], HeldUp()

    def refresh(token: Token) -> Token:
        asked.append(token.refresh_token)
        raise SignInRequired("dead")

    def save(token: Token) -> None:
        saved.append(token.access_token)
        MemoryStorage.save(storage, token)

    if held == "a token":
        storage.save(Token(refresh_token="old"))
    storage.save = save  # type: ignore[method-assign]
    auth = Reauth(refresh, token=Token("old", refresh_token="old", expires_in=3600), storage=storage)
    action = SignedIn(Token("new", expires_in=3600)) if is_sign_in else SignedOut()
    storage.meanwhile = lambda: auth.store.dispatch(action)
    with pytest.raises(SignInRequired):
        auth.get_token()
    auth.close()
    assert asked == []
    assert saved == (["new"] if is_sign_in else [])


# A refresh that calls `sign_in`.


def test_a_sign_in_inside_of_a_refresh_does_not_wait_for_its_own_save(storage):
    told = []

    def refresh(token: Token) -> Token:
        auth.sign_in(Token("signed-in", refresh_token="r", expires_in=3600))  # the refresh holds the storage's lock
        return Token("of the refresh", expires_in=3600)

    auth = Reauth(refresh, storage=storage, refresh_timeout=3.0)
    auth.store.subscribe(lambda state, action: told.append(type(action)))
    assert auth.get_token().access_token == "signed-in"
    auth.close()
    assert storage.load().access_token == "signed-in"
    assert SaveFailed not in told


@pytest.mark.anyio
async def test_a_sign_in_inside_of_a_coroutine_refresh_does_not_wait_for_its_own_save(storage):
    told = []

    async def refresh(token: Token) -> Token:
        await auth.asign_in(Token("signed-in", refresh_token="r", expires_in=3600))
        told.append("it went on")
        return Token("of the refresh", expires_in=3600)

    auth = Reauth(refresh, storage=storage, refresh_timeout=3.0)
    auth.store.subscribe(lambda state, action: told.append(type(action)))
    async with auth:
        assert (await auth.aget_token()).access_token == "signed-in"
    assert storage.load().access_token == "signed-in"
    assert "it went on" in told
    assert SaveFailed not in told


# A listener that signs in or out.


class WaitsForTheListener(MemoryStorage):
    """A storage whose writes wait until the listener has returned. It records whether the listener did."""

    def __init__(self) -> None:
        super().__init__()
        self.has_returned, self.written = threading.Event(), list[bool]()

    def save(self, token: Token) -> None:
        if token.access_token == "by the listener":
            self.written.append(self.has_returned.wait(LIMIT))
        super().save(token)

    def clear(self) -> None:
        self.written.append(self.has_returned.wait(LIMIT))
        super().clear()


@pytest.mark.parametrize("heard", [RefreshPending, RefreshFulfilled, SignedIn, SignedOut])
@pytest.mark.parametrize("deed", ["sign in", "sign out"])
def test_a_sign_in_or_sign_out_by_a_listener_is_written_after_the_listener_has_returned(heard: type, deed: str):
    """The listener must not wait: it may run on the thread of an event loop that the refresh with the lock needs."""
    storage = WaitsForTheListener()
    auth = Reauth(lambda _: Token("renewed", expires_in=3600), storage=storage)

    def listener(_: AuthState, action: Action) -> None:
        if type(action) is heard and not storage.has_returned.is_set():
            if deed == "sign in":
                auth.sign_in(Token("by the listener", expires_in=3600))
            else:
                auth.sign_out()
            storage.has_returned.set()

    auth.store.subscribe(listener)
    if heard in (SignedIn, SignedOut):
        auth.store.dispatch(SignedIn(Token("a", expires_in=3600)) if heard is SignedIn else SignedOut())
    else:
        with suppress(SignInRequired):
            auth.get_token()
    assert storage.has_returned.is_set()
    auth.close()
    assert storage.written
    assert all(storage.written)
    assert storage.load() == (auth.token if deed == "sign in" else None)
