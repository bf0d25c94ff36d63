"""A world: some processes, each with its `Reauth` objects and clients; one server; perhaps a storage."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import httpx

from httpx_reauth import Reauth, SignInRequired, Token, TokenStore
from httpx_reauth._tokens._refresh.worker import _inside

from ._kernel import Home, Kernel
from ._loops import asleep
from ._machine import Machine
from ._primitives import FLIGHTS, Here
from ._server import Server
from ._settings import Settings
from ._storage import SimStorage, Vault
from ._values import RESPONSES, Ask, Dropped, another
from ._watch import Watch


class Process:
    """One simulated process."""

    def __init__(self, world: World, machine: Machine, number: int, token: Token | None) -> None:
        self.world = world
        self.home = Home(world.kernel, machine, f"p{number}")
        settings = world.settings
        self.store = TokenStore()
        self.watch = Watch(self.home, world.server, settings)
        self.store.subscribe(self.watch)
        self.disturbed = 0  # how often something happened that makes a wait longer
        refresh = {"sync": self.refresh, "async": self.async_refresh, "lazy": self.lazy_refresh}[settings.refresh]
        storage = None if world.vault is None else SimStorage(world.vault, self.home)
        self.auths = [
            Reauth(
                refresh,
                token=token,
                store=self.store,
                storage=storage,
                origins=["https://api.test"],
                leeway=settings.leeway,
                refresh_timeout=settings.refresh_timeout,
                clock=self.home,
            )
            for _ in range(2 if settings.shared_store else 1)
        ]
        if token is not None:
            self.watch.own.add(token.access_token)

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
        key = f"login of {self.home.name if world.vault is None else 'all'}" if logs_in else token.refresh_token
        ask = Ask(
            self.home,
            key,
            world.kernel.now,
            worker.deadline,
            worker,
            FLIGHTS[worker],
            logs_in,
            is_stoppable=settings.refresh != "sync",
        )
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
        self.vault = Vault(kernel, settings, self.server) if settings.storage else None
        self.machines = [Machine(kernel, kernel.random.choice((0.0, 0.0, -30.0, 3_000.0)))]
        if kernel.random.random() < 0.3:
            self.machines.append(Machine(kernel))
        self.processes: list[Process] = []
        self.stood_still = 0  # how often some thread did
        self.heaven = Home(kernel, Machine(kernel), "world")  # what happens to the processes happens from here
        first = {"none": None, "whole": True, "refresh token": False}[settings.first]
        token = None if first is None else self.server.sign_in(with_access=first)
        for number in range(len(settings.processes)):
            self.start(number, token if number == 0 else None)

    def start(self, number: int, token: Token | None) -> Process:
        machine = self.machines[number % len(self.machines)]
        stood_still = self.stood_still
        process = Process(self, machine, len(self.processes), token)
        # The token's lifetime counts from when it is given by hand: meanwhile, who gives it may have stood still.
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
