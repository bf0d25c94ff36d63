"""The single steps with a storage: take its lock, load, save, clear; and what is remembered of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from math import inf
from typing import Any, TypeAlias

from httpx_reauth._errors import ReauthError, SignInRequired, StorageError, StorageUnavailable
from httpx_reauth._state.actions import Saved
from httpx_reauth._state.state import AuthState
from httpx_reauth._state.store import TokenStore
from httpx_reauth._token import Token
from httpx_reauth._tokens._refresh.worker import Call
from httpx_reauth.storage.base import Storage, is_watchful

_log = logging.getLogger("httpx_reauth")

_SAVE_AGAIN = 1.0  # seconds after a save failed, doubling
_SAVE_AGAIN_MAX = 60.0  # seconds

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

    def clear_storage(self, store: TokenStore) -> Generator[Call, Any, None]:
        """Hold no token any more."""
        yield Call(self.storage.clear)
        self.owes_clear = None
        self.note(None)
        store.dispatch(Saved(None))  # before others can take the lock, and sign in

    def load_token(self) -> Generator[Call, Any, Token | None]:
        """What the storage holds."""
        try:
            held: Token | None = yield Call(self.storage.load)
        except Exception as error:
            raise StorageUnavailable(
                f"The storage could not be read ({_words(error)}), so nothing was asked of the server. "
                "It is tried again after a back-off."
            ) from error
        self.note(held)
        return held

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

    def save_token(self, token: Token, *, again: bool = False) -> Generator[Call, Any, ReauthError | None]:
        """Hold `token`; returns what went wrong, if anything did, since the token counts all the same."""
        try:
            yield Call(self.storage.save, (token,))
        except Exception as error:  # noqa: BLE001 - whatever a storage raises
            return as_storage_error(error)
        self.note(token)
        if again:
            _log.info("Saved the token that could not be saved before.")
        return None


def enter(
    storage: Storage, timeout: float, is_enough: Callable[[Token], bool] | None = None
) -> Generator[Call, Any, tuple[Lock, Token | None]]:
    """The storage's lock, taken within `timeout` seconds; or a token that `is_enough`, found while waiting for it."""
    found: Token | None = None
    try:
        if is_enough is not None and is_watchful(storage):
            lock: Lock = yield Call(storage.lock_unless, (max(0.0, timeout), is_enough))
            found = yield Call(lock.__enter__)
        else:
            lock = yield Call(storage.lock, (max(0.0, timeout),))
            yield Call(lock.__enter__)
    except Exception as error:
        raise StorageUnavailable(
            f"The storage's lock could not be taken ({_words(error)}), so nothing was asked of the server: without it, "
            "two processes could spend one refresh token. It is tried again after a back-off."
        ) from error
    return lock, found


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
