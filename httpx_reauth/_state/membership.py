"""The link from a store to the pool that has made its auth object.

A pool removes an idle object and makes a new one later, but remembers what the server has refused. So the store reports
each change to its membership. Before a refresh spends a token, it asks the membership how the last refresh with this
token failed.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from httpx_reauth._errors import ReauthError
from httpx_reauth._state.state import State
from httpx_reauth._token import Token


class Refusal(NamedTuple):
    """A failed refresh: its error, the number of failures in a row, when the next may start (monotonic seconds)."""

    error: ReauthError
    failures: int
    retry_at: float


class Membership(Protocol):
    """The membership of one auth object in its pool."""

    def learn(self, state: State, action: object, /) -> None:
        """Take note of `state`, which is the state after `action`. The caller holds the lock of all stores."""
        ...

    def come_back(self) -> None:
        """Put the object back into its pool: its state has changed, so it is in use. The caller holds no lock."""
        ...

    def refusal_of(self, token: Token, /) -> Refusal | None:
        """How the last refresh that spent `token` failed; None if it did not fail, or that is not known."""
        ...
