"""The storage's part in a refresh, a sign-in and a sign-out. `NoStorage` has the same methods, which do nothing.

The methods are generators: they yield the storage's calls, since each call may block. The state has the facts about the
storage (`Stored`). The *pending change* is the change that must still be written to it (`Stored.pending_write`).

The wait for the lock: a call of `try_lock` never blocks, so a worker that waits calls it again and again. If many
processes want the lock for one renewal, only the first of them needs it. The others need the token that the first one
saves, and `load` returns that token without the lock. So a worker that waits tries the lock now and then, and loads the
token more often. The wait ends early if somebody signs in or out in this process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from inspect import isawaitable
from math import inf
from os import strerror
from random import uniform
from time import monotonic, sleep
from typing import Any, TypeAlias, cast

from httpx_reauth._clock import Moment, moment
from httpx_reauth._errors import (
    ReauthError,
    SignInRequired,
    StorageError,
    StorageUnavailable,
    copy_for_waiter,
    drop_frames,
    in_ascii,
    in_our_words,
    place_of,
    storage_busy,
)
from httpx_reauth._state import policy
from httpx_reauth._state.actions import (
    GrantRefused,
    Loaded,
    Saved,
    SaveFailed,
    SignedOut,
    WriteSuperseded,
)
from httpx_reauth._state.adoption import (
    Adopt,
    Ask,
    NextStep,
    adopt,
    is_adoptable,
    is_outdated,
    next_step,
)
from httpx_reauth._state.state import State, Stored
from httpx_reauth._state.store import TokenStore, clock_of, log_prefix
from httpx_reauth._token import Token
from httpx_reauth._tokens._refresh import at_exit
from httpx_reauth._tokens._refresh.flight import Flight
from httpx_reauth._tokens._refresh.loops import Stopped
from httpx_reauth._tokens._refresh.worker import Call, Steps, Worker, workers_of
from httpx_reauth.oauth.redaction import redact, redacted, secrets_of
from httpx_reauth.storage.base import CIPHERTEXT, Storage

_log = logging.getLogger("httpx_reauth")

Lock: TypeAlias = AbstractContextManager[object]

_LEASE_MARGIN = 10.0  # seconds: a lease lasts for twice the refresh timeout plus this
_WAIT_SHARE = 0.9  # the wait for the lock takes at most this part of the time that is left; the rest is for its error
_TRY_LOCK_EVERY = 0.25  # seconds
_LOOK_EVERY = 0.025  # seconds between the first two loads during the wait for the lock
_LOOK_GROWTH = 0.05  # the pause between two loads grows by this part of the time waited
_LOOK_EVERY_MAX = 0.25  # seconds
_LOOK_SHARE = 0.1  # all loads together take at most this part of the time waited
_SAVE_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds between the tries to save while the lock is held
_SAVE_WITHIN = 2.0  # seconds after the first failure; no try begins later
_ASKED_NOTHING = (
    ", so nothing was asked of the server: without it, two processes could spend one refresh token. It is tried again "
    "after a back-off."
)


_NO_LOCK: Lock = nullcontext()


class NoStorage:
    """The store has no storage: nothing is locked, loaded or saved."""

    __slots__ = ()

    def acquire_lock(self, _flight: Flight, _began: State) -> Generator[Call, Any, Lock | Adopt | None]:
        """A lock that every caller gets at once."""
        yield from ()
        return _NO_LOCK

    def next_step(self, _flight: Flight, began: State, at: Moment) -> Generator[Call, Any, NextStep]:
        """Ask for the token that follows the current one."""
        yield from ()
        return Ask(began.token or Token(), at)

    def look_again(self, _last: Token, _error: SignInRequired) -> Generator[Call, Any, Token | None]:
        """None: no other process can have renewed the token."""
        yield from ()
        return None

    def save(self, _token: Token, _worker: Worker) -> Generator[Call, Any, ReauthError | None]:
        """Do nothing."""
        yield from ()
        return None

    def write_pending(self, _worker: Worker) -> Generator[Call, Any, ReauthError | None]:
        """Do nothing."""
        yield from ()
        return None

    def wait_for_lock(self, _worker: Worker, _found: object) -> Generator[Call, Any, Lock | Adopt | None]:
        """A lock that every caller gets at once."""
        yield from ()
        return _NO_LOCK

    def tokens_to_revoke(self, forgot: State) -> Generator[Call, Any, list[Token]]:
        """The token that was signed out, if there was one."""
        yield from ()
        return [] if forgot.token is None else [forgot.token]

    def release(self, _lock: Lock) -> None:
        """Do nothing."""


class StorageSync:
    """The store has a storage."""

    __slots__ = ("_storage", "_store")

    def __init__(self, store: TokenStore, storage: Storage) -> None:
        self._store = store
        self._storage = storage

    @property
    def _stored(self) -> Stored:
        return self._store._state.stored or Stored()

    def acquire_lock(self, flight: Flight, began: State) -> Generator[Call, Any, Lock | Adopt | None]:
        """The lock, entered; or a token that another process has renewed meanwhile; or None: superseded."""
        worker = flight.worker

        def found(token: Token) -> Adopt | None:
            self._note_refusal(flight)
            at, stored = moment(clock_of(self._store)), self._stored
            is_new = token.access_token != stored.last_seen
            if is_new and is_adoptable(token, flight.reason, began.token, stored.last_seen, at):
                return adopt(token, at)
            return None

        # A superseded refresh may be spending the stored refresh token, and a pending change replaces the stored token.
        # In both cases the stored token must not be adopted without the lock.
        is_spent = any(one.superseded for one in workers_of(self._store))
        wants_lock = is_spent or bool(began.pending_write)
        return (yield from self.wait_for_lock(worker, None if wants_lock else found, is_refresh=True))

    def next_step(self, flight: Flight, began: State, at: Moment) -> Generator[Call, Any, NextStep | None]:
        """Load the stored token, and decide what the refresh does next; None: it was superseded meanwhile."""
        before, current, pending_write = self._stored, began.token, self._store._state.pending_write
        if current is None and pending_write == "signed out":
            if (failed := (yield from self._clear(flight.worker))) is not None:
                raise StorageUnavailable(
                    f"Somebody has signed out, but the storage could not be cleared ({_words(failed)}), so nothing was "
                    "asked of the server. It is tried again after a back-off."
                ) from failed
            before, pending_write = self._stored, ""
        stored = yield from self._load(by_hand=pending_write == "signed in")
        if self._store._state.session != began.session:
            return None
        self._note_refusal(flight)
        at = moment(clock_of(self._store))
        if current is not None and pending_write:
            is_refused = before.refusal_of(current) is not None
            if is_outdated(
                stored,
                before.last_seen,
                pending_write=pending_write,
                is_loaded=before.is_loaded,
                is_refused=is_refused,
            ):
                self._store._apply(WriteSuperseded(current))  # even if the stored token cannot be renewed now
                pending_write = ""
        if not before.is_loaded and flight.reason == "missing" and stored is not None and stored.access_token:
            ended = at.monotonic >= policy.deadline_of(stored, at)
            flight.reason = "expired" if ended else flight.reason
        step = next_step(current, stored, before.last_seen, pending_write=pending_write, reason=flight.reason, at=at)
        if isinstance(step, Ask):
            self._check_before_asking(step.last, flight)
        return step

    def _note_refusal(self, flight: Flight) -> None:
        """Change the reason of `flight` if a server has refused the token since it began: then it is not adopted."""
        current = self._store._state.current
        if current is not None and current.refused:
            flight.reason = "rejected"

    def _check_before_asking(self, last: Token, flight: Flight) -> None:
        if (error := self._stored.refusal_of(last)) is not None:
            raise copy_for_waiter(error)  # the server has refused this refresh token for good: it is not sent again
        if 2 * flight.worker.time_left() < flight.worker.deadline - flight.worker.started:
            raise storage_busy(
                "The storage's lock was taken too late to finish a refresh within refresh_timeout, and one that is "
                "stopped half-way can lose the refresh token. Nothing was asked of the server; it is tried again after "
                "a back-off."
            )

    def look_again(self, last: Token, error: SignInRequired) -> Generator[Call, Any, Token | None]:
        """The stored token, after the server refused `last`; None if it has the same refresh token, or there is none.

        Another program may have renewed the token without the lock.
        """
        drop_frames(error)  # the state holds the error
        self._store._apply(GrantRefused(last, error))
        stored = yield from self._load()
        if stored is None or stored.refresh_token == last.refresh_token:
            return None
        self._store._apply(WriteSuperseded(last))  # even if the stored token cannot be renewed now
        return stored

    def save(self, token: Token, worker: Worker, *, by_hand: bool = False) -> Generator[Call, Any, ReauthError | None]:
        """Save `token`; return the error, or None. The token counts in memory even if it could not be saved."""
        failed = yield from self._write(worker, self._storage.save, token, by_hand=by_hand)
        if failed is None:
            self._store._apply(Saved(token))
        return failed

    def write_pending(self, worker: Worker) -> Generator[Call, Any, ReauthError | None]:
        """Write the pending change; return the error, or None. The caller has the lock."""
        state = self._store._state
        token, pending_write, before = state.token, state.pending_write, self._stored
        if not pending_write:
            return None  # it was written meanwhile, and another process may have renewed that token since
        if token is None:
            return (yield from self._clear(worker))
        is_refused = before.refusal_of(token) is not None
        if pending_write == "renewed" or is_refused:
            try:
                stored = yield from self._load(by_hand=pending_write == "signed in")
            except StorageUnavailable as error:
                return error
            if pending_write == "renewed" and stored is None and before.last_seen is not None:
                sign_out_here(self._store, state.session)
                return None
            if is_outdated(
                stored,
                before.last_seen,
                pending_write=pending_write,
                is_loaded=before.is_loaded,
                is_refused=is_refused,
            ):
                self._store._apply(WriteSuperseded(token))
                return None
        failed = yield from self.save(token, worker, by_hand=pending_write == "signed in")
        if failed is None and pending_write == "renewed":
            _log.info("%sSaved the token that could not be saved before.", log_prefix(self._store))
        return failed

    def tokens_to_revoke(self, forgot: State) -> Generator[Call, Any, list[Token]]:
        """The tokens that a sign-out revokes; `forgot` is the state before the sign-out.

        Normally it is one token: the stored one, since another process may have renewed the token of `forgot`.
        """
        mine = [] if forgot.token is None else [forgot.token]
        if self._store._state.session != forgot.session + 1:  # the stored token may be that of a later sign-in
            return mine
        try:
            stored = yield from self._load(by_hand=True)
        except StorageUnavailable:  # `clear` may still work; if not, its error is reported
            return mine
        if stored is None or _same_grant(stored, forgot.token):
            return mine
        return [*mine, stored] if forgot.pending_write else [stored]

    def release(self, lock: Lock) -> None:
        """Release the lock on this thread, without a `yield`, since a `finally` calls this."""
        try:
            lock.__exit__(None, None, None)
        except Exception as error:  # noqa: BLE001 - the token still counts, and a lease expires
            _log.warning("%sThe storage's lock could not be released (%s).", log_prefix(self._store), _words(error))

    def _write(
        self, worker: Worker, function: Callable[..., object], *arguments: Token, by_hand: bool = False
    ) -> Generator[Call, Any, ReauthError | None]:
        """Call `save` or `clear`, several times if it fails; return the last error, or None.

        The tries last for one or two seconds, while the lock is held. After the release of the lock, the next process
        would find a refresh token that is spent.

        Args:
            worker: the worker, whose deadline limits the tries.
            function: `save` or `clear`.
            *arguments: the arguments of `function`.
            by_hand: somebody has signed in or out. Then a damaged document is moved aside; a refresh never does that.
        """
        state, pauses, give_up_at = self._store._state, iter(_SAVE_PAUSES), inf
        while True:
            try:
                yield from _call(function, *arguments)
            except Stopped:
                raise
            except Exception as error:  # noqa: BLE001 - a storage may raise any error
                failed = as_storage_error(error)
                redact(failed, *[secret for token in arguments for secret in secrets_of(token)])
            else:
                return None
            if by_hand and (yield from self._set_aside()):
                by_hand = False
                continue
            pause = next(pauses, inf)
            give_up_at = min(give_up_at, monotonic() + _SAVE_WITHIN)
            if (
                monotonic() + pause >= give_up_at
                or worker.time_left() <= pause
                or self._store._state.session != state.session
            ):
                return failed
            yield Call(sleep, (pause,))

    def _set_aside(self) -> Generator[Call, Any, bool]:
        """Let the storage move a damaged document aside; return whether it did."""
        set_aside = getattr(self._storage, "set_aside", None)
        if not callable(set_aside):
            return False
        try:
            return bool((yield from _call(set_aside)))
        except Stopped:
            raise
        except Exception:  # noqa: BLE001 - the error before is reported instead
            return False

    def _clear(self, worker: Worker) -> Generator[Call, Any, ReauthError | None]:
        failed = yield from self._write(worker, self._storage.clear, by_hand=True)
        if failed is None:
            self._store._apply(Saved(None))  # before the lock is released, so before another process signs in
        return failed

    def _load(self, *, by_hand: bool = False) -> Generator[Call, Any, Token | None]:
        try:
            stored = yield from _load(self._storage)
        except Stopped:
            raise
        except Exception as error:
            if by_hand and (yield from self._set_aside()):
                return (yield from self._load())
            so = "." if by_hand else ", so nothing was asked of the server. It is tried again after a back-off."
            raise StorageUnavailable(f"The storage could not be read ({_words(error)}){so}") from error
        self._store._apply(Loaded(stored))
        return stored

    def wait_for_lock(
        self, worker: Worker, found: Callable[[Token], Adopt | None] | None, *, is_refresh: bool = False
    ) -> Generator[Call, Any, Lock | Adopt | None]:
        """The storage's lock, entered; or an `Adopt` that `found` returns; or None: the worker is superseded.

        `found` gets the stored token now and then during the wait. If this token makes the lock unnecessary, `found`
        returns an `Adopt`.

        Raises:
            StorageUnavailable: the lock is broken, or was not free in time. If `is_refresh`, the message says what that
                means for a refresh.
        """
        so = _ASKED_NOTHING if is_refresh else "."
        began = monotonic()
        patience = _WAIT_SHARE * worker.time_left()
        lease = 2 * (worker.deadline - worker.started) + _LEASE_MARGIN
        looking, look_at, try_at = 0.0, began, began
        while True:
            if monotonic() >= try_at:
                lock = yield from self._try_lock(lease, so)
                if lock is not None:
                    return lock
                try_at = monotonic() + _TRY_LOCK_EVERY
            if worker.superseded:
                return None
            if found is not None and monotonic() >= look_at:
                look_began = monotonic()
                stored = yield from self._peek()
                if stored is not None and (adopted := found(stored)) is not None:
                    self._store._apply(Loaded(stored))
                    return adopted
                now = monotonic()
                looking += now - look_began
                pause = min(_LOOK_EVERY_MAX, _LOOK_EVERY + _LOOK_GROWTH * (now - began)) * uniform(0.5, 1)  # noqa: S311
                look_at = max(now + pause, began + looking / _LOOK_SHARE)
            now = monotonic()
            if now - began >= patience or worker.time_left() <= 0:
                raise storage_busy(
                    f"Somebody else has held the lock of the storage for {now - began:.3g} s{so} "
                    f"If a process hangs with the lock of this {type(self._storage).__name__}, end it."
                )
            wake_at = min(try_at, look_at) if found is not None else try_at
            yield Call(sleep, (max(0.001, min(wake_at, began + patience) - now),))

    def _try_lock(self, lease: float, so: str) -> Generator[Call, Any, Lock | None]:
        try:
            lock: Lock | None = yield from _call(self._storage.try_lock, lease)
            if lock is not None:
                if not isinstance(cast("object", lock), AbstractContextManager):  # e.g. the True of `acquire`
                    raise StorageError(  # noqa: TRY301 - handled below like an error of the storage
                        f"try_lock returned {type(lock).__name__}; it must return a context manager or None"
                    )
                yield Call(lock.__enter__)
        except Stopped:
            raise
        except Exception as error:
            raise StorageUnavailable(f"The storage's lock could not be taken ({_words(error)}){so}") from error
        return lock

    def _peek(self) -> Generator[Call, Any, Token | None]:
        """The stored token, loaded without the lock; None on an error."""
        try:
            return (yield from _load(self._storage))
        except Stopped:
            raise
        except Exception:  # noqa: BLE001 - it may be half written; another error is reported under the lock
            return None


class StorageJob:
    """A job that writes the pending change: after a sign-in, a sign-out, or a save that failed.

    Attributes:
        worker: runs the job.
        error: why the write failed; set when the worker is finished.
        is_written: the change is written. The job may still have to revoke a token.
    """

    __slots__ = ("error", "is_written", "worker")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.error: ReauthError | None = None
        self.is_written = False

    def steps(self, sync: StorageSync, store: TokenStore) -> Steps:
        """Take the lock, write the pending change, release the lock."""
        token = store._state.token
        try:
            lock = yield from sync.wait_for_lock(self.worker, None)
            if lock is None or isinstance(lock, Adopt):  # never: a job is not superseded and adopts nothing
                return
            try:
                self.error = yield from sync.write_pending(self.worker)
            finally:
                sync.release(lock)
        except ReauthError as error:
            self.error = error
        except Stopped:
            self.error = write_stopped()
        if self.error is not None:
            report_unsaved(store, self.error, token)
        store._notify()


def sync_of(store: TokenStore) -> NoStorage | StorageSync:
    """The `StorageSync` of `store`; a `NoStorage` if it has no storage."""
    return NoStorage() if store._storage is None else StorageSync(store, store._storage)


def start_storage_job(store: TokenStore, timeout: float, package: str | None = None) -> StorageJob | None:
    """Start a job that writes the pending change of `store`; None if there is no storage."""
    if store._storage is None:
        return None
    sync = StorageSync(store, store._storage)
    return start_job(store, timeout, package, lambda job: job.steps(sync, store))


def start_job(
    store: TokenStore, timeout: float, package: str | None, steps_of: Callable[[StorageJob], Steps]
) -> StorageJob:
    """Start a job; `steps_of(job)` returns its steps."""
    worker = Worker(store, clock_of(store).monotonic(), timeout, package=package)
    job = StorageJob(worker)
    worker.accept(steps_of(job))
    try:
        worker.start(as_task=False)
    except BaseException:
        if worker.take() is not None:
            worker.finished.set()
        raise
    return job


def write_stopped() -> StorageError:
    """Return the error of a job that was stopped: by an exception that ends a thread, or by the end of its loop."""
    return StorageError("The write to the storage was stopped, so nobody knows whether it took effect")


def report_unsaved(store: TokenStore, error: ReauthError, token: Token | None) -> None:
    """Report that the pending change could not be written: by `SaveFailed` and a log line, once for each change."""
    at_exit.remember(store, start_storage_job)
    if store._apply(SaveFailed(error, token=token)):
        what = "clear the storage" if token is None else "save the new token, which is kept in memory"
        _log.warning("%sCould not %s; it is tried again later: %s", log_prefix(store), what, error)


def sign_out_here(store: TokenStore, session: int) -> None:
    """Sign out in this process, since another process has signed out; but not if `session` has ended meanwhile."""
    if store._state.current is not None and store._apply(SignedOut(session=session)):
        _log.info("%sSigned out by another process: the storage holds no token any more.", log_prefix(store))
        store._apply(Saved(None))


def _same_grant(one: Token, other: Token | None) -> bool:
    """Do both tokens have the same refresh token? Or have they no refresh token, and the same access token?"""
    if other is None or one.refresh_token != other.refresh_token:
        return False
    return one.refresh_token is not None or one.access_token == other.access_token


def _load(storage: Storage) -> Generator[Call, Any, Token | None]:
    """The token in `storage`, or None. Raises `StorageError` if `load` returns something else, or a ciphertext."""
    stored: object = yield from _call(storage.load)
    if stored is None:
        return None
    if not isinstance(stored, Token):
        raise StorageError(f"load returned {type(stored).__name__}; it must return a Token or None")
    if stored.token_type == CIPHERTEXT:
        raise StorageError(
            "it holds a token that EncryptedStorage has encrypted: put the same EncryptedStorage around this "
            f"{type(storage).__name__}, with its key"
        )
    return stored


def _call(function: Callable[..., object], *arguments: object) -> Generator[Call, Any, Any]:
    """The result of a function of the storage. Raises `StorageError` for an awaitable, which nobody would await."""
    answer = yield Call(function, arguments)
    if isawaitable(answer):
        getattr(answer, "close", bool)()
        name = getattr(function, "__name__", "A function")
        raise StorageError(f"{name} of the storage returned an awaitable: it must be a plain function that may block")
    return answer


def as_storage_error(error: Exception) -> ReauthError:
    """`error` as an error of this library. The message of any other error is left out: it may contain the token."""
    if isinstance(error, ReauthError):
        return error
    known = in_our_words(StorageError(f"The storage raised {_what(error)}."))
    known.__cause__ = error
    return known


def _words(error: Exception) -> str:
    return in_ascii(redacted(str(error))) if isinstance(error, ReauthError) else _what(error)


def _what(error: Exception) -> str:
    """The class and the place of a storage's exception; of an `OSError`, also the words of the operating system."""
    number, place = getattr(error, "errno", None), place_of(error, None)
    what = f"{type(error).__name__} ({strerror(number)})" if isinstance(number, int) else type(error).__name__
    return f"{what} at {place}" if place else what
