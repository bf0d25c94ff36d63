"""The store: who is told what, in which order, by whom, whatever the listeners do."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from httpx_reauth import (
    AuthState,
    RefreshError,
    SignedIn,
    SignedOut,
    SignInRequired,
    StorageError,
    Token,
    TokenStore,
)
from httpx_reauth._state import store as _store
from httpx_reauth._state.actions import (
    Action,
    FlightDropped,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    ReplayAccepted,
    ReplayRefused,
    Saved,
    SaveFailed,
)
from httpx_reauth._tokens._refresh.flight import Flight
from httpx_reauth.testing import ManualClock

A, B, C = Token("a"), Token("b"), Token("c")


class Heard(list[tuple[AuthState, Action]]):
    """A listener that keeps what it is told."""

    def __call__(self, state: AuthState, action: Action) -> None:
        self.append((state, action))

    @property
    def tokens(self) -> list[str]:
        return [action.token.access_token if isinstance(action, SignedIn) else "-" for _, action in self]


def flight_of(store: TokenStore) -> Flight:
    return Flight(store, "missing", started=0.0, overdue=30.0, failures=0)


# The state and the answer of dispatch.


def test_a_store_begins_with_the_token_that_it_is_given():
    assert TokenStore().state == AuthState()
    assert TokenStore(A).state == AuthState("idle", A)


def test_dispatch_answers_whether_it_changed_anything():
    store = TokenStore()
    assert store.dispatch(SignedOut()) is False
    assert store.dispatch(SignedIn(A)) is True
    assert store.state.token is A
    assert store.dispatch(SignedIn(A)) is True
    assert store.dispatch(SignedOut()) is True
    assert store.state == AuthState()


def test_a_state_is_a_snapshot_that_later_actions_leave_alone():
    store = TokenStore(A)
    before = store.state
    store.dispatch(SignedIn(B))
    assert before == AuthState("idle", A)
    assert store.state == AuthState("idle", B)


def test_of_all_threads_that_want_to_refresh_one_is_elected():
    store = TokenStore()
    basis, elected, start = store.state, [], threading.Barrier(16)

    def lead() -> None:
        start.wait()
        if store.dispatch(RefreshPending("missing", flight=flight_of(store), basis=basis)):
            elected.append(threading.current_thread())

    threads = [threading.Thread(target=lead) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(elected) == 1
    store.state.flight.end()


@pytest.mark.parametrize("garbage", [SignedOut, SignedIn, None, "auth/signedOut", Token("a")])
def test_dispatching_what_is_no_action_is_an_error_and_leaves_the_store_as_it_was(garbage: Any):
    heard = Heard()
    store = TokenStore(A)
    store.subscribe(heard)
    before = store.state
    with pytest.raises(TypeError, match="is no action"):
        store.dispatch(garbage)
    assert store.state is before
    assert store.dispatch(SignedOut())
    assert heard == [(AuthState(), SignedOut())]


# Who is told what.


def test_listeners_are_told_the_new_state_and_the_action_in_the_order_of_their_subscription():
    told: list[tuple[int, AuthState, Action]] = []
    store = TokenStore()
    for number in (1, 2, 3):
        store.subscribe(lambda state, action, number=number: told.append((number, state, action)))
    action = SignedIn(A)
    store.dispatch(action)
    assert [(number, state) for number, state, _ in told] == [(1, store.state), (2, store.state), (3, store.state)]
    assert all(state is store.state and told_action is action for _, state, told_action in told)


def test_what_changes_nothing_is_told_to_nobody():
    heard = Heard()
    store = TokenStore()
    store.subscribe(heard)
    store.dispatch(SignedOut())
    store.dispatch(RefreshFulfilled(A, "missing", 1.0))
    assert heard == []


def test_the_whole_story_of_a_token_is_told():
    heard = Heard()
    store = TokenStore()
    store.subscribe(heard)
    flight, error, saving = flight_of(store), RefreshError("down"), StorageError("full")
    actions = [
        RefreshPending("missing", flight=flight),
        RefreshRejected(error, "missing", 1.0, flight=flight),
        RefreshPending("missing", flight=flight),
        RefreshFulfilled(A, "missing", 1.0, flight=flight),
        SaveFailed(saving, token=A),
        SignedIn(B),
        SignedOut(),
    ]
    for action in actions:
        assert store.dispatch(action)
    assert [action for _, action in heard] == actions
    assert [(state.status, state.token, state.error) for state, _ in heard] == [
        ("pending", None, None),
        ("rejected", None, error),
        ("pending", None, None),
        ("fulfilled", A, None),
        ("fulfilled", A, None),
        ("idle", B, None),
        ("idle", None, None),
    ]
    flight.end()


def test_what_the_refresh_keeps_to_itself_changes_the_state_and_is_told_to_nobody():
    store = TokenStore(A)
    heard = Heard()
    store.subscribe(heard)
    assert store.dispatch(ReplayRefused(A, 10.0))
    assert store.dispatch(ReplayAccepted())
    assert store.dispatch(SaveFailed(StorageError("full")))
    assert store.dispatch(Saved(A))
    flight = flight_of(store)
    assert store.dispatch(RefreshPending("missing", flight=flight))
    assert store.dispatch(FlightDropped(flight))
    assert [type(action) for _, action in heard] == [SaveFailed, RefreshPending]
    flight.end()


@pytest.mark.parametrize("action", [SignedIn(A), SignedOut()])
def test_a_sign_in_or_a_sign_out_overtakes_the_flight_before_the_listeners_are_told(action: Action):
    store = TokenStore()
    flight = flight_of(store)
    store.dispatch(RefreshPending("missing", flight=flight))
    seen: list[bool] = []
    store.subscribe(lambda state, action: seen.append(flight.overtaken))
    store.dispatch(action)
    assert seen == [True]
    assert not flight.landed
    flight.end()


def test_an_answer_of_its_own_does_not_overtake_a_flight():
    store = TokenStore()
    flight = flight_of(store)
    store.dispatch(RefreshPending("missing", flight=flight))
    store.dispatch(RefreshFulfilled(A, "missing", 1.0, flight=flight))
    assert not flight.overtaken
    store.dispatch(SignedIn(B))
    assert not flight.overtaken
    flight.end()


# Subscriptions.


def test_unsubscribe_is_idempotent():
    one, other = Heard(), Heard()
    store = TokenStore()
    unsubscribe = store.subscribe(one)
    store.subscribe(other)
    store.dispatch(SignedIn(A))
    unsubscribe()
    unsubscribe()
    store.dispatch(SignedIn(B))
    unsubscribe()
    store.dispatch(SignedIn(C))
    assert one.tokens == ["a"]
    assert other.tokens == ["a", "b", "c"]


def test_the_same_listener_subscribed_twice_is_told_twice_and_each_undo_undoes_its_own():
    heard = Heard()
    store = TokenStore()
    first, second = store.subscribe(heard), store.subscribe(heard)
    store.dispatch(SignedIn(A))
    first()
    first()
    store.dispatch(SignedIn(B))
    second()
    store.dispatch(SignedIn(C))
    assert heard.tokens == ["a", "a", "b"]


def test_equal_listeners_are_not_taken_for_each_other():
    one, other = Heard(), Heard()
    assert one == other
    store = TokenStore()
    store.subscribe(one)
    store.subscribe(other)()
    store.dispatch(SignedIn(A))
    assert (one.tokens, other.tokens) == (["a"], [])


def test_the_listeners_are_snapshotted_before_each_dispatch():
    store = TokenStore()
    leaving, late = Heard(), Heard()
    undo: list[Callable[[], None]] = []

    def change(state: AuthState, action: Action) -> None:
        if not late and len(undo) == 1:
            undo.pop()()
            undo.extend([store.subscribe(late), lambda: None])

    store.subscribe(change)
    undo.append(store.subscribe(leaving))
    store.dispatch(SignedIn(A))
    assert (leaving.tokens, late.tokens) == (["a"], [])  # who left is still told, who came is not
    store.dispatch(SignedIn(B))
    assert (leaving.tokens, late.tokens) == (["a"], ["b"])


def test_a_store_keeps_no_unsubscribed_listener_alive():
    heard = Heard()
    store = TokenStore()
    unsubscribe = store.subscribe(heard)
    gone = weakref.ref(heard)
    unsubscribe()
    del heard, unsubscribe
    gc.collect()
    assert gone() is None


# Listeners that call back.


def test_a_listener_that_dispatches_is_heard_after_everybody_was_told_the_first_event():
    store = TokenStore()
    one, other = Heard(), Heard()

    def answer(state: AuthState, action: Action) -> None:
        if action == SignedIn(A):
            assert store.dispatch(SignedIn(B)) is True
            assert store.state.token is B  # at once
            assert (one.tokens, other.tokens) == (["a"], [])  # but told in turn

    store.subscribe(one)
    store.subscribe(answer)
    store.subscribe(other)
    store.dispatch(SignedIn(A))
    assert one.tokens == other.tokens == ["a", "b"]
    assert [state.token for state, _ in other] == [A, B]


def test_a_listener_may_dispatch_a_hundred_times_over_without_any_recursion():
    store = TokenStore()
    heard = Heard()
    depth = [0]

    def again(state: AuthState, action: Action) -> None:
        depth[0] += 1
        assert depth[0] == 1
        if len(heard) < 5_000:
            store.dispatch(SignedIn(A))
        depth[0] -= 1

    store.subscribe(heard)
    store.subscribe(again)
    store.dispatch(SignedIn(A))
    assert len(heard) == 5_000


def test_listeners_are_told_outside_of_the_lock():
    store = TokenStore()
    seen: list[AuthState] = []

    def look(state: AuthState, action: Action) -> None:
        if action == SignedIn(A):
            thread = threading.Thread(target=lambda: (store.dispatch(SignedIn(B)), seen.append(store.state)))
            thread.start()
            thread.join(10.0)
            assert not thread.is_alive()

    store.subscribe(look)
    store.dispatch(SignedIn(A))
    assert seen == [AuthState("idle", B)]


# Listeners that raise.


@pytest.mark.parametrize("error", [ValueError("s3cret"), RecursionError("s3cret"), StopIteration("s3cret")])
def test_a_listener_that_raises_breaks_nothing_and_loses_no_event(error: Exception, caplog: pytest.LogCaptureFixture):
    store = TokenStore()
    one, other = Heard(), Heard()

    def fail(state: AuthState, action: Action) -> None:
        raise error

    store.subscribe(one)
    store.subscribe(fail)
    store.subscribe(other)
    for token in (A, B, C):
        assert store.dispatch(SignedIn(token)) is True
    assert one.tokens == other.tokens == ["a", "b", "c"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3
    assert type(error).__name__ in caplog.text
    assert "test_store.py" in caplog.text  # where it was raised


def test_guarantee_11_what_a_listener_raises_is_logged_without_its_message(caplog: pytest.LogCaptureFixture):
    store = TokenStore()

    def fail(state: AuthState, action: Action) -> None:
        raise ValueError(f"cannot use {action.token.access_token}")

    store.subscribe(fail)
    store.dispatch(SignedIn(Token("s3cret")))
    assert "ValueError" in caplog.text
    assert "s3cret" not in caplog.text
    assert all(record.exc_info is None for record in caplog.records)


def test_an_error_that_hides_where_it_comes_from_is_logged_all_the_same(caplog: pytest.LogCaptureFixture):
    class Hidden(Exception):
        __traceback__ = None

    store = TokenStore()

    def fail(state: AuthState, action: Action) -> None:
        raise Hidden

    store.subscribe(fail)
    assert store.dispatch(SignedIn(A))
    assert "Hidden at an unknown place" in caplog.text


@pytest.mark.parametrize("grave", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_base_exception_is_raised_once_everybody_was_told_everything(grave: type[BaseException]):
    store = TokenStore()
    one, other = Heard(), Heard()
    raised = grave()

    def stop(state: AuthState, action: Action) -> None:
        if action == SignedIn(A):
            store.dispatch(SignedIn(B))
            raise raised

    store.subscribe(one)
    store.subscribe(stop)
    store.subscribe(other)
    with pytest.raises(grave) as caught:
        store.dispatch(SignedIn(A))
    assert caught.value is raised
    assert one.tokens == other.tokens == ["a", "b"]
    assert store.state.token is B
    store.dispatch(SignedIn(C))
    assert one.tokens == other.tokens == ["a", "b", "c"]


@pytest.mark.parametrize("where", ["handler", "filter"])
def test_a_logging_handler_that_raises_does_not_make_the_store_deaf(where: str):
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("disk full")

    def broken(record: logging.LogRecord) -> bool:
        raise OSError("disk full")

    store, heard = TokenStore(), Heard()

    def fail(state: AuthState, action: Action) -> None:
        raise ValueError

    store.subscribe(fail)
    store.subscribe(heard)
    log, handler = logging.getLogger("httpx_reauth"), Broken()
    log.addHandler(handler) if where == "handler" else log.addFilter(broken)
    try:
        store.dispatch(SignedIn(A))
        store.dispatch(SignedIn(B))
    finally:
        log.removeHandler(handler)
        log.removeFilter(broken)
    store.dispatch(SignedIn(C))
    assert heard.tokens == ["a", "b", "c"]


# Many threads.


@pytest.mark.parametrize("calls_back", [False, True])
def test_no_event_is_lost_while_sixteen_threads_dispatch(*, calls_back: bool):
    store, heard = TokenStore(), Heard()
    each, threads = 200, 16
    names = {f"{thread}-{number}" for thread in range(threads) for number in range(each)}
    telling, overlaps = threading.Lock(), []

    def alone(state: AuthState, action: Action) -> None:
        if not telling.acquire(blocking=False):
            overlaps.append(action)
            return
        telling.release()

    def fail(state: AuthState, action: Action) -> None:
        if calls_back:
            store.subscribe(lambda state, action: None)()
        raise ValueError

    store.subscribe(alone)
    store.subscribe(heard)
    store.subscribe(fail)
    start = threading.Barrier(threads)

    def run(thread: int) -> None:
        start.wait()
        for number in range(each):
            store.dispatch(SignedIn(Token(f"{thread}-{number}")))

    logging.disable(logging.ERROR)
    try:
        workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        logging.disable(logging.NOTSET)
    told = heard.tokens
    assert len(told) == each * threads
    assert set(told) == names
    assert not overlaps
    # In the order in which the state changed: each thread's own in its own order, and the last is the state's.
    for thread in range(threads):
        own = [name for name in told if name.startswith(f"{thread}-")]
        assert own == [f"{thread}-{number}" for number in range(each)]
    assert all(state.token is action.token for state, action in heard)
    assert heard[-1][0] is store.state


class Steps:
    """The store's lock; right after its release number `at` something happens."""

    def __init__(self, at: int, happens: Callable[[], object]) -> None:
        self._lock = threading.RLock()
        self._left = at
        self._happens = happens

    @property
    def was_reached(self) -> bool:
        return self._left <= 0

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self._left -= 1
        if self._left == 0:
            self._happens()


def on_another_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_no_event_is_lost_at_whatever_moment_another_thread_dispatches(monkeypatch: pytest.MonkeyPatch):
    at, was_reached = 0, True
    while was_reached:
        at += 1
        store, heard = TokenStore(), Heard()
        store.subscribe(heard)
        lock = Steps(at, lambda store=store: on_another_thread(lambda: store.dispatch(SignedIn(B))))
        with monkeypatch.context() as patch:
            patch.setattr(_store, "LOCK", lock)
            store.dispatch(SignedIn(A))
        was_reached = lock.was_reached
        assert heard.tokens == ["a", "b"][: 1 + was_reached], f"another thread at release number {at}"
        assert heard[-1][0] is store.state
    assert at > 2


def test_a_signal_that_ends_the_telling_loses_no_later_event(monkeypatch: pytest.MonkeyPatch):
    def interrupt() -> None:
        raise KeyboardInterrupt

    for at in (1, 2, 3):  # before it is told by whom, before it is told, and after it
        store, heard = TokenStore(), Heard()
        store.subscribe(heard)
        with monkeypatch.context() as patch:
            patch.setattr(_store, "LOCK", Steps(at, interrupt))
            with pytest.raises(KeyboardInterrupt):
                store.dispatch(SignedIn(A))
        store.dispatch(SignedIn(B))
        assert heard.tokens[-1:] == ["b"], f"a signal at release number {at}"


# Clocks.


def test_the_first_clock_counts_and_stamps_the_token_that_is_there():
    store, clock = TokenStore(Token("a", expires_in=100)), ManualClock(monotonic=50.0, time=1_000.0)
    heard = Heard()
    store.subscribe(heard)
    assert store.state.deadline == float("inf")
    clock.advance(5.0)
    assert store.count_by(clock, None) is clock
    assert store.state.deadline == 155.0
    assert store.state.token == Token("a", expires_in=100, expires_at=1_105.0)
    assert heard == []  # nobody signed in
    assert store.state.status == "idle"


def test_a_second_clock_changes_nothing():
    store = TokenStore(Token("a", expires_in=100))
    first, second = ManualClock(), ManualClock(monotonic=7.0)
    store.count_by(first, None)
    before = store.state
    assert store.count_by(second, None) is first
    assert store.state is before
    store.dispatch(SignedIn(Token("b", expires_in=10)))
    assert store.state.deadline == first.monotonic() + 10


def test_an_empty_store_takes_a_clock_too():
    store, clock = TokenStore(), ManualClock()
    before = store.state
    assert store.count_by(clock, None) is clock
    assert store.state is before


def test_a_sign_in_before_the_first_clock_is_stamped_by_it():
    store, clock = TokenStore(), ManualClock(monotonic=50.0, time=1_000.0)
    store.dispatch(SignedIn(Token("a", expires_in=100)))
    assert store.state.deadline == float("inf")
    store.count_by(clock, None)
    assert store.state.deadline == 150.0
    assert store.state.token == Token("a", expires_in=100, expires_at=1_100.0)


def test_a_sign_in_after_it_is_stamped_at_once_and_told_as_such():
    store, clock, heard = TokenStore(), ManualClock(monotonic=50.0, time=1_000.0), Heard()
    store.count_by(clock, None)
    store.subscribe(heard)
    clock.advance(1.0)
    store.dispatch(SignedIn(Token("a", expires_in=100)))
    assert store.state.deadline == 151.0
    assert [action for _, action in heard] == [SignedIn(Token("a", expires_in=100, expires_at=1_101.0))]


def test_a_sign_out_before_the_first_clock_leaves_nothing_to_stamp():
    store = TokenStore(Token("a", expires_in=100))
    store.dispatch(SignedOut())
    store.count_by(ManualClock(), None)
    assert store.state == AuthState()


def test_a_token_seeds_an_empty_store_and_is_told_to_nobody():
    store, heard = TokenStore(), Heard()
    store.subscribe(heard)
    store.count_by(ManualClock(monotonic=50.0, time=1_000.0), Token("a", expires_in=100))
    assert store.state == AuthState("idle", Token("a", expires_in=100, expires_at=1_100.0))
    assert store.state.deadline == 150.0
    assert store.state.unsaved == ""  # what a storage holds wins over it
    assert heard == []


def test_a_token_does_not_replace_the_one_that_a_store_has():
    store = TokenStore(A)
    store.count_by(ManualClock(), B)
    assert store.state.token == A


def test_a_token_that_seeds_a_store_with_a_clock_is_stamped_as_well():
    store = TokenStore()
    store.count_by(ManualClock(monotonic=50.0, time=1_000.0), None)
    store.count_by(ManualClock(), Token("a", expires_in=100))
    assert store.state == AuthState("idle", Token("a", expires_in=100, expires_at=1_100.0))
    assert store.state.deadline == 150.0


def test_a_token_that_seeds_a_store_is_a_new_beginning():
    store = TokenStore()
    store.count_by(ManualClock(), None)
    flight = flight_of(store)
    store.dispatch(RefreshPending("missing", flight=flight))
    dead = SignInRequired("dead")
    store.dispatch(RefreshRejected(dead, "missing", 1.0, flight=flight, retry_at=float("inf")))
    flight.end()
    store.count_by(ManualClock(), A)
    assert store.state == AuthState("idle", A)
    assert store.state.record.failures == 0
    assert store.state.record.retry_at == float("-inf")


def test_a_sign_in_is_still_to_be_saved_and_a_first_token_is_not():
    store = TokenStore(A)
    store.count_by(ManualClock(), None)
    assert store.state.unsaved == ""
    store.dispatch(SignedIn(B))
    assert store.state.unsaved == "signed in"
    other = TokenStore()
    other.dispatch(SignedIn(B))
    other.count_by(ManualClock(), None)
    assert other.state.unsaved == "signed in"


@pytest.mark.parametrize(
    ("token", "deadline"),
    [
        (Token("a"), float("inf")),
        (Token("a", expires_at=1_010.0), 60.0),
        (Token("a", expires_in=20, expires_at=1_010.0), 60.0),  # the earlier one
        (Token("a", expires_in=5, expires_at=1_010.0), 55.0),
        (Token("a", expires_in=0), 50.0),
        (Token("a", expires_in=-5), 45.0),
    ],
)
def test_a_token_given_by_hand_ends_when_it_says(token: Token, deadline: float):
    store = TokenStore(token)
    store.count_by(ManualClock(monotonic=50.0, time=1_000.0), None)
    assert store.state.deadline == deadline
    given = store.state.token
    assert given is not None
    assert given.expires_in == token.expires_in
    if token.expires_at is not None:
        assert given.expires_at == token.expires_at


def test_guarantee_12_a_wall_clock_that_jumps_later_does_not_move_the_deadline():
    clock = ManualClock(monotonic=50.0, time=1_000.0)
    store = TokenStore(Token("a", expires_at=1_100.0))
    store.count_by(clock, None)
    clock.jump(3600)
    assert store.state.deadline == 150.0


# What it says of itself.


def test_guarantee_11_a_store_shows_no_secret_and_refuses_to_be_pickled():
    store = TokenStore(Token("s3cret", refresh_token="s3cret", extra={"id_token": "s3cret"}))
    assert "s3cret" not in repr(store)
    assert repr(store).startswith("TokenStore(AuthState(status='idle', token=Token('***'")
    with pytest.raises(TypeError, match="TokenStore holds secrets"):
        pickle.dumps(store)


def test_a_store_can_be_weakly_referenced_and_has_no_room_for_typing_errors():
    store = TokenStore()
    assert weakref.ref(store)() is store
    with pytest.raises(AttributeError):
        store.stat = None


# Fork.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_after_a_fork_the_childs_store_tells_its_own_listeners_though_the_parent_was_telling():
    store, told = TokenStore(), Heard()
    in_the_middle, go_on = threading.Event(), threading.Event()

    def hold(state: AuthState, action: Action) -> None:
        if action == SignedIn(A):
            in_the_middle.set()
            go_on.wait()

    store.subscribe(hold)
    store.subscribe(told)
    teller = threading.Thread(target=store.dispatch, args=(SignedIn(A),))
    teller.start()
    in_the_middle.wait()
    store.dispatch(SignedIn(B))  # stays with the parent's teller
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.dispatch(SignedIn(C))
            code = 0 if told.tokens == ["c"] and store.state.token is C else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    go_on.set()
    teller.join()
    assert os.waitstatus_to_exitcode(status) == 0
    assert told.tokens == ["a", "b"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_fork_out_of_a_listener_leaves_both_processes_a_store_that_works():
    store, told = TokenStore(), Heard()
    children: list[int] = []

    def fork(state: AuthState, action: Action) -> None:
        if action == SignedIn(A):
            store.dispatch(SignedIn(B))  # to be told after this; in the parent, and only there
            children.append(os.fork())

    store.subscribe(fork)
    store.subscribe(told)
    store.dispatch(SignedIn(A))
    if children == [0]:
        code = 1
        try:
            assert told.tokens == ["a"]
            assert store.state.token is B
            store.dispatch(SignedIn(C))
            code = 0 if told.tokens == ["a", "c"] else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(children[0], 0)
    assert os.waitstatus_to_exitcode(status) == 0
    store.dispatch(SignedIn(C))
    assert told.tokens == ["a", "b", "c"]


def test_a_forked_childs_hook_forgets_what_was_to_be_told_in_the_parent():
    store, told = TokenStore(), list[str]()

    def listener(state: AuthState, _: Action) -> None:
        told.append(state.token.access_token if state.token else "")
        if told == ["a"]:
            store.dispatch(SignedIn(Token("parent")))  # waits in line
            _store.LOCK.acquire()
            _store._after_fork_in_child()
            store.dispatch(SignedIn(Token("child")))  # told at once: nobody else is telling
            assert told == ["a", "child"]

    store.subscribe(listener)
    store.dispatch(SignedIn(Token("a")))
    assert told == ["a", "child"]


def test_a_token_given_by_hand_has_its_share_of_the_jitter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_store, "choice", lambda shares: shares[-1])
    store = TokenStore()
    store.count_by(ManualClock())
    store.dispatch(SignedIn(Token("a")))
    assert store.state.spread == 1.0


def test_a_listener_that_raises_is_logged_in_these_words(caplog: pytest.LogCaptureFixture):
    store = TokenStore()

    def fail(_: AuthState, __: Action) -> None:
        raise ValueError

    store.subscribe(fail)
    store.dispatch(SignedIn(Token("a")))
    (record,) = caplog.records
    assert record.msg == "A store listener raised %s at %s; it is told the next event."


# What comes in on top of a dispatch.


def test_a_finalizer_that_dispatches_while_a_new_state_is_made_is_not_overwritten(monkeypatch: pytest.MonkeyPatch):
    store, heard = TokenStore(A), Heard()
    store.subscribe(heard)
    reduce, came = _store.reduce, []

    def interrupted(state: AuthState, action: Any) -> AuthState:
        reduced = reduce(state, action)
        if not came:
            came.append(action)
            assert store.dispatch(SignedOut())
        return reduced

    monkeypatch.setattr(_store, "reduce", interrupted)
    assert store.dispatch(RefreshPending("expired", flight=flight_of(store)))
    assert (store.state.status, store.state.token) == ("pending", None)
    assert [type(action) for _, action in heard] == [SignedOut, RefreshPending]


def test_a_signal_between_a_change_and_its_telling_silences_nobody(monkeypatch: pytest.MonkeyPatch):
    store, heard = TokenStore(A), Heard()
    store.subscribe(heard)
    with monkeypatch.context() as patched:
        patched.setattr(TokenStore, "_tell", interrupt)
        with pytest.raises(Interrupt):
            store.dispatch(SignedIn(B))
    assert store.dispatch(SignedIn(C))
    assert heard.tokens == ["b", "c"]


def test_a_signal_before_the_telling_has_begun_leaves_it_to_the_next(monkeypatch: pytest.MonkeyPatch):
    store, heard = TokenStore(A), Heard()
    store.subscribe(heard)

    class Broken:
        """A lock that a signal comes in on, the second time that it is taken."""

        taken = 0

        def __enter__(self) -> None:
            self.taken += 1
            if self.taken == 2:
                raise Interrupt

        def __exit__(self, *_: object) -> None: ...

    with monkeypatch.context() as patched:
        patched.setattr(_store, "LOCK", Broken())
        with pytest.raises(Interrupt):
            store.dispatch(SignedIn(B))
    assert heard == []
    store.dispatch(SignedIn(C))
    assert heard.tokens == ["b", "c"]


class Interrupt(BaseException):
    """A signal."""


def interrupt(*_: object) -> None:
    raise Interrupt
