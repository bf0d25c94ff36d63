"""Plays the world of one seed: first clients and disturbances, then a calm period, then a last check of all objects."""

from __future__ import annotations

import gc
import random
from dataclasses import dataclass

from trio._core import _run

import httpx_reauth._state.store
import httpx_reauth._tokens._refresh.worker
from httpx_reauth import Reauth, RefreshError, SignInRequired

from ._clients import asyncio_clients, sync_client, trio_clients
from ._deeds import Deed, do
from ._disturb import disturb
from ._kernel import Kernel, Thread
from ._primitives import FLIGHTS, Here
from ._settings import Clients, Settings, draw
from ._world import Process, World

CALM = 200.0  # seconds after which no failure is remembered any more
_COLLECT_EVERY = 100  # after so many worlds


@dataclass
class Result:
    """What came of a seed."""

    seed: int
    violation: str
    cause: BaseException | None
    steps: int
    token_requests: int
    api_requests: int
    trace: list[str]
    settings: Settings


_played = 0


def play(seed: int, *, traced: bool = False) -> Result:
    """Play the world of `seed`, inside of `virtual()`."""
    global _played  # noqa: PLW0603 - it says how much garbage there may be
    _played += 1
    if _played % _COLLECT_EVERY == 0:
        gc.collect()
    settings = draw(random.Random(seed))
    kernel = Kernel(seed, traced=traced)
    Here.kernel, Here.no_threads = kernel, settings.no_threads
    _run._r = random.Random(seed)
    world = World(settings, kernel)
    try:
        for process, groups in zip(world.processes, settings.processes, strict=True):
            populate(process, groups)
        kernel.spawn(world.outside, disturb, world, populate, name="disturb")
        kernel.run()
        if kernel.violation is None:
            _look_for_those_who_hang(kernel)
        if kernel.violation is None:
            _after_all(world)
    finally:
        violation, steps = kernel.violation, kernel.steps
        # the trace does not show how the objects of an ended world are destroyed
        trace, kernel.trace = kernel.trace or [], None
        kernel.close()
        httpx_reauth._tokens._refresh.worker._workers.clear()
        FLIGHTS.clear()
        httpx_reauth._state.store._notifying.clear()
    return Result(
        seed,
        "" if violation is None else str(violation),
        None if violation is None else violation.__cause__,
        steps,
        world.server.token_requests,
        world.server.api_requests,
        trace,
        settings,
    )


def populate(process: Process, groups: list[Clients]) -> None:
    """The clients of a process begin."""
    kernel = process.world.kernel
    for clients in groups:
        number = kernel.random.randrange(2)
        if clients.kind == "sync":
            for _ in range(clients.tasks):
                kernel.spawn(process.home, sync_client, process, number, clients.requests, name="sync")
        elif clients.kind == "asyncio":
            kernel.spawn(process.home, asyncio_clients, process, number, clients, name="asyncio")
        else:
            kernel.spawn(process.home, trio_clients, process, number, clients, name="trio")


def _look_for_those_who_hang(kernel: Kernel) -> None:
    left = [thread.name for thread in kernel.threads if _is_left(thread)]
    if left:
        kernel.fail(f"nobody will ever wake {', '.join(left)}")


def _is_left(thread: Thread) -> bool:
    return not (thread.dead or thread.home.is_dead)


def _after_all(world: World) -> None:
    """All is well again, and everything that failed is long ago: whoever is left must get a token."""
    kernel, server = world.kernel, world.server
    server.is_calm, server.refusing, world.settings.drops = True, False, 0.0
    kernel.stalls, Here.no_threads = 0.0, 0.0
    awake = max(kernel.now, *(machine.asleep_until for machine in world.machines))
    kernel.now = awake + CALM + max(machine.jumped_back for machine in world.machines)
    kernel.note("calm")
    for process in world.alive:
        for number in range(2 if world.settings.shared_store else 1):
            kernel.spawn(process.home, _last_look, process, number, name="last look")
            kernel.run()
            if kernel.violation is not None:
                return
    _look_for_those_who_hang(kernel)
    for process in world.alive:
        if world.vault is not None and any(auth.store._state.pending_write for auth in process.alive):
            kernel.fail(f"a token of {process.home.name} was never saved")


def _last_look(process: Process, number: int) -> None:
    world, auth = process.world, process.auth(number)
    kernel = world.kernel
    if not _works(process, auth):
        auth.sign_in(world.server.sign_in())
        if not _works(process, auth):
            kernel.fail("a sign-in does not help")
            return
    token = auth.store.state.token
    if token is not None:
        process.watch.forced.add(token.access_token)
    try:
        auth.get_token(rejected=token)
    except SignInRequired as error:
        _is_fitting(process, auth, error)
        return
    except RefreshError as error:
        kernel.fail(f"all is well, but a forced renewal fails: {error}", error)
        return
    if not _works(process, auth) and world.vault is None:  # the token that was found there may be refused next
        kernel.fail("a renewed token does not work")
    auth.close()


def _works(process: Process, auth: Reauth) -> bool:
    kernel = process.world.kernel
    deed = Deed(process, auth.store, is_async=False)
    deed.kind = "request"
    status = do(process, auth, deed)
    # the token that was found there may have ended without a known end
    if status == 401 and process.world.vault is not None:
        status = do(process, auth, deed)
    if status is None and isinstance(deed.error, SignInRequired):
        _is_fitting(process, auth, deed.error)
        return False
    if status != 200:
        kernel.fail(f"all is well, but a request gets {status or deed.error!r}", deed.error)
    return True


def _is_fitting(process: Process, auth: Reauth, error: SignInRequired) -> None:
    """Only a sign-in helps: is there really nothing left that could be renewed?"""
    world = process.world
    refresh = world.server.refresh
    token = None if world.vault is None else auth.store._storage.load()  # it wins over what the process has
    token = token or auth.store.state.token
    known = None if token is None else refresh.get(token.refresh_token or "")
    if token is not None and known is not None and not (known.successor or known.family.died):
        world.kernel.fail(f"{token.refresh_token} could be spent, but: {error}", error)
