"""A worker: takes the steps of one refresh, or of one change of the storage, from the first to the last.

1. The steps are a generator that yields calls and gets their answers. It does not know who drives it. There are two
   drivers, which differ in one `await`: a task of the caller's event loop, or a thread. Steps are never handed over.
2. A task takes them if all they call is a coroutine that belongs to the caller's loop. Else a thread of the worker's
   own does, never one of a pool: the application's sync callers may fill that pool while they wait for this refresh.
3. A worker is nobody's child. The cancellation of a request does not reach it.
4. To take up the steps is a claim that only one can win (`take`). So whoever starts a worker and is interrupted, at any
   bytecode, can tell whether it runs: `Thread.start()` may raise although the thread does.
5. Where the thread's function returns an awaitable, a task of the caller's loop awaits it, and the thread goes on with
   the answer. A loop can be closed, drop a call or stand still without a word, so the thread looks once a second.
6. The thread is a daemon, and a second one that is not joins it until the deadline. So an exit waits for a refresh, but
   no longer than its callers do, in the children of `multiprocessing` too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from inspect import isawaitable
from math import inf
from typing import Any, TypeAlias
from weakref import WeakSet

from httpx_reauth._clock import SYSTEM_CLOCK, Clock
from httpx_reauth._state.actions import FlightDropped
from httpx_reauth._state.store import LOCK, TokenStore, clock_of
from httpx_reauth._tokens._refresh.loops import (
    AsyncioLoop,
    Loop,
    Stopped,
    current_loop,
    leave_loop,
    run_in_new_loop,
    within,
)
from httpx_reauth._tokens._refresh.signal import Signal

LOOK = 1.0  # seconds between two looks at what is waited for: is it still there?


class Call:
    """Something to call, outside of any lock.

    Attributes:
        function: the user's refresh, or a storage's function.
        arguments: what it gets.
        seconds: of a refresh: after how long an awaitable that it returns is stopped. None: it is a storage's
            function, which blocks and does not return an awaitable.
    """

    __slots__ = ("arguments", "function", "seconds")

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...] = (), seconds: float | None = None
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.seconds = seconds


Steps: TypeAlias = Generator[Call, Any, None]

# Workers that are not finished, for `close` and for a forked child. Weak: what keeps a worker is its thread, its loop,
# or the state whose refresh it does. One that nothing can wake any more is collected with its loop.
_workers: WeakSet[Worker] = WeakSet()

_inside: ContextVar[tuple[Worker, ...]] = ContextVar("httpx_reauth_inside", default=())


def current_workers() -> list[Worker]:
    """The workers that the caller runs inside of: it is a refresh, or a storage, or what one of them has started."""
    return [worker for worker in _inside.get() if not worker.finished.is_set]


def workers_of(store: TokenStore) -> list[Worker]:
    """The workers of `store` that are not finished."""
    with LOCK:
        workers = [worker for worker in _workers if worker.store is store and not worker.finished.is_set]
    return [worker for worker in workers if not worker.is_orphaned()]


def innermost_worker() -> Worker | None:
    """The worker that the caller runs inside of, the innermost of several; None outside of any."""
    inside = current_workers()
    return inside[-1] if inside else None


def current_clock() -> Clock:
    """The clock of the auth object that the caller works for; the machine's own, outside of any."""
    worker = innermost_worker()
    return SYSTEM_CLOCK if worker is None else clock_of(worker.store)


def loop_of_caller() -> Loop | None:
    """The event loop for a refresh that the refresh around the caller needs: that on which this one was wanted.

    A coroutine there may use what belongs to that loop. None outside of any refresh, where the loop has ended or stands
    still, and on the thread of a loop, which the caller blocks.
    """
    worker = innermost_worker()
    loop = None if worker is None else worker.loop
    if loop is None or loop.is_closed() or (isinstance(loop, AsyncioLoop) and loop.stands_still()):
        return None
    try:
        current_loop()
    except RuntimeError:
        return loop
    return None


class Worker:
    """Who does the work; see the top of this module.

    Attributes:
        store: whose token it is about.
        package: `"httpx"` or `"httpx2"`: by which of them a grant posts; None: by the one that is installed.
        started: when it began (monotonic seconds of the store's clock).
        deadline: when everybody stops waiting for it.
        finished: set when the work is done, a storage's lock released.
        superseded: somebody has signed in or out since it began; it goes on all the same.
        loop: the event loop of the caller, where an awaitable is awaited.
        loop_thread_id: the thread that runs `loop`, once something is awaited there. A sync wait on it would deadlock.
        waits_for: workers that the code inside of it waits for.
        has_answer: the awaitable on `loop` has answered; the thread goes on, whatever becomes of the loop.
    """

    __slots__ = (
        "__weakref__", "_runs_on", "_steps", "deadline", "finished", "has_answer", "loop", "loop_thread_id",
        "package", "started", "store", "superseded", "waits_for",
    )  # fmt: skip

    def __init__(
        self,
        store: TokenStore,
        started: float,
        seconds: float,
        *,
        loop: Loop | None = None,
        package: str | None = None,
    ) -> None:
        self.store = store
        self.package = package
        self.started = started
        self.deadline = started + seconds
        self.finished = Signal()
        self.superseded = False
        self.loop = loop
        self.loop_thread_id: int | None = None
        self.waits_for: list[Worker] = []
        self.has_answer = False
        self._steps: list[Steps] = []
        self._runs_on: object = None  # the thread or task, which the loop itself keeps only weakly

    def accept(self, steps: Steps) -> None:
        """Take over the work: it may be taken from now on, also by one who gives it up."""
        self._steps.append(steps)

    def start(self, *, as_task: bool) -> None:
        """Start to take the steps, away from the caller, with the caller's context; `as_task`: on `loop`, no thread."""
        with LOCK:
            _workers.add(self)
        context = copy_context()
        context.run(_inside.set, (*current_workers(), self))
        if as_task and self.loop is not None:
            self._start_task(self.loop, context)
            return
        guard = threading.Thread(
            target=self._guard, args=(leave_loop(context),), name=f"{self._name} guard", daemon=False
        )
        self._runs_on = guard
        try:
            guard.start()
        except RuntimeError:
            if not self._steps:
                return  # the thread runs, whatever `start` says
            if self.loop is not None:  # no thread can start: at the interpreter's exit, at a limit, on some platforms
                self._start_task(self.loop, context)
            elif (fatal := context.run(self._drive)) is not None:
                raise fatal from None

    def take(self) -> Steps | None:
        """The steps, for the one who gets here first; None for everybody else."""
        try:
            return self._steps.pop()
        except IndexError:
            return None

    @property
    def is_untaken(self) -> bool:
        """Has nobody begun?"""
        return bool(self._steps)

    def _start_task(self, loop: Loop, context: Context) -> None:
        self.loop_thread_id = threading.get_ident()

        def on_end() -> None:
            steps = self.take()
            if steps is not None:  # it was cancelled before it began, so its first call is not made
                with suppress(StopIteration):
                    next(steps)
                    steps.throw(Stopped())
            self.finished.set()

        self._runs_on = loop.start(self._drive_as_task, context, on_end)

    @property
    def _name(self) -> str:
        """What its threads are called."""
        name = self.store._name
        return "httpx_reauth refresh" if name is None else f"httpx_reauth refresh {name}"

    def _guard(self, context: Context) -> None:
        """Start the thread that does the work, and join it until the deadline: the exit waits for this one."""
        thread = threading.Thread(target=context.run, args=(self._drive,), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            context.run(self._drive)
            return
        self._runs_on = thread
        while thread.is_alive() and (left := self.time_left()) > 0:
            thread.join(min(left, LOOK))

    def _drive(self) -> BaseException | None:
        """Take the steps on this thread; returns what must go on to the caller, if it was done in place."""
        steps = self.take()
        if steps is None:
            return None
        fatal: BaseException | None = None
        try:
            call = next(steps)
            while True:
                try:
                    answer = self._make(call)
                except Exception as error:  # noqa: BLE001 - the steps decide what it means
                    call = steps.throw(error)
                except BaseException as error:  # noqa: BLE001 - the process is asked to end
                    fatal = error
                    call = steps.throw(Stopped())
                else:
                    call = steps.send(answer)
        except StopIteration:
            return fatal
        finally:
            self.finished.set()

    async def _drive_as_task(self) -> None:
        """Take the steps in a task of the running event loop."""
        steps = self.take()
        if steps is None:
            return
        fatal: BaseException | None = None
        try:
            call = next(steps)
            while True:
                try:
                    answer = call.function(*call.arguments)
                    if call.seconds is not None and isawaitable(answer):
                        answer = await within(call.seconds, answer)
                except Exception as error:  # noqa: BLE001 - the steps decide what it means
                    call = steps.throw(error)
                except BaseException as error:  # noqa: BLE001 - cancelled: the loop ends
                    fatal = error
                    call = steps.throw(Stopped())
                else:
                    call = steps.send(answer)
        except StopIteration:
            if fatal is not None:
                raise fatal from None
        finally:
            self.finished.set()

    def _make(self, call: Call) -> Any:
        """Make `call` on this thread; an awaitable that a refresh returns is awaited where it belongs."""
        answer = call.function(*call.arguments)
        if call.seconds is None or not isawaitable(answer):
            return answer
        if self.loop is None:
            return run_in_new_loop(call.seconds, answer)
        return self._await_on(self.loop, answer, call.seconds)

    def _await_on(  # noqa: C901 - who gives up, and who has taken it, is decided in one place
        self, loop: Loop, awaitable: Awaitable[Any], seconds: float
    ) -> Any:
        """What `awaitable` returns, awaited by a task of `loop`, while this thread waits for it."""
        done = threading.Event()
        taken: list[Awaitable[Any]] = [awaitable]
        answers: list[Any] = []
        errors: list[BaseException] = []

        async def run() -> None:
            try:
                mine = taken.pop()
            except IndexError:  # given up, while the loop stood still
                return
            try:
                left = min(seconds, self.time_left())  # who waits gives up then, though the loop stood still at first
                answers.append(await within(left, mine))
            except Exception as error:  # noqa: BLE001 - goes to the thread
                errors.append(error)
            self.has_answer = True  # before its loop can be closed: what it has brought must not be taken for lost

        context = copy_context()

        def begin() -> None:
            self.loop_thread_id = threading.get_ident()
            try:
                self._runs_on = (self._runs_on, loop.start(run, context, done.set))
            except RuntimeError:  # it is ending, and takes no task any more; raised here, it would break all of trio
                done.set()

        if loop.call_soon(begin):
            while not done.wait(LOOK) and not loop.is_closed() and self.time_left() > -LOOK:
                pass
        self.loop_thread_id = None
        if taken:
            for unused in taken:
                getattr(unused, "close", bool)()
            taken.clear()
        if errors:
            raise errors[0]
        if not answers:  # cancelled, or its loop was closed or stood still
            raise Stopped
        return answers[0]

    def time_left(self, until: float = inf) -> float:
        """Seconds until waiting for it ends, `until` a moment at the latest; 0 or less if it is overdue."""
        return min(self.deadline, until) - clock_of(self.store).monotonic()

    def is_orphaned(self) -> bool:
        """Can it not finish any more: its thread has died, its loop was closed, or nobody runs that any longer?"""
        runs_on = self._runs_on
        if self.finished.is_set or self.has_answer or isinstance(runs_on, tuple):  # a thread looks after the task
            return False
        if isinstance(runs_on, threading.Thread) and runs_on.ident is not None:
            return not runs_on.is_alive()
        if self.loop is None or runs_on is None or isinstance(runs_on, threading.Thread):
            return self.time_left() <= -LOOK  # it was never started: whoever was to do that was interrupted
        if self.loop.is_closed():
            return True
        stands_still = isinstance(self.loop, AsyncioLoop) and self.loop.stands_still()
        return stands_still and self.time_left() <= -LOOK

    def is_blocked_here(self) -> bool:
        """Would a sync wait for it on this thread block the event loop that it needs, or one that it waits for?"""
        is_blocked = (
            self.loop_thread_id == threading.get_ident()
            and self.loop is not None
            and not self.finished.is_set
            and not self.loop.is_closed()
        )
        return is_blocked or any(one.is_blocked_here() for one in self.waits_for)  # in no circle: see `is_needed_by`

    def is_needed_by(self, others: list[Worker]) -> bool:
        """Does it wait, directly or not, for one of `others`? Then none of them may wait for it."""
        seen: list[Worker] = []
        queue = [self]
        while queue:
            one = queue.pop()
            if one in others:
                return True
            if one not in seen:
                seen.append(one)
                queue += one.waits_for
        return False

    def abandon_after_fork(self) -> None:
        """In a forked child: its thread or loop stayed in the parent, and so did all who wait for it."""
        self.finished.is_set = True
        flight: Any = self.store._state.flight
        if flight is not None and flight.worker is self:
            flight.settled.is_set = True
            self.store._apply(FlightDropped(flight))


def _after_fork_in_child() -> None:
    for worker in list(_workers):
        worker.abandon_after_fork()
    _workers.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows knows no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
