"""What a flight does with a storage: lock, load, adopt or renew, save, publish, release (floor 3).

Generators that yield calls, as the renewal itself is. Each of these calls blocks, so they run in a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from math import inf
from typing import Any, TypeAlias

from . import _policy
from ._actions import Saved, SaveFailed, SignedOut
from ._clock import Clock, Moment, moment
from ._errors import ReauthError, RefreshError, SignInRequired, StorageError
from ._flight import Flight
from ._runner import Call, Work
from ._state import AuthState
from ._storage import Storage
from ._token import Token

_log = logging.getLogger("httpx_reauth")

_SAVE_AGAIN = 1.0  # seconds after a save failed, doubling
_SAVE_AGAIN_MAX = 60.0  # seconds

Ask: TypeAlias = Callable[[Token, Moment], Generator[Call, Any, tuple[Token, Moment]]]
Publish: TypeAlias = Callable[..., None]
_Lock: TypeAlias = AbstractContextManager[object]


class Keeper:
    """A storage, and what one `Reauth` knows about it.

    Attributes:
        storage: the storage.
        is_read: it has been read; until then nobody knows whether `token=` counts.
        save_at: when a token that could not be saved is tried again (monotonic seconds).
    """

    __slots__ = ("_pause", "_seen", "is_read", "save_at", "storage")

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.is_read = False
        self.save_at = -inf
        self._pause = _SAVE_AGAIN
        self._seen: str | None = None  # the access token that the storage held when we last looked

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

    def renew(
        self, flight: Flight, basis: AuthState, clock: Clock, ask: Ask, publish: Publish
    ) -> Generator[Call, Any, None]:
        """The next token, adopted if somebody has renewed it in the storage, else asked for and saved.

        Args:
            flight: the flight that this is a part of.
            basis: the state on which it rests.
            clock: the clock.
            ask: asks the refresh for the successor of a token.
            publish: tells the store of the token.
        """
        storage, mine = self.storage, basis.token
        lock = yield from _enter(storage, flight.overdue - clock.monotonic())
        try:
            before, held = self._seen, (yield from self._load())
            at = moment(clock)
            if mine is not None and basis.unsaved and not _has_changed(held, before):
                held = mine  # renewed from what is held, and could not be saved then: it goes on from here
            elif mine is not None and held is None and before is not None:
                flight.store.dispatch(SignedOut())  # by another process
                return
            elif mine is not None and held is None and flight.reason != "rejected" and _is_usable(mine, at):
                publish(mine, at, adopted=True, unsaved=(yield from self._save(mine)))  # the first token seeds it
                return
            elif (
                held is not None
                and _is_usable(held, at)
                and (
                    mine is None
                    or held.access_token != mine.access_token
                    or (before is None and flight.reason != "rejected")
                )
            ):  # renewed by somebody else; at the first look, whatever still lives will do
                publish(held.renewed(held, at.wall), at, adopted=True)
                return
            last = held or mine or Token()
            try:
                token, at = yield from ask(last, at)
            except SignInRequired:
                # Has somebody who does not take the lock rotated it just now? Look once more before giving up.
                held, at = (yield from self._load()), moment(clock)
                if held is None or held.refresh_token == last.refresh_token or not _is_usable(held, at):
                    raise
                publish(held.renewed(held, at.wall), at, adopted=True)
                return
            if flight.store.state.flight is flight:  # else a sign-in or sign-out has overtaken it: it counts no more
                publish(token, at, unsaved=(yield from self._save(token)))
        finally:
            _leave(lock)

    def save(self, flight: Flight, clock: Clock, token: Token, *, again: bool = False) -> Work:
        """Save `token`, which is in the store already, if it still is the one when the lock has been taken.

        Args:
            flight: the flight that this is; its error says what went wrong.
            clock: the clock.
            token: the token.
            again: it could not be saved before; a newer one that the storage holds by now is left alone.
        """
        store = flight.store
        try:
            lock = yield from _enter(self.storage, flight.overdue - clock.monotonic())
            try:
                is_done = store.state.token is not token
                if again and not is_done:
                    before = self._seen
                    is_done = _has_changed((yield from self._load()), before)
                failed = None if is_done else (yield from self._save(token))
            finally:
                _leave(lock)
        except ReauthError as error:
            failed = error
        flight.error = failed
        store.dispatch(Saved(token) if failed is None else SaveFailed(failed, token=token))

    def clear(self, flight: Flight, clock: Clock) -> Work:
        """Forget the token in the storage as well, unless somebody has signed in again meanwhile."""
        try:
            lock = yield from _enter(self.storage, flight.overdue - clock.monotonic())
            try:
                self.is_read = True
                if flight.store.state.token is None:
                    yield Call(self.storage.clear)
                    self._seen = None
            finally:
                _leave(lock)
        except Exception as error:  # noqa: BLE001 - whatever a storage raises
            flight.error = _as_storage_error(error)

    def _load(self) -> Generator[Call, Any, Token | None]:
        try:
            held: Token | None = yield Call(self.storage.load)
        except ReauthError:
            raise
        except Exception as error:
            raise _as_storage_error(error) from error
        self.is_read = True
        self._seen = None if held is None else held.access_token
        return held

    def _save(self, token: Token) -> Generator[Call, Any, ReauthError | None]:
        try:
            yield Call(self.storage.save, (token,))
        except Exception as error:  # noqa: BLE001 - whatever a storage raises: the token counts all the same
            return _as_storage_error(error)
        self.is_read = True
        self._seen = token.access_token
        return None


def _enter(storage: Storage, timeout: float) -> Generator[Call, Any, _Lock]:
    try:
        lock: _Lock = yield Call(storage.lock, (max(0.0, timeout),))
        yield Call(lock.__enter__)
    except Exception as error:
        raise RefreshError(
            f"The storage's lock could not be taken ({_words(error)}), so nothing was asked of the server: without it, "
            "two processes could spend one refresh token. It is tried again after a back-off."
        ) from error
    return lock


def _leave(lock: _Lock) -> None:
    try:
        lock.__exit__(None, None, None)
    except Exception as error:  # noqa: BLE001 - the token counts all the same; a lease ends by itself
        _log.warning("The storage's lock could not be released (%s).", _words(error))


def _as_storage_error(error: Exception) -> ReauthError:
    if isinstance(error, ReauthError):
        return error
    known = StorageError(f"The storage raised {type(error).__name__}; see the cause.")
    known.__cause__ = error
    return known


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, ReauthError) else type(error).__name__


def _is_usable(token: Token, at: Moment) -> bool:
    if not token.access_token:
        return False
    state = AuthState("idle", token, deadline=_policy.deadline_of(token, at))
    return at.monotonic < _policy.windows(state, 0.0).wait_from


def _has_changed(held: Token | None, before: str | None) -> bool:
    """Has somebody else put a token into the storage since we last looked?"""
    return held is not None and before is not None and held.access_token != before
