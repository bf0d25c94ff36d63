"""The storage that the simulated processes share, and its faults. If a process dies, its lock is released."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from httpx_reauth import Token

from ._kernel import Home, Kernel

if TYPE_CHECKING:
    from ._server import Server
    from ._settings import Settings
    from ._world import Process


class Vault:
    """What is held, and who has the lock: of a kind that the operating system takes from the dead at once."""

    def __init__(self, kernel: Kernel, settings: Settings, server: Server) -> None:
        self.kernel = kernel
        self.settings = settings
        self.server = server
        self.token: Token | None = None
        self.holder: Home | None = None
        self.is_away = False  # no call works

    def storage(self, process: Process) -> SimStorage:
        return SimStorage(self, process.home)

    def put(self, token: Token) -> None:
        """Another program has saved `token`."""
        self.token = token

    def lease_of(self, _storage: SimStorage, *, is_given_up: bool) -> None:
        """None: its lock is no lease."""

    def crashed(self, home: Home) -> None:
        if self.holder is home:
            self.release(home)
        self.excuse("its process died before it was saved")

    def release(self, home: Home) -> None:
        if self.holder is home:
            self.holder = None

    def excuse(self, why: str, *, by: Home | None = None) -> None:
        """What is held was spent (`by` that process), and its successor did not get here: it may come again."""
        held = None if self.token is None else self.server.refresh.get(self.token.refresh_token or "")
        if held is not None and by is not None and (held.spent_by is None or held.spent_by.home is not by):
            return
        if held is not None and held.successor:
            held.excuse = held.excuse or why


class SimStorage:
    """One process's way to the vault."""

    def __init__(self, vault: Vault, home: Home) -> None:
        self._vault = vault
        self._home = home

    def load(self) -> Token | None:
        self._takes_time("load")
        return self._vault.token

    def save(self, token: Token) -> None:
        try:
            self._takes_time("save")
        except OSError:
            self._vault.excuse("it could not be saved")
            raise
        self._vault.token = token
        self._note("saved", token.access_token, token.refresh_token)
        self._vault.kernel.point()

    def clear(self) -> None:
        try:
            self._takes_time("clear")
        except OSError:
            # A sign-out has superseded the refresh that has spent the stored token. It could not clear the storage, and
            # raises. No process keeps the new token, which was to be forgotten, and the next process finds the spent
            # one.
            self._vault.excuse("its sign-out could not clear it", by=self._home)
            raise
        self._vault.token = None
        self._note("cleared")
        self._vault.kernel.point()

    def try_lock(self, lease: float) -> AbstractContextManager[None] | None:
        vault = self._vault
        vault.kernel.point()
        if vault.holder is not None:
            return None
        vault.holder = self._home
        self._note("lock taken for", lease)
        return self._held()

    @contextmanager
    def _held(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._give_back()

    def _give_back(self) -> None:
        if not self._home.is_dead:
            self._note("lock released")
            self._vault.release(self._home)
            self._vault.kernel.point()

    def _takes_time(self, what: str) -> None:
        kernel, settings = self._vault.kernel, self._vault.settings
        if self._vault.holder is not self._home and what != "load":
            kernel.fail(f"{what} without the storage's lock")
        kernel.point()
        if kernel.random.random() < 0.2:
            kernel.sleep(kernel.random.random() * 0.05)
        fails = self._vault.is_away or kernel.random.random() < settings.storage_faults
        if fails and not self._vault.server.is_calm:
            self._vault.server.troubles += 1
            self._note(what, "fails")
            raise OSError("the disk is full")

    def _note(self, *words: object) -> None:
        self._vault.kernel.note("storage:", *words)
