"""The contract finds storages that break it."""

from __future__ import annotations

import pickle
import threading
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace

import pytest

from httpx_reauth import StorageError, Token
from httpx_reauth.storage import MemoryStorage, Storage
from httpx_reauth.testing import StorageContract, _contract_steps


class Sound:
    """A storage that keeps the contract, to be broken in one way each."""

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

    @contextmanager
    def lock(self, timeout: float):
        if not self.place.guard.acquire(timeout=timeout):
            raise StorageError("Held by somebody else.")
        try:
            yield
        finally:
            self.place.guard.release()


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
    def lock(self, timeout):
        return nullcontext()


class LocksByInstance(Sound):
    def __init__(self):
        self.mine = threading.Lock()

    @contextmanager
    def lock(self, timeout):
        if not self.mine.acquire(timeout=timeout):
            raise StorageError("Held by somebody else.")
        try:
            yield
        finally:
            self.mine.release()


class RaisesTimeoutError(Sound):
    @contextmanager
    def lock(self, timeout):
        if not self.place.guard.acquire(timeout=timeout):
            raise TimeoutError
        try:
            yield
        finally:
            self.place.guard.release()


class GivesUpAtOnce(Sound):
    def lock(self, timeout):
        return super().lock(0)


class NeverGivesBackAfterAnError(Sound):
    @contextmanager
    def lock(self, timeout):
        if not self.place.guard.acquire(timeout=timeout):
            raise StorageError("Held by somebody else.")
        yield
        self.place.guard.release()


class SwallowsErrors(Sound):
    @contextmanager
    def lock(self, timeout):
        with super().lock(timeout), suppress(KeyError):
            yield


class BelongsToItsThread(Sound):
    @contextmanager
    def lock(self, timeout):
        with super().lock(timeout):
            owner = threading.get_ident()
            yield
            if threading.get_ident() != owner:
                raise RuntimeError("cannot release un-acquired lock")


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


class ShowsItInErrors(Sound):
    @contextmanager
    def lock(self, timeout):
        try:
            with super().lock(timeout):
                yield
        except StorageError:
            raise StorageError(f"{asdict(self.load() or Token())} is locked") from None


class PicklesIt(Sound):
    def __reduce__(self):
        return str, (self.load() and self.load().access_token,)


class HasNoClear:
    load = save = lock = None


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
    HasNoLock: {"other_threads_out", "other_processes_out", "as_soon_as"},
    LocksByInstance: {"other_processes_out"},
    RaisesTimeoutError: {"with_a_storage_error"},
    GivesUpAtOnce: {"with_a_storage_error", "as_soon_as"},
    NeverGivesBackAfterAnError: {"an_exception_leaves_it"},
    SwallowsErrors: {"an_exception_leaves_it"},
    BelongsToItsThread: {"left_by_another_thread"},
    KnowsOneThread: {"take_turns"},
    WritesInTwoSteps: {"half_a_token"},
    ForgetsForAnInstant: {"half_a_token"},
    ShowsIt: {"show_no_secret"},
    ShowsItInErrors: {"show_no_secret"},
    PicklesIt: {"into_a_pickle"},
}


def parts_of(make) -> dict[str, object]:
    class OfThis(StorageContract):
        def make(self) -> Storage:
            return make()

    return {name: getattr(OfThis(), name) for name in dir(OfThis) if name.startswith("test_")}


@pytest.mark.parametrize(("broken", "part"), [(broken, part) for broken, parts in BROKEN.items() for part in parts])
def test_a_storage_that_breaks_the_contract_is_found(broken, part, monkeypatch):
    monkeypatch.setattr(_contract_steps, "SOON", 0.05)
    monkeypatch.setattr(_contract_steps, "LATE", 1.0)
    (test,) = (test for name, test in parts_of(broken).items() if part in name)
    with pytest.raises((AssertionError, StorageError, RuntimeError)):
        test()


def test_a_sound_storage_passes(monkeypatch):
    monkeypatch.setattr(_contract_steps, "SOON", 0.05)

    class Place(Sound):
        pass

    for test in parts_of(Place).values():
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
