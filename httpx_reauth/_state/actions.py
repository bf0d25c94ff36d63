"""The actions: what happened, as values. `reduce` in `state.py` says what each of them changes.

Listeners of the store see the seven public ones. Their further fields, which `repr` and `==` leave out, and the
internal actions below are for `reduce` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal, TypeAlias, final

from httpx_reauth._errors import ReauthError, SignInRequired
from httpx_reauth._token import Token, Unpicklable

Reason: TypeAlias = Literal["missing", "expiring", "expired", "rejected"]
Place: TypeAlias = tuple[str, str]  # where a request went: origin and path


@final
@dataclass(frozen=True, slots=True)
class RefreshPending(Unpicklable):
    """A refresh has begun.

    Attributes:
        reason: why: there is no token (`"missing"`), it ends soon (`"expiring"`), it has ended (`"expired"`),
            or a server refused it (`"rejected"`).
    """

    reason: Reason
    flight: object = field(default=None, kw_only=True, repr=False, compare=False)
    # The state on which the decision to refresh rests. If the state has changed since, somebody was faster.
    expected: object = field(default=None, kw_only=True, repr=False, compare=False)


@final
@dataclass(frozen=True, slots=True)
class RefreshFulfilled(Unpicklable):
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
    jitter: float = field(default=0.0, kw_only=True, repr=False, compare=False)
    without_lifetime: int = field(default=0, kw_only=True, repr=False, compare=False)  # answers that had already ended
    is_saved: bool = field(default=True, kw_only=True, repr=False, compare=False)


@final
@dataclass(frozen=True, slots=True)
class RefreshRejected(Unpicklable):
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
    failures: int = field(default=1, kw_only=True, repr=False, compare=False)  # in a row, this one included
    asked: Token | None = field(default=None, kw_only=True, repr=False, compare=False)  # the token that was spent last
    # The current token with the refresh token that came along with an answer of no other use: it replaces a spent one.
    rotated: Token | None = field(default=None, kw_only=True, repr=False, compare=False)
    deadline: float = field(default=inf, kw_only=True, repr=False, compare=False)  # of `rotated`
    is_saved: bool = field(default=True, kw_only=True, repr=False, compare=False)


@final
@dataclass(frozen=True, slots=True)
class SaveFailed(Unpicklable):
    """The new token works, but could not be put into the storage; that is tried again.

    Attributes:
        error: what the storage said.
    """

    error: ReauthError
    token: Token | None = field(default=None, kw_only=True, repr=False, compare=False)


@final
@dataclass(frozen=True, slots=True)
class SignedIn(Unpicklable):
    """Somebody signed in: `token` replaces whatever there was, and supersedes a refresh under way."""

    token: Token
    deadline: float = field(default=inf, kw_only=True, repr=False, compare=False)
    jitter: float = field(default=0.0, kw_only=True, repr=False, compare=False)
    has_no_lifetime: bool = field(default=False, kw_only=True, repr=False, compare=False)


@final
@dataclass(frozen=True, slots=True)
class SignedOut(Unpicklable):
    """Somebody signed out: the token is forgotten, and a refresh under way is superseded."""


@final
class RevokeFailed(Unpicklable):
    """Somebody signed out, and the server did not revoke the token, which is forgotten here all the same."""

    __slots__ = ("_error",)
    __match_args__ = ("error",)

    # No dataclass: each costs every import half a millisecond, and few programs see this one.
    def __init__(self, error: ReauthError) -> None:
        self._error = error

    @property
    def error(self) -> ReauthError:
        """Why."""
        return self._error

    def __repr__(self) -> str:
        """As a dataclass has it."""
        return f"RevokeFailed(error={self._error!r})"


# Internal from here on: plain classes, since nobody compares, shows or copies them, and each dataclass costs every
# import half a millisecond.


class TokenGiven:
    """A first token came with a `Reauth` or a store: it seeds an empty store, and is nobody's sign-in.

    Attributes:
        token, deadline, jitter, has_no_lifetime: as in `SignedIn`.
        replaces: the token that was in the store so far: the same, before its times were read.
    """

    __slots__ = ("deadline", "has_no_lifetime", "jitter", "replaces", "token")

    def __init__(
        self,
        token: Token,
        *,
        deadline: float = inf,
        jitter: float = 0.0,
        has_no_lifetime: bool = False,
        replaces: Token | None = None,
    ) -> None:
        self.token = token
        self.deadline = deadline
        self.jitter = jitter
        self.has_no_lifetime = has_no_lifetime
        self.replaces = replaces


class StorageGiven:
    """From now on the store has a storage."""

    __slots__ = ()


class TokenRefused:
    """A server refused this token, so it is not sent again, also while no refresh may start."""

    __slots__ = ("token",)

    def __init__(self, token: Token) -> None:
        self.token = token


class ReplayStarted:
    """A request is sent again with a fresh token. Until it is known whether that helps, no 401 from there renews it.

    Attributes:
        place, session, at: as in `ReplayRefused`.
    """

    __slots__ = ("at", "place", "session")

    def __init__(self, place: Place, *, session: int, at: float) -> None:
        self.place = place
        self.session = session
        self.at = at


class ReplayRefused:
    """A server refused a request that was sent again with a fresh token: there, renewing does not help.

    Attributes:
        place: where the request went.
        session: the session in which it was sent.
        at: when (monotonic seconds).
    """

    __slots__ = ("at", "place", "session")

    def __init__(self, place: Place, *, session: int, at: float) -> None:
        self.place = place
        self.session = session
        self.at = at


class ReplayAccepted:
    """A request that was sent again went through, so renewing does help at this place."""

    __slots__ = ("place",)

    def __init__(self, place: Place) -> None:
        self.place = place


class Loaded:
    """The storage was read: it holds this token, or none."""

    __slots__ = ("token",)

    def __init__(self, token: Token | None) -> None:
        self.token = token


class Saved:
    """The storage holds this token from now on, or none."""

    __slots__ = ("token",)

    def __init__(self, token: Token | None) -> None:
        self.token = token


class SaveStarted:
    """What could not be saved is tried again now; the try after that is not before `until` (monotonic seconds)."""

    __slots__ = ("until",)

    def __init__(self, until: float) -> None:
        self.until = until


class WriteSuperseded:
    """The storage holds a better token than the one that could not be saved, which need not be saved any longer."""

    __slots__ = ("token",)

    def __init__(self, token: Token) -> None:
        self.token = token


class GrantRefused:
    """The server refused the refresh token of `token` for good, with `error`."""

    __slots__ = ("error", "token")

    def __init__(self, token: Token, error: SignInRequired) -> None:
        self.token = token
        self.error = error


class FlightDropped:
    """A flight will never settle, and that is no failure: it stayed in the parent of a `fork`, or never began."""

    __slots__ = ("flight",)

    def __init__(self, flight: object) -> None:
        self.flight = flight


Action: TypeAlias = (
    RefreshPending | RefreshFulfilled | RefreshRejected | SaveFailed | SignedIn | SignedOut | RevokeFailed
)
Internal: TypeAlias = (
    TokenGiven
    | StorageGiven
    | TokenRefused
    | ReplayStarted
    | ReplayRefused
    | ReplayAccepted
    | Loaded
    | Saved
    | SaveStarted
    | WriteSuperseded
    | GrantRefused
    | FlightDropped
)

PUBLIC_ACTIONS = (RefreshPending, RefreshFulfilled, RefreshRejected, SaveFailed, SignedIn, SignedOut, RevokeFailed)
