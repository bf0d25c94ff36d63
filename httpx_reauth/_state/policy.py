"""When to use a token, renew it, wait for the next one, or refuse: pure functions of state and time.

For a token of the lifetime L that ends at `deadline`:

      |------------- use it -------------|--- use it and renew ---|--- wait ---|
    start                           renew_from                 wait_from   deadline

Every number of the design stands here, with its unit and its reason.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Literal, TypeAlias

from httpx_reauth._errors import ReauthError, RefreshError, SignInRequired
from httpx_reauth._state.actions import Reason
from httpx_reauth._value import dataclass

if TYPE_CHECKING:
    from httpx_reauth._clock import Moment
    from httpx_reauth._state.state import AuthState
    from httpx_reauth._token import Token

_WAIT = 5.0  # seconds before its end from which a token is not sent any more: it must live until it arrives
_WAIT_SHARE = 1 / 50  # of the lifetime, whichever is less: a 20-second token may be used for 19.6 s
_LEEWAY_SHARE = 1 / 4  # of the lifetime: the leeway never takes more of a short life
_SLOW_SHARE = 1 / 2  # of the lifetime: nor does a slow token endpoint
_SLOW_MARGIN = 0.5  # of the slowest recent refresh, on top of it: the next one may be slower still,
_SLOW_MARGIN_SHARE = 1 / 40  # but at most this much of the lifetime: a margin that short lives can afford
_SPREAD = 0.1  # of the renewal window, at most: many processes with one token do not all renew at once
_SPREAD_LIFETIME = 60.0  # seconds; shorter lives spread less, since each renewal costs them a larger part

_BACK_OFF = 0.5  # seconds after the first failure, doubling
_BACK_OFF_MAX = 30.0  # seconds
_BACK_OFF_JITTER = 0.2  # of it, at most, taken off
_LOOK_AGAIN_MAX = 60.0  # seconds between two looks whether somebody has signed in elsewhere
_REFUSED_WAIT = 60.0  # seconds after a refusal of client or password: no account is locked by our trying
_QUIET_MAX = 60.0  # seconds without a refresh on 401, after fresh tokens were refused; 1, 2, 4 ... until here

_TRY_AGAIN_STATUS = frozenset({408, 425, 429})  # 4xx that say "later" rather than "no"
# Refusals by their code, where the status does not tell: RFC 6749 §5.2 and §4.1.2.1, then GitHub's.
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

Decision: TypeAlias = tuple[Verdict, Reason]  # a verdict, and the reason for which a refresh would be started


@dataclass(frozen=True, slots=True)
class Windows:
    """From when a token is renewed in the background, and from when it is waited for (monotonic seconds)."""

    renew_from: float
    wait_from: float


_NEVER = Windows(inf, inf)


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


def windows(state: AuthState, leeway: float) -> Windows:
    """The windows of the current token.

    Args:
        state: the state that holds the token, and its share of the jitter, which only makes the renewal earlier.
        leeway: seconds before its end from which the user wants it renewed.

    Example: a lifetime of 3600 s that ends at 10000, leeway 60, no jitter: renewed from 9940, awaited from 9995.
    """
    token, deadline = state.token, state.deadline
    if token is None or deadline == inf:
        return _NEVER
    lifetime = token.expires_in
    if lifetime is None:  # only the end is known
        return Windows(deadline - max(leeway * (1 + _SPREAD * state.spread), _WAIT), deadline - _WAIT)
    lifetime = max(0.0, lifetime)
    wait = min(_WAIT, lifetime * _WAIT_SHARE)
    slowest = max(state.record.durations, default=0.0)
    slow = slowest + min(slowest * _SLOW_MARGIN, lifetime * _SLOW_MARGIN_SHARE) + wait
    renew = max(min(leeway, lifetime * _LEEWAY_SHARE), min(slow, lifetime * _SLOW_SHARE))
    renew *= 1 + _SPREAD * state.spread * min(1.0, lifetime / _SPREAD_LIFETIME)
    return Windows(deadline - max(renew, wait), deadline - wait)


def decide(state: AuthState, window: Windows, now: float) -> Decision:
    """What to do about a request at `now` (monotonic seconds)."""
    token = state.token
    pending, held_back = state.status == "pending", now < state.record.retry_at
    reason: Reason
    if token is None or not token.access_token:
        reason = "missing"
    elif state.refused:
        reason = "rejected"
    elif now >= state.deadline:
        reason = "expired"
    elif now >= window.wait_from:
        # The token still lives, if not for long: it serves to its very end where no better one can be had.
        return ("wait" if pending or not held_back else "use"), "expired"
    elif now >= window.renew_from:
        return ("use" if pending or held_back else "renew"), "expiring"
    else:
        return "use", "expiring"
    return ("wait" if pending or not held_back else "refuse"), reason


def good_until(state: AuthState, window: Windows) -> float:
    """Until when `decide` says "use" without a further look (monotonic seconds); -inf if it does not now."""
    if state.token is None or not state.token.access_token or state.refused:
        return -inf
    if state.status == "pending":
        return window.wait_from
    if state.record.retry_at > window.renew_from:
        return min(state.record.retry_at, state.deadline)
    return window.renew_from


def is_alive(state: AuthState, now: float) -> bool:
    """Is there a token that no server has refused and that has not reached its very end?"""
    return state.token is not None and bool(state.token.access_token) and not state.refused and now < state.deadline


def back_off(error: ReauthError, failures: int, jitter: float, *, has_storage: bool = False) -> float:
    """Seconds until the next refresh may start, after the failure number `failures` in a row.

    0.5 s doubling to 30 s, less up to 20 % jitter; 60 s after a refusal; never before `Retry-After`; infinite
    when only a sign-in helps. Where that may happen in another process, the storage is looked at after 1 s, doubling
    to 60 s.
    """
    if isinstance(error, SignInRequired):
        return min(2.0 ** min(failures - 1, 16), _LOOK_AGAIN_MAX) if has_storage else inf
    if is_refusal(error):
        wait = _REFUSED_WAIT
    else:
        wait = min(_BACK_OFF * 2.0 ** min(failures - 1, 16), _BACK_OFF_MAX) * (1 - _BACK_OFF_JITTER * jitter)
    asked = error.retry_after if isinstance(error, RefreshError) else None
    return wait if asked is None else max(wait, asked)


def is_refusal(error: ReauthError) -> bool:
    """Did the server say no (a wrong client or password), rather than not now?"""
    if not isinstance(error, RefreshError):
        return False
    status = error.status_code
    if status is not None and status >= 400:
        return status < 500 and status not in _TRY_AGAIN_STATUS
    return error.error in _REFUSAL_CODES


def quiet_time(useless: int) -> float:
    """Seconds without a refresh on 401, after `useless` fresh tokens in a row were refused: 1, 2, 4 ... 60."""
    return min(2.0 ** min(useless - 1, 16), _QUIET_MAX)
