"""A storage in Redis or Valkey, for many machines."""

from __future__ import annotations

import logging
import os
import threading
import time
from binascii import crc_hqx
from contextlib import AbstractContextManager, suppress
from importlib import import_module
from inspect import iscoroutinefunction
from itertools import count
from secrets import token_hex
from typing import Any
from weakref import WeakKeyDictionary

from httpx_reauth._errors import StorageError
from httpx_reauth._token import Token, Unpicklable
from httpx_reauth.storage import document
from httpx_reauth.storage.base import check_place
from httpx_reauth.storage.locks import HeldLock, ThreadLock
from httpx_reauth.storage.redis_scripts import GIVE_BACK, TAKE, WRITE

_log = logging.getLogger("httpx_reauth")

# Seconds for which Redis keeps the note of a sign-out. Without the note, it would look as if Redis had lost its data.
_SIGNED_OUT_FOR = 30 * 24 * 3600
_SLOTS = 16384  # slots of a cluster
_PATIENCE = 5.0  # seconds: the `socket_timeout` of a client made by `from_url`
_CONNECTION_WITHIN = 5.0  # seconds: the longest wait for a free connection, if all connections of a client are in use
_CONNECTION_LOOK = 0.001  # seconds between two tries to get a connection, by one of the threads that wait


class RedisStorage(Unpicklable):
    """Saves one token under a key of Redis (6 or newer) or Valkey, for all processes and hosts that use the key.

    The lock is a lease: if its holder crashes, the lease expires after some time. A holder also loses the lease if it
    takes longer, for example because its process is suspended, or because its refresh function runs longer than the
    refresh timeout. If another process has written since, a write of this holder is refused. (One script compares and
    writes.) But the server may have received two token requests; no lease can prevent that. A wait for the lease
    occupies no connection.

    If Redis loses its data, a process uses the token that it last read there, and saves the next one. So it is not
    enough to delete the key if you want to sign out. Call `sign_out`, which Redis remembers for 30 days. Configure
    Redis without eviction and with persistence.

    Args:
        client: a `redis.Redis` (or `valkey.Valkey`). Give it a `socket_timeout` and few retries: if Redis cannot be
            reached, a refresh fails only after these. `RedisStorage.from_url` makes a client.
        key: the key, one for each token: `f"app:token:{user_id}"`. The lock has the key `{key}:lock`, in the same slot
            of a cluster; if your key has braces, the lock's key is longer.

    Raises:
        TypeError: `key` is not a string. Or `client` is async, or is not a client. A storage is called in a thread, so
            it cannot use an async client.
        ValueError: `key` is empty.
    """

    __module__ = "httpx_reauth.storage"
    __slots__ = ("_client", "_expected", "_id", "_is_warned", "_last", "_lock", "_tag", "key")

    def __init__(self, client: Any, *, key: str) -> None:
        _check_client(client)
        check_place("key", key)
        self.key = key
        self._tag = _slot_tag(key)
        self._client = client
        self._id = token_hex()
        self._lock = ThreadLock()
        self._expected: bytes | None = None  # the value read or saved last under the lease; None without it
        self._last: Token | None = None  # the token that was read or saved last
        self._is_warned = False

    @classmethod
    def from_url(cls, url: str, *, key: str, **settings: Any) -> RedisStorage:
        """Return a storage with a new client.

        Args:
            url: the URL of the server, as for `redis.Redis.from_url`: `"redis://localhost:6379/0"`, `"rediss://..."`.
            key: the key, one for each token.
            **settings: the settings of the client; the default of `socket_timeout` is 5 seconds.

        Raises:
            ImportError: redis is not installed (`pip install "httpx-reauth[redis]"`).
        """
        try:
            redis: Any = import_module("redis")  # its types are incomplete
        except ImportError as error:
            raise ImportError(
                'RedisStorage.from_url needs redis: pip install "httpx-reauth[redis]"', name="redis"
            ) from error
        return cls(redis.Redis.from_url(url, **{"socket_timeout": _PATIENCE, **settings}), key=key)

    def load(self) -> Token | None:
        """Return the stored token, or None if there is none.

        Raises:
            StorageError: a Redis command failed, or the key has a value that is not a document of this library.
        """
        raw = self._read()
        if not raw:
            if self._last is not None and not self._is_warned:
                self._is_warned = True
                _log.warning("%r has lost its data; going on with the token that was seen there last.", self)
            return self._last
        self._is_warned = False
        self._last = document.read(raw, repr(self)).token
        return self._last

    def save(self, token: Token) -> None:
        """Save `token`, as durably as Redis is configured.

        Raises:
            StorageError: a Redis command failed, or the key has a value that is not a document of this library. Or the
                lease was lost, and another process has written since.
        """
        expected = self._read() if self._expected is None else self._expected
        self._write(expected, document.write(token, document.read(expected, repr(self)).unknown), 0)
        self._last = token

    def clear(self) -> None:
        """Replace the stored token by a note that somebody signed out.

        Raises:
            StorageError: for the same reasons as in `save`.
        """
        expected = self._read() if self._expected is None else self._expected
        document.read(expected, repr(self))
        self._write(expected, document.write_signed_out(), _SIGNED_OUT_FOR)
        self._last = None

    def try_lock(self, lease: float) -> AbstractContextManager[object] | None:
        """Take the lease between all processes and hosts that use the key; None: another thread or process holds it.

        Args:
            lease: seconds after which the lease expires, if its holder does not release it.

        Raises:
            StorageError: a Redis command failed.
        """
        mine = self._lock.try_lock()
        if mine is None:  # a thread of this process holds the lease
            return None
        try:
            keys = self._lease_key, self.key
            try:
                answer = self._call("eval", TAKE, len(keys), *keys, self._owner, max(1, int(1000 * lease)))
            except StorageError:
                with suppress(StorageError):  # Redis may have given the lease, and only the reply was lost
                    self._give_back()
                raise
            if answer is None:
                mine.__exit__()
                return None
            self._expected = _as_bytes(answer[0])
        except BaseException:
            mine.__exit__()
            raise

        def release() -> None:
            self._expected = None
            try:
                self._give_back()
            finally:
                mine.__exit__()

        return HeldLock(release)

    def _write(self, expected: bytes, text: str, seconds: int) -> None:
        keys = self._lease_key, self.key
        if not self._call("eval", WRITE, len(keys), *keys, self._owner, expected, text, seconds):
            raise StorageError(
                f"{self!r} is not overwritten: this process has lost its lease, and somebody else has written there "
                "since. Did the refresh, or this process, stand still for longer than the lease?"
            )
        if self._expected is not None:
            self._expected = text.encode()

    def _give_back(self) -> None:
        self._call("eval", GIVE_BACK, 1, self._lease_key, self._owner)

    def _read(self) -> bytes:
        return _as_bytes(self._call("get", self.key))

    def _call(self, command: str, *arguments: Any) -> Any:
        try:
            return self._call_once(command, arguments)
        except Exception as error:
            if not _has_no_free_connection(error):
                raise self._failed(error) from error
        # All connections of the pool are in use. Only one of the waiting threads tries at a time: if all of them tried,
        # they would slow down the threads that have a connection.
        turn, give_up_at = _turn_of(self._client), time.monotonic() + _CONNECTION_WITHIN
        is_mine = turn.acquire(timeout=_CONNECTION_WITHIN)
        try:
            while True:
                try:
                    return self._call_once(command, arguments)
                except Exception as error:
                    if not _has_no_free_connection(error) or time.monotonic() >= give_up_at:
                        raise self._failed(error) from error
                    time.sleep(_CONNECTION_LOOK)
        finally:
            if is_mine:
                turn.release()

    def _call_once(self, command: str, arguments: tuple[Any, ...]) -> Any:
        return getattr(self._client, command)(*arguments)

    def _failed(self, error: Exception) -> StorageError:
        return StorageError(
            f"A Redis command failed for {self!r} ({type(error).__name__}). Is it running, reachable, "
            "and are this user and this client allowed to GET, SET and EVAL there?"
        )

    @property
    def _owner(self) -> str:
        return f"{self._id}:{os.getpid()}"  # a forked child is another owner

    @property
    def _lease_key(self) -> str:
        """The key of the lease. Its hash tag puts it in the same slot of a cluster as the token's key."""
        return f"{{{self._tag}}}:lock" if self._tag == self.key else f"{{{self._tag}}}:{self.key}:lock"

    def __eq__(self, other: object) -> bool:
        """Is `other` a `RedisStorage` for the same key of the same client?"""
        return type(other) is type(self) and other.key == self.key and other._client is self._client

    def __hash__(self) -> int:
        return hash((RedisStorage, id(self._client), self.key))

    def __repr__(self) -> str:
        return f"RedisStorage(key={self.key!r})"


def _check_client(client: Any) -> None:
    if isinstance(client, (str, bytes)):
        raise TypeError("RedisStorage takes a client, not a URL: write RedisStorage.from_url(url, key=...).")
    if isinstance(client, type) or not all(callable(getattr(client, name, None)) for name in ("get", "eval")):
        what = f"the class {client.__name__}" if isinstance(client, type) else type(client).__name__
        raise TypeError(f"RedisStorage takes a redis.Redis, made with its settings, not {what}.")
    if iscoroutinefunction(getattr(client, "execute_command", None)):
        raise TypeError("RedisStorage takes a redis.Redis, not an async client; it is called in a thread.")


_turns: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()


def _turn_of(client: Any) -> threading.Lock:
    """Return the lock between the threads that wait for a connection of `client`."""
    return _turns.setdefault(client, threading.Lock())


def _has_no_free_connection(error: Exception) -> bool:
    """Does `error` mean that all connections of the client are in use? Older versions of redis have no class for it."""
    return type(error).__name__ == "MaxConnectionsError" or str(error) in (
        "Too many connections",
        "No connection available.",
    )


def _slot_tag(key: str) -> str:
    """Return a hash tag for the slot of `key`, without its braces (Redis Cluster Specification, "Hash tags")."""
    start = key.find("{")
    end = key.find("}", start + 1) if start >= 0 else -1
    if end > start + 1:
        return key[start + 1 : end]
    if "}" not in key:
        return key
    slot = _slot_of(key)  # the whole key counts for its slot, but a hash tag cannot contain its "}"
    return next(str(number) for number in count() if _slot_of(str(number)) == slot)


def _slot_of(text: str) -> int:
    return crc_hqx(text.encode(), 0) % _SLOTS


def _as_bytes(held: str | bytes | None) -> bytes:
    if not isinstance(held, str):
        return held or b""
    try:  # a client may have decoded bytes that are not UTF-8; `document.read` reports such a document as damaged
        return held.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return held.encode(errors="surrogatepass")
