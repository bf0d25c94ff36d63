"""What every storage must do, as tests to inherit."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import pickle
import threading
import time
from contextlib import ExitStack
from dataclasses import replace

from httpx_reauth._errors import StorageError
from httpx_reauth._token import Token
from httpx_reauth.storage.base import Storage
from httpx_reauth.testing import _contract_steps as steps
from httpx_reauth.testing._contract_steps import FULL, SECRETS, TOKENS, attempt, clear, numbered, running, save


class StorageContract:
    """Tests that a storage of your own passes if it keeps its promises: inherit, and say how to make one.

    `make` gives a storage on the same place each time it is called within one test, as two processes would have it;
    the first thing a test does is to clear it. Needs pytest, or anything that runs classes of `test_...` methods.

    ```python
    class TestRowStorage(StorageContract):
        @pytest.fixture(autouse=True)
        def place(self, tmp_path):
            self.url = f"sqlite:///{tmp_path}/tokens.db"

        def make(self):
            return RowStorage(self.url, user="alice")
    ```
    """

    def make(self) -> Storage:
        """A storage, on the same place at each call of one test."""
        raise NotImplementedError("Return the storage that is to be tested.")

    def test_is_a_storage(self) -> None:
        assert isinstance(self.make(), Storage), "it lacks load, save, clear or lock"

    def test_holds_nothing_at_first(self) -> None:
        assert self._empty().load() is None

    def test_gives_back_every_field_of_a_token(self) -> None:
        storage = self._empty()
        for token in TOKENS:
            save(storage, token)
            assert storage.load() == token

    def test_what_is_saved_replaces_all_that_was_held(self) -> None:
        storage = self._empty()
        save(storage, FULL)
        save(storage, Token("next"))
        assert storage.load() == Token("next"), "something of the token before it is left"

    def test_what_is_saved_is_there_for_another_process(self) -> None:
        save(self._empty(), FULL)
        assert self.make().load() == FULL

    def test_what_another_process_saves_is_seen_at_the_next_load(self) -> None:
        storage = self._empty()
        assert storage.load() is None
        save(self.make(), FULL)
        assert storage.load() == FULL
        save(self.make(), Token("next"))
        assert storage.load() == Token("next")

    def test_after_clear_there_is_nothing_for_anybody(self) -> None:
        storage, other = self._empty(), self.make()
        save(storage, FULL)
        assert other.load() == FULL
        clear(storage)
        assert (storage.load(), other.load(), self.make().load()) == (None, None, None)

    def test_clearing_twice_is_no_error(self) -> None:
        storage = self._empty()
        clear(storage)
        clear(storage)
        assert storage.load() is None

    def test_a_cleared_storage_takes_a_new_token(self) -> None:
        storage = self._empty()
        save(storage, FULL)
        clear(storage)
        save(storage, Token("signed-in-again"))
        assert self.make().load() == Token("signed-in-again")

    def test_lock_keeps_other_threads_out(self) -> None:
        storage = self._empty()
        self._check_exclusion(storage, storage)

    def test_lock_keeps_other_processes_out(self) -> None:
        self._check_exclusion(self._empty(), self.make())

    def test_lock_is_had_as_soon_as_it_is_given_back(self) -> None:
        holder, waiter = self._empty(), self.make()
        entered = threading.Event()

        def wait() -> None:
            with waiter.lock(steps.LATE):
                entered.set()

        with ExitStack() as threads:
            with holder.lock(steps.LATE):
                threads.enter_context(running(wait))
                assert not entered.wait(steps.SOON), "two were in the lock at once"
            assert entered.wait(steps.LATE / 2), "the lock was given back, and nobody got it"

    def test_lock_is_given_up_after_its_timeout_with_a_storage_error(self) -> None:
        holder, waiter = self._empty(), self.make()
        with holder.lock(steps.LATE):
            begun = time.monotonic()
            assert isinstance(attempt(waiter, steps.SOON), StorageError), "a StorageError is expected"
            assert steps.SOON * 0.9 <= time.monotonic() - begun < steps.LATE / 2, "it was to wait for its timeout"
            assert isinstance(attempt(waiter, 0.0), StorageError), "with no time at all, it looks once"

    def test_lock_that_is_free_is_had_with_no_time_to_wait(self) -> None:
        with self._empty().lock(0.0):
            pass

    def test_lock_is_given_back_when_an_exception_leaves_it(self) -> None:
        storage = self._empty()
        try:
            with storage.lock(steps.LATE):
                raise KeyError  # noqa: TRY301 - what is tested
        except KeyError:
            pass
        else:
            raise AssertionError("the lock has swallowed an exception")
        assert attempt(self.make(), steps.SOON) is None

    def test_lock_may_be_left_by_another_thread(self) -> None:
        storage = self._empty()
        for _ in range(2):
            lock = storage.lock(steps.LATE)
            with running(lock.__enter__):
                pass
            assert isinstance(attempt(self.make(), steps.SOON), StorageError), "its thread has ended, but it is held"
            lock.__exit__(None, None, None)
            assert attempt(self.make(), steps.SOON) is None

    def test_nothing_is_lost_between_threads_that_take_turns(self) -> None:
        save(self._empty(), Token("0"))

        def count() -> None:
            storage = self.make()
            for _ in range(5):
                with storage.lock(steps.LATE):
                    held = storage.load()
                    assert held is not None
                    storage.save(replace(held, access_token=str(int(held.access_token) + 1)))

        with running(*[count] * 4):
            pass
        assert self.make().load() == Token("20")

    def test_who_loads_while_another_saves_never_sees_half_a_token(self) -> None:
        writer, reader = self._empty(), self.make()
        long = "x" * 20_000
        save(writer, numbered(0, long))
        done = threading.Event()

        def write() -> None:
            try:
                for number in range(1, 30):
                    save(writer, numbered(number, long))
            finally:
                done.set()

        with running(write):
            while not done.is_set():
                held = reader.load()
                assert held is not None, "for an instant, nothing was held"
                assert held == numbered(int(held.access_token), long)

    def test_repr_and_errors_show_no_secret(self) -> None:
        storage = self._empty()
        save(storage, FULL)
        storage.load()
        with storage.lock(steps.LATE):
            error = attempt(self.make(), 0.0)
        for said in (repr(storage), str(storage), repr(error), str(error)):
            assert not [secret for secret in SECRETS if secret in said], f"it shows a secret: {said}"

    def test_no_secret_gets_into_a_pickle(self) -> None:
        storage = self._empty()
        save(storage, FULL)
        storage.load()
        try:
            pickled = pickle.dumps(storage)
        except Exception:  # noqa: BLE001 - it refuses: all the better
            return
        assert not [secret for secret in SECRETS if secret.encode() in pickled], "refuse to be pickled"

    def _empty(self) -> Storage:
        storage = self.make()
        clear(storage)
        return storage

    def _check_exclusion(self, one: Storage, other: Storage) -> None:
        with one.lock(steps.LATE):
            assert isinstance(attempt(other, steps.SOON), StorageError), "two were in the lock at once"
        assert attempt(other, steps.LATE) is None
        assert attempt(one, steps.LATE) is None
