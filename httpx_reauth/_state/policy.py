"""What to do about a request: pure functions of the state and the time. Every number of the design stands here.

For a token of the lifetime L that ends at `deadline`:

      |------------- use it -------------|--- use it and renew ---|--- wait ---|
    start                           renew_from                 wait_from   deadline

1. A token that no server has refused is used until `wait_from`. From `renew_from` on, the first request starts a
   refresh in the background.
2. From `wait_from` on, requests wait for the refresh under way, or start one.
3. Where no refresh may start now (the last one failed), the token is used to its very end; then requests are refused
   with the failure that is remembered.
4. A storage that was not read yet comes first, since what it holds wins over `token=`.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Literal, TypeAlias

from httpx_reauth._errors import ReauthError, RefreshError, is_due_elsewhere, is_final, meaning_of, sane_retry_after
from httpx_reauth._state.actions import Place, Reason
from httpx_reauth._state.state import State

if TYPE_CHECKING:
    from httpx_reauth._clock import Moment
    from httpx_reauth._token import Token

_WAIT = 5.0  # seconds before its end from which a token is not sent any more: it must live until it arrives
_WAIT_SHARE = 1 / 50  # of the lifetime, whichever is less: a 20-second token may be used for 19.6 s
_LEEWAY_SHARE = 1 / 4  # of the lifetime: the leeway never takes more of a short life
_SLOW_SHARE = 1 / 2  # of the lifetime: nor does a slow token endpoint
_SLOW_MARGIN = 0.5  # of the slowest recent refresh, on top of it: the next one may be slower still,
_SLOW_MARGIN_SHARE = 1 / 40  # but at most this much of the lifetime: a margin that short lives can afford
_JITTER = 0.1  # of the renewal window, at most: many processes with one token do not all renew at once
_JITTER_LIFETIME = 60.0  # seconds; shorter lives have less jitter, since each renewal costs them a larger part

_BACK_OFF = 0.5  # seconds after the first failure, doubling
_BACK_OFF_MAX = 30.0  # seconds
_BACK_OFF_JITTER = 0.2  # of it, at most, taken off
_LOOK_AGAIN = 1.0  # seconds until the first look whether somebody has signed in elsewhere, doubling
_LOOK_AGAIN_MAX = 60.0  # seconds
_REFUSED_WAIT = 60.0  # seconds after a refusal of client or password: no account is locked by our trying
_UNSPENT_MAX = 600.0  # seconds; from the last one, doubling, where `invalid_grant` says no more than that

_HERE = 1.0  # seconds without a refresh for a place that refused a fresh token, doubling
_HERE_MAX = 900.0  # seconds
_ANYWHERE_FROM = 3  # places in a row that refused one: from here on, renewing is not what helps
_ANYWHERE = 1.0  # seconds without a refresh for any place then, doubling
_ANYWHERE_MAX = 60.0  # seconds

_SAVE = 1.0  # seconds until what could not be saved is tried again, doubling
_SAVE_MAX = 60.0  # seconds

_LATER_STATUS = frozenset({408, 425, 429})  # 4xx that say "later" rather than "no"
# 4xx that a token endpoint says "no" with. Without an OAuth error, any other comes from something in front of it, or
# from a place where there is no token endpoint.
_REFUSAL_STATUS = frozenset({400, 401, 403})
# Codes that say "later" under any status: RFC 6749 section 4.1.2.1, RFC 8628 section 3.5, then servers' own.
_LATER_CODES = frozenset({
    "temporarily_unavailable",
    "server_error",
    "slow_down",
    "authorization_pending",
    "internal_error",
    "internal_server_error",
    "rate_limit_exceeded",
    "rate_limited",
    "service_unavailable",
    "throttled",
    "timeout",
    "too_many_requests",
    "try_again_later",
    "unavailable",
})  # fmt: skip
# Refusals by their code, where the status does not tell: RFC 6749 sections 5.2 and 4.1.2.1, then GitHub's.
_REFUSAL_CODES = frozenset({
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "access_denied",
    "incorrect_client_credentials",
})  # fmt: skip


# What to do about a request: use the token; use it, and renew it in the background; wait, for the refresh under way or
# for one to be started; or refuse, since the last refresh failed, and it is too early for another.
Verdict: TypeAlias = Literal["use", "renew", "wait", "refuse"]

# A verdict, the reason for which a refresh would be started, and until when "use" stands (monotonic seconds).
Decision: TypeAlias = tuple[Verdict, Reason, float]


def deadline_of(token: Token, at: Moment) -> float:
    """The end of `token` on the monotonic clock, for a token that became known `at` that moment.

    The wall clock is read off once, here. Where both times are known, the earlier counts: between hosts whose
    clocks differ, a token is never used for longer than its own lifetime.
    """
    end = inf
    if token.expires_at is not None:
        end = at.monotonic + (token.expires_at - at.wall)
    if token.expires_in is not None:
        end = min(end, at.monotonic + token.expires_in)
    return end


def windows(state: State, leeway: float) -> tuple[float, float]:
    """From when the current token is renewed in the background, and from when it is waited for (monotonic seconds).

    Args:
        state: the state that holds the token, and its share of the jitter, which only makes the renewal earlier.
        leeway: seconds before its end from which the user wants it renewed.

    Example: a lifetime of 3600 s that ends at 10000, leeway 60, no jitter: renewed from 9940, awaited from 9995.
    """
    current = state.current
    if current is None or current.deadline == inf:
        return inf, inf
    lifetime, deadline = current.token.expires_in, current.deadline
    if lifetime is None:  # only the end is known
        return deadline - max(leeway * (1 + _JITTER * current.jitter), _WAIT), deadline - _WAIT
    lifetime = max(0.0, lifetime)
    wait = min(_WAIT, lifetime * _WAIT_SHARE)
    slowest = max(state.durations, default=0.0)
    slow = slowest + min(slowest * _SLOW_MARGIN, lifetime * _SLOW_MARGIN_SHARE) + wait
    renew = max(min(leeway, lifetime * _LEEWAY_SHARE), min(slow, lifetime * _SLOW_SHARE))
    renew *= 1 + _JITTER * current.jitter * min(1.0, lifetime / _JITTER_LIFETIME)
    return deadline - max(renew, wait), deadline - wait


def decide(state: State, now: float, leeway: float, rejected: Token | None = None) -> Decision:  # noqa: PLR0911 - a table
    """What to do about a request at `now` (monotonic seconds); `rejected` is the token that a server refused for it."""
    current = state.current
    is_pending, is_held_back = state.flight is not None, now < state.refreshes.until
    # An auth object that needs the token of another one asks that each time: it remembers the failure itself.
    is_held_back_here = is_held_back and not is_due_elsewhere(state.phase)
    without_token: Verdict = "wait" if is_pending or not is_held_back_here else "refuse"
    is_refused = current is not None and (current.refused or current.token is rejected)
    if state.stored is not None and not state.stored.is_loaded:
        if state.refreshes.count and not is_refused and is_alive(state, now):  # requests go on meanwhile
            return ("use" if is_pending or is_held_back else "renew"), "missing", -inf
        return without_token, ("rejected" if is_refused else "missing"), -inf
    if current is None or not current.token.access_token:
        return without_token, "missing", -inf
    if is_refused:
        return without_token, "rejected", -inf
    if not is_alive(state, now):
        return without_token, "expired", -inf
    renew_from, wait_from = windows(state, leeway)
    if is_held_back and not is_pending:
        return "use", "expiring", _not_beyond_save(state, max(renew_from, min(state.refreshes.until, current.deadline)))
    if now >= wait_from:
        return "wait", "expired", -inf
    if is_pending:
        return "use", "expiring", _not_beyond_save(state, wait_from)
    if now >= renew_from:
        return "renew", "expiring", -inf
    return "use", "expiring", _not_beyond_save(state, renew_from)


def _not_beyond_save(state: State, until: float) -> float:
    """`until`, but not beyond the moment at which what is still to be written to the storage can be tried again."""
    if state.stored is None or not state.stored.pending_write:
        return until
    return min(until, state.stored.saves.until)


def is_alive(state: State, now: float) -> bool:
    """Is there a token that no server has refused and that has not reached its very end?

    A token that had already ended when it came, with nothing that could renew it, is used until a server refuses it.
    """
    current = state.current
    if current is None or not current.token.access_token or current.refused:
        return False
    return now < current.deadline or (bool(current.without_lifetime) and is_final(state.phase))


def takes_over(began: State, state: State) -> bool:
    """May a request that began in `began` go on with the token of `state`?

    Within a session, yes. A request that began when there was no token takes the one that a sign-in brings. Any other
    belongs to somebody who has signed out since, or whom somebody else has replaced.
    """
    if state.session == began.session:
        return True
    return began.current is None and was_signed_in_anew(began, state)


def was_signed_in_anew(began: State, state: State) -> bool:
    """Has somebody signed in since `began`, without a sign-out?"""
    return state.session != began.session and state.last_sign_out <= began.session


def may_renew_for(state: State, place: Place, now: float) -> bool:
    """May a 401 from `place` start a refresh: did renewing help, there and elsewhere?

    A token that has ended meanwhile is renewed in any case, and its 401 says nothing about the place.
    """
    if state.current is not None and now >= state.current.deadline and not state.current.without_lifetime:
        return True
    here = state.places.get(place)
    return now >= state.replays.until and (here is None or now >= here.until)


def doubling(first: float, most: float, count: int) -> float:
    """`first` seconds after the first failure, doubling with each of `count` failures in a row, to `most` at most."""
    return min(first * 2.0 ** min(count - 1, 16), most)


def no_refresh_here_until(count: int, at: float) -> float:
    """Until when a place starts no refresh that refused its `count`th fresh token: 1, 2, 4 s ... 15 min."""
    return at + doubling(_HERE, _HERE_MAX, count)


def no_refresh_until(count: int, at: float) -> float:
    """Until when no place starts one after `count` places refused a fresh token: from the third, 1, 2, 4 ... 60 s."""
    return -inf if count < _ANYWHERE_FROM else at + doubling(_ANYWHERE, _ANYWHERE_MAX, count - _ANYWHERE_FROM + 1)


def save_again_at(count: int, at: float) -> float:
    """When to try to save again after the try number `count` began: after 1, 2, 4 ... 60 s."""
    return at + doubling(_SAVE, _SAVE_MAX, count)


def back_off(error: ReauthError, failures: int, jitter: float, *, has_storage: bool = False) -> float:
    """Seconds until the next refresh may start, after the failure number `failures` in a row.

    0.5 s doubling to 30 s, less up to 20 % jitter; 60 s after a refusal; 60 s doubling to 10 min after an
    `invalid_grant` to a request that had spent nothing; never before `Retry-After`; infinite when only a sign-in helps.
    Where that may happen in another process, the storage is looked at after 1 s, doubling to 60 s. Where it is due at
    another auth object, the usual back-off holds, while there is a token to go on with; see `decide`.
    """
    if is_final(error):
        return doubling(_LOOK_AGAIN, _LOOK_AGAIN_MAX, failures) if has_storage else inf
    if meaning_of(error) == "unspent":
        wait = doubling(_REFUSED_WAIT, _UNSPENT_MAX, failures)
    elif is_refusal(error):
        wait = _REFUSED_WAIT
    else:
        wait = doubling(_BACK_OFF, _BACK_OFF_MAX, failures) * (1 - _BACK_OFF_JITTER * jitter)
    asked = error.retry_after if isinstance(error, RefreshError) else None
    return max(wait, sane_retry_after(asked)) if isinstance(asked, (int, float)) else wait


def is_refusal(error: ReauthError) -> bool:
    """Did the server say no (a wrong client or password), rather than not now, or not here?"""
    if not isinstance(error, RefreshError):
        return False
    status, code = error.status_code, str(error.error or "").lower()
    if code in _LATER_CODES or meaning_of(error) == "later":
        return False
    if status is None or status < 400:
        return code in _REFUSAL_CODES
    if status >= 500 or status in _LATER_STATUS:
        return False
    return status in _REFUSAL_STATUS or bool(code)
