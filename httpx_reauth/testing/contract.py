"""The contract of every storage, as tests to inherit."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import pickle
import threading
from dataclasses import replace

from httpx_reauth._token import Token
from httpx_reauth.storage.base import Storage, check_storage
from httpx_reauth.testing import _contract_steps as steps
from httpx_reauth.testing._contract_steps import FULL, SECRETS, TOKENS, Attempt, clear, locked, numbered, running, save


class StorageContract:
    """Tests for your own storage. Inherit this class, and write `make`. A correct storage passes all tests.

    In one test, each call of `make` must return a storage at the same place, as two processes would have it. Each test
    first clears the storage. You need pytest, or another tool that runs classes with `test_...` methods.

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
        """Return a storage. All calls in one test return a storage at the same place."""
        raise NotImplementedError("Return the storage that is to be tested.")

    def test_is_a_storage(self) -> None:
        check_storage(self.make())

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

    def test_lock_that_is_free_is_had_at_the_first_try(self) -> None:
        storage, other = self._empty(), self.make()
        for one in (storage, other, storage):
            lock = one.try_lock(steps.LATE)
            assert lock is not None, "it was free, since its holder has given it back"
            with lock:
                pass

    def test_lock_is_given_back_when_an_exception_leaves_it(self) -> None:
        storage = self._empty()
        try:
            with locked(storage):
                raise KeyError  # noqa: TRY301 - what is tested
        except KeyError:
            pass
        else:
            raise AssertionError("the lock has swallowed an exception")
        self._check_that_it_is_free(self.make())

    def test_lock_may_be_left_by_another_thread(self) -> None:
        storage = self._empty()
        for _ in range(2):
            held = locked(storage)
            with running(held.__enter__):
                pass
            attempt = Attempt(self.make())
            assert not attempt.is_had.wait(steps.SOON), "its thread has ended, but it is held"
            held.__exit__(None, None, None)
            assert attempt.end(steps.LATE), "it hangs"
            self._check_that_it_is_free(self.make())

    def test_what_is_held_can_be_read_by_any_thread_while_somebody_has_the_lock(self) -> None:
        storage, other = self._empty(), self.make()
        save(storage, FULL)

        def read() -> None:
            assert (storage.load(), other.load()) == (FULL, FULL)

        with locked(storage):
            assert storage.load() == FULL
            with running(*[read] * 4):
                pass
            storage.save(Token("next"))
            with running(lambda: self._check_that_it_holds(other, Token("next"))):
                pass
        assert self.make().load() == Token("next")

    def test_nothing_is_lost_between_threads_that_take_turns(self) -> None:
        save(self._empty(), Token("0"))

        def count() -> None:
            storage = self.make()
            for _ in range(5):
                with locked(storage):
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

    def test_repr_shows_no_secret(self) -> None:
        storage = self._empty()
        save(storage, FULL)
        storage.load()
        lock = storage.try_lock(steps.LATE)
        assert lock is not None
        with lock:
            pass
        for said in (repr(storage), str(storage), repr(lock)):
            assert not [secret for secret in SECRETS if secret in said], f"it shows a secret: {said}"

    def test_no_secret_gets_into_a_pickle(self) -> None:
        storage = self._empty()
        save(storage, FULL)
        storage.load()
        try:
            pickled = pickle.dumps(storage)
        except Exception:  # noqa: BLE001 - a storage that refuses is fine
            return
        assert not [secret for secret in SECRETS if secret.encode() in pickled], "refuse to be pickled"

    def _empty(self) -> Storage:
        storage = self.make()
        clear(storage)
        return storage

    def _check_exclusion(self, one: Storage, other: Storage) -> None:
        with locked(one):
            attempt = Attempt(other)
            assert not attempt.is_had.wait(steps.SOON), "two were in the lock at once"
        assert attempt.end(steps.LATE), "it hangs"
        self._check_that_it_is_free(other)
        self._check_that_it_is_free(one)

    def _check_that_it_is_free(self, storage: Storage) -> None:
        attempt = Attempt(storage)
        assert attempt.is_had.wait(steps.LATE), "the lock was given back, and nobody gets it"
        assert attempt.end(steps.LATE), "it hangs"

    def _check_that_it_holds(self, storage: Storage, token: Token) -> None:
        assert storage.load() == token
