"""Tests of the settings that change a request, and of the client's hooks and extensions."""

from __future__ import annotations

import json

import pytest

from httpx_reauth import RefreshError, Token
from httpx_reauth.testing import Answer, faults


def get(client):
    return client.get("/me")


# --- how the token is put on the request ---


def test_another_header_may_carry_the_token_and_authorization_is_not_changed(talk, server):
    server.access_token_of = lambda request: request.header("x-api-token")

    def authorize(request, token):
        request.headers["X-Api-Token"] = token.access_token

    auth = talk.auth(authorize=authorize)
    server.revoke_access_tokens()
    replayed, plain = talk.all(auth, get, get, headers={"Authorization": "Basic of-a-proxy"})
    assert (replayed.status_code, plain.status_code) == (200, 200)
    assert set(server.authorizations("/me")) == {"Basic of-a-proxy"}
    tokens = [request.header("x-api-token") for request in server.requests_to("/me")]
    assert tokens[1] == tokens[2] == auth.store.state.token.access_token != tokens[0]
    assert server.token_requests == 1


@pytest.mark.parametrize("scheme", ["token", "Token", "DPoP", "GenieKey", "bearer"])
def test_scheme_set_by_hand_is_sent_as_it_is(talk, server, scheme):
    server.access_token_of = lambda request: request.authorization.removeprefix(f"{scheme} ")

    def refresh(token):
        fresh = server.issue()
        return Token(fresh.access_token, token_type=scheme)

    auth = talk.auth(Token("stale", token_type=scheme), refresh)
    assert talk(auth, get).status_code == 200
    assert server.authorizations("/me") == [f"{scheme} stale", f"{scheme} {auth.store.state.token.access_token}"]


def test_cookie_joins_those_of_the_client_and_the_replay_has_exactly_one_of_ours(talk, server):
    def cookies(request):
        return dict(part.split("=", 1) for part in request.header("cookie").split("; "))

    server.access_token_of = lambda request: cookies(request).get("session")

    def authorize(request, token):
        before = request.headers.get("Cookie")
        ours = f"session={token.access_token}"
        request.headers["Cookie"] = f"{before}; {ours}" if before else ours

    auth = talk.auth(authorize=authorize)
    server.revoke_access_tokens()
    replayed, plain = talk.all(auth, get, get, cookies={"theme": "dark", "lang": "de"})
    assert (replayed.status_code, plain.status_code) == (200, 200)
    for request in server.requests_to("/me"):
        assert request.header("cookie").count("session=") == 1
        assert cookies(request)["theme"] == "dark"
        assert cookies(request)["lang"] == "de"
    sent = [cookies(request)["session"] for request in server.requests_to("/me")]
    assert sent[1] == sent[2] == auth.store.state.token.access_token != sent[0]


def test_csrf_pair_of_cookie_and_header_is_replaced_together(talk, server):
    server.access_token_of = lambda request: request.header("x-csrf-token")

    def authorize(request, token):
        request.headers["Cookie"] = f"csrf={token.access_token}"
        request.headers["X-CSRF-Token"] = token.access_token

    auth = talk.auth(authorize=authorize)
    server.revoke_access_tokens()
    response = talk(auth, lambda client: client.post("/save", json={"a": 1}))
    assert response.status_code == 200
    pairs = [(request.header("cookie"), request.header("x-csrf-token")) for request in server.requests_to("/save")]
    new = auth.store.state.token.access_token
    assert pairs[1] == (f"csrf={new}", new)
    assert pairs[0] != pairs[1]


def test_authorize_may_set_a_second_header_by_the_token_s_further_fields(talk, server):
    server.edit_token_answer = lambda fields: {**fields, "instance": "eu-7"}

    def authorize(request, token):
        request.headers["Authorization"] = f"Bearer {token.access_token}"
        request.headers["X-Instance"] = token.extra.get("instance", "unknown")

    auth = talk.auth(authorize=authorize)
    server.revoke_access_tokens()
    assert talk(auth, get).status_code == 200
    assert [request.header("x-instance") for request in server.requests_to("/me")] == ["unknown", "eu-7"]


def test_header_that_authorize_sets_only_the_first_time_is_gone_from_the_replay(talk, server):
    tokens = []

    def authorize(request, token):
        if not tokens:
            request.headers["X-First"] = "yes"
        tokens.append(token)
        request.headers["Authorization"] = f"Bearer {token.access_token}"

    auth = talk.auth(authorize=authorize)
    server.revoke_access_tokens()
    assert talk(auth, get).status_code == 200
    assert [request.header("x-first") for request in server.requests_to("/me")] == ["yes", None]
    assert len(tokens) == 2


def test_what_authorize_raises_reaches_the_caller_and_nothing_is_sent(talk, server):
    def authorize(request, token):
        raise LookupError("no signature key")

    with pytest.raises(LookupError, match="no signature key"):
        talk(talk.auth(authorize=authorize), get)
    assert server.requests == []


# --- which responses count as a refusal ---


@pytest.mark.parametrize("status", [403, 419, 498, 400])
def test_is_rejected_by_another_status(talk, server, status):
    server.refusal = Answer(status, (), b"who are you?")
    auth = talk.auth(is_rejected=lambda response: response.status_code == status)
    server.revoke_access_tokens()
    assert talk(auth, get).status_code == 200
    assert (server.token_requests, server.api_requests) == (1, 2)


def test_is_rejected_replaces_the_401(talk, server):
    auth = talk.auth(is_rejected=lambda response: response.status_code == 419)
    server.revoke_access_tokens()
    assert talk(auth, get).status_code == 401
    assert server.token_requests == 0


def test_another_status_than_401_causes_nothing_by_default(talk, server):
    auth = talk.auth()
    for status in (400, 403, 407, 419, 429, 500, 503):
        server.api.fail(faults.reply(status))
        assert talk(auth, get).status_code == status
    assert server.token_requests == 0


def test_is_rejected_by_the_challenge_in_a_header(talk, server):
    """A 401 that is not about the token (the server asks for a second factor) is returned to the caller."""
    auth = talk.auth(is_rejected=lambda response: "invalid_token" in response.headers.get("WWW-Authenticate", ""))
    server.api.fail(faults.reply(401, headers={"WWW-Authenticate": "OTP"}))
    handed_on, fine = talk.all(auth, get, get)
    assert (handed_on.status_code, fine.status_code, server.token_requests) == (401, 200, 0)
    server.revoke_access_tokens()
    assert talk(auth, get).status_code == 200
    assert server.token_requests == 1


def test_is_rejected_by_the_body_in_a_subclass_that_asks_for_it(socket_talk, server):
    class ByBody(socket_talk.library.Reauth):
        requires_response_body = True

    server.refusal = Answer(200, (("Content-Type", "application/json"),), json.dumps({"ok": False}).encode())
    auth = ByBody(
        socket_talk.site.refresh("function"),
        token=server.issue(),
        clock=socket_talk.clock,
        is_rejected=lambda response: response.json().get("ok") is False,
    )
    server.revoke_access_tokens()
    replayed, plain = socket_talk.all(auth, get, get)
    assert replayed.json()["path"] == plain.json()["path"] == "/me"
    assert (server.token_requests, server.api_requests) == (1, 3)

    server.access = "refused"  # `is_rejected` is asked about the replay's response as well
    assert socket_talk(auth, get).json() == {"ok": False}
    assert (server.token_requests, server.api_requests) == (2, 5)


def test_is_rejected_override_of_a_subclass_with_body_works_without_the_setting(socket_talk, server):
    """With `requires_response_body`, the body has been read when the caller gets the response."""

    class Reading(socket_talk.library.Reauth):
        requires_response_body = True

    auth = Reading(socket_talk.site.refresh("function"), token=server.issue(), clock=socket_talk.clock)

    def read(client):
        with client.stream("GET", "/me") as response:
            return response.json()["path"]

    async def read_async(client):
        async with client.stream("GET", "/me") as response:
            return response.json()["path"]

    assert socket_talk(auth, read_async if socket_talk.is_async else read) == "/me"


def test_what_is_rejected_raises_reaches_the_caller(talk, server):
    def is_rejected(response):
        raise LookupError("no such field")

    with pytest.raises(LookupError, match="no such field"):
        talk(talk.auth(is_rejected=is_rejected), get)


# --- hooks and extensions of the client ---


def hooks(talk, **functions):
    def of(function):
        async def hook(message):
            function(message)

        return [hook if talk.is_async else function]

    return {name: of(function) for name, function in functions.items()}


def test_event_hooks_see_both_attempts(talk, server):
    seen = []
    auth = talk.auth()
    old = auth.store.state.token.access_token
    server.revoke_access_tokens()
    talk(
        auth,
        get,
        event_hooks=hooks(
            talk,
            request=lambda request: seen.append(request.headers["Authorization"]),
            response=lambda response: seen.append(response.status_code),
        ),
    )
    assert seen == [f"Bearer {old}", 401, f"Bearer {auth.store.state.token.access_token}", 200]


def test_header_of_a_request_hook_stays_single_in_the_replay(talk, server):
    def hook(request):
        request.headers["X-Trace"] = request.headers.get("X-Trace", "") + "t"

    def authorize(request, token):
        request.headers["Authorization"] = f"Bearer {token.access_token}"

    auth = talk.auth(authorize=authorize)
    server.revoke_access_tokens()
    talk(auth, get, event_hooks=hooks(talk, request=hook))
    assert [request.header("x-trace") for request in server.requests_to("/me")] == ["t", "t"]


def test_raise_for_status_in_a_response_hook_comes_before_us_and_the_401_is_raised(talk, server):
    """This is a limit of httpx: a hook sees the response before any auth object does. The README says so."""
    auth = talk.auth()
    server.revoke_access_tokens()
    with pytest.raises(talk.package.HTTPStatusError) as failure:
        talk(auth, get, event_hooks=hooks(talk, response=lambda response: response.raise_for_status()))
    assert failure.value.response.status_code == 401
    assert server.token_requests == 0


def test_response_hook_that_passes_on_the_401_leaves_the_rest_to_us(talk, server):
    def hook(response):
        if response.status_code != 401:
            response.raise_for_status()

    auth = talk.auth()
    server.revoke_access_tokens()
    assert talk(auth, get, event_hooks=hooks(talk, response=hook)).status_code == 200
    server.api.fail(faults.reply(404))
    with pytest.raises(talk.package.HTTPStatusError, match="404"):
        talk(auth, get, event_hooks=hooks(talk, response=hook))


def test_extensions_timeouts_and_headers_of_the_request_are_kept_in_the_replay(talk, server):
    seen = []

    def look(request):
        seen.append((request.extensions["timeout"], request.extensions.get("mark"), request.headers["X-Mine"]))

    auth = talk.auth()
    server.revoke_access_tokens()
    talk(
        auth,
        lambda client: client.get("/me", timeout=12.5, extensions={"mark": "kept"}, headers={"X-Mine": "1"}),
        event_hooks=hooks(talk, request=look),
    )
    timeout = {"connect": 12.5, "read": 12.5, "write": 12.5, "pool": 12.5}
    assert [(dict(kept), mark, mine) for kept, mark, mine in seen] == [(timeout, "kept", "1")] * 2


def test_query_and_method_of_the_replay_are_those_of_the_request(talk, server):
    auth = talk.auth()
    server.revoke_access_tokens()
    talk(auth, lambda client: client.request("PATCH", "/a%20b?x=1&x=2&y=%2F"))
    first, second = server.requests_to("/a%20b")
    assert (first.method, first.query) == (second.method, second.query) == ("PATCH", "x=1&x=2&y=%2F")


def test_request_object_may_be_sent_twice(talk, server):
    auth = talk.auth()

    def twice(client):
        request = client.build_request("POST", "/order", content=b"body")
        server.revoke_access_tokens()
        return client.send(request), client.send(request)

    async def twice_async(client):
        request = client.build_request("POST", "/order", content=b"body")
        server.revoke_access_tokens()
        return await client.send(request), await client.send(request)

    first, second = talk(auth, twice_async if talk.is_async else twice)
    assert (first.status_code, second.status_code) == (200, 200)
    assert [request.body for request in server.requests_to("/order")] == [b"body"] * 3


def test_top_level_functions_of_the_package_take_the_auth(library, socket_site, server, clock):
    auth = library.Reauth(socket_site.refresh("function"), token=server.issue(), clock=clock)
    server.revoke_access_tokens()
    response = library.package.get(f"{socket_site.url}/me", auth=auth, trust_env=False)
    assert response.status_code == 200
    assert server.token_requests == 1


def test_auth_is_an_auth_of_its_package(library):
    assert issubclass(library.Reauth, library.package.Auth)


def test_head_and_204_are_replayed(talk, server):
    auth = talk.auth()
    server.revoke_access_tokens()
    assert talk(auth, lambda client: client.head("/me")).status_code == 200
    server.revoke_access_tokens()
    assert talk(auth, lambda client: client.delete("/thing")).status_code == 200
    assert server.token_requests == 2


# --- settings that make no sense ---


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"leeway": -1}, ValueError),
        ({"leeway": float("nan")}, ValueError),
        ({"leeway": float("inf")}, ValueError),
        ({"refresh_timeout": 0}, ValueError),
        ({"refresh_timeout": -1.0}, ValueError),
        ({"refresh_timeout": float("inf")}, ValueError),
    ],
    ids=str,
)
def test_setting_that_makes_no_sense_is_refused_immediately(library, settings, error):
    with pytest.raises(error, match=next(iter(settings))):
        library.Reauth(lambda token: token, **settings)


@pytest.mark.parametrize("refresh", [None, "https://api.example.com/token", 5, Token("abc")], ids=str)
def test_refresh_that_cannot_be_called_is_refused_immediately(library, refresh):
    with pytest.raises(TypeError, match="refresh must be"):
        library.Reauth(refresh)


def test_guarantee_13_request_is_never_sent_without_the_token_it_needs(talk, server):
    server.access = "open"
    server.token_endpoint.fail_always(faults.unavailable())
    auth = talk.auth(server.issue(access_token=False))
    for _ in range(3):
        with pytest.raises(RefreshError):
            talk(auth, get)
    assert server.api_requests == 0
    assert server.token_requests == 1
