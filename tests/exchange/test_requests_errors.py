"""Tests of the errors that a request raises: which `except` catches them, and what they say (guarantees 5, 6, 13)."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

import httpx_reauth
from httpx_reauth import InsecureOrigin, ReauthError, RefreshError, SignInRequired, Token
from httpx_reauth.testing import faults


def get(client):
    return client.get("/me")


def raised_by(talk, auth, call=get):
    with pytest.raises(ReauthError) as failure:
        talk(auth, call)
    return failure.value


def plain_raised_by(talk, auth):
    with pytest.raises(ReauthError) as failure:
        talk.token(auth)
    return failure.value


@pytest.fixture
def auth(talk, server):
    """Return an auth object that must refresh before its first request."""
    return talk.auth(server.issue(access_token=False))


# --- which `except` catches it ---


@pytest.mark.parametrize("name", ["TransportError", "RequestError", "HTTPError"])
def test_except_httpx_error_around_a_request_catches_a_refresh_error(talk, server, auth, name):
    server.token_endpoint.fail(faults.unavailable())
    with pytest.raises(getattr(talk.package, name)) as failure:
        talk(auth, lambda client: client.get("/me", params={"a": 1}))
    assert isinstance(failure.value, RefreshError)
    assert str(failure.value.request.url) == f"{talk.site.url}/me?a=1"
    assert type(failure.value.request) is talk.package.Request


def test_refresh_error_of_a_401_carries_the_request_too(talk, server):
    auth = talk.auth()
    server.revoke_access_tokens()
    server.token_endpoint.fail(faults.dropped())
    error = raised_by(talk, auth)
    assert isinstance(error, talk.package.TransportError)
    assert error.request.url.path == "/me"


def test_refresh_error_is_not_the_error_of_the_other_package(talk, server, auth):
    other = pytest.importorskip({"httpx": "httpx2", "httpx2": "httpx"}[talk.package.__name__])
    server.token_endpoint.fail(faults.unavailable())
    assert not isinstance(raised_by(talk, auth), other.HTTPError)


def test_refresh_error_is_no_timeout_and_no_status_error(talk, server, auth):
    server.token_endpoint.fail(faults.unavailable())
    error = raised_by(talk, auth)
    assert not isinstance(error, (talk.package.TimeoutException, talk.package.HTTPStatusError))


def test_sign_in_required_is_no_http_error(talk, server, auth):
    server.revoke_refresh_tokens()
    error = raised_by(talk, auth)
    assert type(error) is SignInRequired
    assert not isinstance(error, talk.package.HTTPError)


def test_insecure_origin_is_no_http_error(talk, auth):
    error = raised_by(talk, auth, lambda client: client.get("http://api.example.com/me"))
    assert type(error) is InsecureOrigin
    assert not isinstance(error, talk.package.HTTPError)


def test_get_token_raises_plain_errors(talk, server, auth):
    server.token_endpoint.fail(faults.unavailable())
    error = plain_raised_by(talk, auth)
    assert type(error) is RefreshError
    assert not isinstance(error, talk.package.HTTPError)
    assert not hasattr(error, "request")


def test_one_shared_failure_is_plain_for_get_token_and_an_http_error_for_a_request(talk, server, auth):
    server.token_endpoint.fail(faults.unavailable())
    plain = plain_raised_by(talk, auth)
    error = raised_by(talk, auth)  # this is the remembered failure
    assert isinstance(error, talk.package.TransportError)
    assert type(plain) is RefreshError
    assert str(plain) == str(error)
    assert plain.__cause__ is not None
    assert server.token_requests == 1


def test_store_keeps_the_plain_error(talk, server, auth):
    server.token_endpoint.fail(faults.unavailable())
    error = raised_by(talk, auth)
    assert type(auth.store.state.error) is RefreshError
    assert auth.store.state.error is not error


def test_class_of_an_error_out_of_a_request_reads_like_the_public_one(talk, server, auth):
    server.token_endpoint.fail(faults.unavailable())
    error = raised_by(talk, auth)
    assert (type(error).__name__, type(error).__module__) == ("RefreshError", "httpx_reauth")
    assert type(error) is type(raised_by(talk, auth))


def test_subclass_of_a_user_that_is_the_clients_error_is_caught_as_that_and_has_the_request(talk, server):
    class Busy(RefreshError, talk.package.TransportError):
        pass

    def refresh(token):
        raise Busy("Later.")

    with pytest.raises(talk.package.HTTPError) as failure:
        talk(talk.auth(server.issue(access_token=False), refresh), get)
    assert type(failure.value) is Busy
    assert failure.value.request.url.path == "/me"


def test_subclass_of_a_user_comes_through_with_its_attributes(talk, server):
    class QuotaError(RefreshError):
        def __init__(self, quota: int) -> None:
            super().__init__(f"The quota of {quota} is used up.", retry_after=7.0)
            self.quota = quota

    def refresh(token):
        raise QuotaError(5)

    auth = talk.auth(server.issue(access_token=False), refresh)
    error = raised_by(talk, auth)
    # it is not changed; to be the client's error as well, the class would have to derive from that
    assert type(error) is QuotaError
    assert (error.quota, error.retry_after, str(error)) == (5, 7.0, "The quota of 5 is used up.")
    assert plain_raised_by(talk, auth).quota == 5


def test_hierarchy_of_the_errors_is_that_of_the_design():
    assert issubclass(RefreshError, ReauthError)
    assert issubclass(SignInRequired, ReauthError)
    assert issubclass(InsecureOrigin, ReauthError)
    assert issubclass(httpx_reauth.StorageError, ReauthError)
    assert not issubclass(SignInRequired, RefreshError)
    assert issubclass(ReauthError, Exception)


# --- what the message says ---


def test_attributes_are_those_of_the_server_s_answer(talk, server, auth):
    server.token_endpoint.fail(
        faults.reply(
            429,
            {"error": "slow_down", "error_description": "Too fast.", "error_uri": "https://as.test/slow"},
            {"Retry-After": "17"},
        )
    )
    for error in (raised_by(talk, auth), plain_raised_by(talk, auth)):
        assert error.error == "slow_down"
        assert error.error_description == "Too fast."
        assert error.error_uri == "https://as.test/slow"
        assert error.status_code == 429
        assert error.retry_after == 17.0
        assert isinstance(error.__cause__, RefreshError)
        assert "slow_down (Too fast.)" in str(error)


def test_attributes_of_a_sign_in_required(talk, server, auth):
    server.revoke_refresh_tokens()
    error = raised_by(talk, auth)
    assert error.error == "invalid_grant"
    assert error.error_description == "The refresh token has been revoked."
    assert error.error_uri is None
    assert isinstance(error.__cause__, ReauthError)
    assert "Sign in again" in str(error)


def test_retry_after_as_a_date_counts_from_the_server_s_own_clock(talk, server, auth, clock):
    server.token_endpoint.fail(
        faults.too_many_requests(datetime.fromtimestamp(clock.time(), timezone.utc) + timedelta(seconds=90))
    )
    assert 89.0 <= raised_by(talk, auth).retry_after <= 90.0


def test_guarantee_6_remembered_failure_says_how_many_seconds_are_left(talk, server, auth, clock):
    server.token_endpoint.fail(faults.too_many_requests(20))
    assert raised_by(talk, auth).retry_after == 20.0
    clock.advance(12)
    error = raised_by(talk, auth)
    assert error.retry_after == 8.0
    assert error.status_code == 429
    assert server.token_requests == 1
    clock.advance(8)
    assert talk(auth, get).status_code == 200
    assert server.token_requests == 2


def test_guarantee_6_own_back_off_is_in_retry_after(talk, server, auth):
    server.token_endpoint.fail(faults.unavailable())
    assert 0.4 <= raised_by(talk, auth).retry_after <= 0.5


def test_guarantee_6_each_caller_gets_an_exception_of_its_own(talk, server, auth):
    server.token_endpoint.fail(faults.unavailable())
    errors = [raised_by(talk, auth) for _ in range(3)]
    assert len(set(map(id, errors))) == 3
    assert len({id(error.__cause__) for error in errors}) == 1


# --- what a refresh may do ---


def posting(talk):
    """Return a refresh as many users write it: with `raise_for_status`."""

    def refresh(token):
        with talk.site.client() as client:
            form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
            response = client.post("/token", data=form)
            response.raise_for_status()
            return Token(**{name: response.json()[name] for name in ("access_token", "refresh_token")})

    return refresh


def test_guarantee_6_http_status_error_500_is_tried_again_after_the_back_off(talk, server, clock):
    auth = talk.auth(server.issue(access_token=False), posting(talk))
    server.token_endpoint.fail(faults.reply(500, "<h1>Oops</h1>"))
    error = raised_by(talk, auth)
    assert isinstance(error, RefreshError)
    assert error.status_code == 500
    assert isinstance(error.__cause__, talk.package.HTTPStatusError)
    clock.advance(0.5)
    assert talk(auth, get).status_code == 200
    assert server.token_requests == 2


def test_guarantee_6_http_status_error_401_waits_a_minute_so_that_no_account_is_locked(talk, server, clock):
    auth = talk.auth(server.issue(access_token=False), posting(talk))
    server.token_endpoint.fail_always(faults.reply(401, {"error": "invalid_client"}))
    error = raised_by(talk, auth)
    assert (error.error, error.status_code, error.retry_after) == ("invalid_client", 401, 60.0)
    clock.advance(59.9)
    raised_by(talk, auth)
    assert server.token_requests == 1
    clock.advance(0.1)
    raised_by(talk, auth)
    assert server.token_requests == 2


def test_guarantee_6_http_status_error_400_with_invalid_grant_is_final(talk, server, clock):
    auth = talk.auth(server.issue(access_token=False), posting(talk))
    server.revoke_refresh_tokens()
    error = raised_by(talk, auth)
    assert type(error) is SignInRequired
    assert error.error == "invalid_grant"
    assert isinstance(error.__cause__, talk.package.HTTPStatusError)
    clock.advance(1_000_000)
    raised_by(talk, auth)
    assert server.token_requests == 1
    auth.sign_in(server.issue())
    assert talk(auth, get).status_code == 200


def test_guarantee_6_http_status_error_429_keeps_its_retry_after(talk, server, clock):
    auth = talk.auth(server.issue(access_token=False), posting(talk))
    server.token_endpoint.fail(faults.too_many_requests(33))
    assert raised_by(talk, auth).retry_after == 33.0
    clock.advance(32.9)
    raised_by(talk, auth)
    assert server.token_requests == 1
    clock.advance(0.1)
    assert talk(auth, get).status_code == 200


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "NoneType"),
        ("a-secret-string", "str"),
        ({"access_token": "a-secret-string"}, "dict"),
        (Token(), "without an access token"),
        (Token(refresh_token="a-secret-string"), "without an access token"),
        (42, "int"),
        (b"a-secret-string", "bytes"),
        (Token, "type"),
    ],
    ids=repr,
)
def test_error_of_a_refresh_that_returns_no_token_says_so_without_showing_what_it_returned(talk, server, answer, says):
    auth = talk.auth(server.issue(access_token=False), lambda token: answer)
    error = raised_by(talk, auth)
    assert isinstance(error, RefreshError)
    assert says in str(error)
    assert "a-secret-string" not in str(error)
    assert server.api_requests == 0


def test_error_of_a_coroutine_refresh_that_returns_no_token_says_so(talk, server):
    async def refresh(token):
        return None

    error = raised_by(talk, talk.auth(server.issue(access_token=False), refresh))
    assert isinstance(error, RefreshError)
    assert "NoneType" in str(error)


@pytest.mark.parametrize("error", [ValueError("boom"), KeyError("access_token"), OSError(5, "io"), RuntimeError()])
def test_whatever_the_refresh_raises_is_the_cause_and_its_words_are_not_repeated(talk, server, error):
    def refresh(token):
        raise error

    raised = raised_by(talk, talk.auth(server.issue(access_token=False), refresh))
    assert isinstance(raised, RefreshError)
    assert raised.__cause__ is error
    assert type(error).__name__ in str(raised)
    assert "boom" not in str(raised)


def test_connection_error_of_the_refresh_is_a_transport_error_of_the_client_that_asked(talk, server, auth):
    server.token_endpoint.fail(faults.refused_connection())
    error = raised_by(talk, auth)
    assert isinstance(error.__cause__, talk.package.ConnectError)
    assert isinstance(error, talk.package.TransportError)
    assert not isinstance(error, talk.package.ConnectError)
    assert error.request.url.path == "/me"  # it is the API request, not the refresh's request


def test_sign_in_required_raised_by_the_refresh_itself_is_final(talk, server, clock):
    asked = []

    def refresh(token):
        asked.append(token)
        raise SignInRequired("Open the browser.")

    auth = talk.auth(server.issue(access_token=False), refresh)
    assert str(raised_by(talk, auth)) == "Open the browser."
    clock.advance(10_000)
    assert str(raised_by(talk, auth)) == "Open the browser."
    assert len(asked) == 1


def test_signed_out_request_asks_the_refresh_to_log_in(talk, server):
    """Without a refresh token the refresh gets `Token()`.

    A grant that needs one raises an error that says what to do.
    """
    auth = talk.auth(server.issue(), talk.site.refresh("grant"))
    auth.sign_out()
    error = raised_by(talk, auth)
    assert type(error) is SignInRequired
    assert server.requests == []


def test_error_says_what_to_do_when_the_refresh_waits_for_itself(talk, server):
    """The refresh sends its request through the client whose requests it authenticates."""

    def refresh(token):
        with talk.site.client(auth) as client:
            return Token.from_response(client.post("/token"))

    async def async_refresh(token):
        async with talk.site.async_client(auth) as client:
            return Token.from_response(await client.post("/token"))

    auth = talk.auth(server.issue(access_token=False), async_refresh if talk.is_async else refresh)
    error = raised_by(talk, auth)
    assert isinstance(error, RefreshError)
    assert "auth=None" in str(error)
    assert server.requests == []
