"""Storages: they save a token beyond the end of the process, and let many processes share one token.

Write `Reauth(grant, storage=FileStorage("~/.config/app/token.json"))`. The storages are:

- `FileStorage(path)`: for the processes of one machine (`pip install "httpx-reauth[file]"`).
- `RedisStorage(client, key=...)`: for many machines (`[redis]`).
- `KeyringStorage(service, user=...)`: for the secret store of a desktop (`[keyring]`).
- `EncryptedStorage(inner, fernet)`: around one of the others, to encrypt its token (`[encrypted]`).
- `MemoryStorage()`: for several `Reauth` objects of one process, and for tests.
- Your own storage: a class with the four functions of `Storage`. To test it, write a class that inherits from
  `httpx_reauth.testing.StorageContract`.

The stored document is a JSON object with a version, absolute times, and all fields of the token. Fields that this
version does not know are preserved. If a document cannot be read, `load` raises a `StorageError`: the document is
damaged, belongs to another program, or was written by a newer version. Such a document is never overwritten.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from httpx_reauth._errors import StorageError
from httpx_reauth.storage.base import Storage

if TYPE_CHECKING:
    from httpx_reauth.storage.encrypted import EncryptedStorage
    from httpx_reauth.storage.file import FileStorage
    from httpx_reauth.storage.keyring import KeyringStorage
    from httpx_reauth.storage.memory import MemoryStorage
    from httpx_reauth.storage.redis import RedisStorage

__all__ = [
    "EncryptedStorage",
    "FileStorage",
    "KeyringStorage",
    "MemoryStorage",
    "RedisStorage",
    "Storage",
    "StorageError",
]

Storage.__module__ = __name__  # for tracebacks and `help`; the other classes set it themselves

# Each class is imported at its first use: the core needs only the protocol.
_MODULES = {
    "EncryptedStorage": "encrypted",
    "FileStorage": "file",
    "KeyringStorage": "keyring",
    "MemoryStorage": "memory",
    "RedisStorage": "redis",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(f"httpx_reauth.storage.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
