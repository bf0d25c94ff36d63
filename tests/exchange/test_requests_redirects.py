"""Tests of redirects, and of refusals after them: no order is placed twice, and no token leaks (guarantees 5 and 9)."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from httpx_reauth.testing import Answer, AuthorizationServer, faults

ELSEWHERE = "https://elsewhere.example"


def refuses_first_token_at(server: AuthorizationServer, path: str) -> None:
    """Make the server refuse the first token it sees at `path`. Every other path accepts it."""
    refused = []

    def access_token_of(request):
        if request.path == path:
            refused.append(request.bearer_token)
            if request.bearer_token == refused[0]:
                return None if request.bearer_token is None else "refused here"
        return request.bearer_token

    server.access_token_of = access_token_of


def paths(server: AuthorizationServer) -> list[tuple[str, str]]:
    return [(request.method, request.path) for request in server.requests]


@pytest.mark.parametrize("status", [307, 308])
def test_guarantee_5_post_refused_after_a_redirect_is_sent_again_where_it_was_refused(socket_talk, server, status):
    auth = socket_talk.auth()
    refuses_first_token_at(server, "/confirm")
    response = socket_talk(
        auth,
        lambda client: client.post(f"/redirect?to=/confirm&status={status}", content=b"one order"),
        follow_redirects=True,
    )
    assert response.status_code == 200
    assert paths(server) == [("POST", "/redirect"), ("POST", "/confirm"), ("POST", "/token"), ("POST", "/confirm")]
    assert [request.body for request in server.requests_to("/confirm")] == [b"one order"] * 2
    assert [request.bearer_token for request in server.requests_to("/confirm")][
        1
    ] == auth.store.state.token.access_token


@pytest.mark.parametrize("status", [301, 302, 303])
def test_guarantee_5_post_that_became_a_get_is_not_ordered_a_second_time(socket_talk, server, status):
    auth = socket_talk.auth()
    refuses_first_token_at(server, "/receipt")
    response = socket_talk(
        auth,
        lambda client: client.post(f"/redirect?to=/receipt&status={status}", json={"order": 1}),
        follow_redirects=True,
    )
    assert response.status_code == 200
    assert paths(server) == [("POST", "/redirect"), ("GET", "/receipt"), ("POST", "/token"), ("GET", "/receipt")]
    assert [request.body for request in server.requests_to("/receipt")] == [b"", b""]
    assert response.request.method == "GET"


def test_guarantee_5_spent_body_after_a_303_does_not_matter_any_more(socket_talk, server):
    async def parts():
        yield b"an order"

    auth = socket_talk.auth()
    refuses_first_token_at(server, "/receipt")
    response = socket_talk(
        auth,
        lambda client: client.post(
            "/redirect?to=/receipt&status=303", content=parts() if socket_talk.is_async else iter([b"an order"])
        ),
        follow_redirects=True,
    )
    assert response.status_code == 200
    assert paths(server) == [("POST", "/redirect"), ("GET", "/receipt"), ("POST", "/token"), ("GET", "/receipt")]


def test_guarantee_5_redirect_that_is_not_followed_is_the_answer(socket_talk, server):
    auth = socket_talk.auth()
    server.revoke_access_tokens()
    response = socket_talk(auth, lambda client: client.post("/redirect?to=/confirm&status=307", content=b"one order"))
    assert response.status_code == 307
    assert paths(server) == [("POST", "/redirect"), ("POST", "/token"), ("POST", "/redirect")]


def test_request_refused_before_its_redirect_is_replayed_from_there_and_the_redirect_followed(socket_talk, server):
    auth = socket_talk.auth()
    server.revoke_access_tokens()
    response = socket_talk(
        auth,
        lambda client: client.post("/redirect?to=/confirm&status=307", content=b"one order"),
        follow_redirects=True,
    )
    assert response.status_code == 200
    assert paths(server) == [("POST", "/redirect"), ("POST", "/token"), ("POST", "/redirect"), ("POST", "/confirm")]
    assert server.requests_to("/confirm")[0].body == b"one order"


def test_redirects_on_the_same_origin_keep_the_token(socket_talk, server):
    auth = socket_talk.auth()
    response = socket_talk(
        auth,
        lambda client: client.get(f"/redirect?to={quote('/redirect?to=/me')}"),
        follow_redirects=True,
    )
    assert response.status_code == 200
    assert server.authorizations() == [f"Bearer {auth.store.state.token.access_token}"] * 3
    assert [earlier.status_code for earlier in response.history] == [302, 302]


# --- to another origin ---


@pytest.mark.parametrize("status", [302, 303, 307])
def test_guarantee_9_redirect_to_another_origin_carries_no_token_and_its_401_causes_nothing(talk, server, status):
    auth = talk.auth()
    token = auth.store.state.token
    response = talk(
        auth,
        lambda client: client.post(f"/redirect?to={ELSEWHERE}/me&status={status}", content=b"body"),
        follow_redirects=True,
    )
    assert response.status_code == 401
    assert server.authorizations() == [f"Bearer {token.access_token}", None]
    assert server.token_requests == 0
    assert auth.store.state.token is token
    assert auth.store.state.status == "idle"


def test_guarantee_9_redirect_to_another_port_carries_no_token(socket_talk, server):
    with AuthorizationServer() as other, other.serve() as url:
        auth = socket_talk.auth()
        response = socket_talk(auth, lambda client: client.get(f"/redirect?to={url}/me"), follow_redirects=True)
        assert response.status_code == 401
        assert other.authorizations() == [None]
    assert server.token_requests == 0


def test_guarantee_9_redirect_to_another_origin_and_back_causes_no_refresh(talk, server):
    auth = talk.auth()
    back = quote(f"{ELSEWHERE}/redirect?to={quote(talk.site.url + '/me')}")
    server.access = "open"
    response = talk(auth, lambda client: client.get(f"/redirect?to={back}"), follow_redirects=True)
    assert response.status_code == 200
    assert [header is None for header in server.authorizations()] == [False, True, True]

    server.access = "checked"
    token = auth.store.state.token
    refused = []
    server.access_token_of = lambda request: token.access_token if request.path == "/redirect" else refused.append(1)
    response = talk(auth, lambda client: client.get(f"/redirect?to={back}"), follow_redirects=True)
    assert response.status_code == 401  # this request did not carry our token
    assert refused == [1]
    assert server.token_requests == 0


def test_guarantee_9_header_set_by_authorize_is_not_replayed_with_a_new_token_to_another_origin(talk, server):
    # httpx strips only `Authorization` and `Cookie` when a redirect leaves the origin. The README says so.
    def authorize(request, token):
        request.headers["X-Token"] = token.access_token

    auth = talk.auth(authorize=authorize)
    token = auth.store.state.token
    server.access_token_of = lambda request: None if request.path == "/me" else request.header("x-token")
    response = talk(auth, lambda client: client.get(f"/redirect?to={ELSEWHERE}/me"), follow_redirects=True)
    assert response.status_code == 401
    assert [request.header("x-token") for request in server.requests] == [token.access_token] * 2
    assert server.token_requests == 0
    assert auth.store.state.token is token


def test_guarantee_9_header_set_by_authorize_refused_after_a_redirect_on_the_same_origin_is_renewed(talk, server):
    def authorize(request, token):
        request.headers["X-Token"] = token.access_token

    auth = talk.auth(authorize=authorize)
    old = auth.store.state.token.access_token
    server.access_token_of = lambda request: (
        "no" if request.path == "/me" and request.header("x-token") == old else request.header("x-token")
    )
    response = talk(auth, lambda client: client.get("/redirect?to=/me"), follow_redirects=True)
    new = auth.store.state.token.access_token
    assert response.status_code == 200
    assert [(request.path, request.header("x-token")) for request in server.requests_to("/me")] == [
        ("/me", old),
        ("/me", new),
    ]
    assert len(server.requests_to("/redirect")) == 1
    assert server.token_requests == 1


def test_guarantee_9_redirect_up_to_https_on_the_same_host_keeps_the_token(talk, server):
    auth = talk.auth(origins=["http://api.test", "https://api.test"])
    old = auth.store.state.token.access_token
    server.access_token_of = lambda request: (
        "no" if request.path == "/me" and request.bearer_token == old else request.bearer_token
    )
    response = talk(
        auth, lambda client: client.get("http://api.test/redirect?to=https://api.test/me"), follow_redirects=True
    )
    assert response.status_code == 200
    assert str(response.request.url) == "https://api.test/me"
    assert (server.api_requests, server.token_requests) == (3, 1)


def test_guarantee_9_new_token_is_not_sent_to_an_origin_that_is_not_listed_even_up_to_https(talk, server):
    auth = talk.auth(origins=["http://api.test"])
    old = auth.store.state.token.access_token
    server.access_token_of = lambda request: "no" if request.path == "/me" else request.bearer_token
    response = talk(
        auth, lambda client: client.get("http://api.test/redirect?to=https://api.test/me"), follow_redirects=True
    )
    assert response.status_code == 401
    assert {request.bearer_token for request in server.requests_to("/me")} == {old}  # httpx itself sent the header on
    assert server.token_requests == 0


def test_guarantee_9_redirect_of_the_token_endpoint_is_an_error_of_the_refresh(talk, server):
    # httpx does not follow redirects by default, and the error of `from_response` explains the 307.
    auth = talk.auth(server.issue(access_token=False))
    server.token_endpoint.fail(faults.redirect(f"{ELSEWHERE}/token"))
    with pytest.raises(Exception, match="redirect") as failure:
        talk(auth, lambda client: client.get("/me"))
    assert failure.value.status_code == 307
    assert [request.path for request in server.requests] == ["/token"]


# --- an ended session, shown by a redirect to a login page ---


def is_login(response) -> bool:
    return any(one.headers.get("Location", "").endswith("/login") for one in [*response.history, response])


def lets_in_with_a_login_page(server: AuthorizationServer) -> None:
    server.refusal = Answer(302, (("Location", "/login"),))

    def access_token_of(request):
        return server.issue().access_token if request.path == "/login" else request.bearer_token

    server.access_token_of = access_token_of


def test_without_following_it_the_redirect_is_the_refusal_and_the_request_is_sent_again(talk, server):
    lets_in_with_a_login_page(server)
    auth = talk.auth(is_rejected=is_login)
    server.revoke_access_tokens()
    response = talk(auth, lambda client: client.post("/order", content=b"one"))
    assert (response.status_code, response.json()["path"]) == (200, "/order")
    assert [path for _, path in paths(server)] == ["/order", "/token", "/order"]


def test_where_httpx_follows_it_is_rejected_sees_it_in_the_history_and_the_token_is_renewed(talk, server):
    lets_in_with_a_login_page(server)
    auth, seen = talk.auth(is_rejected=lambda response: seen.append(len(response.history)) or is_login(response)), []
    server.revoke_access_tokens()
    response = talk(auth, lambda client: client.get("/me"), follow_redirects=True)
    # docs/limits.md says this: the request that was refused is sent again, here to the login page
    assert response.request.url.path == "/login"
    assert seen[0] == 1
    assert server.token_requests == 1
    assert talk(auth, lambda client: client.get("/me"), follow_redirects=True).json()["path"] == "/me"
    assert server.token_requests == 1
