"""Tests of the hot path, which is written twice (sync and async): when it is taken, and where it sends the token."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from httpx import Request, Response

from httpx_reauth import Reauth, Token
from httpx_reauth._request.auth import ReauthBase
from httpx_reauth.testing import ManualClock

URL = "https://api.test/me"


class Flow:
    """The flow of one request, sync or async. The test drives it without an event loop, because nothing here waits."""

    def __init__(self, auth: Reauth, request: Request, *, is_async: bool) -> None:
        self._async = auth.async_auth_flow(request) if is_async else None
        self._sync = None if is_async else auth.sync_auth_flow(request)

    def send(self, response: Response | None) -> Request | None:
        """Give the flow a response. Return the next request that it sends, or None if the flow has ended."""
        try:
            if self._sync is not None:
                return self._sync.send(response)
            assert self._async is not None
            self._async.asend(response).send(None)
        except StopIteration as stop:
            return stop.value
        except StopAsyncIteration:
            return None
        raise AssertionError("It waits.")


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return request.param == "async"


@pytest.fixture
def reauth(clock: ManualClock) -> Any:
    def make(**settings: Any) -> Reauth:
        return Reauth(lambda _: Token("new"), **{"token": Token("a", expires_in=3600), "clock": clock, **settings})

    return make


def token_at(auth: Reauth, url: str, *, is_async: bool) -> bytes | None:
    """Return the header that is sent to `url`, with the spelling of its name, or None."""
    request = Request("GET", url)
    flow = Flow(auth, request, is_async=is_async)
    assert flow.send(None) is request
    assert flow.send(Response(200, request=request)) is None
    return dict(request.headers.raw).get(b"Authorization")


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, URL),
        ({}, "https://api.test:8443/me"),
        ({}, "http://localhost:8000/me"),
        ({"origins": ["https://api.test:8443"]}, "https://api.test:8443/me"),
        ({"origins": ["https://api.test", "https://other.test"]}, URL),
        ({"origins": ["https://api.test", "https://other.test"]}, "https://other.test/"),
        ({"origins": ["https://api.test"]}, "wss://api.test/feed"),
        ({"origins": ["https://*.api.test"]}, "https://tenant.api.test/"),
        ({"origins": ["https://*.api.test"]}, "wss://tenant.api.test/feed"),
    ],
)
def test_a_good_token_is_sent_on_the_hot_path(
    reauth: Any, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], url: str, *, is_async: bool
):
    auth = reauth(**settings)
    assert token_at(auth, url, is_async=is_async) == b"Bearer a"
    monkeypatch.setattr(ReauthBase, "_exchange", None)
    for _ in range(2):
        assert token_at(auth, url, is_async=is_async) == b"Bearer a"


@pytest.mark.parametrize(
    "url", ["https://api.test:8443/", "https://other.test/", "https://api.test.other/", "http://localhost/"]
)
def test_guarantee_9_from_the_hot_path_the_token_goes_to_no_origin_that_is_not_listed(
    reauth: Any, url: str, *, is_async: bool
):
    auth = reauth(origins=["https://api.test"])
    assert token_at(auth, URL, is_async=is_async) == b"Bearer a"
    for _ in range(2):
        assert token_at(auth, url, is_async=is_async) is None


def test_the_hot_path_ends_with_the_state(reauth: Any, *, is_async: bool):
    auth = reauth()
    assert [token_at(auth, URL, is_async=is_async) for _ in range(2)] == [b"Bearer a"] * 2
    auth.sign_in(Token("b", expires_in=60))
    assert [token_at(auth, URL, is_async=is_async) for _ in range(2)] == [b"Bearer b"] * 2
    auth.sign_in(Token("c"))
    assert token_at(auth, URL, is_async=is_async) == b"Bearer c"


def test_a_token_that_follows_another_is_sent_on_the_hot_path_as_well(
    reauth: Any, monkeypatch: pytest.MonkeyPatch, *, is_async: bool
):
    auth = reauth()
    token_at(auth, URL, is_async=is_async)
    auth.sign_in(Token("b"))
    token_at(auth, URL, is_async=is_async)
    monkeypatch.setattr(ReauthBase, "_exchange", None)
    assert token_at(auth, URL, is_async=is_async) == b"Bearer b"


def test_where_there_is_more_to_do_the_hot_path_is_not_taken(reauth: Any, *, is_async: bool):
    tokens: list[str] = []
    auth = reauth(authorize=lambda _, token: tokens.append(token.access_token))
    for _ in range(3):
        assert token_at(auth, URL, is_async=is_async) is None
    assert tokens == ["a"] * 3


def test_after_a_close_requests_work_as_before(reauth: Any, *, is_async: bool):
    auth = reauth()
    token_at(auth, URL, is_async=is_async)
    auth.close()
    assert token_at(auth, URL, is_async=is_async) == b"Bearer a"


def test_a_sign_in_that_brings_nothing_to_send_is_renewed_before_the_next_request(reauth: Any):
    auth = reauth()
    token_at(auth, URL, is_async=False)
    auth.sign_in(Token(refresh_token="r"))
    assert token_at(auth, URL, is_async=False) == b"Bearer new"


def test_guarantee_5_a_401_on_the_hot_path_after_a_redirect_is_answered_for_the_last_request(
    reauth: Any, *, is_async: bool
):
    auth = reauth()
    token_at(auth, URL, is_async=is_async)
    flow = Flow(auth, Request("GET", URL), is_async=is_async)
    sent = flow.send(None)
    assert sent is not None
    auth.get_token(rejected=Token("a"))
    moved = Request("GET", "https://api.test/moved", headers=sent.headers)
    assert flow.send(Response(401, request=moved)) is moved
    assert moved.headers["Authorization"] == "Bearer new"


def test_guarantee_9_a_request_that_goes_without_the_token_waits_for_no_refresh(reauth: Any, *, is_async: bool):
    asked, gate = threading.Event(), threading.Event()

    def refresh(_: Token) -> Token:
        asked.set()
        assert gate.wait(60.0)
        return Token("new")

    auth = Reauth(refresh)
    waiting = threading.Thread(target=auth.get_token)
    waiting.start()
    assert asked.wait(60.0)
    listed = Reauth(refresh, store=auth.store, origins=["https://other.test"])
    assert token_at(listed, URL, is_async=is_async) is None
    gate.set()
    waiting.join()


@pytest.mark.anyio
async def test_after_a_401_on_the_hot_path_a_coroutine_refreshes_on_the_event_loop_of_the_request():
    async def refresh(_: Token) -> Token:
        threads.append(threading.get_ident())
        return Token("new")

    threads: list[int] = []
    async with Reauth(refresh, token=Token("a")) as auth:
        for status in (200, 401):  # the first request makes the snapshot
            flow = auth.async_auth_flow(Request("GET", URL))
            sent = await flow.asend(None)
            if status == 401:
                sent = await flow.asend(Response(401, request=sent))
                assert sent.headers["Authorization"] == "Bearer new"
            with pytest.raises(StopAsyncIteration):
                await flow.asend(Response(200, request=sent))
    assert threads == [threading.get_ident()]
