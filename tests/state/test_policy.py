"""Tests of the policy: each window at both its edges, every verdict, the waits after a failure.

The numbers are calculated by hand.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf, isnan, nextafter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seams import state_of

from httpx_reauth import Reauth, RefreshError, SignedIn, SignInRequired, StorageError, Token
from httpx_reauth._clock import Moment
from httpx_reauth._state import policy
from httpx_reauth._state import store as _store
from httpx_reauth._state.policy import Verdict, back_off, decide, is_alive, may_renew_for, takes_over, windows
from httpx_reauth._state.state import BackOff, Current, State, Stored
from httpx_reauth._token import LATEST
from httpx_reauth.testing import ManualClock

USE: Verdict = "use"
RENEW: Verdict = "renew"
WAIT: Verdict = "wait"
REFUSE: Verdict = "refuse"

START = 1_000.0  # when the tokens of these tests were published, in monotonic seconds
AT = Moment(monotonic=START, wall=1_700_000_000.0)


def holding(token: Token, *, jitter: float = 0.0, **more: Any) -> State:
    return State(Current(token, policy.deadline_of(token, AT), jitter), "fulfilled", **more)


def living(lifetime: float, *, took: tuple[float, ...] = (), **more: Any) -> State:
    end = AT.wall + lifetime if lifetime < 1e11 else None  # later than that is beyond the year 9999
    token = Token("a", expires_in=lifetime, expires_at=end)
    return holding(token, durations=took, **more)


def ending(seconds: float, **more: Any) -> State:
    """Return the state with a token of which only the end is known."""
    return holding(Token("a", expires_at=AT.wall + seconds), **more)


# Columns: state, leeway; then renewed from, waited for from, and ended from, in seconds after START.
WINDOWS = {
    # The must-wait window is L/50, but at most 5 s. The leeway is at most L/4, and 60 s here.
    "0.5 s": (living(0.5), 60.0, 0.375, 0.49, 0.5),
    "20 s": (living(20), 60.0, 15.0, 19.6, 20.0),
    "60 s": (living(60), 60.0, 45.0, 58.8, 60.0),
    "239 s, where L/4 is less than the leeway": (living(239), 60.0, 179.25, 234.22, 239.0),
    "241 s, where it is more": (living(241), 60.0, 181.0, 236.18, 241.0),
    "249 s, where L/50 is less than 5 s": (living(249), 60.0, 189.0, 244.02, 249.0),
    "251 s, where it is more": (living(251), 60.0, 191.0, 246.0, 251.0),
    "3600 s": (living(3600), 60.0, 3540.0, 3595.0, 3600.0),
    "huge": (living(1e12), 60.0, 1e12 - 60, 1e12 - 5, 1e12),
    "zero": (living(0), 60.0, 0.0, 0.0, 0.0),
    "negative": (living(-5), 60.0, -5.0, -5.0, -5.0),
    "the longest": (living(1e300), 60.0, 1e300, 1e300, 1e300),
    # The leeway that the user sets.
    "no leeway, 3600 s": (living(3600), 0.0, 3595.0, 3595.0, 3600.0),
    "no leeway, 0.5 s": (living(0.5), 0.0, 0.49, 0.49, 0.5),
    "leeway 600 s": (living(3600), 600.0, 3000.0, 3595.0, 3600.0),
    "leeway an hour": (living(3600), 3600.0, 2700.0, 3595.0, 3600.0),
    # Only the end is known: the windows are 5 s and the leeway, unchanged.
    "ends in 3600 s": (ending(3600), 60.0, 3540.0, 3595.0, 3600.0),
    "ends in 20 s": (ending(20), 60.0, -40.0, 15.0, 20.0),
    "ends in 3 s": (ending(3), 60.0, -57.0, -2.0, 3.0),
    "ended an hour ago": (ending(-3600), 60.0, -3660.0, -3605.0, -3600.0),
    "ends in 3600 s, no leeway": (ending(3600), 0.0, 3595.0, 3595.0, 3600.0),
    "ends in 3600 s, leeway 4 s": (ending(3600), 4.0, 3595.0, 3595.0, 3600.0),
    "ends in 3600 s, slow endpoint": (ending(3600, durations=(100.0,)), 60.0, 3540.0, 3595.0, 3600.0),
    # No end is known.
    "no end": (holding(Token("a")), 60.0, inf, inf, inf),
    "no end, jitter": (holding(Token("a"), jitter=1.0), 60.0, inf, inf, inf),
    # A slow endpoint: the window is the slowest refresh, plus its half (but at most L/40), plus the must-wait window.
    # It is at most L/2.
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
    # The jitter makes the renewal earlier, at most by a tenth of its window, and by less if the lifetime is short.
    "jitter, 3600 s": (living(3600, jitter=1.0), 60.0, 3534.0, 3595.0, 3600.0),
    "half of it, 3600 s": (living(3600, jitter=0.5), 60.0, 3537.0, 3595.0, 3600.0),
    "jitter, 60 s": (living(60, jitter=1.0), 60.0, 43.5, 58.8, 60.0),
    "jitter, 30 s": (living(30, jitter=1.0), 60.0, 22.125, 29.4, 30.0),
    "jitter, slow": (living(3600, took=(3600.0,), jitter=1.0), 60.0, 1620.0, 3595.0, 3600.0),
    "jitter, zero": (living(0, jitter=1.0), 60.0, 0.0, 0.0, 0.0),
    "jitter, ends in 3600 s": (ending(3600, jitter=1.0), 60.0, 3534.0, 3595.0, 3600.0),
    "jitter, the longest": (living(1e300, jitter=1.0), 60.0, 1e300, 1e300, 1e300),
}


@pytest.mark.parametrize(("state", "leeway", "renew", "wait", "end"), WINDOWS.values(), ids=WINDOWS)
def test_the_windows_of_a_token(state: State, leeway: float, renew: float, wait: float, end: float):
    assert windows(state, leeway) == pytest.approx((START + renew, START + wait))
    assert deadline(state) == pytest.approx(START + end)


@pytest.mark.parametrize(("state", "leeway", "renew", "wait", "end"), WINDOWS.values(), ids=WINDOWS)
def test_guarantee_8_every_window_at_its_two_edges(state: State, leeway: float, renew: float, wait: float, end: float):
    renew_from, wait_from = windows(state, leeway)
    edges = {
        renew_from: (RENEW, "expiring", -inf),
        wait_from: (WAIT, "expired", -inf),  # if two windows begin at the same time, the later one counts
        deadline(state): (WAIT, "expired", -inf),
    }
    before: tuple[Verdict, str, float] = (USE, "expiring", renew_from)
    for edge, at in sorted(edges.items()):
        if edge != -inf:
            assert decide(state, nextafter(edge, -inf), leeway) == before
        if edge != inf:
            assert decide(state, edge, leeway) == at
        before = at
    assert decide(state, 1e300, leeway)[0] == (WAIT if end < inf else USE)


def deadline(state: State) -> float:
    assert state.current is not None
    return state.current.deadline


def test_the_example_of_the_docstring():
    assert windows(State(Current(Token("a", expires_in=3600), 10_000.0)), 60.0) == (9_940.0, 9_995.0)


def test_without_a_token_or_a_known_end_there_is_no_window():
    assert windows(State(), 60.0) == windows(State(Current(Token("a"))), 60.0) == (inf, inf)


# The end of a token on the monotonic clock. The token became known at START.
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


# A token that lives 100 s (renewed from 75, waited for from 98), at these seconds after START.
TIMES = {"young": 10.0, "expiring": 80.0, "last seconds": 99.0, "gone": 100.0}
HUNDRED = Current(Token("a", expires_in=100), START + 100)
REFUSED = replace(HUNDRED, refused=True)
LIFELESS = Current(Token("a", expires_in=0), START, without_lifetime=1)
TRIED_AGAIN = BackOff(1, START + 5)
HELD_BACK = BackOff(1, START + 200)
DEAD = SignInRequired("dead")
FLIGHT = object()
LOADED = Stored(is_loaded=True)
KINDS = {
    "idle": State(HUNDRED),
    "fulfilled": State(HUNDRED, "fulfilled"),
    "pending": State(HUNDRED, "pending", FLIGHT),
    "held back": State(HUNDRED, RefreshError(), refreshes=HELD_BACK),
    "held back for ever": State(HUNDRED, DEAD, refreshes=BackOff(1, inf)),
    "may try again": State(HUNDRED, RefreshError(), refreshes=TRIED_AGAIN),
    "pending again": State(HUNDRED, "pending", FLIGHT, refreshes=TRIED_AGAIN),
    "pending, held back": State(HUNDRED, "pending", FLIGHT, refreshes=HELD_BACK),
    "refused": State(REFUSED, "fulfilled"),
    "refused, pending": State(REFUSED, "pending", FLIGHT),
    "refused, held back": State(REFUSED, RefreshError(), refreshes=HELD_BACK),
    # With a storage that was read, the verdicts are the same.
    "stored": State(HUNDRED, "fulfilled", stored=LOADED),
    "stored, held back": State(HUNDRED, RefreshError(), refreshes=HELD_BACK, stored=LOADED),
    # A storage that was not read is read first. Only if that failed, requests use the token that there is.
    "not loaded": State(HUNDRED, stored=Stored()),
    "not loaded, pending": State(HUNDRED, "pending", FLIGHT, stored=Stored()),
    "not loaded, held back": State(HUNDRED, RefreshError(), refreshes=HELD_BACK, stored=Stored()),
    "not loaded, may try again": State(HUNDRED, RefreshError(), refreshes=TRIED_AGAIN, stored=Stored()),
    "not loaded, pending again": State(HUNDRED, "pending", FLIGHT, refreshes=TRIED_AGAIN, stored=Stored()),
    "not loaded, refused, held back": State(REFUSED, RefreshError(), refreshes=HELD_BACK, stored=Stored()),
    # A token that had ended already when it came.
    "no lifetime": State(LIFELESS, "fulfilled"),
    "no lifetime, nothing renews it": State(LIFELESS, DEAD, refreshes=BackOff(1, inf)),
    "no lifetime, held back": State(LIFELESS, RefreshError(), refreshes=HELD_BACK),
    "no lifetime, nothing renews it, refused": State(replace(LIFELESS, refused=True), DEAD, refreshes=BackOff(1, inf)),
}
VERDICTS = {
    #                                   young   expiring  last seconds  gone
    "idle":                            (USE,    RENEW,    WAIT,         WAIT),
    "fulfilled":                       (USE,    RENEW,    WAIT,         WAIT),
    "pending":                         (USE,    USE,      WAIT,         WAIT),
    "held back":                       (USE,    USE,      USE,          REFUSE),
    "held back for ever":              (USE,    USE,      USE,          REFUSE),
    "may try again":                   (USE,    RENEW,    WAIT,         WAIT),
    "pending again":                   (USE,    USE,      WAIT,         WAIT),
    "pending, held back":              (USE,    USE,      WAIT,         WAIT),
    "refused":                         (WAIT,   WAIT,     WAIT,         WAIT),
    "refused, pending":                (WAIT,   WAIT,     WAIT,         WAIT),
    "refused, held back":              (REFUSE, REFUSE,   REFUSE,       REFUSE),
    "stored":                          (USE,    RENEW,    WAIT,         WAIT),
    "stored, held back":               (USE,    USE,      USE,          REFUSE),
    "not loaded":                      (WAIT,   WAIT,     WAIT,         WAIT),
    "not loaded, pending":             (WAIT,   WAIT,     WAIT,         WAIT),
    "not loaded, held back":           (USE,    USE,      USE,          REFUSE),
    "not loaded, may try again":       (RENEW,  RENEW,    RENEW,        WAIT),
    "not loaded, pending again":       (USE,    USE,      USE,          WAIT),
    "not loaded, refused, held back":  (REFUSE, REFUSE,   REFUSE,       REFUSE),
    "no lifetime":                     (WAIT,   WAIT,     WAIT,         WAIT),
    "no lifetime, nothing renews it":  (USE,    USE,      USE,          USE),
    "no lifetime, held back":          (REFUSE, REFUSE,   REFUSE,       REFUSE),
    "no lifetime, nothing renews it, refused": (REFUSE, REFUSE, REFUSE, REFUSE),
}  # fmt: skip
REASONS = {"young": "expiring", "expiring": "expiring", "last seconds": "expired", "gone": "expired"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", TIMES)
def test_guarantee_7_what_to_do_in_every_kind_of_state_at_every_time(kind: str, time: str):
    verdict, reason, _ = decide(KINDS[kind], START + TIMES[time], 60.0)
    assert verdict == VERDICTS[kind][list(TIMES).index(time)]
    if "refused" in kind:
        assert reason == "rejected"
    elif kind.startswith("not loaded"):
        assert reason == "missing"
    elif not kind.startswith("no lifetime") and verdict != USE:
        assert reason == REASONS[time]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "refused" not in kind])
@pytest.mark.parametrize("time", TIMES)
def test_guarantee_4_a_request_whose_token_was_refused_waits_for_another_and_one_with_an_older_token_does_not(
    kind: str, time: str
):
    state, now = KINDS[kind], START + TIMES[time]
    assert state.current is not None
    is_held_back = state.flight is None and now < state.refreshes.until
    assert decide(state, now, 60.0, state.current.token)[:2] == (REFUSE if is_held_back else WAIT, "rejected")
    assert decide(state, now, 60.0, Token("older")) == decide(state, now, 60.0)


SENT, ROTATED = Token("a", refresh_token="r1"), Token("a", refresh_token="r2")


@pytest.mark.parametrize(
    ("state", "token", "is_it"),
    [
        (State(Current(SENT), "fulfilled"), SENT, True),
        (State(Current(SENT), "fulfilled"), ROTATED, False),  # the server has issued the same access token once more
        (State(Current(ROTATED), RefreshError()), SENT, True),  # the refresh that failed has changed the refresh token
        (State(Current(ROTATED), "pending", object()), SENT, True),
        (State(Current(ROTATED), RefreshError()), Token("b", refresh_token="r1"), False),
        (State(Current(SENT)), None, False),
        (State(), SENT, False),
    ],
)
def test_the_current_token_stays_the_same_if_a_failed_refresh_changes_only_its_refresh_token(
    state: State, token: Token | None, is_it: bool
):
    assert policy.is_current(state, token) is is_it


@pytest.mark.parametrize("token", [None, Token(), Token(refresh_token="r"), Token(expires_in=1e9)])
@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("idle", WAIT), ("pending", WAIT), ("held back", REFUSE), ("held back for ever", REFUSE), ("may try again", WAIT)],
)
def test_guarantee_13_without_an_access_token_a_request_waits_or_is_refused(
    token: Token | None, kind: str, verdict: Verdict
):
    state = KINDS[kind]._replace(current=None if token is None else Current(token))
    assert decide(state, START + 10, 60.0) == (verdict, "missing", -inf)
    assert not is_alive(state, START)


def test_a_failure_is_remembered_until_the_very_moment_of_the_next_try():
    state = State(None, RefreshError(), refreshes=BackOff(1, 50.0))
    assert decide(state, nextafter(50.0, 0), 60.0) == (REFUSE, "missing", -inf)
    assert decide(state, 50.0, 60.0) == (WAIT, "missing", -inf)


def test_a_token_is_alive_to_its_very_end_unless_a_server_has_refused_it():
    assert is_alive(State(HUNDRED), nextafter(START + 100, 0))
    assert not is_alive(State(HUNDRED), START + 100)
    assert not is_alive(State(REFUSED), START)
    assert is_alive(State(Current(Token("a"))), 1e300)
    assert not is_alive(State(), START)


# Until when a verdict "use" holds: the kind of state, the time, and seconds after START.
UNTIL = {
    ("idle", "young"): 75.0,
    ("pending", "young"): 98.0,
    ("pending", "expiring"): 98.0,
    ("held back", "young"): 100.0,
    ("held back", "last seconds"): 100.0,
    ("held back for ever", "expiring"): 100.0,
    ("may try again", "young"): 75.0,
    ("pending, held back", "young"): 98.0,
    ("stored", "young"): 75.0,
}


@pytest.mark.parametrize(("kind", "time"), UNTIL)
def test_a_token_is_used_without_another_decision_until_a_known_time(kind: str, time: str):
    assert decide(KINDS[kind], START + TIMES[time], 60.0) == (USE, "expiring", START + UNTIL[kind, time])


@pytest.mark.parametrize("retry_at", [80.0, 99.0])
def test_a_token_is_used_without_another_decision_until_a_retry_is_due(retry_at: float):
    state = State(HUNDRED, RefreshError(), refreshes=BackOff(1, START + retry_at))
    assert decide(state, START + 76.0, 60.0) == (USE, "expiring", START + retry_at)


@pytest.mark.parametrize(
    "state", [KINDS["stored"], KINDS["pending"]._replace(stored=LOADED), KINDS["stored, held back"]]
)
def test_a_token_is_used_without_another_decision_until_a_save_is_due(state: State):
    stored = LOADED._replace(pending_write="renewed", saves=BackOff(1, START + 20.0))
    assert decide(state._replace(stored=stored), START + 10.0, 60.0) == (USE, "expiring", START + 20.0)
    late = stored._replace(saves=BackOff(1, START + 1e6))
    assert decide(state._replace(stored=late), START + 10.0, 60.0) == decide(state, START + 10.0, 60.0)


number = st.floats(-1e6, 1e6)
seconds = number | st.sampled_from([0.0, 0.5, 20.0, 3600.0, 1e12, 1e300, -1e300])


@st.composite
def states(draw: st.DrawFn) -> State:
    token = draw(
        st.none()
        | st.builds(
            Token,
            st.sampled_from(["", "a"]),
            expires_in=st.none() | seconds,
            expires_at=st.none() | seconds.map(lambda s: min(s + AT.wall, LATEST)),
        )
    )
    current = token and Current(
        token,
        policy.deadline_of(token, AT),
        draw(st.floats(0, 1)),
        refused=draw(st.booleans()),
        without_lifetime=draw(st.integers(0, 2)),
    )
    phase = draw(st.sampled_from(["idle", "pending", "fulfilled", RefreshError(), DEAD]))
    back_offs = st.tuples(st.integers(0, 5), st.sampled_from([-inf, inf]) | seconds).map(lambda drawn: BackOff(*drawn))
    pending_write = st.sampled_from(["", "renewed", "signed in", "signed out"])
    stored = st.none() | st.tuples(st.booleans(), pending_write, back_offs).map(
        lambda drawn: Stored(drawn[0], pending_write=drawn[1], saves=drawn[2])
    )
    return State(
        current,
        phase,
        FLIGHT if phase == "pending" else None,
        refreshes=draw(back_offs),
        durations=tuple(draw(st.lists(st.floats(0, 1e4), max_size=5))),
        stored=draw(stored),
    )


leeways = st.floats(0, 1e5) | st.sampled_from([0.0, 60.0])


@given(states(), leeways)
def test_the_windows_are_ordered_and_never_nan(state: State, leeway: float):
    renew_from, wait_from = windows(state, leeway)
    assert not isnan(renew_from)
    assert not isnan(wait_from)
    assert renew_from <= wait_from
    if state.current is not None:
        assert wait_from <= state.current.deadline


@given(states(), leeways, number, st.data())
def test_until_the_moment_that_a_decision_names_no_other_is_made(
    state: State, leeway: float, now: float, data: st.DataObject
):
    verdict, _, until = decide(state, now, leeway)
    if verdict != USE or until <= now:
        return
    later = data.draw(st.floats(now, min(until, 1e307), exclude_max=until < 1e307))
    assert decide(state, later, leeway) == (verdict, "expiring", until)


@given(states(), leeways, number)
def test_guarantee_13_a_token_that_is_used_is_one_that_lives(state: State, leeway: float, now: float):
    if decide(state, now, leeway)[0] in (USE, RENEW):
        assert is_alive(state, now)


@given(states(), leeways)
def test_the_jitter_only_makes_a_renewal_earlier_and_the_wait_not_at_all(state: State, leeway: float):
    if state.current is None:
        return
    renew_from, wait_from = windows(state, leeway)
    at_most, same_wait = windows(state._replace(current=replace(state.current, jitter=0.0)), leeway)
    assert renew_from <= at_most
    assert wait_from == same_wait


@given(st.floats(0.01, 1e6), leeways, st.lists(st.floats(0, 1e4), max_size=5).map(tuple), st.floats(0, 1))
def test_guarantee_8_at_most_55_percent_of_a_life_are_spent_on_its_renewal(
    lifetime: float, leeway: float, took: tuple[float, ...], jitter: float
):
    renew_from, _ = windows(living(lifetime, took=took, jitter=jitter), leeway)
    assert START + lifetime * 0.45 - 1e-6 <= renew_from


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


# Sessions: may a request that began in one state use the token of another state?

BEGAN_IN = {
    "signed in": State(HUNDRED, session=4, last_sign_out=3),
    "nobody has ever signed in": State(),
    "signed out": State(session=4, last_sign_out=4),
}
SINCE = {
    "nothing": lambda began: began,
    "a refresh": lambda began: began._replace(current=HUNDRED, phase="fulfilled"),
    "a sign-in": lambda began: began._replace(current=HUNDRED, session=began.session + 1),
    "a sign-out": lambda began: began._replace(
        current=None, session=began.session + 1, last_sign_out=began.session + 1
    ),
    "a sign-out and a sign-in": lambda began: began._replace(
        current=HUNDRED, session=began.session + 2, last_sign_out=began.session + 1
    ),
    "two sign-ins": lambda began: began._replace(current=HUNDRED, session=began.session + 2),
}
GOES_ON = {
    #                             signed in  nobody has ever signed in  signed out
    "nothing":                   (True,      True,                      True),
    "a refresh":                 (True,      True,                      True),
    "a sign-in":                 (False,     True,                      True),
    "a sign-out":                (False,     False,                     False),
    "a sign-out and a sign-in":  (False,     False,                     False),
    "two sign-ins":              (False,     True,                      True),
}  # fmt: skip


@pytest.mark.parametrize("since", SINCE)
@pytest.mark.parametrize("began", BEGAN_IN)
def test_a_request_goes_on_with_a_token_of_its_own_session_or_without_one_with_that_of_a_sign_in(
    began: str, since: str
):
    state = BEGAN_IN[began]
    assert takes_over(state, SINCE[since](state)) is GOES_ON[since][list(BEGAN_IN).index(began)]


# Places.

HERE, THERE = ("https://api.test", "/here"), ("https://api.test", "/there")


def test_guarantee_6_a_401_starts_a_refresh_from_the_end_of_the_back_off_of_its_place_on():
    state = State(HUNDRED, places={HERE: BackOff(1, 50.0)})
    assert not may_renew_for(state, HERE, nextafter(50.0, 0))
    assert may_renew_for(state, HERE, 50.0)
    assert may_renew_for(state, THERE, 0.0)


def test_guarantee_6_a_401_of_any_place_starts_none_before_the_end_of_the_back_off_of_all():
    state = State(HUNDRED, replays=BackOff(3, 50.0))
    assert not may_renew_for(state, HERE, nextafter(50.0, 0))
    assert may_renew_for(state, HERE, 50.0)


def test_guarantee_8_a_token_that_has_ended_is_renewed_wherever_it_is_refused():
    state = State(replace(HUNDRED, deadline=40.0), places={HERE: BackOff(1, 50.0)})
    assert not may_renew_for(state, HERE, nextafter(40.0, 0))
    assert may_renew_for(state, HERE, 40.0)


def no(status: int | None = None, error: str | None = None, retry_after: float | None = None) -> RefreshError:
    return RefreshError("no", status_code=status, error=error, retry_after=retry_after)


BACK_OFF = {
    # Columns: the error, its number in the row, jitter, seconds.
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
    "404 without a code says nothing about a client": (no(404), 1, 0.0, 0.5),
    "499 with the code of a refusal": (no(499, "invalid_client"), 1, 0.0, 60.0),
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
    "only a sign-in helps": (SignInRequired("dead"), 1, 0.0, inf),
    "only a sign-in helps, still": (SignInRequired("dead"), 9, 1.0, inf),
    "the storage": (StorageError("locked"), 1, 0.0, 0.5),
    "the storage, twice": (StorageError("locked", error="invalid_client"), 2, 0.0, 1.0),
}


@pytest.mark.parametrize(("error", "failures", "jitter", "wait"), BACK_OFF.values(), ids=BACK_OFF)
def test_guarantee_6_a_failure_is_remembered_for_its_back_off(error: Any, failures: int, jitter: float, wait: float):
    assert back_off(error, failures, jitter) == pytest.approx(wait)


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (10**6, 60)])
def test_if_a_user_may_sign_in_in_another_process_the_storage_is_read_again(failures: int, seconds: float):
    assert back_off(SignInRequired("dead"), failures, 1.0, has_storage=True) == seconds
    assert back_off(no(503), 1, 0.0, has_storage=True) == 0.5
    assert back_off(no(401), 1, 0.0, has_storage=True) == 60.0


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_guarantee_6_the_back_off_is_at_least_four_fifths_of_half_a_second_and_never_above_thirty(
    failures: int, jitter: float
):
    assert 0.4 <= back_off(no(503), failures, jitter) <= 30.0


@pytest.mark.parametrize(
    ("count", "wait"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 512), (11, 900), (12, 900), (10**6, 900)]
)
def test_guarantee_6_a_place_starts_no_refresh_for_its_back_off(count: int, wait: float):
    assert policy.no_refresh_here_until(count, START) == START + wait


@pytest.mark.parametrize(
    ("count", "wait"), [(1, -inf), (2, -inf), (3, 1), (4, 2), (5, 4), (8, 32), (9, 60), (10, 60), (10**6, 60)]
)
def test_guarantee_6_no_place_starts_a_refresh_for_the_common_back_off(count: int, wait: float):
    assert policy.no_refresh_until(count, START) == START + wait


@pytest.mark.parametrize(("count", "wait"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (10**6, 60)])
def test_guarantee_2_saving_is_tried_again_after_its_back_off(count: int, wait: float):
    assert policy.save_again_at(count, START) == START + wait


@pytest.mark.parametrize(
    "code",
    ["invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
     "invalid_scope", "access_denied", "incorrect_client_credentials"],
)  # fmt: skip
def test_guarantee_6_every_refusal_of_the_rfc_is_known_by_its_code_unless_the_status_says_later(code: str):
    assert policy.is_refusal(no(None, code))
    assert policy.is_refusal(no(200, code))
    assert not policy.is_refusal(no(503, code))


def test_a_status_that_is_not_an_error_is_no_refusal():
    assert not policy.is_refusal(RefreshError("", status_code=399))
    assert policy.is_refusal(RefreshError("", status_code=400))


def test_a_sign_in_has_its_times_by_the_clock_of_the_store():
    clock = ManualClock()
    auth = Reauth(lambda token: token, clock=clock)
    auth.store.dispatch(SignedIn(Token("a", expires_in=100)))
    current = state_of(auth).current
    assert current is not None
    assert current.deadline == clock.monotonic() + 100
    assert 0.0 <= current.jitter <= 1.0
    assert current.token.expires_at == clock.time() + 100
