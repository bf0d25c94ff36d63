"""The single steps with a storage: take its lock, load, save, clear; and what is remembered of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from inspect import isawaitable
from math import inf
from random import random
from time import sleep
from typing import TYPE_CHECKING, Any, TypeAlias

from httpx_reauth._errors import ReauthError, SignInRequired, StorageError, StorageUnavailable
from httpx_reauth._state.actions import Saved
from httpx_reauth._state.state import AuthState
from httpx_reauth._state.store import TokenStore
from httpx_reauth._token import Token
from httpx_reauth._tokens._refresh.loops import Stopped
from httpx_reauth._tokens._refresh.worker import Call
from httpx_reauth.storage.base import CIPHERTEXT, Storage

if TYPE_CHECKING:
    from httpx_reauth._tokens._refresh.flight import Flight

_log = logging.getLogger("httpx_reauth")

_SAVE_AGAIN = 1.0  # seconds after a save failed, doubling
_SAVE_AGAIN_MAX = 60.0  # seconds

# A save that fails is tried again while the lock is held: what the storage still holds may be spent, and the next
# process to take the lock would present it.
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds between the tries
_TRY_FOR = 2.0  # seconds after the first failure in which another try begins

_LOOK_EVERY = 0.025  # seconds between two looks at what the holder of the lock has saved,
_LOOK_GROWTH = 0.05  # which grow by this share of the time waited,
_LOOK_MAX = 0.25  # up to this many seconds
_LOOK_JITTER = 0.25  # of a pause, at most, taken off: processes that begin together do not look together
_REST_PER_LOOK = 9  # a look takes at most a tenth of the time of who waits
_TRY_EVERY = 0.25  # seconds between two tries for the lock: they find something only if its holder has failed
_LEASE_MARGIN = 10.0  # seconds that a lease lasts beyond the time that a refresh may take: time to save

Lock: TypeAlias = AbstractContextManager[object]


class StorageSteps:
    """A storage, and what one `Reauth` knows about it.

    Attributes:
        storage: the storage.
        is_read: it has been read; until then nobody knows whether `token=` counts.
        seen: the access token that it held when we last looked.
        owes_clear: the session in which somebody signed out where nobody was signed in, if the storage does not know.
        dead: what the server takes no more, and what it said.
        save_at: when a token that could not be saved is tried again (monotonic seconds).
    """

    __slots__ = ("_pause", "dead", "is_read", "owes_clear", "save_at", "seen", "storage")

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.is_read = False
        self.owes_clear: int | None = None
        self.dead: tuple[Token, SignInRequired] | None = None
        self.save_at = -inf
        self._pause = _SAVE_AGAIN
        self.seen: str | None = None

    def is_due(self, state: AuthState, now: float) -> bool:
        """Is it time to try again to save the token? If so, the next time is later."""
        if not state.unsaved:
            self._pause = _SAVE_AGAIN
            return False
        if now < self.save_at:
            return False
        self.save_at = now + self._pause
        self._pause = min(2 * self._pause, _SAVE_AGAIN_MAX)
        return True

    def must_clear(self, state: AuthState) -> bool:
        """Has somebody signed out, and the storage does not know it yet?"""
        return state.token is None and (self.owes_clear == state.session or state.unsaved == "signed out")

    def clear_storage(self, store: TokenStore, flight: Flight) -> Generator[Call, Any, None]:
        """Hold no token any more: somebody has signed out."""
        error = yield from self._write(
            flight, self.storage.clear, is_wanted=lambda: store.state.token is None, by_hand=True
        )
        if error is not None:
            raise error
        self.owes_clear = None
        self.note(None)
        store.dispatch(Saved(None))  # before others can take the lock, and sign in

    def load_token(self, *, by_hand: bool = False) -> Generator[Call, Any, Token | None]:
        """What the storage holds; `by_hand`: somebody has signed in, so what is damaged is moved out of the way."""
        try:
            held = yield from load(self.storage)
        except Stopped:
            raise
        except Exception as error:
            if by_hand and (yield from self._set_aside()):
                return (yield from self.load_token())
            raise StorageUnavailable(
                f"The storage could not be read ({_words(error)}), so nothing was asked of the server. "
                "It is tried again after a back-off."
            ) from error
        self.note(held)
        return held

    def look(self, is_enough: Callable[[Token], bool]) -> Generator[Call, Any, Token | None]:
        """The token that the storage holds, if it is enough; seen without the lock, while somebody else has that."""
        try:
            held = yield from load(self.storage)
        except Stopped:
            raise
        except Exception:  # noqa: BLE001 - it may be half written; if not, the one with the lock says so
            return None
        return held if held is not None and is_enough(held) else None

    def said_of(self, token: Token) -> SignInRequired | None:
        """What the server said of `token`, if it takes that no more."""
        if self.dead is None:
            return None
        dead, said = self.dead
        is_it = dead.refresh_token == token.refresh_token and dead.access_token == token.access_token
        return said if is_it else None

    def note(self, held: Token | None) -> None:
        """Remember that this is what the storage holds."""
        self.is_read = True
        self.seen = None if held is None else held.access_token

    def save_token(
        self,
        token: Token,
        flight: Flight,
        is_wanted: Callable[[], bool],
        *,
        again: bool = False,
        by_hand: bool = False,
    ) -> Generator[Call, Any, ReauthError | None]:
        """Hold `token`; returns what went wrong, if anything did, since the token counts all the same."""
        error = yield from self._write(flight, self.storage.save, token, is_wanted=is_wanted, by_hand=by_hand)
        if error is not None:
            return as_storage_error(error)
        self.note(token)
        if again:
            _log.info("Saved the token that could not be saved before.")
        return None

    def _write(
        self,
        flight: Flight,
        function: Callable[..., Any],
        *arguments: Any,
        is_wanted: Callable[[], bool],
        by_hand: bool,
    ) -> Generator[Call, Any, Exception | None]:
        """Call `save` or `clear`, several times if it fails; returns what went wrong the last time.

        Args:
            flight: whose time it is.
            function: `save` or `clear`.
            *arguments: what it gets.
            is_wanted: does what is written still count, or has a sign-in or a sign-out come in between?
            by_hand: somebody has signed in or out, so what is damaged is moved out of the way.
        """
        clock, stop_at = flight.store.clock, None
        pauses = iter(_PAUSES)
        while True:
            try:
                yield from _ask(function, *arguments)
            except Stopped:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a storage raises
                failed = error
            else:
                return None
            if by_hand and (yield from self._set_aside()):
                by_hand = False
                continue
            now = clock.monotonic()
            stop_at = min(flight.overdue, now + _TRY_FOR) if stop_at is None else stop_at
            pause = next(pauses, inf)
            if now + pause >= stop_at or not is_wanted():
                return failed
            yield Call(sleep, (pause,))

    def _set_aside(self) -> Generator[Call, Any, bool]:
        """Was what the storage holds damaged, and is it out of the way now?"""
        set_aside = getattr(self.storage, "set_aside", None)
        if not callable(set_aside):
            return False
        try:
            return bool((yield from _ask(set_aside)))
        except Stopped:
            raise
        except Exception:  # noqa: BLE001 - what failed before says more
            return False


def load(storage: Storage) -> Generator[Call, Any, Token | None]:
    """What `storage` holds, if it is a token that can be used."""
    held = yield from _ask(storage.load)
    if held is not None and not isinstance(held, Token):
        raise StorageError(f"load returned {type(held).__name__}; it must return a Token or None.")
    if held is not None and held.token_type == CIPHERTEXT:
        raise StorageError(
            "It holds a token that EncryptedStorage has encrypted. Put the same EncryptedStorage around this "
            f"{type(storage).__name__}, with its key"
        )
    return held


def acquire_lock(
    storage: Storage,
    flight: Flight,
    *,
    until: float,
    is_over: Callable[[], bool],
    look: Callable[[], Generator[Call, Any, Token | None]] | None = None,
) -> Generator[Call, Any, tuple[Lock | None, Token | None]]:
    """The storage's lock, entered, as soon as it can be had; or what makes it needless.

    While somebody else holds it: look whether that one has saved a token (to read it, no lock is needed), pause, and
    try the lock again now and then. A pause is short at first and grows with the time waited; it is at least nine
    times as long as the look before it took, so a slow storage is not kept busy by those that wait.

    Args:
        storage: the storage.
        flight: whose clock counts, and whose lease it is: it may read an answer for twice its time, and save then.
        until: when to give up (monotonic seconds).
        is_over: has a sign-in or a sign-out overtaken it, so that nobody needs the lock any more?
        look: a token that makes the lock needless, if the storage holds one.

    Returns:
        The lock and None; or None and the token that `look` has found; or None twice: it is over.

    Raises:
        StorageUnavailable: the lock is broken, or somebody else has held it until then.
    """
    clock = flight.store.clock
    lease = 2 * (flight.overdue - flight.started) + _LEASE_MARGIN
    waited = next_try = 0.0  # seconds, of real time: a thread really sleeps, whatever the clock
    while True:
        now = clock.monotonic()
        if waited >= next_try or now >= until:
            lock = yield from _try_lock(storage, lease)
            if lock is not None:
                return lock, None
            next_try = waited + _TRY_EVERY
        if is_over():
            return None, None
        found = None if look is None else (yield from look())
        if found is not None:
            return None, found
        if now >= until:
            raise StorageUnavailable(
                f"Somebody else has held the lock of the storage for {waited:.3g} s, so nothing was asked of the "
                "server: without it, two processes could spend one refresh token. It is tried again after a back-off. "
                f"If a process hangs with the lock of this {type(storage).__name__}, end it."
            )
        pause = min(_LOOK_EVERY + _LOOK_GROWTH * waited, _LOOK_MAX) * (1 - _LOOK_JITTER * random())  # noqa: S311
        pause = min(max(pause, _REST_PER_LOOK * (clock.monotonic() - now)), until - now)
        yield Call(sleep, (pause,))
        waited += pause


def _try_lock(storage: Storage, lease: float) -> Generator[Call, Any, Lock | None]:
    """The storage's lock, entered; None: somebody else holds it."""
    try:
        lock: Lock | None = yield from _ask(storage.try_lock, lease)
        if lock is not None:
            _check_lock(lock)
            yield Call(lock.__enter__)
    except Stopped:
        raise
    except Exception as error:
        raise StorageUnavailable(
            f"The storage's lock could not be taken ({_words(error)}), so nothing was asked of the server: without it, "
            "two processes could spend one refresh token. It is tried again after a back-off."
        ) from error
    return lock


def _check_lock(lock: object) -> None:
    if not isinstance(lock, AbstractContextManager):  # True, as `acquire` of a lock returns
        raise StorageError(f"try_lock returned {type(lock).__name__}; it must return a context manager or None.")


def _ask(function: Callable[..., Any], *arguments: Any) -> Generator[Call, Any, Any]:
    """What a function of the storage returns; an awaitable would never be awaited, and what it was to do not done."""
    answer = yield Call(function, arguments)
    if isawaitable(answer):
        getattr(answer, "close", bool)()
        name = getattr(function, "__name__", "A function")
        raise StorageError(f"{name} of the storage returned an awaitable: it must be a plain function that may block.")
    return answer


def leave(lock: Lock) -> None:
    """Release the lock, here and now: it is part of a `finally`."""
    try:
        lock.__exit__(None, None, None)
    except Exception as error:  # noqa: BLE001 - the token counts all the same; a lease ends by itself
        _log.warning("The storage's lock could not be released (%s).", _words(error))


def as_storage_error(error: Exception) -> ReauthError:
    """`error` as one of ours."""
    if isinstance(error, ReauthError):
        return error
    known = StorageError(f"The storage raised {type(error).__name__}; see the cause.")
    known.__cause__ = error
    return known


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, ReauthError) else type(error).__name__
