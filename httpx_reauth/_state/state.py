"""The state and `reduce`: every transition is here and nowhere else.

        ┌──────────── SignedIn, SignedOut (from anywhere) ─────────────┐
        ▼                                                              │
      idle ──RefreshPending──▶ pending ──RefreshFulfilled──▶ fulfilled ┤
                               ▲     └───RefreshRejected───▶ rejected ─┘
                               └────── RefreshPending, from any but pending

The state knows its flight: an answer from any but the current one changes nothing. What several
`Reauth` objects on one store must agree on (failures, when to try again) lives in it as well.
"""

from __future__ import annotations

from dataclasses import field, replace
from math import inf
from typing import Literal, TypeAlias, final

from httpx_reauth._errors import ReauthError
from httpx_reauth._state.actions import (
    Action,
    FlightDropped,
    Internal,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    ReplayAccepted,
    ReplayRefused,
    ReplayStarted,
    Saved,
    SaveFailed,
    SignedIn,
    SignedOut,
)
from httpx_reauth._token import Discreet, Token
from httpx_reauth._value import dataclass

Status: TypeAlias = Literal["idle", "pending", "fulfilled", "rejected"]

# What a storage does not know yet: why the token is still to go there, and whether that failed and was told; or that
# there is none any more.
Unsaved: TypeAlias = Literal["", "renewed", "signed in", "signed in, told", "signed out"]

_REMEMBERED = 5  # how many durations of refreshes are remembered, to know how slow the token endpoint is


@dataclass(frozen=True, slots=True)
class Record:
    """What the last refreshes taught: how long they take, and when the next one may start.

    Attributes:
        failures: how many refreshes failed in a row.
        retry_at: no refresh before this moment (monotonic seconds); infinite once only a sign-in helps.
        useless: how many fresh tokens in a row were refused at their own replay.
        quiet_until: a 401 starts no refresh before this moment (monotonic seconds).
        durations: seconds that the latest successful refreshes took.
    """

    failures: int = 0
    retry_at: float = -inf
    useless: int = 0
    quiet_until: float = -inf
    durations: tuple[float, ...] = ()


CLEAN = Record()  # shared, as most auth objects never see a failure


@final
@dataclass(frozen=True, slots=True)
class AuthState(Discreet):
    """What a `TokenStore` holds.

    Attributes:
        status: `"idle"` (nothing tried since the last sign-in or sign-out), `"pending"` (a refresh is under
            way), `"fulfilled"` (it brought the token) or `"rejected"` (it failed; see `error`).
        token: the current token, if there is one. It stays while the next one is on its way.
        error: why the last refresh failed, while the status is `"rejected"`.
    """

    status: Status = "idle"
    token: Token | None = None
    error: ReauthError | None = None
    # Private from here on. Of the token: `deadline`: its end on the monotonic clock. `spread`: 0 to 1, its share of the
    # jitter. `refused`: a server refused it. `tried`: a replay was sent with it. `useless`: that was refused, too.
    # `unsaved`: is it still to go into a storage? `session`: another number after each sign-in and sign-out. And
    # `flight`: the refresh under way.
    deadline: float = field(default=inf, kw_only=True, repr=False, compare=False)
    spread: float = field(default=0.0, kw_only=True, repr=False, compare=False)
    flight: object = field(default=None, kw_only=True, repr=False, compare=False)
    refused: bool = field(default=False, kw_only=True, repr=False, compare=False)
    tried: bool = field(default=False, kw_only=True, repr=False, compare=False)
    useless: bool = field(default=False, kw_only=True, repr=False, compare=False)
    unsaved: Unsaved = field(default="", kw_only=True, repr=False, compare=False)
    session: int = field(default=0, kw_only=True, repr=False, compare=False)
    record: Record = field(default=CLEAN, kw_only=True, repr=False, compare=False)


def reduce(state: AuthState, action: Action | Internal) -> AuthState:  # noqa: C901, PLR0911, PLR0912 - a table
    """The state after `action`; the very same object if it changes nothing."""
    record = state.record
    match action:
        case RefreshPending():
            if state.status == "pending" or (action.basis is not None and action.basis is not state):
                return state
            refused = state.refused or action.reason == "rejected"
            return replace(state, status="pending", error=None, flight=action.flight, refused=refused)
        case RefreshFulfilled():
            if state.status != "pending" or action.flight is not state.flight:
                return state
            durations = record.durations
            if not action.adopted:
                durations = (*durations, action.elapsed)[-_REMEMBERED:]
            record = replace(record, failures=0, retry_at=-inf, durations=durations)
            # An adopted token is not a fresh one: if it is refused, a refresh may well help. It is never on trial.
            return AuthState(
                "fulfilled",
                action.token,
                deadline=action.deadline,
                spread=action.spread,
                tried=action.adopted,
                useless=action.adopted,
                unsaved="signed in" if state.unsaved == "signed out" else "",  # it replaces what a storage still holds
                record=record,
                session=state.session,
            )
        case RefreshRejected():
            if state.status != "pending" or action.flight is not state.flight:
                return state
            record = replace(record, failures=record.failures + 1, retry_at=action.retry_at)
            return replace(state, status="rejected", error=action.error, flight=None, record=record)
        case SaveFailed():
            if action.token is not None and action.token is not state.token:
                return state
            if action.beside and not state.unsaved:
                return state
            if state.unsaved in ("renewed", "signed in, told", "signed out"):
                return state
            return replace(state, unsaved="signed in, told" if state.unsaved else "renewed")
        case SignedIn():
            record = replace(CLEAN, durations=record.durations) if record.durations else CLEAN
            return AuthState(
                "idle",
                action.token,
                deadline=action.deadline,
                spread=action.spread,
                unsaved="signed in",
                record=record,
                session=state.session + 1,
            )
        case SignedOut():
            if state.status == "idle" and state.token is None:
                return state
            return AuthState(unsaved="signed out", session=state.session + 1)
        case ReplayStarted():
            if action.token is not state.token or state.tried:
                return state
            quiet_until = max(record.quiet_until, action.quiet_until)
            return replace(state, tried=True, record=replace(record, quiet_until=quiet_until))
        case ReplayRefused():
            if action.token is not state.token or state.useless:
                return state
            record = replace(record, useless=record.useless + 1, quiet_until=action.quiet_until)
            # One that ended as it came stands in for the next until then, which would be no better.
            deadline = action.quiet_until if action.is_lifeless else state.deadline
            return replace(state, useless=True, deadline=deadline, record=record)
        case ReplayAccepted():
            if not record.useless and record.quiet_until == -inf:
                return state
            return replace(state, useless=False, record=replace(record, useless=0, quiet_until=-inf))
        case Saved():
            return replace(state, unsaved="") if state.unsaved and action.token is state.token else state
        case FlightDropped():
            if state.status != "pending" or action.flight is not state.flight:
                return state
            return replace(state, status="idle", flight=None)
        case _:  # a class instead of an instance, most likely; the type checker knows that nothing is left
            raise TypeError(f"This {type(action).__name__} is no action. Dispatch SignedIn(token) or SignedOut().")
