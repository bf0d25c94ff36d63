"""What the library finds in place of `threading`, of its lock, of chance: the kernel's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from greenlet import GreenletExit

from ._kernel import Kernel, Thread


class Here:
    """The kernel of the world that is being played; the library's modules are patched once for all worlds."""

    kernel: Kernel
    no_threads = 0.0  # the share of threads that cannot start
    on_no_thread: Callable[[], object]


FLIGHTS: dict[object, Any] = {}  # the flight of each worker


class SimLock:
    """The library's reentrant lock; every process has its own."""

    def _is_owned(self) -> bool:
        thread = Here.kernel.current
        return thread is not None and thread.home.owner is thread

    def __enter__(self) -> None:
        kernel = Here.kernel
        thread = kernel.current
        if thread is None:
            return
        home = thread.home
        if home.owner is thread:
            home.depth += 1
            return
        kernel.point()
        while home.owner is not None:
            home.waiting.append(thread)
            kernel.block()
        home.owner, home.depth = thread, 1

    def __exit__(self, *_: object) -> None:
        kernel = Here.kernel
        thread = kernel.current
        if thread is None:
            return
        home = thread.home
        home.depth -= 1
        if home.depth == 0:
            home.owner = None
            waiting, home.waiting = home.waiting, []
            for one in waiting:
                kernel.wake(one)
            kernel.point()


class SimEvent:
    """A `threading.Event`."""

    __slots__ = ("_is_set", "_waiting")

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[Thread] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            Here.kernel.wake(one)
        Here.kernel.point()

    def wait(self, timeout: float) -> bool:
        kernel = Here.kernel
        kernel.point()
        thread = kernel.current
        if thread is None:
            raise GreenletExit
        deadline = thread.home.machine.monotonic() + timeout
        while not self._is_set:
            self._waiting.append(thread)
            if not kernel.block(deadline):
                break
        return self._is_set


class SimGate(SimEvent):
    """A `Gate`."""

    __slots__ = ()

    def open(self) -> None:
        self.set()


class SimThread:
    """A `threading.Thread`."""

    def __init__(self, *, target: Callable[..., object], args: tuple[Any, ...], name: str, daemon: bool) -> None:
        self.ident: int | None = None
        self._target = target
        self._args = args
        self._name = "refresh" if daemon else "guard"
        self._ended = SimEvent()
        self._thread: Thread | None = None

    def start(self) -> None:
        self._thread = start_new_thread(self._run, name=self._name)
        self.ident = self._thread.ident

    def _run(self) -> None:
        try:
            self._target(*self._args)
        finally:
            self._ended.set()

    def is_alive(self) -> bool:
        return self.ident is not None and not self._ended.is_set()

    def join(self, timeout: float) -> None:
        self._ended.wait(timeout)


def start_new_thread(function: Callable[..., object], arguments: tuple[Any, ...] = (), name: str = "starter") -> Thread:
    kernel = Here.kernel
    if kernel.current is None:
        raise GreenletExit
    if Here.no_threads and kernel.random.random() < Here.no_threads:
        kernel.note("no thread can start")
        Here.on_no_thread()
        raise RuntimeError("can't start new thread")
    thread = kernel.spawn(kernel.current.home, partial(function, *arguments), name=name)
    kernel.point()
    return thread


def get_ident() -> int:
    thread = Here.kernel.current
    return -1 if thread is None else thread.ident


def sleep(seconds: float) -> None:
    Here.kernel.sleep(seconds)


def monotonic() -> float:
    thread = Here.kernel.current
    return Here.kernel.now if thread is None else thread.home.machine.monotonic()


def wall_time() -> float:
    thread = Here.kernel.current
    return Here.kernel.now if thread is None else thread.home.machine.time()


def jitter(least: float, most: float) -> float:
    return least + (most - least) * chance()


def chance() -> float:
    return Here.kernel.random.random()


def choose(options: Sequence[Any]) -> Any:
    return Here.kernel.random.choice(options)


def current_thread() -> SimThread:
    """Return a `SimThread` for the current thread, which no `SimThread` has started."""
    thread = SimThread(target=current_thread, args=(), name="", daemon=True)
    thread.ident = get_ident()
    return thread


THREADING = SimpleNamespace(Event=SimEvent, Thread=SimThread, get_ident=get_ident, current_thread=current_thread)
LOW_LEVEL = SimpleNamespace(start_new_thread=start_new_thread)  # `_thread`
WALL_CLOCK = SimpleNamespace(time=wall_time)
