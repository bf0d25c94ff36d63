"""Whoever waits for a flight: what the plans of the refresher yield and return, step by step, with nobody at work."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest
from httpx_reauth._tokens.errands import settle
from httpx_reauth._tokens.wait import Wait

from httpx_reauth import Reauth, RefreshError, SignedIn, StorageError, Token
from httpx_reauth._state.actions import RefreshFulfilled, RefreshPending, RefreshRejected
from httpx_reauth._tokens._refresh.flight import Flight, under_way
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import ManualClock

TIMEOUT = 30.0


class Interrupt(BaseException):
    """What ends a refresh from outside."""


@pytest.fixture
def asked() -> list[Token]:
    """The tokens for which the refresh was asked."""
    return []


@pytest.fixture
def gate() -> threading.Semaphore:
    """What the refresh waits for."""
    return threading.Semaphore(0)


@pytest.fixture
def auth(clock: ManualClock, asked: list[Token], gate: threading.Semaphore) -> Reauth:
    def refresh(token: Token) -> Token:
        asked.append(token)
        assert gate.acquire(timeout=60.0)
        if token.refresh_token == "interrupted" or (token.refresh_token == "interrupted once" and len(asked) == 1):
            raise Interrupt
        return Token("asked", expires_in=3600)

    return Reauth(refresh, clock=clock)


def departed(auth: Reauth) -> Flight:
    """A flight that is under way as far as the state knows."""
    now = auth.store.clock.monotonic()
    flight = Flight(auth.store, "missing", started=now, overdue=now + TIMEOUT, failures=0)
    flight.depart()
    assert auth.store.dispatch(RefreshPending("missing", flight=flight))
    return flight


def land(flight: Flight, token: Token, *, lifetime: float = 3600.0) -> None:
    """`flight` brings `token`; its work goes on, as with a storage whose lock is still to be released."""
    deadline = flight.store.clock.monotonic() + lifetime
    assert flight.store.dispatch(RefreshFulfilled(token, "missing", 0.0, flight=flight, deadline=deadline))
    flight.token = token
    flight.land()


def rest_of(plan: Any) -> Any:
    """What `plan` returns without any further wait."""
    with pytest.raises(StopIteration) as stop:
        next(plan)
    return stop.value.value


def test_a_flight_is_waited_for_until_its_very_last_moment(auth: Reauth, clock: ManualClock):
    flight, plan = departed(auth), auth._refresher.token(is_async=False)
    for _ in range(3):
        assert next(plan).flight is flight
        clock.advance(TIMEOUT / 3 - 0.01)
    assert next(plan).flight is flight
    clock.advance(0.03)
    with pytest.raises(RefreshError):
        next(plan)
    flight.end()


@pytest.mark.parametrize("is_async", [False, True])
def test_guarantee_7_a_storage_that_is_still_to_be_read_makes_nobody_wait_who_has_none(
    auth: Reauth, clock: ManualClock, *, is_async: bool
):
    auth.store.dispatch(SignedIn(Token("good", expires_in=3600)))
    beside = Reauth(auth._refresher.refresh, store=auth.store, storage=MemoryStorage(), clock=clock)
    flight = departed(beside)
    assert next(beside._refresher.token(is_async=is_async)).flight is flight
    assert rest_of(auth._refresher.token(is_async=is_async)).access_token == "good"
    flight.end()


def test_whoever_has_waited_leaves_the_rest_of_the_work_alone(auth: Reauth):
    flight, plan = departed(auth), auth._refresher.token(is_async=False)
    next(plan)
    land(flight, token := Token("new", expires_in=3600))
    assert rest_of(plan) is token
    assert (flight.stopped, flight.ended, under_way(auth.store)) == (False, False, [flight])
    flight.end()


@pytest.mark.parametrize("is_async", [False, True])
def test_who_closes_waits_for_the_end_of_the_work_and_who_needs_the_token_does_not(auth: Reauth, *, is_async: bool):
    flight, plan = departed(auth), settle(auth._refresher, is_async=is_async)
    land(flight, Token("new", expires_in=3600))
    step = next(plan)
    assert (step.flight, step.for_end) == (flight, True)
    assert next(plan).flight is flight  # it has landed already
    flight.end()
    rest_of(plan)
    assert rest_of(auth._refresher.token(is_async=is_async)).access_token == "new"


def test_guarantee_8_whoever_waited_uses_what_that_flight_brought_though_others_have_renewed_it_since(
    auth: Reauth, asked: list[Token]
):
    flight, plan = departed(auth), auth._refresher.token(is_async=False)
    next(plan)
    land(flight, token := Token("short", expires_in=0), lifetime=0.0)
    flight.end()
    other = departed(auth)
    land(other, Token("shorter", expires_in=0), lifetime=0.0)
    other.end()
    assert rest_of(plan) is token
    assert asked == []


def test_with_a_storage_a_token_that_is_saved_is_good_without_a_further_look(clock: ManualClock):
    auth = Reauth(lambda _: Token("new", expires_in=3600), storage=MemoryStorage(), clock=clock, leeway=60.0)
    assert auth._refresher.usable_until(auth.store.state) == float("-inf")  # before the storage is read
    auth.get_token()
    auth.close()
    state = auth.store.state
    assert auth._refresher.usable_until(state) == state.deadline - 60.0 * (1 + 0.1 * state.spread)


def test_with_a_storage_a_token_that_is_not_saved_is_good_until_that_is_tried_again(clock: ManualClock):
    class Full(MemoryStorage):
        def save(self, token: Token) -> None:
            raise StorageError("The disk is full.")

    auth = Reauth(lambda _: Token("new", expires_in=3600), storage=Full(), clock=clock)
    auth.get_token()
    auth.close()
    keeper = auth._refresher.keeper
    assert keeper is not None
    keeper.save_at = clock.monotonic() + 4.0
    assert auth._refresher.usable_until(auth.store.state) == clock.monotonic() + 4.0


def test_who_closes_on_the_event_loop_that_the_rest_of_the_work_needs_is_told_so(auth: Reauth):
    flight = departed(auth)
    flight.thread = threading.get_ident()
    land(flight, Token("new", expires_in=3600))
    with pytest.raises(RefreshError, match="would have to wait for"):
        next(settle(auth._refresher, is_async=False))
    assert next(settle(auth._refresher, is_async=True)).flight is flight
    flight.end()


# A second attempt.


def let_work(plan: Any, gate: threading.Semaphore) -> None:
    """Let the refresh that `plan` waits for do its work."""
    flight = next(plan).flight
    gate.release()
    flight.keep.join(60.0)
    assert flight.ended


def test_a_refresh_that_is_stopped_twice_is_not_tried_a_third_time_by_the_same_caller(
    auth: Reauth, clock: ManualClock, asked: list[Token], gate: threading.Semaphore
):
    auth.store.dispatch(SignedIn(Token(refresh_token="interrupted")))
    plan = auth._refresher.token(is_async=False)
    let_work(plan, gate)
    let_work(plan, gate)
    clock.advance(61.0)  # it would not even be too early
    with pytest.raises(RefreshError, match="stopped before it had answered"):
        next(plan)
    assert len(asked) == 2


def test_a_sign_in_meanwhile_does_not_count_as_such_an_attempt(
    auth: Reauth, asked: list[Token], gate: threading.Semaphore
):
    departed(auth)
    plan = auth._refresher.token(is_async=False)
    next(plan)
    auth.store.dispatch(SignedIn(Token(refresh_token="interrupted once")))  # nothing to send yet
    let_work(plan, gate)
    let_work(plan, gate)
    assert rest_of(plan).access_token == "asked"
    assert len(asked) == 2


def test_whoever_is_overtaken_before_the_refresh_starts_decides_anew(asked: list[Token]):
    class Meddling(ManualClock):
        def monotonic(self) -> float:
            while then:
                auth.store.dispatch(SignedIn(then.pop()))
            return super().monotonic()

    then: list[Token] = []
    auth = Reauth(lambda token: asked.append(token) or Token("asked"), clock=Meddling())
    then.append(Token("given"))  # between the look at the state and the start
    assert auth.get_token() == Token("given")
    assert (asked, under_way(auth.store)) == ([], [])


def test_guarantee_4_whoever_has_seen_the_token_refused_does_not_get_it_back_from_a_renewal_that_began_before(
    auth: Reauth,
):
    auth.store.dispatch(SignedIn(Token("old", expires_in=3600)))
    token, flight = auth.store.state.token, departed(auth)  # in the background
    needs_another, takes_any = (auth._refresher.token(is_async=False, rejected=one) for one in (token, None))
    assert next(needs_another).flight is flight
    error = RefreshError("down")
    assert auth.store.dispatch(RefreshRejected(error, "expiring", 0.0, flight=flight, retry_at=float("inf")))
    flight.error = error
    flight.end()
    with pytest.raises(RefreshError, match="down"):
        next(needs_another)
    assert rest_of(takes_any) is token


@pytest.mark.anyio
async def test_an_object_whose_call_is_a_coroutine_runs_on_the_event_loop_of_the_caller():
    class Refresh:
        async def __call__(self, _: Token) -> Token:
            threads.append(threading.get_ident())
            return Token("new")

    threads: list[int] = []
    async with Reauth(Refresh()) as auth:
        await auth.aget_token()
    assert threads == [threading.get_ident()]


class ClosedHome:
    """An event loop that has ended."""

    def is_closed(self) -> bool:
        return True


@pytest.mark.parametrize("is_async", [False, True])
def test_guarantee_10_who_has_waited_for_a_lost_flight_waits_for_the_next_one_no_longer_than_for_that(
    auth: Reauth, clock: ManualClock, asked: list[Token], gate: threading.Semaphore, *, is_async: bool
):
    lost, plan = departed(auth), auth._refresher.token(is_async=is_async)
    assert next(plan).until == lost.overdue
    clock.advance(TIMEOUT - 1.0)
    lost.home = ClosedHome()  # type: ignore[assignment]
    step = next(plan) if not is_async else anyio.run(step_in_async_code, plan)
    assert step.flight is not lost
    assert step.until == lost.overdue
    clock.advance(0.99)
    assert next(plan).flight is step.flight
    clock.advance(0.01)
    with pytest.raises(RefreshError, match="goes on without it"):
        next(plan)
    assert not step.flight.is_over()
    fresh = auth._refresher.token(is_async=False)
    assert next(fresh).until == clock.monotonic() + TIMEOUT
    gate.release()
    auth.close()
    assert rest_of(fresh).access_token == "asked"
    assert len(asked) == 1


async def step_in_async_code(plan: Any) -> Any:
    return next(plan)


@pytest.mark.anyio
async def test_guarantee_10_who_has_less_patience_than_a_flight_has_time_is_woken_and_the_others_are_not(
    auth: Reauth, clock: ManualClock
):
    flight, woken, somebody_left = departed(auth), [], anyio.Event()

    async def wait(name: str, step: Wait) -> None:
        await step.arun()
        woken.append(name)
        somebody_left.set()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, "patient", Wait(flight))
            tasks.start_soon(wait, "impatient", Wait(flight, until=clock.monotonic() + 0.001))
            await anyio.wait_all_tasks_blocked()
            clock.advance(0.001)
            await somebody_left.wait()
            await Wait(flight, until=clock.monotonic()).arun()
            assert woken == ["impatient"]
            flight.land()
    assert woken == ["impatient", "patient"]
    flight.end()


def test_a_thread_with_less_patience_than_a_flight_has_time_is_not_kept_waiting(auth: Reauth, clock: ManualClock):
    flight = departed(auth)
    Wait(flight, until=clock.monotonic()).run()
    Wait(flight, until=clock.monotonic() - 5.0, for_end=True).run()
    assert not flight.is_over()
    flight.end()


@pytest.mark.parametrize("is_async", [False, True])
def test_guarantee_10_a_close_waits_for_all_that_it_waits_for_within_one_timeout(clock: ManualClock, *, is_async: bool):
    auth = Reauth(lambda _: Token("new"), storage=MemoryStorage(), clock=clock, refresh_timeout=TIMEOUT)
    plan, flight = settle(auth._refresher, is_async=is_async), departed(auth)
    end = clock.monotonic() + TIMEOUT
    assert next(plan).until == end
    clock.advance(TIMEOUT)
    rest_of(plan)
    flight.end()


def test_whoever_waited_for_a_token_and_is_late_does_not_use_that_of_somebody_who_has_signed_out_since(auth: Reauth):
    flight, plan = departed(auth), auth._refresher.token(is_async=False)
    next(plan)
    land(flight, Token("of the first", expires_in=3600))
    flight.end()
    auth.sign_out()
    auth.sign_in(Token(refresh_token="of the second"))
    other = departed(auth)
    land(other, token := Token("of the second", expires_in=3600))
    other.end()
    assert rest_of(plan) is token


def test_whoever_waited_for_a_token_and_is_late_waits_for_that_of_who_is_signed_in_now(auth: Reauth):
    flight, plan = departed(auth), auth._refresher.token(is_async=False)
    next(plan)
    land(flight, Token("of the first", expires_in=3600))
    flight.end()
    auth.sign_in(Token(refresh_token="of the second"))
    other = departed(auth)
    assert next(plan).flight is other
    land(other, token := Token("of the second", expires_in=3600))
    other.end()
    assert rest_of(plan) is token
