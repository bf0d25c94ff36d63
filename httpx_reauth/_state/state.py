"""What is known of one token, as immutable values in slices: the token in use, the refresh, the back-offs, the storage.

`reduce.py` makes the next state of a state and an action; `policy.py` says what a state means for a request. Listeners
see the first three facts of it, as an `AuthState`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType
from typing import Literal, TypeAlias, final

from httpx_reauth._errors import ReauthError, SignInRequired
from httpx_reauth._state.actions import Place
from httpx_reauth._token import Token, Unpicklable

Status: TypeAlias = Literal["idle", "pending", "fulfilled", "rejected"]

# What the storage does not hold yet: a renewed token that could not be saved, a sign-in, or a sign-out.
PendingWrite: TypeAlias = Literal["", "renewed", "signed in", "signed out"]


@final
@dataclass(frozen=True, slots=True)
class AuthState(Unpicklable):
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


@final
@dataclass(frozen=True, slots=True)
class BackOff:
    """Failures in a row.

    Attributes:
        count: how many there were.
        until: no further attempt before this moment (monotonic seconds).
        is_on_trial: an attempt is under way, and `until` is for as long as nobody knows what comes of it.
    """

    count: int = 0
    until: float = -inf
    is_on_trial: bool = False


@final
@dataclass(frozen=True, slots=True)
class Current(Unpicklable):
    """The token in use, and what is known of it.

    Attributes:
        token: the token.
        deadline: its end (monotonic seconds); infinite where it has none, or where that is not to be believed.
        jitter: 0 to 1, its share of the jitter by which it is renewed earlier.
        refused: a server refused it, so it is not sent again.
        is_adopted: it was found in the storage. If a server refuses it, a refresh may well help.
        without_lifetime: how many tokens in a row, this one included, had already ended when they came, as from a
            server whose clock is wrong.
    """

    token: Token
    deadline: float = inf
    jitter: float = 0.0
    refused: bool = False
    is_adopted: bool = False
    without_lifetime: int = 0


@final
@dataclass(frozen=True, slots=True)
class Stored(Unpicklable):
    """What is known of the storage.

    Attributes:
        is_loaded: it was read. Until then nobody knows whether a token that was given with `token=` counts.
        last_seen: the access token that it held when we last looked; None if it held none, or we never looked.
        pending_write: what it does not hold yet.
        is_failure_known: `SaveFailed` was dispatched for that.
        saves: failed attempts to write it.
        known_refusal: the token whose refresh token the server refuses for good, and what it said.
    """

    is_loaded: bool = False
    last_seen: str | None = None
    pending_write: PendingWrite = ""
    is_failure_known: bool = False
    saves: BackOff = BackOff()
    known_refusal: tuple[Token, SignInRequired] | None = None

    def refusal_of(self, token: Token) -> SignInRequired | None:
        """What the server said when it refused the refresh token of `token`, if it did."""
        if self.known_refusal is None:
            return None
        refused, error = self.known_refusal
        is_it = (refused.refresh_token, refused.access_token) == (token.refresh_token, token.access_token)
        return error if is_it else None


NO_BACK_OFF = BackOff()  # these three are shared, since most of 100,000 auth objects never see a failure
NO_PLACES: Mapping[Place, BackOff] = MappingProxyType({})
NOT_LOADED = Stored(saves=NO_BACK_OFF)


@final
@dataclass(frozen=True, slots=True)
class State(Unpicklable):
    """All that is known.

    Attributes:
        current: the token in use, if there is one.
        phase: `"idle"`, `"pending"`, `"fulfilled"`, or the error with which the last refresh failed.
        flight: the refresh under way (a `Flight`), exactly while the phase is `"pending"`.
        session: how many sign-ins and sign-outs there were.
        last_sign_out: the session that began with the last sign-out; 0 if there was none.
        refreshes: refreshes that failed in a row.
        replays: requests in a row that were refused when they were sent again with a fresh token, at different places.
        places: the same for one place (origin and path).
        durations: seconds that the latest successful refreshes took.
        stored: what is known of the storage; None if there is none.
    """

    current: Current | None = None
    phase: Literal["idle", "pending", "fulfilled"] | ReauthError = "idle"
    flight: object = None
    session: int = 0
    last_sign_out: int = 0
    refreshes: BackOff = NO_BACK_OFF
    replays: BackOff = NO_BACK_OFF
    places: Mapping[Place, BackOff] = field(default_factory=lambda: NO_PLACES)
    durations: tuple[float, ...] = ()
    stored: Stored | None = None

    @property
    def token(self) -> Token | None:
        """The token in use, if there is one."""
        return None if self.current is None else self.current.token

    @property
    def without_lifetime(self) -> int:
        """How many tokens in a row had already ended when they came."""
        return 0 if self.current is None else self.current.without_lifetime

    @property
    def pending_write(self) -> PendingWrite:
        """What the storage does not hold yet."""
        return "" if self.stored is None else self.stored.pending_write

    def as_public(self) -> AuthState:
        """What users see of it."""
        if isinstance(self.phase, ReauthError):
            return AuthState("rejected", self.token, self.phase)
        return AuthState(self.phase, self.token)
