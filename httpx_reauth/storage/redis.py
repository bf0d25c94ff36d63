"""A storage in Redis or Valkey, for a fleet."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from inspect import iscoroutinefunction
from secrets import token_hex
from typing import Any

from httpx_reauth._errors import StorageError
from httpx_reauth._token import Discreet, Token
from httpx_reauth.storage import document
from httpx_reauth.storage.redis_scripts import GIVE_BACK, SAVE, TAKE
from httpx_reauth.storage.waiting import Stopwatch, ThreadLock

_log = logging.getLogger("httpx_reauth")

_BEYOND_TIMEOUT = 10.0  # seconds that a lease outlasts the time a refresh may take: time to save
_LOOK = 1.0  # seconds between two looks at a lease that is waited for, should nobody have rung
_SIGNED_OUT_FOR = 30 * 24 * 3600  # seconds; that long, everybody can tell a sign-out from a Redis that lost its data


class RedisStorage(Discreet):
    """Holds one token under a key of Redis (6 or newer) or Valkey, for all processes and hosts that use the key.

    The lock is a lease: `lock(timeout)` holds it for `timeout` and 10 seconds more, so that it outlasts the refresh. A
    holder that dies blocks the others for that long at most. A holder that takes longer, because its process stood
    still or its refresh is a function that outruns the refresh timeout, has lost it: what it saves then is refused if
    anybody has saved since (one script compares and sets), but two refreshes may have been made; no lease can rule
    that out.

    If Redis loses its data, though nobody has signed out, a process goes on with the token that it last saw there and
    saves its successor. So deleting the key is no sign-out; `sign_out` is, and is remembered for 30 days. Let Redis
    evict nothing, and persist.

    Args:
        client: a `redis.Redis` (or `valkey.Valkey`). Give it a `socket_timeout`, and few retries: when Redis is away,
            its patience is how long a refresh takes to fail. While waiting for the lease it holds one connection.
        key: the key, one for each token: `f"app:token:{user_id}"`. Beside it lie `{key}:lock`, `{key}:waiting` and
            `{key}:wake`, in the same slot of a cluster.
        lease: how many seconds the lease lasts, if not the timeout and 10 seconds more.

    Raises:
        TypeError: the client is an async one. A storage is called in a thread of its own, never on an event loop.
    """

    __slots__ = ("_brought", "_client", "_id", "_last", "_loaded", "_lock", "key", "lease")

    def __init__(self, client: Any, *, key: str, lease: float | None = None) -> None:
        if iscoroutinefunction(client.execute_command):
            raise TypeError("RedisStorage takes a redis.Redis, not an async client; it is called in a thread.")
        if lease is not None and lease < 0.001:
            raise ValueError("lease must be a number of seconds, more than the refresh timeout.")
        self.key = key
        self.lease = lease
        self._client = client
        self._id = token_hex()
        self._lock = ThreadLock()
        self._brought: bytes | None = None  # what came with the lease, for the first load
        self._loaded: bytes | None = None  # what was loaded under the lease that is held
        self._last: Token | None = None  # what was seen last

    def load(self) -> Token | None:
        """The token that is held, or None if there is none.

        Raises:
            StorageError: Redis is away, or holds something else under the key.
        """
        raw, self._brought = self._brought or self._read(), None
        if not raw:
            if self._last is not None:
                _log.warning("%r has lost its data; going on with the token that was seen there last.", self)
            self._loaded = raw
            return self._last
        self._last = document.read(raw, repr(self)).token
        self._loaded = raw
        return self._last

    def save(self, token: Token) -> None:
        """Hold `token` from now on, as durably as Redis is configured to.

        Raises:
            StorageError: Redis is away, or holds something else under the key; or the lease was lost, and somebody
                else has saved a token since.
        """
        held = self._read()
        unknown = (document.read(held, repr(self)) if held else document.Document()).unknown
        basis = held if self._loaded is None else self._loaded
        keys, text = self._keys("lock", "", "waiting", "wake"), document.write(token, unknown)
        if not self._call("eval", SAVE, len(keys), *keys, self._owner, basis, text):
            raise StorageError(
                f"{self!r} is not overwritten: this process has lost its lease, and somebody else has saved a token "
                "since. Did the refresh, or this process, stand still for longer than the lease?"
            )
        self._last = token
        if self._loaded is not None:
            self._loaded = text.encode()

    def clear(self) -> None:
        """Hold no token from now on; it is remembered that somebody signed out.

        Raises:
            StorageError: Redis is away, or holds something else under the key.
        """
        held = self._read()
        if held:
            document.read(held, repr(self))
        self._call("set", self.key, document.write_signed_out(), ex=_SIGNED_OUT_FOR)
        self._last = None

    @contextmanager
    def lock(self, timeout: float) -> Generator[None, None, None]:
        """A context that one holder at a time is in, over all that use the key, as long as the lease lasts.

        Raises:
            StorageError: Redis is away, or somebody else was in it for `timeout` seconds.
        """
        with self._lock_unless(timeout, None):
            yield

    @contextmanager
    def lock_unless(self, timeout: float, is_enough: Callable[[Token], bool]) -> Generator[Token | None, None, None]:
        """`lock`; or a context without it, entered with the token that somebody else has saved meanwhile.

        Args:
            timeout: seconds to wait for either.
            is_enough: says whether that token is a reason to wait no longer.

        Raises:
            StorageError: as for `lock`.
        """
        with self._lock_unless(timeout, is_enough) as found:
            yield found

    @contextmanager
    def _lock_unless(
        self, timeout: float, is_enough: Callable[[Token], bool] | None
    ) -> Generator[Token | None, None, None]:
        watch = Stopwatch(timeout)
        if not self._lock.acquire(timeout):
            raise StorageError(f"Another thread of this process has held {self!r} for {timeout:g} s.")
        try:
            lease = int(1000 * (timeout + _BEYOND_TIMEOUT if self.lease is None else self.lease))
            self._loaded = None
            found = self._take(watch, lease, is_enough)
            if found is not None:
                yield found
                return
            try:
                yield None
            finally:
                self._loaded = self._brought = None
                keys = self._keys("lock", "waiting", "wake")
                self._call("eval", GIVE_BACK, len(keys), *keys, self._owner)
        finally:
            self._lock.release()

    def _take(self, watch: Stopwatch, lease: int, is_enough: Callable[[Token], bool] | None) -> Token | None:
        """None, once the lease is mine; or what somebody else has saved, if that is enough."""
        keys, is_counted, seen = self._keys("lock", "", "waiting"), False, b""
        while True:
            is_mine, remaining, held = self._call("eval", TAKE, len(keys), *keys, self._owner, lease, int(is_counted))
            raw = _as_bytes(held)
            if is_mine:
                self._brought = raw
                return None
            if raw != seen and (found := self._found(raw, is_enough)) is not None:
                return found
            if not watch.left:
                raise StorageError(
                    f"Somebody else has held the lease of {self!r} for {watch.timeout:g} s. If it has died, the lease "
                    f"ends in {max(0, remaining) / 1000:g} s."
                )
            seen, is_counted = raw, not self._is_woken(watch, remaining / 1000)
            if not is_counted and is_enough is not None:  # rung for: the token is there, as a rule
                raw = self._read()
                if raw != seen and (found := self._found(raw, is_enough)) is not None:
                    return found
                seen = raw

    def _found(self, raw: bytes, is_enough: Callable[[Token], bool] | None) -> Token | None:
        """The token that is held, if it is enough."""
        if is_enough is None or not raw:
            return None
        self._brought = raw
        try:
            held = self.load()
        except StorageError:  # said to whoever reads it with the lease
            return None
        finally:
            self._loaded = None
        return held if held is not None and is_enough(held) else None

    def _is_woken(self, watch: Stopwatch, remaining: float) -> bool:
        """Wait for a ring, for the end of the lease, or for the time of another look."""
        pool = getattr(self._client, "connection_pool", None)
        patience = getattr(pool, "connection_kwargs", {}).get("socket_timeout") or 2 * _LOOK
        seconds = min(watch.left, _LOOK, patience / 2, max(0.001, remaining))
        try:
            return bool(self._client.blpop([self._beside("wake")], timeout=seconds))
        except Exception:  # noqa: BLE001 - not allowed here; or Redis is away, as the next look will tell
            watch.pause()
            return False

    def _read(self) -> bytes:
        return _as_bytes(self._call("get", self.key))

    def _call(self, command: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._client, command)(*arguments, **options)
        except Exception as error:
            raise StorageError(
                f"A Redis command failed for {self!r} ({type(error).__name__}; see the cause). Is it running, "
                "reachable, and are this user and this client allowed to GET, SET and EVAL there?"
            ) from error

    @property
    def _owner(self) -> str:
        return f"{self._id}:{os.getpid()}"  # a forked child is somebody else

    def _keys(self, *names: str) -> list[str]:
        """The keys with these names beside the token's, which has none itself."""
        return [self._beside(name) if name else self.key for name in names]

    def _beside(self, name: str) -> str:
        return f"{self.key}:{name}" if "{" in self.key else f"{{{self.key}}}:{name}"

    def __repr__(self) -> str:
        return f"RedisStorage(key={self.key!r})"


def _as_bytes(held: str | bytes | None) -> bytes:
    if not isinstance(held, str):
        return held or b""
    try:  # a client may have put up with bytes that are no UTF-8; what they stand in is damaged, as its reader will say
        return held.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return held.encode(errors="surrogatepass")
