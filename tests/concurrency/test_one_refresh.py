"""Tests that many calls which need a new token at the same time share one refresh (guarantees 1 and 4)."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from crowd import STARTS, Start, Threads, loop_thread, statuses, tasks
from sites import REFRESHES, HttpLibrary, Site

from httpx_reauth.testing import AuthorizationServer, ManualClock

starts = pytest.mark.parametrize("start", STARTS, ids=lambda start: start.name)
kinds = pytest.mark.parametrize("kind", REFRESHES)


class Gates:
    """Holds back the answers of the server until all requests need a new token."""

    def __init__(self, server: AuthorizationServer, start: Start, count: int) -> None:
        self.server = server
        self.start = start
        self.count = count
        self.token, self.api = server.token_endpoint.hold(), server.api.hold()
        if not start.hits_the_api:
            self.api.release()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.token.release()
        self.api.release()

    def open(self) -> None:
        if self.start.hits_the_api:
            self.server.wait_until(lambda: self.server.api_unauthorized == self.count)
            self.api.release()
        self.server.wait_until(lambda: self.token.held == 1)
        self.token.release()

    async def aopen(self) -> None:
        if self.start.hits_the_api:
            await self.server.await_until(lambda: self.server.api_unauthorized == self.count)
            self.api.release()
        await self.server.await_until(lambda: self.token.held == 1)
        await anyio.wait_all_tasks_blocked()
        self.token.release()

    def check(self, answers: list) -> None:
        assert statuses(answers) == [200] * self.count
        assert self.server.token_requests == 1
        assert self.server.api_unauthorized == (self.count if self.start.hits_the_api else 0)
        assert len(set(self.server.authorizations("/me"))) == (2 if self.start.hits_the_api else 1)


async def herd(count: int, start: Start, kind: str, site: Site, server, library, clock, clients: int = 1) -> None:
    auth = library.Reauth(site.refresh(kind), token=start.token(server, clock), clock=clock)
    answers: list = []
    with Gates(server, start, count) as gates:
        async with anyio.create_task_group() as group:

            async def one_client() -> None:
                async with site.async_client(auth, limits=library.package.Limits(max_connections=None)) as client:
                    answers.extend(await tasks(count // clients, lambda: client.get("/me")))

            for _ in range(clients):
                group.start_soon(one_client)
            await gates.aopen()
    gates.check(answers)


@pytest.mark.anyio
@starts
async def test_guarantee_1_500_tasks_share_one_refresh(start: Start, site, server, library, clock):
    await herd(500, start, "coroutine", site, server, library, clock)


@pytest.mark.anyio
@starts
async def test_guarantee_1_100_tasks_on_sockets_share_one_refresh(start: Start, socket_site, server, library, clock):
    # Not 500: each has its own connection, and some systems allow a process at most 256 open files.
    await herd(100, start, "coroutine", socket_site, server, library, clock, clients=4)


@pytest.mark.anyio
@starts
@kinds
async def test_guarantee_1_any_kind_of_refresh_is_shared_by_tasks(start: Start, kind, site, server, library, clock):
    await herd(20, start, kind, site, server, library, clock)


@pytest.mark.anyio
@kinds
async def test_guarantee_1_any_kind_of_refresh_works_on_sockets(kind, socket_site, server, library, clock):
    await herd(10, STARTS[0], kind, socket_site, server, library, clock)


def threads(count: int, start: Start, kind: str, site: Site, server, library, clock) -> None:
    auth = library.Reauth(site.refresh(kind), token=start.token(server, clock), clock=clock)
    with Gates(server, start, count) as gates, site.client(auth) as client:
        crowd = Threads([lambda: client.get("/me")] * count)
        gates.open()
        gates.check(crowd.join())


@starts
def test_guarantee_1_50_threads_share_one_refresh(start: Start, site, server, library, clock):
    threads(50, start, "function", site, server, library, clock)


@starts
def test_guarantee_1_50_threads_on_sockets_share_one_refresh(start: Start, socket_site, server, library, clock):
    threads(50, start, "function", socket_site, server, library, clock)


@starts
@kinds
def test_guarantee_1_any_kind_of_refresh_is_shared_by_threads(start: Start, kind, site, server, library, clock):
    threads(8, start, kind, site, server, library, clock)


def mixed(site: Site, auth: object, **settings) -> Threads:
    """Start 500 tasks in 8 threads with event loops (asyncio and trio), and 50 sync threads: all with one object."""

    async def one_loop(size: int) -> list:
        async with site.async_client(auth, **settings) as client:
            return await tasks(size, lambda: client.get("/me"))

    def one_thread() -> list:
        with site.client(auth) as client:
            return [client.get("/me")]

    sizes = (63, 63, 63, 63, 62, 62, 62, 62)
    loops = [loop_thread(("asyncio", "trio")[number % 2], one_loop, size) for number, size in enumerate(sizes)]
    return Threads(loops + [one_thread] * 50)


@starts
@pytest.mark.parametrize("kind", ["coroutine", "function"])
def test_guarantee_1_500_tasks_in_8_loops_and_50_threads_share_one_refresh(
    start: Start, kind, site, server, library, clock
):
    auth = library.Reauth(site.refresh(kind), token=start.token(server, clock), clock=clock)
    with Gates(server, start, 550) as gates:
        crowd = mixed(site, auth)
        gates.open()
        gates.check([answer for answers in crowd.join() for answer in answers])


@starts
def test_guarantee_1_500_tasks_in_8_loops_and_50_threads_on_sockets_share_one_refresh(
    start: Start, socket_site, server, library, clock
):
    auth = library.Reauth(socket_site.coroutine, token=start.token(server, clock), clock=clock)
    crowd = mixed(socket_site, auth, limits=library.package.Limits(max_connections=8), timeout=60.0)
    assert statuses(answer for answers in crowd.join() for answer in answers) == [200] * 550
    assert server.token_requests == 1


@kinds
def test_guarantee_1_one_object_serves_sync_and_async_clients_and_one_event_loop_after_another(
    kind, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.refresh(kind), token=server.issue(access_token=False), clock=clock)

    async def get(path: str) -> int:
        async with site.async_client(auth) as client:
            return (await client.get(path)).status_code

    def get_sync(path: str) -> int:
        with site.client(auth) as client:
            return client.get(path).status_code

    runs = [
        lambda: asyncio.run(get("/me")),
        lambda: asyncio.run(get("/me")),
        lambda: get_sync("/me"),
        lambda: anyio.run(get, "/me", backend="trio"),
        lambda: get_sync("/me"),
        lambda: asyncio.run(get("/me")),
        lambda: anyio.run(get, "/me", backend="trio"),
        lambda: anyio.run(get, "/me", backend="trio"),
    ]
    for number, run in enumerate(runs, start=1):
        assert (run(), run()) == (200, 200)
        assert server.token_requests == number
        clock.advance(2 * 3600.0)  # the next call needs another token
    assert (server.api_unauthorized, server.reuse_detected) == (0, 0)


@pytest.mark.anyio
async def test_guarantee_1_async_client_in_several_tasks_and_sync_client_in_worker_threads(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(access_token=False), clock=clock)
    with site.client(auth) as sync_client, server.token_endpoint.hold() as gate:
        async with site.async_client(auth) as client, anyio.create_task_group() as group:

            async def release() -> None:
                await server.await_until(lambda: gate.held == 1)
                await anyio.wait_all_tasks_blocked()
                gate.release()

            group.start_soon(release)
            answers = await tasks(10, lambda: tasks(2, lambda: anyio.to_thread.run_sync(sync_client.get, "/me"))) + [
                await tasks(20, lambda: client.get("/me"))
            ]
    assert statuses(one for some in answers for one in some) == [200] * 40
    assert server.token_requests == 1


@pytest.mark.anyio
async def test_guarantee_4_late_401_for_an_older_token_is_answered_with_the_current_one_without_a_refresh(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(), clock=clock)
    async with site.async_client(auth) as client:
        assert (await client.get("/me")).status_code == 200
        server.revoke_access_tokens()
        with server.api.hold() as gate:
            async with anyio.create_task_group() as group:
                late: list = []

                async def ask() -> None:
                    late.extend(await tasks(100, lambda: client.get("/late")))

                group.start_soon(ask)
                # all are refused, and none has its answer yet
                await server.await_until(lambda: server.api_unauthorized == 100)
                await auth.aget_token(rejected=auth.store.state.token)
                assert server.token_requests == 1
                gate.release()
        assert statuses(late) == [200] * 100
        assert (server.token_requests, server.api_unauthorized) == (1, 100)


def test_guarantee_4_late_401_in_50_threads(site: Site, server, library: HttpLibrary, clock: ManualClock):
    auth = library.Reauth(site.function, token=server.issue(), clock=clock)
    server.revoke_access_tokens()
    with site.client(auth) as client, server.api.hold() as gate:
        crowd = Threads([lambda: client.get("/late")] * 50)
        server.wait_until(lambda: server.api_unauthorized == 50)
        auth.get_token(rejected=auth.store.state.token)
        gate.release()
        assert statuses(crowd.join()) == [200] * 50
    assert (server.token_requests, server.api_unauthorized) == (1, 50)


class InterruptedClock(ManualClock):
    """A clock that runs a whole refresh between two reads of the state."""

    interruption: Any = None

    def monotonic(self) -> float:
        interruption, self.interruption = self.interruption, None
        if interruption is not None:
            interruption()
        return super().monotonic()


@pytest.mark.parametrize("start", ["no token", "revoked"])
def test_guarantee_1_decision_that_rests_on_an_old_state_starts_no_refresh(start, library: HttpLibrary):
    clock = InterruptedClock()
    with AuthorizationServer(clock=clock) as server:
        auth = library.Reauth(
            library.at(server).function, token=server.issue(access_token=start == "revoked"), clock=clock
        )
        rejected = auth.store.state.token if start == "revoked" else None
        clock.interruption = lambda: tokens.append(auth.get_token(rejected))
        tokens: list = []
        tokens.append(auth.get_token(rejected))
        assert len(tokens) == 2
        assert tokens[0] is tokens[1]
        assert server.token_requests == 1
