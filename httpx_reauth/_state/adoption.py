"""What a storage holds, and what that means for the next token: adopt, ask, or follow a sign-out.

Pure functions of what is known under the storage's lock; `Keeper` makes the calls. In all of them, `mine` is the token
of the store; `held` what the storage holds, and `before` the access token that it held when we last looked (None: there
was none, or we have never looked); `unsaved` says why `mine` is still to be saved, if it is.
"""

from __future__ import annotations

from typing import NamedTuple

from httpx_reauth._clock import Moment
from httpx_reauth._state import policy
from httpx_reauth._state.actions import Reason
from httpx_reauth._state.state import AuthState, Unsaved
from httpx_reauth._token import Token


class Found(NamedTuple):
    """The next token.

    Attributes:
        token: it.
        at: the moment that its times count from.
        is_adopted: no token request was made for it.
        is_held: the storage holds it already.
    """

    token: Token
    at: Moment
    is_adopted: bool = False
    is_held: bool = False


def choose(
    mine: Token | None, held: Token | None, before: str | None, *, unsaved: Unsaved, reason: Reason, at: Moment
) -> Found | Token | None:
    """The next token, if one is `Found`; or the token to ask for the successor of; or None: somebody has signed out."""
    if mine is not None and unsaved not in ("", "renewed"):  # signed in: it replaces whatever is held
        return Found(mine, at, is_adopted=True) if reason == "missing" and is_usable(mine, at) else mine
    if mine is not None and held is None and before is not None:
        return None
    if mine is not None and unsaved:
        return mine  # renewed from what is held, which it has spent: it goes on from here
    if held is None:
        if mine is not None and reason != "rejected" and is_usable(mine, at):
            return Found(mine, at, is_adopted=True)  # the first token seeds an empty storage
        return mine or Token()
    return adopted(held, at) if is_adoptable(held, reason, mine, before, at) else held


def gives_way(held: Token | None, before: str | None, *, unsaved: Unsaved, is_read: bool, is_dead: bool) -> bool:
    """Does a token that could not be saved count no more, since the storage holds a better one?

    A renewed one gives way to whatever others have put there since we last looked. One that was signed in replaces
    what is held, unless the server takes it no more (`is_dead`).
    """
    if held is None:
        return False
    return is_read and held.access_token != before if unsaved == "renewed" else is_dead


def is_adoptable(held: Token, reason: Reason, mine: Token | None, before: str | None, at: Moment) -> bool:
    """Has somebody else renewed the token? At the first look, whatever still lives will do, ours too.

    The first look it still is, if a sign-in has been saved while the flight waited for the lock: it is `"missing"`.
    """
    is_mine = mine is not None and held.access_token == mine.access_token
    is_first = before is None or reason == "missing"
    return is_usable(held, at) and not (is_mine and (reason == "rejected" or not is_first))


def adopted(held: Token, at: Moment) -> Found:
    """`held`, which the storage holds, as the next token."""
    return Found(held.renewed(held, at.wall), at, is_adopted=True, is_held=True)


def is_usable(token: Token, at: Moment) -> bool:
    """Has it an access token that need not be waited for yet?"""
    if not token.access_token:
        return False
    state = AuthState("idle", token, deadline=policy.deadline_of(token, at))
    return at.monotonic < policy.windows(state, 0.0).wait_from
