"""Tests of a failed refresh: it fails once, for all that wait, and is remembered (guarantee 6)."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import anyio
import httpx
import pytest
from crowd import Threads, statuses, tasks
from sites import HttpLibrary, Site

from httpx_reauth import Reauth, RefreshError, SignInRequired, Token
from httpx_reauth.testing import AuthorizationServer, ManualClock, faults

FAILURES = {
    "503": (faults.unavailable(), RefreshError, "503"),
    "invalid_grant": (faults.reply(400, {"error": "invalid_grant"}), SignInRequired, "invalid_grant"),
    "not JSON": (faults.reply(200, "<html>", {"Content-Type": "text/html"}), RefreshError, "JSON"),
    "no access_token": (faults.reply(200, {"token_type": "Bearer"}), RefreshError, "access_token"),
    "hang": (faults.hanging(), RefreshError, "refresh_timeout"),
    "dropped": (faults.dropped(), RefreshError, "RemoteProtocolError"),
}

failures = pytest.mark.parametrize(("fault", "expected", "says"), list(FAILURES.values()), ids=list(FAILURES))


def is_one_failure(errors: list, count: int, expected: type, says: str, library: HttpLibrary) -> None:
    assert len(errors) == count
    assert len({id(error) for error in errors}) == count
    assert {isinstance(error, expected) for error in errors} == {True}
    assert {isinstance(error, library.package.TransportError) for error in errors} == {expected is RefreshError}
    causes = {id(error.__cause__): error.__cause__ for error in errors}
    assert len(causes) == 1
    assert None not in causes.values()
    assert all(says in str(error) for error in errors)


def time_for(site: Site) -> float:
    """Return seconds within which a token request arrives even on a busy machine. After that, it hangs."""
    return 2.0 if "127.0.0.1" in site.url else 1.0


async def fail_together(site: Site, server, library, clock, fault, expected, says, *, recovering: int) -> None:
    auth = library.Reauth(
        site.coroutine,
        token=server.issue(access_token=False),
        clock=clock,
        refresh_timeout=time_for(site) if fault.hangs else 30.0,
    )
    events: list = []
    auth.store.subscribe(lambda state, action: events.append(type(action).__name__))
    server.token_endpoint.fail_always(fault)
    async with site.async_client(auth) as client:
        errors = await tasks(200, lambda: client.get("/me"))
        is_one_failure(errors, 200, expected, says, library)
        again = await tasks(20, lambda: client.get("/me"))
        is_one_failure(again, 20, expected, says, library)
        assert (server.token_requests, server.api_requests) == (1, 0)
        assert events == ["RefreshPending", "RefreshRejected"]

        server.token_endpoint.heal()
        if expected is SignInRequired:
            clock.advance(86400)
            is_one_failure(await tasks(20, lambda: client.get("/me")), 20, expected, says, library)
            assert server.token_requests == 1
            auth.sign_in(server.issue(access_token=False))
        else:
            clock.advance(0.5)
        assert statuses(await tasks(recovering, lambda: client.get("/me"))) == [200] * recovering
        assert server.token_requests == 2


@pytest.mark.anyio
@failures
async def test_guarantee_6_200_waiters_share_one_failure_and_each_has_an_exception_of_its_own(
    fault, expected, says, site, server, library, clock
):
    await fail_together(site, server, library, clock, fault, expected, says, recovering=50)


@pytest.mark.anyio
@failures
async def test_guarantee_6_200_waiters_share_one_failure_of_a_socket(
    fault, expected, says, socket_site, server, library, clock
):
    await fail_together(socket_site, server, library, clock, fault, expected, says, recovering=10)


@failures
@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_guarantee_6_waiting_threads_share_one_failure(
    kind, fault, expected, says, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    if kind == "function" and fault.hangs:
        pytest.skip("a function cannot be stopped: see guarantee 10")
    auth = library.Reauth(
        site.refresh(kind),
        token=server.issue(access_token=False),
        clock=clock,
        refresh_timeout=time_for(site) if fault.hangs else 30.0,
    )
    server.token_endpoint.fail_always(fault)
    with site.client(auth) as client:
        errors = Threads([lambda: client.get("/me")] * 50).join()
        is_one_failure(errors, 50, expected, says, library)
    assert server.token_requests == 1


def test_guarantee_6_sync_and_async_waiters_in_many_loops_share_one_failure(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.function, token=server.issue(access_token=False), clock=clock)
    server.token_endpoint.fail_always(faults.unavailable())

    async def wait_here() -> list:
        async with site.async_client(auth) as client:
            return await tasks(25, lambda: client.get("/me"))

    def wait_sync() -> list:
        with site.client(auth) as client:
            return await_error(lambda: client.get("/me"))

    with server.token_endpoint.hold() as gate:
        crowd = Threads(
            [lambda: asyncio.run(wait_here())] * 2
            + [lambda: anyio.run(wait_here, backend="trio")] * 2
            + [wait_sync] * 100
        )
        server.wait_until(lambda: gate.held == 1)
    errors = [error for outcome in crowd.join() for error in outcome]
    is_one_failure(errors, 200, RefreshError, "503", library)
    assert server.token_requests == 1


def await_error(function) -> list:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the test checks it
        function()
    return [caught.value]


def test_guarantee_6_dead_refresh_token_is_not_posted_again(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.function, token=server.issue(access_token=False), clock=clock)
    server.revoke_refresh_tokens()
    with site.client(auth) as client:
        for _ in range(50):
            with pytest.raises(SignInRequired):
                client.get("/me")
            clock.advance(3600)
        assert server.token_requests == 1
        auth.sign_in(server.issue())
        assert client.get("/me").status_code == 200
        server.revoke_access_tokens()
        assert client.get("/me").status_code == 200
    assert server.token_requests == 2


def test_guarantee_6_dead_refresh_token_found_in_the_background_lets_the_token_be_used_to_its_end(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.function, token=server.issue(), clock=clock)
    server.revoke_refresh_tokens()
    with site.client(auth) as client:
        clock.advance(3600 - 30)
        assert client.get("/me").status_code == 200
        auth.close()
        for _ in range(29):
            clock.advance(1)
            assert client.get("/me").status_code == 200
        clock.advance(1)
        with pytest.raises(SignInRequired):
            client.get("/me")
    assert server.token_requests == 1


# --- the back-off ---


def test_guarantee_5_a_token_that_is_refused_during_a_back_off_is_not_sent_again(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.function, token=server.issue(), clock=clock)
    server.token_endpoint.fail_always(faults.unavailable())
    with site.client(auth) as client:
        clock.advance(server.lifetime - 30)
        assert client.get("/me").status_code == 200  # this starts a renewal in the background, which fails
        auth.close()
        assert auth.store.state.status == "rejected"
        server.revoke_access_tokens()
        for _ in range(3):
            with pytest.raises(RefreshError):
                client.get("/me")
        assert (server.token_requests, server.api_requests) == (1, 2)
        server.token_endpoint.heal()
        clock.advance(0.5)
        assert client.get("/me").status_code == 200
    assert (server.token_requests, server.api_requests) == (2, 3)


def next_attempt(auth: Any, server: AuthorizationServer, clock: ManualClock) -> float:
    """Return the seconds until the next token request is made. Requests before that fail immediately."""
    error = await_error(auth.get_token)[0]
    made = server.token_requests
    wait = error.retry_after
    for part in (0.0, 0.25, 0.5, 1.0):
        with pytest.raises(RefreshError) as caught:
            auth.get_token()
        assert caught.value.retry_after == pytest.approx(wait - wait * part if part < 1 else 0.001)
        assert server.token_requests == made
        if part < 1:
            clock.advance(wait * {0.0: 0.25, 0.25: 0.25, 0.5: 0.5}[part] - (0.001 if part == 0.5 else 0.0))
    clock.advance(0.002)
    return wait


def test_guarantee_6_back_off_doubles_from_half_a_second_to_30_seconds(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.function, token=server.issue(access_token=False), clock=clock)
    server.token_endpoint.fail_always(faults.unavailable())
    for number, longest in enumerate([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]):
        wait = next_attempt(auth, server, clock)
        assert 0.8 * longest <= wait <= longest
        assert server.token_requests == number + 1
    server.token_endpoint.heal()
    assert auth.get_token().access_token
    clock.advance(2 * server.lifetime)
    server.token_endpoint.fail_always(faults.unavailable())
    assert next_attempt(auth, server, clock) <= 0.5  # the success has reset the back-off


def test_guarantee_6_back_off_is_jittered(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    server.token_endpoint.fail_always(faults.unavailable())
    waits = set()
    for _ in range(20):
        auth = library.Reauth(site.function, token=server.issue(access_token=False), clock=clock)
        waits.add(await_error(auth.get_token)[0].retry_after)
    assert len(waits) > 10
    assert 0.4 <= min(waits) < max(waits) <= 0.5


@pytest.mark.parametrize("order", [faults.unavailable, faults.too_many_requests])
@pytest.mark.parametrize("as_date", [False, True])
def test_guarantee_6_retry_after_is_honoured_in_seconds_and_as_a_date(
    order, as_date, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.function, token=server.issue(access_token=False), clock=clock)
    value = datetime.fromtimestamp(clock.time(), timezone.utc) + timedelta(seconds=7) if as_date else 7
    server.token_endpoint.fail(order(value))
    assert next_attempt(auth, server, clock) == pytest.approx(7.0)
    assert auth.get_token().access_token
    assert server.token_requests == 2


def test_guarantee_6_retry_after_never_shortens_the_back_off(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.function, token=server.issue(access_token=False), clock=clock)
    server.token_endpoint.fail_always(faults.unavailable(0))
    for longest in (0.5, 1.0, 2.0):
        # The error's message names the server's time or the back-off, whichever is later.
        error = await_error(auth.get_token)[0]
        made = server.token_requests
        clock.advance(0.8 * longest - 0.001)
        with pytest.raises(RefreshError):
            auth.get_token()
        assert server.token_requests == made, error
        clock.advance(0.2 * longest + 0.002)


@pytest.mark.parametrize("status", [408, 425, 429])
def test_guarantee_6_a_4xx_that_says_later_is_no_refusal(
    status, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.function, token=server.issue(access_token=False), clock=clock)
    server.token_endpoint.fail(faults.reply(status, {"error": "slow_down"}))
    assert next_attempt(auth, server, clock) <= 0.5
    assert auth.get_token().access_token


@pytest.mark.parametrize(
    "fault",
    [
        *[faults.reply(status) for status in (404, 405, 409, 410, 423)],
        faults.reply(404, "<h1>Not Found</h1>", {"Content-Type": "text/html"}),
        faults.reply(404, {"status": 404, "error": "Not Found", "path": "/token"}),
        faults.reply(200, "<h1>Sign in to the Wi-Fi</h1>", {"Content-Type": "text/html"}),
        *[faults.reply(status, {"error": "temporarily_unavailable"}) for status in (200, 400, 401, 403, 404)],
        faults.reply(400, {"error": "server_error"}),
        faults.reply(400, {"error": "invalid_grant", "error_description": "token request is already being processed"}),
    ],
    ids=lambda fault: f"{fault.answer.status} {fault.answer.body[:40]}",
)
def test_guarantee_6_what_says_later_or_comes_from_elsewhere_is_no_refusal(
    fault, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.function, token=server.issue(access_token=False), clock=clock)
    server.token_endpoint.fail(fault)
    assert next_attempt(auth, server, clock) <= 0.5
    assert auth.get_token().access_token


def test_guarantee_6_the_end_of_a_rate_limit_is_waited_for(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.function, token=server.issue(access_token=False), clock=clock)
    for form in ("17", "{0:.6f}", "{1:.0f}"):  # in seconds from now, in seconds since the epoch, and in milliseconds
        end = clock.time() + 17
        headers = {"X-RateLimit-Reset": form.format(end, 1000 * end)}
        server.token_endpoint.fail(faults.reply(429, {"error": "slow_down"}, headers))
        # the `Date` header has whole seconds only
        assert next_attempt(auth, server, clock) == pytest.approx(17.0, abs=1.0)
        assert auth.get_token().access_token
        clock.advance(2 * server.lifetime)


def login_that_fails(site: Site, *, by: str) -> Any:
    """Return a refresh that logs in. It spends no refresh token, whatever the last token is."""

    def post(client: Any) -> Any:
        return client.post("/token", data={"grant_type": "password", "username": "a", "password": "b"})

    def function(token: Token) -> Token:
        with site.client() as client:
            return Token.from_response(post(client))

    async def coroutine(token: Token) -> Token:
        async with site.async_client() as client:
            return Token.from_response(await post(client))

    def raising(token: Token) -> Token:
        with site.client() as client:
            return Token(**post(client).raise_for_status().json())

    return {"function": function, "coroutine": coroutine, "raise_for_status": raising}[by]


@pytest.mark.parametrize("by", ["function", "coroutine", "raise_for_status"])
def test_guarantee_6_invalid_grant_to_a_login_waits_60_seconds_growing_to_10_minutes(
    by: str, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(login_that_fails(site, by=by), clock=clock)
    refused = faults.reply(400, {"error": "invalid_grant", "error_description": "Bad credentials"})
    server.token_endpoint.fail_always(refused)
    for seconds in (60.0, 120.0, 240.0, 480.0, 600.0, 600.0):
        assert next_attempt(auth, server, clock) == pytest.approx(seconds)
    with pytest.raises(RefreshError) as caught:
        auth.get_token()
    assert type(caught.value) is RefreshError
    assert "login failed" in str(caught.value)
    assert "no longer accepts the refresh token" not in str(caught.value)
    assert caught.value.error == "invalid_grant"
    server.token_endpoint.heal()
    server.token_endpoint.fail(faults.reply(200, {"access_token": "a", "expires_in": 60}))
    clock.advance(600)
    assert auth.get_token().access_token == "a"


def test_guarantee_6_a_sign_in_required_that_a_login_raises_itself_is_final(clock: ManualClock):
    def login(token: Token) -> Token:
        raise SignInRequired("Open the browser.", error="invalid_grant")

    auth = Reauth(login, clock=clock)
    for _ in range(3):
        with pytest.raises(SignInRequired, match="Open the browser"):
            auth.get_token()
        clock.advance(10_000)


@pytest.mark.parametrize(
    "fault",
    [
        faults.reply(401, {"error": "invalid_client"}),
        faults.reply(400, {"error": "unauthorized_client"}),
        faults.reply(403, "Forbidden"),
        faults.reply(404, {"error": "invalid_client"}),
        faults.reply(200, {"error": "invalid_client"}),
    ],
)
def test_guarantee_6_a_refusal_waits_60_seconds_from_the_first_time(
    fault, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.function, token=server.issue(access_token=False), clock=clock)
    server.token_endpoint.fail(fault, fault)
    for _ in range(2):
        assert next_attempt(auth, server, clock) == pytest.approx(60.0)
    assert auth.get_token().access_token
    assert server.token_requests == 3


@pytest.mark.parametrize("outage", [0.1, 0.5, 1.0, 1.5, 2.0, 2.5])
def test_guarantee_6_recovery_within_4_seconds_after_an_outage_of_up_to_2_5_seconds(
    outage, site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.function, token=server.issue(access_token=False), clock=clock)
    server.token_endpoint.fail_always(faults.unavailable())
    step = 0.05
    with site.client(auth) as client:
        for _ in range(round(outage / step)):
            for _ in range(10):
                with pytest.raises(RefreshError):
                    client.get("/me")
            clock.advance(step)
        assert server.token_requests <= 4
        server.token_endpoint.heal()
        healed = clock.monotonic()
        while True:
            try:
                assert client.get("/me").status_code == 200
                break
            except RefreshError:
                clock.advance(step)
    assert clock.monotonic() - healed <= 4.0
    assert server.token_requests <= 5


OUTAGE = 2.5  # seconds
RECOVERY = 4.0  # seconds


class Outage:
    """An outage on a socket: 10 workers make requests, and the token endpoint fails for 2.5 s."""

    def __init__(self, server: AuthorizationServer) -> None:
        self.server = server
        self.server.token_endpoint.fail_always(faults.unavailable())
        self.began = time.monotonic()
        self.recovered: list[float] = []
        self.failures = 0

    def heal(self) -> None:
        self.server.token_endpoint.heal()
        self.healed = time.monotonic()

    def failed(self) -> None:
        self.failures += 1
        assert time.monotonic() - self.began < 30.0

    def answered(self, status: int) -> None:
        assert status == 200
        self.recovered.append(time.monotonic())

    def check(self) -> None:
        assert len(self.recovered) == 10
        assert self.failures >= 10
        assert max(self.recovered) - self.healed <= RECOVERY
        assert self.server.token_requests <= 10


@pytest.mark.anyio
async def test_guarantee_6_real_outage_with_10_busy_tasks_costs_at_most_10_token_requests():
    library = HttpLibrary(httpx, Reauth)
    with AuthorizationServer() as server, server.serve() as url:
        site = library.at(url)
        auth = library.Reauth(site.coroutine, token=server.issue(access_token=False))
        outage = Outage(server)

        async def work() -> None:
            while True:
                try:
                    response = await client.get("/me")
                except RefreshError:
                    outage.failed()
                    await anyio.sleep(0.02)
                else:
                    return outage.answered(response.status_code)

        async with site.async_client(auth) as client, anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(work)
            await anyio.sleep(OUTAGE)
            outage.heal()
        outage.check()


def test_guarantee_6_real_outage_with_10_busy_threads_costs_at_most_10_token_requests():
    library = HttpLibrary(httpx, Reauth)
    with AuthorizationServer() as server, server.serve() as url:
        site = library.at(url)
        auth = library.Reauth(site.function, token=server.issue(access_token=False))
        outage = Outage(server)

        def work() -> None:
            with site.client(auth) as client:
                while True:
                    try:
                        response = client.get("/me")
                    except RefreshError:
                        outage.failed()
                        time.sleep(0.02)
                    else:
                        return outage.answered(response.status_code)

        crowd = Threads([work] * 10)
        time.sleep(OUTAGE)
        outage.heal()
        assert crowd.join() == [None] * 10
        outage.check()


# --- a server that refuses every token ---


def test_guarantee_6_useless_401s_cost_a_refresh_after_1_2_4_up_to_60_seconds(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    server.lifetime = None
    auth = library.Reauth(site.function, token=server.issue(), clock=clock)
    server.access = "refused"
    refreshed: list[float] = []
    with site.client(auth) as client:
        for step in range(4 * 250):
            before, sent = server.token_requests, server.api_requests
            assert client.get("/me").status_code == 401
            if server.token_requests > before:
                # the request and its replay
                assert (server.token_requests, server.api_requests) == (before + 1, sent + 2)
                refreshed.append(step / 4)
            else:
                assert server.api_requests == sent + 1
            clock.advance(0.25)
    assert refreshed == [0, 1, 3, 7, 15, 31, 63, 127]  # for one place, the pause grows to 15 minutes


def test_guarantee_6_an_endpoint_that_always_refuses_stops_no_other_while_the_token_endpoint_is_away(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.function, token=server.issue(), clock=clock)
    with site.client(auth) as client:
        server.access = "refused"
        assert client.get("/never").status_code == 401  # the fresh token is refused as well
        server.access = "checked"
        server.token_endpoint.fail_always(faults.unavailable())
        for _ in range(3):
            clock.advance(60)
            server.access = "refused"
            with pytest.raises(RefreshError):
                client.get("/never")
            server.access = "checked"
            assert client.get("/me").status_code == 200


def test_guarantee_6_accepted_replay_ends_the_back_off(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.function, token=server.issue(), clock=clock)
    with site.client(auth) as client:
        server.access = "refused"
        for seconds in (1, 2, 4):
            assert client.get("/me").status_code == 401
            clock.advance(seconds)
        assert server.token_requests == 3
        server.access = "checked"
        server.revoke_access_tokens()
        assert client.get("/me").status_code == 200
        assert server.token_requests == 4
        server.access = "refused"
        for number in (5, 6):  # the back-off begins again: a second
            assert client.get("/me").status_code == 401
            assert server.token_requests == number
            clock.advance(1)


@pytest.mark.anyio
async def test_guarantee_6_server_that_refuses_everything_gets_one_refresh_for_a_herd_and_at_most_3_more_later(
    site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(site.coroutine, token=server.issue(), clock=clock)
    server.access = "refused"
    async with site.async_client(auth) as client:
        assert statuses(await tasks(100, lambda: client.get("/me"))) == [401] * 100
        assert (server.token_requests, server.api_requests) == (1, 200)
        for _ in range(10):
            assert statuses(await tasks(100, lambda: client.get("/me"))) == [401] * 100
            clock.advance(0.5)
        assert server.token_requests <= 4


@pytest.mark.anyio
async def test_guarantee_6_fresh_token_refused_everywhere_at_the_same_time_causes_no_refresh_per_call(
    socket_site: Site, server: AuthorizationServer, library: HttpLibrary, clock: ManualClock
):
    auth = library.Reauth(socket_site.coroutine, token=server.issue(), clock=clock)
    server.access = "refused"
    async with socket_site.async_client(auth) as client:

        async def work() -> None:
            for _ in range(10):
                assert (await client.get("/me")).status_code == 401

        assert await tasks(10, work) == [None] * 10
    assert server.token_requests <= 4


def test_guarantee_6_fresh_token_refused_before_its_own_replay_causes_no_refresh_per_call(
    library: HttpLibrary, clock: ManualClock
):
    # Other requests use the fresh token, and get a 401, while its replay is still on its way.
    made: list[Token] = []

    def refresh(token: Token) -> Token:
        made.append(token)
        return Token(f"token-{len(made)}", refresh_token="refresh")

    auth = library.Reauth(refresh, token=Token("token-0", refresh_token="refresh"), clock=clock)
    package = library.package

    def refused(request) -> Any:
        return package.Response(401, request=request)

    flows = []
    for _ in range(100):
        flow = auth.sync_auth_flow(package.Request("GET", "https://api.test/me"))
        request = next(flow)
        try:
            flow.send(refused(request))  # the flow sends a replay, whose answer comes later
        except StopIteration:  # or the flow returns the 401
            continue
        flows.append((flow, request))
    assert len(made) <= 4
    for flow, request in flows:
        with pytest.raises(StopIteration):
            flow.send(refused(request))
