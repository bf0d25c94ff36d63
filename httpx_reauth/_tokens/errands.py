"""What is done beside a refresh: sign in, sign out, save once more, close.

With a storage, each is a flight of its own, which takes the storage's lock like a refresh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from httpx_reauth._errors import ReauthError, own_copy
from httpx_reauth._state.actions import SignedIn, SignedOut
from httpx_reauth._token import Token
from httpx_reauth._tokens.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from httpx_reauth._tokens._refresh.flight import Flight
    from httpx_reauth._tokens._refresh.sync import Keeper
    from httpx_reauth._tokens._refresh.worker import Work
    from httpx_reauth._tokens.manager import Refresher
    from httpx_reauth._tokens.wait import Plan


def settle(refresher: Refresher, *, is_async: bool) -> Plan[None]:
    """Wait for a refresh under way, however it ends."""
    from httpx_reauth._tokens._refresh.flight import under_way

    until = refresher.clock.monotonic() + refresher.timeout
    for flight in under_way(refresher.store):
        yield from wait_for(flight, is_async=is_async, for_end=True, until=until)
    keeper, state = refresher.keeper, refresher.store.state
    if keeper is not None and (state.unsaved or keeper.must_clear(state)):
        flight = save_again(refresher, keeper)
        yield from wait_for(flight, is_async=is_async, for_end=True, until=until)


def sign_in(refresher: Refresher, token: Token, *, is_async: bool) -> Plan[None]:
    """Replace the token, in the storage as well; a failure there is told (`SaveFailed`) and mended later."""
    keeper = refresher.keeper
    if keeper is not None:
        keeper.save_at = refresher.clock.monotonic() + refresher.timeout  # saved here and now, not by the next request
        keeper.dead = None  # it may live again
    refresher.store.dispatch(SignedIn(token))
    signed_in = refresher.store.state.token
    if keeper is not None and signed_in is not None:
        flight = _errand(refresher, lambda flight: keeper.save(flight, signed_in))
        yield from _wait_for_errand(flight, is_async=is_async)


def sign_out(refresher: Refresher, *, is_async: bool) -> Plan[None]:
    """Forget the token, in the storage as well.

    Raises:
        StorageError, RefreshError: the storage still holds it.
    """
    keeper = refresher.keeper
    if keeper is not None:
        keeper.owes_clear = refresher.store.state.session  # of another session, the state itself says so
    refresher.store.dispatch(SignedOut())
    if keeper is not None:
        flight = _errand(refresher, keeper.clear)
        error = yield from _wait_for_errand(flight, is_async=is_async)
        if error is not None:
            raise own_copy(error)


def _wait_for_errand(flight: Flight, *, is_async: bool) -> Plan[ReauthError | None]:
    from httpx_reauth._tokens._refresh.flight import is_inside_a_refresh

    if is_inside_a_refresh():  # which may hold the lock
        return None
    return (yield from wait_for(flight, is_async=is_async, for_end=True)) or flight.error


def save_again(refresher: Refresher, keeper: Keeper) -> Flight:
    """Try once more, in the background, to tell the storage what it could not be told: a token, or a sign-out."""
    token = refresher.store.state.token
    if token is None:
        return _errand(refresher, keeper.clear)
    return _errand(refresher, lambda flight: keeper.save(flight, token, again=True))


def _errand(refresher: Refresher, work: Callable[[Flight], Work]) -> Flight:
    """Start a flight beside the store's state: something to do with the storage, which renews nothing."""
    from httpx_reauth._tokens._refresh.flight import Flight
    from httpx_reauth._tokens._refresh.worker import launch

    now = refresher.clock.monotonic()
    flight = Flight(refresher.store, "missing", started=now, overdue=now + refresher.timeout, failures=0)
    flight.package = refresher.package
    try:
        flight.depart()
        launch(flight, work(flight), here=None, is_coroutine=False, is_blocking=True)
    except BaseException:
        if flight.give_up():
            flight.end()
        raise
    return flight
