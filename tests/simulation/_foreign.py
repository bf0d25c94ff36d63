"""What an event loop leaves in the operating system's thread: all virtual threads share one, so it is swapped."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Protocol

import sniffio
from trio._core._run import GLOBAL_RUN_CONTEXT


class Foreign(Protocol):
    """An event loop, to whoever switches between threads."""

    def leave(self) -> None: ...
    def enter(self) -> None: ...


class AsyncioState:
    """asyncio remembers the running loop; and since Python 3.14, the current task of a thread, not of each loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None

    def leave(self) -> None:
        if sys.version_info >= (3, 14):
            self._task = asyncio.tasks._swap_current_task(self._loop, None)
        asyncio._set_running_loop(None)

    def enter(self) -> None:
        asyncio._set_running_loop(self._loop)
        if sys.version_info >= (3, 14):
            asyncio.tasks._swap_current_task(self._loop, self._task)


class TrioState:
    """trio remembers the runner and the task, tells sniffio, and watches async generators."""

    def __init__(self) -> None:
        self._context: dict[str, Any] = {}
        self._library: str | None = None
        self._hooks = sys.get_asyncgen_hooks()

    def leave(self) -> None:
        self._context = dict(GLOBAL_RUN_CONTEXT.__dict__)
        GLOBAL_RUN_CONTEXT.__dict__.clear()
        self._library, sniffio.thread_local.name = sniffio.thread_local.name, None
        self._hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)

    def enter(self) -> None:
        GLOBAL_RUN_CONTEXT.__dict__.update(self._context)
        sniffio.thread_local.name = self._library
        sys.set_asyncgen_hooks(*self._hooks)
