"""Tests of clocks: the wall clock may jump, and the machine may sleep (guarantee 12)."""

from __future__ import annotations

import anyio
import pytest
from crowd import statuses, tasks
from sites import HttpLibrary, Site

from httpx_reauth import RefreshError, Token
from httpx_reauth.testing import AuthorizationServer, ManualClock, faults

HOUR = 3600.0

jumps = pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forth", "back"])


@pytest.mark.parametrize("given", ["issued", "by a refresh", "only its end", "only its lifetime"])
@jumps
def test_guarantee_12_wall_clock_that_jumps_an_hour_causes_no_error_and_no_refresh(
    jump, given, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    token = server.issue(access_token=given != "by a refresh")
    if given == "only its end":
        token = Token(token.access_token, refresh_token=token.refresh_token, expires_at=token.expires_at)
    elif given == "only its lifetime":
        token = Token(token.access_token, refresh_token=token.refresh_token, expires_in=token.expires_in)
    auth = library.Reauth(site.function, token=token, clock=clock)
    refreshes = 1 if given == "by a refresh" else 0
    with site.client(auth) as client:
        assert client.get("/me").status_code == 200
        for _ in range(50):
            clock.jump(jump)
            assert client.get("/me").status_code == 200
            clock.advance(60)
        assert server.token_requests == refreshes
        clock.advance(HOUR)
        assert client.get("/me").status_code == 200  # its real end is known as well
    assert (server.token_requests, server.api_unauthorized) == (refreshes + 1, 0)


@pytest.mark.anyio
@jumps
async def test_guarantee_12_wall_clock_that_jumps_during_a_refresh(
    jump, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(access_token=False), clock=clock)
    answers: list = []
    async with site.async_client(auth) as client:
        with server.token_endpoint.hold() as gate:
            async with anyio.create_task_group() as group:

                async def ask() -> None:
                    answers.extend(await tasks(20, lambda: client.get("/me")))

                group.start_soon(ask)
                await server.await_until(lambda: gate.held == 1)
                clock.jump(jump)
                gate.release()
        for _ in range(50):
            answers.append(await client.get("/me"))
            clock.advance(60)
        assert statuses(answers) == [200] * 70
        assert server.token_requests == 1
        clock.advance(HOUR)
        assert (await client.get("/me")).status_code == 200
    assert (server.token_requests, server.api_unauthorized) == (2, 0)


@jumps
def test_guarantee_12_wall_clock_that_jumps_during_a_back_off_neither_prolongs_nor_ends_it(
    jump, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.function, token=server.issue(access_token=False), clock=clock)
    server.token_endpoint.fail(faults.unavailable(10))
    for _ in range(2):
        with pytest.raises(RefreshError):
            auth.get_token()
        clock.jump(jump)
    clock.advance(9.9)
    with pytest.raises(RefreshError):
        auth.get_token()
    assert server.token_requests == 1
    clock.advance(0.2)
    assert auth.get_token().access_token
    assert server.token_requests == 2


@pytest.mark.anyio
@pytest.mark.parametrize("asleep", [600.0, 2 * HOUR, 30 * 24 * HOUR])
async def test_guarantee_12_after_the_machine_slept_a_401_cures_it(
    asleep, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(), clock=clock)
    async with site.async_client(auth) as client:
        assert (await client.get("/me")).status_code == 200
        clock.sleep_through(asleep)
        over = asleep > HOUR
        with server.api.hold() as gate:
            async with anyio.create_task_group() as group:

                async def release() -> None:
                    await server.await_until(lambda: server.api_requests == 101)
                    gate.release()

                group.start_soon(release)
                assert statuses(await tasks(100, lambda: client.get("/me"))) == [200] * 100
        assert server.token_requests == over
        assert server.api_unauthorized == (100 if over else 0)
        for _ in range(10):
            assert (await client.get("/me")).status_code == 200
            clock.advance(60)
    assert server.token_requests == over
