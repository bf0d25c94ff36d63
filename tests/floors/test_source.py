"""Tokens without a request: each method asks for the right thing, and waits for it in its own colour."""

from __future__ import annotations

from collections.abc import Generator
from math import inf
from typing import Any

import pytest
from httpx_reauth._tokens.wait import Wait

from httpx_reauth import Reauth, Token
from httpx_reauth._tokens import errands as _errands
from httpx_reauth._tokens.manager import Refresher

MINE = Token("mine")


class Told:
    """A flight that writes down how it is waited for."""

    def __init__(self) -> None:
        self.waits: list[Any] = []

    def wait(self, *, for_end: bool, until: float) -> None:
        self.waits.append(("sync", for_end, until))

    async def async_wait(self, *, for_end: bool, until: float) -> None:
        self.waits.append(("async", for_end, until))


@pytest.fixture
def flight() -> Told:
    return Told()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, flight: Any) -> list[Any]:
    """What the plans were made with; each waits twice, and returns another token."""
    asked: list[Any] = []

    def plan_of(name: str) -> Any:
        def plan(*arguments: Any, **settings: Any) -> Generator[Any, None, Token]:
            asked.append((name, *arguments, settings))
            yield Wait(flight)
            yield Wait(flight, for_end=True, until=5.0)
            return Token("another")

        return plan

    monkeypatch.setattr(Refresher, "token", plan_of("token"))
    for name in ("sign_in", "sign_out", "settle"):
        monkeypatch.setattr(_errands, name, plan_of(name))
    return asked


@pytest.fixture
def auth() -> Reauth:
    return Reauth(lambda _: Token("unused"), token=MINE)


REJECTED = [(None, None), (Token("other"), None), (Token("mine"), MINE)]


@pytest.mark.parametrize(("rejected", "current"), REJECTED)
def test_a_token_is_asked_for_and_waited_for(
    auth: Reauth, asked: list[Any], flight: Told, rejected: Token | None, current: Token | None
):
    assert auth.get_token(rejected) == Token("another")
    ((name, refresher, settings),) = asked
    assert (name, refresher, settings) == ("token", auth._refresher, {"is_async": False, "rejected": current})
    assert settings["rejected"] is (auth.store.state.token if current else None)
    assert flight.waits == [("sync", False, inf), ("sync", True, 5.0)]


@pytest.mark.anyio
@pytest.mark.parametrize(("rejected", "current"), REJECTED)
async def test_a_token_is_asked_for_and_waited_for_in_async_code(
    auth: Reauth, asked: list[Any], flight: Told, rejected: Token | None, current: Token | None
):
    assert await auth.aget_token(rejected) == Token("another")
    ((name, refresher, settings),) = asked
    assert (name, refresher, settings) == ("token", auth._refresher, {"is_async": True, "rejected": current})
    assert settings["rejected"] is (auth.store.state.token if current else None)
    assert flight.waits == [("async", False, inf), ("async", True, 5.0)]


def test_signing_in_and_out_and_closing(auth: Reauth, asked: list[Any], flight: Told):
    with auth:
        auth.sign_in(MINE)
        auth.sign_out()
        auth.close()
    colour = {"is_async": False}
    end = ("settle", auth._refresher, colour)
    assert asked == [("sign_in", auth._refresher, MINE, colour), ("sign_out", auth._refresher, colour), end, end]
    assert flight.waits == [("sync", False, inf), ("sync", True, 5.0)] * 4


@pytest.mark.anyio
async def test_signing_in_and_out_and_closing_in_async_code(auth: Reauth, asked: list[Any], flight: Told):
    async with auth:
        await auth.asign_in(MINE)
        await auth.asign_out()
        await auth.aclose()
    colour = {"is_async": True}
    end = ("settle", auth._refresher, colour)
    assert asked == [("sign_in", auth._refresher, MINE, colour), ("sign_out", auth._refresher, colour), end, end]
    assert flight.waits == [("async", False, inf), ("async", True, 5.0)] * 4


def test_how_it_is_shown(auth: Reauth):
    assert repr(auth) == f"Reauth({auth.store.state!r})"


@pytest.mark.parametrize("rejected", [Token("secret", expires_in=3600), Token("secret"), Token("secret", scope="read")])
def test_a_token_is_the_rejected_one_if_the_server_would_not_tell_them_apart(rejected: Token):
    auth = Reauth(lambda _: Token("renewed"), token=Token("secret", refresh_token="r", expires_in=3600))
    assert auth.get_token(rejected=rejected).access_token == "renewed"
    assert auth.get_token(rejected=rejected).access_token == "renewed"
    assert auth.get_token(rejected=Token()).access_token == "renewed"
