"""Tests of the renewal in the background (guarantee 7), for tokens with any lifetime (guarantee 8)."""

from __future__ import annotations

import anyio
import pytest
from crowd import Threads, statuses, tasks
from sites import REFRESHES, HttpLibrary, Site

from httpx_reauth import RefreshError, Token
from httpx_reauth.testing import AuthorizationServer, ManualClock, faults


@pytest.mark.anyio
@pytest.mark.parametrize("kind", REFRESHES)
async def test_guarantee_7_nobody_waits_for_a_renewal_in_the_background(
    kind, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.refresh(kind), token=server.issue(), clock=clock)
    first = auth.store.state.token
    clock.advance(3600 - 60)
    async with site.async_client(auth) as client:
        with server.token_endpoint.hold() as gate:
            for _ in range(3):  # these are answered, although the token endpoint's answer is delayed
                assert statuses(await tasks(50, lambda: client.get("/me"))) == [200] * 50
            await server.await_until(lambda: gate.held == 1)
            assert auth.store.state.status == "pending"
            assert auth.store.state.token is first
        await auth.aclose()
        assert (await client.get("/me")).status_code == 200
    assert server.token_requests == 1
    sent = server.authorizations("/me")
    assert sent[:150] == [f"Bearer {first.access_token}"] * 150
    assert sent[150] == f"Bearer {auth.store.state.token.access_token}" != sent[0]


@pytest.mark.anyio
async def test_guarantee_7_a_request_starts_the_renewal_and_nothing_else_does(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(), clock=clock)
    async with site.async_client(auth) as client:
        clock.advance(3600 - 60 * 1.1 - 1)  # a second before the window opens, with the most jitter
        assert (await client.get("/me")).status_code == 200
        clock.advance(30)
        await anyio.wait_all_tasks_blocked()
        assert (auth.store.state.status, server.token_requests) == ("idle", 0)
        assert (await client.get("/me")).status_code == 200
        await auth.aclose()
    assert (auth.store.state.status, server.token_requests) == ("fulfilled", 1)


@pytest.mark.parametrize("kind", REFRESHES)
def test_guarantee_7_nobody_waits_for_a_renewal_in_the_background_of_sync_clients(
    kind, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.refresh(kind), token=server.issue(), clock=clock)
    clock.advance(3600 - 60)
    with site.client(auth) as client:
        with server.token_endpoint.hold() as gate:
            assert statuses(Threads([lambda: client.get("/me")] * 20).join()) == [200] * 20
            server.wait_until(lambda: gate.held == 1)
        auth.close()
        assert client.get("/me").status_code == 200
    assert (server.token_requests, len(set(server.authorizations("/me")))) == (1, 2)


@pytest.mark.anyio
async def test_guarantee_7_only_a_token_that_is_gone_makes_a_request_wait_for_the_renewal_under_way(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(), refresh_timeout=120, clock=clock)
    clock.advance(3600 - 60)
    answers: list = []
    async with site.async_client(auth) as client, anyio.create_task_group() as group:

        async def ask() -> None:
            answers.extend(await tasks(20, lambda: client.get("/me")))

        with server.token_endpoint.hold() as gate:
            assert (await client.get("/me")).status_code == 200
            await server.await_until(lambda: gate.held == 1)
            clock.advance(54.9)
            assert (await client.get("/me")).status_code == 200
            clock.advance(0.2)  # less than 5 s are left: the token could end before the request arrives
            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            assert answers == []
    assert statuses(answers) == [200] * 20
    assert (server.token_requests, server.api_unauthorized) == (1, 0)


@pytest.mark.parametrize("kind", ["coroutine", "function", "grant"])
def test_guarantee_7_when_the_renewal_fails_the_token_is_used_to_its_very_end(
    kind, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.refresh(kind), token=server.issue(), clock=clock)
    server.token_endpoint.fail_always(faults.reply(500))
    clock.advance(3600 - 60)
    with site.client(auth) as client:
        for _ in range(59 * 4 + 3):
            assert client.get("/me").status_code == 200
            auth.close()  # if this request has started a renewal, wait until that has failed
            clock.advance(0.25)
        failed = server.token_requests
        assert 5 <= failed <= 8  # 0.5, 1, 2, 4, 8, 16, 30 s apart: failures in the background back off as well
        assert client.get("/me").status_code == 200
        clock.advance(0.25)
        for _ in range(10):
            with pytest.raises(RefreshError):
                client.get("/me")
    assert server.api_unauthorized == 0
    assert server.token_requests <= failed + 1


@pytest.mark.anyio
async def test_guarantee_7_token_in_its_last_seconds_waits_for_a_renewal_and_serves_if_that_fails(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(), clock=clock)
    server.token_endpoint.fail_always(faults.unavailable())
    clock.advance(3600 - 2)
    async with site.async_client(auth) as client:
        assert statuses(await tasks(20, lambda: client.get("/me"))) == [200] * 20
        assert (server.token_requests, server.api_unauthorized) == (1, 0)
        clock.advance(2)
        outcomes = await tasks(20, lambda: client.get("/me"))
    assert {type(outcome).__mro__[1] for outcome in outcomes} == {RefreshError}
    assert server.token_requests == 2


def live(seconds: float, step: float, site: Site, server: AuthorizationServer, auth) -> int:
    """Make one request every `step` seconds. Return the number of token requests."""
    clock = server.clock
    with site.client(auth) as client:
        for _ in range(round(seconds / step)):
            assert client.get("/me").status_code == 200
            auth.close()
            clock.advance(step)
    assert server.api_unauthorized == 0
    return server.token_requests


def test_guarantee_8_20_second_token_is_not_renewed_at_every_request(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    server.lifetime = 20.0
    auth = library.Reauth(site.function, token=server.issue(), clock=clock)
    assert 10 <= live(200.0, 0.5, site, server, auth) <= 15  # each token serves for about 15 s


def test_guarantee_8_token_of_half_a_second_is_renewed_in_time(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    server.lifetime = 0.5
    auth = library.Reauth(site.function, token=server.issue(), clock=clock)
    assert 10 <= live(5.0, 0.01, site, server, auth) <= 14  # each token serves for about 0.37 s


@pytest.mark.parametrize("refused", ["another request", "the replay"])
def test_guarantee_8_token_that_ended_on_its_way_is_not_useless(refused, library: HttpLibrary, clock: ManualClock):
    made: list[Token] = []

    def refresh(token: Token) -> Token:
        made.append(token)
        return Token(f"token-{len(made)}", refresh_token="refresh", expires_in=0.5)

    auth = library.Reauth(refresh, token=Token("token-0", refresh_token="refresh"), clock=clock)
    package = library.package

    def send():
        flow = auth.sync_auth_flow(package.Request("GET", "https://api.test/me"))
        return flow, next(flow)

    replaying, request = send()
    request = replaying.send(package.Response(401, request=request))
    assert len(made) == 1
    clock.advance(0.3)
    other, other_request = send()
    clock.advance(0.3)  # the token ends before the answers to both requests come
    if refused == "another request":
        other_request = other.send(package.Response(401, request=other_request))
    else:
        with pytest.raises(StopIteration):
            replaying.send(package.Response(401, request=request))
        other, other_request = send()  # this request has a new token
        assert len(made) == 2
        other_request = other.send(package.Response(401, request=other_request))  # the server has revoked that token
        assert len(made) == 3
    assert other_request.headers["Authorization"] == f"Bearer token-{len(made)}"
    with pytest.raises(StopIteration):
        other.send(package.Response(200, request=other_request))


def test_guarantee_8_token_without_an_end_is_renewed_on_401_only(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    server.lifetime = None
    auth = library.Reauth(site.function, token=server.issue(access_token=False), clock=clock)
    assert live(1000 * 86400.0, 86400.0, site, server, auth) == 1
    server.revoke_access_tokens()
    with site.client(auth) as client:
        assert client.get("/me").status_code == 200
    assert server.token_requests == 2


@pytest.mark.anyio
@pytest.mark.parametrize("expires_in", [0, -1, -3600, "0", 0.001])
async def test_guarantee_8_whoever_waited_uses_what_the_flight_brought_whatever_its_lifetime(
    expires_in, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    server.edit_token_answer = lambda fields: {**fields, "expires_in": expires_in}
    auth = library.Reauth(site.coroutine, token=server.issue(access_token=False), clock=clock)
    async with site.async_client(auth) as client:
        for number in (1, 2):
            with server.token_endpoint.hold() as gate:
                async with anyio.create_task_group() as group:

                    async def release(gate=gate) -> None:
                        await server.await_until(lambda: gate.held == 1)
                        await anyio.wait_all_tasks_blocked()
                        gate.release()

                    group.start_soon(release)
                    assert statuses(await tasks(50, lambda: client.get("/me"))) == [200] * 50
            assert server.token_requests == number  # one refresh for all 50 requests, and one more for the next 50
            clock.advance(0.002)
        # After two tokens in a row that had ended when they came, such a token is used until a 401.
        assert statuses(await tasks(50, lambda: client.get("/me"))) == [200] * 50
    assert server.token_requests == (3 if expires_in == 0.001 else 2)
    assert (server.api_requests, server.api_unauthorized) == (150, 0)


def test_guarantee_8_a_token_without_a_lifetime_is_used_until_a_401_after_two_in_a_row(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    server.edit_token_answer = lambda fields: {**fields, "expires_in": 0}
    auth = library.Reauth(site.function, token=server.issue(access_token=False), clock=clock)
    with site.client(auth) as client:
        for number in range(1, 11):
            assert client.get("/me").status_code == 200
            assert server.token_requests == min(number, 2)
        server.revoke_access_tokens()
        assert client.get("/me").status_code == 200
    assert (server.token_requests, server.api_unauthorized) == (3, 1)
