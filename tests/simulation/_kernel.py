"""Virtual threads in virtual time. If several threads could run, the seed alone decides which one does."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from ._foreign import Foreign
from ._machine import ROUNDING, Machine

PATIENCE = 20_000  # virtual seconds without any progress, after which a thread that still waits counts as hanging
STEPS = 300_000  # switches between threads, after which they count as running in circles


class Home:
    """A process: what lives and dies together, with clocks for its `Reauth` objects and a lock that is its own."""

    def __init__(self, kernel: Kernel, machine: Machine, name: str) -> None:
        self.kernel = kernel
        self.machine = machine
        self.name = name
        self.is_dead = False
        self.owner: Thread | None = None
        self.depth = 0
        self.waiting: list[Thread] = []

    def monotonic(self) -> float:
        self.kernel.point()
        return self.machine.monotonic()

    def time(self) -> float:
        return self.machine.time()


class Thread(greenlet):
    """A thread: it runs until it waits, or until the seed says at some point that another one goes on."""

    def __init__(self, home: Home, function: Callable[..., object], args: tuple[Any, ...], name: str) -> None:
        super().__init__(parent=home.kernel.hub)
        self.home = home
        self.name = f"{home.name}.{name}"
        self.ident = next(home.kernel.numbers)
        self.foreign: Foreign | None = None  # the event loop that runs in this thread
        self.is_ending = False  # whether that loop is being closed
        self.ticket = 0
        self.is_waiting = False
        self.is_woken = False
        self._function = function
        self._args = args

    def run(self) -> None:
        try:
            self._function(*self._args)
        except GreenletExit:
            pass
        except BaseException as error:  # noqa: BLE001 - no exception may leave a thread
            self.home.kernel.fail(f"{type(error).__name__} left the thread {self.name}: {error}", error)


class Violation(Exception):
    """An invariant does not hold."""


class Kernel:
    """Who runs, and what time it is."""

    def __init__(self, seed: int, *, traced: bool = False) -> None:
        self.random = Random(seed)
        self.chance = self.random.random
        self.now = 0.0
        self.current: Thread | None = None
        self.hub = getcurrent()
        self.numbers = count(1)
        self.restlessness = 0.3  # the share of points at which another thread runs next
        self.stalls = 0.0  # the share of switches at which a thread stops for a while
        self.on_stall: Callable[[Thread, float], None] = lambda _thread, _seconds: None
        self.steps = 0
        self.is_over = False
        self.violation: Violation | None = None
        self.trace: list[str] | None = [] if traced else None
        self.threads: list[Thread] = []
        self._ready: list[Thread] = []
        self._timers: list[tuple[float, int, Thread, int, float]] = []
        self._ids = count(1)
        self._give_up_at, self._stop_at = inf, STEPS

    def note(self, *words: object) -> None:
        if self.trace is not None:
            who = "-" if self.current is None else self.current.name
            self.trace.append(f"{self.now:10.3f} {who}: {' '.join(map(str, words))}")

    def fail(self, what: str, cause: BaseException | None = None) -> None:
        """An invariant does not hold; the first one counts."""
        self.note("VIOLATION", what)
        if self.violation is None and not self.is_over:
            self.violation = Violation(what)
            self.violation.__cause__ = cause

    def spawn(self, home: Home, function: Callable[..., object], *args: Any, name: str) -> Thread:
        thread = Thread(home, function, args, f"{name}-{next(self._ids)}")
        self.threads.append(thread)
        self._ready.append(thread)
        return thread

    def point(self) -> None:
        """Here another thread may go on."""
        thread = self.current
        if thread is not None and self.chance() < self.restlessness:
            self._ready.append(thread)
            self._give_way(thread)

    def block(self, deadline: float = inf) -> bool:
        """Wait until somebody wakes this thread; False if its machine's monotonic clock said `deadline` before."""
        thread = self.current
        if thread is None or self.is_over:
            raise GreenletExit
        thread.ticket += 1
        thread.is_waiting, thread.is_woken = True, False
        if deadline < inf:
            due = thread.home.machine.due(deadline)
            heappush(self._timers, (due, next(self._ids), thread, thread.ticket, deadline))
        self._give_way(thread)
        return thread.is_woken

    def sleep(self, seconds: float) -> None:
        if self.current is None:
            raise GreenletExit
        self.block(self.current.home.machine.monotonic() + seconds)

    def wake(self, thread: Thread) -> None:
        if thread.is_waiting:
            thread.is_waiting, thread.is_woken = False, True
            self._ready.append(thread)

    def news(self, at: float) -> None:
        """Something planned, such as a pause, not somebody's wait, ends at that time: patience counts from there."""
        self._give_up_at = max(self._give_up_at, at + PATIENCE)

    def run(self) -> None:
        """Go on until nothing is left to do, or an invariant does not hold."""
        self._give_up_at, self._stop_at = self.now + PATIENCE, self.steps + STEPS
        while True:
            thread = self._next()
            if thread is None:
                return
            thread.switch()
            self.current = None

    def _next(self) -> Thread | None:
        """Who goes on; None if nothing is left to do, or an invariant does not hold."""
        self.current = None
        random, ready = self.chance, self._ready
        while self.violation is None:
            while ready:
                at = int(random() * len(ready))
                thread = ready[at]
                ready[at] = ready[-1]
                ready.pop()
                home = thread.home
                if home.is_dead:
                    continue
                if home.machine.asleep_until > self.now:
                    self._later(thread, home.machine.asleep_until)
                    continue
                if self.stalls and random() < self.stalls:
                    seconds = random() * 4 ** int(random() * 4)
                    self.on_stall(thread, seconds)
                    self._later(thread, self.now + seconds)
                    continue
                self.steps += 1
                if self.trace is not None:
                    self.trace.append(f"{self.now:10.3f} > {thread.name}")
                self.current = thread
                return thread
            due = self._next_due()
            if due == inf:
                return None
            self.now = max(self.now, due)
            if self.now > self._give_up_at or self.steps > self._stop_at:
                alive = [thread.name for thread in self.threads if not thread.dead and not thread.home.is_dead]
                self.fail(f"Somebody waits for ever, or goes in circles: {', '.join(alive)}")
                return None
            while self._timers and self._timers[0][0] <= self.now:
                self._ring(*heappop(self._timers))
        return None

    def close(self) -> None:
        """End what has not ended: whoever died with its process, or hangs."""
        self.is_over, self.current = True, None
        for thread in self.threads:
            if not thread.dead:
                thread.throw(GreenletExit)
        self.threads.clear()
        self._ready.clear()
        self._timers.clear()

    def _give_way(self, thread: Thread) -> None:
        """Let go on who is next: without the detour by the hub, and without any switch if it is this very thread."""
        other = self._next()
        if other is thread:
            return
        foreign = thread.foreign
        if foreign is not None:
            foreign.leave()
        try:
            (self.hub if other is None else other).switch()
        finally:
            if foreign is not None:
                foreign.enter()

    def _next_due(self) -> float:
        timers = self._timers
        while timers:
            due, _, thread, ticket, _ = timers[0]
            if not thread.home.is_dead and (ticket == -1 or (thread.is_waiting and thread.ticket == ticket)):
                return due
            heappop(timers)  # nobody waits for this timer any more
        return inf

    def _later(self, thread: Thread, when: float) -> None:
        heappush(self._timers, (when, next(self._ids), thread, -1, -inf))

    def _ring(self, _due: float, _number: int, thread: Thread, ticket: int, deadline: float) -> None:
        if ticket == -1:
            self._ready.append(thread)
        elif thread.is_waiting and thread.ticket == ticket:
            due = thread.home.machine.due(deadline)
            if due > self.now + 2 * ROUNDING:  # the machine has slept meanwhile
                heappush(self._timers, (due, next(self._ids), thread, ticket, deadline))
                return
            thread.is_waiting = False
            self._ready.append(thread)
