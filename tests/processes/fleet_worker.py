"""A fleet: real processes that share one token. Each obeys the commands that the test sends over a pipe.

A fork server has imported all modules, and starts the processes. Each makes its own storage, auth object and client.
"""

from __future__ import annotations

import codecs
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import redis

from httpx_reauth import Reauth, ReauthError, RefreshFulfilled, SaveFailed, Token
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.storage import FileStorage, RedisStorage, Storage
from httpx_reauth.testing._contract_steps import locked

LIMIT = 60.0  # seconds until a wait counts as a failure

_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
CONTEXT: Any = multiprocessing.get_context(_METHOD)


def _ensure_fork_server() -> None:
    """Start the fork server, if this system has one, with a path on which it finds the modules to import."""
    if _METHOD != "forkserver":
        return
    from multiprocessing import forkserver

    CONTEXT.set_forkserver_preload(["fleet_preload"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *([before] if before else [])])
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@dataclass(frozen=True)
class Place:
    """The place of the token. Each process makes its own storage there.

    Attributes:
        path: the path of a file, or "".
        socket: the path of a Redis server's socket, or "".
        lease: the lease of the Redis lock, in seconds.
    """

    path: str = ""
    socket: str = ""
    lease: float | None = None
    patience: float = 5.0  # seconds that the client waits for Redis

    def storage(self) -> FileStorage | RedisStorage:
        if self.path:
            return FileStorage(self.path)
        client = redis.Redis(unix_socket_path=self.socket, socket_timeout=self.patience)
        return RedisStorage(client, key="fleet:token")

    def hold(self, token: Token) -> None:
        storage = self.storage()
        with locked(storage):
            storage.save(token)

    def held(self) -> Token | None:
        return self.storage().load()


class SharedClock:
    """One clock for all processes and their server. When a test moves it, all see that at the same moment."""

    def __init__(self) -> None:
        self._seconds = CONTEXT.Value("d", 0.0)

    def monotonic(self) -> float:
        return 1000.0 + self._seconds.value

    def time(self) -> float:
        return 1.7e9 + self._seconds.value

    def advance(self, seconds: float) -> None:
        with self._seconds.get_lock():
            self._seconds.value += seconds


@dataclass(frozen=True)
class Order:
    """The orders of a worker.

    Attributes:
        url: the URL of the server.
        place: the place of the token.
        timeout: the `refresh_timeout`.
        stop_at: the step of a refresh at which the worker stops; see `_STEPS`.
        clock: the clock, or None for the machine's clock.
        user: the number of the user that the worker becomes first, or None.
    """

    url: str
    place: Place
    timeout: float = 30.0
    stop_at: str = ""
    clock: SharedClock | None = None
    user: int | None = None


@dataclass
class Worker:
    """One process, as the test sees it."""

    process: Any
    pipe: Connection

    def tell(self, what: str | None) -> None:
        self.pipe.send(what)

    def hear(self) -> Any:
        """Return the next message of the worker."""
        assert self.pipe.poll(LIMIT), "it says nothing"
        return self.pipe.recv()

    def ask(self, what: str) -> Any:
        self.tell(what)
        return self.hear()

    def kill(self) -> None:
        """Kill the process by `kill -9`."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(LIMIT)
        assert self.process.exitcode == -signal.SIGKILL

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


@dataclass
class Fleet:
    """Processes that end with the test. They run `work`, and `gate` lets all of them continue at the same moment."""

    work: Callable[[Connection, Any, Order], None] | None = None
    gate: Any = field(default_factory=CONTEXT.Event)
    workers: list[Worker] = field(default_factory=list)

    def start(self, count: int, order: Order) -> list[Worker]:
        """Start `count` more processes. Return them when they are ready for commands."""
        _ensure_fork_server()
        new = [self._start(order) for _ in range(count)]
        for worker in new:
            assert worker.hear() == "ready"
        return new

    def _start(self, order: Order) -> Worker:
        mine, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=self.work or work, args=(theirs, self.gate, order), daemon=True)
        process.start()
        theirs.close()
        worker = Worker(process, mine)
        self.workers.append(worker)
        return worker

    def end(self) -> None:
        for worker in self.workers:
            worker.process.kill()  # this ends even a worker that is frozen
        for worker in self.workers:
            worker.process.join()
            worker.process.close()
            worker.pipe.close()


def work(pipe: Connection, gate: Any, order: Order) -> None:
    """Obey commands until the test ends the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if order.user is not None:
        _import_everything()  # the user may have no right to read this Python's installation
        os.setgroups([])
        os.setgid(order.user)
        os.setuid(order.user)
    steps = _Steps(pipe, order.stop_at)
    grant = RefreshTokenGrant(f"{order.url}/token", "app", client=new_client(order.url))
    auth = Reauth(
        steps.around_refresh(grant),
        storage=_Watched(order.place.storage(), steps, order.place.lease),
        refresh_timeout=order.timeout,
        clock=order.clock,
    )
    told: list[str] = []
    locks: list[AbstractContextManager[object]] = []
    auth.store.subscribe(lambda state, action: told.append(_name(action)))
    over = threading.Event()
    with new_client(order.url) as client:

        def get() -> Any:
            return _outcome(lambda: client.get("/me", auth=auth).status_code)

        def get_at_the_gate() -> Any:
            gate.wait(LIMIT)
            return get(), list(told)

        def get_token_at_the_gate() -> float:
            gate.wait(LIMIT)
            auth.get_token()
            return time.monotonic()

        def be_busy() -> str:
            threading.Thread(target=_be_busy, args=(pipe, get, auth, over), daemon=True).start()
            return _SAYS_IT_ITSELF

        def hold_the_lock() -> str:
            locks.append(locked(order.place.storage()))
            locks[-1].__enter__()
            return "held"

        answers: dict[str, Callable[[], Any]] = {
            "get": lambda: (get(), list(told)),
            "get at the gate": get_at_the_gate,
            "get token": lambda: auth.get_token().access_token,
            "get token at the gate": get_token_at_the_gate,
            "be busy": be_busy,
            "sign out": lambda: _outcome(auth.sign_out),
            "hold the lock": hold_the_lock,
        }
        steps.around_replace()
        pipe.send("ready")
        with suppress(EOFError):
            while (told_to := pipe.recv()) != "end":
                answer = answers[told_to]()
                if answer != _SAYS_IT_ITSELF:
                    pipe.send(answer)
        over.set()


def _import_everything() -> None:
    for encoding in ("ascii", "latin-1", "utf-8", "utf-8-sig", "utf-16", "utf-32", "idna"):
        codecs.lookup(encoding)
    use_a_file()


def use_a_file() -> None:
    """Do everything once that a `FileStorage` does."""
    with tempfile.TemporaryDirectory() as folder:
        storage = FileStorage(Path(folder) / "token.json")
        with locked(storage):
            storage.save(Token("any"))
            storage.load()


def new_client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, verify=False, trust_env=False, timeout=LIMIT)


def _outcome(function: Callable[[], Any]) -> Any:
    """Return the result of `function`; or the type of its error, and the message."""
    try:
        return function()
    except ReauthError as error:
        return next(name for name in _ERRORS if name in [one.__name__ for one in type(error).__mro__]), str(error)


_SAYS_IT_ITSELF = "says it itself"
_ERRORS = ("SignInRequired", "RefreshError", "StorageError", "ReauthError")


_REST = 0.005  # seconds between two requests of a busy worker; shorter pauses show nothing more


def _be_busy(pipe: Connection, get: Callable[[], Any], auth: Reauth, over: threading.Event) -> None:
    """Make one request after another. Send the name of each new token, and the status of its first request."""
    last, outcome = None, 200
    while outcome == 200 and not over.is_set():
        outcome = get()
        token = auth.store.state.token
        name = None if token is None else token.access_token
        if name != last or outcome != 200:
            last = name
            with suppress(OSError):
                pipe.send((name, outcome))
        over.wait(_REST)


def _name(action: Any) -> str:
    if isinstance(action, RefreshFulfilled):
        return "adopted" if action.adopted else "renewed"
    return f"SaveFailed: {action.error}" if isinstance(action, SaveFailed) else type(action).__name__


class _Steps:
    """Stops this process at one step of a refresh, and reports that. The test then kills it or lets it continue."""

    def __init__(self, pipe: Connection, stop_at: str) -> None:
        self._pipe = pipe
        self._stop_at = stop_at

    def reached(self, step: str) -> None:
        if step == self._stop_at:
            self._pipe.send(step)
            threading.Event().wait()

    def around_refresh(self, grant: RefreshTokenGrant) -> Callable[[Token], Token]:
        def refresh(token: Token) -> Token:
            answer = grant(token)
            self.reached("answer received")
            return answer

        return refresh

    def around_replace(self) -> None:
        real = Path.replace

        def watched(path: Path, target: Any) -> Any:
            self.reached("temporary file written")
            done = real(path, target)
            self.reached("replaced")
            return done

        Path.replace = watched  # type: ignore[method-assign, assignment]


class _Watched:
    """A storage that reports its steps."""

    def __init__(self, storage: Storage, steps: _Steps, lease: float | None) -> None:
        self._storage = storage
        self._lease = lease
        self._steps = steps

    def load(self) -> Token | None:
        self._steps.reached("lock taken")
        return self._storage.load()

    def save(self, token: Token) -> None:
        self._steps.reached("about to save")
        self._storage.save(token)
        self._steps.reached("saved")

    def clear(self) -> None:
        self._storage.clear()

    def try_lock(self, lease: float) -> AbstractContextManager[None] | None:
        lock = self._storage.try_lock(lease if self._lease is None else self._lease)
        return None if lock is None else self._held(lock)

    @contextmanager
    def _held(self, lock: AbstractContextManager[object]) -> Iterator[None]:
        with lock:
            yield
        self._steps.reached("lock released")


def with_lease(place: Place, lease: float) -> Place:
    """Return the same place. If it is a Redis, its lock lasts `lease` seconds after its holder has died."""
    return replace(place, lease=lease) if place.socket else place
