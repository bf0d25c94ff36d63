"""The two kinds of event loop, each spelt once: who is running, how to call in, to start a task, to wait.

asyncio, trio and anyio are imported only where one is running already, or a loop of our own is needed.
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
    """What asyncio's and trio's own events have in common: one of anyio's would be one coroutine more a waiter."""

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
        """Does nobody run it, though it is not closed? Then nobody may ever run it again."""
        return not self._loop.is_running()

    def start(self, run: Run, context: Context, on_end: Callable[[], None]) -> object:
        """Start a task that is nobody's child; `on_end` is called after it in any case, even if it never ran."""
        task = context.run(self._loop.create_task, run())  # takes a copy of the context, on Python 3.10 as well
        task.add_done_callback(lambda _: on_end())
        return task  # asyncio itself keeps only a weak reference

    def event(self) -> Event:
        """A new event; used on the loop's thread only."""
        import asyncio

        return asyncio.Event()

    def call_later(self, seconds: float, function: Callable[[], object]) -> Callable[[], object]:
        """Call `function` on the loop after so many seconds; returns how to stop that. On the loop's thread only."""
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
        """Start a system task, which is nobody's child; `on_end` is called after it in any case."""
        trio = sys.modules["trio"]

        async def system_task() -> None:
            # Whatever left it, but for cancellation, would end the whole trio run as an internal error. The flight
            # has told its waiters; and a cancelled task may as well return.
            try:
                with suppress(BaseException):
                    await run()
            finally:
                on_end()

        return trio.lowlevel.spawn_system_task(system_task, name="httpx_reauth refresh", context=context)

    def event(self) -> Event:
        """A new event; used on the loop's thread only."""
        return cast("Event", sys.modules["trio"].Event())

    def call_later(self, seconds: float, function: Callable[[], object]) -> Callable[[], object]:
        """Call `function` on the loop after so many seconds; returns how to stop that."""
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
    """What the calling task runs on: the same object for all tasks of an event loop, and another for each loop."""
    asyncio: Any = sys.modules.get("asyncio")
    loop = asyncio and asyncio._get_running_loop()  # the one way to ask that does not raise
    if loop is not None and asyncio.current_task(loop) is not None:
        sniffio = sys.modules.get("sniffio")  # by which trio says that it runs, be it inside of an asyncio task
        if sniffio is None or sniffio.thread_local.name != "trio":
            return loop
    if (trio := sys.modules.get("trio")) is not None:
        with suppress(RuntimeError):  # not a trio task: but one may be the guest of an asyncio loop, or its host
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
    """A coroutine was stopped before it had answered: by us, after its time, or else from outside."""

    def __init__(self, *, out_of_time: bool = False) -> None:
        super().__init__()
        self.out_of_time = out_of_time


async def within(seconds: float, awaitable: Awaitable[_T]) -> _T:
    """What `awaitable` returns; cancelled after `seconds`, and then `Stopped`."""
    import anyio

    with anyio.move_on_after(seconds):
        return await awaitable
    raise Stopped(out_of_time=True)


def run_in_new_loop(seconds: float, awaitable: Awaitable[_T]) -> _T:
    """`within`, in an event loop of its own on this thread, where none may be running."""
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
    """`context` for a thread of its own: what runs there must not believe that the caller's trio runs there, too."""
    context = context.copy()
    if (sniffio := sys.modules.get("sniffio")) is not None:
        context.run(sniffio.current_async_library_cvar.set, None)
    return context
