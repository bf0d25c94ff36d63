"""Storages in memory that record their calls, or that fail when a test wants it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from httpx_reauth import StorageError, Token
from httpx_reauth.storage import MemoryStorage


class Recording:
    """A storage that writes down each call, and calls `before[name]`, if there is one; a lock once it is had.

    Attributes:
        inner: where the token is.
        calls: the names of the calls, in their order.
        threads: the threads that made them.
        leases: for how many seconds the lock was wanted, each time.
        before: functions that run before a call. They may raise, wait or move a clock.
    """

    def __init__(self, inner: MemoryStorage | None = None) -> None:
        self.inner = inner or MemoryStorage()
        self.calls: list[str] = []
        self._changed = threading.Condition()
        self.threads: set[int] = set()
        self.leases: list[float] = []
        self.before: dict[str, Callable[[], object]] = {}

    def load(self) -> Token | None:
        self._note("load")
        return self.inner.load()

    def save(self, token: Token) -> None:
        self._note("save")
        self.inner.save(token)

    def clear(self) -> None:
        self._note("clear")
        self.inner.clear()

    def try_lock(self, lease: float) -> AbstractContextManager[object] | None:
        self.leases.append(lease)
        self._before("lock")
        lock = self.inner.try_lock(lease)
        if lock is None:
            return None
        self._write_down("lock")
        return self._held(lock)

    @contextmanager
    def _held(self, lock: AbstractContextManager[object]) -> Iterator[None]:
        with lock:
            yield
            self._note("release")

    def fail(self, *names: str) -> None:
        """Make these calls fail from now on."""

        def fail() -> None:
            raise StorageError("The storage is away.")

        self.before.update(dict.fromkeys(names, fail))

    def heal(self) -> None:
        self.before.clear()

    def last_calls(self, count: int) -> list[str]:
        """Return the last calls, after the lock has been released. No request waits for that release."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.calls[-1:] == ["release"], timeout=30)
            return self.calls[-count:]

    def _note(self, name: str) -> None:
        self._write_down(name)
        self._before(name)

    def _write_down(self, name: str) -> None:
        with self._changed:
            self.calls.append(name)
            self._changed.notify_all()

    def _before(self, name: str) -> None:
        self.threads.add(threading.get_ident())
        before = self.before.get(name)
        if before is not None:
            before()
