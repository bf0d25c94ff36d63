"""The hot path, which stands twice, once for each colour: when it is taken, where it sends the token, when it waits."""

from __future__ import annotations

import threading
from collections.abc import Coroutine
from typing import Any

import pytest
from httpx import Request, Response

from httpx_reauth import Reauth, RefreshError, Token
from httpx_reauth._request import auth as _auth
from httpx_reauth._state.actions import RefreshFulfilled, RefreshPending
from httpx_reauth._tokens._refresh.flight import Flight
from httpx_reauth.testing import ManualClock

URL = "https://api.test/me"


class Flow:
    """The flow of one request, in either colour, driven without an event loop: nothing that is tested here waits."""

    def __init__(self, auth: Reauth, request: Request, *, is_async: bool) -> None:
        self._async = auth.async_auth_flow(request) if is_async else None
        self._sync = None if is_async else auth.sync_auth_flow(request)

    def send(self, response: Response | None) -> Request | None:
        """The next request that it sends, or None if it is over."""
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
    """The header that goes to `url`, if one does; with the very name that it has."""
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
    monkeypatch.setattr(_auth, "exchange", None)
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
    monkeypatch.setattr(_auth, "exchange", None)
    assert token_at(auth, URL, is_async=is_async) == b"Bearer b"


def test_where_there_is_more_to_do_the_hot_path_is_not_taken(reauth: Any, *, is_async: bool):
    tokens: list[str] = []
    auth = reauth(authorize=lambda _, token: tokens.append(token.access_token))
    for _ in range(3):
        assert token_at(auth, URL, is_async=is_async) is None
    assert tokens == ["a"] * 3


def test_after_a_close_all_is_as_before(reauth: Any, *, is_async: bool):
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
    auth.sign_in(Token("b"))
    moved = Request("GET", "https://api.test/moved", headers=sent.headers)
    assert flow.send(Response(401, request=moved)) is moved
    assert moved.headers["Authorization"] == "Bearer b"


class Landing(Flight):
    """A flight that lands as soon as it is waited for, with a token that ends at once."""

    waited: list[str]

    def wait(self, *_: Any, **__: Any) -> None:
        self._land("sync")

    def async_wait(self, *_: Any, **__: Any) -> Coroutine[Any, Any, object]:
        async def land() -> None:
            self._land("async")

        return land()

    def _land(self, colour: str) -> None:
        self.waited.append(colour)
        self.token = Token("brief", expires_in=0)
        now = self.store.clock.monotonic()
        assert self.store.dispatch(RefreshFulfilled(self.token, "missing", 0.0, flight=self, deadline=now))
        self.end()


@pytest.fixture
def auth(reauth: Any) -> Reauth:
    return reauth(token=None)


@pytest.fixture
def flight(auth: Reauth) -> Landing:
    now = auth.store.clock.monotonic()
    flight = Landing(auth.store, "missing", started=now, overdue=now + 30.0, failures=0)
    flight.waited = []
    assert auth.store.dispatch(RefreshPending("missing", flight=flight))
    return flight


def test_guarantee_8_a_request_waits_for_the_flight_under_way_and_uses_what_it_brings(
    auth: Reauth, flight: Landing, *, is_async: bool
):
    assert token_at(auth, URL, is_async=is_async) == b"Bearer brief"
    assert flight.waited == ["async" if is_async else "sync"]


def test_a_flight_on_this_very_thread_is_waited_for_by_async_code_alone(
    auth: Reauth, flight: Landing, *, is_async: bool
):
    flight.thread = threading.get_ident()
    if is_async:
        assert token_at(auth, URL, is_async=True) == b"Bearer brief"
    else:
        with pytest.raises(RefreshError, match="would have to wait for"):
            token_at(auth, URL, is_async=False)
        flight.end()


def test_guarantee_9_a_request_that_goes_without_the_token_waits_for_no_flight(
    auth: Reauth, flight: Landing, reauth: Any, *, is_async: bool
):
    listed = reauth(store=auth.store, origins=["https://other.test"], token=None)
    assert token_at(listed, URL, is_async=is_async) is None
    assert flight.waited == []
    flight.end()


@pytest.mark.anyio
async def test_after_a_401_on_the_hot_path_a_coroutine_refreshes_on_the_event_loop_of_the_request():
    async def refresh(_: Token) -> Token:
        threads.append(threading.get_ident())
        return Token("new")

    threads: list[int] = []
    async with Reauth(refresh, token=Token("a")) as auth:
        for status in (200, 401):  # the first one warms it up
            flow = auth.async_auth_flow(Request("GET", URL))
            sent = await flow.asend(None)
            if status == 401:
                sent = await flow.asend(Response(401, request=sent))
                assert sent.headers["Authorization"] == "Bearer new"
            with pytest.raises(StopAsyncIteration):
                await flow.asend(Response(200, request=sent))
    assert threads == [threading.get_ident()]
