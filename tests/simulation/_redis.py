"""The simulated Redis, of which the real `RedisStorage` is a client: leases, lost replies, lost data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from httpx_reauth import Token
from httpx_reauth.storage import RedisStorage, document
from httpx_reauth.storage.redis_scripts import GIVE_BACK, TAKE, WRITE

from ._kernel import Home, Kernel

if TYPE_CHECKING:
    from ._server import Server
    from ._settings import Settings
    from ._values import Ask
    from ._world import Process

_HANGS = 3.0  # seconds at most, until a client gives up a call


class Data:
    """Both keys, and the scripts of `redis_scripts.py` once more in Python. Each script is one atomic step."""

    def __init__(self) -> None:
        self.value = ""
        self._holder: str | None = None
        self._ends = 0.0

    def holder(self, now: float) -> str | None:
        """Who has the lease. It ends by true time."""
        if now >= self._ends:
            self._holder = None
        return self._holder

    def take(self, now: float, caller: str, milliseconds: int) -> list[str] | None:
        if self.holder(now) not in {None, caller}:
            return None
        self._holder, self._ends = caller, now + milliseconds / 1000
        return [self.value]

    def write(self, now: float, caller: str, expected: str, value: str) -> int:
        if self.value == value:
            return 1
        if self.holder(now) != caller and self.value != expected:
            return 0
        self.value = value
        return 1

    def give_back(self, now: float, caller: str) -> int:
        return self.delete(now) if self.holder(now) == caller else 0

    def delete(self, now: float) -> int:
        """Delete the lease, also that of another holder."""
        was_held, self._holder = self.holder(now) is not None, None
        return int(was_held)


class Lease:
    """A lease, and what is known of its holder.

    Attributes:
        process: the holder.
        ends: when it expires, in true time.
        value: what was stored when the lease was taken, or what its holder has written since.
        asks: the token requests that were made under it, and whose outcome was not saved under it.
        unsure: what its holder has written last, if it has not heard that this has worked.
        is_dropped: Redis has lost it.
        is_forgotten: the reply to the take was lost, and the lease was not given back since.
        is_excused: a Redis command of its holder has failed, so that what the holder does may take longer.
    """

    def __init__(self, kernel: Kernel, process: Process, ends: float, value: str) -> None:
        self.process = process
        self.ends = ends
        self.value = value
        self.asks: list[Ask] = []
        self.unsure = ""
        self.disturbed = process.disturbed
        self.is_dropped = self.is_forgotten = self.is_excused = False
        self._kernel = kernel
        self._was_lost: bool | None = None

    @property
    def is_lost(self) -> bool:
        """Has, or had, its holder lost it while it went by it?"""
        if self._was_lost is not None:
            return self._was_lost
        return self.is_dropped or self._kernel.now >= self.ends

    def end(self) -> None:
        """From now on its holder does not go by it."""
        self._was_lost = self.is_lost


class SimRedis:
    """The server."""

    def __init__(self, kernel: Kernel, settings: Settings, server: Server) -> None:
        self.kernel = kernel
        self.settings = settings
        self.server = server
        self.data = Data()
        self.held: dict[str, Lease] = {}  # by the owner's name: the leases that processes go by
        self.is_away = False  # no call works
        self._last: Lease | None = None  # that was taken
        self.at_next_use: Callable[[Lease], object] | None = None

    def storage(self, process: Process) -> RedisStorage:
        return RedisStorage(SimClient(self, process), key="token")

    @property
    def token(self) -> Token | None:
        return document.read(self.data.value, "Redis").token

    def put(self, token: Token) -> None:
        """Another program has saved `token`."""
        self.data.value = document.write(token, {})

    def lease_of(self, storage: RedisStorage, *, is_given_up: bool) -> Lease | None:
        """The lease that `storage` goes by, for a token request that begins."""
        lease = self.held.get(storage._owner)
        if lease is None and is_given_up:
            return None
        if lease is None:
            self.kernel.fail("a token request without the storage's lease")
            return None
        self.use(lease)
        return lease

    def use(self, lease: Lease) -> None:
        """Something of consequence begins under `lease`."""
        self.at_next_use, at_use = None, self.at_next_use
        if at_use is not None and not self.server.is_calm:
            at_use(lease)

    def crashed(self, home: Home) -> None:
        for name, lease in list(self.held.items()):
            if lease.process.home is home:
                self.excuse(lease, "its process died before it was saved")
                lease.end()
                del self.held[name]

    def lose(self) -> None:
        """It loses the lease, and perhaps the token as well."""
        self.server.troubles += 1
        self.data.delete(self.kernel.now)
        # The last one may have been taken without its holder knowing it yet: the reply is still on its way.
        leases = [*self.held.values(), *([] if self._last is None else [self._last])]
        for lease in leases:
            lease.is_dropped = True
        if self.kernel.random.random() < 0.5:
            self.data.value = ""
            for lease in leases:
                lease.value = ""
            for known in self.server.refresh.values():  # somebody may have seen it there last
                if known.successor:
                    known.excuse = known.excuse or "Redis has lost its data"

    def excuse(self, lease: Lease, why: str) -> None:
        """What was spent under `lease` may come again: its successor did not get here."""
        for ask in lease.asks:
            if ask.spent:
                known = self.server.refresh[ask.spent]
                known.excuse = known.excuse or why

    def _excuse_sign_in(self, lease: Lease) -> None:
        """Excuse a sign-in, or its renewal, that was saved, but that its process takes for unsaved.

        The process writes it again later, even if others have renewed it since: a sign-in replaces any stored token. If
        the lease was lost as well, others may have renewed any token before the process tried again.
        """
        token = document.read(lease.unsure, "Redis").token
        known = None if token is None else self.server.refresh.get(token.refresh_token or "")
        is_unsaved = any(auth.store._state.pending_write == "signed in" for auth in lease.process.alive)
        if known is not None and (known.is_signed_in or is_unsaved or lease.is_lost):
            known.excuse = "the reply to its save was lost"

    def take(self, process: Process, owner: str, milliseconds: int) -> Lease | None:
        now = self.kernel.now
        taken = self.data.take(now, owner, milliseconds)
        if taken is None:
            if self._last is not None and self._last.is_forgotten and not self._last.process.home.is_dead:
                self.kernel.fail("a lease that nobody goes by keeps the others away: it was not given back")
            return None
        if owner in self.held:
            self.kernel.fail("a lease was taken twice")
        self._last = Lease(self.kernel, process, now + milliseconds / 1000, taken[0])
        return self._last

    def write(self, lease: Lease, owner: str, expected: str, value: str) -> int:
        data, now = self.data, self.kernel.now
        has_lease, before = data.holder(now) == owner, data.value
        if not data.write(now, owner, expected, value):
            return 0
        if before not in {value, lease.value} and not has_lease:
            self.kernel.fail("a process that has lost its lease overwrites what another one has written since")
        lease.value = value
        if has_lease:  # the next holder of the lease finds it
            for ask in lease.asks:
                ask.lease = None
            lease.asks.clear()
        return 1

    def give_back(self, owner: str) -> None:
        """Somebody is about to do so."""
        if self._last is not None:
            self._last.is_forgotten = False
        lease = self.held.pop(owner, None)
        if lease is None:
            return
        lease.end()
        if lease.unsure:
            self._excuse_sign_in(lease)
        is_slow = self.settings.refresh == "sync" or self.settings.no_threads or lease.is_excused
        if lease.is_lost and not (lease.is_dropped or is_slow or lease.process.disturbed != lease.disturbed):
            self.kernel.fail("a lease has expired, though its holder did not stand still")


class SimClient:
    """One process's `redis.Redis`."""

    def __init__(self, redis: SimRedis, process: Process) -> None:
        self._redis = redis
        self._process = process

    def get(self, _key: str) -> str | None:
        return self._call("get", lambda: self._redis.data.value or None)

    def eval(self, script: str, keys: int, *arguments: Any) -> Any:
        return getattr(self, SCRIPTS[script])(*arguments[keys:])

    def _take(self, owner: str, milliseconds: int) -> list[str] | None:
        redis, taken = self._redis, list[Lease]()

        def take() -> None:
            lease = redis.take(self._process, owner, milliseconds)
            taken.extend([] if lease is None else [lease])

        try:
            self._call("take", take)
        except ConnectionError:
            for lease in taken:
                lease.is_forgotten = True
            raise
        for lease in taken:
            redis.held[owner] = lease
            return [lease.value]
        return None

    def _write(self, owner: str, expected: bytes, value: str, seconds: int) -> int:
        redis, answers = self._redis, list[int]()
        lease = redis.held.get(owner)
        if lease is None:
            redis.kernel.fail("written without the storage's lease")
            return 0
        redis.use(lease)
        what = "clear" if seconds else "save"
        try:
            self._call(what, lambda: answers.append(redis.write(lease, owner, expected.decode(), value)))
        except ConnectionError:
            if answers == [1]:
                lease.unsure = value
            elif not answers:
                redis.excuse(lease, f"Redis did not {what} what followed it")
            raise
        if answers[0]:  # else it is refused, and the one before has perhaps taken effect
            lease.unsure = ""
        return answers[0]

    def _give_back(self, owner: str) -> int:
        redis = self._redis
        redis.give_back(owner)
        return self._call("give back", lambda: redis.data.give_back(redis.kernel.now, owner))

    def _delete(self, owner: str) -> int:
        redis = self._redis
        redis.give_back(owner)
        return self._call("delete", lambda: redis.data.delete(redis.kernel.now))

    def _call(self, what: str, function: Callable[[], Any]) -> Any:
        """Call `function`, on a server that is some way off. The call may fail before that, or its reply be lost."""
        redis = self._redis
        kernel, random = redis.kernel, redis.kernel.random.random
        self._takes_time()
        fails = not redis.server.is_calm and (redis.is_away or random() < redis.settings.storage_faults)
        if fails and (redis.is_away or random() < 0.5):
            raise self._failed(what)
        answer = function()
        self._takes_time()
        if fails:
            raise self._failed(f"{what} (its reply)")
        if kernel.trace is not None and what != "get":
            kernel.note("redis:", what, answer if isinstance(answer, int) else "")
        return answer

    def _takes_time(self) -> None:
        kernel = self._redis.kernel
        kernel.point()
        if kernel.random.random() < 0.1:
            kernel.sleep(kernel.random.random() * 0.05)

    def _failed(self, what: str) -> ConnectionError:
        redis = self._redis
        redis.server.troubles += 1
        redis.kernel.note("redis:", what, "fails")
        for lease in redis.held.values():
            lease.is_excused = lease.is_excused or lease.process is self._process
        if redis.kernel.random.random() < 0.3:
            redis.kernel.sleep(redis.kernel.random.random() * _HANGS)
        return ConnectionError("Redis is out of reach")


DELETE = "return redis.call('DEL', KEYS[1])"  # a mistake: `_mutants` puts it in the place of GIVE_BACK
SCRIPTS = {TAKE: "_take", WRITE: "_write", GIVE_BACK: "_give_back", DELETE: "_delete"}
