"""The parts of the storage contract: tokens to save, and threads in place of processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from httpx_reauth._token import Token
from httpx_reauth.storage.base import Storage

SOON = 0.2  # seconds in which a thread gets the lock, if the lock is free
LATE = 30.0  # seconds after which a wait has failed

SECRETS = ("access-secret-0451", "refresh-secret-ключ-0451", "id-secret-0451")

FULL = Token(
    SECRETS[0],
    refresh_token=SECRETS[1],
    expires_in=3600,
    expires_at=1_893_456_000.25,
    token_type="DPoP",
    scope="read write",
    extra={"id_token": SECRETS[2], "audience": ["a", "b"], "claims": {"größe": 1.5, "on": True, "off": None}},
)
TOKENS = (
    FULL,
    Token("only-an-access-token"),
    Token(refresh_token="only-a-refresh-token"),
    Token("a", refresh_token='"quoted\\" / 再発行 / 🔑', expires_at=1_893_456_000),
    Token("ended", expires_in=0, expires_at=0.5),
    Token("ended-long-ago", expires_in=-1.5, expires_at=-1),
    Token("long." * 2000, refresh_token="long." * 2000),
)


@contextmanager
def locked(storage: Storage) -> Generator[None, None, None]:
    """Hold the lock of `storage`. It is tried again and again until it is free."""
    end = time.monotonic() + LATE
    while (lock := storage.try_lock(LATE)) is None:
        assert time.monotonic() < end, "the lock was given back, and nobody gets it"
        time.sleep(0.005)
    with lock:
        yield


def save(storage: Storage, token: Token) -> None:
    """Save `token` while the lock is held."""
    with locked(storage):
        storage.save(token)


def clear(storage: Storage) -> None:
    """Clear `storage` while the lock is held."""
    with locked(storage):
        storage.clear()


class Attempt:
    """A thread that tries the lock until it gets it once, or until it must end.

    Attributes:
        is_had: set when the thread has got the lock.
    """

    def __init__(self, storage: Storage) -> None:
        self.is_had = threading.Event()
        self._is_to_end = threading.Event()
        self._storage = storage
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._try, daemon=True)
        self._thread.start()

    def _try(self) -> None:
        try:
            while (lock := self._storage.try_lock(LATE)) is None:
                if self._is_to_end.wait(0.01):
                    return
            with lock:
                self.is_had.set()
        except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
            self._errors.append(error)

    def end(self, seconds: float) -> bool:
        """End the thread, and return whether it has ended after `seconds`. An error of the thread is raised here."""
        self._is_to_end.set()
        self._thread.join(seconds)
        if self._errors:
            raise self._errors[0]
        return not self._thread.is_alive()


def numbered(number: int, padding: str) -> Token:
    """Return a token with the same number in every part."""
    return Token(str(number), refresh_token=f"{number}{padding}", expires_at=number, extra={"number": number})


@contextmanager
def running(*functions: Callable[[], object]) -> Generator[None, None, None]:
    """Run each of `functions` in its own thread. At the end of the block, wait for all, and raise an error of them."""
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
            thread.join(LATE)
            assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]
