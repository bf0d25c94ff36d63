"""The two kinds of event loop, each spelt once: who is running, how to call in, how to start a task (floor 2).

asyncio, trio and anyio are imported only where one is running already, or a loop of our own is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    import asyncio

    import anyio
    import trio

_T = TypeVar("_T")

Run: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


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

    def start(self, run: Run, context: Context, ended: Callable[[], None]) -> object:
        """Start a task that is nobody's child; `ended` is called after it in any case, even if it never ran."""
        task = context.run(self._loop.create_task, run())  # takes a copy of the context, on Python 3.10 as well
        task.add_done_callback(lambda _: ended())
        return task  # asyncio itself keeps only a weak reference

    async def wait(self, room: WaitingRoom, seconds: float) -> None:
        # A timer for the whole room instead of a cancel scope for each waiter: 10,000 of those cost more than
        # the requests, and on Python 3.10 a scope can swallow a `task.cancel()` that comes at the same moment.
        if room.timer is None:
            room.timer = self._loop.call_later(seconds, room.wake)
        await room.event.wait()


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
        return not self.call_soon(_nothing)

    def start(self, run: Run, context: Context, ended: Callable[[], None]) -> object:
        """Start a system task, which is nobody's child; `ended` is called after it in any case."""
        trio = sys.modules["trio"]

        async def system_task() -> None:
            # Whatever left it, but for cancellation, would end the whole trio run as an internal error. The flight
            # has told its waiters; and a cancelled task may as well return.
            try:
                with suppress(BaseException):
                    await run()
            finally:
                ended()

        return trio.lowlevel.spawn_system_task(system_task, name="httpx_reauth refresh", context=context)

    async def wait(self, room: WaitingRoom, seconds: float) -> None:
        with sys.modules["trio"].move_on_after(seconds):
            await room.event.wait()


Loop: TypeAlias = AsyncioLoop | TrioLoop


class WaitingRoom:
    """Where all tasks of one event loop wait for one flight; used on that loop's thread only."""

    __slots__ = ("_event", "timer")

    def __init__(self) -> None:
        self._event: anyio.Event | None = None
        self.timer: asyncio.TimerHandle | None = None

    @property
    def event(self) -> anyio.Event:
        """The event that the next call of `wake` sets."""
        if self._event is None:
            import anyio

            self._event = anyio.Event()
        return self._event

    def wake(self) -> None:
        """Wake everybody: the flight has landed, or it is time to look after it."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        event, self._event = self._event, None
        if event is not None:
            event.set()


def running_loop() -> Loop:
    """The event loop of the calling task."""
    trio = sys.modules.get("trio")
    if trio is not None:
        with suppress(RuntimeError):  # not a trio task: it may be asyncio's, if only as the host of a guest trio
            trio.lowlevel.current_task()
            return TrioLoop(trio.lowlevel.current_trio_token())
    import asyncio

    return AsyncioLoop(asyncio.get_running_loop())


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
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()
    raise RuntimeError(
        "No thread can start here, and on this one an event loop is running, so a coroutine cannot be waited for. "
        "Await the token (an httpx.AsyncClient, or aget_token), or give a plain function as the refresh."
    )


def leave_loop(context: Context) -> Context:
    """`context` for a thread of its own: what runs there must not believe that the caller's trio runs there, too."""
    context = context.copy()
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, None)
    return context


def _nothing() -> None:
    pass
