"""The store: it holds the state, applies actions to the state, and calls the listeners.

1. One lock guards the state of all stores. A thread holds the lock only for a few steps at each change: never while
   user code runs, and never on the hot path. So more locks would gain nothing, and a `fork` takes only this lock.
2. The lock is reentrant: a finalizer or a signal handler may run on a thread that already holds the lock. Its change
   must not be lost. So each change is computed again if the state has changed meanwhile.
3. The change of the state (`_apply`) and the call of the listeners (`_notify`) are two steps. Between the two, a
   refresh releases the storage's lock, since a listener may need that lock.
4. Listeners get the changes one at a time and in order. One thread calls them. If another thread or a listener changes
   the state meanwhile, that first thread calls the listeners for this change, too. A change goes to the listeners that
   were subscribed when it was made.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from random import choice
from typing import TYPE_CHECKING, Any, TypeAlias

from httpx_reauth._clock import SYSTEM_CLOCK, Clock, moment
from httpx_reauth._errors import in_ascii
from httpx_reauth._state.actions import (
    PUBLIC_ACTIONS,
    Action,
    Internal,
    SignedIn,
    SignedOut,
    StorageGiven,
    TokenGiven,
)
from httpx_reauth._state.arguments import check_function, check_token, lost_awaitable
from httpx_reauth._state.policy import deadline_of
from httpx_reauth._state.reduce import reduce
from httpx_reauth._state.state import AuthState, Current, State
from httpx_reauth._token import Token, Unpicklable, end_of
from httpx_reauth.storage.base import Storage, check_storage

if TYPE_CHECKING:
    from httpx_reauth._state.membership import Membership

    Event: TypeAlias = tuple[list["Listener"], AuthState, Action]

Listener: TypeAlias = Callable[[AuthState, Action], object]

_log = logging.getLogger("httpx_reauth")

LOCK = threading.RLock()

# The stores whose listeners are being called, and the thread that calls them. The fork hook needs them.
_notifying: dict[TokenStore, int] = {}

_notified_later: list[TokenStore] = []  # stores that a finalizer or signal handler changed on a thread with the lock

_JITTERS = tuple(step / 63 for step in range(64))  # shared objects: there may be 100,000 tokens


class _Listeners(dict[object, Listener]):
    """The listeners of a store, by subscription, and the events that they have not received yet."""

    __slots__ = ("events",)

    def __init__(self) -> None:
        super().__init__()
        self.events: deque[Event] = deque()


class TokenStore(Unpicklable):
    """An observable holder of the token's state; one store may serve several `Reauth` objects.

    Thread-safe. A store uses the clock of the first `Reauth` that gets the store.

    Args:
        token: the first token, or None. If it has `expires_in` alone, its lifetime counts from the moment at which the
            first `Reauth` gets the store.
        storage: saves the token beyond the end of the process, for every `Reauth` on this store. A stored token wins
            over `token`.

    Raises:
        TypeError: `token` is not a token, or `storage` is not a storage.

    Example:
        >>> store = TokenStore()
        >>> unsubscribe = store.subscribe(lambda state, action: print(state.status))
        >>> store.dispatch(SignedIn(Token("secret")))
        idle
        True
        >>> unsubscribe()
    """

    __slots__ = ("__weakref__", "_clock", "_listeners", "_membership", "_name", "_state", "_storage")

    def __init__(self, token: Token | None = None, storage: Storage | None = None) -> None:
        self._clock: Clock | None = None
        self._name: str | None = None  # for log lines; the first name that a `Reauth` gives
        self._storage: Storage | None = None
        self._membership: Membership | None = None  # of the pool that has made the `Reauth` of this store
        self._listeners: _Listeners | None = None  # most stores have none
        if token is not None:
            check_token("token", token, "TokenStore(...)")
        self._state = State() if token is None else State(Current(token))
        if storage is not None:
            check_storage(storage)
            self._use_storage(storage)

    @property
    def state(self) -> AuthState:
        """The current state: an immutable snapshot."""
        return self._state.as_public()

    def dispatch(self, action: Action) -> bool:
        """Apply a `SignedIn` or a `SignedOut`, call the listeners if the state changed, and return whether it changed.

        With a storage, the next request writes the change there. `Reauth.sign_in` and `sign_out` write it at once.

        Raises:
            TypeError: `action` is not an action, or is an action that only this library dispatches, or the `SignedIn`
                has no token.
        """
        if not isinstance(action, (SignedIn, SignedOut)):
            raise TypeError(f"{_name(action)} cannot be dispatched. Dispatch SignedIn(token) or SignedOut().")
        if isinstance(action, SignedIn):
            check_token("The token of SignedIn", action.token, "SignedIn(...)")
        is_changed = self._apply(action)
        self._notify()
        return is_changed

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(state, action)` after each change of the state; return the function that ends this.

        The thread that made the change calls the listener. If another thread is calling the listeners at that moment,
        that other thread does it. The list of listeners is copied at each change: a listener that unsubscribes just
        after a change still gets the change. An exception of a listener is logged and not raised.

        Raises:
            TypeError: `listener` is not a function, or is an async one, which nobody would await.
        """
        check_function("listener", listener, "listener(state, action)")
        # A listener may be subscribed twice, or be equal to another listener. So each subscription has a separate key.
        # One operation on a dict adds or removes the key, so no finalizer or signal handler can run in the middle.
        subscription = object()
        listeners = _Listeners()
        with LOCK:
            if self._listeners is None:
                self._listeners = listeners  # made above: no finalizer can run between the check and this line
            listeners = self._listeners
        listeners[subscription] = listener

        def unsubscribe() -> None:
            listeners.pop(subscription, None)

        return unsubscribe

    def _apply(self, action: Action | Internal) -> bool:
        """Apply `action` to the state, without calling the listeners; return whether the state changed."""
        if isinstance(action, SignedIn) and self._clock is not None:
            action = SignedIn(**_stamped(action.token, self._clock))
        with LOCK:
            before = self._state
            state = reduce(before, action)
            while self._state is not before:  # a finalizer or a signal handler has changed the state meanwhile
                before = self._state
                state = reduce(before, action)
            if state is before:
                return False
            self._state = state
            if self._listeners and isinstance(action, PUBLIC_ACTIONS):
                self._listeners.events.append((list(self._listeners.values()), state.as_public(), action))
            if self._membership is not None:
                self._membership.learn(state, action)
        if isinstance(action, (SignedIn, SignedOut)) and before.flight is not None:
            flight: Any = before.flight
            flight.supersede()
        if self._membership is not None and isinstance(action, PUBLIC_ACTIONS):
            self._membership.come_back()
        return True

    def _notify(self) -> None:
        """Call the listeners with the events that they have not received yet.

        Listeners are never called under the lock, since a listener may block. If this thread holds the lock (this is a
        finalizer or a signal handler), the listeners are called after the next change of any store.
        """
        if is_locked_here():
            _notified_later.append(self)
            return
        if self._listeners is not None and self._listeners.events:
            self._tell(self._listeners.events)
        while _notified_later:
            _notified_later.pop()._notify()

    def _tell(self, events: deque[Event]) -> None:
        """Call the listeners, unless a thread is doing so: another thread, or this one, if a listener calls back."""
        fatal: BaseException | None = None
        is_mine = False
        try:
            while True:
                with LOCK:
                    if not is_mine and self in _notifying:
                        return
                    is_mine = True  # set first, so that a signal after the next line cannot leave the entry behind
                    _notifying[self] = threading.get_ident()
                    if not events:
                        _notifying.pop(self, None)
                        break
                    listeners, state, action = events.popleft()
                fatal = _call_each(listeners, state, action) or fatal
        except BaseException:  # a signal between two events: the next change tells the events that are left
            if is_mine:
                with LOCK:
                    _notifying.pop(self, None)
            raise
        if fatal is not None:
            raise fatal

    def _use_clock(self, clock: Clock, token: Token | None = None) -> Clock:
        """Use `clock`, unless the store already has a clock; return the clock that the store uses.

        `token` becomes the token of a store that has none.
        """
        with LOCK:
            is_first, self._clock = self._clock is None, self._clock or clock
            counted_by, given = self._clock, self._state.token
        if is_first and given is not None:
            self._apply(TokenGiven(**_stamped(given, counted_by), replaces=given))
        if token is not None:
            self._apply(TokenGiven(**_stamped(token, counted_by)))
        return counted_by

    def _use_storage(self, storage: Storage) -> None:
        """Save the token in `storage` from now on, for every `Reauth` on this store.

        Raises:
            ValueError: the store has another storage.
        """
        with LOCK:
            if self._storage is None:
                self._storage = storage
            elif self._storage is not storage and self._storage != storage:
                raise ValueError(
                    f"This store already keeps its token in a {type(self._storage).__name__} at another place, and one "
                    "token has one home. Give both Reauth objects the same storage, or a store each."
                )
        self._apply(StorageGiven())

    def _drop_pending_events(self) -> None:
        """Drop the events that the listeners have not received: after a `fork`, the thread of the parent tells them."""
        if self._listeners is not None:
            self._listeners.events.clear()
        _notifying.pop(self, None)

    def __repr__(self) -> str:
        return f"TokenStore({self.state!r})"


def is_locked_here() -> bool:
    """Does this thread hold the lock? Then this is a finalizer or a signal handler."""
    return LOCK._is_owned()  # type: ignore[attr-defined,no-any-return]  # threading.Condition calls it as well


def is_in_listener() -> bool:
    """Does this thread call listeners? Then the caller is one of them, and must not wait."""
    with LOCK:
        return threading.get_ident() in _notifying.values()


def log_prefix(store: TokenStore) -> str:
    """The beginning of the log lines about `store`: the name of its `Reauth`; empty if that has no name."""
    return "" if store._name is None else f"{in_ascii(store._name)}: "


def clock_of(store: TokenStore) -> Clock:
    """The clock that `store` uses."""
    return store._clock or SYSTEM_CLOCK


def draw_jitter() -> float:
    """A random number from 0 to 1, for `Current.jitter`."""
    return choice(_JITTERS)  # noqa: S311 - spreads load


def _stamped(token: Token, clock: Clock) -> dict[str, Any]:
    """The fields of an action for a token that was given by hand. Its times are converted here, once."""
    at = moment(clock)
    if token.expires_in is not None and token.expires_at is None:
        token = replace(token, expires_at=end_of(token.expires_in, at.wall))
    deadline = deadline_of(token, at)
    return {
        "token": token,
        "deadline": deadline,
        "jitter": draw_jitter(),
        "has_no_lifetime": token.expires_in is not None and token.expires_in <= 0,
    }


def _call_each(listeners: list[Listener], state: AuthState, action: Action) -> BaseException | None:
    """Call all `listeners`; return the exception to raise after the last event, e.g. a `KeyboardInterrupt`.

    An ordinary error of a listener is logged instead. The loop is in a separate function for a reason: if an interrupt
    comes at a `try` inside of a loop, a `try` around that loop does not catch the interrupt.
    """
    fatal: BaseException | None = None
    for listener in listeners:
        try:
            _call(listener, state, action)
        except BaseException as error:  # noqa: BLE001 - all listeners are called first
            fatal = error
    return fatal


def _call(listener: Listener, state: AuthState, action: Action) -> None:
    try:
        answer = listener(state, action)
        what = lost_awaitable(answer)
        if what is not None and not hasattr(answer, "add_done_callback"):  # a task or a future runs by itself
            _log.error(
                "A store listener returned %s, which nobody awaits, so it does not run. Write the listener as a plain "
                "`def`; it may start a task.",
                what,
            )
    except Exception as error:  # noqa: BLE001 - an error of a listener stops nothing
        where = _where(error)
        with suppress(Exception):  # nor does an error of a log handler
            _log.error("A store listener raised %s at %s; it hears of the next event.", type(error).__name__, where)


def _where(error: BaseException) -> str:
    """File and line at which `error` was raised. Its message may hold a secret, so it is not logged."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "an unknown place" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def _name(action: object) -> str:
    return action.__name__ if isinstance(action, type) else type(action).__name__


def _before_fork() -> None:
    LOCK.acquire()


def _after_fork_in_parent() -> None:
    LOCK.release()


def _after_fork_in_child() -> None:
    for store in list(_notifying):
        store._drop_pending_events()
    LOCK.release()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows knows no fork
    # Functions, not the lock's methods: eventlet, if it patches late, replaces the lock of this module.
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
