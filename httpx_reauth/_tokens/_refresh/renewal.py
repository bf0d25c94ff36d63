"""One refresh, in six steps. This page tells the whole algorithm; everything else in this folder serves it.

    1. take the storage's lock
    2. load the stored token
    3. use the stored token if it is a newer one that has not expired; else call the refresh function, which gets a new
       token from the server
    4. save the new token
    5. publish it: the state changes
    6. release the lock, then tell the listeners, then wake the requests that wait

Without a storage there is no lock, no load and no save: step 3 always calls the refresh function.

Words: a *refresh* is all of this. The *refresh function* is the user's function, the user's coroutine function, or a
grant (a ready-made function of `httpx_reauth.oauth`). A *newer* token is another one than the refresh began with. A
*worker* runs the six steps, in a thread. If the refresh function is a coroutine function, a task calls it, on the event
loop of the caller that started the refresh; and if there is no storage, that task runs all steps, without a thread.

Why in this order: a server accepts a rotating refresh token only once, so only one process may send it; hence the lock.
The stored token is loaded under the lock, since another process may have renewed it just before. The new token is saved
before any request gets it: a crash later on does not leave the spent refresh token in the storage. The token is
published before the lock is released, and a waiting request looks at the state once a second: so it gets its token even
if the release hangs, or a listener blocks. The listeners come after the release, since a listener may need the lock.

What happens if ...

**... the API refuses the token** (a 401): the request asks for a newer token. If the state already holds one, the
request takes that. Else the request starts a refresh, or joins the one under way. With a newer token, the request is
sent once more. If the API refuses that as well, the caller gets the 401. A token that the API has refused is never
taken from the storage, even if it has not expired.

**... the token endpoint refuses the refresh token** (`invalid_grant`): the state records that this refresh token was
refused. The refresh loads the stored token once more, since a program that ignores the lock may have renewed it. If the
storage holds another token, the refresh uses its access token if that has not expired; else it calls the refresh
function once more, with that token. There is no third call. If both calls are refused, or the storage holds no other
token, the refresh fails with `SignInRequired`. No token request is sent until there is a new sign-in, in this process
or in the storage.

**... another process was faster**: a refresh that waits for the lock looks at the storage now and then. If it finds a
newer token there, it publishes that token without taking the lock. If it gets the lock first, it finds the token in
step 2. In both cases no token request is sent and nothing is saved.

**... somebody signs in or out meanwhile**: the refresh is superseded. All requests that wait for it are woken at once.
They belong to the session that has ended, so they get `SignInRequired`. There is one exception: after a sign-in, a
request that began without any token uses the token of the sign-in. The refresh runs to its end, since its token request
may already have been sent. It neither publishes nor saves the new token. Instead, it writes the sign-in or the sign-out
to the storage before it releases the lock: otherwise the storage would keep a refresh token that may be spent. After
`sign_out(revoke=True)`, it revokes the new token at the server; after a sign-in or a plain `sign_out()`, it drops it.

**... the caller that started it is cancelled**, or its own timeout expires: the refresh goes on, since it runs in the
worker, not in the caller. The other requests go on waiting. The new token is saved and published as always.

**... the event loop ends**: a coroutine stops with its event loop, which is that of the caller that started the
refresh. The server may have renewed the token, and its answer is lost: the outcome is unknown, and the refresh fails
with an error that says so. A request on another event loop does not raise this error. It starts a second refresh at
once, with the same refresh token, or joins the second one. If the server refuses the refresh token now, that ends as
described above. If the second refresh is stopped as well, the request raises the error. A plain function and a grant
run in a thread and go on.

**... the refresh takes too long**: a coroutine is cancelled shortly before `refresh_timeout`; its outcome is unknown. A
plain function cannot be stopped. Its waiting requests fail at `refresh_timeout`. No second refresh starts while it
runs. If it returns later, its token is saved and published.

**... saving fails**: it is tried again for one or two seconds, while the lock is held. Then the token is published all
the same, since it is valid: this is the exception to "saved before any request gets it". The state marks the token as
not saved, and the listeners hear `SaveFailed`. Later requests, `close` and the end of the interpreter try again, under
the lock, unless the storage then holds a newer token. Until one of these tries succeeds, the storage holds the spent
refresh token: after a crash of this process, or in another process, the server refuses it.

**... the storage cannot be read or locked**: the refresh fails, since otherwise two processes might send the same
refresh token. There is one exception: a grant that can be repeated without harm (client credentials) asks without the
storage, as soon as no usable token is left.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Generator, Iterator
from dataclasses import replace
from math import inf
from random import random
from typing import TYPE_CHECKING, Any

from httpx_reauth._clock import Moment, moment
from httpx_reauth._errors import (
    ReauthError,
    RefreshError,
    SignInRequired,
    StorageUnavailable,
    after_spending_nothing,
    copy_for_waiter,
    drop_frames,
    in_ascii,
    in_our_words,
    is_away,
    is_final,
    keep_refresh_token,
    members_of,
    place_of,
    printable,
    set_retry_after,
    take_refresh_token,
)
from httpx_reauth._state import policy
from httpx_reauth._state.actions import RefreshFulfilled, RefreshRejected
from httpx_reauth._state.adoption import Adopt, Ask, NextStep, SignedOutElsewhere, is_usable
from httpx_reauth._state.state import State
from httpx_reauth._state.store import TokenStore, clock_of, draw_jitter, log_prefix
from httpx_reauth._token import Refresh, Token, lost_scopes
from httpx_reauth._tokens._refresh.flight import Flight
from httpx_reauth._tokens._refresh.loops import Stopped
from httpx_reauth._tokens._refresh.revocation import revoke_each
from httpx_reauth._tokens._refresh.sync import report_unsaved, sign_out_here, sync_of
from httpx_reauth._tokens._refresh.worker import Call, Steps, Worker
from httpx_reauth.oauth.redaction import redact, redacted, secrets_of
from httpx_reauth.oauth.response import keep_refresh_token_in, keep_refresh_token_of, token_fields

if TYPE_CHECKING:
    from httpx_reauth._clock import Clock
    from httpx_reauth._tokens._refresh.sync import NoStorage, StorageSync

_log = logging.getLogger("httpx_reauth")

_HEAD_START = 0.1  # seconds: a coroutine is stopped so long before the deadline, so that the waiters get its error
_HEAD_START_SHARE = 1 / 20  # `_HEAD_START` is at most this part of the time that is left

_SCOPES_SHOWN = 200  # characters

_UNKNOWN = (
    "Its outcome is unknown: the server may have processed it, and a rotated refresh token may be lost with the answer."
)


class Renewal:
    """One renewal of one token; see the top of this module."""

    __slots__ = (
        "_asked",
        "_began",
        "_brought",
        "_clock",
        "_failures",
        "_flight",
        "_refresh",
        "_retry_at",
        "_rotated",
        "_said",
        "_save_failed",
        "_store",
        "_sync",
    )

    def __init__(self, store: TokenStore, flight: Flight, refresh: Refresh, began: State) -> None:
        self._store = store
        self._flight = flight
        self._refresh = refresh
        self._began = began
        self._clock: Clock = clock_of(store)
        self._sync: NoStorage | StorageSync = sync_of(store)
        self._asked: list[Token] = []  # the token of each ask, at most two; also secrets that a server may repeat
        self._said = ""  # for the log: the message of the user's exception
        self._brought: Token | None = None  # the token that the server issued, even if the refresh is superseded
        self._failures = began.refreshes.failures
        self._retry_at: float | None = None  # if the refresh fails with a back-off that a pool remembers: its end
        self._rotated: Token | None = None  # the last of `_asked`, with the refresh token of an unusable answer
        self._save_failed: ReauthError | None = None

    def steps(self) -> Steps:
        """The six steps, and the handling of a failure. Each `yield` is a call that a worker makes."""
        flight, at, prefix = self._flight, moment(self._clock), log_prefix(self._store)
        try:
            _log.debug("%sRenewing the access token (%s) by %s.", prefix, flight.reason, _name(self._refresh))
            try:
                yield from self._with_storage(at)
            except StorageUnavailable as away:
                if not (is_away(away) and self._may_go_on_without_storage()):
                    raise
                yield from self._without_storage(away, at)
        except Stopped as stop:
            self._reject_stopped(stop)
        except Exception as error:  # noqa: BLE001 - any error of the refresh makes the flight fail
            known = error if isinstance(error, ReauthError) else self._known(error)
            redact(known, *self._secrets)
            self._reject(known)
        if flight.worker.superseded:
            _log.debug("%sA sign-in or a sign-out has superseded the refresh, whose token does not count.", prefix)
        if flight.revoke is not None and self._brought is not None:
            yield from revoke_each(self._store, flight.revoke, [self._brought])
        try:
            self._store._notify()
        finally:
            flight.settled.set()

    def _with_storage(self, at: Moment) -> Steps:
        sync, flight = self._sync, self._flight
        lock = yield from sync.acquire_lock(flight, self._began)
        if isinstance(lock, Adopt):  # the storage got a renewed token during the wait
            self._publish(lock.token, lock.at, adopted=True)
            return
        if lock is None:  # superseded during the wait
            return
        try:
            if not self._is_superseded:
                yield from self._take((yield from sync.next_step(flight, self._began, at)))
            # Somebody has signed in or out meanwhile. A sign-out that revokes reads the stored token first.
            if self._store._state.session != flight.session and flight.revoke is None:
                yield from sync.write_pending(flight.worker)
        except ReauthError as error:
            yield from self._keep_rotated(error)
            raise
        finally:
            sync.release(lock)

    def _take(self, step: NextStep | None) -> Steps:
        """Take the step for which the storage has decided; None: the refresh was superseded meanwhile."""
        flight = self._flight
        match step:
            case Ask(last, at):
                if flight.reason == "missing" and last.access_token:  # found in the storage just now
                    flight.reason = "expired"
                yield from self._renew(last, at)
            case Adopt(token, at, is_stored):
                failed = None if is_stored else (yield from self._sync.save(token, flight.worker))
                self._publish(token, at, adopted=True, failed=failed)
            case SignedOutElsewhere():
                sign_out_here(self._store, self._began.session)
            case None:
                pass

    def _renew(self, last: Token, at: Moment) -> Steps:
        """Ask for the token that follows `last`, save it, publish it."""
        sync, worker = self._sync, self._flight.worker
        try:
            token, at, ended = yield from self._ask(last, at)
        except SignInRequired as error:
            if not is_final(error):
                raise
            stored = yield from sync.look_again(last, error)
            if stored is None or self._is_superseded:
                raise
            at = moment(self._clock)
            if is_usable(stored, at):
                self._publish(stored.renewed(stored, at.wall), at, adopted=True)
                return
            token, at, ended = yield from self._ask(stored, at)
        self._brought = token
        if self._is_superseded:
            return
        failed = yield from sync.save(token, worker)
        self._publish(token, at, ended=ended, failed=failed)

    @property
    def _is_superseded(self) -> bool:
        return self._store._state.flight is not self._flight

    def _ask(self, last: Token, at: Moment) -> Generator[Call, Any, tuple[Token, Moment, int]]:
        """The token that follows `last`, the time of the ask, and how many answers had expired when they were received.

        A refresh function may return a token that it found. If that token is no better than `last`, the function is
        called once more, with that token.
        """
        self._check_refusals(last, at)
        answer = yield from self._answer_to(last)
        token, ended = last.renewed(answer, at.wall), _has_ended(answer, at)
        _log_lost_scopes(last, token, self._refresh, log_prefix(self._store))
        if len(self._asked) > 1 or self._is_superseded or not self._is_doubtful(answer, last, at):
            return token, at, int(ended)
        again = moment(self._clock)
        try:
            answer = yield from self._answer_to(token)
        except SignInRequired:
            raise
        except Exception as error:
            refresh_token = take_refresh_token(error) or token.refresh_token
            if refresh_token == last.refresh_token:
                raise
            # The first answer may be a fresh token that only looks expired, since the wall clock is wrong. It is used.
            return replace(token, refresh_token=refresh_token), at, int(ended)
        return token.renewed(answer, again.wall), again, int(ended) + int(_has_ended(answer, again))

    def _answer_to(self, last: Token) -> Generator[Call, Any, Token]:
        """The token that the refresh function returns for `last`. An exception becomes an error of this library."""
        try:
            return _checked((yield self._call(last)))
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - any error of the refresh makes the flight fail
            known = self._known(error)
            if not hasattr(self._refresh, "flow") and not last.refresh_token:  # a grant does this itself
                known = after_spending_nothing(known)
            raise known from known.__cause__

    def _known(self, error: Exception) -> ReauthError:
        known, words = _as_reauth_error(error, self._refresh)
        self._said = f" It said: {in_ascii(redacted(words, *self._secrets))}" if words else ""
        return known

    def _check_refusals(self, last: Token, at: Moment) -> None:
        """Raise the error that the last refresh with `last` got, if a pool remembers it and its back-off lasts."""
        membership = self._store._membership
        refusal = None if membership is None else membership.refusal_of(last)
        if refusal is None:
            return
        self._failures = max(self._failures, refusal.failures)
        if at.monotonic < refusal.retry_at:
            if not is_final(refusal.error):  # a final one holds back this token, and not the next look at the storage
                self._retry_at = refusal.retry_at
            raise copy_for_waiter(refusal.error)

    def _is_doubtful(self, answer: Token, last: Token, at: Moment) -> bool:
        """Did a refresh function return a token that it found, and that is no better than `last`?

        The answer is no better if it is `last`, or if its `expires_at` has passed: then the token was issued some time
        ago, or the server's clock is wrong. If an earlier token has shown that the clock is wrong, the answer is used.
        An `expires_in` of 0 does not count, since a fresh answer may have it. A grant always returns a fresh token.
        """
        if hasattr(self._refresh, "flow") or self._began.without_lifetime:
            return False
        has_ended = answer.expires_at is not None and answer.expires_at <= at.wall
        return has_ended or answer.access_token == last.access_token

    def _call(self, last: Token) -> Call:
        self._asked.append(last)
        left = max(0.0, self._flight.worker.time_left())
        return Call(self._refresh, (last,), left - min(_HEAD_START, left * _HEAD_START_SHARE))

    @property
    def _secrets(self) -> list[str | None]:
        return [secret for token in (self._began.token, *self._asked) if token for secret in secrets_of(token)]

    def _keep_rotated(self, error: ReauthError) -> Steps:
        """Save the refresh token of an answer that is otherwise unusable: the one that was sent may be spent."""
        rotated = take_refresh_token(error)
        if rotated is None or not self._asked:
            return
        self._brought = self._rotated = replace(self._asked[-1], refresh_token=rotated)
        if self._is_superseded:
            return
        failed = yield from self._sync.save(self._rotated, self._flight.worker)
        self._save_failed = failed

    def _may_go_on_without_storage(self) -> bool:
        """May the refresh ask without the storage? Only a repeatable grant, and only without a usable token."""
        state = self._store._state
        is_alive = policy.is_alive(state, self._clock.monotonic())
        return getattr(self._refresh, "repeatable", False) is True and not is_alive and not self._is_superseded

    def _without_storage(self, away: StorageUnavailable, at: Moment) -> Steps:
        token, at, ended = yield from self._ask(self._began.token or Token(), at)
        self._brought = token
        self._publish(token, at, ended=ended, failed=away)

    def _publish(
        self, token: Token, at: Moment, *, adopted: bool = False, ended: int = 0, failed: ReauthError | None = None
    ) -> None:
        """Publish `token`: change the state. `failed` is the error with which the token was not saved."""
        flight, store = self._flight, self._store
        prefix = log_prefix(store)
        elapsed = self._clock.monotonic() - flight.worker.started
        action = RefreshFulfilled(
            token,
            flight.reason,
            elapsed,
            adopted,
            flight=flight,
            deadline=policy.deadline_of(token, at),
            jitter=draw_jitter(),
            without_lifetime=ended,
            is_saved=failed is None,
        )
        if not store._apply(action):
            return
        flight.outcome = token
        verb, by = "Adopted" if adopted else "Renewed", _name(self._refresh)
        _log.info("%s%s the access token (%s) by %s in %.3f s.", prefix, verb, flight.reason, by, elapsed)
        if failed is not None:
            report_unsaved(store, failed, token)

    def _reject(self, error: ReauthError) -> None:
        reject(
            self._store,
            self._flight,
            error,
            failures=self._failures + 1,
            asked=self._asked[-1] if self._asked else None,
            retry_at=self._retry_at,
            rotated=self._rotated,
            save_failed=self._save_failed,
            said=self._said,
        )

    def _reject_stopped(self, stop: Stopped) -> None:
        flight = self._flight
        if stop.out_of_time:
            after = f"{flight.worker.deadline - flight.worker.started:g} s (refresh_timeout)"
            self._reject(in_our_words(RefreshError(f"The refresh was stopped after {after}. {_UNKNOWN}")))
        else:
            reject_orphaned(self._store, flight)


def reject(
    store: TokenStore,
    flight: Flight,
    error: ReauthError,
    *,
    failures: int = 1,
    asked: Token | None = None,
    retry_at: float | None = None,
    rotated: Token | None = None,
    save_failed: ReauthError | None = None,
    said: str = "",
) -> None:
    """Publish that `flight` failed, unless it is superseded.

    Args:
        store: the store of the token.
        flight: the refresh.
        error: why the refresh failed.
        failures: the number of refreshes that failed in a row, this one included.
        asked: the token of the last ask.
        retry_at: when the next refresh may start, if that was decided before (monotonic seconds).
        rotated: the token of the last ask, with the refresh token of an answer that is otherwise unusable.
        save_failed: why `rotated` could not be saved.
        said: for the log alone: the message of the user's exception.
    """
    clock, state = clock_of(store), store._state
    if isinstance(error, RefreshError):
        error.resolve_retry_after(clock.time())
    drop_frames(error)  # the state holds the error; its frames would hold this state, and so all errors before
    now = clock.monotonic()
    failures = max(failures, state.refreshes.failures + 1)
    wait = policy.back_off(error, failures, random(), has_storage=state.stored is not None)  # noqa: S311 - spreads load
    if retry_at is not None:
        wait = retry_at - now
    if flight.outcome_unknown and failures == 1:
        wait = 0.0  # an unknown outcome says nothing about the next refresh
    elif isinstance(error, RefreshError):
        set_retry_after(error, wait)
    action = RefreshRejected(
        error,
        flight.reason,
        now - flight.worker.started,
        flight=flight,
        retry_at=now + wait,
        failures=failures,
        asked=asked,
        rotated=rotated,
        deadline=inf if rotated is None else policy.deadline_of(rotated, moment(clock)),
        is_saved=save_failed is None,
    )
    if not store._apply(action):
        return
    flight.outcome = error
    if rotated is not None and save_failed is not None:
        report_unsaved(store, save_failed, rotated)
    if isinstance(error, SignInRequired) and state.token is None:
        _log.info("%sNobody is signed in, so there is no token: %s%s", log_prefix(store), in_ascii(str(error)), said)
        return
    _log.warning(
        "%sCould not renew the access token (%s) by %s in %.3f s, failure %d in a row; tried again %s: %s%s",
        log_prefix(store),
        flight.reason,
        _name(flight.refresh),
        action.elapsed,
        failures,
        "once somebody has signed in" if is_final(error) else f"in {wait:.1f} s at the earliest",
        in_ascii(str(error)),
        said,
    )


def reject_orphaned(store: TokenStore, flight: Flight) -> None:
    """Publish that `flight` will never settle by itself."""
    flight.outcome_unknown = True
    try:
        reject(
            store,
            flight,
            in_our_words(
                RefreshError(
                    "The refresh was stopped before it had answered, as when its event loop ends: a coroutine refresh "
                    "lives no longer. Leave through `async with auth` or `await auth.aclose()`, which wait for it. "
                    f"{_UNKNOWN}"
                )
            ),
        )
    finally:
        flight.settled.set()
        flight.worker.finished.set()


def reject_if_orphaned(worker: Worker) -> bool:
    """Make the flight of `worker` fail if the worker can never finish; return whether nobody needs to wait for it."""
    if not worker.finished.is_set:
        is_untaken = worker.is_untaken
        if not worker.is_orphaned() or (is_untaken and worker.take() is None):  # it has just begun
            return False
    flight = worker.store._state.flight
    if isinstance(flight, Flight) and flight.worker is worker:
        reject_orphaned(worker.store, flight)
    worker.finished.set()
    return True


def _has_ended(answer: Token, at: Moment) -> bool:
    """Had `answer` expired when it was received? A fresh answer may have, if a clock is wrong."""
    return policy.deadline_of(answer, at) <= at.monotonic


def _name(refresh: object) -> str:
    """The name of `refresh` for the log: a function's name, or a grant and the host of its token endpoint."""
    refresh = getattr(refresh, "func", refresh)  # of a partial
    function, url = getattr(refresh, "__qualname__", None), getattr(refresh, "token_url", None)
    url = getattr(url, "shown_url", url)  # of an `Issuer`
    if isinstance(function, str):
        return in_ascii(f"{refresh.__module__}.{function}")
    host = re.match(r"https?://(?:[^/?#]*@)?([^/?#]+)", url) if isinstance(url, str) else None
    return in_ascii(f"{type(refresh).__qualname__} at {host[1]}" if host else type(refresh).__qualname__)


def _checked(answer: object) -> Token:
    if not isinstance(answer, Token):
        error = in_our_words(
            RefreshError(f"The refresh returned {type(answer).__name__}, not a Token; see Token.from_response.")
        )
        keep_refresh_token_of(answer, error)
        raise error
    if not answer.access_token:
        error = in_our_words(
            RefreshError("The refresh returned a Token without an access token, so there is nothing to use.")
        )
        keep_refresh_token(error, answer.refresh_token)
        raise error
    return answer


def _as_reauth_error(error: Exception, refresh: object) -> tuple[ReauthError, str]:
    """The error for the waiters, made from the refresh's exception; and the message of that exception, for the log.

    For a group of errors, as a task group raises it, the most serious member counts: if one of them is final, the
    result is final.
    """
    members = list(_members(error))
    known = [(member, member if isinstance(member, ReauthError) else _answered(member)) for member in members]
    read = [(member, one) for member, one in known if one is not None]
    final = [(member, one) for member, one in read if isinstance(one, SignInRequired)]
    for member, one in final or read:
        if one is not member:
            one.__cause__ = error
        keep_refresh_token(one, take_refresh_token(error))
        return one, ""
    place = place_of(error, refresh)
    what = f"{type(members[0]).__name__} at {place}" if place else type(members[0]).__name__
    one = in_our_words(RefreshError(f"The refresh raised {what}. It is tried again after a back-off."))
    keep_refresh_token(one, take_refresh_token(error))
    document: object = getattr(members[0], "doc", None)  # of a json.JSONDecodeError
    if isinstance(document, str):
        keep_refresh_token_in(document, one)
    one.__cause__ = error
    return one, _words(members[0])


def _members(error: Exception) -> Iterator[Exception]:
    """The errors of a group and of the groups in it; `error` itself, if it is not a group."""
    members = [member for member in members_of(error) if isinstance(member, Exception)]
    if not members:
        yield error
    for member in members:
        yield from _members(member)


def _words(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a `__str__` of the user's
        return ""


def _answered(error: Exception) -> ReauthError | None:
    """The error in the response of `error`, e.g. of an `httpx.HTTPStatusError`. So `invalid_grant` is final there."""
    response = getattr(error, "response", None)
    try:
        if response is not None and response.status_code >= 400:
            token_fields(response)
    except ReauthError as known:
        return known
    except Exception:  # noqa: BLE001 - not a response, or one that was not read
        return None
    return None


def _log_lost_scopes(last: Token, token: Token, refresh: object, prefix: str) -> None:
    """Log a warning if the server has granted fewer scopes than before, or fewer than the grant asks for."""
    asked: object = last.scope if last.scope is not None else getattr(refresh, "scope", None)
    if not isinstance(asked, str) or token.scope is None:
        return
    lost = lost_scopes(asked, token)
    if lost:
        _log.warning(
            "%sThe server granted fewer scopes than before, or than were asked for; missing: %s. Requests that need "
            "them will be refused.",
            prefix,
            in_ascii(printable(" ".join(lost)[:_SCOPES_SHOWN])),
        )
