"""`reduce` computes the next state. Every transition of the state is in this module.

        +------------ SignedIn, SignedOut (from anywhere) -------------+
        v                                                              |
      idle --RefreshPending--> pending --RefreshFulfilled--> fulfilled |
                               ^     +---RefreshRejected--> an error --+
                               +------ RefreshPending, from any but pending

Six rules hold:

1. There is one flight. `flight` is set exactly while a refresh is pending. The result of any other flight changes
   nothing.
2. A session lasts from one sign-in or sign-out to the next. At its end, `reduce` deletes the back-offs and the refusals
   of servers. The durations of refreshes stay.
3. The token stays in the state during a refresh, and after a refresh that failed.
4. A failure during a back-off does not make the back-off longer. So of many requests that fail together, one counts.
5. `Stored.pending_write` says which change must still be written to the storage. `pending_write` and the token change
   in the same step, so nobody can see one change without the other.
6. An action about an old flight, token or session changes nothing. `reduce` asks `is_stale` first. If the answer is
   yes, `reduce` returns the same object, and the store then calls no listener.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from types import MappingProxyType
from typing import Any

from httpx_reauth._state import policy
from httpx_reauth._state.actions import (
    Action,
    FlightDropped,
    GrantRefused,
    Internal,
    Loaded,
    Place,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    ReplayAccepted,
    ReplayEnded,
    ReplayRefused,
    ReplayStarted,
    RevokeFailed,
    Saved,
    SaveFailed,
    SaveStarted,
    SignedIn,
    SignedOut,
    StorageGiven,
    TokenGiven,
    TokenRefused,
    WriteSuperseded,
)
from httpx_reauth._state.state import NO_BACK_OFF, NOT_LOADED, BackOff, Current, PendingWrite, State, Stored
from httpx_reauth._token import Token

_DURATIONS = 5  # durations of refreshes that are remembered: they show how slow the token endpoint is
_PLACES = 64  # places that are remembered; the one that changed least recently is removed first


def is_stale(state: State, action: Action | Internal) -> bool:  # noqa: C901, PLR0911, PLR0912 - one question, asked of each action
    """Is `action` about a flight, a token or a session that is no longer the current one?"""
    match action:
        case RefreshPending():
            return state.flight is not None or (action.expected is not None and action.expected is not state)
        case RefreshFulfilled() | RefreshRejected() | FlightDropped():
            return state.flight is None or action.flight is not state.flight
        case SaveFailed():
            is_known = state.stored is None or state.stored.is_failure_known
            return is_known or not state.pending_write or action.token is not state.token
        case SaveStarted():
            return not state.pending_write
        case WriteSuperseded():
            return not state.pending_write or action.token is not state.token
        case SignedOut():
            is_over = action.session is not None and action.session != state.session
            is_idle = state.flight is None and state.current is None and state.phase == "idle"
            return is_over or (state.stored is None and is_idle)
        case TokenGiven():
            return state.token is not action.replaces or state.flight is not None
        case TokenRefused():
            return state.current is None or state.current.refused or state.token is not action.token
        case StorageGiven():
            return state.stored is not None
        case Loaded() | Saved() | GrantRefused():
            return state.stored is None
        case ReplayStarted():
            place = state.places.get(action.place)
            return action.session != state.session or (place is not None and action.at < place.until)
        case ReplayRefused():
            return action.session != state.session
        case ReplayAccepted():
            return not state.replays.failures and action.place not in state.places
        case ReplayEnded():
            return action.session != state.session or not state.places.get(action.place, NO_BACK_OFF).is_on_trial
        case SignedIn() | RevokeFailed():
            return False
        case _:  # a class instead of an instance, most likely
            raise TypeError(f"This {type(action).__name__} is no action. Dispatch SignedIn(token) or SignedOut().")


def reduce(state: State, action: Action | Internal) -> State:  # noqa: C901, PLR0911, PLR0912 - a table
    """The state after `action`; the same object if `action` changes nothing."""
    if is_stale(state, action):
        return state
    match action:
        case RefreshPending():
            return state._replace(phase="pending", flight=action.flight)
        case RefreshFulfilled():
            return _fulfilled(state, action)
        case RefreshRejected():
            return _rejected(state, action)
        case FlightDropped():
            # The back-off was over, or did not count. Without an error, there must be none.
            return state._replace(phase="idle", flight=None, refreshes=BackOff(state.refreshes.failures))
        case SignedIn():
            current = _given(action)
            return _new_session(state, "signed in", current)
        case SignedOut():
            return _new_session(state, "signed out", None)._replace(last_sign_out=state.session + 1)
        case TokenGiven():
            current = _given(action)
            if action.replaces is not None:
                return state._replace(current=current)
            # The new token may be renewed, whatever failed before.
            state = state._replace(current=current, phase="idle", refreshes=NO_BACK_OFF)
            # A first token is written to an empty storage only. But after a sign-out that is not written yet, it
            # replaces the stored token.
            return _writing(state, "signed in" if state.pending_write == "signed out" else "")
        case TokenRefused():
            assert state.current is not None
            return state._replace(current=replace(state.current, refused=True))
        case StorageGiven():
            stored = NOT_LOADED
            if state.session:  # a sign-in or sign-out before the store had its storage wins over the stored token
                stored = Stored(pending_write="signed out" if state.current is None else "signed in")
            return state._replace(stored=stored)
        case Loaded():
            return _stored(state, is_loaded=True, last_seen=_name(action.token))
        case Saved():
            state = _stored(state, is_loaded=True, last_seen=_name(action.token))
            return _writing(state, "") if action.token is state.token else state
        case WriteSuperseded():
            return _writing(state, "")
        case SaveFailed():
            return _stored(state, is_failure_known=True)
        case SaveStarted():
            saves = state.stored.saves if state.stored else NO_BACK_OFF
            return _stored(state, saves=BackOff(saves.failures + 1, action.until))
        case GrantRefused():
            return _stored(state, known_refusal=(action.token, action.error))
        case RevokeFailed():
            return state._replace()  # a new object, so that the store calls the listeners
        case ReplayStarted():
            known = state.places.get(action.place, NO_BACK_OFF)
            until = policy.no_refresh_here_until(known.failures + 1, action.at)
            return _with_place(state, action.place, BackOff(known.failures, until, is_on_trial=True))
        case ReplayRefused():
            return _replay_refused(state, action)
        case ReplayAccepted():
            return _with_place(state, action.place, None)._replace(replays=NO_BACK_OFF)
        case ReplayEnded():
            failures = state.places[action.place].failures
            return _with_place(state, action.place, BackOff(failures) if failures else None)


def _given(action: SignedIn | TokenGiven) -> Current:
    return Current(action.token, action.deadline, action.jitter, without_lifetime=int(action.has_no_lifetime))


def _fulfilled(state: State, action: RefreshFulfilled) -> State:
    durations, without_lifetime = state.durations, 0
    if not action.adopted:
        durations = (*durations, action.elapsed)[-_DURATIONS:]
        without_lifetime = state.without_lifetime + action.without_lifetime if action.without_lifetime else 0
    current = Current(
        action.token,
        # Two tokens in a row had expired when they were received, so the lifetimes that the server states are wrong.
        # The token is used until a 401.
        inf if without_lifetime > 1 else action.deadline,
        action.jitter,
        is_adopted=action.adopted,
        without_lifetime=without_lifetime,
    )
    state = state._replace(
        current=current,
        phase="fulfilled",
        flight=None,
        refreshes=NO_BACK_OFF,
        durations=durations,
    )
    state = _stored(state, known_refusal=None)
    if action.is_saved and (state.stored is None or state.stored.is_loaded):
        return _writing(state, "")
    # `is_saved`, and a storage that was not read: the refresh began before the store had its storage.
    return _not_written(state, "" if action.is_saved else "renewed")


def _rejected(state: State, action: RefreshRejected) -> State:
    current = state.current
    if action.rotated is not None:
        is_same = current is not None and current.token.access_token == action.rotated.access_token
        fresh = Current(action.rotated, action.deadline)
        current = replace(current, token=action.rotated) if current is not None and is_same else fresh
        state = _writing(state, "") if action.is_saved else _not_written(state, "renewed")
    refreshes = BackOff(max(state.refreshes.failures + 1, action.failures), action.retry_at)
    return state._replace(current=current, phase=action.error, flight=None, refreshes=refreshes)


def _new_session(state: State, pending_write: PendingWrite, current: Current | None) -> State:
    stored = state.stored
    if stored is not None:
        stored = Stored(stored.is_loaded, stored.last_seen, pending_write)
    return State(
        current,
        session=state.session + 1,
        last_sign_out=state.last_sign_out,
        durations=state.durations,
        stored=stored,
    )


def _replay_refused(state: State, action: ReplayRefused) -> State:
    place, replays = state.places.get(action.place, NO_BACK_OFF), state.replays
    if action.at < place.until and not place.is_on_trial:
        return state
    if not place.failures and action.at >= replays.until:
        replays = BackOff(replays.failures + 1, policy.no_refresh_until(replays.failures + 1, action.at))
    until = policy.no_refresh_here_until(place.failures + 1, action.at)
    return _with_place(state, action.place, BackOff(place.failures + 1, until))._replace(replays=replays)


def _with_place(state: State, place: Place, back_off: BackOff | None) -> State:
    """`state` with `back_off` for `place`, as the most recent of its places; None: without the place."""
    places = {one: known for one, known in state.places.items() if one != place}
    if back_off is not None:
        places[place] = back_off
    while len(places) > _PLACES:
        del places[next(iter(places))]
    return state._replace(places=MappingProxyType(places))


def _not_written(state: State, pending_write: PendingWrite) -> State:
    """`state`, whose new token must still be written to the storage.

    If a sign-in or sign-out must still be written as well, the token is written as a sign-in: it replaces any stored
    token.
    """
    if state.pending_write in {"signed in", "signed out"}:
        pending_write = "signed in"
    return _stored(state, pending_write=pending_write, is_failure_known=False, saves=NO_BACK_OFF)


def _writing(state: State, pending_write: PendingWrite) -> State:
    """`state` with another change (or none) that must still be written to the storage."""
    if state.pending_write == pending_write:
        return state
    return _stored(state, pending_write=pending_write, is_failure_known=False, saves=NO_BACK_OFF)


def _stored(state: State, **changes: Any) -> State:
    """`state` with `changes` in its `stored`; `state` itself if there is no storage."""
    if state.stored is None:
        return state
    stored = state.stored._replace(**changes)
    return state if stored == state.stored else state._replace(stored=stored)


def _name(token: Token | None) -> str | None:
    return None if token is None else token.access_token
