"""A renewal starts as soon as its window opens, though no request comes just then (guarantees 7 and 8)."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextvars import ContextVar
from types import SimpleNamespace

import anyio
import pytest
import trio
import trio.testing
from breakable_clock import BreakableClock
from crowd import statuses, tasks
from sites import Flavour, Site

from httpx_reauth import Reauth, ReauthPool, Token
from httpx_reauth._request import alarm as _alarm
from httpx_reauth._state import policy as _policy
from httpx_reauth._tokens._refresh import loops as _loops
from httpx_reauth.testing import AuthorizationServer, ManualClock

pytestmark = pytest.mark.anyio

Bell = list[tuple[float, Callable[[], object]]]


@pytest.fixture
def bell(monkeypatch: pytest.MonkeyPatch) -> Bell:
    """The alarms that are set, with their seconds; the test rings them."""
    alarms: Bell = []
    for kind in (_loops.AsyncioLoop, _loops.TrioLoop):
        later = kind.call_later

        def call_later(self, seconds: float, function: Callable[[], object], later=later) -> Callable[[], object]:
            if not function.__module__.endswith("._alarm"):
                return later(self, seconds, function)
            alarms.append((seconds, function))
            return alarms.clear

        monkeypatch.setattr(kind, "call_later", call_later)
    return alarms


def opens(auth: Reauth, leeway: float = 60.0) -> float:
    """Seconds until the renewal window."""
    return _policy.windows(auth.store.state, leeway).renew_from - auth.store.clock.monotonic()


@pytest.fixture
def auth(flavour: Flavour, site: Site, server: AuthorizationServer, clock: ManualClock) -> Reauth:
    return flavour.Reauth(site.coroutine, token=server.issue(), clock=clock)


async def test_guarantee_7_the_last_request_before_the_window_lets_its_opening_start_the_renewal(
    auth: Reauth, bell: Bell, site: Site, server: AuthorizationServer, clock: ManualClock
):
    async with site.async_client(auth) as client:
        clock.advance(opens(auth) - 0.5)
        assert (await client.get("/me")).status_code == 200
        ((seconds, ring),) = bell
        assert seconds == pytest.approx(0.5, abs=0.01)
        clock.advance(seconds)
        with server.token_endpoint.hold() as gate:
            ring()
            await server.await_until(lambda: gate.held == 1)
            assert auth.store.state.flight.reason == "expiring"
            assert auth.store.state.flight.home == _loops.running_loop()  # a coroutine runs where the requests do
        await auth.aclose()
        assert server.token_requests == 1
        assert auth.store.state.status == "fulfilled"


async def test_guarantee_7_one_alarm_serves_all_requests(auth: Reauth, bell: Bell, site: Site, clock: ManualClock):
    async with site.async_client(auth) as client:
        clock.advance(opens(auth) - 0.5)
        assert statuses(await tasks(50, lambda: client.get("/me"))) == [200] * 50
    assert len(bell) == 1


async def test_a_second_before_the_window_is_too_early_for_an_alarm(
    auth: Reauth, bell: Bell, site: Site, clock: ManualClock
):
    async with site.async_client(auth) as client:
        await client.get("/me")
        clock.advance(opens(auth) - 1.01)
        await client.get("/me")
        assert bell == []
        clock.advance(0.02)
        await client.get("/me")
    assert len(bell) == 1


async def test_guarantee_8_a_short_life_is_watched_from_its_middle(
    flavour: Flavour, bell: Bell, site: Site, server: AuthorizationServer, clock: ManualClock
):
    server.lifetime = 0.5
    auth = flavour.Reauth(site.coroutine, token=server.issue(), clock=clock)
    async with site.async_client(auth) as client:
        clock.advance(opens(auth) - 0.26)
        await client.get("/me")
        assert bell == []
        clock.advance(0.02)
        await client.get("/me")
        assert [seconds for seconds, _ in bell] == [pytest.approx(0.24, abs=0.01)]


async def test_an_alarm_rings_in_the_window_though_asyncio_calls_early_by_the_resolution_of_its_clock(
    auth: Reauth, bell: Bell, site: Site, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
):
    coarse = SimpleNamespace(resolution=0.015625)  # on Windows until Python 3.13
    monkeypatch.setattr(_alarm, "get_clock_info", lambda _: coarse)
    async with site.async_client(auth) as client:
        clock.advance(opens(auth) - 0.5)
        await client.get("/me")
        clock.advance(bell[0][0] - coarse.resolution)
        assert opens(auth) == pytest.approx(0, abs=1e-6)


async def test_an_alarm_that_rings_too_early_does_nothing(
    auth: Reauth, bell: Bell, site: Site, server: AuthorizationServer, clock: ManualClock
):
    async with site.async_client(auth) as client:
        clock.advance(opens(auth) - 0.5)
        await client.get("/me")
        bell[0][1]()
        assert auth.store.state.status == "idle"
        clock.advance(0.6)
        await client.get("/me")  # which starts it
        await auth.aclose()
    assert server.token_requests == 1


async def test_guarantee_1_an_alarm_that_rings_after_a_request_was_faster_starts_no_second_renewal(
    auth: Reauth, bell: Bell, site: Site, server: AuthorizationServer, clock: ManualClock
):
    async with site.async_client(auth) as client:
        clock.advance(opens(auth) - 0.5)
        await client.get("/me")
        clock.advance(0.6)
        with server.token_endpoint.hold() as gate:
            await client.get("/me")
            await server.await_until(lambda: gate.held == 1)
            bell[0][1]()
        await auth.aclose()
        bell[0][1]()
        await auth.aclose()
    assert server.token_requests == 1


async def ends(auth: Reauth) -> None:
    await auth.aclose()


async def ends_in_sync_code(auth: Reauth) -> None:
    auth.close()


async def signs_out(auth: Reauth) -> None:
    await auth.asign_out()


async def signs_in(auth: Reauth) -> None:
    await auth.asign_in(Token("given", expires_in=70))


@pytest.mark.parametrize("what", [ends, ends_in_sync_code, signs_out, signs_in])
async def test_guarantee_2_after_a_close_or_a_sign_in_or_out_no_alarm_starts_a_refresh(
    what, auth: Reauth, bell: Bell, site: Site, server: AuthorizationServer, clock: ManualClock
):
    async with site.async_client(auth) as client:
        clock.advance(opens(auth) - 0.5)
        await client.get("/me")
        await what(auth)
        clock.advance(0.6)
        bell[0][1]()
        await auth.aclose()
    assert server.token_requests == 0


async def test_guarantee_2_after_a_close_of_the_pool_no_alarm_starts_a_refresh(
    flavour: Flavour, bell: Bell, site: Site, server: AuthorizationServer, clock: ManualClock
):
    pool = ReauthPool(lambda _: flavour.Reauth(site.coroutine, token=server.issue(), clock=clock), maxsize=10)
    async with site.async_client(None) as client:
        held = pool["a"]
        clock.advance(opens(held) - 0.5)
        await client.get("/me", auth=held)
        assert len(bell) == 1
        await pool.aclose()
        clock.advance(0.6)
        bell[0][1]()
        await held.aclose()
    assert server.token_requests == 0


async def test_an_alarm_keeps_nothing_alive(
    flavour: Flavour, bell: Bell, site: Site, server: AuthorizationServer, clock: ManualClock
):
    auth = flavour.Reauth(site.coroutine, token=server.issue(), clock=clock)
    async with site.async_client(None) as client:
        clock.advance(opens(auth) - 0.5)
        await client.get("/me", auth=auth)
        store = auth.store
        del auth
        gc.collect()
        clock.advance(0.6)
        bell[0][1]()
        assert store.state.status == "idle"
    assert server.token_requests == 0


async def test_a_clock_that_raises_as_the_alarm_rings_is_left_to_the_next_request(
    flavour: Flavour, bell: Bell, site: Site, server: AuthorizationServer
):
    clock = BreakableClock()
    auth = flavour.Reauth(site.coroutine, token=server.issue(), clock=clock)
    async with site.async_client(auth) as client:
        clock.advance(opens(auth) - 0.5)
        await client.get("/me")
        clock.broken = True
        bell[0][1]()
        with pytest.raises(OSError, match="no clock"):
            await client.get("/me")


async def test_sync_requests_set_no_alarm_and_stay_on_the_hot_path(
    auth: Reauth, bell: Bell, site: Site, clock: ManualClock
):
    with site.client(auth) as client:
        clock.advance(opens(auth) - 0.5)
        await anyio.to_thread.run_sync(client.get, "/me")
        taken = auth._snapshot
        await anyio.to_thread.run_sync(client.get, "/me")
    assert bell == []
    assert auth._snapshot is taken


colour: ContextVar[str] = ContextVar("colour", default="none")


async def test_an_alarm_is_rung_by_the_event_loop_in_the_context_of_the_request_that_has_set_it():
    rung, seen = anyio.Event(), list[str]()
    colour.set("red")
    _loops.running_loop().call_later(0.001, lambda: (seen.append(colour.get()), rung.set()))
    colour.set("blue")
    with anyio.fail_after(60):
        await rung.wait()
    assert seen == ["red"]


async def test_an_alarm_that_is_stopped_does_not_ring():
    rung: list[str] = []
    loop = _loops.running_loop()
    stop, last = loop.call_later(0.001, lambda: rung.append("stopped")), anyio.Event()
    stop()
    loop.call_later(0.002, last.set)
    with anyio.fail_after(60):
        await last.wait()
    assert rung == []


def test_an_interrupt_as_an_alarm_rings_ends_no_trio_run_as_an_internal_error():
    async def waits() -> None:
        rung = trio.Event()

        def ring() -> None:
            rung.set()
            raise KeyboardInterrupt

        _loops.running_loop().call_later(0.001, ring)
        with trio.fail_after(60):
            await rung.wait()
        await trio.testing.wait_all_tasks_blocked()

    trio.run(waits)
