"""Tests of what happens to a request: `next` and `send` drive the flow by hand, sync and async, without a client."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from httpx_reauth import (
    AuthState,
    InsecureOrigin,
    ReauthError,
    RefreshError,
    SignedOut,
    SignInRequired,
    Token,
    TokenStore,
)
from httpx_reauth.testing import ManualClock

URL = "https://api.test/me"

pytestmark = pytest.mark.anyio


class Refresh:
    """A refresh that returns `token-1`, `token-2` ..., or the answers that the test sets. It counts its calls."""

    def __init__(self, lifetime: float | None = 3600.0) -> None:
        self.asked: list[Token] = []
        self.lifetime = lifetime
        self.answers: list[Any] = []

    def __call__(self, last: Token) -> Token:
        self.asked.append(last)
        answer = self.answers.pop(0) if self.answers else self.token
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @property
    def token(self) -> Token:
        return Token(f"token-{len(self.asked)}", expires_in=self.lifetime)

    @property
    def count(self) -> int:
        return len(self.asked)


class Exchange:
    """One flow, which the test drives step by step."""

    def __init__(self, auth: Any, request: Any, *, is_async: bool) -> None:
        self.request = request
        self._async = auth.async_auth_flow(request) if is_async else None
        self._sync = None if is_async else auth.sync_auth_flow(request)

    async def begin(self) -> Any:
        return await self._send(None)

    async def answer(self, response: Any) -> Any:
        """Give the flow a response. Return the next request that it wants to send, or None if the flow has ended."""
        return await self._send(response)

    async def close(self) -> None:
        if self._async is not None:
            await self._async.aclose()
        else:
            self._sync.close()

    async def _send(self, response: Any) -> Any:
        try:
            return self._sync.send(response) if self._async is None else await self._async.asend(response)
        except (StopIteration, StopAsyncIteration):
            return None


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return request.param == "async"


@pytest.fixture
def refresh() -> Refresh:
    return Refresh()


class Bench:
    """Makes and drives flows with one HTTP library, in one mode, and with one clock."""

    def __init__(self, library: Any, clock: ManualClock, refresh: Refresh, *, is_async: bool) -> None:
        self.library = library
        self.package = library.package
        self.clock = clock
        self.refresh = refresh
        self.is_async = is_async
        self.exchanges: list[Exchange] = []

    def reauth(self, cls: Any = None, **settings: Any) -> Any:
        return (cls or self.library.Reauth)(self.refresh, clock=self.clock, **settings)

    def request(self, url: str = URL, **settings: Any) -> Any:
        return self.package.Request("POST", url, **settings)

    def response(self, status: int, request: Any = None, **settings: Any) -> Any:
        return self.package.Response(status, request=request, **settings)

    def body(self, *parts: bytes, cut_off: bool = False) -> Any:
        """Return a body for this mode that can be read once. If `cut_off`, reading it raises before its end."""

        def synchronous() -> Iterator[bytes]:
            yield from parts
            if cut_off:
                raise self.package.RemoteProtocolError("peer closed connection")

        async def asynchronous() -> AsyncIterator[bytes]:
            for part in synchronous():
                yield part

        return asynchronous() if self.is_async else synchronous()

    def exchange(self, auth: Any, request: Any = None) -> Exchange:
        exchange = Exchange(auth, self.request() if request is None else request, is_async=self.is_async)
        self.exchanges.append(exchange)
        return exchange

    async def ok(self, auth: Any, request: Any = None) -> str:
        """Make one request that the server accepts. Return the header that the request had."""
        exchange = self.exchange(auth, request)
        sent = await exchange.begin()
        header = sent.headers["Authorization"]
        assert await exchange.answer(self.response(200, sent)) is None
        return header

    async def refused(self, auth: Any, replay: int = 200, url: str = URL) -> tuple[str, str | None]:
        """Make one request that is refused, and answer its replay with `replay`. Return both headers."""
        exchange = self.exchange(auth, self.request(url))
        sent = await exchange.begin()
        first = sent.headers["Authorization"]
        again = await exchange.answer(self.response(401, sent))
        if again is None:
            return first, None
        second = again.headers["Authorization"]
        assert await exchange.answer(self.response(replay, again)) is None
        return first, second


@pytest.fixture
async def bench(library: Any, clock: ManualClock, refresh: Refresh, *, is_async: bool) -> AsyncIterator[Bench]:
    bench = Bench(library, clock, refresh, is_async=is_async)
    yield bench
    for exchange in bench.exchanges:  # the flows that a test did not drive to their end
        await exchange.close()


# Before the request is sent.


async def test_the_first_request_waits_for_a_token_and_carries_it(bench: Bench, refresh: Refresh):
    auth = bench.reauth()
    assert await bench.ok(auth) == "Bearer token-1"
    assert refresh.asked == [Token()]


async def test_further_requests_carry_the_same_token(bench: Bench, refresh: Refresh):
    auth = bench.reauth()
    assert [await bench.ok(auth) for _ in range(5)] == ["Bearer token-1"] * 5
    assert refresh.count == 1


async def test_the_scheme_is_the_type_of_the_token(bench: Bench):
    assert await bench.ok(bench.reauth(token=Token("a", token_type="DPoP"))) == "DPoP a"


async def test_auth_wins_over_a_header_on_the_request(bench: Bench):
    auth = bench.reauth(token=Token("a"))
    for _ in range(2):  # the first request has no snapshot yet, the second has one
        assert await bench.ok(auth, bench.request(headers={"authorization": "Basic x"})) == "Bearer a"


def test_a_flow_with_a_good_token_never_waits(library: Any, clock: ManualClock, refresh: Refresh):
    auth = library.Reauth(refresh, token=Token("a", expires_in=3600), clock=clock)
    for _ in range(2):
        request = library.package.Request("GET", URL)
        flow = auth.async_auth_flow(request)
        with pytest.raises(StopIteration) as sent:  # no event loop runs: the flow awaits nothing
            flow.asend(None).send(None)
        assert sent.value.value is request
        with pytest.raises(StopAsyncIteration):
            flow.asend(library.package.Response(200, request=request)).send(None)
    assert refresh.count == 0


async def test_guarantee_3_a_flow_that_is_left_in_the_middle_holds_nothing(bench: Bench, refresh: Refresh):
    auth = bench.reauth()
    for _ in range(2):
        left = bench.exchange(auth)
        await left.begin()
        open_one = bench.exchange(auth)
        await open_one.begin()
        await left.close()
        assert await bench.ok(auth) == "Bearer token-1"
    assert auth.store.dispatch(SignedOut())  # no flow holds a lock, so the state can still change


# A refused token.


@pytest.mark.parametrize("is_warm", [False, True])
async def test_guarantee_5_a_refused_token_is_renewed_and_the_request_sent_again(
    bench: Bench, refresh: Refresh, *, is_warm: bool
):
    auth = bench.reauth(token=Token("a", refresh_token="r", expires_in=3600))
    if is_warm:
        await bench.ok(auth)
    exchange = bench.exchange(auth, bench.request(content=b"body"))
    sent = await exchange.begin()
    assert sent is exchange.request
    assert sent.headers["Authorization"] == "Bearer a"
    again = await exchange.answer(bench.response(401, sent))
    assert again is sent
    assert again.headers["Authorization"] == "Bearer token-1"
    assert again.headers.get_list("Authorization") == ["Bearer token-1"]
    assert await exchange.answer(bench.response(200, again)) is None
    assert [(last.access_token, last.refresh_token) for last in refresh.asked] == [("a", "r")]
    assert auth.store.state.token.refresh_token == "r"  # from the token before
    assert await bench.ok(auth) == "Bearer token-1"


async def test_guarantee_4_a_late_401_is_answered_with_the_current_token_without_a_refresh(
    bench: Bench, refresh: Refresh
):
    auth = bench.reauth(token=Token("a"))
    await bench.ok(auth)
    early, late = bench.exchange(auth), bench.exchange(auth)
    first, second = await early.begin(), await late.begin()
    again = await early.answer(bench.response(401, first))
    assert await early.answer(bench.response(200, again)) is None
    again = await late.answer(bench.response(401, second))
    assert again.headers["Authorization"] == "Bearer token-1"
    assert await late.answer(bench.response(200, again)) is None
    assert refresh.count == 1


def unusable_answer() -> ReauthError:
    """The error of an answer that brings the refresh token "r2", and no access token that can be sent."""
    with pytest.raises(RefreshError) as caught:
        Token.from_response({"access_token": "x", "refresh_token": "r2", "token_type": "mac"})
    return caught.value


async def test_guarantee_5_a_refused_token_is_not_sent_again_if_its_refresh_brings_only_a_refresh_token(
    bench: Bench, refresh: Refresh, clock: ManualClock
):
    refresh.lifetime = None
    auth = bench.reauth(token=Token("a", refresh_token="r1"))
    await bench.refused(auth, replay=401)  # from now on, a 401 from here says little about the token
    clock.advance(1)
    refresh.answers = [unusable_answer(), RefreshError("down")]
    for _ in range(2):
        with pytest.raises(RefreshError):
            await bench.refused(auth)
        assert auth.store.state.token == Token("token-1", refresh_token="r2")
        clock.advance(5)
    assert refresh.count == 3


async def test_guarantee_4_a_late_401_does_not_get_the_same_access_token_with_another_refresh_token(
    bench: Bench, refresh: Refresh, clock: ManualClock
):
    auth = bench.reauth(token=Token("a", refresh_token="r1"))
    late = bench.exchange(auth)
    sent = await late.begin()
    refresh.answers = [unusable_answer()]
    with pytest.raises(RefreshError):  # also: it is not the old token that is returned as the renewed one
        await renew(auth, is_async=bench.is_async)
    assert auth.store.state.token == Token("a", refresh_token="r2")
    with pytest.raises(RefreshError):
        await late.answer(bench.response(401, sent))
    clock.advance(1)
    assert await bench.ok(auth) == "Bearer token-2"  # the refused token is not sent by other requests either


async def renew(auth: Any, *, is_async: bool) -> Token:
    token: Token = await auth.arenew() if is_async else auth.renew()
    return token


async def sign_in(auth: Any) -> None:
    auth.sign_in(Token("b"))


async def sign_out(auth: Any) -> None:
    auth.sign_out()


async def sign_out_and_in(auth: Any) -> None:
    auth.sign_out()
    auth.sign_in(Token("b"))


@pytest.mark.parametrize("change", [sign_in, sign_out, sign_out_and_in])
@pytest.mark.parametrize("is_warm", [False, True])
async def test_guarantee_4_a_401_of_a_session_that_has_ended_is_returned_and_starts_nothing(
    bench: Bench, refresh: Refresh, change: Any, *, is_warm: bool
):
    """A request that was sent for one user is not sent again with the token of another."""
    auth = bench.reauth(token=Token("a"))
    if is_warm:
        await bench.ok(auth)
    exchange = bench.exchange(auth)
    sent = await exchange.begin()
    await change(auth)
    assert await exchange.answer(bench.response(401, sent)) is None
    assert sent.headers["Authorization"] == "Bearer a"
    assert refresh.count == 0


@pytest.mark.parametrize("status", [200, 204, 302, 400, 403, 404, 407, 419, 500])
async def test_only_a_401_refuses_a_token(bench: Bench, refresh: Refresh, status: int):
    auth = bench.reauth(token=Token("a"))
    for _ in range(2):
        exchange = bench.exchange(auth)
        assert await exchange.answer(bench.response(status, await exchange.begin())) is None
    assert refresh.count == 0


async def test_guarantee_5_there_is_one_replay(bench: Bench, refresh: Refresh):
    auth = bench.reauth()
    assert await bench.refused(auth, replay=401) == ("Bearer token-1", "Bearer token-2")
    assert refresh.count == 2


async def test_guarantee_6_a_place_that_refuses_fresh_tokens_starts_no_refresh_for_1_2_4_seconds_up_to_15_minutes(
    bench: Bench, refresh: Refresh, clock: ManualClock
):
    refresh.lifetime = None
    auth = bench.reauth(token=Token("a"))
    await bench.refused(auth, replay=401)
    expected = 1
    for seconds in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 900.0, 900.0):
        assert (await bench.refused(auth))[1] is None
        clock.advance(seconds - 0.001)
        assert (await bench.refused(auth))[1] is None
        assert refresh.count == expected
        clock.advance(0.001)
        expected += 1
        assert await bench.refused(auth, replay=401) == (f"Bearer token-{expected - 1}", f"Bearer token-{expected}")


@pytest.mark.parametrize("url", [URL + "/photo", "https://api.test:8443/me", "https://other.test/me"])
async def test_guarantee_6_a_place_is_an_origin_and_a_path_and_others_go_on_as_before(
    bench: Bench, refresh: Refresh, url: str
):
    auth = bench.reauth(token=Token("a"))
    await bench.refused(auth, replay=401)
    assert (await bench.refused(auth, url=URL + "?page=2"))[1] is None  # the query is no part of the place
    assert await bench.refused(auth, url=url) == ("Bearer token-1", "Bearer token-2")
    assert (await bench.refused(auth))[1] is None
    assert refresh.count == 2


async def test_guarantee_6_after_three_places_in_a_row_no_401_from_anywhere_starts_a_refresh_for_1_2_4_seconds(
    bench: Bench, refresh: Refresh, clock: ManualClock
):
    refresh.lifetime = None
    auth = bench.reauth(token=Token("a"))
    for number in range(3):
        assert (await bench.refused(auth, replay=401, url=f"{URL}/{number}"))[1] is not None
    expected = 3
    for seconds in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        clock.advance(seconds - 0.001)
        assert (await bench.refused(auth, url=f"{URL}/new"))[1] is None
        clock.advance(0.001)
        expected += 1
        assert (await bench.refused(auth, replay=401, url=f"{URL}/{expected}"))[1] is not None
        assert refresh.count == expected
    clock.advance(60.0)
    await bench.refused(auth, replay=200, url=f"{URL}/new")  # this ends the row of refusals
    for number in range(3):
        assert (await bench.refused(auth, replay=401, url=f"{URL}/again/{number}"))[1] is not None


@pytest.mark.parametrize("failures", [0, 5])
async def test_guarantee_6_a_replay_that_gets_no_answer_says_nothing_about_its_place(
    bench: Bench, refresh: Refresh, clock: ManualClock, failures: int
):
    refresh.lifetime = None
    auth = bench.reauth(token=Token("a"))
    for _ in range(failures):
        await bench.refused(auth, replay=401)
        clock.advance(2**failures)
    unanswered = bench.exchange(auth)
    sent = await unanswered.begin()
    assert await unanswered.answer(bench.response(401, sent)) is not None
    assert (await bench.refused(auth))[1] is None  # the answer to the other request's replay has not come yet
    await unanswered.close()  # a client does this when it fails or is cancelled
    assert (await bench.refused(auth, replay=401))[1] is not None
    assert refresh.count == failures + 2
    clock.advance(2**failures - 0.001)
    assert (await bench.refused(auth))[1] is None  # the refusals before it still count
    clock.advance(0.001)
    assert (await bench.refused(auth))[1] is not None


async def test_guarantee_6_a_replay_whose_answer_cannot_be_judged_says_nothing_about_its_place(
    bench: Bench, refresh: Refresh
):
    def is_rejected(response: Any) -> bool:
        return bool({401: True, 200: False}[response.status_code])

    auth = bench.reauth(token=Token("a"), is_rejected=is_rejected)
    with pytest.raises(KeyError):
        await bench.refused(auth, replay=503)
    assert (await bench.refused(auth))[1] is not None
    assert refresh.count == 2


async def test_guarantee_6_an_accepted_replay_ends_the_row(bench: Bench, refresh: Refresh, clock: ManualClock):
    auth = bench.reauth(token=Token("a"))
    for seconds in (1.0, 2.0, 4.0):
        await bench.refused(auth, replay=401)
        clock.advance(seconds)
    await bench.refused(auth, replay=200)
    await bench.refused(auth, replay=401)
    clock.advance(1.0)
    count = refresh.count
    assert (await bench.refused(auth))[1] is not None
    assert refresh.count == count + 1


async def test_the_refused_response_is_read_so_that_its_connection_is_free(bench: Bench):
    auth = bench.reauth(token=Token("a"))
    exchange = bench.exchange(auth)
    sent = await exchange.begin()
    refusal = bench.response(401, sent, content=bench.body(b"no", b"pe"))
    assert await exchange.answer(refusal) is not None
    assert refusal.is_stream_consumed
    assert refusal.content == b"nope"


async def test_a_response_that_is_not_refused_stays_unread(bench: Bench):
    auth = bench.reauth(token=Token("a"))
    for status in (200, 401):  # in the second round, the response answers a replay
        exchange = bench.exchange(auth)
        sent = await exchange.begin()
        if status == 401:
            sent = await exchange.answer(bench.response(401, sent))
        response = bench.response(200, sent, content=bench.body(b"long"))
        assert await exchange.answer(response) is None
        assert not response.is_stream_consumed


@pytest.mark.parametrize("is_warm", [False, True])
async def test_a_401_that_cannot_be_read_renews_the_token_for_the_next_request_and_frees_its_connection(
    bench: Bench, refresh: Refresh, *, is_warm: bool
):
    auth = bench.reauth(token=Token("a"))
    if is_warm:
        await bench.ok(auth)
    exchange = bench.exchange(auth)
    sent = await exchange.begin()
    refusal = bench.response(401, sent, content=bench.body(b"no", cut_off=True))
    with pytest.raises(bench.package.RemoteProtocolError, match="peer closed"):
        await exchange.answer(refusal)
    assert refusal.is_closed
    assert refresh.count == 1
    assert await bench.ok(auth) == "Bearer token-1"


async def test_a_body_that_cannot_be_read_is_an_error_before_anything_is_sent_or_asked(bench: Bench, refresh: Refresh):
    auth = bench.reauth(buffer_request_body=True)
    exchange = bench.exchange(auth, bench.request(content=bench.body(b"half", cut_off=True)))
    with pytest.raises(bench.package.RemoteProtocolError, match="peer closed"):
        await exchange.begin()
    assert refresh.count == 0


@pytest.mark.parametrize("lifetime", [0.0, -1.0, -1e300])
async def test_guarantee_6_tokens_that_have_ended_when_they_come_and_are_refused_are_not_asked_for_at_every_request(
    bench: Bench, refresh: Refresh, clock: ManualClock, lifetime: float
):
    refresh.lifetime = lifetime
    auth = bench.reauth(token=Token("a"))
    await bench.refused(auth, replay=401)
    for seconds in (1.0, 2.0, 4.0):
        before = refresh.count
        for _ in range(10):
            await bench.refused(auth, replay=401)
        assert refresh.count <= before + 2  # after two such tokens in a row, the last one is used until a 401
        clock.advance(seconds)


async def test_what_authorize_adds_to_a_url_is_replaced_at_the_replay(bench: Bench, refresh: Refresh):
    def authorize(request: Any, token: Token) -> None:
        request.url = request.url.copy_add_param("access_token", token.access_token)

    auth = bench.reauth(token=Token("a"), authorize=authorize)
    exchange = bench.exchange(auth, bench.request(f"{URL}?page=2"))
    sent = await exchange.begin()
    assert str(sent.url) == f"{URL}?page=2&access_token=a"
    again = await exchange.answer(bench.response(401, sent))
    assert str(again.url) == f"{URL}?page=2&access_token=token-1"


# Bodies that can be sent only once.


async def test_guarantee_5_a_body_that_can_be_sent_only_once_is_not_sent_again_but_the_token_is_renewed(
    bench: Bench, refresh: Refresh
):
    auth = bench.reauth(token=Token("a"))
    exchange = bench.exchange(auth, bench.request(content=bench.body(b"once")))
    sent = await exchange.begin()
    assert await exchange.answer(bench.response(401, sent)) is None
    assert refresh.count == 1
    assert await bench.ok(auth) == "Bearer token-1"


async def test_a_late_401_to_a_body_that_can_be_sent_only_once_is_returned_immediately(bench: Bench, refresh: Refresh):
    auth = bench.reauth(token=Token("a"))
    exchange = bench.exchange(auth, bench.request(content=bench.body(b"once")))
    sent = await exchange.begin()
    auth.sign_in(Token("b"))
    refusal = bench.response(401, sent, content=bench.body(b"no"))
    assert await exchange.answer(refusal) is None
    assert not refusal.is_stream_consumed
    assert refresh.count == 0


async def test_a_body_is_read_beforehand_if_the_user_wants_that(bench: Bench):
    auth = bench.reauth(token=Token("a"), buffer_request_body=True)
    exchange = bench.exchange(auth, bench.request(content=bench.body(b"on", b"ce")))
    sent = await exchange.begin()
    assert sent.content == b"once"
    again = await exchange.answer(bench.response(401, sent))
    assert again.content == b"once"
    assert again.headers["Authorization"] == "Bearer token-1"


# Failures.


async def test_guarantee_13_a_request_that_needs_a_token_is_not_sent_without_one(bench: Bench, refresh: Refresh):
    for answer in (RefreshError("down"), ValueError("x"), Token(), Token(refresh_token="r"), None, "token"):
        refresh.answers = [answer]
        exchange = bench.exchange(bench.reauth())
        with pytest.raises(RefreshError) as caught:
            await exchange.begin()
        assert isinstance(caught.value, bench.package.TransportError)
        assert caught.value.request is exchange.request
        assert "Authorization" not in exchange.request.headers


async def test_guarantee_13_a_request_is_not_sent_without_a_token_if_only_a_sign_in_helps(
    bench: Bench, refresh: Refresh
):
    refresh.answers = [SignInRequired("dead")]
    auth = bench.reauth()
    for _ in range(3):
        with pytest.raises(SignInRequired) as caught:
            await bench.exchange(auth).begin()
        assert not isinstance(caught.value, bench.package.HTTPError)
    assert refresh.count == 1
    auth.sign_in(Token("b"))
    assert await bench.ok(auth) == "Bearer b"


async def test_guarantee_5_a_401_whose_refresh_fails_raises_that_failure(bench: Bench, refresh: Refresh):
    cause = ValueError("s3cret")
    refresh.answers = [cause]
    auth = bench.reauth(token=Token("a"))
    exchange = bench.exchange(auth)
    sent = await exchange.begin()
    with pytest.raises(RefreshError, match="The refresh raised ValueError") as caught:
        await exchange.answer(bench.response(401, sent))
    assert isinstance(caught.value, bench.package.TransportError)
    assert caught.value.__cause__ is cause
    assert "s3cret" not in str(caught.value)


async def test_guarantee_6_further_requests_fail_immediately_until_the_back_off_has_passed(
    bench: Bench, refresh: Refresh, clock: ManualClock
):
    refresh.answers = [RefreshError("down", retry_after=10.0)]
    auth = bench.reauth()
    seen: list[ReauthError] = []
    for passed in (0.0, 4.0, 5.5):
        clock.advance(passed)
        with pytest.raises(RefreshError) as caught:
            await bench.exchange(auth).begin()
        seen.append(caught.value)
    assert refresh.count == 1
    assert [error.retry_after for error in seen] == [10.0, 6.0, 0.5]
    assert len({id(error) for error in seen}) == 3
    clock.advance(0.5)
    assert await bench.ok(auth) == "Bearer token-2"


async def test_guarantee_10_a_users_error_without_the_usual_attributes_is_the_failure_of_all(
    bench: Bench, refresh: Refresh
):
    class Careless(RefreshError):
        def __init__(self, code: int) -> None:
            self.code = code

    refresh.answers = [Careless(7)]
    auth = bench.reauth()
    for _ in range(2):
        with pytest.raises(Careless) as caught:
            await bench.exchange(auth).begin()
        assert type(caught.value) is Careless
        assert caught.value.code == 7
        assert caught.value.retry_after is not None
    assert refresh.count == 1


# The token's age.


async def test_guarantee_7_a_token_close_to_its_end_is_renewed_while_the_request_goes_on_with_it(
    bench: Bench, refresh: Refresh, clock: ManualClock
):
    auth = bench.reauth(token=Token("a", expires_in=3600))
    clock.advance(3500.0)
    assert await bench.ok(auth) == "Bearer a"
    assert refresh.count == 0
    clock.advance(50.0)
    assert await bench.ok(auth) == "Bearer a"
    await auth.aclose()
    assert refresh.count == 1
    assert await bench.ok(auth) == "Bearer token-1"


async def test_guarantee_7_if_the_background_refresh_fails_requests_go_on_with_the_token_to_its_very_end(
    bench: Bench, refresh: Refresh, clock: ManualClock
):
    refresh.answers = [RefreshError("down", retry_after=80.0)]
    auth = bench.reauth(token=Token("a", expires_in=3600))
    clock.advance(3550.0)
    assert await bench.ok(auth) == "Bearer a"
    await auth.aclose()
    clock.advance(49.999)
    assert [await bench.ok(auth) for _ in range(3)] == ["Bearer a"] * 3
    assert refresh.count == 1
    clock.advance(0.001)
    with pytest.raises(RefreshError):
        await bench.exchange(auth).begin()
    assert refresh.count == 1


async def test_a_token_that_is_gone_makes_the_request_wait(bench: Bench, refresh: Refresh, clock: ManualClock):
    auth = bench.reauth(token=Token("a", expires_in=3600))
    assert await bench.ok(auth) == "Bearer a"
    clock.advance(3595.0)
    assert await bench.ok(auth) == "Bearer token-1"
    assert refresh.count == 1


@pytest.mark.parametrize("lifetime", [0, -5, 0.001])
async def test_guarantee_8_whoever_waited_uses_what_the_flight_brought_whatever_its_lifetime(
    bench: Bench, refresh: Refresh, lifetime: float
):
    refresh.lifetime = lifetime
    auth = bench.reauth()
    assert await bench.ok(auth) == "Bearer token-1"


async def test_guarantee_8_a_token_of_20_seconds_is_not_renewed_at_every_request(
    bench: Bench, refresh: Refresh, clock: ManualClock
):
    refresh.lifetime = 20.0
    auth = bench.reauth()
    for _ in range(14):
        assert await bench.ok(auth) == "Bearer token-1"
        clock.advance(1.0)
    assert refresh.count == 1


@pytest.mark.parametrize("hour", [3600.0, -3600.0])
async def test_guarantee_12_a_wall_clock_that_jumps_an_hour_causes_no_error_and_no_extra_refresh(
    bench: Bench, refresh: Refresh, clock: ManualClock, hour: float
):
    refresh.lifetime = 600.0
    auth = bench.reauth()
    assert await bench.ok(auth) == "Bearer token-1"
    clock.jump(hour)
    clock.advance(300.0)
    assert await bench.ok(auth) == "Bearer token-1"
    assert refresh.count == 1
    clock.advance(300.0)
    assert await bench.ok(auth) == "Bearer token-2"


# Origins.


async def test_guarantee_9_a_request_to_an_origin_that_is_not_listed_goes_as_it_is(
    bench: Bench, refresh: Refresh, caplog: pytest.LogCaptureFixture
):
    auth = bench.reauth(origins=["https://api.test"])
    for _ in range(3):
        request = bench.request("https://other.test/")
        exchange = bench.exchange(auth, request)
        sent = await exchange.begin()
        assert sent is request
        assert "Authorization" not in sent.headers
        assert await exchange.answer(bench.response(401, sent)) is None
    assert refresh.count == 0
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert await bench.ok(auth) == "Bearer token-1"


async def test_guarantee_9_plain_http_to_another_machine_is_refused_before_anything_is_asked(
    bench: Bench, refresh: Refresh
):
    exchange = bench.exchange(bench.reauth(), bench.request("http://api.test/"))
    with pytest.raises(InsecureOrigin, match="origins="):
        await exchange.begin()
    assert refresh.count == 0


@pytest.mark.parametrize("url", ["http://localhost/", "http://127.0.0.1:8000/", "http://[::1]:8000/"])
async def test_loopback_may_be_plain(bench: Bench, url: str):
    assert await bench.ok(bench.reauth(), bench.request(url)) == "Bearer token-1"


async def test_guarantee_9_a_401_from_another_origin_after_a_redirect_causes_nothing(bench: Bench, refresh: Refresh):
    auth = bench.reauth(token=Token("a"))
    for _ in range(2):
        exchange = bench.exchange(auth)
        sent = await exchange.begin()
        elsewhere = bench.request("https://evil.test/", headers=dict(sent.headers))
        assert await exchange.answer(bench.response(401, elsewhere)) is None
    assert refresh.count == 0


async def test_guarantee_9_a_401_for_a_request_that_did_not_carry_our_token_causes_nothing(
    bench: Bench, refresh: Refresh
):
    auth = bench.reauth(token=Token("a"))
    exchange = bench.exchange(auth)
    await exchange.begin()
    assert await exchange.answer(bench.response(401, bench.request("https://api.test/other"))) is None
    assert refresh.count == 0


async def test_after_a_redirect_it_is_the_last_request_that_is_sent_again(bench: Bench, refresh: Refresh):
    auth = bench.reauth(token=Token("a"))
    exchange = bench.exchange(auth)
    sent = await exchange.begin()
    moved = bench.package.Request("GET", "https://api.test/moved", headers=sent.headers)
    again = await exchange.answer(bench.response(401, moved))
    assert again is moved
    assert again.headers["Authorization"] == "Bearer token-1"
    assert refresh.count == 1


async def test_whoever_drives_the_flow_need_not_say_which_request_was_answered(bench: Bench):
    auth = bench.reauth(token=Token("a"))
    exchange = bench.exchange(auth)
    await exchange.begin()
    again = await exchange.answer(bench.package.Response(401))
    assert again is exchange.request
    assert again.headers["Authorization"] == "Bearer token-1"


# The user's callbacks.


async def test_authorize_puts_the_token_where_the_user_wants_it(bench: Bench):
    def authorize(request: Any, token: Token) -> None:
        request.headers["X-Api-Key"] = token.access_token

    auth = bench.reauth(token=Token("a"), authorize=authorize)
    exchange = bench.exchange(auth)
    sent = await exchange.begin()
    assert sent.headers["X-Api-Key"] == "a"
    assert "Authorization" not in sent.headers
    again = await exchange.answer(bench.response(401, sent))
    assert again.headers.get_list("X-Api-Key") == ["token-1"]


async def test_what_authorize_appends_is_appended_once(bench: Bench):
    def authorize(request: Any, token: Token) -> None:
        request.headers["Cookie"] = f"{request.headers['Cookie']}; session={token.access_token}"

    auth = bench.reauth(token=Token("a"), authorize=authorize)
    exchange = bench.exchange(auth, bench.request(headers={"Cookie": "theme=dark"}))
    sent = await exchange.begin()
    assert sent.headers["Cookie"] == "theme=dark; session=a"
    again = await exchange.answer(bench.response(401, sent))
    assert again.headers["Cookie"] == "theme=dark; session=token-1"


async def test_is_rejected_replaces_the_question_whether_it_is_a_401(bench: Bench, refresh: Refresh):
    auth = bench.reauth(token=Token("a"), is_rejected=lambda response: response.status_code == 403)
    exchange = bench.exchange(auth)
    assert await exchange.answer(bench.response(401, await exchange.begin())) is None
    assert refresh.count == 0
    exchange = bench.exchange(auth)
    again = await exchange.answer(bench.response(403, await exchange.begin()))
    assert again.headers["Authorization"] == "Bearer token-1"


async def test_a_subclass_may_judge_by_the_body(bench: Bench, refresh: Refresh):
    class ByBody(bench.library.Reauth):  # type: ignore[name-defined,misc]
        requires_response_body = True

    auth = bench.reauth(ByBody, token=Token("a"), is_rejected=lambda response: b"expired" in response.content)
    exchange = bench.exchange(auth)
    sent = await exchange.begin()
    again = await exchange.answer(bench.response(200, sent, content=bench.body(b"token ", b"expired")))
    assert again.headers["Authorization"] == "Bearer token-1"
    assert await exchange.answer(bench.response(200, again, content=bench.body(b"welcome"))) is None
    assert refresh.count == 1


# Several flows at the same time.


async def test_guarantee_1_flows_that_begin_while_a_refresh_is_under_way_wait_for_it(bench: Bench, refresh: Refresh):
    auth = bench.reauth()
    headers: list[str] = []

    async def one() -> None:
        headers.append(await bench.ok(auth))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(one)
    assert headers == ["Bearer token-1"] * 10
    assert refresh.count == 1


async def test_several_auth_objects_on_one_store_back_off_together(bench: Bench, refresh: Refresh):
    store = TokenStore()
    one, other = bench.reauth(store=store), bench.reauth(store=store)
    refresh.answers = [RefreshError("down")]
    for auth in (one, other, one):
        with pytest.raises(RefreshError):
            await bench.exchange(auth).begin()
    assert refresh.count == 1
    assert isinstance(store.state, AuthState)
    assert store.state.status == "rejected"


@pytest.mark.parametrize("settings", [{}, {"origins": ["https://api.test"]}])
async def test_guarantee_11_an_auth_object_shows_no_secret(bench: Bench, settings: dict[str, Any]):
    auth = bench.reauth(token=Token("s3cret", refresh_token="s3cret"), **settings)
    await bench.ok(auth)
    assert "s3cret" not in repr(auth)
