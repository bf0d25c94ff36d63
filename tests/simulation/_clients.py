"""The clients: threads, and tasks in event loops. They make one call after another, and may be cancelled."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

import httpx_reauth._tokens._refresh.worker
from httpx_reauth._tokens._refresh.loops import AsyncioLoop, Loop, TrioLoop

from ._deeds import Deed, ado, do
from ._loops import SimLoop, asleep, run_trio

if TYPE_CHECKING:
    from ._settings import Clients
    from ._world import Process, World


def sync_client(process: Process, number: int, requests: int) -> None:
    """A thread that makes some requests."""
    for _ in range(requests):
        process.world.kernel.sleep(pause(process))
        auth = process.auth(number)
        do(process, auth, Deed(process, auth.store, is_async=False))
        del auth  # so that a pool can let it go


def pause(process: Process) -> float:
    random = process.world.kernel.random.random
    return (
        random()
        * (0.0, 0.0, 0.1, 1.0, 0.3 * process.world.settings.lifetime, process.world.settings.lifetime)[
            int(random() * 6)
        ]
    )


def asyncio_clients(process: Process, number: int, clients: Clients) -> None:  # noqa: C901 - a whole loop
    """A thread with an asyncio event loop and some tasks."""
    kernel, settings = process.world.kernel, process.world.settings
    loop = SimLoop(shuffled=settings.shuffled)
    random = kernel.random.random
    ends_early = random() < settings.early_ends

    async def client() -> None:
        task: Any = asyncio.current_task()
        for _ in range(clients.requests):
            await asleep(kernel, pause(process))
            auth = process.auth(number)
            deed = Deed(process, auth.store, is_async=True)
            if random() < settings.cancels:
                cancel_some_time(process.world, deed, loop.call_soon_threadsafe, task.cancel)
            try:
                await ado(process, auth, deed)
            except asyncio.CancelledError:
                if not deed.is_cancelled:
                    raise
                deed.ends(None, None)
                if hasattr(task, "uncancel"):
                    task.uncancel()
            del auth

    async def main() -> None:
        tasks = [loop.create_task(client()) for _ in range(clients.tasks)]
        await asyncio.wait(tasks, timeout=random() * settings.span if ends_early else None)
        if random() < settings.closes:
            await (process.pool or process.auth(number)).aclose()

    loop.run_until_complete(main())
    process.disturbed += 1
    if any(not task.done() for task in loop.tasks) or _is_needed(AsyncioLoop(loop)):
        process.world.server.troubles += 1
    loop.end()
    for task in loop.tasks:
        if task.done() and not task.cancelled() and task.exception() is not None:
            kernel.fail(f"a task ended with {task.exception()!r}", task.exception())


def trio_clients(process: Process, number: int, clients: Clients) -> None:
    """A thread with a trio event loop and some tasks."""
    kernel, settings = process.world.kernel, process.world.settings
    random = kernel.random.random
    thread: Any = kernel.current
    ends_early = random() < settings.early_ends

    async def client() -> None:
        for _ in range(clients.requests):
            await asleep(kernel, pause(process))
            auth = process.auth(number)
            deed = Deed(process, auth.store, is_async=True)
            with trio.CancelScope() as scope:
                if random() < settings.cancels:
                    cancel_some_time(
                        process.world, deed, trio.lowlevel.current_trio_token().run_sync_soon, scope.cancel
                    )
                await ado(process, auth, deed)
            if scope.cancelled_caught:
                deed.ends(None, None)
            del auth

    async def main() -> None:
        with trio.move_on_after(random() * settings.span if ends_early else float("inf")):
            async with trio.open_nursery() as nursery:
                for _ in range(clients.tasks):
                    nursery.start_soon(client)
        if random() < settings.closes:
            await (process.pool or process.auth(number)).aclose()
        process.disturbed += 1
        thread.is_ending = True
        is_needed = _is_needed(TrioLoop(trio.lowlevel.current_trio_token()))
        if is_needed or any(ask.home is process.home for ask in process.world.server.asking):
            process.world.server.troubles += 1

    run_trio(main)


def _is_needed(loop: Loop) -> bool:
    """Is a refresh under way whose coroutine belongs to `loop`, which ends? It may wait for the storage's lock yet."""
    workers = httpx_reauth._tokens._refresh.worker._workers
    return any(worker.loop == loop and not worker.finished.is_set for worker in workers)


def cancel_some_time(world: World, deed: Deed, call_in: Any, cancel: Any) -> None:
    """Cancel `deed`, somewhere on its way."""
    kernel = world.kernel
    random = kernel.random.random

    def now() -> None:
        if not deed.is_done:
            deed.is_cancelled = True
            kernel.note("cancels", deed.kind)
            cancel()

    def some_time() -> None:
        if random() < 0.4:
            for _ in range(int(random() * 30)):
                kernel.point()
        else:
            kernel.sleep(random() * (0.1, 1.0, 5.0)[int(random() * 3)])
        if deed.is_done:
            return
        with suppress(RuntimeError, trio.RunFinishedError):  # its loop has ended
            call_in(now)

    kernel.spawn(world.outside, some_time, name="cancel")
