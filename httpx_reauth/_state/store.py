"""The store: holds the state, elects who refreshes, tells the listeners in order."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from random import choice
from typing import TYPE_CHECKING, TypeAlias, cast

from httpx_reauth._clock import SYSTEM_CLOCK, Clock, moment
from httpx_reauth._state.actions import (
    Action,
    Internal,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    SaveFailed,
    SignedIn,
    SignedOut,
)
from httpx_reauth._state.arguments import check_function, lost_awaitable
from httpx_reauth._state.policy import deadline_of
from httpx_reauth._state.state import AuthState, reduce
from httpx_reauth._token import Discreet, Token

if TYPE_CHECKING:
    from httpx_reauth._tokens._refresh.flight import Flight
    from httpx_reauth._tokens._refresh.refusals import Refusals

    Event: TypeAlias = tuple[list["Listener"], AuthState, Action]

Listener: TypeAlias = Callable[[AuthState, Action], object]

_log = logging.getLogger("httpx_reauth")

# One lock for all stores and flights. It is held for a handful of steps at each transition and never on the hot
# path, so there is nothing to gain from more of them; and a `fork` needs to hold only this one to be safe. It is
# reentrant, because a finalizer or a signal handler may come in on top of its owner.
LOCK = threading.RLock()

_telling: set[TokenStore] = set()  # stores whose listeners are being told something, for the fork hook


class TokenStore(Discreet):
    """An observable holder of the token's state; one store may serve several `Reauth` objects.

    Thread-safe. Its times are counted by the clock of the first `Reauth` that uses it.

    Args:
        token: the first token, if there is one. With `expires_in` alone, its lifetime is counted from when the
            first `Reauth` takes the store.

    Example:
        >>> store = TokenStore()
        >>> unsubscribe = store.subscribe(lambda state, action: print(state.status))
        >>> store.dispatch(SignedIn(Token("secret")))
        idle
        True
        >>> unsubscribe()
    """

    __slots__ = ("__weakref__", "_clock", "_listeners", "_state", "_untold", "refusals")

    def __init__(self, token: Token | None = None) -> None:
        self._clock: Clock | None = None
        self._listeners: dict[object, Listener] | None = None  # by subscription; most stores have none
        self._untold: deque[Event] | None = None  # what is still to be told, while somebody is telling
        self._state = AuthState("idle", token)
        self.refusals: Refusals | None = None  # of the pool that has made its `Reauth`

    @property
    def state(self) -> AuthState:
        """The current state: an immutable snapshot."""
        return self._state

    @property
    def clock(self) -> Clock:
        """What its times are counted by."""
        return self._clock or SYSTEM_CLOCK

    def dispatch(self, action: Action | Internal) -> bool:
        """Apply `action`; tell the listeners if it changed anything; answer whether it did.

        Users dispatch `SignedIn` and `SignedOut` only; the rest is the refresh's own.
        """
        if isinstance(action, SignedIn) and self._clock is not None:
            action = _stamped(action.token, self._clock)
        with LOCK:
            while True:
                before = self._state
                state = reduce(before, action)
                if self._state is before:  # else a finalizer or a signal handler has come in on top of it
                    break
            if state is before:
                return False
            self._state = state
            if self._listeners and isinstance(action, _TOLD):
                self._untold = deque() if self._untold is None else self._untold
                self._untold.append((list(self._listeners.values()), state, action))
        if isinstance(action, (SignedIn, SignedOut)) and before.flight is not None:
            cast("Flight", before.flight).overtake()
        if self._untold is not None:
            self._tell()
        return True

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(state, action)` after each change, on the thread that made it, and return its own undo.

        The listeners are snapshotted before each dispatch: one that unsubscribes meanwhile is still told of it,
        one that subscribes is not. What a listener raises is logged and goes no further.

        Raises:
            TypeError: `listener` is no function, or an async one, which nobody would await.
        """
        check_function("listener", listener, "listener(state, action)")
        # A listener may be subscribed twice, and be equal to another: so each subscription has a key of its own. One
        # operation on a dict adds or removes it, so a finalizer or a signal handler cannot come in between.
        subscription = object()
        listeners: dict[object, Listener] = {}
        with LOCK:
            if self._listeners is None:
                self._listeners = listeners  # made before the look at it, so that nothing comes in between here either
            listeners = self._listeners
        listeners[subscription] = listener

        def unsubscribe() -> None:
            listeners.pop(subscription, None)

        return unsubscribe

    def count_by(self, clock: Clock, token: Token | None = None) -> Clock:
        """Count this store's times by `clock`, unless it already counts by one; returns the one that counts.

        `token` seeds a store that is empty.
        """
        with LOCK:
            is_first, self._clock = self._clock is None, self._clock or clock
            is_empty = self._state.token is None and self._state.status != "pending"
            seed = token if is_empty else None
            given = self._state.token if is_first else None
            if seed is not None or given is not None:
                signed_in = reduce(self._state, _stamped(cast("Token", seed or given), self._clock))
                # A first token is what a storage is seeded with, if that is empty; it is not to replace what is held.
                # But after a sign-out that the storage does not know yet, it is.
                unsaved = self._state.unsaved if seed is None else ""
                must_replace = self._state.unsaved == "signed out"
                self._state = replace(signed_in, unsaved="signed in" if must_replace else unsaved)
            return self._clock

    def fall_silent(self) -> None:
        """Forget what is still to be told: after a `fork`, that is told in the parent, whose thread is not here."""
        (self._untold or deque()).clear()  # the teller itself may be here, if a listener has forked
        self._untold = None
        _telling.discard(self)

    def _tell(self) -> None:
        """Tell what is in line, unless another thread is at it, or a listener that called back: then that one does."""
        grave: BaseException | None = None
        is_mine = False
        try:
            while True:
                with LOCK:
                    if not is_mine and self in _telling:
                        return
                    is_mine = True  # first, so that a signal in between leaves nothing behind
                    _telling.add(self)
                    if not self._untold:
                        self._untold = None
                        _telling.discard(self)
                        break
                    listeners, state, action = self._untold.popleft()
                grave = _tell_each(listeners, state, action) or grave
        except BaseException:  # a signal between two of them: whoever dispatches next tells what is left
            if is_mine:
                with LOCK:
                    _telling.discard(self)
            raise
        if grave is not None:
            raise grave

    def __repr__(self) -> str:
        return f"TokenStore({self._state!r})"


_SPREADS = tuple(step / 63 for step in range(64))  # shared: there may be 100,000 tokens

_TOLD = (RefreshPending, RefreshFulfilled, RefreshRejected, SaveFailed, SignedIn, SignedOut)


def a_spread() -> float:
    """A token's share of the jitter, 0 to 1, at random."""
    return choice(_SPREADS)  # noqa: S311 - spreads load


def _stamped(token: Token, clock: Clock) -> SignedIn:
    """Read the times of a token that was given by hand, once."""
    at = moment(clock)
    if token.expires_in is not None and token.expires_at is None:
        token = replace(token, expires_at=at.wall + token.expires_in)
    return SignedIn(token, deadline=deadline_of(token, at), spread=a_spread())


def _tell_each(listeners: list[Listener], state: AuthState, action: Action) -> BaseException | None:
    """Tell all `listeners`; returns what must be raised once everything is told (no error of a listener's own).

    A function of its own: Python lets an interrupt at the `try` of a loop pass a `try` around that loop.
    """
    grave: BaseException | None = None
    for listener in listeners:
        try:
            _tell_one(listener, state, action)
        except BaseException as error:  # noqa: BLE001 - told to everybody first, then raised
            grave = error
    return grave


def _tell_one(listener: Listener, state: AuthState, action: Action) -> None:
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
            _log.error("A store listener raised %s at %s; it is told the next event.", type(error).__name__, where)


def _where(error: BaseException) -> str:
    """File and line at which `error` was raised; its message might hold a secret and is not repeated."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "an unknown place" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def _before_fork() -> None:
    LOCK.acquire()


def _after_fork_in_parent() -> None:
    LOCK.release()


def _after_fork_in_child() -> None:
    for store in list(_telling):
        store.fall_silent()
    LOCK.release()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows knows no fork
    # Functions, not the lock's own methods: eventlet puts another lock into this module when it patches late.
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
