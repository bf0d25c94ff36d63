"""Helpers that start many tasks, threads or event loops, or cancel a task at a given await."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from dataclasses import dataclass
from functools import partial
from types import coroutine
from typing import Any

import anyio
from sites import Site

from httpx_reauth import Token
from httpx_reauth.testing import AuthorizationServer, ManualClock

PATIENCE = 60.0  # seconds after which a test fails that should have ended long ago


@dataclass(frozen=True)
class Start:
    """The fault of the token when the first request is made."""

    name: str
    hits_the_api: bool  # a 401 shows that a new token is needed

    def token(self, server: AuthorizationServer, clock: ManualClock) -> Token:
        if self.name == "no token":
            return server.issue(access_token=False)
        token = server.issue()
        if self.name == "expired":
            clock.advance(2 * server.lifetime)
        else:
            server.revoke_access_tokens()
        return token


STARTS = (Start("no token", False), Start("expired", False), Start("revoked", True))


async def tasks(count: int, function: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Run `function` in `count` tasks. Return their results and exceptions."""
    outcomes: list[Any] = []

    async def one() -> None:
        try:
            outcomes.append(await function())
        except Exception as error:  # noqa: BLE001 - the test checks it
            outcomes.append(error)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(one)
    return outcomes


class Threads:
    """Threads that begin at the same time, each with one function. `join` returns results and exceptions."""

    def __init__(self, functions: Iterable[Callable[[], Any]]) -> None:
        functions = list(functions)
        self.outcomes: list[Any] = []
        self._begin = threading.Barrier(len(functions))
        # They are daemons, so a thread that hangs fails only its test.
        self._threads = [threading.Thread(target=self._run, args=(one,), daemon=True) for one in functions]
        for thread in self._threads:
            thread.start()

    def _run(self, function: Callable[[], Any]) -> None:
        try:
            self._begin.wait(PATIENCE)
            self.outcomes.append(function())
        except Exception as error:  # noqa: BLE001 - the test checks it
            self.outcomes.append(error)

    def join(self) -> list[Any]:
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread hangs"
        return self.outcomes


def loop_thread(backend: str, function: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Callable[[], Any]:
    """Return a function for `Threads` that runs `function` in a new event loop."""
    return partial(anyio.run, function, *arguments, backend=backend)


@coroutine
def suspended(
    task: Coroutine[Any, Any, Any], at: int, then: Callable[[], object]
) -> Generator[Any, Any, tuple[Any, int]]:
    """Run an awaitable, and call `then` when it suspends for the time number `at`.

    Example: `await suspended(task, at=3, then=scope.cancel)`. Returns the result, and how often it was suspended.
    """
    times, answer, error = 0, None, None
    while True:
        try:
            trap = task.send(answer) if error is None else task.throw(error)
        except StopIteration as stop:
            return stop.value, times
        times += 1
        if times == at:
            then()
        answer = error = None
        try:
            answer = yield trap
        except BaseException as thrown:  # noqa: BLE001 - it is thrown into the coroutine
            error = thrown


def statuses(outcomes: Iterable[Any]) -> list[Any]:
    """Return the statuses of the answers, and everything else unchanged, so that a failed comparison shows it."""
    return [getattr(outcome, "status_code", outcome) for outcome in outcomes]


async def the_refresh_token_is_kept(site: Site, auth: Any, server: AuthorizationServer, clock: ManualClock) -> None:
    """Assert that the token after the next one can still be got, so no rotation was lost."""
    before = server.token_requests
    clock.advance(2 * server.lifetime)
    async with site.async_client(auth) as client:
        assert (await client.get("/me")).status_code == 200
    assert (server.token_requests, server.reuse_detected) == (before + 1, 0)
