"""Tests of token exchange (RFC 8693). The subject token is a string, a function, or another `Reauth`."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Iterator
from traceback import walk_tb
from typing import Any
from urllib.parse import parse_qsl

import anyio
import httpx
import pytest

from httpx_reauth import InsecureOrigin, ReauthError, ReauthPool, RefreshError, SignInRequired, Token
from httpx_reauth.identity import FileIdentity
from httpx_reauth.oauth import (
    ClientCredentialsGrant,
    Issuer,
    PrivateKeyJWT,
    RefreshTokenGrant,
    TLSClientAuth,
    TokenExchangeGrant,
    TokenRequest,
)
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import AuthorizationServer, ManualClock, Received, faults

URL = "https://id.example.com/token"
TYPE = "urn:ietf:params:oauth:token-type:"
OLD = Token("old")


def form_of(request: Received) -> list[tuple[str, str]]:
    return parse_qsl(request.body.decode(), keep_blank_values=True)


@pytest.fixture
def at_home(clock: ManualClock) -> AuthorizationServer:
    """The server at which people sign in."""
    return AuthorizationServer(clock=clock)


@pytest.fixture
def away(clock: ManualClock, at_home: AuthorizationServer) -> Iterator[AuthorizationServer]:
    """The server that exchanges their tokens."""
    with AuthorizationServer(clock=clock, subject_tokens=lambda token, _: at_home.is_good(token)) as one:
        yield one


@pytest.fixture
def links(library: Any, clock: ManualClock, at_home: AuthorizationServer, away: AuthorizationServer) -> Links:
    return Links(library, clock, at_home, away)


class Links:
    """The two links of a chain, and the clients that they send with."""

    def __init__(
        self, library: Any, clock: ManualClock, at_home: AuthorizationServer, away: AuthorizationServer
    ) -> None:
        self.library, self.clock, self.at_home, self.away = library, clock, at_home, away
        package = library.package
        self.client_at_home = package.Client(transport=at_home.transport(package))
        self.client_away = package.Client(transport=away.transport(package))

    def first(self, token: Token | None = None, **settings: Any) -> Any:
        grant = RefreshTokenGrant("https://home.test/token", "app", client=self.client_at_home)
        return self.library.Reauth(grant, token=token, clock=self.clock, **settings)

    def grant(self, subject: Any, **settings: Any) -> TokenExchangeGrant:
        settings = {"client": self.client_away, **settings}
        return TokenExchangeGrant("https://away.test/token", subject_token=subject, **settings)

    def second(self, subject: Any, storage: Any = None, **settings: Any) -> Any:
        return self.library.Reauth(self.grant(subject, **settings), clock=self.clock, storage=storage)


# What is sent


def ask(**settings: Any) -> TokenRequest:
    request = next(TokenExchangeGrant(URL, **{"subject_token": "s3cret-subject", **settings}).flow(OLD))
    assert isinstance(request, TokenRequest)
    return request


def test_a_string_is_exchanged():
    request = ask()
    assert request.url == URL
    assert request.data == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": "s3cret-subject",
        "subject_token_type": f"{TYPE}access_token",
    }
    assert request.spends is None


def test_every_setting_is_a_field_and_audiences_and_resources_are_repeated():
    request = ask(
        subject_token_type="jwt",
        actor_token="s3cret-actor",
        actor_token_type="id_token",
        audience=["orders", "bills"],
        resource=["https://a.example.com", "https://b.example.com"],
        scope=["read", "write"],
        requested_token_type="urn:example:token",
        extra={"more": "x"},
    )
    assert sorted(parse_qsl(request.body.decode())) == sorted(
        [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", "s3cret-subject"),
            ("subject_token_type", f"{TYPE}jwt"),
            ("actor_token", "s3cret-actor"),
            ("actor_token_type", f"{TYPE}id_token"),
            ("audience", "orders"),
            ("audience", "bills"),
            ("resource", "https://a.example.com"),
            ("resource", "https://b.example.com"),
            ("scope", "read write"),
            ("requested_token_type", "urn:example:token"),
            ("more", "x"),
        ]
    )


@pytest.mark.parametrize("kind", ["access_token", "refresh_token", "id_token", "jwt", "saml1", "saml2"])
def test_types_of_tokens_are_named_by_their_last_word(kind):
    assert ask(subject_token_type=kind).data["subject_token_type"] == f"{TYPE}{kind}"
    assert ask(subject_token_type=f"{TYPE}{kind}").data["subject_token_type"] == f"{TYPE}{kind}"


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({}, {}),
        ({"client_id": "app"}, {"client_id": "app"}),
        (
            {"client_id": "app", "client_secret": "s", "client_auth": "client_secret_post"},
            {"client_id": "app", "client_secret": "s"},
        ),
        ({"client_id": "app", "client_auth": TLSClientAuth()}, {"client_id": "app"}),
    ],
)
def test_the_client_says_who_it_is_if_it_has_a_name(settings, fields):
    identity = ask(**settings).client_auth
    assert identity is not None
    assert identity.prove(0.0).fields == fields


def test_a_secret_goes_by_basic_unless_something_else_is_said():
    identity = ask(client_id="app", client_secret="s").client_auth
    assert identity is not None
    assert "authorization" in identity.prove(0.0).headers


# Settings


async def coroutine() -> str:
    return "token"


@pytest.mark.parametrize(
    ("settings", "error", "advice"),
    [
        ({"subject_token": ""}, ValueError, "environment variable"),
        ({"subject_token": "s3cret\n"}, ValueError, "strip"),
        ({"subject_token": None}, TypeError, "a Reauth"),
        ({"subject_token": b"s3cret"}, TypeError, "a Reauth"),
        ({"subject_token": Token("s3cret")}, TypeError, r"token\.access_token"),
        ({"subject_token": RefreshTokenGrant(URL, "app")}, TypeError, r"Reauth\(RefreshTokenGrant"),
        ({"subject_token": ReauthPool(lambda key: None, maxsize=1)}, TypeError, r"pool\[key\]"),
        ({"subject_token": FileIdentity}, TypeError, r"FileIdentity\(\.\.\.\)"),
        ({"subject_token": coroutine}, TypeError, "worker thread"),
        ({"actor_token": 5}, TypeError, "actor_token"),
        ({"actor_token": ""}, ValueError, "actor_token"),
        ({"subject_token_type": "acess_token"}, ValueError, "one of access_token"),
        ({"subject_token_type": None}, TypeError, "subject_token_type"),
        ({"actor_token_type": "jot"}, ValueError, "actor_token_type"),
        ({"requested_token_type": ""}, ValueError, "requested_token_type"),
        ({"audience": 5}, TypeError, "audience"),
        ({"audience": ["a", None]}, TypeError, "audience"),
        ({"client_id": ""}, ValueError, "client_id"),
        ({"client_secret": "s3cret"}, ValueError, "client_id"),
        ({"client_auth": TLSClientAuth()}, ValueError, "client_id"),
        ({"client_auth": "client_secret_basic"}, ValueError, "client_id"),
        ({"extra": {"subject_token": "x"}}, ValueError, "extra must not hold subject_token"),
        ({"extra": {"audience": "x"}}, ValueError, "extra must not hold audience"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"client": httpx.AsyncClient}, TypeError, "AsyncClient"),
        ({"token_url": "http://id.example.com/token"}, InsecureOrigin, "allow_http"),
        ({"token_url": Issuer("http://id.example.com")}, InsecureOrigin, "allow_http"),
    ],
)
def test_settings_are_checked_when_the_grant_is_made_and_the_message_says_what_to_write(settings, error, advice):
    with pytest.raises(error, match=advice) as refused:
        TokenExchangeGrant(**{"token_url": URL, "subject_token": "s3cret", **settings})
    assert "s3cret" not in str(refused.value)
    for frame, _ in walk_tb(refused.value.__traceback__):
        if frame.f_code.co_filename != __file__:
            assert "s3cret" not in repr(frame.f_locals)


def test_a_subject_there_must_be():
    with pytest.raises(TypeError, match="subject_token"):
        TokenExchangeGrant(URL)  # type: ignore[call-arg]


# What comes of it


def test_the_exchanged_token_serves_and_says_what_was_issued(links):
    auth = links.second(links.at_home.issue().access_token)
    token = auth.get_token()
    assert token.extra["issued_token_type"] == f"{TYPE}access_token"
    with links.library.package.Client(transport=links.away.transport(links.library.package), auth=auth) as client:
        assert client.get("https://away.test/me").status_code == 200
    assert links.away.tokens_issued == 1


def test_a_function_is_asked_before_each_attempt(links):
    asked = []

    def subject() -> str:
        asked.append(links.at_home.issue().access_token)
        return asked[-1]

    links.away.token_endpoint.fail(faults.unavailable(), faults.unavailable())
    assert links.second(subject).get_token().access_token
    sent = [request.form["subject_token"] for request in links.away.requests_to("/token")]
    assert sent == asked
    assert (len(set(asked)), links.away.tokens_issued) == (3, 1)


def test_a_function_that_fails_is_said_and_nothing_is_sent(links):
    def subject() -> str:
        raise OSError("no vault")

    with pytest.raises(RefreshError, match="subject_token raised OSError"):
        links.second(subject).get_token()
    assert links.away.token_requests == 0


def test_an_identity_of_the_platform_can_be_exchanged(links, tmp_path):
    path = tmp_path / "token"
    path.write_text(links.at_home.issue().access_token + "\n")
    auth = links.second(FileIdentity(path), subject_token_type="jwt", requested_token_type="access_token")
    assert auth.get_token().access_token
    assert links.away.requests[0].form["subject_token_type"] == f"{TYPE}jwt"


@pytest.mark.parametrize(
    ("answer", "status"),
    [({"error": "invalid_target"}, 400), ({"error": "invalid_scope"}, 400), ({"error": "invalid_client"}, 401)],
)
def test_other_refusals_are_errors_that_name_the_code_and_ask_nobody_again(links, answer, status):
    first = links.first(links.at_home.issue())
    links.away.token_endpoint.fail_always(faults.reply(status, answer))
    with pytest.raises(RefreshError) as failure:
        links.second(first).get_token()
    assert failure.value.error == answer["error"]
    assert (links.away.token_requests, links.at_home.token_requests) == (1, 0)


def test_a_target_that_the_server_does_not_know_is_said(links):
    links.away.targets = ["orders"]
    with pytest.raises(RefreshError) as failure:
        links.second(links.at_home.issue().access_token, audience="bills").get_token()
    assert failure.value.error == "invalid_target"


def test_invalid_grant_is_not_final_since_nothing_was_spent(links):
    links.away.token_endpoint.fail(faults.reply(400, {"error": "invalid_grant"}))
    auth = links.second(links.at_home.issue().access_token)
    with pytest.raises(RefreshError):
        auth.get_token()
    links.clock.advance(61)
    assert auth.get_token().access_token


# A chain


def test_the_token_of_another_reauth_is_the_subject_and_is_renewed_when_that_is_due(links):
    first = links.first(links.at_home.issue(access_token=False))
    second = links.second(first)
    assert second.get_token().access_token
    assert links.away.requests[0].form["subject_token"] == first.token.access_token
    assert (links.at_home.token_requests, links.away.token_requests) == (1, 1)
    links.clock.advance(3600)
    assert second.get_token().access_token
    assert links.away.requests[1].form["subject_token"] == first.token.access_token
    assert (links.at_home.token_requests, links.away.token_requests) == (2, 2)


@pytest.mark.anyio
async def test_a_chain_serves_async_clients(links, anyio_backend):
    package = links.library.package
    second = links.second(links.first(links.at_home.issue(access_token=False)))
    async with package.AsyncClient(transport=links.away.transport(package), auth=second) as client:
        assert (await client.get("https://away.test/me")).status_code == 200
    assert (links.at_home.token_requests, links.away.token_requests) == (1, 1)


@pytest.mark.anyio
async def test_the_first_link_may_be_a_coroutine_function(links, anyio_backend):
    package = links.library.package

    async def refresh(token: Token) -> Token:
        async with package.AsyncClient(transport=links.at_home.transport(package)) as client:
            form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
            return Token.from_response(await client.post("https://home.test/token", data=form))

    first = links.library.Reauth(refresh, token=links.at_home.issue(access_token=False), clock=links.clock)
    assert (await links.second(first).aget_token()).access_token
    assert (links.at_home.token_requests, links.away.token_requests) == (1, 1)


@pytest.mark.anyio
async def test_a_coroutine_of_the_first_link_runs_on_the_event_loop_of_the_caller(library, anyio_backend):
    """So it may use the application's own client, whose connections belong to that loop."""
    with AuthorizationServer() as server, server.serve() as url:
        async with library.package.AsyncClient(base_url=url) as client:

            async def refresh(token: Token) -> Token:
                form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
                return Token.from_response(await client.post("/token", data=form, auth=None))

            first = library.Reauth(refresh, token=server.issue(access_token=False))
            second = library.Reauth(TokenExchangeGrant(f"{url}/token", subject_token=first))
            await client.get("/me", auth=None)  # a connection that is kept
            for _ in range(3):
                assert (await client.get("/me", auth=second)).status_code == 200
                server.revoke_access_tokens()
    assert server.reuse_detected == 0


@pytest.mark.anyio
async def test_a_sync_call_that_blocks_the_loop_of_the_first_link_says_so(links, anyio_backend):
    began, go_on = anyio.Event(), anyio.Event()

    async def refresh(token: Token) -> Token:
        began.set()
        await go_on.wait()
        return links.at_home.issue()

    second = links.second(links.library.Reauth(refresh, token=links.at_home.issue(access_token=False)))
    async with anyio.create_task_group() as group:
        group.start_soon(second.aget_token)
        await began.wait()
        with pytest.raises(RefreshError, match="blocks the thread of the event loop"):
            second.get_token()
        go_on.set()
    assert second.get_token().access_token


def test_the_first_link_works_after_the_event_loop_of_the_second_has_ended(links):
    """The exchange goes on in its thread when the loop ends; the coroutine of the first link gets a new loop."""
    loops: list[object] = []

    async def refresh(token: Token) -> Token:
        loops.append(asyncio.get_running_loop())
        return links.at_home.issue()

    second = links.second(links.library.Reauth(refresh, token=links.at_home.issue()))

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        async with anyio.create_task_group() as group:
            group.start_soon(second.aget_token)
            await links.away.await_until(lambda: gate.held == 1)
            group.cancel_scope.cancel()

    links.away.token_endpoint.fail(faults.reply(400, {"error": "invalid_request"}))
    with links.away.token_endpoint.hold() as gate:
        asyncio.run(main())  # it ends before the server answers
    assert second.get_token().access_token
    assert len(set(map(id, loops))) == 2


@pytest.mark.parametrize("code", ["invalid_request", "invalid_grant"])
def test_where_the_server_refuses_the_subject_the_other_reauth_renews_it_once(links, code):
    first = links.first(links.at_home.issue())
    links.away.token_endpoint.fail(faults.reply(400, {"error": code}))
    assert links.second(first).get_token().access_token
    before, after = (request.form["subject_token"] for request in links.away.requests_to("/token"))
    assert before != after == first.token.access_token
    assert (links.at_home.token_requests, links.away.token_requests) == (1, 2)


def test_a_subject_that_was_revoked_early_is_cured_by_that(links):
    first = links.first(links.at_home.issue())
    links.at_home.revoke_access_tokens()
    assert links.second(first).get_token().access_token
    assert (links.at_home.token_requests, links.away.token_requests) == (1, 2)


def test_a_server_that_goes_on_refusing_is_asked_twice_and_no_more(links):
    first = links.first(links.at_home.issue())
    links.away.token_endpoint.fail_always(faults.reply(400, {"error": "invalid_request"}))
    auth = links.second(first)
    for _ in range(5):
        with pytest.raises(RefreshError) as failure:
            auth.get_token()
    assert failure.value.error == "invalid_request"
    assert (links.at_home.token_requests, links.away.token_requests) == (1, 2)


def test_a_server_that_refuses_is_asked_once_if_the_other_reauth_is_dead_too(links):
    """A sign-in that is due elsewhere is no reason to post at each request."""
    first = links.first(links.at_home.issue())
    links.at_home.revoke_refresh_tokens()
    links.away.token_endpoint.fail_always(faults.reply(400, {"error": "invalid_request"}))
    auth = links.second(first)
    for _ in range(5):
        with pytest.raises(SignInRequired):
            auth.get_token()
    assert (links.at_home.token_requests, links.away.token_requests) == (1, 1)


def test_a_string_that_is_refused_is_not_sent_again(links):
    with pytest.raises(RefreshError):
        links.second("unknown-token").get_token()
    assert links.away.token_requests == 1


def test_a_server_in_trouble_is_no_reason_to_renew_the_subject(links):
    first = links.first(links.at_home.issue())
    links.away.token_endpoint.fail_always(faults.reply(503, {"error": "invalid_request"}))
    with pytest.raises(RefreshError):
        links.second(first).get_token()
    assert links.at_home.token_requests == 0


def test_a_sign_in_that_is_due_at_the_other_reauth_is_not_final_here(links):
    first = links.first()
    second = links.second(first)
    for _ in range(3):
        with pytest.raises(SignInRequired, match="subject_token"):
            second.get_token()
    first.sign_in(links.at_home.issue())
    assert second.get_token().access_token
    assert links.away.token_requests == 1


def test_a_dead_refresh_token_of_the_other_reauth_is_posted_once_and_not_final_here(links):
    first = links.first(links.at_home.issue(access_token=False))
    links.at_home.revoke_refresh_tokens()
    second = links.second(first, storage=MemoryStorage())
    for _ in range(3):
        with pytest.raises(SignInRequired) as failure:
            second.get_token()
        assert failure.value.error == "invalid_grant"
    assert links.at_home.token_requests == 1
    first.sign_in(links.at_home.issue())
    assert second.get_token().access_token


def test_a_function_that_asks_another_reauth_is_asked_again_each_time_too(links):
    first = links.first()
    second = links.second(lambda: first.get_token().access_token)
    for _ in range(3):
        with pytest.raises(SignInRequired, match="subject_token"):
            second.get_token()
    first.sign_in(links.at_home.issue(access_token=False))
    links.at_home.token_endpoint.fail(faults.reply(400, {"error": "invalid_grant"}))
    with pytest.raises(SignInRequired) as failure:
        second.get_token()
    assert failure.value.error == "invalid_grant"
    first.sign_in(links.at_home.issue())
    assert second.get_token().access_token


def test_after_an_interrupt_at_its_beginning_the_next_refresh_begins_though_the_back_off_of_one_before_lasts(
    links, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    first = links.first()
    second = links.second(first)
    with pytest.raises(SignInRequired):
        second.get_token()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            second.get_token()
    with pytest.raises(SignInRequired, match="subject_token"):
        second.get_token()
    first.sign_in(links.at_home.issue())
    assert second.get_token().access_token


def test_in_a_pool_too_a_sign_in_elsewhere_is_noticed_at_the_next_request(links):
    first = links.first()
    pool = ReauthPool(lambda _: links.second(first), maxsize=2)
    for _ in range(2):
        with pytest.raises(SignInRequired):
            pool["ada"].get_token()
    first.sign_in(links.at_home.issue())
    assert pool["ada"].get_token().access_token


def test_requests_go_on_with_a_good_token_though_nobody_is_signed_in_at_the_other_reauth(links):
    first = links.first(links.at_home.issue())
    links.away.lifetime = 100.0
    second = links.second(first)
    token = second.get_token()
    first.sign_out()
    links.clock.advance(80)  # it is renewed in the background from now on
    rejected: list[object] = []
    second.store.subscribe(lambda _, action: rejected.append(action) if hasattr(action, "error") else None)
    for _ in range(10):
        assert second.get_token() is token
        second.close()
    assert len(rejected) == 1  # the usual back-off holds
    links.clock.advance(30)
    with pytest.raises(SignInRequired):
        second.get_token()


def test_a_failure_of_the_other_reauth_is_one_here_too(links):
    links.at_home.token_endpoint.fail_always(faults.unavailable())
    second = links.second(links.first(links.at_home.issue(access_token=False)))
    with pytest.raises(RefreshError) as failure:
        second.get_token()
    assert failure.value.status_code == 503
    assert links.away.token_requests == 0


def test_two_that_exchange_each_others_tokens_are_an_error_that_names_the_circle(links):
    links_in_circle: list[Any] = []
    first = links.library.Reauth(lambda _: links_in_circle[0].get_token())
    links_in_circle.append(links.second(first))
    with pytest.raises(RefreshError, match=r"circle|inside of the refresh"):
        links_in_circle[0].get_token()


def test_a_chain_may_have_three_links(links):
    first = links.first(links.at_home.issue(access_token=False))
    second = links.second(first)
    third_server = AuthorizationServer(clock=links.clock, subject_tokens=lambda token, _: links.away.is_good(token))
    client = httpx.Client(transport=third_server.transport(httpx))
    third = links.library.Reauth(TokenExchangeGrant("https://third.test/token", subject_token=second, client=client))
    assert third.get_token().access_token
    assert third_server.requests[0].form["subject_token"] == second.token.access_token


def test_an_actor_may_be_a_reauth_as_well_and_both_are_asked_again(links):
    user = links.first(links.at_home.issue())
    service = links.library.Reauth(
        ClientCredentialsGrant("https://home.test/token", "service", "s3cret", client=links.client_at_home),
        clock=links.clock,
    )
    links.away.token_endpoint.fail(faults.reply(400, {"error": "invalid_request"}))
    assert links.second(user, actor_token=service).get_token().access_token
    one, two = links.away.requests_to("/token")
    assert (one.form["subject_token"], one.form["actor_token"]) != (two.form["subject_token"], two.form["actor_token"])
    assert (two.form["subject_token"], two.form["actor_token"]) == (user.token.access_token, service.token.access_token)
    assert two.form["actor_token_type"] == f"{TYPE}access_token"


# On behalf of each user


def test_on_behalf_of_each_user_there_is_one_chain_per_user(links):
    """What the docs page does: two pools, one exchange per user, and nobody gets the token of another."""
    signed_in = {name: links.at_home.issue() for name in ("ada", "bob")}
    users = ReauthPool(lambda name: links.first(signed_in[name]), maxsize=10)
    services = ReauthPool(lambda name: links.second(users[name]), maxsize=10)
    tokens = {name: services[name].get_token().access_token for name in ("ada", "bob", "ada", "bob")}
    assert tokens["ada"] != tokens["bob"]
    sent = [request.form["subject_token"] for request in links.away.requests_to("/token")]
    assert sent == [signed_in[name].access_token for name in ("ada", "bob")]


# A token that is no access token


@pytest.fixture
def assertion(links) -> Any:
    """A `Reauth` that has exchanged a token for a JWT."""
    return links.second(links.first(links.at_home.issue()), requested_token_type="jwt")


def test_what_is_no_access_token_is_kept_for_get_token(assertion):
    token = assertion.get_token()
    assert (token.token_type, token.extra["issued_token_type"]) == ("N_A", f"{TYPE}jwt")


def test_what_is_no_access_token_is_an_error_on_a_request(links, assertion):
    package = links.library.package
    with package.Client(transport=links.away.transport(package), auth=assertion) as client:
        for _ in range(2):
            with pytest.raises(ReauthError, match="authorize") as failure:
                client.get("https://away.test/me")
            assert isinstance(failure.value, package.TransportError)
    assert (links.away.api_requests, links.away.token_requests) == (0, 1)


@pytest.mark.anyio
async def test_what_is_no_access_token_is_an_error_on_an_async_request(links, assertion, anyio_backend):
    package = links.library.package
    async with package.AsyncClient(transport=links.away.transport(package), auth=assertion) as client:
        with pytest.raises(ReauthError, match="authorize"):
            await client.get("https://away.test/me")
    assert links.away.api_requests == 0


def test_what_is_no_access_token_goes_where_authorize_puts_it(links):
    grant = links.grant(links.first(links.at_home.issue()), requested_token_type="jwt")

    def authorize(request: Any, token: Token) -> None:
        request.headers["X-Assertion"] = token.access_token

    auth = links.library.Reauth(grant, authorize=authorize, clock=links.clock)
    links.away.access = "open"
    package = links.library.package
    with package.Client(transport=links.away.transport(package), auth=auth) as client:
        assert client.get("https://away.test/me").status_code == 200
    assert links.away.requests_to("/me")[0].header("x-assertion") == auth.token.access_token


def test_what_is_no_access_token_is_the_subject_of_the_next_link(links, assertion):
    third_server = AuthorizationServer(subject_tokens=lambda *_: True)
    client = httpx.Client(transport=third_server.transport(httpx))
    grant = TokenExchangeGrant(
        "https://third.test/token", subject_token=assertion, subject_token_type="jwt", client=client
    )
    assert links.library.Reauth(grant).get_token().token_type == "Bearer"
    assert third_server.requests[0].form["subject_token"] == assertion.token.access_token


def test_what_is_no_access_token_survives_a_storage(links):
    storage = MemoryStorage()
    links.second(links.first(links.at_home.issue()), storage, requested_token_type="jwt").get_token()
    again = links.second(links.first(), storage, requested_token_type="jwt")
    assert again.get_token().token_type == "N_A"
    assert links.away.token_requests == 1


def test_any_other_grant_refuses_what_is_no_access_token():
    with AuthorizationServer(edit_token_answer=lambda fields: {**fields, "token_type": "N_A"}) as server:
        client = httpx.Client(transport=server.transport(httpx))
        with pytest.raises(RefreshError, match="N_A"):
            ClientCredentialsGrant(URL, "app", "s3cret", client=client)(Token())


# Secrets


def test_guarantee_11_grant_shows_no_token_and_is_not_pickled():
    first = RefreshTokenGrant(URL, "app")
    grant = TokenExchangeGrant(
        URL, "app", "s3cret", subject_token="s3cret", actor_token="s3cret", extra={"a": "s3cret"}
    )
    assert "s3cret" not in repr(grant)
    assert "s3cret" not in repr(next(grant.flow(OLD)))
    assert copy.copy(grant) is copy.deepcopy(grant) is grant
    assert isinstance(hash(grant), int)
    assert grant != first
    with pytest.raises(TypeError, match="holds secrets"):
        pickle.dumps(grant)


# Many at once


@pytest.mark.anyio
async def test_guarantee_1_a_herd_on_a_chain_makes_one_request_for_each_link(links, anyio_backend):
    second = links.second(links.first(links.at_home.issue(access_token=False)))
    tokens: list[Token] = []

    async def use() -> None:
        tokens.append(await second.aget_token())

    def use_in_thread() -> None:
        tokens.append(second.get_token())

    threads = [threading.Thread(target=use_in_thread) for _ in range(20)]
    async with anyio.create_task_group() as group:
        for thread in threads:
            thread.start()
        for _ in range(100):
            group.start_soon(use)
    for thread in threads:
        await anyio.to_thread.run_sync(thread.join, 20)
    assert len({token.access_token for token in tokens}) == 1
    assert len(tokens) == 120
    assert (links.at_home.token_requests, links.away.token_requests) == (1, 1)


def test_a_key_in_place_of_a_secret():
    from joserfc.jwk import ECKey

    key = ECKey.generate_key("P-256")
    server = AuthorizationServer(client_keys={"app": key.as_pem(private=False)}, subject_tokens=lambda *_: True)
    with server, server.serve() as url:
        server.token_endpoint.fail(faults.unavailable(), faults.unavailable())
        method = PrivateKeyJWT(key.as_pem(private=True))
        grant = TokenExchangeGrant(Issuer(url), "app", client_auth=method, subject_token="anything")
        assert grant(Token()).access_token
        sent = [request.form["client_assertion"] for request in server.requests_to("/token")]
    assert (len(set(sent)), server.tokens_issued, server.assertions_replayed) == (3, 1, 0)
