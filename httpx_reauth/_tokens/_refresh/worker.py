"""A worker runs the steps of one refresh, or of one job (a write to the storage), from the first to the last.

1. The steps are a generator, which yields calls and gets their results. There are two drivers for the steps: a task on
   the caller's event loop, and a thread. They differ in one `await`. One driver runs all steps of a worker.
2. A task runs the steps if the only function that they call is a coroutine function, which may need the caller's loop.
   Otherwise a new thread runs the steps. A thread of a pool would be wrong: the application's sync callers may occupy
   the whole pool while they wait for this refresh.
3. A worker is not a child of any task. So the cancellation of a request does not cancel the worker.
4. `take` returns the steps only once. A signal can interrupt the start of a worker at any bytecode, and
   `Thread.start()` may raise although the thread runs. The code that starts a worker then calls `take`. If it gets the
   steps, the worker does not run, and never will.
5. If a refresh function that runs in the thread returns an awaitable, a task on the caller's loop awaits it, while the
   thread waits for the result. A loop can be closed, lose a call or stop without notice. So the thread checks the loop
   once a second.
6. The thread is a daemon. A second thread, which is not a daemon, joins it until the deadline. So the process
   waits for a refresh before it exits, but not longer than the callers wait. The children of `multiprocessing` do the
   same.
"""

from __future__ import annotations

import _thread
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
from httpx_reauth._tokens._refresh.signal import Gate, Signal

LOOK = 1.0  # seconds between two checks during a wait: can the worker still finish?
_STARTS_WITHIN = 60.0  # seconds; no thread takes that long to start


class Call:
    """A call that the worker makes for the steps.

    Attributes:
        function: the refresh function, or another function, e.g. of the storage.
        arguments: its arguments.
        seconds: for a refresh function: the time limit of an awaitable that it returns. None for any other function,
            which returns no awaitable.
    """

    __slots__ = ("arguments", "function", "seconds")

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...] = (), seconds: float | None = None
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.seconds = seconds


Steps: TypeAlias = Generator[Call, Any, None]

# Workers that are not finished, for `close` and for a forked child. The references are weak: a worker is kept alive by
# its thread, its loop or the state. A worker whose loop is garbage is collected with the loop.
_workers: WeakSet[Worker] = WeakSet()

_inside: ContextVar[tuple[Worker, ...]] = ContextVar("httpx_reauth_inside", default=())


def current_workers() -> list[Worker]:
    """The unfinished workers that have called this code, the innermost last: directly, or through a task or thread."""
    return [worker for worker in _inside.get() if not worker.finished.is_set]


def workers_of(store: TokenStore) -> list[Worker]:
    """The workers of `store` that are not finished and can still finish."""
    with LOCK:
        workers = [worker for worker in _workers if worker.store is store]
    return [worker for worker in workers if worker.can_finish()]


def innermost_worker() -> Worker | None:
    """The last of `current_workers()`; None outside of any worker."""
    inside = current_workers()
    return inside[-1] if inside else None


def current_clock() -> Clock:
    """The clock of the caller's auth object; the system clock outside of any worker."""
    worker = innermost_worker()
    return SYSTEM_CLOCK if worker is None else clock_of(worker.store)


def loop_of_caller() -> Loop | None:
    """The event loop for a refresh that a sync call inside of another refresh starts: the loop of that other refresh.

    So a coroutine refresh may use the resources of that loop. None outside of any refresh, if the loop is closed or
    has stopped, and if an event loop runs on this thread, which the call blocks.
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
    """Runs the steps of one refresh or job; see the top of this module.

    Attributes:
        store: the store of the token.
        package: the package that a grant uses for its requests: `"httpx"` or `"httpx2"`; None: the one that is
            installed.
        started: when the worker began (monotonic seconds of the store's clock).
        deadline: when all waiters give up (monotonic seconds of the store's clock).
        finished: set when all steps have run; the storage's lock is released then.
        superseded: somebody has signed in or out since the worker began. The worker still goes on.
        loop: the event loop of the caller; an awaitable is awaited there.
        loop_thread_id: the thread that runs `loop`, while an awaitable is awaited there. A sync wait on this thread
            would deadlock.
        waits_for: the workers for which code inside of this worker waits.
        has_answer: the awaitable on `loop` has returned or raised. So the thread goes on, even if the loop is closed.
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
        self._runs_on: object = None  # the thread or the task; a loop keeps a task only weakly

    def accept(self, steps: Steps) -> None:
        """Give the worker its steps; from now on `take` returns them, once."""
        self._steps.append(steps)

    def start(self, *, as_task: bool) -> None:
        """Start to run the steps, with a copy of the caller's context: in a thread; `as_task`: in a task on `loop`."""
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
            _start(guard)
        except RuntimeError:
            if not self.is_untaken:
                return  # the thread runs, although `start` has raised
            if self.loop is not None:  # no thread can start: at the interpreter's exit, at a limit, on some platforms
                self._start_task(self.loop, context)
                return
            self._runs_on = threading.current_thread()
            if (fatal := context.run(self._drive)) is not None:
                raise fatal from None

    def take(self) -> Steps | None:
        """The steps for the first caller; None for all other callers."""
        try:
            return self._steps.pop()
        except IndexError:
            return None

    @property
    def is_untaken(self) -> bool:
        """Has nobody taken the steps yet?"""
        return bool(self._steps)

    def _start_task(self, loop: Loop, context: Context) -> None:
        self.loop_thread_id = threading.get_ident()

        def on_end() -> None:
            steps = self.take()
            if steps is not None:  # the task was cancelled before it began, so the first call is not made
                with suppress(StopIteration):
                    next(steps)
                    steps.throw(Stopped())
            self.finished.set()

        self._runs_on = loop.start(self._drive_as_task, context, on_end)

    @property
    def _name(self) -> str:
        """The name of the worker's threads."""
        name = self.store._name
        return "httpx_reauth refresh" if name is None else f"httpx_reauth refresh {name}"

    def _guard(self, context: Context) -> None:
        """Start the thread that runs the steps, and join it until the deadline: so the exit of the process waits."""
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
        """Run the steps on this thread; return an exception such as `KeyboardInterrupt`, or None."""
        steps = self.take()
        if steps is None:
            return None
        fatal: BaseException | None = None
        try:
            call = next(steps)
            while True:
                try:
                    answer = self._make(call)
                except Exception as error:  # noqa: BLE001 - the steps handle it
                    call = steps.throw(error)
                except BaseException as error:  # noqa: BLE001 - the process must end
                    fatal = error
                    call = steps.throw(Stopped())
                else:
                    call = steps.send(answer)
        except StopIteration:
            return fatal
        finally:
            self.finished.set()

    async def _drive_as_task(self) -> None:
        """Run the steps in a task of the running event loop."""
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
                except Exception as error:  # noqa: BLE001 - the steps handle it
                    call = steps.throw(error)
                except BaseException as error:  # noqa: BLE001 - the task is cancelled: the loop ends
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
        """Make `call` on this thread. An awaitable result is awaited on the caller's loop, or on a new loop."""
        answer = call.function(*call.arguments)
        if call.seconds is None or not isawaitable(answer):
            return answer
        if self.loop is None:
            return run_in_new_loop(call.seconds, answer)
        return self._await_on(self.loop, answer, call.seconds)

    def _await_on(self, loop: Loop, awaitable: Awaitable[Any], seconds: float) -> Any:
        """The result of `awaitable`. A task of `loop` awaits it, while this thread waits for the task."""
        done = threading.Event()
        taken: list[Awaitable[Any]] = [awaitable]
        answers: list[Any] = []
        errors: list[BaseException] = []

        async def run() -> None:
            try:
                mine = taken.pop()
            except IndexError:  # the thread has given up, since the loop was blocked
                return
            try:
                left = min(seconds, self.time_left())  # the waiters give up then, even if the loop was blocked at first
                answers.append(await within(left, mine))
            except Exception as error:  # noqa: BLE001 - the thread raises it
                errors.append(error)
            self.has_answer = True  # set before the loop can be closed: `is_orphaned` must not take the answer for lost

        context = copy_context()

        def begin() -> None:
            self.loop_thread_id = threading.get_ident()
            try:
                self._runs_on = (self._runs_on, loop.start(run, context, done.set))
            except RuntimeError:  # the loop is ending and starts no task; raised here, this would end the trio run
                done.set()

        if loop.call_soon(begin):
            while not done.wait(LOOK) and not loop.is_closed() and self.time_left() > -LOOK:
                pass
        self.loop_thread_id = None
        with suppress(IndexError):
            getattr(taken.pop(), "close", bool)()  # the task has not begun it, and will not
        if errors:
            raise errors[0]
        if not answers:  # the task was cancelled, or the loop was closed or blocked
            raise Stopped
        return answers[0]

    def time_left(self, until: float = inf) -> float:
        """Seconds until the deadline, or until `until` if that is earlier; 0 or less if that time has passed."""
        return min(self.deadline, until) - clock_of(self.store).monotonic()

    def is_orphaned(self) -> bool:
        """Can the worker never finish? Its thread has died, or its loop was closed or has stopped."""
        runs_on = self._runs_on
        if self.finished.is_set or self.has_answer or isinstance(runs_on, tuple):  # a thread watches the task
            return False
        if isinstance(runs_on, threading.Thread) and runs_on.ident is not None:
            return not runs_on.is_alive()
        if self.loop is None or runs_on is None or isinstance(runs_on, threading.Thread):
            return self.time_left() <= -LOOK  # it was never started: a signal interrupted `start`
        if self.loop.is_closed():
            return True
        stands_still = isinstance(self.loop, AsyncioLoop) and self.loop.stands_still()
        return stands_still and self.time_left() <= -LOOK

    def can_finish(self) -> bool:
        """Is it not finished yet, and not orphaned? It may not have been started yet."""
        return not self.finished.is_set and not self.is_orphaned()

    def is_blocked_here(self) -> bool:
        """Would a sync wait on this thread block the event loop that the worker needs, or that it waits for?"""
        is_blocked = (
            self.loop_thread_id == threading.get_ident()
            and self.loop is not None
            and not self.finished.is_set
            and not self.loop.is_closed()
        )
        return is_blocked or any(one.is_blocked_here() for one in self.waits_for)  # no circle: `is_needed_by`

    def is_needed_by(self, others: list[Worker]) -> bool:
        """Does this worker wait for one of `others`, directly or not? Then they must not wait for this worker."""
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
        """Mark the worker as finished, in a forked child: its thread or loop and its waiters are in the parent only."""
        self.finished.is_set = True
        flight: Any = self.store._state.flight
        if flight is not None and flight.worker is self:
            flight.settled.is_set = True
            self.store._apply(FlightDropped(flight))


def _start(thread: threading.Thread) -> None:
    """Start `thread` from another new thread, because signal handlers run in the main thread only.

    If a handler raises an exception inside of `thread.start()`, a lock of the new thread can stay locked. The new
    thread would then wait for that lock for ever, and the exit of the interpreter would wait for the thread.
    """
    errors: list[BaseException] = []
    is_started = Gate()

    def start() -> None:
        try:
            thread.start()
        except BaseException as error:  # noqa: BLE001 - goes to the caller
            errors.append(error)
        finally:
            is_started.open()

    _thread.start_new_thread(start, ())
    is_started.wait(_STARTS_WITHIN)
    if errors:
        raise errors[0]


def _after_fork_in_child() -> None:
    for worker in list(_workers):
        worker.abandon_after_fork()
    _workers.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows knows no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
