"""Refreshes that failed, remembered for longer than the auth object whose refreshes they were.

A store remembers its own failures. A pool lets an idle object go and makes it anew later: so it gives each of its
stores a `Refusals`, which is read before a refresh token is spent, and written when a refresh has failed.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from httpx_reauth._errors import ReauthError
from httpx_reauth._token import Token


class Refusal(NamedTuple):
    """A refresh that failed: its error, how many in a row did, and when the next may start (monotonic seconds)."""

    error: ReauthError
    failures: int
    retry_at: float


class Refusals(Protocol):
    """What is remembered for one auth object."""

    def of(self, token: Token, /) -> Refusal | None:
        """How the last refresh that spent `token` failed, if it did."""
        ...

    def remember(self, token: Token, refusal: Refusal, /) -> None:
        """The refresh that spent `token` failed."""
        ...
