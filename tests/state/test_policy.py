"""The policy: each window at its two edges, every verdict, the waits after a failure. The numbers are by hand."""

from __future__ import annotations

from math import inf, isnan, nan, nextafter
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from httpx_reauth import AuthState, Reauth, ReauthError, RefreshError, SignedIn, SignInRequired, StorageError, Token
from httpx_reauth._clock import Moment
from httpx_reauth._errors import after_spending_nothing
from httpx_reauth._state import policy
from httpx_reauth._state import store as _store
from httpx_reauth._state.policy import (
    Verdict,
    Windows,
    back_off,
    decide,
    good_until,
    is_alive,
    quiet_time,
    windows,
)
from httpx_reauth._state.state import Record
from httpx_reauth._token import LATEST, end_of
from httpx_reauth.testing import ManualClock

USE: Verdict = "use"
RENEW: Verdict = "renew"
WAIT: Verdict = "wait"
REFUSE: Verdict = "refuse"

START = 1_000.0  # when the tokens of these tests were published, in monotonic seconds
AT = Moment(monotonic=START, wall=1_700_000_000.0)
LAST = LATEST - AT.wall  # seconds until the calendar ends


def holding(token: Token, **more: Any) -> AuthState:
    return AuthState("fulfilled", token, deadline=policy.deadline_of(token, AT), **more)


def living(lifetime: float, *, took: tuple[float, ...] = (), **more: Any) -> AuthState:
    token = Token("a", expires_in=lifetime, expires_at=end_of(lifetime, AT.wall))
    return holding(token, record=Record(durations=took), **more)


def ending(seconds: float, **more: Any) -> AuthState:
    """Only the end is known."""
    return holding(Token("a", expires_at=AT.wall + seconds), **more)


# state, leeway, renewed from, awaited from, gone from: seconds after START
WINDOWS = {
    # The must-wait is L/50, at most 5 s; the leeway is L/4 at most, and 60 s here.
    "0.5 s": (living(0.5), 60.0, 0.375, 0.49, 0.5),
    "20 s": (living(20), 60.0, 15.0, 19.6, 20.0),
    "60 s": (living(60), 60.0, 45.0, 58.8, 60.0),
    "239 s, where L/4 is less than the leeway": (living(239), 60.0, 179.25, 234.22, 239.0),
    "241 s, where it is more": (living(241), 60.0, 181.0, 236.18, 241.0),
    "249 s, where L/50 is less than 5 s": (living(249), 60.0, 189.0, 244.02, 249.0),
    "251 s, where it is more": (living(251), 60.0, 191.0, 246.0, 251.0),
    "3600 s": (living(3600), 60.0, 3540.0, 3595.0, 3600.0),
    "huge": (living(1e11), 60.0, 1e11 - 60, 1e11 - 5, 1e11),
    "zero": (living(0), 60.0, 0.0, 0.0, 0.0),
    "negative": (living(-5), 60.0, -5.0, -5.0, -5.0),
    "the longest, which ends with the calendar": (living(1e300), 60.0, LAST - 60, LAST - 5, LAST),
    # The leeway that the user wants.
    "no leeway, 3600 s": (living(3600), 0.0, 3595.0, 3595.0, 3600.0),
    "no leeway, 0.5 s": (living(0.5), 0.0, 0.49, 0.49, 0.5),
    "leeway 600 s": (living(3600), 600.0, 3000.0, 3595.0, 3600.0),
    "leeway an hour": (living(3600), 3600.0, 2700.0, 3595.0, 3600.0),
    # Only the end is known: 5 s and the leeway as they are.
    "ends in 3600 s": (ending(3600), 60.0, 3540.0, 3595.0, 3600.0),
    "ends in 20 s": (ending(20), 60.0, -40.0, 15.0, 20.0),
    "ends in 3 s": (ending(3), 60.0, -57.0, -2.0, 3.0),
    "ended an hour ago": (ending(-3600), 60.0, -3660.0, -3605.0, -3600.0),
    "ends in 3600 s, no leeway": (ending(3600), 0.0, 3595.0, 3595.0, 3600.0),
    "ends in 3600 s, leeway 4 s": (ending(3600), 4.0, 3595.0, 3595.0, 3600.0),
    "ends in 3600 s, slow endpoint": (ending(3600, record=Record(durations=(100.0,))), 60.0, 3540.0, 3595.0, 3600.0),
    # No end is known.
    "no end": (holding(Token("a")), 60.0, inf, inf, inf),
    "no end, spread": (holding(Token("a"), spread=1.0), 60.0, inf, inf, inf),
    # A slow endpoint: the slowest refresh, and half of it (but L/40 at most) on top, and the must-wait; L/2 at most.
    "slow, 3600 s, 10 s": (living(3600, took=(10.0,)), 60.0, 3540.0, 3595.0, 3600.0),
    "slow, 3600 s, 40 s": (living(3600, took=(40.0,)), 60.0, 3535.0, 3595.0, 3600.0),
    "slow, 3600 s, 100 s": (living(3600, took=(100.0,)), 60.0, 3445.0, 3595.0, 3600.0),
    "slow, 3600 s, 400 s": (living(3600, took=(400.0,)), 60.0, 3105.0, 3595.0, 3600.0),
    "slow, 3600 s, an hour": (living(3600, took=(3600.0,)), 60.0, 1800.0, 3595.0, 3600.0),
    "the slowest counts": (living(3600, took=(1.0, 100.0, 2.0)), 60.0, 3445.0, 3595.0, 3600.0),
    "slow, 20 s, 4 s": (living(20, took=(4.0,)), 60.0, 15.0, 19.6, 20.0),
    "slow, 20 s, 6 s": (living(20, took=(6.0,)), 60.0, 13.1, 19.6, 20.0),
    "slow, 20 s, 19 s": (living(20, took=(19.0,)), 60.0, 10.0, 19.6, 20.0),
    "slow, 0.5 s, 0.1 s": (living(0.5, took=(0.1,)), 60.0, 0.375, 0.49, 0.5),
    "slow, 0.5 s, 0.2 s": (living(0.5, took=(0.2,)), 60.0, 0.2775, 0.49, 0.5),
    "slow, 0.5 s, 0.4 s": (living(0.5, took=(0.4,)), 60.0, 0.25, 0.49, 0.5),
    "slow, zero": (living(0, took=(1.0,)), 60.0, 0.0, 0.0, 0.0),
    # The spread makes the renewal earlier, by a tenth of its window at most; by less where lives are short.
    "spread, 3600 s": (living(3600, spread=1.0), 60.0, 3534.0, 3595.0, 3600.0),
    "half of it, 3600 s": (living(3600, spread=0.5), 60.0, 3537.0, 3595.0, 3600.0),
    "spread, 60 s": (living(60, spread=1.0), 60.0, 43.5, 58.8, 60.0),
    "spread, 30 s": (living(30, spread=1.0), 60.0, 22.125, 29.4, 30.0),
    "spread, slow": (living(3600, took=(3600.0,), spread=1.0), 60.0, 1620.0, 3595.0, 3600.0),
    "spread, zero": (living(0, spread=1.0), 60.0, 0.0, 0.0, 0.0),
    "spread, ends in 3600 s": (ending(3600, spread=1.0), 60.0, 3534.0, 3595.0, 3600.0),
    "spread, the longest": (living(1e300, spread=1.0), 60.0, LAST - 66, LAST - 5, LAST),
}


@pytest.mark.parametrize(("state", "leeway", "renew", "wait", "end"), WINDOWS.values(), ids=WINDOWS)
def test_the_windows_of_a_token(state: AuthState, leeway: float, renew: float, wait: float, end: float):
    window = windows(state, leeway)
    assert (window.renew_from, window.wait_from) == pytest.approx((START + renew, START + wait))
    assert state.deadline == pytest.approx(START + end)


@pytest.mark.parametrize(("state", "leeway", "renew", "wait", "end"), WINDOWS.values(), ids=WINDOWS)
def test_guarantee_8_every_window_at_its_two_edges(
    state: AuthState, leeway: float, renew: float, wait: float, end: float
):
    window = windows(state, leeway)
    edges = {
        window.renew_from: (RENEW, "expiring"),
        window.wait_from: (WAIT, "expired"),  # where two windows begin at once, the later one counts
        state.deadline: (WAIT, "expired"),
    }
    before: tuple[Verdict, str] = (USE, "expiring")
    for edge, at in sorted(edges.items()):
        if edge != -inf:
            assert decide(state, window, nextafter(edge, -inf)) == before
        if edge != inf:
            assert decide(state, window, edge) == at
        before = at
    assert decide(state, window, 1e300) == ((WAIT, "expired") if end < inf else (USE, "expiring"))


def test_the_example_of_the_docstring():
    state = AuthState("fulfilled", Token("a", expires_in=3600), deadline=10_000.0)
    assert windows(state, 60.0) == Windows(renew_from=9_940.0, wait_from=9_995.0)


def test_without_a_token_there_is_no_window():
    assert windows(AuthState(), 60.0) == Windows(inf, inf)
    assert windows(AuthState(deadline=50.0), 60.0) == Windows(inf, inf)


# The end of a token on the monotonic clock, for one that became known at START.
DEADLINES = {
    "nothing is known": (Token("a"), inf),
    "the lifetime": (Token("a", expires_in=20), START + 20),
    "the end": (Token("a", expires_at=AT.wall + 20), START + 20),
    "both, and they agree": (Token("a", expires_in=20, expires_at=AT.wall + 20), START + 20),
    "both, and the end is earlier": (Token("a", expires_in=20, expires_at=AT.wall + 5), START + 5),
    "both, and the end is later": (Token("a", expires_in=20, expires_at=AT.wall + 3600), START + 20),
    "zero": (Token("a", expires_in=0), START),
    "negative": (Token("a", expires_in=-10), START - 10),
    "ended before the epoch": (Token("a", expires_at=-10), START - AT.wall - 10),
    "huge": (Token("a", expires_in=10**299), 1e299),
}


@pytest.mark.parametrize(("token", "deadline"), DEADLINES.values(), ids=DEADLINES)
def test_guarantee_12_the_deadline_is_fixed_on_the_monotonic_clock(token: Token, deadline: float):
    assert policy.deadline_of(token, AT) == pytest.approx(deadline)


# A token that lives 100 s (renewed from 75, awaited from 98), at these seconds after START.
TIMES = {"young": 10.0, "expiring": 80.0, "last seconds": 99.0, "gone": 100.0}
HUNDRED = Token("a", expires_in=100)
KINDS: dict[str, dict[str, Any]] = {
    "idle": {"status": "idle"},
    "fulfilled": {"status": "fulfilled"},
    "pending": {"status": "pending"},
    "held back": {"status": "rejected", "record": Record(failures=1, retry_at=START + 200)},
    "held back for ever": {"status": "rejected", "record": Record(failures=1, retry_at=inf)},
    "may try again": {"status": "rejected", "record": Record(failures=1, retry_at=START + 5)},
    "pending again": {"status": "pending", "record": Record(failures=1, retry_at=START + 5)},
    "refused": {"status": "fulfilled", "refused": True},
    "refused, pending": {"status": "pending", "refused": True},
    "refused, held back": {"status": "rejected", "refused": True, "record": Record(failures=1, retry_at=START + 200)},
}
VERDICTS = {
    #                     young    expiring  last seconds  gone
    "idle":               (USE,    RENEW,    WAIT,         WAIT),
    "fulfilled":          (USE,    RENEW,    WAIT,         WAIT),
    "pending":            (USE,    USE,      WAIT,         WAIT),
    "held back":          (USE,    USE,      USE,          REFUSE),
    "held back for ever": (USE,    USE,      USE,          REFUSE),
    "may try again":      (USE,    RENEW,    WAIT,         WAIT),
    "pending again":      (USE,    USE,      WAIT,         WAIT),
    "refused":            (WAIT,   WAIT,     WAIT,         WAIT),
    "refused, pending":   (WAIT,   WAIT,     WAIT,         WAIT),
    "refused, held back": (REFUSE, REFUSE,   REFUSE,       REFUSE),
}  # fmt: skip
REASONS = {"young": "expiring", "expiring": "expiring", "last seconds": "expired", "gone": "expired"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", TIMES)
def test_guarantee_7_what_to_do_in_every_kind_of_state_at_every_time(kind: str, time: str):
    state = AuthState(token=HUNDRED, deadline=START + 100, **KINDS[kind])
    verdict, reason = decide(state, windows(state, 60.0), START + TIMES[time])
    assert verdict is VERDICTS[kind][list(TIMES).index(time)]
    assert reason == ("rejected" if kind.startswith("refused") else REASONS[time])


@pytest.mark.parametrize("token", [None, Token(), Token(refresh_token="r"), Token(expires_in=1e9)])
@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("idle", WAIT), ("pending", WAIT), ("held back", REFUSE), ("held back for ever", REFUSE), ("may try again", WAIT)],
)
def test_guarantee_13_without_an_access_token_a_request_waits_or_is_refused(
    token: Token | None, kind: str, verdict: Verdict
):
    state = AuthState(token=token, **KINDS[kind])
    assert decide(state, windows(state, 60.0), START + 10) == (verdict, "missing")
    assert good_until(state, windows(state, 60.0)) == -inf
    assert not is_alive(state, START)


def test_a_failure_is_remembered_until_the_very_moment_of_the_next_try():
    state = AuthState("rejected", None, record=Record(failures=1, retry_at=50.0))
    assert decide(state, Windows(inf, inf), nextafter(50.0, 0)) == (REFUSE, "missing")
    assert decide(state, Windows(inf, inf), 50.0) == (WAIT, "missing")


def test_a_token_is_alive_to_its_very_end_unless_a_server_has_refused_it():
    state = AuthState("rejected", HUNDRED, deadline=START + 100)
    assert is_alive(state, nextafter(START + 100, 0))
    assert not is_alive(state, START + 100)
    assert not is_alive(AuthState("rejected", HUNDRED, deadline=START + 100, refused=True), START)
    assert is_alive(AuthState("idle", Token("a")), 1e300)


# kind of state of the 100-second token, until when it may be used without a further look
GOOD_UNTIL = {
    "idle": 75.0,
    "fulfilled": 75.0,
    "pending": 98.0,
    "held back": 100.0,
    "held back for ever": 100.0,
    "may try again": 75.0,
    "pending again": 98.0,
    "refused": -inf,
    "refused, pending": -inf,
    "refused, held back": -inf,
}


@pytest.mark.parametrize(("kind", "until"), GOOD_UNTIL.items())
def test_until_when_a_token_is_used_without_a_further_look(kind: str, until: float):
    state = AuthState(token=HUNDRED, deadline=START + 100, **KINDS[kind])
    assert good_until(state, windows(state, 60.0)) == START + until


def test_a_retry_within_the_windows_ends_the_time_without_a_further_look():
    for retry_at in (80.0, 99.0):
        record = Record(failures=1, retry_at=START + retry_at)
        state = AuthState("rejected", HUNDRED, deadline=START + 100, record=record)
        assert good_until(state, windows(state, 60.0)) == START + retry_at


number = st.floats(-1e6, 1e6)
seconds = number | st.sampled_from([0.0, 0.5, 20.0, 3600.0, 1e12, 1e300, -1e300])


@st.composite
def states(draw: st.DrawFn) -> AuthState:
    token = draw(
        st.none()
        | st.builds(
            Token,
            st.sampled_from(["", "a"]),
            expires_in=st.none() | seconds,
            expires_at=st.none() | seconds.map(lambda s: end_of(s, AT.wall)),
        )
    )
    record = Record(
        failures=draw(st.integers(0, 5)),
        retry_at=draw(st.sampled_from([-inf, inf]) | seconds),
        durations=tuple(draw(st.lists(st.floats(0, 1e4), max_size=5))),
    )
    return AuthState(
        draw(st.sampled_from(["idle", "pending", "fulfilled", "rejected"])),
        token,
        deadline=inf if token is None else policy.deadline_of(token, AT),
        spread=draw(st.floats(0, 1)),
        refused=draw(st.booleans()),
        record=record,
    )


leeways = st.floats(0, 1e5) | st.sampled_from([0.0, 60.0])


@given(states(), leeways)
def test_the_windows_are_ordered_and_never_nan(state: AuthState, leeway: float):
    window = windows(state, leeway)
    renew_from, wait_from = window.renew_from, window.wait_from
    assert not isnan(renew_from)
    assert not isnan(wait_from)
    assert not isnan(state.deadline)
    assert renew_from <= wait_from
    if state.token is not None:
        assert wait_from <= state.deadline


@given(states(), leeways, st.data())
def test_good_until_is_the_first_moment_at_which_the_policy_may_say_anything_but_use(
    state: AuthState, leeway: float, data: st.DataObject
):
    window = windows(state, leeway)
    until = good_until(state, window)
    if until < inf:
        assert decide(state, window, until if until > -inf else data.draw(number))[0] != USE
    if until > -inf:
        assert decide(state, window, nextafter(until, -inf))[0] == USE
        earlier = data.draw(st.floats(max_value=nextafter(until, -inf), allow_nan=False, allow_infinity=False))
        assert decide(state, window, earlier)[0] == USE


@given(states(), leeways, number)
def test_guarantee_13_a_token_that_is_used_is_one_that_lives(state: AuthState, leeway: float, now: float):
    if decide(state, windows(state, leeway), now)[0] in (USE, RENEW):
        assert is_alive(state, now)


@given(states(), leeways, st.floats(0, 1))
def test_the_spread_only_makes_a_renewal_earlier_and_the_wait_not_at_all(
    state: AuthState, leeway: float, spread: float
):
    at_once = AuthState(state.status, state.token, deadline=state.deadline, record=state.record)
    spread_out = AuthState(state.status, state.token, deadline=state.deadline, record=state.record, spread=spread)
    assert windows(spread_out, leeway).renew_from <= windows(at_once, leeway).renew_from
    assert windows(spread_out, leeway).wait_from == windows(at_once, leeway).wait_from


@given(st.floats(0.01, 1e6), leeways, st.lists(st.floats(0, 1e4), max_size=5).map(tuple), st.floats(0, 1))
def test_guarantee_8_at_most_55_percent_of_a_life_are_spent_on_its_renewal(
    lifetime: float, leeway: float, took: tuple[float, ...], spread: float
):
    window = windows(living(lifetime, took=took, spread=spread), leeway)
    assert START + lifetime * 0.45 - 1e-6 <= window.renew_from


def test_the_jitter_really_makes_a_renewal_earlier(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_store, "choice", max)
    clock, asked = ManualClock(), []

    def refresh(token: Token) -> Token:
        asked.append(clock.monotonic())
        return Token("b", expires_in=3600)

    with Reauth(refresh, token=Token("a", expires_in=3600), clock=clock) as auth:
        clock.advance(3533.0)
        assert auth.get_token().access_token == "a"
        auth.close()
        assert asked == []
        clock.advance(1.0)  # 3600 s less 1.1 x 60 s
        assert auth.get_token().access_token == "a"
        auth.close()
        assert asked == [4_534.0]


def no(status: int | None = None, error: str | None = None, retry_after: float | None = None) -> RefreshError:
    return RefreshError("no", status_code=status, error=error, retry_after=retry_after)


def read(body: dict[str, str]) -> ReauthError:
    with pytest.raises(ReauthError) as caught:
        Token.from_response(httpx.Response(400, json=body))
    return caught.value


def later() -> ReauthError:
    return read({"error": "invalid_grant", "error_description": "token request is already being processed"})


def unspent() -> ReauthError:
    return after_spending_nothing(read({"error": "invalid_grant"}))


BACK_OFF = {
    # the error, its number in the row, jitter, seconds
    "first": (no(503), 1, 0.0, 0.5),
    "second": (no(503), 2, 0.0, 1.0),
    "third": (no(503), 3, 0.0, 2.0),
    "sixth": (no(503), 6, 0.0, 16.0),
    "seventh, where 32 would be next": (no(503), 7, 0.0, 30.0),
    "the ten thousandth": (no(503), 10_000, 0.0, 30.0),
    "first, all jitter": (no(503), 1, 1.0, 0.4),
    "second, half jitter": (no(503), 2, 0.5, 0.9),
    "seventh, all jitter": (no(503), 7, 1.0, 24.0),
    "no answer at all": (no(), 1, 0.0, 0.5),
    "200, not JSON": (no(200), 1, 0.0, 0.5),
    "a redirect": (no(307), 1, 0.0, 0.5),
    "408 says later": (no(408), 1, 0.0, 0.5),
    "425 says later": (no(425), 1, 0.0, 0.5),
    "429 says later": (no(429), 2, 0.0, 1.0),
    "429 says later, whatever its code": (no(429, "invalid_client"), 1, 0.0, 0.5),
    "500 with a code of a refusal": (no(500, "invalid_client"), 1, 0.0, 0.5),
    "400 is a refusal": (no(400), 1, 0.0, 60.0),
    "400 is a refusal the seventh time, too": (no(400), 7, 0.0, 60.0),
    "jitter takes nothing off a refusal": (no(401, "invalid_client"), 1, 1.0, 60.0),
    "401 is a refusal": (no(401), 1, 0.0, 60.0),
    "403 is a refusal": (no(403), 1, 0.0, 60.0),
    "404 without a code says that nobody is there": (no(404), 1, 0.0, 0.5),
    "405 without a code": (no(405), 1, 0.0, 0.5),
    "409 without a code": (no(409), 1, 0.0, 0.5),
    "423 without a code": (no(423), 1, 0.0, 0.5),
    "499 without a code": (no(499), 1, 0.0, 0.5),
    "404 with a code": (no(404, "invalid_client"), 1, 0.0, 60.0),
    "422 with a code of the server's own": (no(422, "wrong_password"), 1, 0.0, 60.0),
    "400 that is unavailable for now": (no(400, "temporarily_unavailable"), 1, 0.0, 0.5),
    "400 with an error of the server": (no(400, "server_error"), 2, 0.0, 1.0),
    "401 with an error of the server": (no(401, "Server_Error"), 1, 0.0, 0.5),
    "403 that is too fast": (no(403, "slow_down"), 1, 0.0, 0.5),
    "no status, and unavailable for now": (no(None, "temporarily_unavailable"), 1, 0.0, 0.5),
    "400, invalid_grant that is being processed": (later(), 1, 0.0, 0.5),
    "invalid_grant, nothing spent": (unspent(), 1, 1.0, 60.0),
    "invalid_grant, nothing spent, twice": (unspent(), 2, 0.0, 120.0),
    "invalid_grant, nothing spent, the fourth time": (unspent(), 4, 0.0, 480.0),
    "invalid_grant, nothing spent, the fifth time": (unspent(), 5, 0.0, 600.0),
    "invalid_grant, nothing spent, the ten thousandth": (unspent(), 10_000, 1.0, 600.0),
    "200 with the code of a refusal": (no(200, "invalid_client"), 1, 0.0, 60.0),
    "no status, but the code of a refusal": (no(None, "invalid_scope"), 1, 0.0, 60.0),
    "GitHub's code of a refusal": (no(200, "incorrect_client_credentials"), 1, 0.0, 60.0),
    "200 with a code that says later": (no(200, "temporarily_unavailable"), 1, 0.0, 0.5),
    "Retry-After is longer": (no(503, retry_after=10.0), 1, 1.0, 10.0),
    "Retry-After is shorter": (no(503, retry_after=0.1), 1, 0.0, 0.5),
    "Retry-After is longer than the longest": (no(503, retry_after=3600.0), 1, 0.0, 3600.0),
    "Retry-After zero": (no(503, retry_after=0.0), 1, 1.0, 0.4),
    "Retry-After negative": (no(503, retry_after=-5.0), 1, 0.0, 0.5),
    "a refusal with a shorter Retry-After": (no(403, retry_after=10.0), 1, 0.0, 60.0),
    "a refusal with a longer one": (no(403, retry_after=90.0), 1, 0.0, 90.0),
    "Retry-After for ever": (no(503, retry_after=inf), 1, 0.0, 86_400.0),
    "Retry-After is no number": (no(503, retry_after=nan), 1, 0.0, 0.5),
    "only a sign-in helps": (SignInRequired("dead"), 1, 0.0, inf),
    "only a sign-in helps, still": (SignInRequired("dead"), 9, 1.0, inf),
    "the storage": (StorageError("locked"), 1, 0.0, 0.5),
    "the storage, twice": (StorageError("locked", error="invalid_client"), 2, 0.0, 1.0),
}


@pytest.mark.parametrize(("error", "failures", "jitter", "wait"), BACK_OFF.values(), ids=BACK_OFF)
def test_guarantee_6_how_long_a_failure_is_remembered(error: Any, failures: int, jitter: float, wait: float):
    assert back_off(error, failures, jitter) == pytest.approx(wait)


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (10**6, 60)])
def test_where_somebody_may_sign_in_elsewhere_the_storage_is_looked_at_again(failures: int, seconds: float):
    assert back_off(SignInRequired("dead"), failures, 1.0, has_storage=True) == seconds
    assert back_off(no(503), 1, 0.0, has_storage=True) == 0.5
    assert back_off(no(401), 1, 0.0, has_storage=True) == 60.0


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_guarantee_6_the_back_off_is_at_least_four_fifths_of_half_a_second_and_never_above_thirty(
    failures: int, jitter: float
):
    assert 0.4 <= back_off(no(503), failures, jitter) <= 30.0


@pytest.mark.parametrize(
    ("useless", "quiet"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60), (10**6, 60)]
)
def test_guarantee_6_how_long_a_401_causes_no_refresh_after_useless_ones(useless: int, quiet: float):
    assert quiet_time(useless) == quiet


@pytest.mark.parametrize(
    "code",
    ["invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
     "invalid_scope", "access_denied", "incorrect_client_credentials"],
)  # fmt: skip
def test_guarantee_6_every_refusal_of_the_rfc_is_known_by_its_code_alone(code: str):
    assert policy.is_refusal(no(None, code))
    assert policy.is_refusal(no(200, code))
    assert not policy.is_refusal(no(503, code))


def test_a_status_that_is_no_error_tells_nothing():
    assert not policy.is_refusal(RefreshError("", status_code=399))
    assert policy.is_refusal(RefreshError("", status_code=400))


def test_a_sign_in_is_told_its_times_by_the_clock_of_the_store():
    clock = ManualClock()
    auth = Reauth(lambda token: token, clock=clock)
    auth.store.dispatch(SignedIn(Token("a", expires_in=100)))
    state = auth.store.state
    assert state.deadline == clock.monotonic() + 100
    assert 0.0 <= state.spread <= 1.0
    assert state.token is not None
    assert state.token.expires_at == clock.time() + 100
