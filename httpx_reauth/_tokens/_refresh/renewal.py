"""The work of one flight: ask the refresh, make of its answer the next token or an error, publish it."""

from __future__ import annotations

import logging
import re
from collections.abc import Generator
from random import random
from typing import TYPE_CHECKING, Any

from httpx_reauth._clock import Clock, Moment, moment
from httpx_reauth._errors import ReauthError, RefreshError, SignInRequired, hide, own_copy
from httpx_reauth._state import policy
from httpx_reauth._state.actions import RefreshFulfilled, RefreshRejected
from httpx_reauth._state.state import AuthState
from httpx_reauth._state.store import a_spread
from httpx_reauth._token import Refresh, Token
from httpx_reauth._tokens._refresh.loops import Stopped
from httpx_reauth._tokens._refresh.refusals import Refusal
from httpx_reauth._tokens._refresh.sync import Keeper, tell_unsaved
from httpx_reauth._tokens._refresh.worker import Call, Work
from httpx_reauth.oauth.response import token_fields

if TYPE_CHECKING:
    from httpx_reauth._tokens._refresh.flight import Flight

_log = logging.getLogger("httpx_reauth")

_HEAD_START = 0.1  # seconds
_HEAD_START_SHARE = 1 / 20  # of the time that is left, whichever is less

_UNKNOWN = (
    "Its outcome is unknown: the server may have processed it, and a rotated refresh token may be lost with the answer."
)


class Renewal:
    """One renewal of one token."""

    __slots__ = ("_asked", "_basis", "_clock", "_flight", "_keeper", "_refresh", "_retry_at", "_secrets")

    def __init__(self, flight: Flight, basis: AuthState, refresh: Refresh, keeper: Keeper | None, clock: Clock) -> None:
        self._flight = flight
        self._basis = basis
        self._refresh = refresh
        self._keeper = keeper
        self._clock = clock
        self._asked: Token | None = None  # the token that was spent last
        self._retry_at: float | None = None  # of an earlier refusal, if that is why this one fails
        self._secrets: list[str | None] = []  # what a server might echo

    def work(self) -> Work:
        """The steps, for a runner: each call is made away from every caller. Publishes the outcome at its end."""
        try:
            _log.debug("Renewing the access token (%s) by %s.", self._flight.reason, _name(self._refresh))
            if self._keeper is None:
                token, at = yield from self._ask(self._basis.token or Token(), moment(self._clock))
                self._publish(token, at)
            else:
                yield from self._keeper.renew(self._flight, self._basis, self._clock, self._ask, self._publish)
        except Stopped as stop:
            if stop.out_of_time:
                after = f"{self._flight.overdue - self._flight.started:g} s (refresh_timeout)"
                reject(self._flight, self._clock, RefreshError(f"The refresh was stopped after {after}. {_UNKNOWN}"))
            else:
                reject_lost(self._flight, self._clock)
        except Exception as error:  # noqa: BLE001 - whatever the refresh raises is the flight's failure
            known = _as_reauth_error(error)
            hide(known, *self._secrets)
            has_storage = self._keeper is not None
            retry_at = reject(self._flight, self._clock, known, has_storage=has_storage, retry_at=self._retry_at)
            refusals = self._flight.store.refusals
            if refusals is not None and self._asked is not None and retry_at is not None:
                refusals.remember(self._asked, Refusal(known, self._flight.failures + 1, retry_at))

    def _ask(self, last: Token, at: Moment) -> Generator[Call, Any, tuple[Token, Moment]]:
        """The refresh's answer as the successor of `last`, and when that refresh started."""
        refusals = self._flight.store.refusals
        refusal = None if refusals is None else refusals.of(last)  # what an object has met that a pool made earlier
        if refusal is not None:
            self._flight.failures = max(self._flight.failures, refusal.failures)
            if at.monotonic < refusal.retry_at:
                self._retry_at = refusal.retry_at
                raise own_copy(refusal.error)
        self._asked = last
        answer = _checked((yield self._call(last)))
        token = last.renewed(answer, at.wall)
        is_awaited = self._flight.store.state.flight is self._flight  # else a sign-in or a sign-out has overtaken it
        if is_awaited and self._is_no_better(answer, last, at):
            again = moment(self._clock)
            try:
                answer = _checked((yield self._call(token)))
            except SignInRequired:
                raise
            except Exception:
                if token.refresh_token == last.refresh_token:
                    raise
                return token, at  # it may be a fresh one that only looks old, as the wall clock is wrong: never lost
            token, at = token.renewed(answer, again.wall), again
        return token, at

    def _call(self, last: Token) -> Call:
        self._secrets += (last.refresh_token, last.access_token)
        left = max(0.0, self._flight.overdue - self._clock.monotonic())
        # It is stopped a moment before those who wait give up, so that they hear what became of it.
        return Call(self._refresh, (last,), left - min(_HEAD_START, left * _HEAD_START_SHARE))

    def _is_no_better(self, answer: Token, last: Token, at: Moment) -> bool:
        """Did a refresh function find a token that is no better than `last`? Then it renews that one, asked once more.

        A fresh answer may say `expires_in: 0` and is what it is; an absolute end that has passed was written down
        by somebody earlier. A grant finds nothing.
        """
        if hasattr(self._refresh, "flow"):
            return False
        ended = answer.expires_at is not None and answer.expires_at <= at.wall
        return ended or answer.access_token == last.access_token

    def _publish(self, token: Token, at: Moment, *, adopted: bool = False, unsaved: ReauthError | None = None) -> None:
        flight = self._flight
        elapsed = self._clock.monotonic() - flight.started
        deadline, spread = policy.deadline_of(token, at), a_spread()
        action = RefreshFulfilled(
            token, flight.reason, elapsed, adopted, flight=flight, deadline=deadline, spread=spread
        )
        flight.token = token  # before the listeners are told, whatever they raise
        if not flight.store.dispatch(action):
            flight.token = None
            _log.debug("A sign-in or a sign-out has overtaken the refresh, whose token counts no more.")
            return
        verb, by = "Adopted" if adopted else "Renewed", _name(self._refresh)
        _log.info("%s the access token (%s) by %s in %.3f s.", verb, flight.reason, by, elapsed)
        if unsaved is not None:
            tell_unsaved(flight.store, unsaved, token)
        flight.land()  # before a storage that hangs is asked to release its lock


def reject(
    flight: Flight, clock: Clock, error: ReauthError, *, has_storage: bool = False, retry_at: float | None = None
) -> float | None:
    """Publish that `flight` failed; returns when the next may start, or None if it was overtaken.

    `retry_at`: when it may, if that was decided before (monotonic seconds).
    """
    if isinstance(error, RefreshError):
        error.resolve_retry_after(clock.time())
    now = clock.monotonic()
    wait = policy.back_off(error, flight.failures + 1, random(), has_storage=has_storage)  # noqa: S311 - spreads load
    if retry_at is not None and not isinstance(error, SignInRequired):
        wait = retry_at - now
    if flight.stopped and not flight.failures:
        wait = 0.0  # it says nothing about the next one
    elif isinstance(error, RefreshError):
        error.retry_after = wait
    action = RefreshRejected(error, flight.reason, now - flight.started, flight=flight, retry_at=now + wait)
    flight.error = error  # as above
    if not flight.store.dispatch(action):
        flight.error = None  # it was overtaken by a sign-in or a sign-out
        return None
    _log.warning(
        "Could not renew the access token (%s) by %s in %.3f s, failure %d in a row; tried again %s: %s",
        flight.reason,
        _name(flight.refresh),
        action.elapsed,
        flight.failures + 1,
        "once somebody has signed in" if isinstance(error, SignInRequired) else f"in {wait:.1f} s at the earliest",
        error,
    )
    return now + wait


def reject_lost(flight: Flight, clock: Clock) -> None:
    """Publish that `flight` will never land by itself, and land it."""
    flight.stopped = True
    try:
        error = RefreshError(f"The refresh was stopped before it had answered, as when its event loop ends. {_UNKNOWN}")
        reject(flight, clock, error)
    finally:
        flight.end()


def _name(refresh: object) -> str:
    """Who is asked, for the log: a function's name, or a grant and the host of its token endpoint."""
    refresh = getattr(refresh, "func", refresh)  # of a partial
    function, url = getattr(refresh, "__qualname__", None), getattr(refresh, "token_url", None)
    if isinstance(function, str):
        return f"{refresh.__module__}.{function}"
    host = re.match(r"https?://(?:[^/?#]*@)?([^/?#]+)", url) if isinstance(url, str) else None
    return f"{type(refresh).__qualname__} at {host[1]}" if host else type(refresh).__qualname__


def _checked(answer: object) -> Token:
    if not isinstance(answer, Token):
        raise RefreshError(f"The refresh returned {type(answer).__name__}, not a Token; see Token.from_response.")
    if not answer.access_token:
        raise RefreshError("The refresh returned a Token without an access token, so there is nothing to use.")
    return answer


def _as_reauth_error(error: Exception) -> ReauthError:
    """What the waiters get to see for whatever the refresh raised; its own message might hold a secret."""
    if isinstance(error, ReauthError):
        return error
    known = _answered(error) or RefreshError(
        f"The refresh raised {type(error).__name__}; see the cause. It is tried again after a back-off."
    )
    known.__cause__ = error
    return known


def _answered(error: Exception) -> ReauthError | None:
    """What the response says that `error` carries, as `httpx.HTTPStatusError` does: `invalid_grant` stays final."""
    response = getattr(error, "response", None)
    try:
        if response is not None and response.status_code >= 400:
            token_fields(response)
    except ReauthError as known:
        return known
    except Exception:  # noqa: BLE001 - not a response, or one that was not read
        return None
    return None
