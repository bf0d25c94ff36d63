"""Tests of the contract: it finds storages that break it."""

from __future__ import annotations

import pickle
import threading
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace

import pytest

from httpx_reauth import StorageError, Token
from httpx_reauth.storage import MemoryStorage, Storage
from httpx_reauth.testing import StorageContract, _contract_steps


class Sound:
    """A storage that fulfils the contract. Each subclass breaks it in one way."""

    held: Token | None = None
    guard: threading.Lock

    def __init_subclass__(cls) -> None:
        cls.held, cls.guard = None, threading.Lock()

    @property
    def place(self) -> type[Sound]:
        return type(self)

    def load(self) -> Token | None:
        return self.place.held

    def save(self, token: Token) -> None:
        self.place.held = token

    def clear(self) -> None:
        self.place.held = None

    def try_lock(self, lease: float):
        return self.held_lock(self.place.guard) if self.place.guard.acquire(blocking=False) else None

    @contextmanager
    def held_lock(self, guard: threading.Lock):
        try:
            yield
        finally:
            guard.release()


class LosesExtra(Sound):
    def save(self, token):
        super().save(replace(token, extra={}))


class LosesLetters(Sound):
    def save(self, token):
        text = token.refresh_token
        super().save(replace(token, refresh_token=text and text.encode("ascii", "replace").decode()))


class RoundsTimes(Sound):
    def save(self, token):
        super().save(replace(token, expires_at=token.expires_at and int(token.expires_at)))


class Merges(Sound):
    def save(self, token):
        held = self.load()
        super().save(replace(token, scope=token.scope or (held and held.scope)))


class RemembersByInstance(Sound):
    def __init__(self):
        self.mine = None

    def load(self):
        return self.mine

    def save(self, token):
        self.mine = token

    def clear(self):
        self.mine = None


class LoadsOnce(Sound):
    def __init__(self):
        self.cached = None

    def load(self):
        self.cached = self.cached or super().load()
        return self.cached

    def save(self, token):
        self.cached = token
        super().save(token)

    def clear(self):
        self.cached = None
        super().clear()


class ClearsOnce(Sound):
    def clear(self):
        if self.load() is None and type(self).cleared:
            raise StorageError("There is nothing to clear.")
        type(self).cleared = True
        super().clear()

    cleared = False


class StaysCleared(Sound):
    clears = 0

    def save(self, token):
        if type(self).clears < 2:
            super().save(token)

    def clear(self):
        type(self).clears += 1
        super().clear()


class HasNoLock(Sound):
    def try_lock(self, lease):
        return nullcontext()


class LocksByInstance(Sound):
    def __init__(self):
        self.mine = threading.Lock()

    def try_lock(self, lease):
        return self.held_lock(self.mine) if self.mine.acquire(blocking=False) else None


class LetsGoTooEarly(Sound):
    """The lease ends long before its time."""

    def try_lock(self, lease):
        lock = super().try_lock(lease)
        if lock is not None:
            timer = threading.Timer(0.02, lock.__exit__, (None, None, None))
            timer.daemon = True
            lock.__enter__()
            timer.start()
        return None if lock is None else nullcontext()


class RaisesWhenItIsHeld(Sound):
    def try_lock(self, lease):
        lock = super().try_lock(lease)
        if lock is None:
            raise StorageError("Held by somebody else.")
        return lock


class AnswersWithABool(Sound):
    def try_lock(self, lease):
        return self.place.guard.acquire(blocking=False)


class IsAsync(Sound):
    async def save(self, token):
        super().save(token)


class HasTheLockOfOnceBefore(Sound):
    """A storage with the lock method of earlier versions, which waited."""

    try_lock = None

    def lock(self, timeout):
        return nullcontext()


class NeverGivesBackAfterAnError(Sound):
    @contextmanager
    def held_lock(self, guard):
        yield
        guard.release()


class SwallowsErrors(Sound):
    @contextmanager
    def held_lock(self, guard):
        with super().held_lock(guard), suppress(KeyError):
            yield


class BelongsToItsThread(Sound):
    @contextmanager
    def held_lock(self, guard):
        with super().held_lock(guard):
            owner = threading.get_ident()
            yield
            if threading.get_ident() != owner:
                raise RuntimeError("cannot release un-acquired lock")


class CannotBeReadWhileItIsLocked(Sound):
    def load(self):
        if self.place.guard.locked() and threading.current_thread() is not threading.main_thread():
            raise StorageError("Held by somebody else.")
        return super().load()


class KnowsOneThread(Sound):
    def load(self):
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("objects created in a thread can only be used in that same thread")
        return super().load()


class WritesInTwoSteps(Sound):
    def save(self, token):
        self.place.held = replace(token, refresh_token=None)
        threading.Event().wait(0.001)
        self.place.held = token


class ForgetsForAnInstant(Sound):
    def save(self, token):
        self.place.held = None
        threading.Event().wait(0.001)
        self.place.held = token


class ShowsIt(Sound):
    def __repr__(self):
        return f"ShowsIt({self.load() and self.load().access_token})"


class PicklesIt(Sound):
    def __reduce__(self):
        return str, (self.load() and self.load().access_token,)


class HasNoClear:
    load = save = try_lock = None


BROKEN = {
    HasNoClear: {"is_a_storage"},
    LosesExtra: {"every_field"},
    LosesLetters: {"every_field"},
    RoundsTimes: {"every_field"},
    Merges: {"replaces_all"},
    RemembersByInstance: {"is_there_for_another_process"},
    LoadsOnce: {"seen_at_the_next_load"},
    ClearsOnce: {"clearing_twice"},
    StaysCleared: {"takes_a_new_token"},
    HasNoLock: {"other_threads_out", "other_processes_out"},
    LocksByInstance: {"other_processes_out"},
    LetsGoTooEarly: {"other_threads_out", "other_processes_out", "left_by_another_thread"},
    RaisesWhenItIsHeld: {"other_threads_out", "other_processes_out"},
    AnswersWithABool: {"at_the_first_try"},
    IsAsync: {"is_a_storage"},
    HasTheLockOfOnceBefore: {"is_a_storage"},
    NeverGivesBackAfterAnError: {"an_exception_leaves_it"},
    SwallowsErrors: {"an_exception_leaves_it"},
    BelongsToItsThread: {"left_by_another_thread"},
    CannotBeReadWhileItIsLocked: {"can_be_read_by_any_thread"},
    KnowsOneThread: {"take_turns"},
    WritesInTwoSteps: {"half_a_token"},
    ForgetsForAnInstant: {"half_a_token"},
    ShowsIt: {"shows_no_secret"},
    PicklesIt: {"into_a_pickle"},
}


def parts_of(make) -> dict[str, object]:
    class OfThis(StorageContract):
        def make(self) -> Storage:
            return make()

    return {name: getattr(OfThis(), name) for name in dir(OfThis) if name.startswith("test_")}


@pytest.mark.parametrize(
    ("broken", "part"), [(broken, part) for broken, parts in BROKEN.items() for part in sorted(parts)]
)
def test_a_storage_that_breaks_the_contract_is_found(broken, part, monkeypatch):
    monkeypatch.setattr(_contract_steps, "SOON", 0.05)
    monkeypatch.setattr(_contract_steps, "LATE", 1.0)
    (test,) = (test for name, test in parts_of(broken).items() if part in name)
    with pytest.raises((AssertionError, StorageError, RuntimeError, TypeError, AttributeError)):
        test()


def test_a_sound_storage_passes(monkeypatch):
    monkeypatch.setattr(_contract_steps, "SOON", 0.05)

    class Place(Sound):
        pass

    for test in parts_of(Place).values():
        test()


def test_a_storage_whose_try_lock_waits_passes_as_well(monkeypatch):
    monkeypatch.setattr(_contract_steps, "SOON", 0.05)

    class Waits(Sound):
        def try_lock(self, lease):
            self.place.guard.acquire()
            return self.held_lock(self.place.guard)

    for test in parts_of(Waits).values():
        test()


def test_a_contract_without_a_storage_says_what_to_do():
    with pytest.raises(NotImplementedError, match="Return the storage"):
        StorageContract().make()


def test_it_is_no_test_class_by_itself():
    assert not StorageContract.__name__.startswith("Test")


def test_a_memory_storage_refuses_to_be_pickled_and_shows_nothing():
    storage = MemoryStorage()
    storage.save(Token("secret"))
    assert repr(storage) == "MemoryStorage()"
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(storage)
