"""Decides what a refresh does after it has read the storage: it adopts a token, asks for a new token, or signs out.

To adopt a token is to use it without a token request. The functions are pure. Three arguments have the same meaning in
all functions:

- `current` is the token of the store.
- `stored` is the token in the storage.
- `last_seen` is the access token that the storage held when it was last read or written. None: the storage held no
  token, or was never read.
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
        token: the next token.
        at: the moment from which its lifetime counts.
        is_stored: the storage already holds this token.
    """

    token: Token
    at: Moment
    is_stored: bool = True


@dataclass(frozen=True, slots=True)
class Ask:
    """The refresh function is called with the token `last`, and returns the next token."""

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
    """The next step of a refresh that has read the storage."""
    if current is not None and pending_write == "signed in":  # a sign-in replaces any stored token
        is_enough = reason == "missing" and is_usable(current, at)
        return Adopt(current, at, is_stored=False) if is_enough else Ask(current, at)
    if current is not None and stored is None and last_seen is not None:
        return SignedOutElsewhere()
    if current is not None and pending_write == "renewed":
        return Ask(current, at)  # the stored refresh token was spent to get `current`
    if stored is None:
        if current is not None and reason != "rejected" and is_usable(current, at):
            return Adopt(current, at, is_stored=False)  # the first token is written to an empty storage
        return Ask(current or Token(), at)
    return adopt(stored, at) if is_adoptable(stored, reason, current, last_seen, at) else Ask(stored, at)


def is_outdated(
    stored: Token | None, last_seen: str | None, *, pending_write: PendingWrite, is_loaded: bool, is_refused: bool
) -> bool:
    """Does the stored token replace the current token, which could not be saved?

    A renewed token is replaced if another process has saved a token since the storage was last read. A token of a
    sign-in is replaced only if the server refuses it for good (`is_refused`).
    """
    if stored is None:
        return False
    return is_loaded and stored.access_token != last_seen if pending_write == "renewed" else is_refused


def is_adoptable(stored: Token, reason: Reason, current: Token | None, last_seen: str | None, at: Moment) -> bool:
    """May the stored token be adopted? Only a usable token that is not the current one.

    At the first look into the storage, even the current token may be adopted, unless a server refused it. A refresh
    with the reason `"missing"` counts as a first look: a sign-in may have been saved while it waited for the lock.
    """
    is_ours = current is not None and stored.access_token == current.access_token
    is_first_look = last_seen is None or reason == "missing"
    return is_usable(stored, at) and not (is_ours and (reason == "rejected" or not is_first_look))


def adopt(stored: Token, at: Moment) -> Adopt:
    """`stored` as the next token; `expires_in` or `expires_at` is filled in if it is missing."""
    return Adopt(stored.renewed(stored, at.wall), at)


def is_usable(token: Token, at: Moment) -> bool:
    """Does `token` have an access token that may still be sent?"""
    if not token.access_token:
        return False
    _, wait_from = policy.windows(State(Current(token, policy.deadline_of(token, at))), 0.0)
    return at.monotonic < wait_from
