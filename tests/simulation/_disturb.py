"""Disturbs a world from outside: revocations, clocks that jump, people who sign in and out, crashes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from httpx_reauth import ReauthError

from ._deeds import forget_frames
from ._redis import Lease, SimRedis

if TYPE_CHECKING:
    from ._settings import Clients
    from ._world import Process, World

Populate = Callable[["Process", "list[Clients]"], None]


def disturb(world: World, populate: Populate) -> None:
    """Disturb the world some times."""
    kernel, settings = world.kernel, world.settings
    random = kernel.random
    for _ in range(settings.disturbances):
        kernel.sleep(random.random() * settings.span / settings.disturbances * 2)
        kind = random.choice(settings.kinds)
        if not world.alive:
            return
        kernel.note("disturbance:", kind)
        _KINDS[kind](world, random.choice(world.alive), populate)
    world.server.refusing = False


def _revoke(world: World, process: Process, _: Populate) -> None:
    token = process.token
    if token is not None and token.access_token:
        world.server.access[token.access_token].revoked = True


def _kill_family(world: World, process: Process, _: Populate) -> None:
    token = process.token
    known = None if token is None else world.server.refresh.get(token.refresh_token or "")
    if known is not None:
        known.family.died = known.family.died or "revocation"
        world.server.troubles += 1


def _jump(world: World, process: Process, _: Populate) -> None:
    process.home.machine.jump(world.kernel.random.choice((-3600.0, -60.0, 60.0, 3600.0)))


def _sleep(world: World, process: Process, _: Populate) -> None:
    _send_to_sleep(world, process, world.kernel.random.choice((10.0, 4000.0)) * world.kernel.random.random())


def _sleep_with_the_lease(world: World, _process: Process, _: Populate) -> None:
    """The machine of the next one that uses its lease falls asleep, mostly for longer than the lease."""
    kernel = world.kernel

    def fall_asleep(lease: Lease) -> None:
        if kernel.random.random() < 0.5:
            kernel.sleep(kernel.random.random() * world.settings.token_latency)
        beyond = kernel.random.choice((5.0, 50.0)) * (kernel.random.random() - 0.1)
        _send_to_sleep(world, lease.process, lease.ends - kernel.now + beyond)

    if isinstance(world.vault, SimRedis):
        world.vault.at_next_use = lambda lease: kernel.spawn(world.outside, fall_asleep, lease, name="sleep")


def _send_to_sleep(world: World, process: Process, seconds: float) -> None:
    world.server.troubles += 1
    for one in world.processes:
        one.disturbed += 1
    process.home.machine.sleep(max(0.0, seconds))


def _refuse_all(world: World, _process: Process, _: Populate) -> None:
    world.server.refusing = not world.server.refusing


def _in_process(world: World, process: Process, name: str, function: Callable[[], Any]) -> None:
    def guarded() -> None:
        try:
            function()
        except ReauthError as error:
            if not world.server.troubles:
                world.kernel.fail(f"{name} raised an error without a reason: {error}", error)
            else:
                forget_frames(error)

    world.kernel.spawn(process.home, guarded, name=name)


def _sign_in(world: World, process: Process, _: Populate) -> None:
    number = world.kernel.random.randrange(2)
    token = world.server.sign_in(with_access=world.kernel.random.random() < 0.7)
    _in_process(world, process, "sign in", lambda: process.auth(number).sign_in(token))


def _sign_out(world: World, process: Process, _: Populate) -> None:
    world.server.sign_outs += 1
    number, disconnects = world.kernel.random.randrange(2), world.kernel.random.random() < 0.5

    def sign_out() -> None:
        if disconnects and process.pool is not None:
            process.pool.disconnect()
        else:
            process.auth(number).sign_out()

    _in_process(world, process, "sign out", sign_out)


def _crash(world: World, process: Process, populate: Populate) -> None:
    """It dies here and now, and another one takes its place some time later."""
    kernel = world.kernel
    process.home.is_dead = True
    world.server.troubles += 1
    world.server.crashed(process.home)
    if world.vault is not None:
        world.vault.crashed(process.home)
    kernel.sleep(kernel.random.random() + max(0.0, process.home.machine.asleep_until - kernel.now))
    token = None if world.vault is not None else world.server.sign_in()
    number = world.processes.index(process) % len(world.settings.processes)
    populate(world.start(number, token), world.settings.processes[number])


def _storage_away(world: World, _process: Process, _: Populate) -> None:
    vault, kernel = world.vault, world.kernel
    if vault is None:
        return

    def away() -> None:
        vault.is_away = True
        kernel.sleep(kernel.random.random() * kernel.random.choice((1.0, 10.0)))
        vault.is_away = False

    kernel.spawn(world.outside, away, name="storage away")


def _lose_data(world: World, _process: Process, _: Populate) -> None:
    if isinstance(world.vault, SimRedis):
        world.vault.lose()


_KINDS: dict[str, Callable[[Any, Any, Any], None]] = {
    "revoke": _revoke,
    "kill family": _kill_family,
    "jump": _jump,
    "sleep": _sleep,
    "sign in": _sign_in,
    "sign out": _sign_out,
    "refuse all": _refuse_all,
    "crash": _crash,
    "storage away": _storage_away,
    "lose data": _lose_data,
    "sleep with the lease": _sleep_with_the_lease,
}
