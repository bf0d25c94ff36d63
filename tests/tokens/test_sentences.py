"""What is said where a token cannot be had, to the letter: each of these sentences tells a user what to do next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from httpx_reauth import AuthState, ReauthError, RefreshError, RefreshRejected, SignInRequired, Token
from httpx_reauth import Reauth as _Reauth
from httpx_reauth._clock import SYSTEM_CLOCK
from httpx_reauth._state.actions import Action, RefreshPending
from httpx_reauth._tokens._refresh.flight import Flight
from httpx_reauth.testing import ManualClock

UNKNOWN = (
    "Its outcome is unknown: the server may have processed it, and a rotated refresh token may be lost with the answer."
)
OVERDUE = (
    "The refresh has been running for more than 2.5 s (refresh_timeout) and could not be stopped; "
    "until it ends, no second one starts, and requests that need its token fail like this one. "
    "Give the refresh a shorter timeout of its own."
)
FROM_INSIDE = (
    "This request comes from inside of the refresh that it would have to wait for. "
    "Send the refresh's own requests with auth=None, or by a client of its own."
)
ON_ITS_LOOP = (
    "This sync call would wait for itself: it blocks the thread of the event loop on which the refresh runs. "
    "Await the token (an httpx.AsyncClient, or aget_token), or call from another thread."
)
IN_A_LISTENER = (
    "This call comes from a listener that is told of the very refresh it would have to wait for. "
    "Let the listener return first, or call from another thread."
)
NOT_AN_ORIGIN = (
    "'api.test' is not an origin. Write the scheme and one host, the port where it is not the scheme's own, "
    'and no path: "https://api.example.com".'
)


class Reauth(_Reauth):
    """One whose clock stands still."""

    def __init__(self, refresh: Callable[[Token], Any], **settings: Any) -> None:
        super().__init__(refresh, clock=ManualClock(), **settings)


def renewed(_: Token) -> Token:
    return Token("new")


def said(call: Callable[..., object], *arguments: Any) -> tuple[type[BaseException], str]:
    with pytest.raises((ReauthError, ValueError, TypeError)) as caught:
        call(*arguments)
    return type(caught.value), str(caught.value)


def departed(auth: _Reauth) -> Flight:
    """A flight that is under way as far as the state knows, and of which nobody does the work."""
    now = auth.store.clock.monotonic()
    flight = Flight(auth.store, "missing", started=now, overdue=now + 2.5, failures=0)
    flight.depart()
    assert auth.store.dispatch(RefreshPending("missing", flight=flight))
    return flight


def test_signed_out_meanwhile():
    def refresh(_: Token) -> Token:
        auth.sign_out()
        return Token("new")

    auth = Reauth(refresh)
    assert said(auth.get_token) == (
        SignInRequired,
        "Signed out while the token was being renewed. Sign in again.",
    )


def test_a_refresh_that_asks_for_its_own_token():
    auth = Reauth(lambda _: auth.get_token())
    assert said(auth.get_token) == (RefreshError, FROM_INSIDE)


def test_a_sync_call_on_the_event_loop_of_the_refresh():
    async def refresh(_: Token) -> Token:
        return Token("new")

    async def both() -> tuple[type[BaseException], str]:
        async with auth:
            next(auth._refresher.token(is_async=True))
            return said(auth.get_token)

    auth = Reauth(refresh)
    assert asyncio.run(both()) == (RefreshError, ON_ITS_LOOP)


def test_a_call_from_a_listener():
    errors = []

    def listener(_: AuthState, action: Action) -> None:
        if isinstance(action, RefreshPending):
            errors.append(said(auth.get_token))

    auth = Reauth(renewed)
    auth.store.subscribe(listener)
    auth.get_token()
    assert errors == [(RefreshError, IN_A_LISTENER)]


def test_a_refresh_that_takes_too_long_and_cannot_be_stopped(clock: ManualClock):
    auth = _Reauth(renewed, refresh_timeout=2.5, clock=clock)
    flight = departed(auth)
    clock.advance(2.5)
    assert said(auth.get_token) == (RefreshError, OVERDUE)
    assert auth.store.state.flight is flight
    flight.end()


def test_a_refresh_that_takes_too_long_and_is_stopped():
    async def refresh(_: Token) -> Token:
        await asyncio.Event().wait()
        return Token("too late")

    after = "The refresh was stopped after 0.02 s (refresh_timeout). "
    assert said(Reauth(refresh, refresh_timeout=0.02).get_token) == (RefreshError, after + UNKNOWN)


def test_a_refresh_whose_event_loop_ends():
    class Closed:
        def is_closed(self) -> bool:
            return True

    auth, errors = Reauth(renewed), []
    auth.store.subscribe(
        lambda _, action: errors.append(str(action.error)) if isinstance(action, RefreshRejected) else None
    )
    departed(auth).home = Closed()  # type: ignore[assignment]
    auth.get_token()
    (words,) = errors
    assert "async with auth" in words
    assert UNKNOWN in words


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "The refresh returned NoneType, not a Token; see Token.from_response."),
        ("token", "The refresh returned str, not a Token; see Token.from_response."),
        (Token(), "The refresh returned a Token without an access token, so there is nothing to use."),
    ],
)
def test_an_answer_that_is_no_token(answer: Any, words: str):
    assert said(Reauth(lambda _: answer).get_token) == (RefreshError, words)


def test_a_refresh_that_raises():
    def refresh(_: Token) -> Token:
        raise KeyError("s3cret")

    cls, words = said(Reauth(refresh).get_token)
    assert cls is RefreshError
    assert "KeyError" in words
    assert f"{__file__}:{refresh.__code__.co_firstlineno + 1}" in words
    assert "s3cret" not in words


def test_settings_at_their_bounds():
    with _Reauth(renewed, leeway=0.0, refresh_timeout=0.5) as auth:
        assert auth.get_token() == Token("new")


def test_settings_that_nobody_has_made():
    auth = _Reauth(renewed)
    refresher = auth._refresher
    assert (refresher.leeway, refresher.timeout, refresher.keeper) == (60.0, 30.0, None)
    assert (auth.authorize, auth.buffer_request_body, refresher.clock) == (None, False, SYSTEM_CLOCK)


OUT_OF_PATIENCE = (
    "This call has waited for as long as it may (refresh_timeout). The refresh that it waits for began later, or "
    "has more time, and goes on without it."
)


@pytest.mark.parametrize("left", [0.5, 1e-3])
def test_a_refresh_that_has_more_time_than_whoever_waits_for_it(clock: ManualClock, left: float):
    slow = _Reauth(renewed, refresh_timeout=2.5, clock=clock)
    quick = _Reauth(renewed, refresh_timeout=2.5 - left, clock=clock, store=slow.store)
    flight = departed(slow)
    plan = quick._refresher.token(is_async=False)
    next(plan)
    clock.advance(2.5 - left)
    assert said(next, plan) == (RefreshError, OUT_OF_PATIENCE)
    assert not flight.is_over()
    flight.end()
