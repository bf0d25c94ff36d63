"""The actions: what happens to the state, as values."""

from __future__ import annotations

from dataclasses import field
from math import inf
from typing import Literal, TypeAlias, final

from httpx_reauth._errors import ReauthError
from httpx_reauth._token import Discreet, Token
from httpx_reauth._value import dataclass

Reason: TypeAlias = Literal["missing", "expiring", "expired", "rejected"]


@final
@dataclass(frozen=True, slots=True)
class RefreshPending(Discreet):
    """A refresh has begun.

    Attributes:
        reason: why: there is no token (`"missing"`), it ends soon (`"expiring"`), it has ended (`"expired"`),
            or a server refused it (`"rejected"`).
    """

    reason: Reason
    flight: object = field(default=None, kw_only=True, repr=False, compare=False)
    # The state on which the decision to refresh rests: if it has changed, somebody was faster.
    basis: object = field(default=None, kw_only=True, repr=False, compare=False)


@final
@dataclass(frozen=True, slots=True)
class RefreshFulfilled(Discreet):
    """The refresh brought a token.

    Attributes:
        token: the new token.
        reason: why it was renewed.
        elapsed: seconds that the refresh took.
        adopted: it was found in the storage, renewed by somebody else; no token request was made.
    """

    token: Token
    reason: Reason
    elapsed: float
    adopted: bool = False
    flight: object = field(default=None, kw_only=True, repr=False, compare=False)
    deadline: float = field(default=inf, kw_only=True, repr=False, compare=False)
    spread: float = field(default=0.0, kw_only=True, repr=False, compare=False)


@final
@dataclass(frozen=True, slots=True)
class RefreshRejected(Discreet):
    """The refresh failed.

    Attributes:
        error: why: a `RefreshError` (tried again after a back-off), a `SignInRequired` (final), or a `StorageError`.
        reason: why it was tried.
        elapsed: seconds until it failed.
    """

    error: ReauthError
    reason: Reason
    elapsed: float
    flight: object = field(default=None, kw_only=True, repr=False, compare=False)
    retry_at: float = field(default=-inf, kw_only=True, repr=False, compare=False)


@final
@dataclass(frozen=True, slots=True)
class SaveFailed(Discreet):
    """The new token works, but could not be put into the storage; that is tried again.

    Attributes:
        error: what the storage said.
    """

    error: ReauthError
    token: Token | None = field(default=None, kw_only=True, repr=False, compare=False)
    beside: bool = field(default=False, kw_only=True, repr=False, compare=False)  # unless a refresh has done it


@final
@dataclass(frozen=True, slots=True)
class SignedIn(Discreet):
    """Somebody signed in: `token` replaces whatever there was, and overtakes a refresh under way."""

    token: Token
    deadline: float = field(default=inf, kw_only=True, repr=False, compare=False)
    spread: float = field(default=0.0, kw_only=True, repr=False, compare=False)


@final
@dataclass(frozen=True, slots=True)
class SignedOut(Discreet):
    """Somebody signed out: the token is forgotten, and a refresh under way counts no more."""


# What nobody but `reduce` gets to see: plain classes, since nobody compares, shows or copies them.


class ReplayStarted:
    """A request is sent again with a fresh token; until it is known whether that helps, no 401 renews it."""

    __slots__ = ("quiet_until", "token")

    def __init__(self, token: Token, quiet_until: float) -> None:
        self.token = token
        self.quiet_until = quiet_until


class ReplayRefused:
    """A server refused a token at its own replay, so renewing does not help; `is_lifeless`: it ended as it came."""

    __slots__ = ("is_lifeless", "quiet_until", "token")

    def __init__(self, token: Token, quiet_until: float, *, is_lifeless: bool = False) -> None:
        self.token = token
        self.quiet_until = quiet_until
        self.is_lifeless = is_lifeless


class ReplayAccepted:
    """A replay went through, so renewing does help."""

    __slots__ = ()


class Saved:
    """The storage holds the token now, or none any more."""

    __slots__ = ("token",)

    def __init__(self, token: Token | None) -> None:
        self.token = token


class FlightDropped:
    """The flight stayed behind in the parent of a `fork`; that is no failure."""

    __slots__ = ("flight",)

    def __init__(self, flight: object) -> None:
        self.flight = flight


Action: TypeAlias = RefreshPending | RefreshFulfilled | RefreshRejected | SaveFailed | SignedIn | SignedOut
Internal: TypeAlias = ReplayStarted | ReplayRefused | ReplayAccepted | Saved | FlightDropped
