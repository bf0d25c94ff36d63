"""Where a token outlives its process, and how many processes share one.

`Reauth(grant, storage=FileStorage("~/.config/app/token.json"))` is all it takes. Which one:

- `FileStorage(path)`: the processes of one machine (`pip install "httpx-reauth[file]"`).
- `RedisStorage(client, key=...)`: a fleet (`[redis]`).
- `KeyringStorage(service, user=...)`: the secret store of a desktop (`[keyring]`).
- `EncryptedStorage(inner, fernet)`: any of them, with nothing readable in it (`[encrypted]`).
- `MemoryStorage()`: several `Reauth` objects of one process, and tests.
- Your own: a class with the four functions of `Storage`, tested by inheriting
  `httpx_reauth.testing.StorageContract`.

What is written is a JSON object with a version, absolute times, and every field of the token; fields that this version
does not know are kept. What is held and cannot be read (damaged, of a newer version, somebody else's) is a
`StorageError`, and is never overwritten.
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

Storage.__module__ = __name__  # as tracebacks and `help` say it; each of the others says so itself

# Each is imported when it is first named: the core needs the protocol alone.
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
    """What is public."""
    return sorted(__all__)
