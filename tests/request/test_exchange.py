"""Tests of what follows a 401, as far as it depends neither on the HTTP library nor on the mode.

The test runs the flows.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest
from httpx import Request, Response

from httpx_reauth import Reauth, RefreshError, Token, TokenStore
from httpx_reauth._state.actions import ReplayAccepted, ReplayRefused
from httpx_reauth.testing import ManualClock

URL = "https://api.test/me"


class Refresh:
    """A refresh that returns `1`, `2` ..., or fails."""

    def __init__(self) -> None:
        self.count = 0
        self.lifetime = 3600.0
        self.error: Exception | None = None

    def __call__(self, _: Token) -> Token:
        self.count += 1
        if self.error is not None:
            raise self.error
        return Token(str(self.count), expires_in=self.lifetime)


class Flow:
    """The flow of one request."""

    def __init__(self, auth: Reauth, request: Request | None = None) -> None:
        self.request = request or Request("GET", URL)
        self._flow: Generator[Any, Any, None] = auth.sync_auth_flow(self.request)
        self.sent = next(self._flow)

    def answer(self, status: int, request: Request | None = None) -> str | None:
        """Answer the request. Return the token of the replay, or None if the caller gets the answer."""
        try:
            self.sent = self._flow.send(Response(status, request=request or self.sent))
        except StopIteration:
            return None
        return self.sent.headers["Authorization"].removeprefix("Bearer ")


@pytest.fixture
def refresh() -> Refresh:
    return Refresh()


@pytest.fixture
def auth(refresh: Refresh, clock: ManualClock) -> Reauth:
    return Reauth(refresh, token=Token("0", expires_in=36_000), clock=clock)


def test_guarantee_5_a_token_that_was_accepted_at_its_trial_may_be_refused_the_very_next_moment(
    auth: Reauth, refresh: Refresh
):
    for number in ("1", "2", "3"):
        flow = Flow(auth)
        assert flow.answer(401) == number
        assert flow.answer(200) is None


def test_guarantee_5_a_fresh_token_that_has_ended_on_its_way_is_no_useless_one(
    auth: Reauth, refresh: Refresh, clock: ManualClock
):
    refresh.lifetime = 0.5
    flow = Flow(auth)
    assert flow.answer(401) == "1"
    clock.advance(0.5)
    assert flow.answer(401) is None
    refresh.lifetime = 3600.0
    assert Flow(auth).answer(401) == "3"  # it began with "2", because "1" had ended, and "2" was refused


def test_guarantee_6_a_fresh_token_that_has_ended_on_its_way_does_not_end_the_row_of_useless_ones(
    auth: Reauth, refresh: Refresh, clock: ManualClock
):
    def is_refused_twice(number: int, *, after: float = 0.0) -> None:
        flow = Flow(auth, Request("GET", f"{URL}/{number}"))
        assert flow.answer(401) is not None
        clock.advance(after)
        assert flow.answer(401) is None

    is_refused_twice(1)
    is_refused_twice(2)
    refresh.lifetime = 0.5
    is_refused_twice(3, after=0.5)
    refresh.lifetime = 3600.0
    is_refused_twice(4)  # the third in the row, because number 3 did not count
    assert Flow(auth, Request("GET", f"{URL}/5")).answer(401) is None


@pytest.mark.parametrize(("url", "counts"), [("https://api.test/moved", True), ("https://other.test/", False)])
def test_guarantee_6_a_replay_that_was_redirected_counts_if_it_carried_the_token_to_where_it_may_go(
    auth: Reauth, refresh: Refresh, url: str, *, counts: bool
):
    flow = Flow(auth)
    assert flow.answer(401) == "1"
    assert flow.answer(401, Request("GET", url, headers=flow.sent.headers)) is None
    assert (Flow(auth).answer(401) is None) is counts


def test_guarantee_6_that_a_fresh_token_was_refused_is_a_warning_that_names_the_place_and_a_remedy(
    auth: Reauth, caplog: pytest.LogCaptureFixture
):
    flow = Flow(auth, Request("GET", f"{URL}?secret=1"))
    assert flow.answer(401) == "1"
    assert flow.answer(401) is None
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    for part in (URL, "1 s", "scope"):
        assert part in warning
    assert "secret" not in warning


def test_guarantee_6_a_replay_that_another_request_wins_at_the_same_moment_is_no_error(
    auth: Reauth, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The place refuses this request's fresh token; at once, on another thread, it accepts that of another request."""
    apply = TokenStore._apply

    def apply_both(store: TokenStore, action: Any) -> bool:
        is_changed = apply(store, action)
        if isinstance(action, ReplayRefused):
            apply(store, ReplayAccepted(action.place))
        return is_changed

    monkeypatch.setattr(TokenStore, "_apply", apply_both)
    flow = Flow(auth)
    assert flow.answer(401) == "1"
    assert flow.answer(401) is None
    assert not [record for record in caplog.records if "scope and audience" in record.getMessage()]


def test_guarantee_9_at_most_64_origins_without_the_token_are_warned_of_and_each_once(
    auth: Reauth, caplog: pytest.LogCaptureFixture
):
    listed = Reauth(Refresh(), store=auth.store, origins=["https://api.test"])
    for number in range(70):
        for _ in range(2):
            flow = Flow(listed, Request("GET", f"https://stranger.test:{8000 + number}/"))
            assert "Authorization" not in flow.sent.headers
    assert len(caplog.records) == 64
    for number, record in enumerate(caplog.records):
        assert f"https://stranger.test:{8000 + number} is sent without the access token" in record.getMessage()


def test_guarantee_5_an_error_after_a_401_names_its_request(auth: Reauth, refresh: Refresh):
    refresh.error = RefreshError("down")
    flow = Flow(auth)
    with pytest.raises(RefreshError) as caught:
        flow.answer(401)
    assert caught.value.request is flow.request


def test_after_a_redirect_authorize_puts_the_new_token_on_what_the_last_request_was_without_the_old_one(
    refresh: Refresh, clock: ManualClock
):
    def authorize(request: Request, token: Token) -> None:
        request.headers["X-Key"] = request.headers.get("X-Key", "") + token.access_token

    auth = Reauth(refresh, token=Token("0"), authorize=authorize, clock=clock)
    flow = auth.sync_auth_flow(Request("GET", URL, headers={"X-First": "yes"}))
    sent = next(flow)
    moved = Request("GET", "https://api.test/moved", headers={"X-Moved": "yes", "X-Key": sent.headers["X-Key"]})
    again = flow.send(Response(401, request=moved))
    assert again is moved
    assert (again.headers["X-Key"], again.headers.get("X-Moved"), again.headers.get("X-First")) == ("1", "yes", None)


@pytest.mark.anyio
@pytest.mark.parametrize("statuses", [[200], [401, 200]])
async def test_a_coroutine_refreshes_on_the_event_loop_of_the_request(statuses: list[int]):
    async def refresh(_: Token) -> Token:
        threads.append(threading.get_ident())
        return Token(f"new {len(threads)}")

    threads: list[int] = []
    async with Reauth(refresh) as auth:
        flow = auth.async_auth_flow(Request("GET", URL))
        sent = await flow.asend(None)
        for status in statuses[:-1]:
            sent = await flow.asend(Response(status, request=sent))
        with pytest.raises(StopAsyncIteration):
            await flow.asend(Response(statuses[-1], request=sent))
    assert threads == [threading.get_ident()] * len(statuses)


@pytest.mark.anyio
async def test_async_code_reads_a_body_that_async_code_can_read():
    async def body() -> AsyncIterator[bytes]:
        yield b"once"

    request = Request("POST", URL, content=body())
    flow = Reauth(Refresh(), token=Token("0"), buffer_request_body=True).async_auth_flow(request)
    assert (await flow.asend(None)).content == b"once"
    await flow.aclose()
