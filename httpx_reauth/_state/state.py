"""The state: everything that the library knows of one token, as immutable values.

The state has four parts: the token in use, the refresh under way, the back-offs, and the facts about the storage.
`reduce.py` computes the next state from a state and an action. `policy.py` decides what a state means for a request.
Listeners get status, token and error, as an `AuthState`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias, final

from httpx_reauth._errors import ReauthError, SignInRequired
from httpx_reauth._state.actions import Place
from httpx_reauth._token import Token, Unpicklable

Status: TypeAlias = Literal["idle", "pending", "fulfilled", "rejected"]

# The change that must still be written to the storage: a renewed token that could not be saved, a sign-in, or a
# sign-out. Empty: there is none.
PendingWrite: TypeAlias = Literal["", "renewed", "signed in", "signed out"]


@final
@dataclass(frozen=True, slots=True)
class AuthState(Unpicklable):
    """The public state of a `TokenStore`: an immutable snapshot.

    Attributes:
        status: `"idle"` (no refresh since the last sign-in or sign-out), `"pending"` (a refresh is under way),
            `"fulfilled"` (the last refresh got the token) or `"rejected"` (the last refresh failed; see `error`).
        token: the current token; None if there is none. The token stays here during a refresh.
        error: why the last refresh failed; None unless the status is `"rejected"`.
    """

    status: Status = "idle"
    token: Token | None = None
    error: ReauthError | None = None


class BackOff(NamedTuple):
    """The number of failures in a row, and the earliest time of the next attempt.

    Attributes:
        failures: the number of failures in a row.
        until: no attempt is made before this moment (monotonic seconds).
        is_on_trial: an attempt is under way, and its result is not known yet. `until` is set as if it had failed.
    """

    failures: int = 0
    until: float = -inf
    is_on_trial: bool = False


@final
@dataclass(frozen=True, slots=True)
class Current:
    """The token in use, and the facts about it.

    This is no named tuple like the others: each auth object has one, and a tuple takes 16 bytes more.

    Attributes:
        token: the token.
        deadline: when the token expires (monotonic seconds). Infinite if this time is unknown, or if the lifetimes that
            the server states are wrong (see `without_lifetime`).
        jitter: a random number from 0 to 1. The larger it is, the earlier the token is renewed.
        refused: a server refused the token, so the token is not sent again.
        is_adopted: the token was found in the storage, so it was not just issued. If a server refuses it, a refresh
            may help.
        without_lifetime: the number of tokens in a row, this one included, that had already expired when they were
            received. A server whose clock is wrong issues such tokens.
    """

    token: Token
    deadline: float = inf
    jitter: float = 0.0
    refused: bool = False
    is_adopted: bool = False
    without_lifetime: int = 0


class Stored(NamedTuple):
    """The facts about the storage.

    Attributes:
        is_loaded: the storage was read at least once. Before the first read, nobody knows whether a token given with
            `token=` counts, since a stored token wins over it.
        last_seen: the access token that the storage held when it was last read or written; None if it held none, or
            was never read.
        pending_write: the change that must still be written to the storage.
        is_failure_known: `SaveFailed` was dispatched for this change.
        saves: the number of further tries to write this change, and the earliest time of the next try.
        known_refusal: a token whose refresh token the server has refused for good, and the error.
    """

    is_loaded: bool = False
    last_seen: str | None = None
    pending_write: PendingWrite = ""
    is_failure_known: bool = False
    saves: BackOff = BackOff()
    known_refusal: tuple[Token, SignInRequired] | None = None

    def refusal_of(self, token: Token) -> SignInRequired | None:
        """The error with which the server refused the refresh token of `token` for good; None if it did not."""
        if self.known_refusal is None:
            return None
        refused, error = self.known_refusal
        is_it = (refused.refresh_token, refused.access_token) == (token.refresh_token, token.access_token)
        return error if is_it else None


NO_BACK_OFF = BackOff()  # these three are shared: there may be 100,000 auth objects, and most never see a failure
NO_PLACES: Mapping[Place, BackOff] = MappingProxyType({})
NOT_LOADED = Stored(saves=NO_BACK_OFF)


class State(NamedTuple):
    """Everything that is known of one token.

    Attributes:
        current: the token in use; None if there is none.
        phase: `"idle"`, `"pending"`, `"fulfilled"`, or the error with which the last refresh failed.
        flight: the refresh under way (a `Flight`), set exactly while the phase is `"pending"`.
        session: the number of sign-ins and sign-outs so far.
        last_sign_out: the number of the session that began with the last sign-out; 0 if nobody has signed out.
        refreshes: the back-off after refreshes that failed in a row.
        replays: the back-off for all places, after several different places in a row have refused a fresh token.
        places: the back-off for each place (origin and path), after this place has refused fresh tokens.
        durations: the durations of the latest successful refreshes, in seconds.
        stored: the facts about the storage; None if there is no storage.
    """

    current: Current | None = None
    phase: Literal["idle", "pending", "fulfilled"] | ReauthError = "idle"
    flight: object = None
    session: int = 0
    last_sign_out: int = 0
    refreshes: BackOff = NO_BACK_OFF
    replays: BackOff = NO_BACK_OFF
    places: Mapping[Place, BackOff] = NO_PLACES
    durations: tuple[float, ...] = ()
    stored: Stored | None = None

    @property
    def token(self) -> Token | None:
        """The token in use; None if there is none."""
        return None if self.current is None else self.current.token

    @property
    def without_lifetime(self) -> int:
        """The number of tokens in a row that had already expired when they were received."""
        return 0 if self.current is None else self.current.without_lifetime

    @property
    def pending_write(self) -> PendingWrite:
        """The change that must still be written to the storage; empty if there is none."""
        return "" if self.stored is None else self.stored.pending_write

    def as_public(self) -> AuthState:
        """The part of this state that users see."""
        if isinstance(self.phase, ReauthError):
            return AuthState("rejected", self.token, self.phase)
        return AuthState(self.phase, self.token)
