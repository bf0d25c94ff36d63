"""Store, policy and refresh put together: what happens where a refresh cannot start, or leaves without a word."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import httpx
import pytest
from httpx_reauth._tokens.wait import Plan

from httpx_reauth import AuthState, Reauth, RefreshError, SignInRequired, Token, TokenStore
from httpx_reauth._state.actions import Action, RefreshFulfilled, RefreshPending, RefreshRejected
from httpx_reauth._state.policy import Decision
from httpx_reauth._state.state import Record
from httpx_reauth._tokens._refresh.flight import Flight, under_way
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import ManualClock


class Interrupt(BaseException):
    """What comes in from outside, as a KeyboardInterrupt does."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def interrupted(_: threading.Thread) -> None:
    raise Interrupt


@pytest.fixture
def broken_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread starts, for a reason that must reach the caller."""
    monkeypatch.setattr(threading.Thread, "start", interrupted)


def renewed(token: Token) -> Token:
    return Token("new", expires_in=3600)


def departed(auth: Reauth) -> Flight:
    """A flight that is under way as far as the state knows, and of which nobody does the work."""
    store, now = auth.store, auth.store.clock.monotonic()
    flight = Flight(store, "missing", started=now, overdue=now + 30.0, failures=0)
    flight.depart()
    assert store.dispatch(RefreshPending("missing", flight=flight))
    return flight


def rest_of(plan: Plan[Token]) -> Token:
    """What a plan returns in the end."""
    while True:
        try:
            step = next(plan)
        except StopIteration as stop:
            return stop.value
        step.flight.wait(60.0)


class Home:
    """An event loop."""

    def __init__(self) -> None:
        self.closed = False

    def is_closed(self) -> bool:
        return self.closed


@pytest.mark.parametrize(
    ("change", "kept"),
    [(lambda auth: auth.sign_in(Token("given")), "new"), (lambda auth: auth.sign_out(), None)],
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
        try:
            auth.get_token()
        except SignInRequired:
            assert kept is None
    held = storage.load()
    assert (held and held.access_token) == ("given" if kept else None)


@pytest.mark.usefixtures("broken_start")
def test_an_interrupt_while_a_renewal_starts_leaves_nobody_waiting_for_it():
    auth = Reauth(renewed)
    with pytest.raises(Interrupt):
        auth.get_token()
    assert auth.store.state.status == "rejected"
    assert under_way(auth.store) == []


def test_after_such_an_interrupt_the_next_request_renews(monkeypatch: pytest.MonkeyPatch):
    auth = Reauth(renewed)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(Interrupt):
            auth.get_token()
    assert auth.get_token().access_token == "new"


@pytest.mark.usefixtures("broken_start")
def test_an_interrupt_while_a_sign_in_is_saved_leaves_nobody_waiting_for_it():
    auth = Reauth(renewed, storage=MemoryStorage())
    with pytest.raises(Interrupt):
        auth.sign_in(Token("given"))
    assert under_way(auth.store) == []
    assert auth.store.state.token == Token("given")


def test_a_flight_that_landed_without_a_word_is_not_waited_for():
    auth = Reauth(renewed)
    departed(auth).end()
    assert auth.store.state.status == "pending"
    assert auth.get_token().access_token == "new"


def test_a_flight_whose_loop_ends_while_it_is_waited_for_is_replaced():
    auth = Reauth(renewed)
    flight = departed(auth)
    flight.home = home = Home()  # type: ignore[assignment]
    plan = auth._refresher.token(is_async=False)
    assert next(plan).flight is flight
    assert next(plan).flight is flight  # it is still there
    home.closed = True
    assert rest_of(plan).access_token == "new"
    assert flight.stopped


def test_a_failure_that_a_sign_in_has_overtaken_is_nobodys(clock: ManualClock, caplog: pytest.LogCaptureFixture):
    def refresh(token: Token) -> Token:
        auth.sign_in(Token("given"))
        raise OSError("gone")

    auth = Reauth(refresh, clock=clock)
    assert auth.get_token() == Token("given")
    assert (auth.store.state.status, auth.store.state.error) == ("idle", None)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_an_error_with_a_response_that_was_not_read_is_an_error_like_any_other():
    class Unread(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b'{"error": "invalid_grant"}'

    def refresh(token: Token) -> Token:
        response = httpx.Response(400, stream=Unread(), request=httpx.Request("POST", "https://id.example.com"))
        raise httpx.HTTPStatusError("400", request=response.request, response=response)

    with pytest.raises(RefreshError) as caught:
        Reauth(refresh).get_token()
    assert isinstance(caught.value.__cause__, httpx.HTTPStatusError)


def test_a_listener_that_asks_for_the_token_that_is_about_to_be_renewed_is_told_at_once_that_it_waits_for_itself(
    clock: ManualClock,
):
    auth, errors = Reauth(renewed, clock=clock), []  # that clock stands still: whoever waited would wait for ever

    def listener(_: AuthState, action: Action) -> None:
        if isinstance(action, RefreshPending):
            with pytest.raises(RefreshError, match="listener") as caught:
                auth.get_token()
            errors.append(caught.value)

    auth.store.subscribe(listener)
    assert auth.get_token().access_token == "new"
    assert len(errors) == 1


def test_guarantee_13_whoever_waited_for_a_token_that_a_listener_has_signed_out_at_once_is_told_to_sign_in():
    auth = Reauth(renewed)

    def listener(_: AuthState, action: Action) -> None:
        if isinstance(action, RefreshFulfilled):
            auth.sign_out()

    auth.store.subscribe(listener)
    with pytest.raises(SignInRequired):
        auth.get_token()


def test_whoever_waited_for_a_token_that_a_listener_has_replaced_at_once_uses_the_new_one():
    auth = Reauth(renewed)

    def listener(_: AuthState, action: Action) -> None:
        if isinstance(action, RefreshFulfilled):
            auth.sign_in(Token("given"))

    auth.store.subscribe(listener)
    assert auth.get_token() == Token("given")


NOW = 1000.0
ALIVE, OTHER = Token("a", expires_in=3600), Token("b")
LATER, EARLIER = Record(failures=1, retry_at=NOW + 0.001), Record(failures=1, retry_at=NOW)


@pytest.mark.parametrize(
    ("state", "rejected", "is_read", "expected"),
    [
        # What the storage holds is not known yet, so it is read first, if it can be; else requests go on.
        (AuthState(), None, False, ("wait", "missing")),
        (AuthState(token=ALIVE), None, False, ("wait", "missing")),
        (AuthState(token=ALIVE, record=LATER), None, False, ("use", "missing")),
        (AuthState(token=ALIVE, record=EARLIER), None, False, ("renew", "missing")),
        (AuthState("pending", ALIVE, record=EARLIER), None, False, ("use", "missing")),
        (AuthState("pending", ALIVE), None, False, ("wait", "missing")),
        (AuthState(record=LATER), None, False, ("refuse", "missing")),
        (AuthState(record=EARLIER), None, False, ("wait", "missing")),
        (AuthState("pending", record=LATER), None, False, ("wait", "missing")),
        (AuthState(token=ALIVE, record=LATER, deadline=NOW), None, False, ("refuse", "missing")),
        (AuthState(token=ALIVE, record=EARLIER), ALIVE, False, ("wait", "rejected")),
        (AuthState(token=ALIVE, record=LATER), ALIVE, False, ("refuse", "rejected")),
        (AuthState(token=ALIVE, record=EARLIER), OTHER, False, ("renew", "missing")),
        # It is known.
        (AuthState(token=ALIVE), ALIVE, True, ("wait", "rejected")),
        (AuthState(token=ALIVE, record=EARLIER), ALIVE, True, ("wait", "rejected")),
        (AuthState(token=ALIVE, record=LATER), ALIVE, True, ("refuse", "rejected")),
        (AuthState("pending", ALIVE, record=LATER), ALIVE, True, ("wait", "rejected")),
        (AuthState(token=ALIVE), OTHER, True, ("use", "expiring")),
        (AuthState(), None, True, ("wait", "missing")),
    ],
)
def test_what_is_decided_with_a_storage(state: AuthState, rejected: Token | None, expected: Decision, *, is_read: bool):
    refresher = Reauth(renewed, storage=MemoryStorage())._refresher
    assert refresher.keeper is not None
    refresher.keeper.is_read = is_read
    assert refresher._decide(state, NOW, rejected) == expected


# What comes from outside while a refresh is being started.


def test_guarantee_2_an_interrupt_while_its_thread_starts_does_not_give_up_a_refresh_that_runs(
    monkeypatch: pytest.MonkeyPatch,
):
    start, gate = threading.Thread.start, threading.Event()

    def start_and_interrupt(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "httpx_reauth refresh":
            assert running.wait(60)  # the signal comes as `start` waits for it
            raise Interrupt

    running = threading.Event()
    spent: list[str | None] = []

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


def test_an_interrupt_while_the_thread_of_a_sign_in_starts_leaves_it_to_save_the_token(monkeypatch: pytest.MonkeyPatch):
    class Slow(MemoryStorage):
        def save(self, token: Token) -> None:
            running.set()
            assert gate.wait(60)
            super().save(token)

    start, running, gate = threading.Thread.start, threading.Event(), threading.Event()

    def start_and_interrupt(thread: threading.Thread) -> None:
        start(thread)
        assert running.wait(60)
        raise Interrupt

    auth = Reauth(renewed, storage=Slow())
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start_and_interrupt)
        with pytest.raises(Interrupt):
            auth.sign_in(Token("given"))
    assert len(under_way(auth.store)) == 1
    gate.set()
    auth.close()
    assert auth.store.state.unsaved == ""


def test_a_refresh_that_was_given_up_before_it_began_does_not_begin(monkeypatch: pytest.MonkeyPatch):
    threads: list[threading.Thread] = []

    def interrupt(thread: threading.Thread) -> None:
        threads.append(thread)
        raise Interrupt

    auth = Reauth(renewed)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(Interrupt):
            auth.get_token()
    assert auth.store.state.status == "rejected"
    assert not under_way(auth.store)
    (thread,) = threads
    thread.start()
    thread.join()
    assert auth.store.state.status == "rejected"
    assert auth.get_token().access_token == "new"


def test_an_interrupt_as_a_flight_departs_leaves_nobody_waiting_for_it(monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object) -> None:
        raise Interrupt

    auth = Reauth(renewed)
    with monkeypatch.context() as patched:
        patched.setattr(TokenStore, "dispatch", interrupt)
        with pytest.raises(Interrupt):
            auth.get_token()
    assert not under_way(auth.store)
    assert auth.get_token().access_token == "new"


# What listeners do.


def threads_end() -> None:
    """What a thread ended with is told in the test that it belongs to."""
    for thread in threading.enumerate():
        if thread.name == "httpx_reauth refresh":
            thread.join(60)


def test_a_sign_out_by_a_listener_that_is_told_of_a_refresh_keeps_the_refresh_token_from_being_spent():
    def sign_out(_: AuthState, action: Action) -> None:
        if isinstance(action, RefreshPending):
            auth.sign_out()

    spent: list[Token] = []
    auth = Reauth(lambda token: spent.append(token) or renewed(token), token=Token(refresh_token="r0"))
    auth.store.subscribe(sign_out)
    with pytest.raises(SignInRequired, match="Signed out"):
        auth.get_token()
    assert spent == []
    assert not under_way(auth.store)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("lifetime", [0, 3600])
def test_a_listener_that_ends_the_thread_takes_nothing_from_those_who_wait(lifetime: int):
    def leave(_: AuthState, action: Action) -> None:
        if isinstance(action, RefreshFulfilled):
            raise SystemExit

    asked: list[Token] = []
    auth = Reauth(lambda token: asked.append(token) or Token("new", expires_in=lifetime))
    auth.store.subscribe(leave)
    assert auth.get_token().access_token == "new"
    assert len(asked) == 1
    threads_end()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_listener_that_ends_the_thread_when_a_refresh_fails_leaves_the_failure_to_those_who_wait():
    def leave(_: AuthState, action: Action) -> None:
        if isinstance(action, RefreshRejected):
            raise SystemExit

    def fail(_: Token) -> Token:
        raise RefreshError("down")

    auth = Reauth(fail)
    auth.store.subscribe(leave)
    with pytest.raises(RefreshError, match="down"):
        auth.get_token()
    threads_end()


def test_a_listener_that_wants_another_token_while_the_lock_of_the_storage_is_held_is_told_so_at_once(
    clock: ManualClock,
):
    def renew_again(_: AuthState, action: Action) -> None:
        if isinstance(action, RefreshFulfilled) and not said:
            with pytest.raises(RefreshError) as caught:
                auth.get_token(rejected=action.token)
            said.append(str(caught.value))

    said: list[str] = []
    auth = Reauth(renewed, storage=MemoryStorage(), clock=clock)
    auth.store.subscribe(renew_again)
    assert auth.get_token().access_token == "new"
    auth.close()
    assert len(said) == 1
    assert "holds the storage's lock" in said[0]


def test_a_refresh_may_ask_another_auth_object_with_a_storage_for_its_token():
    service = Reauth(renewed, storage=MemoryStorage())
    user = Reauth(lambda _: Token(f"for {service.get_token().access_token}"), storage=MemoryStorage())
    assert user.get_token().access_token == "for new"


# One store, several objects.


def test_guarantee_10_whoever_has_less_patience_than_the_one_that_leads_waits_no_longer(clock: ManualClock):
    slow = Reauth(renewed, clock=clock, refresh_timeout=30.0)
    quick = Reauth(renewed, store=slow.store, clock=clock, refresh_timeout=2.0)
    flight = departed(slow)
    plan = quick._refresher.token(is_async=False)
    step = next(plan)
    assert (step.flight, step.until) == (flight, clock.monotonic() + 2.0)
    clock.advance(2.0)
    with pytest.raises(RefreshError, match="goes on without it"):
        next(plan)
    assert next(slow._refresher.token(is_async=False)).flight is flight
    flight.end()


def test_a_first_token_seeds_no_store_whose_login_is_under_way(clock: ManualClock):
    first = Reauth(renewed, clock=clock)
    flight = departed(first)
    Reauth(renewed, store=first.store, token=Token("seed"), clock=clock)
    assert (first.store.state.status, first.store.state.token, flight.overtaken) == ("pending", None, False)
    flight.end()
