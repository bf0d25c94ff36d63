"""The store: holds the state, applies actions to it, tells the listeners.

1. One lock guards the state of all stores. It is held for a handful of steps at each change, never while user code
   runs, and never on the hot path. So a `fork` needs to hold only this one, and there is nothing to gain from more of
   them.
2. The lock is reentrant, because a finalizer or a signal handler may come in on top of its owner. What it changes there
   must not be lost: every change starts anew from the state that it finds.
3. To change the state (`_apply`) and to tell the listeners (`_notify`) are two steps, so that a refresh can wake those
   who wait for it in between: a listener that blocks holds up nobody else.
4. Listeners hear of changes one at a time and in order. One thread tells them; whoever changes the state meanwhile,
   a listener too, leaves its event to that thread. The listeners are snapshotted when the state changes.
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
from httpx_reauth._state.arguments import check_function, lost_awaitable
from httpx_reauth._state.policy import deadline_of
from httpx_reauth._state.reduce import reduce
from httpx_reauth._state.state import AuthState, Current, State
from httpx_reauth._token import Token, Unpicklable, end_of

if TYPE_CHECKING:
    from httpx_reauth._state.membership import Membership
    from httpx_reauth.storage.base import Storage

    Event: TypeAlias = tuple[list["Listener"], AuthState, Action]

Listener: TypeAlias = Callable[[AuthState, Action], object]

_log = logging.getLogger("httpx_reauth")

LOCK = threading.RLock()

_notifying: set[TokenStore] = set()  # stores whose listeners are being told something, for the fork hook

_notified_later: list[TokenStore] = []  # changed by a finalizer or a signal handler while this thread held the lock

_JITTERS = tuple(step / 63 for step in range(64))  # shared: there may be 100,000 tokens


class _Listeners(dict[object, Listener]):
    """The listeners of a store, by subscription; and the events of which they have not heard yet."""

    __slots__ = ("events",)

    def __init__(self) -> None:
        super().__init__()
        self.events: deque[Event] = deque()


class TokenStore(Unpicklable):
    """An observable holder of the token's state; one store may serve several `Reauth` objects.

    Thread-safe. Its times are counted by the clock of the first `Reauth` that uses it.

    Args:
        token: the first token, if there is one. With `expires_in` alone, its lifetime is counted from when the
            first `Reauth` takes the store.
        storage: where tokens outlive the process, for every `Reauth` on this store. What it holds wins over `token`.

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
        self._name: str | None = None  # what log lines call it; the first that a `Reauth` gives
        self._storage: Storage | None = None
        self._membership: Membership | None = None  # in the pool that has made the `Reauth` of this store
        self._listeners: _Listeners | None = None  # most stores have none
        self._state = State() if token is None else State(Current(token))
        if storage is not None:
            self._use_storage(storage)

    @property
    def state(self) -> AuthState:
        """The current state: an immutable snapshot."""
        return self._state.as_public()

    def dispatch(self, action: Action) -> bool:
        """Apply a `SignedIn` or a `SignedOut`, tell the listeners if it changed anything, and answer whether it did.

        With a storage, the change is written there at the next request; `Reauth.sign_in` and `sign_out` do so at once.

        Raises:
            TypeError: it is another action, or none. Only the refresh itself may say what becomes of it.
        """
        if not isinstance(action, (SignedIn, SignedOut)):
            raise TypeError(f"{_name(action)} cannot be dispatched. Dispatch SignedIn(token) or SignedOut().")
        is_changed = self._apply(action)
        self._notify()
        return is_changed

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(state, action)` after each change, on the thread that made it, and return its own undo.

        The listeners are snapshotted before each dispatch: one that unsubscribes meanwhile still hears of it,
        one that subscribes does not. What a listener raises is logged and goes no further.

        Raises:
            TypeError: `listener` is no function, or an async one, which nobody would await.
        """
        check_function("listener", listener, "listener(state, action)")
        # A listener may be subscribed twice, and be equal to another: so each subscription has a key of its own. One
        # operation on a dict adds or removes it, so a finalizer or a signal handler cannot come in between.
        subscription = object()
        listeners = _Listeners()
        with LOCK:
            if self._listeners is None:
                self._listeners = listeners  # made before the look at it, so that nothing comes in between here either
            listeners = self._listeners
        listeners[subscription] = listener

        def unsubscribe() -> None:
            listeners.pop(subscription, None)

        return unsubscribe

    def _apply(self, action: Action | Internal) -> bool:
        """Change the state by `action`, without a word to the listeners; answer whether it changed anything."""
        if isinstance(action, SignedIn) and self._clock is not None:
            action = SignedIn(**_stamped(action.token, self._clock))
        with LOCK:
            while True:
                before = self._state
                state = reduce(before, action)
                if self._state is before:  # else a finalizer or a signal handler has come in on top of this
                    break
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
        """Tell the listeners what they have not heard.

        Not under the lock, since a listener may block: what a finalizer or a signal handler has changed there is told
        after the next change, of whatever store.
        """
        if is_locked_here():
            _notified_later.append(self)
            return
        if self._listeners is not None and self._listeners.events:
            self._tell(self._listeners.events)
        while _notified_later:
            _notified_later.pop()._notify()

    def _tell(self, events: deque[Event]) -> None:
        """Tell the listeners, unless another thread does, or this one does already: a listener has called back."""
        fatal: BaseException | None = None
        is_mine = False
        try:
            while True:
                with LOCK:
                    if not is_mine and self in _notifying:
                        return
                    is_mine = True  # first, so that a signal in between leaves nothing behind
                    _notifying.add(self)
                    if not events:
                        _notifying.discard(self)
                        break
                    listeners, state, action = events.popleft()
                fatal = _call_each(listeners, state, action) or fatal
        except BaseException:  # a signal between two of them: the next change tells what is left
            if is_mine:
                with LOCK:
                    _notifying.discard(self)
            raise
        if fatal is not None:
            raise fatal

    def _use_clock(self, clock: Clock, token: Token | None = None) -> Clock:
        """Count this store's times by `clock`, unless it already counts by one; returns the one that counts.

        `token` seeds a store that is empty.
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
        """Keep the token in `storage` from now on, for every `Reauth` on this store.

        Raises:
            ValueError: the store has another one.
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
        """Forget what is still to be told: after a `fork`, the parent tells it, whose thread is not here."""
        if self._listeners is not None:
            self._listeners.events.clear()
        _notifying.discard(self)

    def __repr__(self) -> str:
        return f"TokenStore({self.state!r})"


def is_locked_here() -> bool:
    """Does this thread hold the lock: has a finalizer or a signal handler come in on top of us?"""
    return LOCK._is_owned()  # type: ignore[attr-defined,no-any-return]  # what threading.Condition asks of it


def log_prefix(store: TokenStore) -> str:
    """How the log lines about `store` begin: with the name of its `Reauth`, if it has one."""
    return "" if store._name is None else f"{in_ascii(store._name)}: "


def clock_of(store: TokenStore) -> Clock:
    """What the times of `store` are counted by."""
    return store._clock or SYSTEM_CLOCK


def draw_jitter() -> float:
    """A token's share of the jitter, 0 to 1, at random."""
    return choice(_JITTERS)  # noqa: S311 - spreads load


def _stamped(token: Token, clock: Clock) -> dict[str, Any]:
    """What an action says of a token that was given by hand: its times are read here, once."""
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
    """Call all `listeners`; returns what must be raised once all events are told (no error of a listener's own).

    A function of its own: Python lets an interrupt at the `try` of a loop pass a `try` around that loop.
    """
    fatal: BaseException | None = None
    for listener in listeners:
        try:
            _call(listener, state, action)
        except BaseException as error:  # noqa: BLE001 - everybody hears of the event first
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
    except Exception as error:  # noqa: BLE001 - a listener breaks nothing
        where = _where(error)
        with suppress(Exception):  # nor does a log handler
            _log.error("A store listener raised %s at %s; it hears of the next event.", type(error).__name__, where)


def _where(error: BaseException) -> str:
    """File and line at which `error` was raised; its message might hold a secret and is not repeated."""
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
    # Functions, not the lock's own methods: eventlet puts another lock into this module when it patches late.
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
