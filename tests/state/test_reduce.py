"""The state and `reduce`: every state x every action. The expectations are written by hand, column by column."""

from __future__ import annotations

import copy
import itertools
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from math import inf
from typing import Any

import pytest

from httpx_reauth import (
    AuthState,
    RefreshError,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    SaveFailed,
    SignedIn,
    SignedOut,
    SignInRequired,
    StorageError,
    Token,
)
from httpx_reauth._state.actions import FlightDropped, ReplayAccepted, ReplayRefused, ReplayStarted, Saved
from httpx_reauth._state.state import CLEAN, Record, reduce
from httpx_reauth._token import Discreet

OLD, NEW, TWIN = Token("old", refresh_token="r1"), Token("new", refresh_token="r2"), Token("old", refresh_token="r1")
FLIGHT, OTHER = object(), object()
ERROR, DEAD = RefreshError("down"), SignInRequired("dead")
SAVING = StorageError("disk full")

FAILED = Record(failures=1, retry_at=50.5, durations=(0.25,))
FAILED_ONCE_MORE = Record(failures=2, retry_at=70.0, durations=(0.25,))
FAILED_FIRST = Record(failures=1, retry_at=70.0)
USELESS = Record(useless=2, quiet_until=80.0, durations=(0.1, 0.2, 0.3, 0.4, 0.5))

STATES = {
    "empty": AuthState(),
    "signed in": AuthState("idle", OLD, deadline=100.0, spread=0.5),
    "pending, empty": AuthState("pending", flight=FLIGHT),
    "pending": AuthState("pending", OLD, deadline=100.0, spread=0.5, flight=FLIGHT, record=FAILED),
    "pending, refused": AuthState("pending", OLD, deadline=100.0, flight=FLIGHT, refused=True, record=USELESS),
    "fulfilled": AuthState("fulfilled", OLD, deadline=100.0, record=Record(durations=(0.25,))),
    "on trial": AuthState("fulfilled", OLD, tried=True, record=Record(quiet_until=80.0, durations=(0.25,))),
    "useless": AuthState("fulfilled", OLD, deadline=100.0, tried=True, useless=True, record=USELESS),
    "unsaved": AuthState("fulfilled", OLD, deadline=100.0, unsaved="renewed"),
    "to be saved": AuthState("idle", OLD, deadline=100.0, unsaved="signed in"),
    "told": AuthState("idle", OLD, deadline=100.0, unsaved="signed in, told"),
    "rejected": AuthState("rejected", OLD, ERROR, deadline=100.0, record=FAILED),
    "rejected, refused": AuthState("rejected", OLD, ERROR, deadline=100.0, refused=True, record=FAILED),
    "dead": AuthState("rejected", None, DEAD, record=Record(failures=1, retry_at=inf)),
    "signed out": AuthState(unsaved="signed out", session=1),
}

ACTIONS: dict[str, Any] = {
    "RefreshPending missing": RefreshPending("missing", flight=OTHER),
    "RefreshPending rejected": RefreshPending("rejected", flight=OTHER),
    "RefreshPending on this state": "a RefreshPending whose basis is the state itself",
    "RefreshPending on an equal state": "a RefreshPending whose basis is another state that looks the same",
    "RefreshPending on another state": RefreshPending("expiring", flight=OTHER, basis=AuthState("idle", NEW)),
    "RefreshFulfilled": RefreshFulfilled(NEW, "missing", 1.5, flight=FLIGHT, deadline=200.0, spread=0.75),
    "RefreshFulfilled adopted": RefreshFulfilled(NEW, "missing", 1.5, True, flight=FLIGHT, deadline=200.0),
    "RefreshFulfilled other flight": RefreshFulfilled(NEW, "missing", 1.5, flight=OTHER, deadline=200.0),
    "RefreshRejected": RefreshRejected(DEAD, "missing", 1.5, flight=FLIGHT, retry_at=70.0),
    "RefreshRejected other flight": RefreshRejected(DEAD, "missing", 1.5, flight=OTHER, retry_at=70.0),
    "SaveFailed": SaveFailed(SAVING),
    "SaveFailed this token": SaveFailed(SAVING, token=OLD),
    "SaveFailed equal token": SaveFailed(SAVING, token=TWIN),
    "SaveFailed other token": SaveFailed(SAVING, token=NEW),
    "SignedIn": SignedIn(NEW, deadline=300.0, spread=0.25),
    "SignedOut": SignedOut(),
    "ReplayStarted": ReplayStarted(OLD, 95.0),
    "ReplayStarted equal token": ReplayStarted(TWIN, 95.0),
    "ReplayRefused": ReplayRefused(OLD, 90.0),
    "ReplayRefused equal token": ReplayRefused(TWIN, 90.0),
    "ReplayAccepted": ReplayAccepted(),
    "Saved": Saved(OLD),
    "Saved equal token": Saved(TWIN),
    "Saved nothing": Saved(None),
    "FlightDropped": FlightDropped(FLIGHT),
    "FlightDropped other flight": FlightDropped(OTHER),
}

# What a cell means. "=": the very same object. Small letters: these fields change and all others stay.
# Capital letters: these fields are set and all others are as in a new state.
CHANGED = {
    "p": {"status": "pending", "error": None, "flight": OTHER},
    "q": {"status": "pending", "error": None, "flight": OTHER, "refused": True},
    "e": {"status": "rejected", "error": DEAD, "flight": None, "record": FAILED_FIRST},
    "f": {"status": "rejected", "error": DEAD, "flight": None, "record": FAILED_ONCE_MORE},
    "g": {
        "status": "rejected", "error": DEAD, "flight": None,
        "record": Record(failures=1, retry_at=70.0, useless=2, quiet_until=80.0, durations=(0.1, 0.2, 0.3, 0.4, 0.5)),
    },
    "u": {"unsaved": "renewed"},
    "t": {"unsaved": "signed in, told"},
    "s": {"unsaved": ""},
    "x": {"useless": True, "record": Record(useless=1, quiet_until=90.0)},
    "y": {"useless": True, "record": Record(failures=1, retry_at=50.5, useless=1, quiet_until=90.0, durations=(0.25,))},
    "z": {"useless": True, "record": Record(useless=1, quiet_until=90.0, durations=(0.25,))},
    "v": {"useless": True, "record": Record(useless=3, quiet_until=90.0, durations=(0.1, 0.2, 0.3, 0.4, 0.5))},
    "a": {"useless": False, "record": Record(durations=(0.1, 0.2, 0.3, 0.4, 0.5))},
    "l": {"useless": False, "record": Record(durations=(0.25,))},
    "h": {"tried": True, "record": Record(quiet_until=95.0)},
    "i": {"tried": True, "record": Record(failures=1, retry_at=50.5, quiet_until=95.0, durations=(0.25,))},
    "j": {"tried": True, "record": Record(useless=2, quiet_until=95.0, durations=(0.1, 0.2, 0.3, 0.4, 0.5))},
    "k": {"tried": True, "record": Record(quiet_until=95.0, durations=(0.25,))},
    "d": {"status": "idle", "flight": None},
}  # fmt: skip
FRESH = {"status": "fulfilled", "token": NEW, "deadline": 200.0, "spread": 0.75}
ADOPTED = {**FRESH, "spread": 0.0, "tried": True, "useless": True}
SIGNED_IN = {"status": "idle", "token": NEW, "deadline": 300.0, "spread": 0.25, "unsaved": "signed in", "session": 1}
NEW_STATE = {
    "A": {**FRESH, "record": Record(durations=(1.5,))},
    "B": {**FRESH, "record": Record(durations=(0.25, 1.5))},
    "C": {**FRESH, "record": Record(useless=2, quiet_until=80.0, durations=(0.2, 0.3, 0.4, 0.5, 1.5))},
    "D": ADOPTED,
    "E": {**ADOPTED, "record": Record(durations=(0.25,))},
    "F": {**ADOPTED, "record": USELESS},
    "I": SIGNED_IN,
    "J": {**SIGNED_IN, "record": Record(durations=(0.25,))},
    "K": {**SIGNED_IN, "record": Record(durations=(0.1, 0.2, 0.3, 0.4, 0.5))},
    "L": {**SIGNED_IN, "session": 2},
    "O": {"unsaved": "signed out", "session": 1},
}

# The columns are STATES in their order: empty, signed in, pending x 3, fulfilled, on trial, useless, unsaved,
# to be saved, told, rejected x 2, dead, signed out
TABLE = {
    "RefreshPending missing":           "p p = = = p p p p p p p p p p",
    "RefreshPending rejected":          "q q = = = q q q q q q q q q q",
    "RefreshPending on this state":     "p p = = = p p p p p p p p p p",
    "RefreshPending on an equal state": "= = = = = = = = = = = = = = =",
    "RefreshPending on another state":  "= = = = = = = = = = = = = = =",
    "RefreshFulfilled":                 "= = A B C = = = = = = = = = =",
    "RefreshFulfilled adopted":         "= = D E F = = = = = = = = = =",
    "RefreshFulfilled other flight":    "= = = = = = = = = = = = = = =",
    "RefreshRejected":                  "= = e f g = = = = = = = = = =",
    "RefreshRejected other flight":     "= = = = = = = = = = = = = = =",
    "SaveFailed":                       "u u u u u u u u = t = u u u =",
    "SaveFailed this token":            "= u = u u u u u = t = u u = =",
    "SaveFailed equal token":           "= = = = = = = = = = = = = = =",
    "SaveFailed other token":           "= = = = = = = = = = = = = = =",
    "SignedIn":                         "I I I J K J J K I I I J J I L",
    "SignedOut":                        "= O O O O O O O O O O O O O =",
    "ReplayStarted":                    "= h = i j k = = h h h i i = =",
    "ReplayStarted equal token":        "= = = = = = = = = = = = = = =",
    "ReplayRefused":                    "= x = y v z z = x x x y y = =",
    "ReplayRefused equal token":        "= = = = = = = = = = = = = = =",
    "ReplayAccepted":                   "= = = = a = l a = = = = = = =",
    "Saved":                            "= = = = = = = = s s s = = = =",
    "Saved equal token":                "= = = = = = = = = = = = = = =",
    "Saved nothing":                    "= = = = = = = = = = = = = = s",
    "FlightDropped":                    "= = d d d = = = = = = = = = =",
    "FlightDropped other flight":       "= = = = = = = = = = = = = = =",
}  # fmt: skip

CELLS = [
    pytest.param(action, state, cell, id=f"{action} on {state}")
    for action, row in TABLE.items()
    for state, cell in zip(STATES, row.split(), strict=True)
]


def everything(state: AuthState) -> dict[str, object]:
    """All fields, those too that `==` leaves out."""
    return {one.name: getattr(state, one.name) for one in fields(state)}


def action_for(name: str, state: AuthState) -> Any:
    if name == "RefreshPending on this state":
        return RefreshPending("expiring", flight=OTHER, basis=state)
    if name == "RefreshPending on an equal state":
        return RefreshPending("expiring", flight=OTHER, basis=replace(state))
    return ACTIONS[name]


def test_the_table_has_a_cell_for_every_state_and_every_action():
    assert [case.id for case in CELLS] == [f"{a} on {s}" for a, s in itertools.product(ACTIONS, STATES)]
    assert {type(action).__name__ for action in ACTIONS.values() if not isinstance(action, str)} == {
        "RefreshPending", "RefreshFulfilled", "RefreshRejected", "SaveFailed", "SignedIn", "SignedOut",
        "ReplayStarted", "ReplayRefused", "ReplayAccepted", "Saved", "FlightDropped",
    }  # fmt: skip
    used = {cell for row in TABLE.values() for cell in row.split()}
    assert used == {"=", *CHANGED, *NEW_STATE}


@pytest.mark.parametrize(("action", "state", "cell"), CELLS)
def test_every_state_and_every_action(action: str, state: str, cell: str):
    before = STATES[state]
    kept = everything(before)
    after = reduce(before, action_for(action, before))
    if cell == "=":
        assert after is before
    elif cell in CHANGED:
        assert everything(after) == {**kept, **CHANGED[cell]}
        assert after.token is before.token
    else:
        assert everything(after) == {**everything(AuthState()), **NEW_STATE[cell]}
    assert everything(before) == kept


@pytest.mark.parametrize("state", STATES)
def test_what_is_no_action_is_a_type_error_that_says_what_is(state: str):
    with pytest.raises(TypeError, match=r"SignedOut\(\)"):
        reduce(STATES[state], SignedOut)  # type: ignore[arg-type]  # the class: somebody forgot the parentheses
    with pytest.raises(TypeError, match=r"SignedIn\(token\)"):
        reduce(STATES[state], None)  # type: ignore[arg-type]


@pytest.mark.parametrize("garbage", ["s3cret", {"type": "auth/signedIn", "access_token": "s3cret"}, ["s3cret"]])
def test_guarantee_11_what_is_no_action_is_a_type_error_that_does_not_repeat_it(garbage: Any):
    with pytest.raises(TypeError) as caught:
        reduce(AuthState(), garbage)
    assert "s3cret" not in str(caught.value)


def test_an_answer_from_any_flight_but_the_current_one_changes_nothing():
    first = reduce(AuthState(), RefreshPending("missing", flight=FLIGHT))
    dropped = reduce(first, FlightDropped(FLIGHT))
    second = reduce(dropped, RefreshPending("missing", flight=OTHER))
    assert reduce(second, RefreshFulfilled(OLD, "missing", 1.0, flight=FLIGHT)) is second
    assert reduce(second, RefreshRejected(ERROR, "missing", 1.0, flight=FLIGHT)) is second
    assert reduce(second, RefreshFulfilled(NEW, "missing", 1.0, flight=OTHER)).token is NEW


def test_of_two_decisions_that_rest_on_one_state_only_the_first_starts_a_refresh():
    basis = STATES["fulfilled"]
    state = reduce(basis, RefreshPending("rejected", flight=FLIGHT, basis=basis))
    # The server issues the very same token once more: the next state looks like the first.
    state = reduce(state, RefreshFulfilled(OLD, "rejected", 1.0, flight=FLIGHT))
    assert state == basis
    assert reduce(state, RefreshPending("rejected", flight=OTHER, basis=basis)) is state


def test_the_token_stays_while_the_next_one_is_on_its_way():
    state = reduce(STATES["signed in"], RefreshPending("expiring", flight=FLIGHT))
    assert (state.status, state.token, state.deadline) == ("pending", OLD, 100.0)


def test_only_the_latest_five_durations_are_remembered():
    state = AuthState()
    for seconds in (9.0, 1.0, 2.0, 3.0, 4.0, 5.0):
        state = reduce(state, RefreshPending("expiring", flight=FLIGHT))
        state = reduce(state, RefreshFulfilled(NEW, "expiring", seconds, flight=FLIGHT))
    assert state.record.durations == (1.0, 2.0, 3.0, 4.0, 5.0)


def test_failures_are_counted_in_a_row_and_a_token_ends_the_row():
    state = AuthState()
    for failures in (1, 2, 3):
        state = reduce(state, RefreshPending("missing", flight=FLIGHT))
        state = reduce(state, RefreshRejected(ERROR, "missing", 1.0, flight=FLIGHT, retry_at=10.0 * failures))
        assert (state.record.failures, state.record.retry_at, state.error) == (failures, 10.0 * failures, ERROR)
    state = reduce(state, RefreshPending("missing", flight=FLIGHT))
    assert (state.record.failures, state.error) == (3, None)
    state = reduce(state, RefreshFulfilled(NEW, "missing", 1.0, flight=FLIGHT))
    assert (state.record.failures, state.record.retry_at) == (0, -inf)


def test_useless_tokens_are_counted_over_refreshes_and_a_sign_in_ends_the_row():
    state, token = AuthState("fulfilled", OLD), OLD
    for count in (1, 2, 3):
        state = reduce(state, ReplayRefused(token, 10.0 * count))
        assert reduce(state, ReplayRefused(token, 99.0)) is state  # each token counts once
        assert (state.record.useless, state.record.quiet_until) == (count, 10.0 * count)
        token = Token(f"new {count}")
        state = reduce(state, RefreshPending("rejected", flight=FLIGHT))
        state = reduce(state, RefreshFulfilled(token, "rejected", 1.0, flight=FLIGHT))
    assert reduce(state, SignedIn(OLD)).record == Record(durations=(1.0, 1.0, 1.0))


def test_a_token_on_trial_never_makes_the_quiet_time_shorter():
    state = AuthState("fulfilled", OLD, record=USELESS)
    assert reduce(state, ReplayStarted(OLD, 10.0)).record.quiet_until == 80.0
    assert reduce(state, ReplayStarted(OLD, 80.5)).record.quiet_until == 80.5


@pytest.mark.parametrize(("is_lifeless", "deadline"), [(True, 140.0), (False, 100.0)])
def test_a_refused_token_that_ended_as_it_came_stands_in_for_the_next_while_that_would_not_help(
    *, is_lifeless: bool, deadline: float
):
    state = AuthState("fulfilled", OLD, deadline=100.0, tried=True)
    assert reduce(state, ReplayRefused(OLD, 140.0, is_lifeless=is_lifeless)).deadline == deadline


def test_a_token_that_comes_after_a_sign_out_that_no_storage_knows_replaces_what_is_held():
    state = AuthState("pending", flight=FLIGHT, unsaved="signed out", session=1)
    assert reduce(state, RefreshFulfilled(NEW, "missing", 1.0, flight=FLIGHT)).unsaved == "signed in"


def test_a_session_lasts_from_one_sign_in_or_sign_out_to_the_next():
    state, sessions = AuthState("idle", OLD, session=7), []
    for action in [
        RefreshPending("missing", flight=FLIGHT),
        RefreshFulfilled(NEW, "missing", 1.0, flight=FLIGHT),
        RefreshPending("missing", flight=FLIGHT),
        RefreshRejected(DEAD, "missing", 1.5, flight=FLIGHT),
        SignedIn(NEW),
        SignedOut(),
        SignedOut(),
        SignedIn(OLD),
    ]:
        state = reduce(state, action)
        sessions.append(state.session)
    assert sessions == [7, 7, 7, 7, 8, 9, 9, 10]


def test_an_adopted_token_is_never_on_trial():
    state = reduce(STATES["pending"], RefreshFulfilled(NEW, "rejected", 1.0, True, flight=FLIGHT))
    assert reduce(state, ReplayStarted(NEW, 90.0)) is state
    assert reduce(state, ReplayRefused(NEW, 90.0)) is state


def test_a_new_state_shares_the_clean_record():
    assert AuthState().record is CLEAN
    assert reduce(STATES["rejected"], SignedOut()).record is CLEAN
    assert reduce(STATES["dead"], SignedIn(NEW)).record is CLEAN


VALUES = [value for value in (*STATES.values(), *ACTIONS.values()) if isinstance(value, Discreet)]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_guarantee_11_states_and_actions_refuse_to_be_pickled_and_show_no_secret(value: Any):
    with pytest.raises(TypeError, match=f"{type(value).__name__} holds secrets and refuses to be pickled"):
        pickle.dumps(value)
    for secret in ("'old'", "'new'", "r1", "r2"):
        assert secret not in repr(value)
    assert copy.copy(value) is value
    assert copy.deepcopy(value) is value


@pytest.mark.parametrize("value", [*STATES.values(), SignedIn(NEW), SaveFailed(SAVING)])
def test_states_and_actions_are_frozen(value: Any):
    with pytest.raises(FrozenInstanceError):
        setattr(value, fields(value)[0].name, None)
    assert not hasattr(value, "__dict__")


PRIVATE = {
    "deadline": 5.0,
    "spread": 0.5,
    "flight": FLIGHT,
    "refused": True,
    "tried": True,
    "useless": True,
    "unsaved": "signed in",
    "session": 1,
    "record": FAILED,
}


def test_what_is_private_in_a_state_is_neither_shown_nor_compared_nor_given_by_position():
    state = AuthState("idle", OLD)
    assert {one.name for one in fields(AuthState)} == {"status", "token", "error", *PRIVATE}
    for name, value in PRIVATE.items():
        assert getattr(state, name) != value
        other = replace(state, **{name: value})
        assert other == state
        assert repr(other) == repr(state) == f"AuthState(status='idle', token={OLD!r}, error=None)"
    with pytest.raises(TypeError):
        AuthState("idle", OLD, None, 5.0)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("action", "private"),
    [
        (RefreshPending("missing"), {"flight": FLIGHT, "basis": AuthState()}),
        (RefreshFulfilled(NEW, "missing", 1.0, True), {"flight": FLIGHT, "deadline": 5.0, "spread": 0.5}),
        (RefreshRejected(ERROR, "missing", 1.0), {"flight": FLIGHT, "retry_at": 5.0}),
        (SaveFailed(SAVING), {"token": OLD}),
        (SignedIn(NEW), {"deadline": 5.0, "spread": 0.5}),
    ],
)
def test_what_is_private_in_an_action_is_neither_shown_nor_compared_nor_given_by_position(
    action: Any, private: dict[str, Any]
):
    for name, value in private.items():
        assert getattr(action, name) != value
        other = replace(action, **{name: value})
        assert other == action
        assert repr(other) == repr(action)
        assert f"{name}=" not in repr(action)
    public = [getattr(action, one.name) for one in fields(action) if one.name not in private]
    with pytest.raises(TypeError):
        type(action)(*public, None)


def test_the_record_is_frozen_and_clean_at_first():
    assert Record() == CLEAN == Record(failures=0, retry_at=-inf, useless=0, quiet_until=-inf, durations=())
    with pytest.raises(AttributeError):
        CLEAN.failures = 1  # type: ignore[misc]


def test_what_a_listener_sees_is_compared_by_what_it_says():
    assert AuthState("idle", OLD, deadline=1.0) == AuthState("idle", TWIN, deadline=2.0)
    assert RefreshPending("missing", flight=FLIGHT) == RefreshPending("missing")
    assert RefreshFulfilled(NEW, "missing", 1.0, deadline=5.0) == RefreshFulfilled(NEW, "missing", 1.0)
    assert RefreshFulfilled(NEW, "missing", 1.0) != RefreshFulfilled(OLD, "missing", 1.0)
    assert repr(RefreshPending("missing", flight=FLIGHT)) == "RefreshPending(reason='missing')"


@pytest.mark.parametrize(("value", "name"), [(SignedOut, "type"), (None, "NoneType"), ("SignedOut", "str")])
def test_what_is_no_action_is_named_and_told_what_to_do(value: Any, name: str):
    with pytest.raises(TypeError) as caught:
        reduce(AuthState(), value)
    assert str(caught.value) == f"This {name} is no action. Dispatch SignedIn(token) or SignedOut()."
