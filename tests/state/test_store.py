"""Tests of the store: which listeners get which actions, in which order and on which thread."""

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
from seams import apply, begin_refresh, bring, fail, state_of, use_clock

from httpx_reauth import (
    AuthState,
    Reauth,
    RefreshError,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    SaveFailed,
    SignedIn,
    SignedOut,
    SignInRequired,
    StorageError,
    Token,
    TokenStore,
)
from httpx_reauth._state import store as _store
from httpx_reauth._state.actions import Action, FlightDropped, ReplayAccepted, ReplayRefused, Saved
from httpx_reauth.storage import FileStorage, MemoryStorage
from httpx_reauth.testing import ManualClock

A, B, C = Token("a"), Token("b"), Token("c")


class Heard(list[tuple[AuthState, Action]]):
    """A listener that keeps the states and actions it gets."""

    def __call__(self, state: AuthState, action: Action) -> None:
        self.append((state, action))

    @property
    def tokens(self) -> list[str]:
        return [action.token.access_token if isinstance(action, SignedIn) else "-" for _, action in self]


def deadline_of(store: TokenStore) -> float:
    current = state_of(store).current
    assert current is not None
    return current.deadline


# The state, and the result of dispatch.


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


def test_a_state_is_a_snapshot_that_later_actions_do_not_change():
    store = TokenStore(A)
    before = store.state
    store.dispatch(SignedIn(B))
    assert before == AuthState("idle", A)
    assert store.state == AuthState("idle", B)


def test_only_one_of_the_threads_that_want_to_refresh_may_start_it():
    store = TokenStore()
    expected, elected, start = state_of(store), [], threading.Barrier(16)

    def begin(flight: object) -> None:
        start.wait()
        if apply(store, RefreshPending("missing", flight=flight, expected=expected)):
            elected.append(flight)

    threads = [threading.Thread(target=begin, args=(object(),)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert elected == [state_of(store).flight]


REFUSED = [
    RefreshPending("missing"),
    RefreshFulfilled(A, "missing", 1.0),
    RefreshRejected(RefreshError("down"), "missing", 1.0),
    SaveFailed(StorageError("full")),
    FlightDropped(None),
    Saved(None),
    SignedOut,
    SignedIn,
    None,
    "auth/signedOut",
    Token("a"),
]


@pytest.mark.parametrize("action", REFUSED, ids=lambda action: getattr(action, "__name__", type(action).__name__))
def test_users_dispatch_a_sign_in_or_a_sign_out_and_nothing_else(action: Any):
    heard = Heard()
    store = TokenStore(A)
    store.subscribe(heard)
    before = state_of(store)
    with pytest.raises(TypeError, match=r"Dispatch SignedIn\(token\) or SignedOut\(\)"):
        store.dispatch(action)
    assert state_of(store) is before
    assert store.dispatch(SignedOut())
    assert heard == [(AuthState(), SignedOut())]


NO_TOKENS = [{"access_token": "s3cret"}, "s3cret", Token, ("s3cret",)]


@pytest.mark.parametrize("given", [*NO_TOKENS, None], ids=lambda given: type(given).__name__)
def test_something_that_is_not_a_token_cannot_be_signed_in(given: Any):
    store = TokenStore(A)
    with pytest.raises(TypeError, match="must be a Token") as caught:
        store.dispatch(SignedIn(given))
    assert "s3cret" not in str(caught.value)
    assert store.state.token is A


@pytest.mark.parametrize("given", NO_TOKENS, ids=lambda given: type(given).__name__)
def test_a_store_of_something_that_is_not_a_token_is_an_error_that_says_what_to_write(given: Any):
    with pytest.raises(TypeError, match=r"Write TokenStore\(Token") as caught:
        TokenStore(given)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("storage", [FileStorage, MemoryStorage, "token.json", {}], ids=str)
def test_a_store_with_something_that_is_not_a_storage_is_an_error_that_says_what_to_write(storage: Any):
    with pytest.raises(TypeError, match="storage must be a Storage"):
        TokenStore(storage=storage)


# Actions that listeners get, and actions that they do not get.


def test_listeners_get_the_new_state_and_the_action_in_the_order_of_their_subscription():
    told: list[tuple[int, AuthState, Action]] = []
    store = TokenStore()
    for number in (1, 2, 3):
        store.subscribe(lambda state, action, number=number: told.append((number, state, action)))
    action = SignedIn(A)
    store.dispatch(action)
    assert [(number, state) for number, state, _ in told] == [(1, store.state), (2, store.state), (3, store.state)]
    assert all(told_action is action for *_, told_action in told)


def test_listeners_do_not_get_an_action_that_changes_nothing():
    heard = Heard()
    store = TokenStore()
    store.subscribe(heard)
    store.dispatch(SignedOut())
    apply(store, RefreshFulfilled(A, "missing", 1.0))
    assert heard == []


def test_listeners_get_every_action_from_the_first_refresh_to_the_sign_out():
    heard = Heard()
    store = TokenStore(storage=MemoryStorage())
    store.subscribe(heard)
    down, full = RefreshError("down"), StorageError("full")
    fail(begin_refresh(store), down)
    bring(begin_refresh(store), A, is_saved=False)
    apply(store, SaveFailed(full, token=A))
    store.dispatch(SignedIn(B))
    store.dispatch(SignedOut())
    pending, renewed = RefreshPending("missing"), RefreshFulfilled(A, "missing", 0.0)
    assert heard == [
        (AuthState("pending"), pending),
        (AuthState("rejected", None, down), RefreshRejected(down, "missing", 0.0)),
        (AuthState("pending"), pending),
        (AuthState("fulfilled", A), renewed),
        (AuthState("fulfilled", A), SaveFailed(full)),
        (AuthState("idle", B), SignedIn(B)),
        (AuthState("idle"), SignedOut()),
    ]


def test_internal_actions_change_the_state_and_listeners_do_not_get_them():
    store, heard, place = TokenStore(A), Heard(), ("https://api.test", "/")
    store.subscribe(heard)
    flight = begin_refresh(store)
    for action in (ReplayRefused(place, session=0, at=10.0), ReplayAccepted(place), FlightDropped(flight)):
        assert apply(store, action)
    assert [type(action) for _, action in heard] == [RefreshPending]


@pytest.mark.parametrize("action", [SignedIn(A), SignedOut()])
def test_a_sign_in_or_a_sign_out_supersedes_the_refresh_before_the_listeners_get_it(action: Action):
    store = TokenStore()
    flight = begin_refresh(store)
    seen: list[tuple[bool, bool]] = []
    store.subscribe(lambda state, action: seen.append((flight.worker.superseded, flight.settled.is_set)))
    store.dispatch(action)
    assert seen == [(True, True)]
    assert flight.outcome is None


def test_the_answer_of_a_refresh_does_not_supersede_it_and_nor_does_what_comes_later():
    store = TokenStore()
    flight = begin_refresh(store)
    bring(flight, A)
    store.dispatch(SignedIn(B))
    assert not flight.worker.superseded


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


def test_a_listener_subscribed_twice_is_called_twice_and_each_unsubscribe_ends_its_own_subscription():
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
    # a listener that has just left still gets it, a new one does not
    assert (leaving.tokens, late.tokens) == (["a"], [])
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


# Listeners that call the store.


def test_an_action_that_a_listener_dispatches_follows_after_all_listeners_got_the_first_one():
    store = TokenStore()
    one, other = Heard(), Heard()

    def answer(state: AuthState, action: Action) -> None:
        if action == SignedIn(A):
            assert store.dispatch(SignedIn(B)) is True
            assert store.state.token is B  # the state changes immediately
            assert (one.tokens, other.tokens) == (["a"], [])  # the listeners get the actions one after the other

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


def test_listeners_are_called_outside_of_the_lock():
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
    assert "test_store.py" in caplog.text  # the log names the place where it was raised


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
def test_a_base_exception_is_raised_after_all_listeners_got_all_actions(grave: type[BaseException]):
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
def test_a_logging_handler_that_raises_does_not_stop_the_calls_of_listeners(where: str):
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
    # In the order in which the state changed: each thread's actions keep their order, and the last one is the state's.
    for thread in range(threads):
        own = [name for name in told if name.startswith(f"{thread}-")]
        assert own == [f"{thread}-{number}" for number in range(each)]
    assert all(state.token is action.token for state, action in heard)
    assert heard[-1][0] == store.state


class Steps:
    """A lock for the store. It calls `happens` right after its release number `at`."""

    def __init__(self, at: int, happens: Callable[[], object]) -> None:
        self._lock = threading.RLock()
        self._left = at
        self._happens = happens

    @property
    def was_reached(self) -> bool:
        return self._left <= 0

    def _is_owned(self) -> bool:
        return self._lock._is_owned()

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
        assert heard[-1][0] == store.state
    assert at > 2


def test_a_signal_that_interrupts_the_calls_of_listeners_loses_no_later_action(monkeypatch: pytest.MonkeyPatch):
    def interrupt() -> None:
        raise KeyboardInterrupt

    for at in (1, 2, 3):  # before it is known which thread calls the listeners, before it calls them, and after that
        store, heard = TokenStore(), Heard()
        store.subscribe(heard)
        with monkeypatch.context() as patch:
            patch.setattr(_store, "LOCK", Steps(at, interrupt))
            with pytest.raises(KeyboardInterrupt):
                store.dispatch(SignedIn(A))
        store.dispatch(SignedIn(B))
        assert heard.tokens[-1:] == ["b"], f"a signal at release number {at}"


# Clocks.


def clock_at(monotonic: float = 50.0, time: float = 1_000.0) -> ManualClock:
    return ManualClock(monotonic, time)


def test_the_first_clock_counts_and_the_times_of_the_token_that_is_there_are_read_by_it():
    store, heard, clock = TokenStore(Token("a", expires_in=100)), Heard(), clock_at()
    store.subscribe(heard)
    assert deadline_of(store) == float("inf")
    clock.advance(5.0)
    assert use_clock(store, clock) is clock
    assert deadline_of(store) == 155.0
    assert store.state == AuthState("idle", Token("a", expires_in=100, expires_at=1_105.0))
    assert heard == []  # nobody has signed in


def test_a_second_clock_changes_nothing():
    store, first = TokenStore(Token("a", expires_in=100)), clock_at()
    use_clock(store, first)
    before = state_of(store)
    assert use_clock(store, ManualClock(monotonic=7.0)) is first
    assert state_of(store) is before
    store.dispatch(SignedIn(Token("b", expires_in=10)))
    assert deadline_of(store) == 60.0


def test_a_sign_in_before_the_first_clock_has_its_times_read_by_it_and_stays_a_sign_in():
    store = TokenStore(storage=MemoryStorage())
    store.dispatch(SignedIn(Token("a", expires_in=100)))
    assert deadline_of(store) == float("inf")
    use_clock(store, clock_at())
    assert deadline_of(store) == 150.0
    assert store.state.token == Token("a", expires_in=100, expires_at=1_100.0)
    assert state_of(store).pending_write == "signed in"


def test_a_sign_in_after_the_first_clock_has_its_times_read_immediately_and_is_dispatched_as_a_sign_in():
    store, clock, heard = TokenStore(), clock_at(), Heard()
    use_clock(store, clock)
    store.subscribe(heard)
    clock.advance(1.0)
    store.dispatch(SignedIn(Token("a", expires_in=100)))
    assert deadline_of(store) == 151.0
    assert [action for _, action in heard] == [SignedIn(Token("a", expires_in=100, expires_at=1_101.0))]


def test_a_sign_out_before_the_first_clock_leaves_no_times_to_read():
    store = TokenStore(Token("a", expires_in=100))
    store.dispatch(SignedOut())
    use_clock(store, clock_at())
    assert store.state == AuthState()


def test_a_first_token_seeds_an_empty_store_and_calls_no_listener():
    store, heard = TokenStore(storage=MemoryStorage()), Heard()
    store.subscribe(heard)
    use_clock(store, clock_at(), Token("a", expires_in=100))
    assert store.state == AuthState("idle", Token("a", expires_in=100, expires_at=1_100.0))
    assert deadline_of(store) == 150.0
    assert state_of(store).pending_write == ""  # the token of the storage wins over a token that was given
    assert heard == []


def test_a_first_token_does_not_replace_the_one_that_a_store_has():
    store = TokenStore(A)
    use_clock(store, clock_at(), B)
    assert store.state.token == A


def test_a_first_token_is_counted_by_the_clock_that_the_store_has():
    store = TokenStore()
    use_clock(store, clock_at())
    use_clock(store, ManualClock(), Token("a", expires_in=100))
    assert deadline_of(store) == 150.0


def test_a_first_token_that_seeds_a_store_is_a_new_beginning():
    store = TokenStore()
    use_clock(store, clock_at())
    fail(begin_refresh(store), SignInRequired("dead"))
    use_clock(store, ManualClock(), A)
    assert store.state == AuthState("idle", A)
    assert state_of(store).refreshes.until == float("-inf")


@pytest.mark.parametrize(
    ("token", "deadline"),
    [
        (Token("a"), float("inf")),
        (Token("a", expires_at=1_010.0), 60.0),
        (Token("a", expires_in=20, expires_at=1_010.0), 60.0),  # the earlier of the two ends
        (Token("a", expires_in=5, expires_at=1_010.0), 55.0),
        (Token("a", expires_in=0), 50.0),
        (Token("a", expires_in=-5), 45.0),
    ],
)
def test_a_token_given_by_hand_ends_when_it_says(token: Token, deadline: float):
    store = TokenStore(token)
    use_clock(store, clock_at())
    assert deadline_of(store) == deadline
    given = store.state.token
    assert given is not None
    assert given.expires_in == token.expires_in
    if token.expires_at is not None:
        assert given.expires_at == token.expires_at


def test_guarantee_12_a_wall_clock_that_jumps_later_does_not_move_the_deadline():
    clock, store = clock_at(), TokenStore(Token("a", expires_at=1_100.0))
    use_clock(store, clock)
    clock.jump(3600)
    assert deadline_of(store) == 150.0


def test_a_token_given_by_hand_has_its_share_of_the_jitter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_store, "choice", max)
    store = TokenStore()
    use_clock(store, clock_at())
    store.dispatch(SignedIn(Token("a")))
    current = state_of(store).current
    assert current is not None
    assert current.jitter == 1.0


# The storage: one for each store.


def test_a_second_storage_is_an_error_unless_it_is_the_same_place(tmp_path: Any):
    store, other = TokenStore(), tmp_path / "other.json"
    Reauth(lambda token: token, store=store, storage=FileStorage(tmp_path / "token.json"))
    Reauth(lambda token: token, store=store, storage=FileStorage(tmp_path / "token.json"))
    for storage in (FileStorage(other), MemoryStorage()):
        with pytest.raises(ValueError, match="FileStorage"):
            Reauth(lambda token: token, store=store, storage=storage)
    with pytest.raises(ValueError, match="MemoryStorage"):
        Reauth(lambda token: token, store=TokenStore(storage=MemoryStorage()), storage=MemoryStorage())


# Its repr, and pickles.


def test_guarantee_11_a_store_shows_no_secret_and_refuses_to_be_pickled():
    store = TokenStore(Token("s3cret", refresh_token="s3cret", extra={"id_token": "s3cret"}))
    assert "s3cret" not in repr(store)
    assert repr(store).startswith("TokenStore(AuthState(status='idle', token=Token('***'")
    with pytest.raises(TypeError, match="TokenStore holds secrets"):
        pickle.dumps(store)


def test_a_store_can_be_weakly_referenced_and_takes_no_unknown_attributes():
    store = TokenStore()
    assert weakref.ref(store)() is store
    with pytest.raises(AttributeError):
        store.stat = None


# Fork.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_after_a_fork_the_childs_store_calls_its_listeners_though_the_parent_was_calling_its_own():
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
    store.dispatch(SignedIn(B))  # the thread that calls listeners is in the parent
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
def test_a_fork_in_a_listener_leaves_both_processes_a_store_that_works():
    store, told = TokenStore(), Heard()
    children: list[int] = []

    def fork(state: AuthState, action: Action) -> None:
        if action == SignedIn(A):
            store.dispatch(SignedIn(B))  # the listeners get it after this one, and only in the parent
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


def test_a_forked_child_drops_the_actions_that_listeners_of_the_parent_still_had_to_get():
    store, told = TokenStore(), list[str]()

    def listener(state: AuthState, _: Action) -> None:
        told.append(state.token.access_token if state.token else "")
        if told == ["a"]:
            store.dispatch(SignedIn(Token("parent")))  # it waits until the listener returns
            _store.LOCK.acquire()
            _store._after_fork_in_child()
            # its listeners get it immediately, because no other thread calls them
            store.dispatch(SignedIn(Token("child")))
            assert told == ["a", "child"]

    store.subscribe(listener)
    store.dispatch(SignedIn(Token("a")))
    assert told == ["a", "child"]


# Calls that interrupt a dispatch.


def test_a_finalizer_that_dispatches_while_a_new_state_is_made_is_not_overwritten(monkeypatch: pytest.MonkeyPatch):
    store, heard = TokenStore(A), Heard()
    store.subscribe(heard)
    reduce, came = _store.reduce, []

    def interrupted(state: Any, action: Any) -> Any:
        reduced = reduce(state, action)
        if not came:
            came.append(action)
            assert store.dispatch(SignedOut())
        return reduced

    monkeypatch.setattr(_store, "reduce", interrupted)
    assert apply(store, RefreshPending("expired", flight=object()))
    assert store.state == AuthState("pending", None)
    assert [type(action) for _, action in heard] == [SignedOut, RefreshPending]


def test_listeners_also_get_what_a_finalizer_changes_in_another_store_while_one_is_being_changed(
    monkeypatch: pytest.MonkeyPatch,
):
    store, other, heard, reduce, came = TokenStore(A), TokenStore(A), Heard(), _store.reduce, []
    other.subscribe(heard)

    def interrupted(state: Any, action: Any) -> Any:
        if not came:
            came.append(action)
            assert other.dispatch(SignedIn(B))
            assert heard == []  # this thread holds the lock of all stores: a listener that blocks would stop them all
        return reduce(state, action)

    monkeypatch.setattr(_store, "reduce", interrupted)
    store.dispatch(SignedOut())
    assert heard.tokens == ["b"]


def test_a_first_token_is_not_put_over_one_that_a_finalizer_has_signed_in_meanwhile(monkeypatch: pytest.MonkeyPatch):
    store, reduce, came = TokenStore(A), _store.reduce, []

    def interrupted(state: Any, action: Any) -> Any:
        reduced = reduce(state, action)
        if not came:
            came.append(action)
            assert store.dispatch(SignedIn(B))
        return reduced

    monkeypatch.setattr(_store, "reduce", interrupted)
    use_clock(store, clock_at())
    assert store.state.token == B
