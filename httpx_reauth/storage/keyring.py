"""A storage in the secret store of the user's desktop: Keychain, Credential Manager, Secret Service, KWallet."""

from __future__ import annotations

from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

from httpx_reauth._errors import StorageError
from httpx_reauth._token import Token
from httpx_reauth.storage import document
from httpx_reauth.storage.base import check_place
from httpx_reauth.storage.locks import make_private_folder, require_filelock, try_os_lock

# The backends of keyring for a machine without a secret store: the first raises errors, the second saves nothing.
_NO_STORE = ("keyring.backends.fail", "keyring.backends.null")


class KeyringStorage:
    """Saves one token in the secret store of the user's desktop, with the package keyring.

    If there is no secret store (a server, a container, a session without D-Bus), `try_lock` raises an error, before a
    token request is sent. Use a `FileStorage` there, or an `EncryptedStorage` around a `FileStorage`.

    The lock is a lock of the operating system on a file in `~/.cache/httpx_reauth`. All processes of a user use this
    folder, independently of their environment. All values of `user` for one service share one lock, since some secret
    stores save them in one entry.

    Windows' Credential Manager saves at most 1,280 characters. A token with large claims is longer. On Windows, save a
    Fernet key in the secret store, and the token in `EncryptedStorage(FileStorage(path), Fernet(key))`.

    Args:
        service: the name of your application, which the secret store shows.
        user: the name of the token's user; there is one entry for each user.

    Raises:
        ImportError: keyring or filelock is not installed (`pip install "httpx-reauth[keyring]"`).
        TypeError: `service` or `user` is not a string.
        ValueError: `service` or `user` is empty.
    """

    __module__ = "httpx_reauth.storage"
    __slots__ = ("service", "user")

    def __init__(self, service: str, *, user: str) -> None:
        _require_keyring()
        require_filelock("KeyringStorage", "keyring")
        check_place("service", service)
        check_place("user", user)
        self.service = service
        self.user = user

    def load(self) -> Token | None:
        """Return the stored token, or None.

        Raises:
            StorageError: there is no secret store, or it is locked, or the entry is not a document of this library.
        """
        return self._read().token

    def save(self, token: Token) -> None:
        """Save `token`.

        Raises:
            StorageError: the secret store refuses the token, or the entry is not a document of this library.
        """
        text = document.write(token, self._read().unknown)
        try:
            self._store().set_password(self.service, self.user, text)
        except Exception as error:
            raise StorageError(
                f"The secret store has not taken the token ({type(error).__name__}); what it held, it still holds. Is "
                f"it unlocked? This token takes {len(text)} characters; Windows' Credential Manager keeps 1280 at most."
            ) from error

    def clear(self) -> None:
        """Delete the stored token.

        Raises:
            StorageError: the secret store does not delete the entry, or the entry is not a document of this library.
        """
        if self._read().token is None:
            return
        try:
            self._store().delete_password(self.service, self.user)
        except Exception as error:
            raise StorageError(
                f"The secret store has not deleted the token ({type(error).__name__}), so it still holds it. "
                f"Delete the entry {self.service!r} of {self.user!r} there."
            ) from error

    def try_lock(self, lease: float) -> AbstractContextManager[object] | None:  # noqa: ARG002 - needs no lease
        """Take the lock between all processes of this user; None: another thread or process holds it.

        Raises:
            StorageError: there is no secret store, or the lock's file cannot be made.
        """
        self._store()
        folder = Path.home() / ".cache" / "httpx_reauth"
        make_private_folder(folder)
        name = f"keyring-{sha256(self.service.encode()).hexdigest()[:32]}.lock"
        return try_os_lock(require_filelock("KeyringStorage", "keyring"), folder / name)

    def _read(self) -> document.Document:
        store = self._store()
        try:
            text = store.get_password(self.service, self.user)
        except Exception as error:
            raise StorageError(
                f"The secret store cannot be read ({type(error).__name__}). Unlock it, or let this application read "
                "the entry."
            ) from error
        return document.read(text, repr(self)) if text else document.Document()

    def _store(self) -> Any:
        keyring = _require_keyring()
        try:
            store = keyring.get_keyring()
        except Exception as error:
            raise StorageError(
                f"The secret store that keyring is set to cannot be used ({type(error).__name__}). Look at "
                "PYTHON_KEYRING_BACKEND and at keyring's configuration file."
            ) from error
        if type(store).__module__ in _NO_STORE:
            raise StorageError(
                "This machine has no secret store that keyring could use, so nothing was asked of the server. On Linux "
                "it takes a desktop session with D-Bus and a Secret Service (gnome-keyring, KWallet). On a server or "
                "in a container use FileStorage, or EncryptedStorage around one."
            )
        return store

    def __eq__(self, other: object) -> bool:
        """Is `other` a `KeyringStorage` for the same entry?"""
        return type(other) is type(self) and (other.service, other.user) == (self.service, self.user)

    def __hash__(self) -> int:
        return hash((KeyringStorage, self.service, self.user))

    def __repr__(self) -> str:
        return f"KeyringStorage({self.service!r}, user={self.user!r})"


def _require_keyring() -> Any:
    try:
        import keyring
    except ImportError as error:
        raise ImportError(
            'KeyringStorage needs keyring: pip install "httpx-reauth[keyring]"', name="keyring"
        ) from error
    return keyring
