"""What the simulated server knows of its tokens and requests."""

from __future__ import annotations

from dataclasses import dataclass

from httpx_reauth._flight import Flight

from ._kernel import Home


class Dropped(ConnectionError):
    """The connection broke."""


@dataclass
class Family:
    """What came of one sign-in."""

    number: int
    died: str = ""  # of what


@dataclass
class Refresh:
    """A refresh token, as the server knows it."""

    family: Family
    successor: str = ""
    excuse: str = ""  # why it may come again although it was used: its answer has an unknown outcome


@dataclass
class Access:
    """An access token, as the server knows it."""

    family: Family
    begun: float  # when the request for it began
    ends: float
    refused: str = ""  # why the API has refused it
    revoked: bool = False


@dataclass(eq=False)
class Ask:
    """A token request under way."""

    home: Home
    key: object  # the refresh token that it spends, or who logs in
    begun: float  # in true time
    overdue: float  # when the library may stop it, on its machine's monotonic clock
    flight: Flight
    is_login: bool
    is_stoppable: bool  # it is a coroutine
    is_given_up: bool = False  # nobody knows what will come of it: its loop stands still beyond its time
    spent: str = ""  # the refresh token that the server took
    is_answered: bool = False

    @property
    def counts_no_more(self) -> bool:
        """Is it a login that a sign-in or a sign-out has overtaken? Another one may begin then."""
        return self.is_login and self.flight is not self.flight.store.state.flight
