"""Tests of grants with an `Issuer`: how many requests discovery makes, and how bad, old and false documents end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey

from httpx_reauth import InsecureOrigin, Reauth, ReauthError, RefreshError, Token
from httpx_reauth.oauth import (
    ClientCredentialsGrant,
    Issuer,
    JWTBearerGrant,
    PrivateKeyJWT,
    RefreshTokenGrant,
    SignedAssertion,
    TLSClientAuth,
    TokenExchangeGrant,
)
from httpx_reauth.testing import Answer, AuthorizationServer, faults

URL = "https://id.test"
DAY = 24 * 3600
SECRET = "s3cret-of-the-client"


@contextmanager
def grant_of(server: AuthorizationServer, package: Any = httpx, **settings: Any) -> Iterator[ClientCredentialsGrant]:
    with package.Client(transport=server.transport(package)) as client:
        yield ClientCredentialsGrant(Issuer(URL), "reports", SECRET, client=client, **settings)


def sent(server: AuthorizationServer) -> list[str]:
    """Where a secret arrived."""
    return [
        request.path
        for request in server.requests
        if request.authorization is not None or SECRET.encode() in request.body
    ]


# A day


def test_the_document_is_read_once_a_day_by_the_clock_of_the_reauth(server, clock, library):
    with grant_of(server, library.package) as grant:
        auth = library.Reauth(grant, clock=clock)
        for _ in range(24):
            auth.get_token()
            clock.advance(3600)
        assert (server.metadata_requests, server.token_requests) == (1, 24)
        auth.get_token()
        assert (server.metadata_requests, server.token_requests) == (2, 25)


def test_a_wall_clock_that_jumps_does_not_age_the_document(server, clock):
    with grant_of(server) as grant:
        auth = Reauth(grant, clock=clock)
        auth.get_token()
        clock.jump(10 * DAY)
        auth.renew()
    assert server.metadata_requests == 1


def test_requests_with_a_good_token_ask_for_no_document(server, clock):
    with (
        grant_of(server) as grant,
        httpx.Client(transport=server.transport(httpx), auth=Reauth(grant, clock=clock)) as api,
    ):
        for _ in range(10):
            assert api.get("https://api.test/me").status_code == 200
    assert server.metadata_requests == 1


def test_a_sign_in_by_another_clock_starts_the_day_of_the_reauths(server, clock):
    """A `BrowserSignIn` knows no clock; the `Reauth` of a test has one that is moved by hand."""
    with grant_of(server) as grant:
        grant(Token())  # by the machine's clock
        auth = Reauth(grant, clock=clock)
        auth.get_token()
        clock.advance(DAY + 1)
        auth.get_token()
    assert server.metadata_requests == 2


FAULTS = {
    "503": faults.unavailable(),
    "404": faults.reply(404, {"error": "not found"}),
    "HTML": faults.html(),
    "a redirect": faults.redirect("https://elsewhere.test/"),
    "refused connection": faults.refused_connection(),
    "dropped connection": faults.dropped(),
    "2 MB": faults.reply(200, b'{"issuer": "' + b"x" * 2 * 1024 * 1024 + b'"}'),
    "the document of another server": faults.metadata_of("https://evil.test"),
    "half a document": faults.cut_off('{"issuer": "https://id'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_while_the_document_cannot_be_had_any_more_the_last_good_one_goes_on(fault, server, clock, library, caplog):
    with grant_of(server, library.package) as grant:
        auth = library.Reauth(grant, clock=clock)
        auth.get_token()
        server.metadata_endpoint.fail_always(FAULTS[fault])
        clock.advance(DAY)
        for _ in range(3):
            assert auth.renew().access_token
        asked = server.metadata_requests
        assert any("the last one goes on" in record.getMessage() for record in caplog.records)
        server.metadata_endpoint.heal()
        clock.advance(301)  # from then on it is asked for again
        auth.renew()
        assert server.metadata_requests == asked + 1
        auth.renew()
        assert server.metadata_requests == asked + 1
    assert server.tokens_issued == 6


@pytest.mark.parametrize("fault", FAULTS)
def test_without_any_document_there_is_an_error_and_no_secret_is_sent(fault, server, clock, library):
    server.metadata_endpoint.fail_always(FAULTS[fault])
    with grant_of(server, library.package) as grant:
        auth = library.Reauth(grant, clock=clock)
        with pytest.raises(RefreshError) as failure:
            auth.get_token()
        assert URL in str(failure.value)
        assert str(failure.value).isascii()
        assert sent(server) == []
        assert server.token_requests == 0
        server.metadata_endpoint.heal()
        clock.advance(60)
        assert auth.get_token().access_token


@pytest.mark.parametrize("busy", [faults.too_many_requests, faults.unavailable])
def test_guarantee_6_a_server_that_says_when_to_ask_again_for_the_document_is_not_asked_before(server, clock, busy):
    server.metadata_endpoint.fail_always(busy(retry_after=120))
    with grant_of(server) as grant:
        auth = Reauth(grant, clock=clock)
        with pytest.raises(RefreshError) as failure:
            auth.get_token()
        assert failure.value.retry_after == 120
        asked = server.metadata_requests
        clock.advance(119)
        with pytest.raises(RefreshError):
            auth.get_token()
        assert server.metadata_requests == asked
        server.metadata_endpoint.heal()
        clock.advance(2)
        assert auth.get_token().access_token


def test_a_document_of_2_mb_at_one_place_does_not_hide_the_one_at_the_next(server, clock):
    server.metadata_path = "/.well-known/openid-configuration"
    server.metadata_endpoint.fail(FAULTS["2 MB"])
    with grant_of(server) as grant:
        assert Reauth(grant, clock=clock).get_token().access_token


# What a document may say, and what not


def moved(**fields: str) -> Callable[[dict[str, Any]], dict[str, Any] | Answer]:
    return lambda document: {**document, **fields}


def test_an_endpoint_that_moves_on_its_origin_is_followed(server, clock):
    with grant_of(server) as grant:
        auth = Reauth(grant, clock=clock)
        auth.get_token()
        server.token_path = "/oauth2/token"
        clock.advance(DAY)
        auth.get_token()
    assert len(server.requests_to("/oauth2/token")) == 1


def test_an_endpoint_that_moves_to_another_origin_gets_no_secret(clock):
    evil = AuthorizationServer()
    server = AuthorizationServer(clock=clock)

    def handler(request: httpx.Request) -> httpx.Response:
        one = evil if request.url.host == "evil.test" else server
        return one.transport(httpx).handle_request(request)

    client = httpx.Client(transport=httpx.MockTransport(handler))
    auth = Reauth(ClientCredentialsGrant(Issuer(URL), "reports", SECRET, client=client), clock=clock)
    auth.get_token()
    server.edit_metadata = moved(token_endpoint="https://evil.test/token")
    clock.advance(DAY)
    assert auth.get_token().access_token
    assert (len(evil.requests), server.tokens_issued) == (0, 2)


@pytest.mark.parametrize(
    "fields",
    [
        {"issuer": "https://evil.test"},
        {"token_endpoint": "http://id.test/token"},
        {"token_endpoint": "token"},
        {"revocation_endpoint": "http://id.test/revoke"},
        {"token_endpoint": "https://user:pass@id.test/token"},
    ],
)
def test_a_document_that_lies_or_names_plain_http_gets_no_secret(fields, server, clock):
    server.edit_metadata = moved(**fields)
    with grant_of(server) as grant, pytest.raises((RefreshError, InsecureOrigin)):
        Reauth(grant, clock=clock).get_token()
    assert sent(server) == []


def test_a_document_whose_endpoint_is_beyond_ascii_is_shown_in_ascii(server, clock):
    """The host has a letter that looks like another: in the error, it must not look like the real server's host."""
    server.edit_metadata = moved(token_endpoint="https://\u0430pple.test/token")
    client = httpx.Client(transport=server.transport(httpx))
    server.token_endpoint.fail_always(faults.refused_connection())
    grant = ClientCredentialsGrant(Issuer(URL), "reports", SECRET, client=client)
    with pytest.raises(RefreshError, match="u0430pple") as failure:
        Reauth(grant, clock=clock).get_token()
    assert str(failure.value).isascii()


@pytest.mark.parametrize("host", ["xn--.test", "[v1.x]"])
def test_a_document_whose_endpoint_is_at_no_possible_host_is_an_error_that_says_so(server, host):
    server.edit_metadata = moved(token_endpoint=f"https://{host}/token")
    with grant_of(server) as grant, pytest.raises(RefreshError, match="none to which"):
        grant(Token())
    assert sent(server) == []


def test_a_document_without_a_token_endpoint_says_where_that_was_looked_for(server, clock):
    server.edit_metadata = lambda document: {k: v for k, v in document.items() if k != "token_endpoint"}
    with grant_of(server) as grant, pytest.raises(RefreshError, match="token_endpoint"):
        Reauth(grant, clock=clock).get_token()


def test_plain_http_on_another_machine_is_refused_before_anything_is_asked(server):
    with pytest.raises(InsecureOrigin):
        ClientCredentialsGrant(Issuer("http://id.example.com"), "reports", SECRET)
    client = httpx.Client(transport=server.transport(httpx))
    grant = ClientCredentialsGrant(Issuer("http://id.example.com"), "reports", SECRET, client=client, allow_http=True)
    assert grant(Token()).access_token


def test_a_server_that_takes_no_secret_gets_none(server, clock):
    server.client_auth = ("private_key_jwt",)
    with grant_of(server) as grant, pytest.raises(RefreshError, match="private_key_jwt"):
        Reauth(grant, clock=clock).get_token()
    assert sent(server) == []


# Many at once


def test_many_reauths_that_begin_at_once_read_the_document_once(library):
    """One pool's worth of users, each with its own auth object, and one issuer."""
    with AuthorizationServer() as server, server.serve() as url:
        issuer, barrier = Issuer(url), threading.Barrier(20)
        held = server.metadata_endpoint.hold()

        def use(_: int) -> Token:
            auth = library.Reauth(ClientCredentialsGrant(issuer, "reports", SECRET))
            barrier.wait(20)
            return auth.get_token()

        with ThreadPoolExecutor(20) as pool:
            tokens = [pool.submit(use, number) for number in range(20)]
            server.wait_until(lambda: held.held == 1)
            held.release()
            assert all(token.result(20).access_token for token in tokens)
        assert (server.metadata_requests, server.tokens_issued) == (1, 20)


def test_many_reauths_whose_document_does_not_come_fail_each_with_an_error_of_its_own(library):
    with AuthorizationServer() as server, server.serve() as url:
        server.metadata_endpoint.fail_always(faults.html())
        issuer, barrier = Issuer(url), threading.Barrier(10)

        def use(_: int) -> ReauthError:
            auth = library.Reauth(ClientCredentialsGrant(issuer, "reports", SECRET))
            barrier.wait(20)
            with pytest.raises(RefreshError) as failure:
                auth.get_token()
            return failure.value

        with ThreadPoolExecutor(10) as pool:
            errors = list(pool.map(use, range(10)))
        assert len({id(error) for error in errors}) == 10
        assert sent(server) == []


# What the log says


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (Issuer(URL), "id.test"),
        (Issuer("https://id.test:8443/realms/a"), "id.test:8443"),
        (Issuer.of(token_endpoint="https://id.test/token?key=s3cret"), "id.test"),
        ("https://id.test/token?key=s3cret", "id.test"),
    ],
)
def test_the_log_line_of_a_token_request_names_the_host(url, host, caplog):
    caplog.set_level(logging.DEBUG, "httpx_reauth")
    server = AuthorizationServer(issuer_path="/realms/a" if "/realms/a" in repr(url) else "")
    client = httpx.Client(transport=server.transport(httpx))
    with Reauth(ClientCredentialsGrant(url, "reports", SECRET, client=client)) as auth:
        auth.get_token()
    lines = [record.getMessage() for record in caplog.records]
    assert any(f"ClientCredentialsGrant at {host} in" in line for line in lines)
    assert not any("s3cret" in line for line in lines)


# Endpoints for certificates, and revocation


MTLS = {"token_endpoint": "https://mtls.id.test/token", "revocation_endpoint": "https://mtls.id.test/revoke"}


@pytest.mark.parametrize(
    ("method", "host"), [(TLSClientAuth(), "https://mtls.id.test"), ("none", "https://id.test")], ids=["mtls", "none"]
)
def test_who_shows_a_certificate_gets_and_revokes_tokens_at_the_aliases(method, host, server, clock):
    """RFC 8705 section 5."""
    server.edit_metadata = lambda document: {**document, "mtls_endpoint_aliases": MTLS}
    client = httpx.Client(transport=server.transport(httpx))
    auth = Reauth(
        RefreshTokenGrant(Issuer(URL), "app", client_auth=method, client=client), token=server.issue(), clock=clock
    )
    auth.renew()
    auth.sign_out(revoke=True)
    origins = {request.path: request.origin for request in server.requests}
    assert {origins["/token"], origins["/revoke"]} == {host}
    assert server.tokens_revoked == 1


def test_an_endpoint_that_the_user_gives_wins_over_an_alias(server, clock):
    server.edit_metadata = lambda document: {**document, "mtls_endpoint_aliases": MTLS}
    client = httpx.Client(transport=server.transport(httpx))
    issuer = Issuer(URL, revocation_endpoint="https://other.test/revoke")
    grant = RefreshTokenGrant(issuer, "app", client_auth=TLSClientAuth(), client=client)
    auth = Reauth(grant, token=server.issue(), clock=clock)
    auth.sign_out(revoke=True)
    assert [request.origin for request in server.requests_to("/revoke")] == ["https://other.test"]
    other = Reauth(replace(grant, revocation_url="https://last.test/revoke"), token=server.issue(), clock=clock)
    other.sign_out(revoke=True)
    assert [request.origin for request in server.requests_to("/revoke")][1:] == ["https://last.test"]


KEY = ECKey.generate_key("P-256")
SIGNED = SignedAssertion(KEY.as_pem(private=True), iss="robot", sub="robot", aud=URL)


@pytest.mark.parametrize(
    "make",
    [
        lambda issuer, client: ClientCredentialsGrant(issuer, "reports", SECRET, client=client),
        lambda issuer, client: RefreshTokenGrant(issuer, "reports", SECRET, client=client),
        lambda issuer, client: JWTBearerGrant(issuer, assertion=SIGNED, client=client),
        lambda issuer, client: TokenExchangeGrant(
            issuer, subject_token="a.b.c", subject_token_type="jwt", client=client
        ),
        lambda issuer, client: ClientCredentialsGrant(
            issuer, "reports", client_auth=PrivateKeyJWT(KEY.as_pem(private=True)), client=client
        ),
    ],
    ids=["client credentials", "refresh token", "JWT bearer", "token exchange", "private_key_jwt"],
)
def test_every_grant_finds_its_server_and_revokes_there(make, clock):
    server = AuthorizationServer(clock=clock)
    client = httpx.Client(transport=server.transport(httpx))
    grant = make(Issuer(URL), client)
    auth = Reauth(grant, token=server.issue(), clock=clock)
    token = auth.renew()
    auth.sign_out(revoke=True)
    assert not server.is_good(token.access_token if token.refresh_token is None else token.refresh_token)
    assert server.revocation_requests == 1
