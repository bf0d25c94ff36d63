"""Tests of sign-ins and sign-outs during a refresh, of several objects on one store, and of circular waits."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import anyio
import pytest
from crowd import Threads, statuses, tasks
from seams import busy, join_refreshes, state_of, until_threads_wait
from sites import HttpLibrary, Site

from httpx_reauth import RefreshError, SignInRequired, Token, TokenStore
from httpx_reauth.testing import AuthorizationServer, ManualClock, faults

kinds = pytest.mark.parametrize("kind", ["coroutine", "function", "lambda", "grant"])


# --- sign-in and sign-out ---

CHANGES = ["sign-in", "sign-out", "sign-out and sign-in"]


def change_session(auth: Any, change: str, given: Token) -> None:
    if "sign-out" in change:
        auth.sign_out()
    if "sign-in" in change:
        auth.sign_in(given)


def is_left_as(auth: Any, change: str, given: Token) -> None:
    """Assert that the late result of the superseded refresh has not changed the state."""
    state = auth.store.state
    assert state.status == "idle"
    assert (state.token and state.token.access_token) == (None if change == "sign-out" else given.access_token)


async def let_go(auth: Any) -> None:
    """Wait until the superseded refresh has ended. No listener gets its result."""
    await auth.aclose()
    await anyio.wait_all_tasks_blocked()
    assert await anyio.to_thread.run_sync(join_refreshes)


@pytest.mark.anyio
@kinds
@pytest.mark.parametrize("change", CHANGES)
async def test_guarantee_13_a_request_that_waits_in_a_session_that_ends_gets_sign_in_required_immediately(
    kind, change, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth, given = library.Reauth(site.refresh(kind), token=server.issue(lifetime=0), clock=clock), server.issue()
    errors: list = []
    async with site.async_client(auth) as client:
        with server.token_endpoint.hold() as gate:
            async with anyio.create_task_group() as group:

                async def ask() -> None:
                    errors.extend(await tasks(20, lambda: client.get("/me")))

                group.start_soon(ask)
                await server.await_until(lambda: gate.held == 1)
                await anyio.wait_all_tasks_blocked()
                change_session(auth, change, given)
            assert busy(auth)  # the token endpoint has still not answered
            assert {type(error) for error in errors} == {SignInRequired}
            assert len({id(error) for error in errors}) == 20
        await let_go(auth)
        is_left_as(auth, change, given)
        assert server.api_requests == 0
        if change != "sign-out":
            assert (await client.get("/me")).status_code == 200
            assert server.authorizations("/me") == [f"Bearer {given.access_token}"]
    assert server.token_requests == 1


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["coroutine", "function", "lambda"])
async def test_guarantee_1_a_request_that_waits_for_the_first_token_gets_that_of_a_sign_in_immediately(
    kind, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth, given = library.Reauth(site.refresh(kind), clock=clock), server.issue()
    answers: list = []
    async with site.async_client(auth) as client:
        with server.token_endpoint.hold() as gate:
            async with anyio.create_task_group() as group:

                async def ask() -> None:
                    answers.extend(await tasks(20, lambda: client.get("/me")))

                group.start_soon(ask)
                await server.await_until(lambda: gate.held == 1)
                await anyio.wait_all_tasks_blocked()
                await auth.asign_in(given)
            assert statuses(answers) == [200] * 20
            assert busy(auth)
        await let_go(auth)
    is_left_as(auth, "sign-in", given)
    assert set(server.authorizations("/me")) == {f"Bearer {given.access_token}"}
    assert server.token_requests == 1


@pytest.mark.parametrize("has_had_a_token", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_guarantee_13_threads_that_wait_in_a_session_that_ends(
    change, has_had_a_token, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    first = server.issue(access_token=False) if has_had_a_token else None
    auth, given = library.Reauth(site.function, token=first, clock=clock), server.issue()
    with server.token_endpoint.hold() as gate:
        crowd = Threads([auth.get_token] * 20)
        server.wait_until(lambda: gate.held == 1)
        until_threads_wait(state_of(auth).flight, 20)  # a thread that comes later belongs to the next session
        change_session(auth, change, given)
        outcomes = crowd.join()
        if change == "sign-in" and not has_had_a_token:
            assert {outcome.access_token for outcome in outcomes} == {given.access_token}
        else:
            assert {type(outcome) for outcome in outcomes} == {SignInRequired}
        assert busy(auth)
    assert join_refreshes()
    is_left_as(auth, change, given)
    assert server.token_requests == 1


def test_guarantee_6_sign_in_forgets_the_failures(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.function, token=server.issue(access_token=False), clock=clock)
    server.token_endpoint.fail(faults.unavailable(3600))
    for _ in range(2):
        with pytest.raises(RefreshError):
            auth.get_token()
    auth.sign_in(server.issue(access_token=False))
    assert auth.get_token().access_token
    assert server.token_requests == 2


# --- several objects on one store ---


@pytest.mark.anyio
async def test_guarantee_1_several_objects_on_one_store_share_one_refresh(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    store = TokenStore(server.issue(access_token=False))
    clients = [site.async_client(library.Reauth(site.coroutine, store=store, clock=clock)) for _ in range(5)]
    with server.token_endpoint.hold() as gate:
        async with anyio.create_task_group() as group:
            answers: list = []

            async def ask(client: Any) -> None:
                answers.extend(await tasks(20, lambda: client.get("/me")))

            for client in clients:
                group.start_soon(ask, client)
            await server.await_until(lambda: gate.held == 1)
            await anyio.wait_all_tasks_blocked()
            gate.release()
    assert statuses(answers) == [200] * 100
    assert server.token_requests == 1
    for client in clients:
        await client.aclose()


def test_guarantee_1_objects_of_both_packages_on_one_store_share_one_refresh(
    server: AuthorizationServer, clock: ManualClock
):
    httpx = pytest.importorskip("httpx")
    import httpx_reauth

    httpx2 = pytest.importorskip("httpx2")
    from httpx_reauth.httpx2 import Reauth

    one, other = HttpLibrary(httpx, httpx_reauth.Reauth), HttpLibrary(httpx2, Reauth)
    store = TokenStore(server.issue(access_token=False))
    with server.token_endpoint.hold() as gate:
        gets = []
        for library in (one, other):
            site = library.at(server)
            client = site.client(library.Reauth(site.function, store=store, clock=clock))
            gets += [partial(client.get, "/me")] * 10
        crowd = Threads(gets)
        server.wait_until(lambda: gate.held == 1)
        gate.release()
        assert statuses(crowd.join()) == [200] * 20
    assert server.token_requests == 1


def test_guarantee_6_several_objects_on_one_store_back_off_together(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    store = TokenStore(server.issue(access_token=False))
    one, other = (library.Reauth(site.function, store=store, clock=clock) for _ in range(2))
    server.token_endpoint.fail(faults.unavailable(5))
    for auth in (one, other, one, other):
        with pytest.raises(RefreshError, match="503"):
            auth.get_token()
    assert server.token_requests == 1
    clock.advance(5)
    assert other.get_token() is one.get_token()
    assert server.token_requests == 2


def test_guarantee_6_several_objects_on_one_store_share_the_back_off_after_refused_replays(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    store = TokenStore(server.issue())
    server.access = "refused"
    for _ in range(3):
        with site.client(library.Reauth(site.function, store=store, clock=clock)) as client:
            assert client.get("/me").status_code == 401
    assert (server.token_requests, server.api_requests) == (1, 4)


# --- calls that would wait for themselves ---


def says_what_to_do(outcome: Any, library: HttpLibrary) -> bool:
    return isinstance(outcome, library.package.TransportError) and "auth=None" in str(outcome)


@pytest.mark.anyio
@pytest.mark.parametrize("start", ["no token", "revoked"])
async def test_guarantee_10_refresh_through_the_client_that_it_serves_fails_immediately_and_says_what_to_do(
    start, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    async def refresh(token: Token) -> Token:
        return Token.from_response(await client.post("/token", data={"grant_type": "client_credentials"}))

    auth = library.Reauth(refresh, token=server.issue(access_token=start == "revoked"), clock=clock)
    server.revoke_access_tokens()
    async with site.async_client(auth) as client:
        with anyio.fail_after(20):
            outcomes = await tasks(20, lambda: client.get("/me"))
    assert [says_what_to_do(outcome, library) for outcome in outcomes] == [True] * 20
    assert server.token_requests == 0


@pytest.mark.anyio
async def test_guarantee_10_refresh_that_starts_a_task_for_such_a_request_fails_immediately_as_well(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    async def refresh(token: Token) -> Token:
        outcome = (await tasks(1, lambda: client.post("/token", data={"grant_type": "client_credentials"})))[0]
        if isinstance(outcome, Exception):
            raise outcome
        return Token.from_response(outcome)

    auth = library.Reauth(refresh, token=server.issue(access_token=False), clock=clock)
    async with site.async_client(auth) as client:
        with anyio.fail_after(20), pytest.raises(RefreshError, match="auth=None"):
            await client.get("/me")
    assert server.token_requests == 0


def test_guarantee_10_function_that_uses_the_client_it_serves_fails_immediately_and_says_what_to_do(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    def refresh(token: Token) -> Token:
        return Token.from_response(client.post("/token", data={"grant_type": "client_credentials"}))

    auth = library.Reauth(refresh, token=server.issue(access_token=False), clock=clock)
    with site.client(auth) as client:
        outcomes = Threads([lambda: client.get("/me")] * 10).join()
    assert [says_what_to_do(outcome, library) for outcome in outcomes] == [True] * 10
    assert server.token_requests == 0


@pytest.mark.anyio
async def test_refresh_through_the_client_that_it_serves_works_with_auth_none(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    async def refresh(token: Token) -> Token:
        form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
        return Token.from_response(await client.post("/token", data=form, auth=None))

    auth = library.Reauth(refresh, token=server.issue(access_token=False), clock=clock)
    async with site.async_client(auth) as client:
        assert statuses(await tasks(20, lambda: client.get("/me"))) == [200] * 20
        server.revoke_access_tokens()
        assert statuses(await tasks(20, lambda: client.get("/me"))) == [200] * 20
    assert server.token_requests == 2


def test_function_through_the_client_that_it_serves_works_with_auth_none(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    def refresh(token: Token) -> Token:
        form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
        return Token.from_response(client.post("/token", data=form, auth=None))

    auth = library.Reauth(refresh, token=server.issue(access_token=False), clock=clock)
    with site.client(auth) as client:
        assert statuses(Threads([lambda: client.get("/me")] * 10).join()) == [200] * 10
    assert server.token_requests == 1


@pytest.mark.anyio
async def test_refresh_may_use_the_token_of_another_object(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    # A token exchange: the refresh of the second object sends a request of the first object.
    first = library.Reauth(site.coroutine, token=server.issue(access_token=False), clock=clock)

    async def exchange(token: Token) -> Token:
        async with site.async_client(first) as client:
            assert (await client.get("/exchange")).status_code == 200
        return await site.coroutine(token)

    second = library.Reauth(exchange, token=server.issue(access_token=False), clock=clock)
    async with site.async_client(second) as client:
        assert statuses(await tasks(20, lambda: client.get("/me"))) == [200] * 20
    assert server.token_requests == 2


@pytest.mark.anyio
async def test_guarantee_10_sync_call_on_the_event_loop_of_the_refresh_fails_immediately_and_says_what_to_do(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(access_token=False), clock=clock)
    answers: list = []
    async with site.async_client(auth) as client:
        with server.token_endpoint.hold() as gate, site.client(auth) as sync_client:
            async with anyio.create_task_group() as group:

                async def ask() -> None:
                    answers.append(await client.get("/me"))

                group.start_soon(ask)
                await server.await_until(lambda: gate.held == 1)
                with pytest.raises(library.package.TransportError, match=r"event loop.*AsyncClient.*another thread"):
                    sync_client.get("/me")
                with pytest.raises(RefreshError, match="aget_token"):
                    auth.get_token()
                gate.release()
            assert sync_client.get("/me").status_code == 200
    assert statuses(answers) == [200]
    assert server.token_requests == 1


@pytest.mark.anyio
async def test_sync_call_in_another_thread_may_wait_for_a_refresh_on_an_event_loop(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(access_token=False), clock=clock)
    tokens: list = []
    with server.token_endpoint.hold() as gate:
        async with anyio.create_task_group() as group:

            async def ask() -> None:
                tokens.append(await auth.aget_token())

            async def ask_in_thread() -> None:
                tokens.append(await anyio.to_thread.run_sync(auth.get_token))

            group.start_soon(ask)
            await server.await_until(lambda: gate.held == 1)
            group.start_soon(ask_in_thread)
            await anyio.wait_all_tasks_blocked()
            gate.release()
    assert len(tokens) == 2
    assert len(set(tokens)) == 1
    assert server.token_requests == 1


@pytest.mark.anyio
@kinds
async def test_sync_call_inside_of_a_running_event_loop_works_as_in_a_notebook(
    kind, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.refresh(kind), token=server.issue(access_token=False), clock=clock)
    with site.client(auth) as client:
        assert client.get("/me").status_code == 200
        server.revoke_access_tokens()
        assert client.get("/me").status_code == 200
        clock.advance(2 * server.lifetime)
        assert auth.get_token().access_token
        auth.close()
    async with site.async_client(auth) as client:
        assert (await client.get("/me")).status_code == 200
    assert server.token_requests == 3


@pytest.mark.anyio
async def test_guarantee_1_async_waiters_join_a_refresh_that_a_sync_call_has_started(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(access_token=False), clock=clock)
    tokens: list = []
    with server.token_endpoint.hold() as gate:
        crowd = Threads([auth.get_token])
        await server.await_until(lambda: gate.held == 1)
        async with anyio.create_task_group() as group:

            async def ask() -> None:
                tokens.extend(await tasks(20, auth.aget_token))

            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            gate.release()
    assert set(tokens) == set(await anyio.to_thread.run_sync(crowd.join))
    assert (len(tokens), server.token_requests) == (20, 1)


def test_guarantee_1_sync_call_of_a_callback_on_a_loop_that_runs_no_task(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    # A callback has no current task, and sniffio finds no library.
    auth = library.Reauth(site.coroutine, token=server.issue(access_token=False), clock=clock)
    tokens: list = []

    async def main() -> None:
        called = asyncio.Event()

        def callback() -> None:
            tokens.append(auth.get_token())
            called.set()

        asyncio.get_running_loop().call_soon(callback)
        await called.wait()

    asyncio.run(main())
    assert len(tokens) == 1
    assert server.token_requests == 1
