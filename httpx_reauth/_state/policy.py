"""The policy: pure functions of the state and the time, which decide what a request does.

The times and back-offs of requests, refreshes and late saves are defined here. The limits of one wait for a storage's
lock are in `_tokens/_refresh/sync.py`, and those of one token request in `oauth/driver.py`.

For a token that expires at `deadline`:

      |------------- use it -------------|--- use it and renew ---|--- wait ---|
    start                           renew_from                 wait_from   deadline

1. A token that no server has refused is used until `wait_from`. From `renew_from` on, the first request starts a
   refresh in the background.
2. From `wait_from` on, requests wait for the refresh under way, or start a refresh and wait for it.
3. During the back-off after a failed refresh, no refresh may start. Then the token is used until its deadline. After
   the deadline, requests fail at once with the error of the last refresh.
4. A storage that was not read yet is read first, by a refresh, since a stored token wins over `token=`.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Literal, TypeAlias

from httpx_reauth._errors import ReauthError, RefreshError, is_due_elsewhere, is_final, meaning_of, sane_retry_after
from httpx_reauth._state.actions import Place, Reason
from httpx_reauth._state.state import Current, State

if TYPE_CHECKING:
    from httpx_reauth._clock import Moment
    from httpx_reauth._token import Token

_WAIT = 5.0  # seconds: a token is not sent so shortly before its deadline, since it must be valid when it arrives
_WAIT_SHARE = 1 / 50  # `_WAIT` is at most this part of the lifetime: a 20-second token may be used for 19.6 s
_LEEWAY_SHARE = 1 / 4  # the leeway is at most this part of the lifetime
_SLOW_SHARE = 1 / 2  # a slow token endpoint makes the renewal window at most this part of the lifetime
_SLOW_MARGIN = 0.5  # this part of the slowest recent refresh is added to it, since the next refresh may be slower
_SLOW_MARGIN_SHARE = 1 / 40  # the addition is at most this part of the lifetime
_JITTER = 0.1  # the renewal window grows by at most this part, so that processes with one token do not renew together
_JITTER_LIFETIME = 60.0  # seconds: below this lifetime there is less jitter, since a renewal costs a larger part of it

_BACK_OFF = 0.5  # seconds after the first failure; doubles with each further failure
_BACK_OFF_MAX = 30.0  # seconds
_BACK_OFF_JITTER = 0.2  # at most this part of the back-off is subtracted from it
_LOOK_AGAIN = 1.0  # seconds until the storage is read again, for a sign-in in another process; doubles
_LOOK_AGAIN_MAX = 60.0  # seconds
_REFUSED_WAIT = 60.0  # seconds after the server refused the client or the password, so that no account is locked
_UNSPENT_MAX = 600.0  # seconds; `invalid_grant` when nothing was spent: from `_REFUSED_WAIT`, doubling, to this

_HERE = 1.0  # seconds without a refresh for a place that refused a fresh token; doubles
_HERE_MAX = 900.0  # seconds
_ANYWHERE_FROM = 3  # places in a row that refused a fresh token; from this number on, no place starts a refresh
_ANYWHERE = 1.0  # seconds without a refresh for all places; doubles
_ANYWHERE_MAX = 60.0  # seconds

_SAVE = 1.0  # seconds until a failed write to the storage is tried again; doubles
_SAVE_MAX = 60.0  # seconds

_LATER_STATUS = frozenset({408, 425, 429})  # 4xx statuses that mean "try later" rather than "no"
# 4xx statuses with which a token endpoint says "no". Any other 4xx without an OAuth error does not come from the token
# endpoint: it comes from a proxy in front of it, or the URL is wrong.
_REFUSAL_STATUS = frozenset({400, 401, 403})
# Error codes that mean "try later", with any status: RFC 6749 section 4.1.2.1, RFC 8628 section 3.5, and some servers.
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
# Error codes that mean "no", for a status that does not say so: RFC 6749 sections 5.2 and 4.1.2.1, and GitHub.
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


# What a request does. "use": it uses the token. "renew": it uses the token, and starts a refresh in the background.
# "wait": it waits for the refresh under way, or starts a refresh and waits for it. "refuse": it fails with the error of
# the last refresh, since the back-off lasts.
Verdict: TypeAlias = Literal["use", "renew", "wait", "refuse"]

# The verdict, the reason of a refresh that starts now, and until when the verdict "use" is right (monotonic seconds).
Decision: TypeAlias = tuple[Verdict, Reason, float]


def deadline_of(token: Token, at: Moment) -> float:
    """When `token` expires (monotonic seconds); infinite if that is unknown. Its lifetime counts from `at`.

    Only this function converts the absolute time `expires_at`. If `expires_in` is known as well, the earlier end
    counts: so a token is never used for longer than its lifetime, even if the clocks of two hosts differ.
    """
    end = inf
    if token.expires_at is not None:
        end = at.monotonic + (token.expires_at - at.wall)
    if token.expires_in is not None:
        end = min(end, at.monotonic + token.expires_in)
    return end


def windows(state: State, leeway: float) -> tuple[float, float]:
    """`renew_from` and `wait_from` for the current token (monotonic seconds); see the top of this module.

    Args:
        state: the state with the current token, and with the token's jitter, which only makes the renewal earlier.
        leeway: seconds before its end from which the user wants the token renewed.

    Example: a token with a lifetime of 3600 s expires at 10000; leeway 60, no jitter. The token is renewed from 9940
    on, and awaited from 9995 on.
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
    """What a request does at `now` (monotonic seconds); `rejected` is the token that a server refused for it."""
    current = state.current
    is_pending, is_held_back = state.flight is not None, now < state.refreshes.until
    # If the sign-in is due at another auth object, that object remembers the failure, so it is asked each time.
    is_held_back_here = is_held_back and not is_due_elsewhere(state.phase)
    without_token: Verdict = "wait" if is_pending or not is_held_back_here else "refuse"
    is_refused = current is not None and (current.refused or is_current(state, rejected))
    if state.stored is not None and not state.stored.is_loaded:
        if state.refreshes.failures and not is_refused and is_alive(state, now):  # requests use the token meanwhile
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
    """`until`; or the time of the next try to write the pending change to the storage, if that is earlier."""
    if state.stored is None or not state.stored.pending_write:
        return until
    return min(until, state.stored.saves.until)


def is_alive(state: State, now: float) -> bool:
    """Is there a token that has not expired and that no server has refused?

    There is one exception. A token that had already expired when it was received is used until a server refuses it, if
    nothing but a sign-in could bring a new token.
    """
    current = state.current
    if current is None or not current.token.access_token or current.refused:
        return False
    return now < current.deadline or (bool(current.without_lifetime) and is_final(state.phase))


def is_current(state: State, token: Token | None) -> bool:
    """Is `token` the current token of `state`?

    A refresh that failed may have changed the refresh token alone (`RefreshRejected.rotated`). Then the current token
    is another object, and still the same access token.
    """
    current = state.token
    if current is None or token is None or current is token:
        return current is token
    return state.phase != "fulfilled" and current.access_token == token.access_token


def has_expired(current: Current, now: float) -> bool:
    """Has the token expired, and had it not already expired when it was received?"""
    return now >= current.deadline and not current.without_lifetime


def takes_over(began: State, state: State) -> bool:
    """May a request that began in the state `began` use the token of `state`?

    In the same session, yes. In a later session, a request may use the token of a sign-in if it began without a token,
    and if nobody has signed out since. Any other request belongs to the session in which it began.
    """
    if state.session == began.session:
        return True
    return began.current is None and was_signed_in_anew(began, state)


def was_signed_in_anew(began: State, state: State) -> bool:
    """Has somebody signed in since the state `began`, and has nobody signed out since then?"""
    return state.session != began.session and state.last_sign_out <= began.session


def may_renew_for(state: State, place: Place, now: float) -> bool:
    """May a 401 from `place` start a refresh? Not during the back-off of this place, or of all places.

    A token that has expired meanwhile is renewed in any case: its 401 says nothing about the place.
    """
    if state.current is not None and has_expired(state.current, now):
        return True
    here = state.places.get(place)
    return now >= state.replays.until and (here is None or now >= here.until)


def doubling(first: float, most: float, count: int) -> float:
    """Seconds to wait after `count` failures in a row: `first` seconds, doubled for each further one, up to `most`."""
    return min(first * 2.0 ** min(count - 1, 16), most)


def no_refresh_here_until(count: int, at: float) -> float:
    """Until when a place that has refused `count` fresh tokens starts no refresh: for 1, 2, 4 s ... 15 min."""
    return at + doubling(_HERE, _HERE_MAX, count)


def no_refresh_until(count: int, at: float) -> float:
    """Until when no refresh starts after `count` places refused a fresh token: from the third on, 1, 2, 4 ... 60 s."""
    return -inf if count < _ANYWHERE_FROM else at + doubling(_ANYWHERE, _ANYWHERE_MAX, count - _ANYWHERE_FROM + 1)


def save_again_at(count: int, at: float) -> float:
    """When the next try to save may start, if try number `count` starts at `at`: 1, 2, 4 ... 60 s later."""
    return at + doubling(_SAVE, _SAVE_MAX, count)


def back_off(error: ReauthError, failures: int, jitter: float, *, has_storage: bool = False) -> float:
    """Seconds until the next refresh may start, after `failures` failures in a row, the last of them with `error`.

    - Normally 0.5 s, doubling to 30 s, less up to 20 % jitter.
    - 60 s after a refusal (see `is_refusal`).
    - 60 s, doubling to 10 min, after an `invalid_grant` for a request that had spent nothing.
    - Infinite if only a sign-in helps. With a storage, somebody may sign in in another process: so the storage is read
      again after 1 s, doubling to 60 s.
    - If the sign-in is due at another auth object, as normally. `decide` uses this only while there is a usable token.

    A `Retry-After` of the server makes the time longer, never shorter.
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
    """Did the token endpoint say "no" (a wrong client or password), rather than "try later"?"""
    if not isinstance(error, RefreshError):
        return False
    status, code = error.status_code, str(error.error or "").lower()
    if code in _LATER_CODES or meaning_of(error) == "later":
        return False
    if status is None or status < 400:
        return code in _REFUSAL_CODES
    if means_later(status):
        return False
    return status in _REFUSAL_STATUS or bool(code)


def means_later(status: int) -> bool:
    """Does this status of a token endpoint mean "try later", whatever the answer says?"""
    return status >= 500 or status in _LATER_STATUS
