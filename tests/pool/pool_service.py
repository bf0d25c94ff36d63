"""A service with many users, for the tests of the pool."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from httpx_reauth import Reauth, ReauthPool, StorageError, Token
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import ManualClock

LIMIT = 30.0  # seconds until a wait counts as a failure


def never(token: Token) -> Token:
    raise AssertionError("nothing is to be renewed here")


@dataclass
class Service:
    """Makes the auth objects of many users. Their tokens are in storages in memory."""

    refresh: Callable[[Token], Any] = never
    reauth_class: Any = Reauth
    clock: ManualClock = field(default_factory=ManualClock)
    storages: dict[str, Any] = field(default_factory=dict)
    made: Counter[str] = field(default_factory=Counter)

    def make(self, user: str) -> Any:
        self.made[user] += 1
        storage = self.storages.setdefault(user, MemoryStorage())
        return self.reauth_class(self.refresh, storage=storage, clock=self.clock)

    def pool(self, maxsize: int = 2) -> ReauthPool[str, Any]:
        return ReauthPool(self.make, maxsize=maxsize)

    def connect(self, user: str, token: Token) -> None:
        self.storages.setdefault(user, MemoryStorage()).save(token)


class BrokenStorage(MemoryStorage):
    """A storage that fails while `is_broken` is true."""

    is_broken = True

    def save(self, token: Token) -> None:
        self._check()
        super().save(token)

    def clear(self) -> None:
        self._check()
        super().clear()

    def _check(self) -> None:
        if self.is_broken:
            raise StorageError("The disk is full.")


def in_threads(count: int, function: Callable[[int], Any]) -> list[Any]:
    """Call `function` in `count` threads that start at the same moment. Return the results and exceptions."""
    gate = threading.Barrier(count)

    def run(number: int) -> Any:
        gate.wait(LIMIT)
        try:
            return function(number)
        except Exception as error:  # noqa: BLE001 - the test checks it
            return error

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))
