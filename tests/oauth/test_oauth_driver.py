"""Tests of the driver of grants: what it sends again, for how long, and what its errors say.

The test moves the time.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Generator
from dataclasses import replace
from email.utils import formatdate

import httpcore
import httpx
import pytest
import respx

from httpx_reauth._errors import InsecureOrigin, RefreshError, SignInRequired
from httpx_reauth._token import Token
from httpx_reauth.oauth import ClientCredentialsGrant, Grant, RefreshTokenGrant, TokenRequest
from httpx_reauth.oauth import driver as _driver
from httpx_reauth.oauth import http as _post
from httpx_reauth.testing import ManualClock

URL = "https://id.example.com/token"
OLD = Token("old-access-token", refresh_token="old-refresh-token")
FRESH = httpx.Response(200, json={"access_token": "fresh", "expires_in": 60})

REPEATABLE = ClientCredentialsGrant(URL, "me", "client-secret")
ONCE = RefreshTokenGrant(URL, "me", "client-secret")
each_grant = pytest.mark.parametrize("grant", [REPEATABLE, ONCE], ids=["client_credentials", "refresh_token"])

NEVER_SENT = [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError]
UNKNOWN = [httpx.ReadTimeout, httpx.WriteTimeout, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError]
HOPELESS = [httpx.UnsupportedProtocol, httpx.LocalProtocolError]


class Endpoint:
    """A token endpoint that says what a test told it, and the time that the driver thinks it is."""

    def __init__(self, route: respx.Route) -> None:
        self.route = route
        self.clock = ManualClock()
        self.pauses: list[float] = []
        self.jitter = 0.0

    @property
    def calls(self) -> int:
        return self.route.call_count

    def says(self, *outcomes: httpx.Response | type[Exception] | Exception) -> None:
        self.route.side_effect = outcomes

    def ask(self, grant: Grant, token: Token = OLD) -> Token:
        return _driver.run(grant, token, clock=self.clock, sleep=self._sleep, jitter=lambda: self.jitter)

    def fails(self, grant: Grant, token: Token = OLD) -> RefreshError:
        with pytest.raises(RefreshError) as failure:
            self.ask(grant, token)
        return failure.value

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)


@pytest.fixture
def endpoint(respx_mock: respx.MockRouter) -> Endpoint:
    return Endpoint(respx_mock.post(URL))


def failing(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"error": "busy"}, headers=headers)


# --- one request, one answer ---


@each_grant
def test_grant_is_a_function_from_token_to_token(grant, endpoint):
    endpoint.says(FRESH)
    assert grant(OLD) == Token("fresh", expires_in=60)
    assert endpoint.calls == 1
    sent = endpoint.route.calls.last.request
    assert sent.headers["accept"] == "application/json"
    assert sent.headers["authorization"] == httpx.BasicAuth("me", "client-secret")._auth_header


def test_no_refresh_token_means_no_request(endpoint):
    with pytest.raises(SignInRequired):
        endpoint.ask(ONCE, Token())
    assert endpoint.calls == 0


def test_flow_may_ask_for_several_things(endpoint):
    class TwoSteps(Grant):
        def flow(self, token: Token, /) -> Generator[TokenRequest, httpx.Response, Token]:
            first = yield TokenRequest(URL, {"step": "1"})
            second = yield TokenRequest(URL, {"step": "2", "seen": first.json()["access_token"]})
            return Token.from_response(second)

    endpoint.says(FRESH, FRESH)
    assert endpoint.ask(TwoSteps()) == Token("fresh", expires_in=60)
    assert endpoint.route.calls.last.request.content == b"step=2&seen=fresh"


def test_guarantee_9_flow_cannot_send_secrets_over_plain_http(endpoint):
    class Careless(Grant):
        def flow(self, token: Token, /) -> Generator[TokenRequest, httpx.Response, Token]:
            yield TokenRequest("http://id.example.com/token", {})
            raise AssertionError

    with pytest.raises(InsecureOrigin):
        endpoint.ask(Careless())
    assert endpoint.calls == 0


@each_grant
def test_guarantee_9_redirect_is_not_followed(grant, endpoint, respx_mock):
    elsewhere = respx_mock.post("https://elsewhere.example.com/token").respond(json={"access_token": "stolen"})
    elsewhere.side_effect = None
    respx_mock._assert_all_called = False
    endpoint.says(httpx.Response(307, headers={"location": "https://elsewhere.example.com/token"}))
    assert "never followed" in str(endpoint.fails(grant))
    assert (endpoint.calls, elsewhere.call_count) == (1, 0)


# --- what is sent again ---


@each_grant
@pytest.mark.parametrize("error", NEVER_SENT)
def test_what_was_never_sent_is_sent_again(grant, error, endpoint):
    endpoint.says(error, error, FRESH)
    assert endpoint.ask(grant).access_token == "fresh"
    assert endpoint.calls == 3


@each_grant
@pytest.mark.parametrize("answer", [(429, {"Retry-After": "0"}), (503, {})], ids=["429", "503"])
def test_what_was_turned_away_is_sent_again(grant, answer, endpoint):
    status, headers = answer
    endpoint.says(failing(status, **headers), failing(status, **headers), FRESH)
    assert endpoint.ask(grant).access_token == "fresh"
    assert endpoint.pauses == [0.2, 0.4]


@each_grant
def test_server_that_counts_and_does_not_say_until_when_is_not_asked_again(grant, endpoint):
    endpoint.says(failing(429), FRESH)
    assert endpoint.fails(grant).status_code == 429
    assert (endpoint.calls, endpoint.pauses) == (1, [])


@each_grant
def test_a_429_that_says_when_its_rate_limit_ends_is_sent_again_then(grant, endpoint):
    endpoint.says(failing(429, **{"X-RateLimit-Reset": "3"}), FRESH)
    assert endpoint.ask(grant).access_token == "fresh"
    assert endpoint.pauses == [3.2]


@pytest.mark.parametrize("outcome", [*UNKNOWN, *(failing(status) for status in (408, 425, 500, 502, 504, 599))])
def test_what_may_have_been_processed_is_sent_again_only_if_that_does_no_harm(outcome, endpoint):
    endpoint.says(outcome, FRESH)
    assert endpoint.ask(REPEATABLE).access_token == "fresh"
    endpoint.says(outcome, FRESH)
    endpoint.fails(ONCE)
    assert endpoint.calls == 2 + 1


@each_grant
@pytest.mark.parametrize("outcome", [*HOPELESS, *(failing(status) for status in (400, 401, 403, 404, 302))])
def test_what_cannot_get_better_is_not_sent_again(grant, outcome, endpoint):
    endpoint.says(outcome)
    endpoint.fails(grant)
    assert endpoint.calls == 1


@pytest.mark.parametrize("status", [408, 425, 429])
def test_guarantee_6_a_status_that_says_later_is_not_final_whatever_the_code(status, endpoint):
    endpoint.says(httpx.Response(status, json={"error": "invalid_grant"}))
    assert endpoint.fails(ONCE).error == "invalid_grant"
    assert endpoint.calls == 1


@pytest.mark.parametrize("status", [400, 401, 429, 200])
@pytest.mark.parametrize("token", [OLD, Token()], ids=["with a refresh token", "without"])
def test_guarantee_6_invalid_grant_to_a_request_that_spent_nothing_may_pass(status, token, endpoint):
    endpoint.says(httpx.Response(status, json={"error": "invalid_grant", "error_description": "clock"}))
    failure = endpoint.fails(REPEATABLE, token)
    assert (failure.error, failure.error_description) == ("invalid_grant", "clock")
    assert "Sign in" not in str(failure)


def own_grant(*requests: TokenRequest, error: Exception | None = None) -> Grant:
    """A grant of a user's own, which asks for several things; the last answer is the token's, unless it raises."""

    class Own(Grant):
        def flow(self, token: Token, /) -> Generator[TokenRequest, httpx.Response, Token]:
            for request in requests:
                response = yield request
            if error is not None:
                raise error
            return Token.from_response(response)

    return Own()


@pytest.mark.parametrize(
    ("request_", "is_final"),
    [
        (TokenRequest(URL, {"grant_type": "authorization_code", "code": "c"}), True),
        (TokenRequest(URL, {"refresh_token": "r"}), True),
        (TokenRequest(URL, {"ticket": "t"}, spends="ticket"), True),
        (TokenRequest(URL, {"refresh_token": "r"}, spends=None), False),
        (TokenRequest(URL, {"assertion": "a"}), False),
    ],
)
def test_guarantee_6_what_a_request_spends_decides_what_invalid_grant_and_a_lost_answer_mean(
    request_, is_final, endpoint
):
    grant = own_grant(request_)
    endpoint.says(httpx.Response(400, json={"error": "invalid_grant"}))
    with pytest.raises(SignInRequired if is_final else RefreshError):
        endpoint.ask(grant)
    endpoint.says(httpx.ReadError, FRESH)
    if is_final:
        assert "outcome is unknown" in str(endpoint.fails(grant))
    else:
        assert endpoint.ask(grant).access_token == "fresh"


def test_of_several_requests_the_last_decides(endpoint):
    code, exchange = TokenRequest(URL, {"code": "c"}), TokenRequest(URL, {"subject_token": "s"})
    endpoint.says(FRESH, httpx.Response(400, json={"error": "invalid_grant"}))
    assert endpoint.fails(own_grant(code, exchange)).error == "invalid_grant"
    endpoint.says(FRESH, httpx.Response(400, json={"error": "invalid_grant"}))
    with pytest.raises(SignInRequired):
        endpoint.ask(own_grant(exchange, code))


def test_flow_that_wants_a_sign_in_by_itself_gets_it(endpoint):
    endpoint.says(FRESH)
    with pytest.raises(SignInRequired, match="by hand"):
        endpoint.ask(own_grant(TokenRequest(URL, {}), error=SignInRequired("by hand")))


@each_grant
def test_three_attempts_are_the_most(grant, endpoint):
    endpoint.says(*[failing(503)] * 4)
    assert endpoint.fails(grant).status_code == 503
    assert endpoint.calls == 3


# --- how long it waits in between ---


@each_grant
def test_pause_is_shortened_by_up_to_a_half(grant, endpoint):
    endpoint.jitter = 1.0
    endpoint.says(failing(503), failing(503), FRESH)
    endpoint.ask(grant)
    assert endpoint.pauses == [0.1, 0.2]


@each_grant
def test_guarantee_6_retry_after_in_seconds_is_waited_for(grant, endpoint):
    endpoint.says(failing(429, **{"Retry-After": "3"}), FRESH)
    assert endpoint.ask(grant).access_token == "fresh"
    assert endpoint.pauses == [3.2]


@each_grant
def test_guarantee_6_retry_after_as_a_date_is_waited_for(grant, endpoint):
    endpoint.says(failing(429, **{"Retry-After": formatdate(endpoint.clock.time() + 3, usegmt=True)}), FRESH)
    assert endpoint.ask(grant).access_token == "fresh"
    assert endpoint.pauses == [3.2]


@each_grant
@pytest.mark.parametrize("spelling", ["seconds", "date"])
def test_guarantee_6_pause_that_does_not_fit_is_handed_on_at_once(grant, spelling, endpoint):
    date = formatdate(endpoint.clock.time() + 30, usegmt=True)
    endpoint.says(failing(429, **{"Retry-After": "30" if spelling == "seconds" else date}))
    failure = endpoint.fails(grant)
    assert (failure.retry_after, failure.status_code) == (30, 429)
    assert (endpoint.calls, endpoint.pauses) == (1, [])


@pytest.mark.parametrize(("retry_after", "attempts"), [("7.3", 2), ("7.31", 1)])
def test_pause_fits_if_half_a_timeout_is_left_after_it(retry_after, attempts, endpoint):
    # timeout 5: ten seconds for everything, 0.2 for the pause of one's own, so 7.3 leaves the 2.5 that are worth while.
    endpoint.says(failing(503, **{"Retry-After": retry_after}), failing(400))
    endpoint.fails(ONCE)
    assert endpoint.calls == attempts


def test_guarantee_10_all_attempts_together_end_within_twice_the_timeout(endpoint):
    given: list[float] = []

    def hang(request: httpx.Request) -> httpx.Response:
        given.append(request.extensions["timeout"]["read"])
        endpoint.clock.advance(given[-1])
        raise httpx.ReadTimeout("")

    endpoint.route.side_effect = hang
    endpoint.fails(REPEATABLE)
    assert given == [5.0, pytest.approx(4.8)]
    assert endpoint.clock.elapsed() == pytest.approx(10.0)


# --- what a failure says ---


@each_grant
@pytest.mark.parametrize("error", [*NEVER_SENT, *HOPELESS])
def test_guarantee_2_error_says_that_nothing_was_sent(grant, error, endpoint):
    endpoint.says(*[error("no way")] * 3)
    failure = endpoint.fails(grant)
    assert "never went out to https://id.example.com" in str(failure)
    assert f"({error.__name__}: no way)" in str(failure)
    assert type(failure.__cause__) is error


@pytest.mark.parametrize("error", UNKNOWN)
def test_guarantee_2_error_says_that_the_outcome_is_unknown(error, endpoint):
    endpoint.says(error(""))
    failure = endpoint.fails(ONCE)
    assert "outcome is unknown" in str(failure)
    assert f"({error.__name__})" in str(failure)
    assert type(failure.__cause__) is error
    endpoint.says(*[error] * 3)
    assert "unknown" not in str(endpoint.fails(REPEATABLE))


def test_guarantee_11_cause_does_not_carry_the_request_with_the_secrets(endpoint):
    grant = replace(ONCE, token_url=URL + "?key=secret-key")
    endpoint.says(httpx.ReadTimeout)
    request = endpoint.fails(grant).__cause__.request
    assert (str(request.url), request.content) == (URL + "?***", b"")
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    "echo",
    [
        "client-secret/%&",
        "client-secret%2F%25%26",
        "old-refresh-token",
        "old-access-token",
        "bWU6Y2xpZW50LXNlY3JldCUyRiUyNSUyNg==",
    ],
)
@pytest.mark.parametrize("code", ["invalid_client", "invalid_grant"])
def test_guarantee_11_what_a_server_echoes_is_hidden(echo, code, endpoint):
    grant = replace(ONCE, client_secret="client-secret/%&")
    endpoint.says(*[httpx.Response(400, json={"error": code, "error_description": f"got {echo}!"})] * 2)
    with pytest.raises((RefreshError, SignInRequired)) as failure:
        endpoint.ask(grant)
    assert echo not in repr(failure.value)
    assert failure.value.error_description == "got ***!"


def test_guarantee_11_secret_that_is_part_of_another_does_not_uncover_it(endpoint):
    grant = RefreshTokenGrant(URL, "me", "abc")
    endpoint.says(httpx.Response(400, json={"error": "x", "error_description": "abc and abcdef"}))
    assert endpoint.fails(grant, Token(refresh_token="abcdef")).error_description == "*** and ***"


# --- the client that posts ---


def client_of(handler, **settings) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(handler), **settings)


def test_clients_own_client_is_used_and_not_closed():
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return FRESH

    with client_of(
        handler,
        headers={"x-gateway": "key", "authorization": "Bearer api"},
        auth=("other", "other"),
        follow_redirects=True,
        base_url="https://api.example.com/v1/",
        timeout=99,
    ) as client:
        assert replace(REPEATABLE, client=client)(OLD).access_token == "fresh"
        assert RefreshTokenGrant(URL, "app", client=client, timeout=2)(OLD).access_token == "fresh"
        assert not client.is_closed
    basic, public = seen
    assert str(basic.url) == URL
    assert basic.headers["x-gateway"] == "key"
    assert basic.headers["authorization"] == httpx.BasicAuth("me", "client-secret")._auth_header
    assert "authorization" not in public.headers
    timeouts = dict(public.extensions["timeout"])
    assert timeouts.pop("read") == 60  # it spends a refresh token, so its answer has time
    assert 0 < max(timeouts.values()) <= 2


def test_guarantee_9_clients_own_client_does_not_follow_redirects_either():
    hosts: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        return httpx.Response(307, headers={"location": "https://elsewhere.example.com/"})

    with client_of(handler, follow_redirects=True) as client, pytest.raises(RefreshError, match="never followed"):
        replace(ONCE, client=client)(OLD)
    assert hosts == ["id.example.com"]


@pytest.mark.parametrize(
    ("reads", "expected"), [(True, SignInRequired), (False, RefreshError)], ids=["reading", "not reading"]
)
def test_hook_that_raises_for_status_does_not_hide_the_answer(reads, expected):
    def hook(response: httpx.Response) -> None:
        if reads:
            response.read()
        response.raise_for_status()

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(400, content=iter([b'{"error": "invalid_grant"}']))

    with client_of(handler, event_hooks={"response": [hook]}) as client, pytest.raises(expected) as failure:
        replace(ONCE, client=client)(OLD)
    assert getattr(failure.value, "status_code", 400) == 400


def test_closed_client_is_an_error_of_its_own():
    client = httpx.Client()
    client.close()
    with pytest.raises(RuntimeError, match="has been closed"):
        replace(ONCE, client=client)(OLD)


# --- answers of all sizes ---


def answering(content, **headers: str):
    client = client_of(lambda request: httpx.Response(200, content=content, headers=headers))
    return replace(ONCE, client=client)


TOKEN = b'{"access_token": "fresh"}'
PACKED = gzip.compress(TOKEN)


@pytest.mark.parametrize(
    ("chunks", "encoding"),
    [
        ([TOKEN], "identity"),
        ([TOKEN[:9], TOKEN[9:]], " Identity "),
        ([TOKEN], ""),
        ([PACKED], "gzip"),
        ([PACKED[:9], PACKED[9:]], "x-gzip"),
        ([zlib.compress(TOKEN)], "deflate"),
        ([TOKEN], "UTF-8"),  # some servers name a charset there
        ([TOKEN], "none, utf8"),
        ([TOKEN[:9], TOKEN[9:]], "utf-8, identity"),
        ([TOKEN], "br"),
        ([PACKED], "gzip, UTF-8"),
        ([TOKEN], "gzip"),  # unpacked on its way
        ([TOKEN[:1], TOKEN[1:]], "deflate"),
    ],
)
def test_answer_is_read_however_it_comes(chunks, encoding):
    assert answering(iter(chunks), **{"content-encoding": encoding})(OLD).access_token == "fresh"


BROKEN = PACKED[:20] + b"\xff" * 20


@pytest.mark.parametrize(
    ("chunks", "encoding"),
    [
        ([b"no gzip"], "gzip"),
        ([b""], "br"),
        ([b""], "gzip, gzip"),
        ([BROKEN], "gzip"),
        ([gzip.compress(TOKEN * 9999)[:-200], b"\xff" * 200], "gzip"),
    ],
)
def test_answer_that_cannot_be_unpacked_is_an_error(chunks, encoding):
    with pytest.raises(RefreshError) as failure:
        answering(iter(chunks), **{"content-encoding": encoding})(OLD)
    assert failure.value.status_code == 200


def blank(size: int) -> bytes:
    return TOKEN.ljust(size)


LIMIT = _post.MAX_ANSWER


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (blank(LIMIT), {}),
        (iter([blank(LIMIT)]), {}),
        (iter([gzip.compress(blank(LIMIT))]), {"content-encoding": "gzip"}),
    ],
    ids=["read", "streamed", "packed"],
)
def test_guarantee_10_answer_of_exactly_the_limit_is_read(content, headers):
    assert answering(content, **headers)(OLD).access_token == "fresh"


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (blank(LIMIT + 1), {}),
        (iter([blank(LIMIT), b" "]), {}),
        (iter([gzip.compress(blank(LIMIT + 1))]), {"content-encoding": "gzip"}),
    ],
    ids=["read", "streamed", "packed"],
)
def test_guarantee_10_answer_beyond_the_limit_is_an_error(content, headers):
    with pytest.raises(RefreshError, match=re.escape(f"longer than {LIMIT} bytes")):
        answering(content, **headers)(OLD)


def test_guarantee_10_answer_that_does_not_end_is_given_up():
    clock = ManualClock()

    def dribble() -> Generator[bytes, None, None]:
        while True:
            clock.advance(1)
            yield b" "

    with pytest.raises(RefreshError, match="outcome is unknown") as failure:
        _driver.run(answering(dribble()), OLD, clock=clock, sleep=clock.advance)
    assert isinstance(failure.value.__cause__, httpx.ReadTimeout)
    assert clock.elapsed() == 6  # the chunk that came too late might have been the last


def steps_taken(grant, *steps: tuple[str, float]) -> list[dict[str, float]]:
    """The timeouts at the beginning and after each step, of a transport that tells of steps and their seconds."""
    clock, seen = ManualClock(), []

    def handler(request: httpx.Request) -> httpx.Response:
        timeouts, method = request.extensions["timeout"], request.method.encode()
        seen.append(dict(timeouts))
        for step, seconds in steps:
            clock.advance(seconds)
            verb, _, name = step.rpartition(" ")
            info = {"request": httpcore.Request(verb or method, URL)}
            request.extensions["trace"](f"{name}.started", info)
            seen.append(dict(timeouts))
        return FRESH

    with client_of(handler) as client:
        _driver.run(replace(grant, client=client), OLD, clock=clock)
    return seen


def all_of_them(seconds: float) -> dict[str, float]:
    return dict.fromkeys(("connect", "read", "write", "pool"), pytest.approx(seconds))


def test_guarantee_10_each_step_is_given_what_is_left_of_the_whole():
    steps = [("connection.connect_tcp", 2), ("http11.receive_response_headers", 2), ("http11.receive_response_body", 2)]
    least = 0.001  # 0 would mean "do not wait", negative is an error
    assert steps_taken(REPEATABLE, *steps) == [all_of_them(seconds) for seconds in (5, 3, 1, least)]


def test_guarantee_10_what_was_spent_is_waited_for_from_when_it_was_sent():
    steps = [
        ("connection.connect_tcp", 4),
        ("http11.receive_response_headers", 0.5),
        ("http11.receive_response_body", 9),
    ]
    first, connecting, sent, reading = steps_taken(ONCE, *steps)
    assert first == all_of_them(5) | {"read": 60}
    assert [connecting, sent, reading] == [all_of_them(1), all_of_them(60), all_of_them(51)]


def test_guarantee_10_what_goes_to_a_proxy_first_has_not_been_sent():
    steps = [
        ("connection.connect_tcp", 1),
        ("CONNECT http11.receive_response_headers", 1),
        ("http_proxy.start_tls", 1),
        ("http11.receive_response_headers", 1),
    ]
    timeouts = steps_taken(ONCE, *steps)[1:]
    assert timeouts == [all_of_them(seconds) for seconds in (4, 3, 2, 60)]
