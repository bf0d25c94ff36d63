"""Tests of the token manager: decide, join a refresh or start one, wait.

The test runs the plans by hand. Mostly no worker runs.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import anyio
import httpx
import pytest
from seams import (
    OpenLoop,
    apply,
    begin_refresh,
    bring,
    busy,
    close_plan,
    fail,
    finish,
    join_refreshes,
    runs_on,
    state_of,
    token_plan,
    usable_until,
)

from httpx_reauth import (
    Action,
    AuthState,
    Reauth,
    RefreshError,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    SignedIn,
    SignInRequired,
    StorageError,
    Token,
    TokenStore,
)
from httpx_reauth._state.actions import SaveStarted, TokenRefused
from httpx_reauth._tokens._refresh import Worker
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import ManualClock

TIMEOUT = 30.0
TOLD = Token("told", expires_in=3600, expires_at=2e9)


class Interrupt(BaseException):
    """An exception from outside, like KeyboardInterrupt."""


@pytest.fixture
def asked() -> list[Token]:
    """The tokens that the refresh was called with."""
    return []


@pytest.fixture
def gate() -> threading.Semaphore:
    """The refresh waits for this gate."""
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


def renewed(_: Token) -> Token:
    return Token("new", expires_in=3600)


def rest_of(plan: Any) -> Any:
    """Run `plan` to its end, and return its result. Fail if it waits once more."""
    with pytest.raises(StopIteration) as stop:
        next(plan)
    return stop.value.value


def end_of(plan: Any) -> Any:
    """Run `plan` to its end, and return its result."""
    while True:
        try:
            next(plan).run()
        except StopIteration as stop:
            return stop.value


def let_work(auth: Reauth, gate: threading.Semaphore) -> None:
    """Open the gate of the running refresh, and wait until it has ended."""
    (worker,) = busy(auth)
    gate.release()
    worker.finished.wait(60.0)


# The duration of a wait.


def test_a_refresh_is_waited_for_until_its_very_last_moment(auth: Reauth, clock: ManualClock):
    flight, plan = begin_refresh(auth), token_plan(auth)
    for _ in range(3):
        next(plan)
        clock.advance(TIMEOUT / 3 - 0.01)
    next(plan)
    clock.advance(0.03)
    with pytest.raises(RefreshError, match="could not be stopped"):
        next(plan)
    finish(flight)


def test_guarantee_10_a_call_with_a_shorter_timeout_than_the_refresh_waits_no_longer_than_its_own(
    auth: Reauth, clock: ManualClock
):
    quick = Reauth(renewed, store=auth.store, clock=clock, refresh_timeout=2.0)
    flight, plan = begin_refresh(auth), token_plan(quick)
    next(plan)
    clock.advance(2.0)
    with pytest.raises(RefreshError, match="goes on without it"):
        next(plan)
    next(token_plan(auth))  # the call with the later deadline still waits
    assert state_of(auth).flight is flight
    finish(flight)


@pytest.mark.parametrize("is_async", [False, True])
def test_guarantee_10_who_has_waited_for_a_lost_flight_waits_for_the_next_one_no_longer_than_for_that(
    auth: Reauth, clock: ManualClock, asked: list[Token], gate: threading.Semaphore, *, is_async: bool
):
    lost, loop, plan = begin_refresh(auth), OpenLoop(), token_plan(auth, is_async=is_async)
    runs_on(lost, loop)
    if not is_async:
        lost.worker.loop_thread_id = None  # the loop runs in another thread
    next(plan)
    clock.advance(TIMEOUT - 1.0)
    loop.closed = True
    anyio.run(step_in_async_code, plan) if is_async else next(plan)
    assert state_of(auth).flight is not lost
    clock.advance(0.99)
    next(plan)
    clock.advance(0.01)
    with pytest.raises(RefreshError, match="goes on without it"):
        next(plan)
    gate.release()
    assert end_of(token_plan(auth)).access_token == "asked"
    auth.close()
    assert len(asked) == 1


async def step_in_async_code(plan: Any) -> Any:
    return next(plan)


@pytest.mark.parametrize("is_async", [False, True])
def test_guarantee_10_a_close_waits_for_all_within_one_timeout(auth: Reauth, clock: ManualClock, *, is_async: bool):
    flights = [begin_refresh(auth)]
    auth.store.dispatch(SignedIn(Token("given")))
    flights.append(begin_refresh(auth))
    for flight in flights:
        in_the_list_of_workers(flight)
    plan = close_plan(auth, is_async=is_async)
    next(plan)
    clock.advance(TIMEOUT)
    rest_of(plan)
    for flight in flights:
        finish(flight)


def in_the_list_of_workers(flight: Any) -> None:
    from httpx_reauth._tokens._refresh import worker

    worker._workers.add(flight.worker)


@pytest.mark.parametrize("is_async", [False, True])
def test_who_closes_waits_for_the_end_of_the_work_and_who_needs_the_token_does_not(auth: Reauth, *, is_async: bool):
    flight, plan = begin_refresh(auth), close_plan(auth, is_async=is_async)
    in_the_list_of_workers(flight)
    bring(flight, Token("new", expires_in=3600))
    next(plan)
    next(plan)
    assert rest_of(token_plan(auth, is_async=is_async)).access_token == "new"
    finish(flight)
    rest_of(plan)


def test_a_superseded_refresh_is_waited_for_by_close_as_well(auth: Reauth):
    flight = begin_refresh(auth)
    in_the_list_of_workers(flight)
    auth.store.dispatch(SignedIn(Token("given", expires_in=3600)))
    plan = close_plan(auth)
    next(plan)
    next(plan)
    finish(flight)
    rest_of(plan)


# The token that a call uses.


def test_guarantee_8_who_waited_uses_what_that_refresh_brought_though_others_have_renewed_it_since(
    auth: Reauth, asked: list[Token]
):
    flight, plan = begin_refresh(auth), token_plan(auth)
    next(plan)
    token = bring(flight, Token("short", expires_in=0), lifetime=0.0)
    finish(flight)
    other = begin_refresh(auth)
    bring(other, Token("shorter", expires_in=0), lifetime=0.0)
    finish(other)
    assert rest_of(plan) is token
    assert asked == []


def test_guarantee_4_who_has_seen_the_token_refused_does_not_get_it_back_from_a_renewal_that_began_before(
    auth: Reauth,
):
    auth.store.dispatch(SignedIn(Token("old", expires_in=3600)))
    token, flight = auth.token, begin_refresh(auth, "expiring")  # a renewal in the background
    auth.store._apply(TokenRefused(token))
    needs_another = token_plan(auth, rejected=token)
    next(needs_another)
    fail(flight, RefreshError("down"))
    with pytest.raises(RefreshError, match="down"):
        next(needs_another)
    with pytest.raises(RefreshError, match="down"):  # no call gets the refused token before another refresh may start
        rest_of(token_plan(auth))


@pytest.mark.parametrize("found", [TOLD, replace(TOLD)], ids=["the same", "an equal one"])
def test_guarantee_4_who_has_seen_the_token_refused_does_not_get_it_back_from_the_storage(
    auth: Reauth, asked: list[Token], gate: threading.Semaphore, found: Token
):
    auth.store.dispatch(SignedIn(TOLD))
    flight, plan = begin_refresh(auth, "missing"), token_plan(auth, rejected=auth.token)  # the plan reads the storage
    next(plan)
    bring(flight, found if found is not TOLD else auth.token or found, adopted=True)
    finish(flight)
    gate.release()
    assert end_of(plan).access_token == "asked"
    assert [token.access_token for token in asked] == ["told"]


def test_with_a_storage_a_token_that_is_saved_is_good_without_a_further_look(clock: ManualClock):
    auth = Reauth(renewed, storage=MemoryStorage(), clock=clock, leeway=60.0)
    assert usable_until(auth) == float("-inf")  # the storage has not been read
    auth.get_token()
    auth.close()
    current = state_of(auth).current
    assert current is not None
    assert usable_until(auth) == current.deadline - 60.0 * (1 + 0.1 * current.jitter)


def test_with_a_storage_a_token_that_is_not_saved_is_good_until_that_is_tried_again(clock: ManualClock):
    class Full(MemoryStorage):
        def save(self, token: Token) -> None:
            raise StorageError("The disk is full.")

    auth = Reauth(renewed, storage=Full(), clock=clock)
    auth.get_token()
    auth.close()
    apply(auth.store, SaveStarted(clock.monotonic() + 4.0))
    assert usable_until(auth) == clock.monotonic() + 4.0


# Sessions.


def test_who_wakes_late_does_not_use_the_token_of_a_session_that_has_ended(auth: Reauth):
    auth.store.dispatch(SignedIn(Token(refresh_token="of the first")))
    flight, plan = begin_refresh(auth), token_plan(auth)
    next(plan)
    bring(flight, Token("of the first", expires_in=3600))
    finish(flight)
    auth.sign_out()
    auth.sign_in(Token("of the second", expires_in=3600))
    with pytest.raises(SignInRequired):
        next(plan)


def test_who_began_without_any_token_waits_for_that_of_who_is_signed_in_now(auth: Reauth):
    flight, plan = begin_refresh(auth), token_plan(auth)
    next(plan)
    auth.sign_in(Token(refresh_token="of somebody"))
    other = begin_refresh(auth)
    next(plan)
    token = bring(other, Token("of somebody", expires_in=3600))
    assert rest_of(plan) is token
    for one in (flight, other):
        finish(one)


def test_a_call_that_is_superseded_before_its_refresh_starts_decides_again(asked: list[Token]):
    class Meddling(ManualClock):
        def monotonic(self) -> float:
            while then:
                auth.store.dispatch(SignedIn(then.pop()))
            return super().monotonic()

    then: list[Token] = []
    auth = Reauth(lambda token: asked.append(token) or Token("asked"), clock=Meddling())
    then.append(Token("given"))  # after the call has read the state, and before it starts a refresh
    assert auth.get_token() == Token("given")
    assert (asked, busy(auth)) == ([], [])


@pytest.mark.parametrize(
    ("change", "kept"),
    [(lambda auth: auth.sign_in(Token("given")), "given"), (lambda auth: auth.sign_out(), None)],
    ids=["sign_in", "sign_out"],
)
def test_a_refresh_that_signs_in_or_out_itself_does_not_wait_for_its_own_lock(
    change: Callable[[Reauth], None], kept: str | None
):
    storage = MemoryStorage()

    def refresh(token: Token) -> Token:
        change(auth)
        return Token("new", expires_in=3600)

    with Reauth(refresh, storage=storage) as auth:
        if kept is None:
            with pytest.raises(SignInRequired):
                auth.get_token()
        else:
            assert auth.get_token().access_token == kept
    held = storage.load()
    assert (held and held.access_token) == kept


# Another attempt.


def test_a_refresh_that_is_stopped_twice_is_not_tried_a_third_time_by_the_same_caller(
    auth: Reauth, clock: ManualClock, asked: list[Token], gate: threading.Semaphore
):
    auth.store.dispatch(SignedIn(Token(refresh_token="interrupted")))
    plan = token_plan(auth)
    for _ in range(2):
        next(plan)
        let_work(auth, gate)
    clock.advance(61.0)  # the back-off has passed
    with pytest.raises(RefreshError, match="stopped before it had answered"):
        next(plan)
    assert len(asked) == 2


def test_a_refresh_whose_loop_ends_while_it_is_waited_for_is_replaced():
    auth, loop = Reauth(renewed), OpenLoop()
    flight, plan = begin_refresh(auth), token_plan(auth)
    runs_on(flight, loop)
    flight.worker.loop_thread_id = None
    next(plan)
    next(plan)  # the loop is still open
    loop.closed = True
    assert end_of(plan).access_token == "new"
    assert flight.outcome_unknown


def test_a_refresh_whose_worker_has_ended_without_a_word_is_not_waited_for():
    auth = Reauth(renewed)
    finish(begin_refresh(auth))
    assert auth.store.state.status == "pending"
    assert auth.get_token().access_token == "new"


# Calls that would wait for themselves.


def test_refreshes_that_need_each_other_fail_immediately_with_an_error_that_names_the_circle(clock: ManualClock):
    both = threading.Barrier(2)  # both refreshes begin at the same time
    errors: list[BaseException] = []

    def needs(other: Callable[[], Reauth]) -> Callable[[Token], Token]:
        def refresh(_: Token) -> Token:
            both.wait(60)
            try:
                return other().get_token()
            except RefreshError as error:
                errors.append(error)
                raise

        return refresh

    # The clock does not move. So a call that waited for its deadline would wait for ever.
    one = Reauth(needs(lambda: two), clock=clock)
    two = Reauth(needs(lambda: one), clock=clock)
    outcomes: list[Any] = []

    def ask(auth: Reauth) -> None:
        try:
            outcomes.append(auth.get_token())
        except RefreshError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=ask, args=(auth,), daemon=True) for auth in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert [type(outcome) for outcome in outcomes] == [RefreshError] * 2
    assert any("circle" in str(error) for error in errors)


@pytest.mark.anyio
async def test_coroutines_that_need_each_other_fail_immediately_with_an_error_that_names_the_circle(clock: ManualClock):
    arrived, both = [0], anyio.Event()
    errors: list[str] = []

    async def needs(other: Reauth) -> Token:
        arrived[0] += 1
        if arrived[0] == 2:
            both.set()
        await both.wait()
        try:
            return await other.aget_token()
        except RefreshError as error:
            errors.append(str(error))
            raise

    async def first(_: Token) -> Token:
        return await needs(two)

    async def second(_: Token) -> Token:
        return await needs(one)

    one, two = Reauth(first, clock=clock), Reauth(second, clock=clock)
    outcomes: list[type] = []

    async def ask(auth: Reauth) -> None:
        try:
            await auth.aget_token()
        except RefreshError as error:
            outcomes.append(type(error))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, one)
            tasks.start_soon(ask, two)
    assert outcomes == [RefreshError] * 2
    assert any("circle" in error for error in errors)


def test_a_refresh_may_ask_another_auth_object_with_a_storage_for_its_token():
    service = Reauth(renewed, storage=MemoryStorage())
    user = Reauth(lambda _: Token(f"for {service.get_token().access_token}"), storage=MemoryStorage())
    assert user.get_token().access_token == "for new"


def test_a_sync_call_that_blocks_the_loop_of_the_refresh_fails_immediately(auth: Reauth):
    flight = begin_refresh(auth)
    runs_on(flight, OpenLoop())
    with pytest.raises(RefreshError, match="wait for itself"):
        next(token_plan(auth))
    next(token_plan(auth, is_async=True))
    finish(flight)


def test_a_call_that_interrupts_the_holder_of_the_lock_of_all_stores_fails_immediately(
    auth: Reauth, monkeypatch: pytest.MonkeyPatch
):
    """A signal handler or a finalizer can make such a call, while this library changes a state."""
    from httpx_reauth._state import store as _store

    flight, reduce, errors = begin_refresh(auth), _store.reduce, []

    def interrupted(state: Any, action: Any) -> Any:
        with pytest.raises(RefreshError, match="handler") as caught:
            auth.get_token()
        errors.append(caught.value)
        return reduce(state, action)

    monkeypatch.setattr(_store, "reduce", interrupted)
    TokenStore().dispatch(SignedIn(Token("a")))
    assert len(errors) == 1
    finish(flight)


# Interrupts while a refresh starts.


def interrupted(_: threading.Thread) -> None:
    raise Interrupt


def test_an_interrupt_while_a_refresh_starts_leaves_nobody_waiting_and_counts_as_no_failure(
    monkeypatch: pytest.MonkeyPatch,
):
    auth = Reauth(renewed)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(Interrupt):
            auth.get_token()
    assert (auth.store.state.status, busy(auth)) == ("idle", [])
    assert auth.get_token().access_token == "new"


def test_an_interrupt_while_a_sign_in_is_saved_leaves_nobody_waiting_for_it(monkeypatch: pytest.MonkeyPatch):
    auth = Reauth(renewed, storage=MemoryStorage())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(Interrupt):
            auth.sign_in(Token("given"))
    assert busy(auth) == []
    assert auth.store.state.token == Token("given")
    auth.close()
    assert state_of(auth).pending_write == ""


def test_guarantee_2_an_interrupt_while_its_thread_starts_does_not_give_up_a_refresh_that_runs(
    monkeypatch: pytest.MonkeyPatch,
):
    start, gate, running = threading.Thread.start, threading.Event(), threading.Event()
    spent: list[str | None] = []

    def start_and_interrupt(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "httpx_reauth refresh guard":
            assert running.wait(60)  # the signal arrives while `start` waits for the thread
            raise Interrupt

    def refresh(token: Token) -> Token:
        running.set()
        spent.append(token.refresh_token)
        assert gate.wait(60)
        return Token("new", refresh_token="r1", expires_in=3600)

    auth = Reauth(refresh, token=Token(refresh_token="r0"))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start_and_interrupt)
        with pytest.raises(Interrupt):
            auth.get_token()
    assert auth.store.state.status == "pending"
    gate.set()
    assert auth.get_token().refresh_token == "r1"
    assert spent == ["r0"]


def test_a_refresh_that_was_given_up_before_it_began_does_not_begin(monkeypatch: pytest.MonkeyPatch):
    threads: list[threading.Thread] = []

    def keep_and_interrupt(thread: threading.Thread) -> None:
        threads.append(thread)
        raise Interrupt

    auth = Reauth(renewed)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", keep_and_interrupt)
        with pytest.raises(Interrupt):
            auth.get_token()
    (thread,) = threads
    thread.start()
    thread.join()
    assert auth.store.state == AuthState()
    assert auth.get_token().access_token == "new"


# Listeners.


def test_a_listener_that_asks_for_the_token_that_is_being_renewed_gets_it(clock: ManualClock):
    auth, tokens = Reauth(renewed, clock=clock), []

    def listener(_: AuthState, action: Action) -> None:
        if isinstance(action, RefreshPending):
            tokens.append(auth.get_token())

    auth.store.subscribe(listener)
    assert auth.get_token().access_token == "new"
    assert [token.access_token for token in tokens] == ["new"]


@pytest.mark.parametrize("kind", [RefreshPending, RefreshFulfilled, RefreshRejected])
def test_guarantee_10_a_listener_that_blocks_holds_up_nobody_else(kind: type):
    """It delays neither the calls that wait already, nor new calls, nor the refresh."""
    blocked, ends = threading.Event(), threading.Event()

    def refresh(_: Token) -> Token:
        if kind is RefreshRejected:
            raise RefreshError("down")
        return Token("new", expires_in=3600)

    def block(_: AuthState, action: Action) -> None:
        if isinstance(action, kind):
            blocked.set()
            ends.wait(60)

    auth = Reauth(refresh)
    auth.store.subscribe(block)
    outcomes: list[Any] = []

    def ask() -> None:
        try:
            outcomes.append(auth.get_token().access_token)
        except RefreshError:
            outcomes.append("failed")

    # The first call may be the one that runs the listener, when the refresh begins.
    first = threading.Thread(target=ask, daemon=True)
    first.start()
    try:
        assert blocked.wait(60)
        others = [threading.Thread(target=ask, daemon=True) for _ in range(5)]
        for thread in others:
            thread.start()
        for thread in others:
            thread.join(20)
            assert not thread.is_alive()
        assert outcomes[:5] == ["failed" if kind is RefreshRejected else "new"] * 5
    finally:
        ends.set()
    first.join(60)
    auth.close()


def test_a_listener_that_signs_in_at_every_refresh_makes_nobody_spin(clock: ManualClock):
    # by the refresh token that the request sends
    superseded: dict[str | None, threading.Event] = defaultdict(threading.Event)
    names = (f"r-{number}" for number in count())

    def sign_in(state: AuthState, action: Action) -> None:
        if isinstance(action, RefreshPending):
            clock.advance(1.0)
            auth.store.dispatch(SignedIn(Token(refresh_token=next(names))))
            superseded[state.token.refresh_token if state.token else None].set()

    def refresh(token: Token) -> Token:
        assert superseded[token.refresh_token].wait(60)
        return Token("new", expires_in=3600)

    auth = Reauth(refresh, clock=clock, refresh_timeout=3.0)
    auth.store.subscribe(sign_in)
    with pytest.raises(RefreshError, match="refresh_timeout"):
        auth.get_token()
    auth.close()


def test_listeners_get_a_renewal_before_the_request_that_waits_for_it_continues(monkeypatch: pytest.MonkeyPatch):
    """This holds even if the refresh has its result before the request begins to wait."""
    heard: list[str] = []
    hears, may_hear = threading.Event(), threading.Event()

    def listener(_: AuthState, action: Action) -> None:
        if isinstance(action, RefreshFulfilled):
            hears.set()
            assert may_hear.wait(60)
            heard.append("renewed")

    def start_and_see_the_result(worker: Worker, *, as_task: bool) -> None:
        start(worker, as_task=as_task)
        assert hears.wait(60)

    start = Worker.start
    monkeypatch.setattr(Worker, "start", start_and_see_the_result)
    auth = Reauth(renewed)
    auth.store.subscribe(listener)
    plan = token_plan(auth)
    wait = next(plan)
    may_hear.set()
    wait.run()
    assert rest_of(plan).access_token == "new"
    assert heard == ["renewed"]


@pytest.mark.parametrize("with_storage", [False, True], ids=["in memory", "with a storage"])
def test_guarantee_10_a_listener_that_signs_in_at_every_refresh_costs_few_token_requests(with_storage: bool):
    asked: list[Token] = []

    def refresh(token: Token) -> Token:
        asked.append(token)
        return Token("new")

    def sign_in(_: AuthState, action: Action) -> None:
        if isinstance(action, RefreshPending):
            auth.store.dispatch(SignedIn(Token(refresh_token="another")))

    auth = Reauth(refresh, storage=MemoryStorage() if with_storage else None)
    auth.store.subscribe(sign_in)
    with pytest.raises(RefreshError, match="Does a listener sign in"):
        auth.get_token()
    auth.close()
    assert len(asked) <= 10


def test_guarantee_13_a_call_that_waited_for_a_token_that_a_listener_has_signed_out_gets_sign_in_required():
    auth = Reauth(renewed, token=Token(refresh_token="r"))

    def listener(_: AuthState, action: Action) -> None:
        if isinstance(action, RefreshFulfilled):
            auth.sign_out()

    auth.store.subscribe(listener)
    with pytest.raises(SignInRequired):
        auth.get_token()


def test_a_failure_that_a_sign_in_has_superseded_is_raised_to_no_caller(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
):
    def refresh(token: Token) -> Token:
        auth.sign_in(Token("given"))
        raise OSError("gone")

    auth = Reauth(refresh, clock=clock)
    assert auth.get_token() == Token("given")
    auth.close()
    assert auth.store.state == AuthState("idle", Token("given"))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_an_error_with_a_response_that_was_not_read_is_an_error_like_any_other():
    class Unread(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b'{"error": "invalid_grant"}'

    def refresh(token: Token) -> Token:
        response = httpx.Response(400, stream=Unread(), request=httpx.Request("POST", "https://id.example.com"))
        raise httpx.HTTPStatusError("400", request=response.request, response=response)

    with pytest.raises(RefreshError):
        Reauth(refresh).get_token()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("lifetime", [0, 3600])
def test_a_listener_that_ends_the_thread_takes_nothing_from_those_who_wait(lifetime: int, gate: threading.Semaphore):
    def leave(_: AuthState, action: Action) -> None:
        if isinstance(action, RefreshFulfilled):
            raise SystemExit

    def refresh(token: Token) -> Token:
        asked.append(token)
        assert gate.acquire(timeout=60.0)
        return Token("new", expires_in=lifetime)

    asked: list[Token] = []
    auth = Reauth(refresh)
    auth.store.subscribe(leave)
    plan = token_plan(auth)
    wait = next(plan)
    gate.release()  # opened only now, so that the refresh's thread calls the listener, and not this thread
    wait.run()
    assert rest_of(plan).access_token == "new"
    join_refreshes()  # pytest must report the thread's exception in this test
    assert len(asked) == 1


# One store, several auth objects.


def test_a_first_token_seeds_no_store_whose_login_is_under_way(clock: ManualClock):
    first = Reauth(renewed, clock=clock)
    flight = begin_refresh(first)
    Reauth(renewed, store=first.store, token=Token("seed"), clock=clock)
    assert first.store.state == AuthState("pending")
    assert not flight.worker.superseded
    finish(flight)


def test_of_two_auth_objects_on_one_store_either_uses_the_storage(clock: ManualClock):
    storage = MemoryStorage()
    storage.save(Token("stored", expires_in=3600))
    one = Reauth(renewed, clock=clock)
    two = Reauth(renewed, store=one.store, storage=storage, clock=clock)
    assert one.get_token().access_token == "stored"
    assert two.get_token() is one.get_token()


def test_guarantee_1_of_two_auth_objects_on_one_store_none_spends_a_token_after_a_sign_out_elsewhere(
    clock: ManualClock,
):
    spent: list[str | None] = []

    def refresh(token: Token) -> Token:
        spent.append(token.refresh_token)
        return Token("new", refresh_token="r9", expires_in=3600)

    storage = MemoryStorage()
    storage.save(Token("old", refresh_token="r0", expires_in=3600))
    one = Reauth(refresh, storage=storage, clock=clock)
    two = Reauth(refresh, store=one.store, storage=storage, clock=clock)
    assert one.get_token().access_token == "old"
    one.close()
    with Reauth(refresh, storage=storage, clock=clock) as elsewhere:  # another process
        elsewhere.sign_out()
    clock.advance(3600)
    with pytest.raises(SignInRequired):
        two.get_token()
    assert one.get_token().access_token == "new"  # it logs in again: the old refresh token belongs to nobody now
    one.close()
    assert spent == [None]


# Nothing stays in memory.


def test_refreshes_on_100_loops_that_were_closed_leave_nothing_behind():
    import asyncio
    import gc

    async def hang(_: Token) -> Token:
        await asyncio.Event().wait()
        raise AssertionError

    auth = Reauth(hang, token=Token(refresh_token="r"))

    async def leave_early() -> None:
        task = asyncio.ensure_future(auth.aget_token())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()

    for _ in range(100):
        asyncio.run(leave_early())
        auth.store.dispatch(SignedIn(Token(refresh_token="r")))
    gc.collect()
    assert busy(auth) == []
    from httpx_reauth._tokens._refresh import worker

    assert not [one for one in worker._workers if one.store is auth.store]
