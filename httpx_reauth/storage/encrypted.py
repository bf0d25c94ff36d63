"""A storage around a storage, in which nothing can be read without the key."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from httpx_reauth._errors import StorageError
from httpx_reauth._token import Token, Unpicklable
from httpx_reauth.storage import document
from httpx_reauth.storage.base import CIPHERTEXT, Storage, check_storage
from httpx_reauth.storage.document import Document


class _Fernet(Protocol):
    """cryptography's `Fernet` or `MultiFernet`, or anything that works as they do."""

    def encrypt(self, msg: bytes, /) -> bytes: ...

    def decrypt(self, msg: bytes, /) -> bytes: ...


class EncryptedStorage(Unpicklable):
    """Wraps any storage: what that one holds is a token of the type `Fernet`, whose access token is the ciphertext.

    The ciphertext holds the whole token, times and extra fields included, so the inner storage and its backups show
    when it was written and how long it is, and nothing else.

    ```python
    from cryptography.fernet import Fernet, MultiFernet
    storage = EncryptedStorage(FileStorage(path), MultiFernet([Fernet(new_key), Fernet(old_key)]))
    ```

    What is saved is encrypted with the first key, and any of them reads; so after the first renewal the old key may go.

    Args:
        inner: where the ciphertext is kept.
        fernet: a `Fernet` or `MultiFernet` (`pip install "httpx-reauth[encrypted]"`).

    Raises:
        TypeError: `inner` is no storage; or `fernet` is something else, a key for instance.
    """

    __module__ = "httpx_reauth.storage"
    __slots__ = ("_fernet", "inner")

    def __init__(self, inner: Storage, fernet: _Fernet) -> None:
        if not (callable(getattr(fernet, "encrypt", None)) and callable(getattr(fernet, "decrypt", None))):
            raise TypeError(
                "EncryptedStorage takes a Fernet or MultiFernet of the cryptography package "
                '(pip install "httpx-reauth[encrypted]"), not a key: Fernet(key).'
            )
        check_storage(inner)
        self.inner = inner
        self._fernet = fernet

    def load(self) -> Token | None:
        """The token that is held, or None.

        Raises:
            StorageError: it cannot be decrypted with these keys; or whatever the inner storage says.
        """
        return self._read().token

    def save(self, token: Token) -> None:
        """Hold `token` from now on.

        Raises:
            StorageError: what is held cannot be decrypted with these keys; or whatever the inner storage says.
        """
        text = document.write(token, self._read().unknown)
        self.inner.save(Token(self._fernet.encrypt(text.encode()).decode(), token_type=CIPHERTEXT))

    def clear(self) -> None:
        """Hold no token from now on; this needs no key."""
        self.inner.clear()

    def try_lock(self, lease: float) -> AbstractContextManager[object] | None:
        """The lock of the inner storage."""
        return self.inner.try_lock(lease)

    def set_aside(self) -> bool:
        """What the inner storage does with what is damaged; what was encrypted with another key stays."""
        set_aside = getattr(self.inner, "set_aside", None)
        return callable(set_aside) and bool(set_aside())

    def _read(self) -> Document:
        held = self.inner.load()
        return Document() if held is None else self._document(held)

    def _document(self, held: Token) -> Document:
        text = self._decrypted(held)
        if text is None:  # raised here, where nothing that holds the ciphertext is being handled
            raise StorageError(
                f"What {self.inner!r} holds cannot be decrypted with these keys: it was encrypted with another one, is "
                "damaged, or was saved without EncryptedStorage. It is left as it is. If its key is lost, sign out "
                "(which needs none) and sign in again."
            )
        return document.read(text, repr(self))

    def _decrypted(self, held: Token) -> bytes | None:
        try:
            return self._fernet.decrypt(held.access_token.encode())
        except Exception:  # noqa: BLE001 - cryptography's InvalidToken, or whatever another Fernet raises
            return None

    def __eq__(self, other: object) -> bool:
        """Is it around the same place?"""
        return type(other) is type(self) and other.inner == self.inner

    def __hash__(self) -> int:
        return hash((EncryptedStorage, self.inner))

    def __repr__(self) -> str:
        return f"EncryptedStorage({self.inner!r})"
