"""Runs the work of a flight: as a task of the caller's event loop, or in a thread of its own.

The work is a generator that yields calls and gets their answers; it knows no colour. Two drivers serve it,
which differ in one `await`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from contextvars import copy_context
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeAlias

from httpx_reauth._tokens._refresh.loops import Loop, Stopped, leave_loop, run_in_new_loop, within

if TYPE_CHECKING:
    from httpx_reauth._tokens._refresh.flight import Flight


class Call:
    """Something to call, outside of any lock.

    Attributes:
        function: the user's refresh, or a storage's function.
        arguments: what it gets.
        seconds: of a refresh: after how long an awaitable that it returns is stopped. None: it is a storage's
            function, which blocks and answers with no awaitable.
    """

    __slots__ = ("arguments", "function", "seconds")

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...] = (), seconds: float | None = None
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.seconds = seconds


Work: TypeAlias = Generator[Call, Any, None]

_LOOK = 1.0  # seconds between two looks at whether the event loop that is waited for still exists


def launch(flight: Flight, work: Work, *, here: Loop | None, is_coroutine: bool, is_blocking: bool) -> None:
    """Start `work` away from the caller, with the caller's context; its end lands the flight.

    Args:
        flight: the flight that the work belongs to.
        work: it is advanced to its first call here and now, so that whatever happens finds it inside of its `try`.
        here: the event loop that the caller runs on, if it is async.
        is_coroutine: the refresh is a coroutine, which belongs to that loop; else it gets one of its own.
        is_blocking: some of the calls block, so the work goes to a thread in any case.
    """
    try:
        call = next(work)
    except StopIteration:  # it failed before there was anything to call
        flight.end()
        return
    context = copy_context()
    context.run(flight.board)

    def stop() -> None:
        if not flight.landed:  # the task was cancelled before it had begun
            with suppress(StopIteration):
                work.throw(Stopped())
        flight.end()

    def start_task(loop: Loop) -> None:
        flight.home, flight.is_task, flight.thread = loop, True, threading.get_ident()
        flight.keep = loop.start(lambda: _drive_as_task(flight, work, call), context, stop)

    if here is not None and is_coroutine:
        if not is_blocking:
            start_task(here)
            return
        flight.home, flight.thread = here, threading.get_ident()
    # Not a daemon, so that the interpreter's exit waits for a rotation under way.
    thread = threading.Thread(
        target=leave_loop(context).run, args=(_drive, flight, work, call), name="httpx_reauth refresh", daemon=False
    )
    flight.keep = thread
    try:
        thread.start()
    except RuntimeError:  # no thread can start: at the interpreter's exit, at a limit, on some platforms
        if here is not None:
            start_task(here)
            return
        grave = context.run(_drive, flight, work, call)
        if grave is not None:
            raise grave from None


def _drive(flight: Flight, work: Work, call: Call) -> BaseException | None:
    """Do the work on this thread; returns what must go on to whoever runs it (not an error of the refresh)."""
    if not flight.begin():
        return None
    grave = None
    try:
        while True:
            try:
                if call.seconds is not None and flight.home is not None:
                    answer = _call_at_home(flight, flight.home, call, call.seconds)
                else:
                    answer = call.function(*call.arguments)
                    if call.seconds is not None and isawaitable(answer):
                        answer = run_in_new_loop(call.seconds, answer)
            except Exception as error:  # noqa: BLE001 - the work decides what it means
                call = work.throw(error)
            except BaseException as error:  # noqa: BLE001 - cancelled, or the process is asked to end
                grave = error
                call = work.throw(Stopped())
            else:
                call = work.send(answer)
    except StopIteration:
        return grave
    finally:
        flight.end()


async def _drive_as_task(flight: Flight, work: Work, call: Call) -> None:
    """Do the work in a task of the running event loop."""
    if not flight.begin():
        return
    grave = None
    try:
        while True:
            try:
                answer = call.function(*call.arguments)
                if call.seconds is not None and isawaitable(answer):
                    answer = await within(call.seconds, answer)
            except Exception as error:  # noqa: BLE001 - the work decides what it means
                call = work.throw(error)
            except BaseException as error:  # noqa: BLE001 - cancelled: the loop ends
                grave = error
                call = work.throw(Stopped())
            else:
                call = work.send(answer)
    except StopIteration:
        if grave is not None:
            raise grave from None
    finally:
        flight.end()


def _call_at_home(flight: Flight, home: Loop, call: Call, seconds: float) -> Any:
    """Run the coroutine on the event loop that it belongs to, while this thread waits for it."""
    done = threading.Event()
    answers: list[Any] = []
    errors: list[BaseException] = []

    async def run() -> None:
        if done.is_set():  # given up, while the loop stood still
            return
        try:
            left = min(seconds, flight.time_left())  # who waits gives up then, though the loop stood still at first
            answers.append(await within(left, call.function(*call.arguments)))
        except Exception as error:  # noqa: BLE001 - goes to the thread
            errors.append(error)
        flight.has_answered = True  # before its loop can be closed: what it has brought must not be taken for lost

    context = copy_context()

    def begin() -> None:
        try:
            flight.keep = (flight.keep, home.start(run, context, done.set))
        except RuntimeError:  # it is ending, and takes no task any more; raised here, it would break all of trio
            done.set()

    if home.call_soon(begin):
        looks = max(1, math.ceil(seconds / _LOOK) + 1)
        while looks and not done.wait(_LOOK) and not home.is_closed():
            looks -= 1
    done.set()
    if errors:
        raise errors[0]
    if not answers:  # cancelled, or its loop was closed or stood still
        raise Stopped
    return answers[0]
