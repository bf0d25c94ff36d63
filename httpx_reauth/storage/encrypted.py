"""A storage that encrypts the token, and saves it in another storage."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from httpx_reauth._errors import StorageError
from httpx_reauth._token import Token, Unpicklable
from httpx_reauth.storage import document
from httpx_reauth.storage.base import CIPHERTEXT, Storage, check_storage
from httpx_reauth.storage.document import Document


class _Fernet(Protocol):
    """The `Fernet` or `MultiFernet` of the package cryptography, or an object with the same functions."""

    def encrypt(self, msg: bytes, /) -> bytes: ...

    def decrypt(self, msg: bytes, /) -> bytes: ...


class EncryptedStorage(Unpicklable):
    """Wraps any storage. The inner storage gets a token of the type `Fernet`, whose access token is the ciphertext.

    The ciphertext contains the whole token, with its times and extra fields. So the inner storage and its backups show
    only when the ciphertext was written, and its length.

    ```python
    from cryptography.fernet import Fernet, MultiFernet
    storage = EncryptedStorage(FileStorage(path), MultiFernet([Fernet(new_key), Fernet(old_key)]))
    ```

    `save` encrypts with the first key, and `load` accepts all keys. So you can remove the old key after the first
    renewal.

    Args:
        inner: the storage for the ciphertext.
        fernet: a `Fernet` or `MultiFernet` (`pip install "httpx-reauth[encrypted]"`).

    Raises:
        TypeError: `inner` is not a storage, or `fernet` is another object, for example a key.
    """

    __module__ = "httpx_reauth.storage"
    __slots__ = ("_fernet", "inner")

    def __init__(self, inner: Storage, fernet: _Fernet) -> None:
        is_fernet = callable(getattr(fernet, "encrypt", None)) and callable(getattr(fernet, "decrypt", None))
        if isinstance(fernet, type) or not is_fernet:
            raise TypeError(
                "EncryptedStorage takes a Fernet or MultiFernet of the cryptography package "
                '(pip install "httpx-reauth[encrypted]"), not a key or a class: Fernet(key).'
            )
        check_storage(inner)
        self.inner = inner
        self._fernet = fernet

    def load(self) -> Token | None:
        """Return the stored token, or None.

        Raises:
            StorageError: the stored token cannot be decrypted with these keys; or the inner storage raised the error.
        """
        return self._read().token

    def save(self, token: Token) -> None:
        """Save `token`.

        Raises:
            StorageError: the stored token cannot be decrypted with these keys; or the inner storage raised the error.
        """
        text = document.write(token, self._read().unknown)
        self.inner.save(Token(self._fernet.encrypt(text.encode()).decode(), token_type=CIPHERTEXT))

    def clear(self) -> None:
        """Delete the stored token. This needs no key."""
        self.inner.clear()

    def try_lock(self, lease: float) -> AbstractContextManager[object] | None:
        """Take the lock of the inner storage; None: another thread or process holds it."""
        return self.inner.try_lock(lease)

    def set_aside(self) -> bool:
        """Let the inner storage move a damaged document aside. A token that another key encrypted stays."""
        set_aside = getattr(self.inner, "set_aside", None)
        return callable(set_aside) and bool(set_aside())

    def _read(self) -> Document:
        held = self.inner.load()
        return Document() if held is None else self._document(held)

    def _document(self, held: Token) -> Document:
        text = self._decrypted(held)
        if text is None:  # the error is raised here, since an exception of `decrypt` may contain the ciphertext
            raise StorageError(
                f"What {self.inner!r} holds cannot be decrypted with these keys: it was encrypted with another one, is "
                "damaged, or was saved without EncryptedStorage. It is left as it is. If its key is lost, sign out "
                "(which needs none) and sign in again."
            )
        return document.read(text, repr(self))

    def _decrypted(self, held: Token) -> bytes | None:
        try:
            return self._fernet.decrypt(held.access_token.encode())
        except Exception:  # noqa: BLE001 - cryptography raises InvalidToken; another Fernet may raise anything
            return None

    def __eq__(self, other: object) -> bool:
        """Is `other` an `EncryptedStorage` around an equal storage?"""
        return type(other) is type(self) and other.inner == self.inner

    def __hash__(self) -> int:
        return hash((EncryptedStorage, self.inner))

    def __repr__(self) -> str:
        return f"EncryptedStorage({self.inner!r})"
