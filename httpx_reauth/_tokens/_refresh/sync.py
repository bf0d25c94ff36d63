"""What a refresh, a sign-in and a sign-out do with the storage. `NoStorage` does nothing, in the same words.

All are generators that yield the storage's calls, since each may block. What is known of the storage is in the state.

Waiting for the lock: the storage's lock is tried, never waited for. Of many processes that want it for one renewal,
only the first needs it. The others want the token that it saves, and for that a look is enough: `load` needs no lock.
So who waits tries the lock now and then, looks more often, and stops when somebody signs in or out here.
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

_LEASE_MARGIN = 10.0  # seconds beyond twice the time of a refresh, for which a holder may need the lock
_WAIT_SHARE = (
    0.9  # of the time that is left, at most, goes into waiting for the lock; the rest is to say that it was busy
)
_TRY_LOCK_EVERY = 0.25  # seconds
_LOOK_EVERY = 0.025  # seconds between two looks at first,
_LOOK_GROWTH = 0.05  # growing by this share of the time waited
_LOOK_EVERY_MAX = 0.25  # seconds
_LOOK_SHARE = 0.1  # of the time waited, at most, goes into looking
_SAVE_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds between the tries to save while the lock is held
_SAVE_WITHIN = 2.0  # seconds after the first failure; no try begins later


_NO_LOCK: Lock = nullcontext()


class NoStorage:
    """There is no storage: the token is that of the state, and nothing has to be saved."""

    __slots__ = ()

    def acquire_lock(self, _flight: Flight, _began: State) -> Generator[Call, Any, Lock | Adopt | None]:
        """A lock that keeps nobody out."""
        yield from ()
        return _NO_LOCK

    def next_step(self, _flight: Flight, began: State, at: Moment) -> Generator[Call, Any, NextStep]:
        """Ask for the successor of the token that there is."""
        yield from ()
        return Ask(began.token or Token(), at)

    def look_again(self, _last: Token, _error: SignInRequired) -> Generator[Call, Any, Token | None]:
        """Nobody else can have renewed it."""
        yield from ()
        return None

    def save(self, _token: Token, _worker: Worker) -> Generator[Call, Any, ReauthError | None]:
        """Nothing."""
        yield from ()
        return None

    def write_pending(self, _worker: Worker) -> Generator[Call, Any, ReauthError | None]:
        """Nothing."""
        yield from ()
        return None

    def wait_for_lock(self, _worker: Worker, _found: object) -> Generator[Call, Any, Lock | Adopt | None]:
        """A lock that keeps nobody out."""
        yield from ()
        return _NO_LOCK

    def tokens_to_revoke(self, forgot: State) -> Generator[Call, Any, list[Token]]:
        """The token of memory."""
        yield from ()
        return [] if forgot.token is None else [forgot.token]

    def release(self, _lock: Lock) -> None:
        """Nothing."""


class StorageSync:
    """A store and its storage."""

    __slots__ = ("_storage", "_store")

    def __init__(self, store: TokenStore, storage: Storage) -> None:
        self._store = store
        self._storage = storage

    @property
    def _stored(self) -> Stored:
        return self._store._state.stored or Stored()

    def acquire_lock(self, flight: Flight, began: State) -> Generator[Call, Any, Lock | Adopt | None]:
        """The lock; or the token that another process has renewed while this one waited; or None: superseded."""
        worker = flight.worker

        def found(token: Token) -> Adopt | None:
            at, stored = moment(clock_of(self._store)), self._stored
            is_new = token.access_token != stored.last_seen
            if is_new and is_adoptable(token, flight.reason, began.token, stored.last_seen, at):
                return adopt(token, at)
            return None

        # What a superseded refresh spends is what the storage holds. What is still to be written replaces it.
        is_spent = any(one.superseded for one in workers_of(self._store))
        wants_lock = is_spent or bool(began.pending_write)
        return (yield from self.wait_for_lock(worker, None if wants_lock else found))

    def next_step(self, flight: Flight, began: State, at: Moment) -> Generator[Call, Any, NextStep]:
        """What the storage holds, and what to do about it."""
        before, current, pending_write = self._stored, began.token, self._store._state.pending_write
        if current is None and pending_write == "signed out":
            if (failed := (yield from self._clear(flight.worker))) is not None:
                raise failed
            before, pending_write = self._stored, ""
        stored = yield from self._load(by_hand=pending_write == "signed in")
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
                self._store._apply(WriteSuperseded(current))  # also if what is stored cannot be renewed yet
                pending_write = ""
        if not before.is_loaded and flight.reason == "missing" and stored is not None and stored.access_token:
            ended = at.monotonic >= policy.deadline_of(stored, at)
            flight.reason = "expired" if ended else flight.reason
        step = next_step(current, stored, before.last_seen, pending_write=pending_write, reason=flight.reason, at=at)
        if isinstance(step, Ask):
            self._check_before_asking(step.last, flight)
        return step

    def _check_before_asking(self, last: Token, flight: Flight) -> None:
        if (error := self._stored.refusal_of(last)) is not None:
            raise copy_for_waiter(error)  # nobody has signed in meanwhile: a dead refresh token is not posted again
        if 2 * flight.worker.time_left() < flight.worker.deadline - flight.worker.started:
            raise storage_busy(
                "The storage's lock was taken too late to finish a refresh within refresh_timeout, and one that is "
                "stopped half-way can lose the refresh token. Nothing was asked of the server; it is tried again after "
                "a back-off."
            )

    def look_again(self, last: Token, error: SignInRequired) -> Generator[Call, Any, Token | None]:
        """The server refuses `last`: what somebody who does not take the lock has put there meanwhile, if anything."""
        drop_frames(error)  # the state keeps it
        self._store._apply(GrantRefused(last, error))
        stored = yield from self._load()
        return None if stored is None or stored.refresh_token == last.refresh_token else stored

    def save(self, token: Token, worker: Worker, *, by_hand: bool = False) -> Generator[Call, Any, ReauthError | None]:
        """Hold `token`; returns what went wrong, if anything did, since the token counts all the same."""
        failed = yield from self._write(worker, self._storage.save, token, by_hand=by_hand)
        if failed is None:
            self._store._apply(Saved(token))
        return failed

    def write_pending(self, worker: Worker) -> Generator[Call, Any, ReauthError | None]:
        """Write what the storage does not hold yet; returns what went wrong. The lock is held."""
        state = self._store._state
        token, pending_write, before = state.token, state.pending_write, self._stored
        if not pending_write:
            return None  # somebody else has done it, and others may have spent it since
        if token is None:
            return (yield from self._clear(worker))
        is_refused = before.refusal_of(token) is not None
        if pending_write == "renewed" or is_refused:
            try:
                stored = yield from self._load(by_hand=pending_write == "signed in")
            except StorageUnavailable as error:
                return error
            if pending_write == "renewed" and stored is None and before.last_seen is not None:
                sign_out_here(self._store)
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
        """What a sign-out revokes, where `forgot` is the state before it: the newest token, as far as one can tell."""
        mine = [] if forgot.token is None else [forgot.token]
        if self._store._state.session != forgot.session + 1:  # somebody has signed in since: what is stored is theirs
            return mine
        try:
            stored = yield from self._load(by_hand=True)
        except StorageUnavailable:  # clearing it may work all the same; if not, that says so
            return mine
        if stored is None or _same_grant(stored, forgot.token):
            return mine
        return [*mine, stored] if forgot.pending_write else [stored]

    def release(self, lock: Lock) -> None:
        """Release the lock, here and now: it is part of a `finally`."""
        try:
            lock.__exit__(None, None, None)
        except Exception as error:  # noqa: BLE001 - the token counts all the same; a lease ends by itself
            _log.warning("%sThe storage's lock could not be released (%s).", log_prefix(self._store), _words(error))

    def _write(
        self, worker: Worker, function: Callable[..., object], *arguments: Token, by_hand: bool = False
    ) -> Generator[Call, Any, ReauthError | None]:
        """Call `save` or `clear`, several times if it fails; returns what went wrong the last time.

        Another try is made for a moment, while the lock is held: the next process would find a token that is spent.

        Args:
            worker: whose time it is.
            function: `save` or `clear`.
            *arguments: what it gets.
            by_hand: somebody has signed in or out, so what is damaged is moved out of the way. A refresh never does
            that.
        """
        state, pauses, give_up_at = self._store._state, iter(_SAVE_PAUSES), inf
        while True:
            try:
                yield from _call(function, *arguments)
            except Stopped:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a storage raises
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
        """Was what the storage holds damaged, and is it out of the way now?"""
        set_aside = getattr(self._storage, "set_aside", None)
        if not callable(set_aside):
            return False
        try:
            return bool((yield from _call(set_aside)))
        except Stopped:
            raise
        except Exception:  # noqa: BLE001 - what failed before says more
            return False

    def _clear(self, worker: Worker) -> Generator[Call, Any, ReauthError | None]:
        failed = yield from self._write(worker, self._storage.clear, by_hand=True)
        if failed is None:
            self._store._apply(Saved(None))  # before others can take the lock, and sign in
        return failed

    def _load(self, *, by_hand: bool = False) -> Generator[Call, Any, Token | None]:
        try:
            stored = yield from _load(self._storage)
        except Stopped:
            raise
        except Exception as error:
            if by_hand and (yield from self._set_aside()):
                return (yield from self._load())
            raise StorageUnavailable(
                f"The storage could not be read ({_words(error)}), so nothing was asked of the server. "
                "It is tried again after a back-off."
            ) from error
        self._store._apply(Loaded(stored))
        return stored

    def wait_for_lock(
        self, worker: Worker, found: Callable[[Token], Adopt | None] | None
    ) -> Generator[Call, Any, Lock | Adopt | None]:
        """The storage's lock, entered; or what makes it needless: a token that is `found`; None: superseded."""
        began = monotonic()
        patience = _WAIT_SHARE * worker.time_left()
        lease = 2 * (worker.deadline - worker.started) + _LEASE_MARGIN
        looking, look_at, try_at = 0.0, began, began
        while True:
            if monotonic() >= try_at:
                lock = yield from self._try_lock(lease)
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
                    f"Somebody else has held the lock of the storage for {now - began:.3g} s, so nothing was asked of "
                    "the server: without it, two processes could spend one refresh token. It is tried again after a "
                    f"back-off. If a process hangs with the lock of this {type(self._storage).__name__}, end it."
                )
            wake_at = min(try_at, look_at) if found is not None else try_at
            yield Call(sleep, (max(0.001, min(wake_at, began + patience) - now),))

    def _try_lock(self, lease: float) -> Generator[Call, Any, Lock | None]:
        try:
            lock: Lock | None = yield from _call(self._storage.try_lock, lease)
            if lock is not None:
                if not isinstance(cast("object", lock), AbstractContextManager):  # True, as `acquire` of a lock returns
                    raise StorageError(  # noqa: TRY301 - said like what a storage says
                        f"try_lock returned {type(lock).__name__}; it must return a context manager or None"
                    )
                yield Call(lock.__enter__)
        except Stopped:
            raise
        except Exception as error:
            raise StorageUnavailable(
                f"The storage's lock could not be taken ({_words(error)}), so nothing was asked of the server: without "
                "it, two processes could spend one refresh token. It is tried again after a back-off."
            ) from error
        return lock

    def _peek(self) -> Generator[Call, Any, Token | None]:
        """What the storage holds, seen without the lock, while somebody else has that."""
        try:
            return (yield from _load(self._storage))
        except Stopped:
            raise
        except Exception:  # noqa: BLE001 - it may be half written; if not, the one with the lock says so
            return None


class StorageJob:
    """Write to the storage what it does not hold yet: after a sign-in, a sign-out, or a save that failed.

    Attributes:
        worker: who does it.
        error: what went wrong, once it is finished.
        is_written: the storage holds what it should; what is left to do is not about it.
    """

    __slots__ = ("error", "is_written", "worker")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.error: ReauthError | None = None
        self.is_written = False

    def steps(self, sync: StorageSync, store: TokenStore) -> Steps:
        """Take the lock, write, release."""
        token = store._state.token
        try:
            lock = yield from sync.wait_for_lock(self.worker, None)
            if lock is None or isinstance(lock, Adopt):  # no sign-in supersedes it, and it looks for nothing
                return
            try:
                self.error = yield from sync.write_pending(self.worker)
            finally:
                sync.release(lock)
        except ReauthError as error:
            self.error = error
        if self.error is not None:
            report_unsaved(store, self.error, token)
        store._notify()


def sync_of(store: TokenStore) -> NoStorage | StorageSync:
    """What a refresh of `store` does with its storage."""
    return NoStorage() if store._storage is None else StorageSync(store, store._storage)


def start_storage_job(store: TokenStore, timeout: float, package: str | None = None) -> StorageJob | None:
    """Start to write what the storage does not hold yet; None if there is no storage."""
    if store._storage is None:
        return None
    sync = StorageSync(store, store._storage)
    return start_job(store, timeout, package, lambda job: job.steps(sync, store))


def start_job(
    store: TokenStore, timeout: float, package: str | None, steps_of: Callable[[StorageJob], Steps]
) -> StorageJob:
    """Start a job that has these steps."""
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


def report_unsaved(store: TokenStore, error: ReauthError, token: Token | None) -> None:
    """Tell the listeners, once for each change, that it counts but could not be written."""
    at_exit.remember(store, start_storage_job)
    if store._apply(SaveFailed(error, token=token)):
        what = "clear the storage" if token is None else "save the new token, which is kept in memory"
        _log.warning("%sCould not %s; it is tried again later: %s", log_prefix(store), what, error)


def sign_out_here(store: TokenStore) -> None:
    """Follow another process that has signed out."""
    if store._state.current is not None and store._apply(SignedOut()):
        _log.info("%sSigned out by another process: the storage holds no token any more.", log_prefix(store))
        store._apply(Saved(None))


def _same_grant(one: Token, other: Token | None) -> bool:
    """Do both have the same refresh token, or neither one and the same access token?"""
    if other is None or one.refresh_token != other.refresh_token:
        return False
    return one.refresh_token is not None or one.access_token == other.access_token


def _load(storage: Storage) -> Generator[Call, Any, Token | None]:
    """What `storage` holds, if it is a token that can be used."""
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
    """What a function of the storage returns; an awaitable would never be awaited, and what it was to do not done."""
    answer = yield Call(function, arguments)
    if isawaitable(answer):
        getattr(answer, "close", bool)()
        name = getattr(function, "__name__", "A function")
        raise StorageError(f"{name} of the storage returned an awaitable: it must be a plain function that may block")
    return answer


def as_storage_error(error: Exception) -> ReauthError:
    """`error` as one of ours. The words of another's are not repeated: they may hold what was to be saved."""
    if isinstance(error, ReauthError):
        return error
    known = in_our_words(StorageError(f"The storage raised {_what(error)}."))
    known.__cause__ = error
    return known


def _words(error: Exception) -> str:
    return in_ascii(redacted(str(error))) if isinstance(error, ReauthError) else _what(error)


def _what(error: Exception) -> str:
    """Kind and place of a storage's exception; of an error of the system, what that calls it."""
    number, place = getattr(error, "errno", None), place_of(error, None)
    what = f"{type(error).__name__} ({strerror(number)})" if isinstance(number, int) else type(error).__name__
    return f"{what} at {place}" if place else what
