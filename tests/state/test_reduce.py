"""Tests of `reduce`: which state follows from each action in each state.

The expectations are written by hand, in words.

`STATES` has a name for every kind of state, `ACTIONS` for every kind of action. For each action, `TABLE` lists in which
states which fields change. If several lines name a state, all of them count. Every other field stays as it is, and a
state that no line names stays the very same object.
"""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields, replace
from math import inf
from typing import Any, get_args

import pytest

from httpx_reauth import (
    AuthState,
    RefreshError,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    RevokeFailed,
    SaveFailed,
    SignedIn,
    SignedOut,
    SignInRequired,
    StorageError,
    Token,
)
from httpx_reauth._state.actions import (
    Action,
    FlightDropped,
    GrantRefused,
    Internal,
    Loaded,
    ReplayAccepted,
    ReplayEnded,
    ReplayRefused,
    ReplayStarted,
    Saved,
    SaveStarted,
    StorageGiven,
    TokenGiven,
    TokenRefused,
    WriteSuperseded,
)
from httpx_reauth._state.reduce import reduce
from httpx_reauth._state.state import NO_BACK_OFF, BackOff, Current, State, Stored

OLD, NEW, TWIN = Token("old", refresh_token="r1"), Token("new", refresh_token="r2"), Token("old", refresh_token="r1")
ROTATED = Token("old", refresh_token="r2")
FLIGHT, OTHER = object(), object()
DOWN, DEAD, FULL = RefreshError("down"), SignInRequired("dead"), StorageError("disk full")
HERE, THERE = ("https://api.test", "/here"), ("https://api.test", "/there")

# The states. `USED` is a current token that lives until 100.

USED = Current(OLD, 100.0, 0.5)
FAILED_ONCE = BackOff(1, 50.5)

STATES = {
    "empty": State(),
    "token": State(USED),
    "pending, empty": State(None, "pending", FLIGHT),
    "pending": State(USED, "pending", FLIGHT, refreshes=FAILED_ONCE, durations=(0.25,)),
    "pending, refused": State(replace(USED, refused=True), "pending", FLIGHT, durations=(0.1, 0.2, 0.3, 0.4, 0.5)),
    "pending, lifeless": State(replace(USED, without_lifetime=1), "pending", FLIGHT),
    "fulfilled": State(USED, "fulfilled", durations=(0.25,)),
    "adopted": State(replace(USED, is_adopted=True), "fulfilled"),
    "useless": State(USED, "fulfilled", replays=BackOff(2), places={HERE: BackOff(2, 80.0)}),
    "useless everywhere": State(USED, "fulfilled", replays=BackOff(3, 80.0), places={THERE: BackOff(1, 70.0)}),
    "failed": State(USED, DOWN, refreshes=FAILED_ONCE, durations=(0.25,)),
    "dead": State(None, DEAD, refreshes=BackOff(1, inf)),
    "second session": State(USED, session=1),
    "signed out": State(None, session=2, last_sign_out=2),
    # With a storage.
    "stored, not loaded": State(USED, stored=Stored()),
    "stored, empty": State(None, stored=Stored(is_loaded=True)),
    "stored": State(USED, "fulfilled", stored=Stored(is_loaded=True, last_seen="old")),
    "stored, pending": State(
        USED, "pending", FLIGHT, stored=Stored(is_loaded=True, last_seen="old", known_refusal=(OLD, DEAD))
    ),
    "renewed, not saved": State(
        USED, "fulfilled", stored=Stored(is_loaded=True, last_seen="before", pending_write="renewed")
    ),
    "renewed, not saved, told": State(
        USED,
        "pending",
        FLIGHT,
        stored=Stored(True, "before", "renewed", is_failure_known=True, saves=BackOff(2, 40.0)),
    ),
    "signed in, not saved": State(USED, session=1, stored=Stored(pending_write="signed in")),
    "signed in, not saved, told": State(
        USED, session=1, stored=Stored(pending_write="signed in", is_failure_known=True, saves=BackOff(2, 40.0))
    ),
    "signed in, not saved, pending": State(
        USED, "pending", FLIGHT, session=1, stored=Stored(pending_write="signed in")
    ),
    "signed out, not cleared": State(
        None, session=1, last_sign_out=1, stored=Stored(True, "old", pending_write="signed out")
    ),
    "signed out, not cleared, pending": State(
        None, "pending", FLIGHT, session=1, last_sign_out=1, stored=Stored(pending_write="signed out")
    ),
    "refused for good": State(
        USED, DEAD, refreshes=BackOff(1, 60.0), stored=Stored(True, "old", known_refusal=(OLD, DEAD))
    ),
}

ALL = list(STATES)
PENDING = [name for name, state in STATES.items() if state.phase == "pending"]
STORED = [name for name, state in STATES.items() if state.stored is not None]
UNSAVED = [name for name, state in STATES.items() if state.pending_write]
WITH_TOKEN = [name for name, state in STATES.items() if state.current is not None]
LATER_SESSION = [name for name, state in STATES.items() if state.session]
SIGNED_IN_SOMEHOW = [name for name in STATES if name not in {"empty", "signed out"}]
SESSION_NOT_STORED = [name for name in UNSAVED if STATES[name].pending_write != "renewed"]
NOT_CLEARED = [name for name in UNSAVED if STATES[name].pending_write == "signed out"]


def but(names: list[str], *others: str | list[str]) -> list[str]:
    """Return `names` without the others."""
    gone = {one for other in others for one in ([other] if isinstance(other, str) else other)}
    assert gone <= set(ALL)
    return [name for name in names if name not in gone]


ACTIONS: dict[str, Any] = {
    "a refresh begins": RefreshPending("missing", flight=OTHER),
    "a server refuses the token": TokenRefused(OLD),
    "a server refuses another token": TokenRefused(TWIN),
    "a refresh begins, decided on another state": RefreshPending(
        "expiring", flight=OTHER, expected=State(Current(NEW))
    ),
    "the refresh brings a token": RefreshFulfilled(NEW, "missing", 1.5, flight=FLIGHT, deadline=200.0, jitter=0.75),
    "the refresh brings a token that is not saved": RefreshFulfilled(
        NEW, "missing", 1.5, flight=FLIGHT, deadline=200.0, is_saved=False
    ),
    "the refresh brings a token that has ended": RefreshFulfilled(
        NEW, "missing", 1.5, flight=FLIGHT, deadline=20.0, without_lifetime=1
    ),
    "the refresh finds a token": RefreshFulfilled(NEW, "missing", 1.5, adopted=True, flight=FLIGHT, deadline=200.0),
    "another refresh brings a token": RefreshFulfilled(NEW, "missing", 1.5, flight=OTHER, deadline=200.0),
    "the refresh fails": RefreshRejected(DEAD, "missing", 1.5, flight=FLIGHT, retry_at=70.0),
    "the refresh fails, and failed before elsewhere": RefreshRejected(
        DEAD, "missing", 1.5, flight=FLIGHT, retry_at=70.0, failures=9
    ),
    "the refresh fails, but brings a refresh token": RefreshRejected(
        DOWN, "missing", 1.5, flight=FLIGHT, retry_at=70.0, rotated=ROTATED, deadline=150.0
    ),
    "the refresh fails, and its refresh token is not saved": RefreshRejected(
        DOWN, "missing", 1.5, flight=FLIGHT, retry_at=70.0, rotated=ROTATED, deadline=150.0, is_saved=False
    ),
    "another refresh fails": RefreshRejected(DEAD, "missing", 1.5, flight=OTHER, retry_at=70.0),
    "the flight is dropped": FlightDropped(FLIGHT),
    "another flight is dropped": FlightDropped(OTHER),
    "somebody signs in": SignedIn(NEW, deadline=300.0, jitter=0.25),
    "somebody signs in with a token that has ended": SignedIn(NEW, deadline=20.0, has_no_lifetime=True),
    "somebody signs out": SignedOut(),
    "a first token is given": TokenGiven(NEW, deadline=300.0, jitter=0.25),
    "the times of the first token are read": TokenGiven(NEW, deadline=300.0, jitter=0.25, replaces=OLD),
    "the times of an equal token are read": TokenGiven(NEW, deadline=300.0, replaces=TWIN),
    "a storage is given": StorageGiven(),
    "the storage is read": Loaded(NEW),
    "the storage is read, and empty": Loaded(None),
    "the token is saved": Saved(OLD),
    "an equal token is saved": Saved(TWIN),
    "the storage is cleared": Saved(None),
    "saving is tried again": SaveStarted(45.0),
    "saving has failed": SaveFailed(FULL, token=OLD),
    "saving another token has failed": SaveFailed(FULL, token=TWIN),
    "clearing has failed": SaveFailed(FULL),
    "others have saved a better token": WriteSuperseded(OLD),
    "others have saved one better than an equal token": WriteSuperseded(TWIN),
    "the refresh token is refused for good": GrantRefused(NEW, DEAD),
    "a fresh token is refused here": ReplayRefused(HERE, session=0, at=60.0),
    "a fresh token is refused here, later": ReplayRefused(HERE, session=0, at=80.0),
    "a fresh token of another session is refused": ReplayRefused(HERE, session=9, at=60.0),
    "a fresh token is accepted here": ReplayAccepted(HERE),
}

# The changes. A dict for a slice says which of the slice's fields change.

IDLE_AGAIN = {"phase": "idle", "flight": None}
RENEWED = {"current": Current(NEW, 200.0, 0.75), "phase": "fulfilled", "flight": None, "refreshes": NO_BACK_OFF}
NEW_SESSION = {
    **IDLE_AGAIN, "session": 1, "refreshes": NO_BACK_OFF, "replays": NO_BACK_OFF, "places": {},
}  # fmt: skip
NOTHING_FAILED = {"is_failure_known": False, "saves": NO_BACK_OFF}

IT_LASTED = [
    (PENDING, {"durations": (1.5,)}),
    (["pending"], {"durations": (0.25, 1.5)}),
    (["pending, refused"], {"durations": (0.2, 0.3, 0.4, 0.5, 1.5)}),  # the last five
]
IT_IS_SAVED = [
    (["stored, pending"], {"stored": {"known_refusal": None}}),
    (["renewed, not saved, told"], {"stored": {"pending_write": "", **NOTHING_FAILED}}),
    # The storage does not know of a sign-in or a sign-out. The new token has to replace what it holds.
    ([name for name in SESSION_NOT_STORED if name in PENDING], {"stored": {"pending_write": "signed in"}}),
]
A_SESSION_BEGINS = [
    (ALL, NEW_SESSION),
    (LATER_SESSION, {"session": 2}),
    (["signed out"], {"session": 3}),
]

TABLE: dict[str, list[tuple[list[str], dict[str, Any]]]] = {
    # Refreshes.
    "a refresh begins": [
        (but(ALL, PENDING), {"phase": "pending", "flight": OTHER}),
    ],
    "a server refuses the token": [
        (but(WITH_TOKEN, "pending, refused"), {"current": {"refused": True}}),
    ],
    "a server refuses another token": [],
    "a refresh begins, decided on another state": [],
    "the refresh brings a token": [
        (PENDING, RENEWED),
        *IT_LASTED,
        *IT_IS_SAVED,
    ],
    "the refresh brings a token that is not saved": [
        (PENDING, {**RENEWED, "current": Current(NEW, 200.0)}),
        *IT_LASTED,
        (["stored, pending"], {"stored": {"known_refusal": None, "pending_write": "renewed"}}),
        # The failure is known for another token, so the listeners get this one, too.
        (["renewed, not saved, told"], {"stored": NOTHING_FAILED}),
        ([name for name in SESSION_NOT_STORED if name in PENDING], {"stored": {"pending_write": "signed in"}}),
    ],
    "the refresh brings a token that has ended": [
        (PENDING, {**RENEWED, "current": Current(NEW, 20.0, without_lifetime=1)}),
        *IT_LASTED,
        *IT_IS_SAVED,
        # The second such token in a row: from now on it is used until a 401.
        (["pending, lifeless"], {"current": Current(NEW, inf, without_lifetime=2)}),
    ],
    "the refresh finds a token": [
        (PENDING, {**RENEWED, "current": Current(NEW, 200.0, is_adopted=True)}),
        *IT_IS_SAVED,
    ],
    "another refresh brings a token": [],
    "the refresh fails": [
        (PENDING, {"phase": DEAD, "flight": None, "refreshes": BackOff(1, 70.0)}),
        (["pending"], {"refreshes": BackOff(2, 70.0)}),
    ],
    "the refresh fails, and failed before elsewhere": [
        (PENDING, {"phase": DEAD, "flight": None, "refreshes": BackOff(9, 70.0)}),
    ],
    "the refresh fails, but brings a refresh token": [
        (PENDING, {"phase": DOWN, "flight": None, "refreshes": BackOff(1, 70.0)}),
        (["pending"], {"refreshes": BackOff(2, 70.0)}),
        (but(PENDING, WITH_TOKEN), {"current": Current(ROTATED, 150.0)}),
        (but(WITH_TOKEN, but(ALL, PENDING)), {"current": {"token": ROTATED}}),
        (but(UNSAVED, but(ALL, PENDING)), {"stored": {"pending_write": "", **NOTHING_FAILED}}),
    ],
    "the refresh fails, and its refresh token is not saved": [
        (PENDING, {"phase": DOWN, "flight": None, "refreshes": BackOff(1, 70.0)}),
        (["pending"], {"refreshes": BackOff(2, 70.0)}),
        (but(PENDING, WITH_TOKEN), {"current": Current(ROTATED, 150.0)}),
        (but(WITH_TOKEN, but(ALL, PENDING)), {"current": {"token": ROTATED}}),
        (but(STORED, but(ALL, PENDING)), {"stored": {"pending_write": "renewed", **NOTHING_FAILED}}),
        ([name for name in SESSION_NOT_STORED if name in PENDING], {"stored": {"pending_write": "signed in"}}),
    ],
    "another refresh fails": [],
    "the flight is dropped": [(PENDING, IDLE_AGAIN), (["pending"], {"refreshes": BackOff(1)})],
    "another flight is dropped": [],
    # Sessions.
    "somebody signs in": [
        *A_SESSION_BEGINS,
        (ALL, {"current": Current(NEW, 300.0, 0.25)}),
        (STORED, {"stored": {"pending_write": "signed in", "known_refusal": None, **NOTHING_FAILED}}),
    ],
    "somebody signs in with a token that has ended": [
        *A_SESSION_BEGINS,
        (ALL, {"current": Current(NEW, 20.0, without_lifetime=1)}),
        (STORED, {"stored": {"pending_write": "signed in", "known_refusal": None, **NOTHING_FAILED}}),
    ],
    "somebody signs out": [
        (SIGNED_IN_SOMEHOW, {**NEW_SESSION, "current": None, "last_sign_out": 1}),
        (but(LATER_SESSION, "signed out"), {"session": 2, "last_sign_out": 2}),
        (STORED, {"stored": {"pending_write": "signed out", "known_refusal": None, **NOTHING_FAILED}}),
    ],
    "a first token is given": [
        (but(ALL, WITH_TOKEN, PENDING), {"current": Current(NEW, 300.0, 0.25)}),
        (["dead"], {"phase": "idle", "refreshes": NO_BACK_OFF}),  # the new refresh token can be used
        (["signed out, not cleared"], {"stored": {"pending_write": "signed in"}}),
    ],
    "the times of the first token are read": [
        (but(WITH_TOKEN, PENDING), {"current": Current(NEW, 300.0, 0.25)}),
    ],
    "the times of an equal token are read": [],
    # The storage.
    "a storage is given": [
        (but(ALL, STORED), {"stored": Stored()}),
        (["second session"], {"stored": Stored(pending_write="signed in")}),  # the sign-in before it counts
        (["signed out"], {"stored": Stored(pending_write="signed out")}),
    ],
    "the storage is read": [
        (STORED, {"stored": {"is_loaded": True, "last_seen": "new"}}),
    ],
    "the storage is read, and empty": [
        (but(STORED, "stored, empty"), {"stored": {"is_loaded": True, "last_seen": None}}),
    ],
    "the token is saved": [
        (
            but(STORED, "stored", "stored, pending", "refused for good", "signed out, not cleared"),
            {"stored": {"is_loaded": True, "last_seen": "old"}},
        ),
        (but(UNSAVED, NOT_CLEARED), {"stored": {"pending_write": "", **NOTHING_FAILED}}),
    ],
    "an equal token is saved": [
        (
            but(STORED, "stored", "stored, pending", "refused for good", "signed out, not cleared"),
            {"stored": {"is_loaded": True, "last_seen": "old"}},
        ),
    ],
    "the storage is cleared": [
        (but(STORED, "stored, empty"), {"stored": {"is_loaded": True, "last_seen": None}}),
        (NOT_CLEARED, {"stored": {"pending_write": ""}}),
    ],
    "saving is tried again": [
        (UNSAVED, {"stored": {"saves": BackOff(1, 45.0)}}),
        (["renewed, not saved, told", "signed in, not saved, told"], {"stored": {"saves": BackOff(3, 45.0)}}),
    ],
    "saving has failed": [
        (
            but(UNSAVED, NOT_CLEARED, "renewed, not saved, told", "signed in, not saved, told"),
            {"stored": {"is_failure_known": True}},
        ),
    ],
    "saving another token has failed": [],
    "clearing has failed": [
        (NOT_CLEARED, {"stored": {"is_failure_known": True}}),
    ],
    "others have saved a better token": [
        (but(UNSAVED, NOT_CLEARED), {"stored": {"pending_write": "", **NOTHING_FAILED}}),
    ],
    "others have saved one better than an equal token": [],
    "the refresh token is refused for good": [
        (STORED, {"stored": {"known_refusal": (NEW, DEAD)}}),
    ],
    # Places.
    "a fresh token is refused here": [
        (but(ALL, LATER_SESSION, "useless"), {"replays": BackOff(1), "places": {HERE: BackOff(1, 61.0)}}),
        # No place starts a refresh before 80. So only this place counts.
        (["useless everywhere"], {"replays": BackOff(3, 80.0)}),
        (["useless everywhere"], {"places": {THERE: BackOff(1, 70.0), HERE: BackOff(1, 61.0)}}),
    ],
    "a fresh token is refused here, later": [
        (but(ALL, LATER_SESSION), {"replays": BackOff(1), "places": {HERE: BackOff(1, 81.0)}}),
        (["useless"], {"replays": BackOff(2), "places": {HERE: BackOff(3, 84.0)}}),  # each place counts once
        (["useless everywhere"], {"replays": BackOff(4, 82.0)}),
        (["useless everywhere"], {"places": {THERE: BackOff(1, 70.0), HERE: BackOff(1, 81.0)}}),
    ],
    "a fresh token of another session is refused": [],
    "a fresh token is accepted here": [
        (["useless", "useless everywhere"], {"replays": NO_BACK_OFF}),
        (["useless"], {"places": {}}),
    ],
}  # fmt: skip


def expected(action: str, state: str) -> State:
    """Return the state that `TABLE` expects. If the table says nothing, it is the very same object."""
    after = STATES[state]
    for states, changes in TABLE[action]:
        if state in states:
            after = after._replace(**{name: part_of(getattr(after, name), value) for name, value in changes.items()})
    return after


def part_of(before: Any, change: Any) -> Any:
    """Return a part of a state after `change`. `change` is the new part, or the fields that change in it."""
    if isinstance(before, Current):
        return replace(before, **change) if isinstance(change, dict) else change
    return before._replace(**change) if isinstance(before, Stored) and isinstance(change, dict) else change


def test_the_table_knows_every_action_and_no_line_of_it_is_idle():
    assert list(TABLE) == list(ACTIONS)
    # `reduce` ignores RevokeFailed, which is only for listeners. Other tests show trials, where several requests meet.
    assert {type(action) for action in ACTIONS.values()} == {*get_args(Action), *get_args(Internal)} - {
        RevokeFailed,
        ReplayStarted,
        ReplayEnded,
    }
    assert all(states and set(states) <= set(ALL) for rows in TABLE.values() for states, _ in rows)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("action", ACTIONS)
def test_every_state_and_every_action(action: str, state: str):
    before, kept = STATES[state], copy.copy(STATES[state])
    after, wanted = reduce(before, ACTIONS[action]), expected(action, state)
    assert after == wanted
    assert (after is before) == (wanted is before)
    assert before == kept
    if after.current and wanted.current:
        assert after.current.token is wanted.current.token


@pytest.mark.parametrize("state", but(ALL, PENDING))
def test_of_two_decisions_that_rest_on_one_state_the_first_one_starts_a_refresh(state: str):
    before = STATES[state]
    assert reduce(before, RefreshPending("expiring", flight=OTHER, expected=before)).flight is OTHER
    assert reduce(before, RefreshPending("expiring", flight=OTHER, expected=before._replace())) is before


# Rules that a table of single steps does not show.


def after(state: State, *actions: Any) -> State:
    for action in actions:
        state = reduce(state, action)
    return state


def renewed(token: Token = NEW, flight: object = FLIGHT, **more: Any) -> list[Any]:
    """Return the actions of a refresh that begins and returns `token`."""
    return [
        RefreshPending("rejected", flight=flight),
        RefreshFulfilled(token, "rejected", 1.0, flight=flight, deadline=inf, **more),
    ]


def test_an_answer_of_a_flight_that_was_dropped_does_not_count_for_the_next_one():
    second = after(
        State(),
        RefreshPending("missing", flight=FLIGHT),
        FlightDropped(FLIGHT),
        RefreshPending("missing", flight=OTHER),
    )
    assert reduce(second, RefreshFulfilled(OLD, "missing", 1.0, flight=FLIGHT)) is second
    assert reduce(second, RefreshRejected(DOWN, "missing", 1.0, flight=FLIGHT)) is second
    assert reduce(second, RefreshFulfilled(NEW, "missing", 1.0, flight=OTHER)).token is NEW


def test_a_decision_does_not_rest_on_a_state_that_looks_the_same_after_another_refresh():
    before = STATES["fulfilled"]
    later = after(before, *renewed(OLD))  # the server issues the very same token again
    assert reduce(later, RefreshPending("rejected", flight=OTHER, expected=before)) is later


def test_a_session_lasts_from_one_sign_in_or_sign_out_to_the_next():
    state, sessions = State(USED, session=7, last_sign_out=3), []
    for action in [*renewed(), RefreshPending("missing", flight=OTHER), SignedIn(NEW), SignedOut(), SignedIn(OLD)]:
        state = reduce(state, action)
        sessions.append((state.session, state.last_sign_out))
    assert sessions == [(7, 3), (7, 3), (7, 3), (8, 3), (9, 9), (10, 9)]


def test_tokens_that_have_ended_are_counted_in_a_row_and_a_sign_in_begins_a_new_row():
    ended = renewed(NEW, without_lifetime=1)
    assert after(State(), *ended, *ended).current.deadline == inf
    twice_at_once = renewed(NEW, without_lifetime=2)  # the answer of a function had ended, and so had the next answer
    assert after(State(), *twice_at_once).without_lifetime == 2
    assert after(State(), *ended, *renewed(NEW), *ended).without_lifetime == 1
    assert after(State(), *ended, SignedIn(NEW), *ended).without_lifetime == 1


def test_guarantee_6_at_one_place_each_fresh_token_that_is_refused_doubles_the_wait_to_15_minutes():
    state, at, waits = State(USED), 100.0, []
    for _ in range(12):
        state = reduce(state, ReplayRefused(HERE, session=0, at=at))
        # of many refusals of one token, only one counts
        assert reduce(state, ReplayRefused(HERE, session=0, at=at)) is state
        waits.append(state.places[HERE].until - at)
        at = state.places[HERE].until
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]
    assert state.replays == BackOff(1, -inf)  # a refusal here says nothing about other places


def test_guarantee_6_from_the_third_place_in_a_row_no_place_starts_a_refresh_for_1_to_60_seconds():
    state, at, waits = State(USED), 100.0, []
    for number in range(11):
        state = reduce(state, ReplayRefused(("https://api.test", f"/{number}"), session=0, at=at))
        waits.append(max(0.0, state.replays.until - at))
        at = max(at, state.replays.until)
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert reduce(state, ReplayAccepted(HERE)).replays == NO_BACK_OFF


def test_of_the_places_that_refuse_the_latest_64_are_remembered():
    state = State(USED)
    for number in range(64):
        state = reduce(state, ReplayRefused(("https://api.test", f"/{number}"), session=0, at=1_000.0 * number))
    # now it is one of the latest
    state = reduce(state, ReplayRefused(("https://api.test", "/0"), session=0, at=70_000.0))
    state = reduce(state, ReplayRefused(HERE, session=0, at=80_000.0))
    paths = [path for _, path in state.places]
    assert len(paths) == 64
    assert paths[-2:] == ["/0", "/here"]
    assert "/1" not in paths


def test_a_new_token_does_not_end_the_back_offs_of_the_places():
    state = reduce(State(USED), ReplayRefused(HERE, session=0, at=60.0))
    assert after(state, *renewed()).places == state.places
    assert after(state, *renewed(), SignedIn(NEW)).places == {}


@pytest.mark.parametrize("garbage", [SignedOut, None, "s3cret", {"access_token": "s3cret"}, ["s3cret"]])
def test_guarantee_11_a_wrong_action_is_a_type_error_that_does_not_repeat_it(garbage: Any):
    with pytest.raises(TypeError) as caught:
        reduce(State(), garbage)
    assert "s3cret" not in str(caught.value)


# The repr of states and actions.

PUBLIC = [action for action in ACTIONS.values() if isinstance(action, get_args(Action))]
VALUES = [*PUBLIC, *(state.as_public() for state in STATES.values())]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_guarantee_11_what_listeners_see_refuses_to_be_pickled_and_shows_no_secret(value: Any):
    with pytest.raises(TypeError, match=f"{type(value).__name__} holds secrets"):
        pickle.dumps(value)
    for secret in ("'old'", "'new'", "r1", "r2"):
        assert secret not in repr(value)
    assert copy.copy(value) is value
    assert copy.deepcopy(value) is value


@pytest.mark.parametrize("state", STATES)
def test_guarantee_11_a_state_shows_no_secret(state: str):
    for secret in ("'old'", "'new'", "r1", "r2"):
        assert secret not in repr(STATES[state]).replace("last_seen='old'", "")


@pytest.mark.parametrize("value", [State(USED), AuthState(), BackOff(), Stored(), SignedIn(NEW), SaveFailed(FULL)])
def test_states_and_actions_are_frozen(value: Any):
    with pytest.raises(AttributeError):
        setattr(value, next(iter(value._fields if isinstance(value, tuple) else value.__slots__)), None)
    assert not hasattr(value, "__dict__")


@pytest.mark.parametrize(
    ("state", "status", "error"),
    [
        ("empty", "idle", None),
        ("pending", "pending", None),
        ("fulfilled", "fulfilled", None),
        ("dead", "rejected", DEAD),
    ],
)
def test_listeners_see_status_token_and_error_and_no_more(state: str, status: Any, error: Any):
    public = STATES[state].as_public()
    assert public == AuthState(status, STATES[state].token, error)
    assert {one.name for one in fields(public)} == {"status", "token", "error"}


@pytest.mark.parametrize("action", PUBLIC, ids=repr)
def test_what_is_private_in_an_action_is_neither_shown_nor_compared_nor_given_by_position(action: Any):
    private = [one for one in fields(action) if not one.compare]
    for one in private:
        other = replace(action, **{one.name: object()})
        assert other == action
        assert repr(other) == repr(action)
        assert f"{one.name}=" not in repr(action)
        assert one.kw_only
    assert {one.name for one in fields(action)} - {one.name for one in private} <= {
        "token", "error", "reason", "elapsed", "adopted",
    }  # fmt: skip
