"""One interface for asyncio and trio: find the running event loop, call a function on it, start a task, wait.

asyncio, trio and anyio are imported only if one of them is running already, or if the library needs a new event loop.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    import asyncio

    import trio

_T = TypeVar("_T")

Run: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class Event(Protocol):
    """The common part of asyncio's and trio's events. An event of anyio would add a coroutine for each waiter."""

    def set(self) -> None: ...
    def wait(self) -> Coroutine[Any, Any, object]: ...


class AsyncioLoop:
    """A running asyncio event loop."""

    __slots__ = ("_loop",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncioLoop) and other._loop is self._loop

    def __hash__(self) -> int:
        return hash(self._loop)

    def call_soon(self, function: Callable[[], object]) -> bool:
        """Call `function` on the loop, from any thread; False if the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            return False
        return True

    def is_closed(self) -> bool:
        return self._loop.is_closed()

    def stands_still(self) -> bool:
        """Is the loop stopped, though not closed? Then perhaps it never runs again."""
        return not self._loop.is_running()

    def start(self, run: Run, context: Context, on_end: Callable[[], None]) -> object:
        """Start a task without a parent; `on_end` is called after it in any case, even if the task never ran."""
        task = context.run(self._loop.create_task, run())  # `create_task` has no `context=` on Python 3.10
        task.add_done_callback(lambda _: on_end())
        return task  # asyncio itself keeps only a weak reference

    def event(self) -> Event:
        """A new event, for use on the loop's thread only."""
        import asyncio

        return asyncio.Event()

    def call_later(self, seconds: float, function: Callable[[], object]) -> Callable[[], object]:
        """Call `function` on the loop after `seconds`; return a function that cancels this. For the loop's thread."""
        return self._loop.call_later(seconds, function).cancel


class TrioLoop:
    """A running trio event loop."""

    __slots__ = ("_token",)

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrioLoop) and other._token is self._token

    def __hash__(self) -> int:
        return hash(self._token)

    def call_soon(self, function: Callable[[], object]) -> bool:
        """Call `function` on the loop, from any thread; False if the loop has ended."""
        trio = sys.modules["trio"]
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            return False
        return True

    def is_closed(self) -> bool:
        with suppress(RuntimeError):  # not in trio
            if sys.modules["trio"].lowlevel.current_trio_token() is self._token:
                return False
        return not self.call_soon(lambda: None)

    def start(self, run: Run, context: Context, on_end: Callable[[], None]) -> object:
        """Start a system task, which has no parent; `on_end` is called after it in any case."""
        trio = sys.modules["trio"]

        async def system_task() -> None:
            # An exception that leaves a system task, other than a cancellation, ends the whole trio run as an internal
            # error. The flight has given its error to the waiters, and a cancelled task may return normally.
            try:
                with suppress(BaseException):
                    await run()
            finally:
                on_end()

        return trio.lowlevel.spawn_system_task(system_task, name="httpx_reauth refresh", context=context)

    def event(self) -> Event:
        """A new event, for use on the loop's thread only."""
        return cast("Event", sys.modules["trio"].Event())

    def call_later(self, seconds: float, function: Callable[[], object]) -> Callable[[], object]:
        """Call `function` on the loop after `seconds`; return a function that cancels this."""
        trio = sys.modules["trio"]
        scope: Any = trio.CancelScope()

        async def wait() -> None:
            with scope:
                await trio.sleep(seconds)
                with suppress(BaseException):  # as above
                    function()

        trio.lowlevel.spawn_system_task(wait, name="httpx_reauth timer", context=copy_context())
        return cast("Callable[[], object]", scope.cancel)


Loop: TypeAlias = AsyncioLoop | TrioLoop


def current_loop() -> object:
    """An object for the event loop of the calling task: one object for all tasks of a loop, another for each loop."""
    asyncio: Any = sys.modules.get("asyncio")
    loop = asyncio and asyncio._get_running_loop()  # the only function for this that does not raise
    if loop is not None and asyncio.current_task(loop) is not None:
        sniffio = sys.modules.get("sniffio")  # trio sets it while trio runs, even inside of an asyncio task
        if sniffio is None or sniffio.thread_local.name != "trio":
            return loop
    if (trio := sys.modules.get("trio")) is not None:
        with suppress(RuntimeError):  # not in a trio task; trio and asyncio may run inside of each other
            trio.lowlevel.current_task()
            return trio.lowlevel.current_trio_token()
    if loop is None:
        raise RuntimeError("There is no running event loop.")
    return loop


def running_loop() -> Loop:
    """The event loop of the calling task."""
    here: Any = current_loop()
    return AsyncioLoop(here) if hasattr(here, "call_soon_threadsafe") else TrioLoop(here)


class Stopped(Exception):
    """A coroutine was stopped before it returned: by this library at its time limit, or by a cancellation."""

    def __init__(self, *, out_of_time: bool = False) -> None:
        super().__init__()
        self.out_of_time = out_of_time


async def within(seconds: float, awaitable: Awaitable[_T]) -> _T:
    """The result of `awaitable`. After `seconds`, `awaitable` is cancelled, and `Stopped` is raised."""
    import anyio

    with anyio.move_on_after(seconds):
        return await awaitable
    raise Stopped(out_of_time=True)


def run_in_new_loop(seconds: float, awaitable: Awaitable[_T]) -> _T:
    """`within`, in a new event loop on this thread. Raises an error if an event loop is running here already."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(within(seconds, awaitable))
    getattr(awaitable, "close", bool)()
    raise RuntimeError(
        "No thread can start here, and on this one an event loop is running, so a coroutine cannot be waited for. "
        "Await the token (an httpx.AsyncClient, or aget_token), or give a plain function as the refresh."
    )


def leave_loop(context: Context) -> Context:
    """A copy of `context` for a new thread, with sniffio's variable reset, since trio does not run in that thread."""
    context = context.copy()
    if (sniffio := sys.modules.get("sniffio")) is not None:
        context.run(sniffio.current_async_library_cvar.set, None)
    return context
