"""Where a token outlives its process, and how many processes share one (beside the floors).

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

from httpx_reauth._errors import StorageError
from httpx_reauth._storage import Storage

from ._encrypted import EncryptedStorage
from ._file import FileStorage
from ._keyring import KeyringStorage
from ._memory import MemoryStorage
from ._redis import RedisStorage

__all__ = [
    "EncryptedStorage",
    "FileStorage",
    "KeyringStorage",
    "MemoryStorage",
    "RedisStorage",
    "Storage",
    "StorageError",
]
