"""Tests of the grants as generators, without any I/O: which requests they yield, and what they return."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Generator
from dataclasses import FrozenInstanceError, dataclass, replace

import httpx
import pytest

from httpx_reauth._errors import InsecureOrigin, RefreshError, SignInRequired
from httpx_reauth._token import Token
from httpx_reauth.oauth import ClientCredentialsGrant, Grant, RefreshTokenGrant, TokenRequest

URL = "https://id.example.com/token"
OLD = Token("old", refresh_token="r-1")

both = pytest.mark.parametrize("grant_type", [ClientCredentialsGrant, RefreshTokenGrant])


def answer(status: int = 200, **fields: object) -> httpx.Response:
    return httpx.Response(status, json=fields)


def ask(grant: Grant, token: Token = OLD) -> TokenRequest:
    return next(grant.flow(token))


def finish(flow: Generator[TokenRequest, httpx.Response, Token], response: httpx.Response) -> Token:
    with pytest.raises(StopIteration) as end:
        flow.send(response)
    return end.value.value


# --- what is posted, and what comes of it ---


def test_client_credentials_asks_once_and_returns_the_token():
    flow = ClientCredentialsGrant(URL, "me", "secret").flow(Token())
    request = next(flow)
    assert (request.url, request.data, request.spends) == (URL, {"grant_type": "client_credentials"}, None)
    assert finish(flow, answer(access_token="new", expires_in=60)) == Token("new", expires_in=60)


def test_refresh_token_grant_spends_the_refresh_token_and_must_not_be_sent_twice():
    flow = RefreshTokenGrant(URL, "me").flow(OLD)
    request = next(flow)
    form = {"grant_type": "refresh_token", "refresh_token": "r-1"}
    assert (request.url, request.data, request.spends) == (URL, form, "refresh_token")
    assert finish(flow, answer(access_token="new", refresh_token="r-2")) == Token("new", refresh_token="r-2")


@pytest.mark.parametrize("token", [Token(), Token("access"), Token(refresh_token="")])
def test_refresh_token_grant_without_a_refresh_token_wants_a_sign_in_before_it_asks(token):
    with pytest.raises(SignInRequired, match="Sign in first"):
        next(RefreshTokenGrant(URL, "me").flow(token))


def test_the_answer_decides_which_error_is_raised():
    for status, code, expected in [(400, "invalid_grant", SignInRequired), (401, "invalid_client", RefreshError)]:
        flow = RefreshTokenGrant(URL, "me").flow(OLD)
        next(flow)
        with pytest.raises(expected):
            flow.send(answer(status, error=code))


@both
@pytest.mark.parametrize("scope", ["read write", ["read", "write"], ("read", "write")])
def test_scope_is_a_string_or_a_list(grant_type, scope):
    grant = grant_type(URL, "me", "secret", scope=scope)
    assert ask(grant).data["scope"] == "read write"
    assert grant == grant_type(URL, "me", "secret", scope="read write")


@both
@pytest.mark.parametrize("scope", [None, "", []])
def test_no_scope_is_sent_when_none_is_given(grant_type, scope):
    assert "scope" not in ask(grant_type(URL, "me", "secret", scope=scope)).data


@both
def test_every_resource_is_a_field_of_its_own(grant_type):
    one = ask(grant_type(URL, "me", "secret", resource="https://a.example.com"))
    two = ask(grant_type(URL, "me", "secret", resource=["https://a.example.com", "https://b.example.com"]))
    assert one.body.count(b"resource=") == 1
    assert two.body.endswith(b"&resource=https%3A%2F%2Fa.example.com&resource=https%3A%2F%2Fb.example.com")


@both
def test_extra_fields_are_sent_and_cannot_be_changed_later(grant_type):
    extra = {"audience": "https://api.example.com"}
    grant = grant_type(URL, "me", "secret", extra=extra)
    extra["audience"] = "elsewhere"
    assert ask(grant).data["audience"] == "https://api.example.com"
    with pytest.raises(TypeError):
        grant.extra["audience"] = "elsewhere"


@both
@pytest.mark.parametrize("field", ["grant_type", "refresh_token", "client_id", "client_secret", "scope", "resource"])
def test_extra_must_not_take_the_place_of_a_setting(grant_type, field):
    with pytest.raises(ValueError, match=f"extra must not hold {field}"):
        grant_type(URL, "me", "secret", extra={field: "x"})


# --- how the client authenticates (RFC 6749 §2.3.1) ---


@both
@pytest.mark.parametrize(
    ("settings", "basic", "fields"),
    [
        ({"client_secret": "s"}, ("me", "s"), {}),
        ({"client_secret": "s", "client_auth": "client_secret_post"}, None, {"client_id": "me", "client_secret": "s"}),
        ({"client_auth": "none"}, None, {"client_id": "me"}),
    ],
)
def test_client_authenticates_in_exactly_one_way(grant_type, settings, basic, fields):
    proof = ask(grant_type(URL, "me", **settings)).client_auth.prove(0.0)
    assert proof.fields == fields
    assert proof.headers == ({} if basic is None else {"authorization": httpx.BasicAuth(*basic)._auth_header})


def test_empty_password_of_a_user_facing_client_is_a_password():  # which is not "has no password"
    proof = ask(RefreshTokenGrant(URL, "me", "")).client_auth.prove(0.0)
    assert proof.headers == {"authorization": httpx.BasicAuth("me", "")._auth_header}


def test_public_client_need_not_say_that_it_has_no_secret():
    proof = ask(RefreshTokenGrant(URL, "app")).client_auth.prove(0.0)
    assert (proof.headers, proof.fields) == ({}, {"client_id": "app"})


@both
@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"client_id": ""}, "environment variable"),
        ({"client_auth": "basic"}, "one of client_secret_basic, client_secret_post, none"),
        ({"client_auth": "client_secret_post"}, "there is none"),
        ({"client_auth": "none", "client_secret": "s"}, "Leave out one of them"),
        ({"client_secret": "s\n"}, r"without \.strip\(\)"),
        ({"client_secret": "s\udcff"}, "cannot be sent"),
        ({"client_id": "me\0"}, "cannot be sent"),
        ({"timeout": 0}, "above 0"),
        ({"timeout": float("inf")}, "above 0"),
        ({"timeout": float("nan")}, "above 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_advice(grant_type, settings, advice):
    with pytest.raises(ValueError, match=advice):
        grant_type(**{"token_url": URL, "client_id": "me", **settings})


def test_client_credentials_without_a_secret_must_be_meant():
    with pytest.raises(ValueError, match="client_auth='none'"):
        ClientCredentialsGrant(URL, "me", None)


@both
def test_async_client_is_refused_with_the_reason(grant_type):
    with pytest.raises(TypeError, match="runs in a worker thread"):
        grant_type(URL, "me", "secret", client=httpx.AsyncClient)


# --- where the secrets may go ---


@both
@pytest.mark.parametrize(
    "url", [URL, "http://localhost:8000/token", "http://127.0.0.1/token", "http://[::1]:80/token", URL + "?key=1"]
)
def test_guarantee_9_https_and_loopback_are_token_urls(grant_type, url):
    assert ask(grant_type(url, "me", "secret")).url == url


@both
@pytest.mark.parametrize("url", ["http://id.example.com/token", "http://10.0.0.1/token", "http://localhost.evil.com/"])
def test_guarantee_9_plain_http_to_another_machine_must_be_allowed(grant_type, url):
    with pytest.raises(InsecureOrigin, match="allow_http=True"):
        grant_type(url, "me", "secret")
    assert ask(grant_type(url, "me", "secret", allow_http=True)).url == url


@both
@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("/token", "absolute"),
        ("ftp://id.example.com/token", "absolute"),
        ("https:///token", "absolute"),
        ("https://id.example.com:port/token", "not a URL"),
        (None, "not a URL"),
        ("https://me:geheim@id.example.com/token", "user name"),
        ("https://id.example.com/token#here", "fragment"),
        ("https://id.example.com/token#", "fragment"),
    ],
)
def test_unusable_token_url_is_refused_without_repeating_it(grant_type, url, advice):
    with pytest.raises(ValueError, match=advice) as refused:
        grant_type(url, "me", "secret")
    assert "geheim" not in str(refused.value)


# --- values that keep their secrets ---


@both
def test_guarantee_11_grant_shows_no_secret_and_is_not_pickled(grant_type):
    grant = grant_type(URL + "?key=geheim", "me", "geheim", extra={"assertion": "geheim"}, scope="read")
    assert "geheim" not in repr(grant)
    assert repr(grant).startswith(f"{grant_type.__name__}('https://id.example.com/token?***', 'me', ")
    assert copy.copy(grant) is copy.deepcopy(grant) is grant
    with pytest.raises(TypeError, match="holds secrets"):
        pickle.dumps(grant)


@both
def test_grant_is_a_frozen_value(grant_type):
    grant = grant_type(URL, "me", "secret", extra={"a": "b"}, resource="https://a.example.com")
    assert grant == replace(grant)
    assert hash(grant) == hash(replace(grant))
    assert grant != replace(grant, client_id="you")
    with pytest.raises(FrozenInstanceError):
        grant.client_id = "you"
    with pytest.raises(FrozenInstanceError):
        grant.timeout_ = 3


# --- a grant of one's own ---


class Fixed(Grant):
    def flow(self, token: Token, /) -> Generator[TokenRequest, httpx.Response, Token]:
        response = yield TokenRequest(URL, {"grant_type": "fixed"})
        return Token.from_response(response)


def test_grant_of_ones_own_needs_a_flow_and_nothing_else():
    grant = Fixed()
    assert (grant.timeout, grant.client, grant.allow_http) == (5.0, None, False)
    flow = grant.flow(Token())
    assert next(flow) == TokenRequest(URL, {"grant_type": "fixed"})
    assert finish(flow, answer(access_token="new")) == Token("new")


def test_grant_of_ones_own_can_be_a_dataclass_with_slots():
    @dataclass(frozen=True, slots=True)
    class Exchange(Grant):
        subject: str
        timeout: float = 1.0

        def flow(self, token: Token, /) -> Generator[TokenRequest, httpx.Response, Token]:
            return Token.from_response((yield TokenRequest(URL, {"subject_token": self.subject})))

    grant = Exchange("someone")
    assert (grant.timeout, grant.client) == (1.0, None)
    assert ask(grant).data == {"subject_token": "someone"}


def test_grant_without_a_flow_cannot_be_made():
    class Empty(Grant):
        pass

    with pytest.raises(TypeError, match="flow"):
        Empty()
