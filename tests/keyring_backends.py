"""A secret store in memory, which tests use instead of the desktop's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keyring
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError, PasswordSetError


class KeyringInMemory(KeyringBackend):
    """A secret store in memory. An entry may have at most `room` characters. If `room` is None, there is no limit."""

    priority = 0

    def __init__(self, room: int | None = None) -> None:
        super().__init__()
        self.room = room
        self.is_locked = False
        self.held: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        self._check()
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._check()
        if self.room is not None and len(password) > self.room:
            raise PasswordSetError("The stub received bad data")
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._check()
        if self.held.pop((service, username), None) is None:
            raise PasswordDeleteError(service)

    def _check(self) -> None:
        if self.is_locked:
            raise KeyringLocked("Failed to unlock the collection!")


@contextmanager
def use_keyring(backend: KeyringBackend) -> Iterator[None]:
    before = keyring.core._keyring_backend
    keyring.set_keyring(backend)
    try:
        yield
    finally:
        keyring.core._keyring_backend = before
