"""What every storage must do, as tests to inherit."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from httpx_reauth._errors import StorageError
from httpx_reauth._storage import Storage
from httpx_reauth._token import Token

_SOON = 0.2  # seconds that a lock is waited for which nobody will give back
_LATE = 30.0  # seconds after which something that should have come has not

_SECRETS = ("access-secret-0451", "refresh-secret-ключ-0451", "id-secret-0451")

_FULL = Token(
    _SECRETS[0],
    refresh_token=_SECRETS[1],
    expires_in=3600,
    expires_at=1_893_456_000.25,
    token_type="DPoP",
    scope="read write",
    extra={"id_token": _SECRETS[2], "audience": ["a", "b"], "claims": {"größe": 1.5, "on": True, "off": None}},
)
_TOKENS = (
    _FULL,
    Token("only-an-access-token"),
    Token(refresh_token="only-a-refresh-token"),
    Token("a", refresh_token='"quoted\\" / 再発行 / 🔑', expires_at=1_893_456_000),
    Token("ended", expires_in=0, expires_at=0.5),
    Token("ended-long-ago", expires_in=-1.5, expires_at=-1),
    Token("long." * 2000, refresh_token="long." * 2000),
)


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
        for token in _TOKENS:
            _save(storage, token)
            assert storage.load() == token

    def test_what_is_saved_replaces_all_that_was_held(self) -> None:
        storage = self._empty()
        _save(storage, _FULL)
        _save(storage, Token("next"))
        assert storage.load() == Token("next"), "something of the token before it is left"

    def test_what_is_saved_is_there_for_another_process(self) -> None:
        _save(self._empty(), _FULL)
        assert self.make().load() == _FULL

    def test_what_another_process_saves_is_seen_at_the_next_load(self) -> None:
        storage = self._empty()
        assert storage.load() is None
        _save(self.make(), _FULL)
        assert storage.load() == _FULL
        _save(self.make(), Token("next"))
        assert storage.load() == Token("next")

    def test_after_clear_there_is_nothing_for_anybody(self) -> None:
        storage, other = self._empty(), self.make()
        _save(storage, _FULL)
        assert other.load() == _FULL
        _clear(storage)
        assert (storage.load(), other.load(), self.make().load()) == (None, None, None)

    def test_clearing_twice_is_no_error(self) -> None:
        storage = self._empty()
        _clear(storage)
        _clear(storage)
        assert storage.load() is None

    def test_a_cleared_storage_takes_a_new_token(self) -> None:
        storage = self._empty()
        _save(storage, _FULL)
        _clear(storage)
        _save(storage, Token("signed-in-again"))
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
            with waiter.lock(_LATE):
                entered.set()

        with ExitStack() as threads:
            with holder.lock(_LATE):
                threads.enter_context(_running(wait))
                assert not entered.wait(_SOON), "two were in the lock at once"
            assert entered.wait(_LATE / 2), "the lock was given back, and nobody got it"

    def test_lock_is_given_up_after_its_timeout_with_a_storage_error(self) -> None:
        holder, waiter = self._empty(), self.make()
        with holder.lock(_LATE):
            begun = time.monotonic()
            assert isinstance(_attempt(waiter, _SOON), StorageError), "a StorageError is expected"
            assert _SOON * 0.9 <= time.monotonic() - begun < _LATE / 2, "it was to wait for its timeout"
            assert isinstance(_attempt(waiter, 0.0), StorageError), "with no time at all, it looks once"

    def test_lock_that_is_free_is_had_with_no_time_to_wait(self) -> None:
        with self._empty().lock(0.0):
            pass

    def test_lock_is_given_back_when_an_exception_leaves_it(self) -> None:
        storage = self._empty()
        try:
            with storage.lock(_LATE):
                raise KeyError  # noqa: TRY301 - what is tested
        except KeyError:
            pass
        else:
            raise AssertionError("the lock has swallowed an exception")
        assert _attempt(self.make(), _SOON) is None

    def test_lock_may_be_left_by_another_thread(self) -> None:
        storage = self._empty()
        for _ in range(2):
            lock = storage.lock(_LATE)
            with _running(lock.__enter__):
                pass
            assert isinstance(_attempt(self.make(), _SOON), StorageError), "its thread has ended, but it is held"
            lock.__exit__(None, None, None)
            assert _attempt(self.make(), _SOON) is None

    def test_nothing_is_lost_between_threads_that_take_turns(self) -> None:
        _save(self._empty(), Token("0"))

        def count() -> None:
            storage = self.make()
            for _ in range(5):
                with storage.lock(_LATE):
                    held = storage.load()
                    assert held is not None
                    storage.save(replace(held, access_token=str(int(held.access_token) + 1)))

        with _running(*[count] * 4):
            pass
        assert self.make().load() == Token("20")

    def test_who_loads_while_another_saves_never_sees_half_a_token(self) -> None:
        writer, reader = self._empty(), self.make()
        long = "x" * 20_000
        _save(writer, _numbered(0, long))
        done = threading.Event()

        def write() -> None:
            try:
                for number in range(1, 30):
                    _save(writer, _numbered(number, long))
            finally:
                done.set()

        with _running(write):
            while not done.is_set():
                held = reader.load()
                assert held is not None, "for an instant, nothing was held"
                assert held == _numbered(int(held.access_token), long)

    def test_repr_and_errors_show_no_secret(self) -> None:
        storage = self._empty()
        _save(storage, _FULL)
        storage.load()
        with storage.lock(_LATE):
            error = _attempt(self.make(), 0.0)
        for said in (repr(storage), str(storage), repr(error), str(error)):
            assert not [secret for secret in _SECRETS if secret in said], f"it shows a secret: {said}"

    def test_no_secret_gets_into_a_pickle(self) -> None:
        storage = self._empty()
        _save(storage, _FULL)
        storage.load()
        try:
            pickled = pickle.dumps(storage)
        except Exception:  # noqa: BLE001 - it refuses: all the better
            return
        assert not [secret for secret in _SECRETS if secret.encode() in pickled], "refuse to be pickled"

    def _empty(self) -> Storage:
        storage = self.make()
        _clear(storage)
        return storage

    def _check_exclusion(self, one: Storage, other: Storage) -> None:
        with one.lock(_LATE):
            assert isinstance(_attempt(other, _SOON), StorageError), "two were in the lock at once"
        assert _attempt(other, _LATE) is None
        assert _attempt(one, _LATE) is None


def _save(storage: Storage, token: Token) -> None:
    with storage.lock(_LATE):
        storage.save(token)


def _clear(storage: Storage) -> None:
    with storage.lock(_LATE):
        storage.clear()


def _attempt(storage: Storage, timeout: float) -> Exception | None:
    """What comes of taking the lock in another thread: an exception, or None."""
    errors: list[Exception | None] = []

    def take() -> None:
        try:
            with storage.lock(timeout):
                errors.append(None)
        except Exception as error:  # noqa: BLE001 - the caller judges it
            errors.append(error)

    with _running(take):
        pass
    return errors[0]


def _numbered(number: int, padding: str) -> Token:
    """A token of which every part says the same number."""
    return Token(str(number), refresh_token=f"{number}{padding}", expires_at=number, extra={"number": number})


@contextmanager
def _running(*functions: Callable[[], object]) -> Generator[None, None, None]:
    """Run each of `functions` in a thread of its own; at the end they have ended, and their errors are raised here."""
    errors: list[BaseException] = []

    def run(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join(_LATE)
            assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]
