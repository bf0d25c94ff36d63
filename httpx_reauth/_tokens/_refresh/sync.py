"""What a flight does with a storage: lock, load, adopt or renew, save, publish, release.

Generators that yield calls, as the renewal itself is. Each of these calls blocks, so they run in a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, TypeAlias

from httpx_reauth._clock import Clock, Moment, moment
from httpx_reauth._errors import ReauthError, SignInRequired, StorageUnavailable, own_copy
from httpx_reauth._state.actions import Saved, SaveFailed, SignedOut
from httpx_reauth._state.adoption import Found, adopted, choose, gives_way, is_adoptable, is_usable
from httpx_reauth._state.state import AuthState, Unsaved
from httpx_reauth._state.store import TokenStore
from httpx_reauth._token import Token
from httpx_reauth._tokens._refresh.flight import Flight, under_way
from httpx_reauth._tokens._refresh.storage_steps import StorageSteps, acquire_lock, as_storage_error, leave
from httpx_reauth._tokens._refresh.worker import Call, Work

_log = logging.getLogger("httpx_reauth")

_WAIT_SHARE = 0.9  # of the time a flight has, at most, goes into waiting for the lock

Ask: TypeAlias = Callable[[Token, Moment], Generator[Call, Any, tuple[Token, Moment]]]
Publish: TypeAlias = Callable[..., None]


class Keeper(StorageSteps):
    """A storage, and what one `Reauth` does with it."""

    __slots__ = ()

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

        def is_enough(held: Token) -> bool:
            """Has the holder of the lock renewed the token? To read it, no lock is needed: that guards the refresh."""
            is_new = held.access_token != self.seen
            return is_new and is_adoptable(held, flight.reason, basis.token, self.seen, moment(clock))

        def is_current() -> bool:
            """Has no sign-in or sign-out overtaken it?"""
            return flight.store.state.flight is flight

        # A refresh that a sign-out has overtaken, also that of another `Reauth` on this store, spends what is held.
        is_spent = any(one.overtaken for one in under_way(flight.store))
        wants_lock = is_spent or self.must_clear(basis) or bool(basis.unsaved)
        # Not for all of the flight's time: the rest is to say that the lock could not be had.
        until = flight.overdue - (1 - _WAIT_SHARE) * (flight.overdue - clock.monotonic())
        lock, beside = yield from acquire_lock(
            self.storage,
            flight,
            until=until,
            is_over=lambda: not is_current(),
            look=None if wants_lock else partial(self.look, is_enough),
        )
        if beside is not None:
            self.note(beside)
            renewed = adopted(beside, moment(clock))
            publish(renewed.token, renewed.at, adopted=True)
        if lock is None:  # found without it, or overtaken while it waited
            return
        try:
            if self.must_clear(flight.store.state):
                yield from self.clear_storage(flight.store, flight)
            if not is_current():  # overtaken while it waited for the lock: what the
                return  # storage holds may be the token of that very sign-in, not to be spent for nothing
            found = yield from self._next(flight, basis, clock, ask)
            if found is None:
                _sign_out(flight.store)
            elif found.is_held:
                publish(found.token, found.at, adopted=True)
            elif is_current():
                unsaved = yield from self.save_token(found.token, flight, is_current)
                publish(found.token, found.at, adopted=found.is_adopted, unsaved=unsaved)
            else:
                yield from self._follow(flight.store, flight)
        finally:
            leave(lock)

    def _follow(self, store: TokenStore, flight: Flight) -> Generator[Call, Any, None]:
        """Put into the storage what a sign-in or a sign-out has made of the store, now that it has overtaken a flight.

        What that brought counts no more, but what the storage holds may have been spent for it: the next process to
        take the lock must not find it.
        """
        state = store.state
        if state.token is None:  # signed out, perhaps by way of another `Reauth` on this store
            yield from self.clear_storage(store, flight)
        elif state.unsaved:
            is_wanted = partial(is_to_be_saved, store, state.token)
            if (yield from self.save_token(state.token, flight, is_wanted, by_hand=True)) is None:
                store.dispatch(Saved(state.token))

    def _next(self, flight: Flight, basis: AuthState, clock: Clock, ask: Ask) -> Generator[Call, Any, Found | None]:
        """The next token, found under the lock or asked for; None if another process has signed out."""
        mine, before, is_read = basis.token, self.seen, self.is_read
        unsaved = flight.store.state.unsaved  # by now: an errand may have saved it while this waited for the lock
        held = yield from self.load_token(by_hand=is_by_hand(unsaved))
        at = moment(clock)
        if mine is not None and unsaved:
            is_dead = self.said_of(mine) is not None
            if gives_way(held, before, unsaved=unsaved, is_read=is_read, is_dead=is_dead):
                flight.store.dispatch(Saved(mine))  # it counts from now on, even if what is held cannot be renewed yet
                unsaved = ""
        next_one = choose(mine, held, before, unsaved=unsaved, reason=flight.reason, at=at)
        if not isinstance(next_one, Token):
            return next_one
        return (yield from self._ask(next_one, flight, clock, ask, at))

    def _ask(self, last: Token, flight: Flight, clock: Clock, ask: Ask, at: Moment) -> Generator[Call, Any, Found]:
        """Ask for the successor of `last`; if that is dead, look once more before giving up."""
        if (said := self.said_of(last)) is not None:
            raise own_copy(said)  # nobody has signed in meanwhile: a dead refresh token is not posted again
        if 2 * (flight.overdue - clock.monotonic()) < flight.overdue - flight.started:
            raise StorageUnavailable(
                "The storage's lock was taken too late to finish a refresh within refresh_timeout, and one that is "
                "stopped half-way can lose the refresh token. Nothing was asked of the server; it is tried again after "
                "a back-off."
            )
        try:
            token, at = yield from ask(last, at)
        except SignInRequired as error:
            self.dead = (last, error)
            # Has somebody who does not take the lock rotated it just now?
            held, at = (yield from self.load_token()), moment(clock)
            if held is None or held.refresh_token == last.refresh_token:
                raise
            if is_usable(held, at):
                self.dead = None
                return adopted(held, at)
            token, at = yield from ask(held, at)
        self.dead = None
        return Found(token, at)

    def save(self, flight: Flight, token: Token, *, again: bool = False) -> Work:
        """Save `token`, which is in the store already, if it still is the one when the lock has been taken.

        Args:
            flight: the flight that this is; its error says what went wrong.
            token: the token.
            again: it could not be saved before. What somebody else has done to the storage meanwhile counts, unless
                `token` was signed in and the server still takes it.
        """
        store, failed = flight.store, None
        try:
            lock, _ = yield from acquire_lock(
                self.storage, flight, until=flight.overdue, is_over=lambda: not is_to_be_saved(store, token)
            )
            if lock is None:  # somebody has signed in or out since, or a refresh has saved it
                return
            try:
                failed = yield from self._save(flight, token, again=again)
                if failed is None:  # before others can take the lock, find the token and spend it
                    store.dispatch(Saved(token))
            finally:
                leave(lock)
        except ReauthError as error:
            failed = error
        flight.error = failed
        if failed is not None:
            tell_unsaved(store, failed, token, beside=True)

    def _save(self, flight: Flight, token: Token, *, again: bool) -> Generator[Call, Any, ReauthError | None]:
        """What `save` does under the lock; returns what went wrong."""
        store, state, before, is_read = flight.store, flight.store.state, self.seen, self.is_read
        if not is_to_be_saved(store, token):
            return None  # a flight did it, and others may have spent it since
        is_renewed, is_dead = state.unsaved == "renewed", self.said_of(token) is not None
        if again and (is_renewed or is_dead):  # one that was signed in, and that the server takes, counts in any case
            held = yield from self.load_token()
            if is_renewed and held is None and before is not None:
                _sign_out(store)
                return None
            if gives_way(held, before, unsaved=state.unsaved, is_read=is_read, is_dead=is_dead):
                return None
        is_wanted, by_hand = partial(is_to_be_saved, store, token), is_by_hand(state.unsaved)
        return (yield from self.save_token(token, flight, is_wanted, again=again and is_renewed, by_hand=by_hand))

    def clear(self, flight: Flight) -> Work:
        """Forget the token in the storage as well, unless a flight has done it already, or somebody has signed in."""
        try:
            lock, _ = yield from acquire_lock(
                self.storage, flight, until=flight.overdue, is_over=lambda: not self.must_clear(flight.store.state)
            )
            if lock is None:  # a flight has done it, or somebody has signed in
                return
            try:
                if self.must_clear(flight.store.state):
                    yield from self.clear_storage(flight.store, flight)
            finally:
                leave(lock)
        except Exception as error:  # noqa: BLE001 - whatever a storage raises
            flight.error = as_storage_error(error)


def is_to_be_saved(store: TokenStore, token: Token) -> bool:
    """Is `token` the current one, and is it not in the storage yet?"""
    return store.state.token is token and bool(store.state.unsaved)


def is_by_hand(unsaved: Unsaved) -> bool:
    """Has somebody signed in with the token that is to be saved?"""
    return unsaved.startswith("signed in")


def tell_unsaved(store: TokenStore, error: ReauthError, token: Token, *, beside: bool = False) -> None:
    """Tell, once for each token, that it works but could not be saved (`beside` a refresh: unless that has done it)."""
    if store.dispatch(SaveFailed(error, token=token, beside=beside)):
        _log.warning("Could not save the new token, which is kept in memory and saved later: %s", error)


def _sign_out(store: TokenStore) -> None:
    """Follow another process that has signed out."""
    if store.dispatch(SignedOut()):
        _log.info("Signed out by another process: the storage holds no token any more.")
        store.dispatch(Saved(None))
