"""A world: some processes, each with `Reauth` objects and clients; one server; perhaps a storage."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import httpx

from httpx_reauth import Reauth, SignInRequired, Token, TokenStore
from httpx_reauth._tokens._refresh.worker import _inside

from ._kernel import Home, Kernel
from ._loops import asleep
from ._machine import Machine
from ._pool import Pool
from ._primitives import FLIGHTS, Here
from ._redis import SimRedis
from ._server import Server
from ._settings import Settings
from ._storage import Vault
from ._values import RESPONSES, Ask, Dropped, another
from ._watch import Events, Watch


class Process:
    """One simulated process."""

    def __init__(self, world: World, machine: Machine, number: int, token: Token | None) -> None:
        self.world = world
        self.home = Home(world.kernel, machine, f"p{number}")
        settings = world.settings
        self.watch = Watch(self.home, world.server, settings)
        self.disturbed = 0  # how often something happened that makes a wait longer
        self.pool: Pool | None = Pool(self) if settings.pool else None
        self._auths: list[Reauth] = []
        if self.pool is None:
            storage = None if world.vault is None else world.vault.storage(self)
            store = self.store()
            self._auths = [self.make(store, storage, token) for _ in range(2 if settings.shared_store else 1)]
            if token is not None:
                self.watch.own.add(token.access_token)
        elif token is not None and world.vault is not None:
            world.vault.put(replace(token, expires_at=settings.lifetime + world.kernel.now + 1_700_000_000.0))

    def store(self) -> TokenStore:
        """A new store, whose events are watched."""
        store = TokenStore()
        store.subscribe(Events(self.watch))
        return store

    def make(self, store: TokenStore, storage: Any, token: Token | None = None) -> Reauth:
        settings = self.world.settings
        refresh = {"sync": self.refresh, "async": self.async_refresh, "lazy": self.lazy_refresh}[settings.refresh]
        return Reauth(
            refresh,
            token=token,
            store=store,
            storage=storage,
            origins=["https://api.test"],
            leeway=settings.leeway,
            refresh_timeout=settings.refresh_timeout,
            clock=self.home,
        )

    def auth(self, number: int) -> Reauth:
        """The auth object for the next thing that a client does; a client has the same number each time."""
        return self._auths[number % len(self._auths)] if self.pool is None else self.pool.get()

    @property
    def alive(self) -> list[Reauth]:
        """The auth objects of its user."""
        return self._auths if self.pool is None else self.pool.alive

    @property
    def token(self) -> Token | None:
        """The user's token here; a storage holds it while a pool has no object of that user."""
        for auth in self.alive:
            return auth.store.state.token
        return None if self.world.vault is None else self.world.vault.token

    def refresh(self, token: Token) -> Token:
        _, steps = self._ask(token)
        try:
            while True:
                self.world.kernel.sleep(next(steps))
        except StopIteration as stop:
            return Token.from_response(stop.value)
        finally:
            steps.close()

    async def async_refresh(self, token: Token) -> Token:
        kernel = self.world.kernel
        ask, steps = self._ask(token)
        answer: Any = None
        try:
            while True:
                try:
                    seconds = next(steps)
                except StopIteration as stop:
                    answer = stop.value
                    break
                await asleep(kernel, seconds)
        except Exception:
            raise
        except BaseException:
            is_ending = kernel.current is None or kernel.current.is_ending
            self.world.server.stopped(ask, loop_is_ending=is_ending)
            raise
        finally:
            steps.close()
        return Token.from_response(answer)

    def lazy_refresh(self, token: Token) -> Any:
        return self.async_refresh(token)

    def _ask(self, token: Token) -> tuple[Ask, Generator[float, None, httpx.Response]]:
        world = self.world
        settings = world.settings
        logs_in = token.refresh_token is None
        if logs_in and settings.rotation != "none" and not settings.logs_in:
            raise SignInRequired("There is no refresh token.")
        worker = _inside.get()[-1]
        self.watch.asks(token, FLIGHTS[worker])
        key = f"login of {self.home.name if world.vault is None else 'all'}" if logs_in else token.refresh_token
        # Its loop may have stood still for so long that the library has given it up, before it has begun to ask.
        is_given_up = worker.finished.is_set and self.home.machine.monotonic() >= worker.deadline
        lease = None
        if world.vault is not None:
            lease = world.vault.lease_of(worker.store._storage, is_given_up=is_given_up)
        ask = Ask(
            self.home,
            key,
            world.kernel.now,
            worker.deadline,
            worker,
            FLIGHTS[worker],
            logs_in,
            is_stoppable=settings.refresh != "sync",
            lease=lease,
            is_given_up=is_given_up,
        )
        if ask.lease is not None:
            ask.lease.asks.append(ask)
        return ask, world.server.exchange(ask, token)


class World:
    """Everything that one seed makes."""

    def __init__(self, settings: Settings, kernel: Kernel) -> None:
        self.settings = settings
        self.kernel = kernel
        kernel.restlessness = settings.restlessness
        kernel.stalls = settings.stalls
        kernel.on_stall = self._on_stall
        Here.on_no_thread = self._on_no_thread
        self.server = Server(kernel, settings)
        kind: Any = {"lock": Vault, "lease": SimRedis}.get(settings.storage)
        self.vault: Vault | SimRedis | None = None if kind is None else kind(kernel, settings, self.server)
        self.machines = [Machine(kernel, kernel.random.choice((0.0, 0.0, -30.0, 3_000.0)))]
        if kernel.random.random() < 0.3 or settings.storage == "lease":
            self.machines.append(Machine(kernel))
        self.processes: list[Process] = []
        self.stood_still = 0  # how often a thread has stopped for a while
        # not a process of the world: from here the simulation disturbs the processes
        self.outside = Home(kernel, Machine(kernel), "world")
        first = {"none": None, "whole": True, "refresh token": False}[settings.first]
        token = None if first is None else self.server.sign_in(with_access=first)
        for number in range(len(settings.processes)):
            self.start(number, token if number == 0 else None)

    def start(self, number: int, token: Token | None) -> Process:
        machine = self.machines[number % len(self.machines)]
        stood_still = self.stood_still
        process = Process(self, machine, len(self.processes), token)
        # The lifetime counts from when the token is given by hand. The thread that gives it may have stopped meanwhile.
        process.disturbed += self.stood_still - stood_still
        self.processes.append(process)
        return process

    @property
    def alive(self) -> list[Process]:
        return [process for process in self.processes if not process.home.is_dead]

    def process_of(self, home: Home) -> Process | None:
        return next((one for one in self.processes if one.home is home), None)

    def _on_stall(self, thread: Any, seconds: float) -> None:
        self.server.troubles += 1
        self.stood_still += 1
        self.kernel.note("stands still:", thread.name, f"{seconds:g} s")
        for process in self.processes:
            process.disturbed += 1

    def _on_no_thread(self) -> None:
        self.server.troubles += 1

    def api(self, request: httpx.Request, carried: str) -> Generator[float, None, httpx.Response]:
        """One request at the API, or at the stranger; `carried` is its header."""
        kernel = self.kernel
        if kernel.current is not None and kernel.current.home.owner is kernel.current:
            kernel.fail("a lock is held while a request is in flight")
        random = kernel.random.random
        if self.settings.api_latency and random() < 0.7:
            yield random() * self.settings.api_latency
        if random() < self.settings.drops:
            raise Dropped("API")
        return another(RESPONSES[self.server.serve(request, carried)], _request=request)
