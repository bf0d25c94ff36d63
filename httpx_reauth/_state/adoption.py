"""What a storage holds, and what that means for the next token: adopt it, ask for its successor, or follow a sign-out.

Pure functions of what is known under the storage's lock. In all of them `current` is the token of the store, `stored`
the one that the storage holds, and `last_seen` the access token that it held when we last looked (None: it held none,
or we never looked).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from httpx_reauth._clock import Moment
from httpx_reauth._state import policy
from httpx_reauth._state.actions import Reason
from httpx_reauth._state.state import Current, PendingWrite, State
from httpx_reauth._token import Token


@dataclass(frozen=True, slots=True)
class Adopt:
    """The next token is known, and no token request is made.

    Attributes:
        token: it.
        at: the moment that its times count from.
        is_stored: the storage holds it already.
    """

    token: Token
    at: Moment
    is_stored: bool = True


@dataclass(frozen=True, slots=True)
class Ask:
    """The refresh is asked for the successor of this token."""

    last: Token
    at: Moment


@dataclass(frozen=True, slots=True)
class SignedOutElsewhere:
    """Another process has signed out."""


NextStep: TypeAlias = Adopt | Ask | SignedOutElsewhere


def next_step(
    current: Token | None,
    stored: Token | None,
    last_seen: str | None,
    *,
    pending_write: PendingWrite,
    reason: Reason,
    at: Moment,
) -> NextStep:
    """What to do, now that the storage has been read."""
    if current is not None and pending_write == "signed in":  # it replaces whatever is stored
        is_enough = reason == "missing" and is_usable(current, at)
        return Adopt(current, at, is_stored=False) if is_enough else Ask(current, at)
    if current is not None and stored is None and last_seen is not None:
        return SignedOutElsewhere()
    if current is not None and pending_write == "renewed":
        return Ask(current, at)  # it was renewed from what is stored, which is spent
    if stored is None:
        if current is not None and reason != "rejected" and is_usable(current, at):
            return Adopt(current, at, is_stored=False)  # the first token seeds an empty storage
        return Ask(current or Token(), at)
    return adopt(stored, at) if is_adoptable(stored, reason, current, last_seen, at) else Ask(stored, at)


def is_outdated(
    stored: Token | None, last_seen: str | None, *, pending_write: PendingWrite, is_loaded: bool, is_refused: bool
) -> bool:
    """Does a token that could not be saved no longer count, since the storage holds a better one?

    A renewed one gives way to whatever others have put there since we last looked. One that was signed in replaces
    what is stored, unless the server refuses it for good (`is_refused`).
    """
    if stored is None:
        return False
    return is_loaded and stored.access_token != last_seen if pending_write == "renewed" else is_refused


def is_adoptable(stored: Token, reason: Reason, current: Token | None, last_seen: str | None, at: Moment) -> bool:
    """Has somebody else renewed the token? At the first look, whatever still lives will do, ours too.

    The first look it still is, if a sign-in was saved while the refresh waited for the lock: the reason is `"missing"`.
    """
    is_ours = current is not None and stored.access_token == current.access_token
    is_first_look = last_seen is None or reason == "missing"
    return is_usable(stored, at) and not (is_ours and (reason == "rejected" or not is_first_look))


def adopt(stored: Token, at: Moment) -> Adopt:
    """`stored` as the next token, with the times that it lacks."""
    return Adopt(stored.renewed(stored, at.wall), at)


def is_usable(token: Token, at: Moment) -> bool:
    """Does it have an access token that need not be waited for yet?"""
    if not token.access_token:
        return False
    _, wait_from = policy.windows(State(Current(token, policy.deadline_of(token, at))), 0.0)
    return at.monotonic < wait_from
