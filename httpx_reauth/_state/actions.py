"""The actions: values that say what happened. `reduce.py` says what each of them changes in the state.

Listeners of the store get the seven public actions. Some of their fields are left out of `repr` and `==`: these fields,
and the internal actions below, are for `reduce` alone.
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
        reason: why the refresh began: there is no token (`"missing"`), the token expires soon (`"expiring"`), it has
            expired (`"expired"`), or a server refused it (`"rejected"`).
    """

    reason: Reason
    flight: object = field(default=None, kw_only=True, repr=False, compare=False)
    # The state in which the refresh was decided. If the state has changed since, this action changes nothing.
    expected: object = field(default=None, kw_only=True, repr=False, compare=False)


@final
@dataclass(frozen=True, slots=True)
class RefreshFulfilled(Unpicklable):
    """The refresh got a token.

    Attributes:
        token: the new token.
        reason: why the refresh began, as in `RefreshPending`.
        elapsed: the duration of the refresh, in seconds.
        adopted: no token request was made. The token was found in the storage; or the storage was empty, and the token
            had been given by hand.
    """

    token: Token
    reason: Reason
    elapsed: float
    adopted: bool = False
    flight: object = field(default=None, kw_only=True, repr=False, compare=False)
    deadline: float = field(default=inf, kw_only=True, repr=False, compare=False)
    jitter: float = field(default=0.0, kw_only=True, repr=False, compare=False)
    without_lifetime: int = field(default=0, kw_only=True, repr=False, compare=False)  # answers that had expired
    is_saved: bool = field(default=True, kw_only=True, repr=False, compare=False)


@final
@dataclass(frozen=True, slots=True)
class RefreshRejected(Unpicklable):
    """The refresh failed.

    Attributes:
        error: why it failed: a `RefreshError` (the next refresh may start after a back-off), a `SignInRequired`
            (final), or a `StorageError`.
        reason: why the refresh began, as in `RefreshPending`.
        elapsed: the duration of the refresh, in seconds.
    """

    error: ReauthError
    reason: Reason
    elapsed: float
    flight: object = field(default=None, kw_only=True, repr=False, compare=False)
    retry_at: float = field(default=-inf, kw_only=True, repr=False, compare=False)
    failures: int = field(default=1, kw_only=True, repr=False, compare=False)  # in a row, this one included
    asked: Token | None = field(default=None, kw_only=True, repr=False, compare=False)  # the token of the last ask
    # The token of the last ask, but with the refresh token of an unusable answer. It replaces the current token.
    rotated: Token | None = field(default=None, kw_only=True, repr=False, compare=False)
    deadline: float = field(default=inf, kw_only=True, repr=False, compare=False)  # when `rotated` expires
    is_saved: bool = field(default=True, kw_only=True, repr=False, compare=False)


@final
@dataclass(frozen=True, slots=True)
class SaveFailed(Unpicklable):
    """A new token could not be saved, or the storage could not be cleared. The change counts in memory.

    The write is tried again later.

    Attributes:
        error: the storage's error.
    """

    error: ReauthError
    token: Token | None = field(default=None, kw_only=True, repr=False, compare=False)


@final
@dataclass(frozen=True, slots=True)
class SignedIn(Unpicklable):
    """Somebody signed in: `token` replaces the current token. The result of a refresh under way does not count."""

    token: Token
    deadline: float = field(default=inf, kw_only=True, repr=False, compare=False)
    jitter: float = field(default=0.0, kw_only=True, repr=False, compare=False)
    has_no_lifetime: bool = field(default=False, kw_only=True, repr=False, compare=False)


@final
@dataclass(frozen=True, slots=True)
class SignedOut(Unpicklable):
    """Somebody signed out: the token is forgotten. The result of a refresh under way does not count."""

    # The session that ends, if another process has signed out. If it has ended already, this action changes nothing.
    session: int | None = field(default=None, kw_only=True, repr=False, compare=False)


@final
class RevokeFailed(Unpicklable):
    """Somebody signed out, but the server did not revoke the token. The token is still forgotten here."""

    __slots__ = ("_error",)
    __match_args__ = ("error",)

    # No dataclass: a dataclass makes the import half a millisecond slower, and few programs use this action.
    def __init__(self, error: ReauthError) -> None:
        self._error = error

    @property
    def error(self) -> ReauthError:
        """Why the token was not revoked."""
        return self._error

    def __repr__(self) -> str:
        """In the form that a dataclass has."""
        return f"RevokeFailed(error={self._error!r})"


# The internal actions begin here. They are plain classes: nobody compares, prints or copies them, and a dataclass makes
# the import half a millisecond slower.


class TokenGiven:
    """A first token was given to a `Reauth` or a store. A store without a token uses it. This is not a sign-in.

    Attributes:
        token, deadline, jitter, has_no_lifetime: as in `SignedIn`.
        replaces: the same token, as it is in the store while its deadline is unknown; None if the store has no token.
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
    """The store has a storage from now on."""

    __slots__ = ()


class TokenRefused:
    """A server refused this token. The token is not sent again, even during a back-off, when no refresh may start."""

    __slots__ = ("token",)

    def __init__(self, token: Token) -> None:
        self.token = token


class ReplayStarted:
    """A request is sent again with a fresh token. Until its answer is known, a 401 from this place starts no refresh.

    Attributes:
        place, session, at: as in `ReplayRefused`.
    """

    __slots__ = ("at", "place", "session")

    def __init__(self, place: Place, *, session: int, at: float) -> None:
        self.place = place
        self.session = session
        self.at = at


class ReplayRefused:
    """A server refused a request that was sent again with a fresh token. So renewing does not help at this place.

    Attributes:
        place: the place to which the request was sent.
        session: the session in which the request was sent.
        at: the time of the action (monotonic seconds).
    """

    __slots__ = ("at", "place", "session")

    def __init__(self, place: Place, *, session: int, at: float) -> None:
        self.place = place
        self.session = session
        self.at = at


class ReplayAccepted:
    """A server accepted a request that was sent again. So renewing helps at this place."""

    __slots__ = ("place",)

    def __init__(self, place: Place) -> None:
        self.place = place


class ReplayEnded:
    """A request that was sent again got no answer, or one that says nothing about the place. So the trial is over.

    Attributes:
        place, session: as in `ReplayRefused`.
    """

    __slots__ = ("place", "session")

    def __init__(self, place: Place, *, session: int) -> None:
        self.place = place
        self.session = session


class Loaded:
    """The storage was read: it holds `token`, or no token (None)."""

    __slots__ = ("token",)

    def __init__(self, token: Token | None) -> None:
        self.token = token


class Saved:
    """The storage was written: it holds `token`, or no token (None)."""

    __slots__ = ("token",)

    def __init__(self, token: Token | None) -> None:
        self.token = token


class SaveStarted:
    """A write that failed is tried again now. The next try does not start before `until` (monotonic seconds)."""

    __slots__ = ("until",)

    def __init__(self, until: float) -> None:
        self.until = until


class WriteSuperseded:
    """The storage holds a better token than `token`, which could not be saved. So `token` is not written."""

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
    """A flight will never settle. This is no failure: the flight never began, or it runs in the parent of a `fork`."""

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
    | ReplayEnded
    | Loaded
    | Saved
    | SaveStarted
    | WriteSuperseded
    | GrantRefused
    | FlightDropped
)

PUBLIC_ACTIONS = (RefreshPending, RefreshFulfilled, RefreshRejected, SaveFailed, SignedIn, SignedOut, RevokeFailed)
