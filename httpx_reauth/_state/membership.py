"""What ties a store to the pool that has made its auth object.

A pool lets an idle object go and makes it anew later. So the store tells its membership of each change, and a refresh
asks it, before it spends a token, how the last refresh that spent this token ended.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from httpx_reauth._errors import ReauthError
from httpx_reauth._state.state import State
from httpx_reauth._token import Token


class Refusal(NamedTuple):
    """A refresh that failed: its error, how many in a row did, and when the next may start (monotonic seconds)."""

    error: ReauthError
    failures: int
    retry_at: float


class Membership(Protocol):
    """One auth object's place in its pool."""

    def learn(self, state: State, action: object, /) -> None:
        """The state has become `state` by `action`. The lock of all stores is held."""
        ...

    def come_back(self) -> None:
        """The state has changed, so the object is in use, though the pool may have let it go. The lock is not held."""
        ...

    def refusal_of(self, token: Token, /) -> Refusal | None:
        """How the last refresh that spent `token` failed, if it did."""
        ...
