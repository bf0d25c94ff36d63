"""Tests of tokens that a refresh found elsewhere, tokens that cannot be sent, and logins without a refresh token."""

from __future__ import annotations

import httpx
import pytest

from httpx_reauth import RefreshError, RefreshFulfilled, SignInRequired, Token
from httpx_reauth._tokens._refresh.loops import Stopped
from httpx_reauth.oauth import ClientCredentialsGrant
from httpx_reauth.testing import faults


def get(client):
    return client.get("/me")


class Table:
    """A database row that several workers share. The refresh reads the row before it asks the server."""

    def __init__(self, talk, row: Token) -> None:
        self.talk = talk
        self.row = row
        self.asked_with: list[Token] = []

    def __call__(self, token: Token) -> Token:
        self.asked_with.append(token)
        if token.access_token != self.row.access_token:
            return self.row  # another worker has renewed the token already
        form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
        with self.talk.site.client() as client:
            self.row = Token.from_response(client.post("/token", data=form))
        return self.row


# --- a refresh that returns a token it has found ---


def test_fresh_token_that_the_refresh_has_found_is_used_as_it_is(talk, server, clock):
    found = server.issue(lifetime=600)
    table = Table(talk, found)
    mine = server.issue()
    auth = talk.auth(mine, table)
    server.expire_access_tokens()
    found = table.row = server.issue(lifetime=600)
    assert talk(auth, get).status_code == 200
    assert table.asked_with == [mine]
    assert server.token_requests == 0
    assert auth.store.state.token == found


@pytest.mark.parametrize("ago", [0.0, 0.001, 1.0, 86_400.0])
def test_expired_token_that_the_refresh_has_found_is_renewed_by_asking_once_more_with_it(talk, server, clock, ago):
    lifetime = 100.0
    found = server.issue(lifetime=lifetime)
    clock.advance(lifetime + ago)
    mine = Token("older", refresh_token="used up", expires_at=clock.time() - 10)
    table = Table(talk, found)
    auth = talk.auth(mine, table)
    assert talk(auth, get).status_code == 200
    assert [asked.access_token for asked in table.asked_with] == ["older", found.access_token]
    assert table.asked_with[1].refresh_token == found.refresh_token
    assert (server.token_requests, server.reuse_detected) == (1, 0)
    assert auth.store.state.token.access_token == table.row.access_token


def test_refresh_that_returns_a_found_token_is_called_once_more_and_no_oftener(talk, server, clock):
    asked = []

    def refresh(token):
        asked.append(token.access_token)
        return Token(f"found-{len(asked)}", expires_at=clock.time() - 5)

    server.access = "open"
    auth = talk.auth(Token("mine", expires_at=clock.time() - 10), refresh)
    # a waiting request uses the token that the refresh returns, even an expired one
    assert talk(auth, get).status_code == 200
    assert asked == ["mine", "found-1"]
    assert server.authorizations() == ["Bearer found-2"]


@pytest.mark.parametrize("second", ["fails", "is stopped"])
def test_guarantee_2_rotated_token_is_not_lost_when_the_refresh_is_asked_once_more_in_vain(talk, server, clock, second):
    """The wall clock is ahead, and the answer has an absolute end. So a fresh token looks like one that was found."""
    asked = []

    def refresh(token):
        asked.append(token.refresh_token)
        if len(asked) == 2:
            raise RefreshError("down") if second == "fails" else Stopped
        form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
        with talk.site.client() as client:
            answer = Token.from_response(client.post("/token", data=form))
        return Token(answer.access_token, refresh_token=answer.refresh_token, expires_at=clock.time() - 1)

    auth = talk.auth(server.issue(access_token=False), refresh)
    assert talk(auth, get).status_code == 200
    assert auth.store.state.token.refresh_token == asked[1]
    assert talk(auth, get).status_code == 200
    assert (asked[2], server.reuse_detected) == (asked[1], 0)


def test_refresh_that_returns_the_refused_token_is_called_once_more(talk, server):
    """The row has not changed. So the refresh first returns our own token, which the server has just refused."""
    mine = server.issue()
    asked = []

    def refresh(token):
        asked.append(token.access_token)
        return token if len(asked) == 1 else server.issue()

    auth = talk.auth(mine, refresh)
    server.revoke_access_tokens()
    assert talk(auth, get).status_code == 200
    assert asked == [mine.access_token] * 2


def test_same_token_for_ever_ends_with_the_401_and_without_a_loop(talk, server):
    mine = server.issue()
    asked = []

    def refresh(token):
        asked.append(token)
        return token

    auth = talk.auth(mine, refresh)
    server.revoke_access_tokens()
    statuses = [response.status_code for response in talk.all(auth, *[get] * 5)]
    assert statuses == [401] * 5
    assert len(asked) == 2
    assert server.api_requests == 6


def test_fresh_answer_that_says_expires_in_zero_is_no_found_token(talk, server, clock):
    asked = []

    def refresh(token):
        asked.append(token)
        return Token(server.issue().access_token, expires_in=0)

    auth = talk.auth(Token("gone", expires_at=clock.time() - 1), refresh)
    assert talk(auth, get).status_code == 200
    assert len(asked) == 1


def test_second_answer_carries_forward_what_the_found_one_had(talk, server, clock):
    found = Token("found", refresh_token="found-refresh", scope="of the row", expires_at=clock.time() - 1)
    auth = talk.auth(
        Token("mine", refresh_token="my-refresh", scope="mine", expires_at=clock.time() - 1),
        lambda token: found if token.access_token == "mine" else Token("new", expires_in=60),
    )
    server.access = "open"
    talk(auth, get)
    token = auth.store.state.token
    assert (token.access_token, token.refresh_token, token.scope) == ("new", "found-refresh", "of the row")
    assert token.expires_at == clock.time() + 60


def test_refresh_that_found_a_token_and_then_fails_is_one_failure(talk, server, clock):
    def refresh(token):
        if token.access_token == "mine":
            return Token("found", refresh_token="found-refresh", expires_at=clock.time() - 1)
        raise SignInRequired("That one is dead, too.")

    auth = talk.auth(Token("mine", expires_at=clock.time() - 1), refresh)
    with pytest.raises(SignInRequired, match="dead, too"):
        talk(auth, get)


# --- a login ---


def test_login_function_without_a_refresh_token_gets_an_empty_token_first_and_the_last_one_later(talk, server):
    asked = []

    def login(token):
        asked.append(token)
        return server.issue(refresh_token=False)

    auth = talk.library.Reauth(login, clock=talk.clock)
    assert auth.store.state.token is None
    assert talk(auth, get).status_code == 200
    assert asked == [Token()]
    assert not asked[0].access_token
    assert asked[0].refresh_token is None

    first = auth.store.state.token
    server.revoke_access_tokens()
    assert talk(auth, get).status_code == 200
    assert asked[1] == first
    assert asked[1].refresh_token is None
    assert server.token_requests == 0


def test_login_after_a_sign_out_starts_anew(talk, server):
    asked = []

    def login(token):
        asked.append(token)
        return server.issue(refresh_token=False)

    auth = talk.auth(server.issue(), login)
    auth.sign_out()
    assert talk(auth, get).status_code == 200
    assert asked == [Token()]


def test_client_credentials_need_no_token_at_all(talk, server):
    grant = ClientCredentialsGrant(
        "https://api.test/token", "app", "secret", client=httpx.Client(transport=server.transport(httpx))
    )
    server.clients = {"app": "secret"}
    auth = talk.library.Reauth(grant, clock=talk.clock)
    assert talk(auth, get).status_code == 200
    server.revoke_access_tokens()
    assert talk(auth, get).status_code == 200
    assert [request.form["grant_type"] for request in server.requests_to("/token")] == ["client_credentials"] * 2


# --- the times in a refresh's answer ---


def test_times_of_the_answer_are_filled_in_from_the_start_of_the_refresh(talk, server, clock):
    def refresh(token):
        clock.advance(7)  # the duration of the refresh in seconds
        return Token("new", expires_in=60)

    server.access = "open"
    started = clock.time()
    auth = talk.auth(Token("gone", expires_at=started - 1), refresh)
    told = []
    auth.store.subscribe(lambda state, action: told.append(action))
    talk(auth, get)
    assert auth.store.state.token.expires_at == started + 60
    fulfilled = [action for action in told if isinstance(action, RefreshFulfilled)]
    assert [(action.elapsed, action.reason, action.adopted) for action in fulfilled] == [(7.0, "expired", False)]


# --- tokens that cannot be sent ---

HOSTILE = [
    "abc\n",
    "\nabc",
    "abc\r\nX-Admin: yes",
    "abc\rdef",
    "abc\x00def",
    "abc\x7f",
    "abc\x1b[31m",
    "abc\t",
    "\tabc",
    "a\tb",
    " abc",
    "abc ",
    " ",
    "\n",
    "äbc",
    "abc\u2028def",
    "abc\u0085",
    "日本",
    "abc\u200b",
    "\ud800",
    "abc\xa0",
]


@pytest.mark.parametrize("access_token", HOSTILE, ids=ascii)
def test_token_that_cannot_be_sent_cannot_be_made(access_token):
    with pytest.raises(ValueError, match="cannot be sent") as failure:
        Token(access_token)
    assert access_token.strip() not in str(failure.value) or not access_token.strip()


@pytest.mark.parametrize("token_type", ["", " ", "Bearer\n", "Bearer\r\nX: y", "Be arer", "Bearer:", "Bär", "a\x00"])
def test_scheme_that_cannot_be_sent_cannot_be_made(token_type):
    with pytest.raises(ValueError, match="token_type"):
        Token("abc", token_type=token_type)


@pytest.mark.parametrize("access_token", ["a", "a b", "~!@#$%^&*()_+|}{:?><", "eyJh.eyJz.sig-_", "a==", '"quoted"'])
def test_token_that_can_be_sent_is_sent_as_it_is(talk, server, access_token):
    server.access = "open"
    assert talk(talk.auth(Token(access_token)), get).status_code == 200
    assert server.authorizations() == [f"Bearer {access_token}"]


def test_guarantee_13_hostile_token_of_the_token_endpoint_is_never_put_into_a_header(talk, server):
    auth = talk.auth(server.issue(access_token=False))
    for number, hostile in enumerate(HOSTILE):
        if hostile == "\ud800":  # JSON in UTF-8 cannot represent it
            continue
        server.token_endpoint.fail(faults.reply(200, {"access_token": hostile, "refresh_token": f"r-{number}"}))
        with pytest.raises(RefreshError, match="unusable"):
            talk(auth, get)
        talk.clock.advance(31)
    assert server.api_requests == 0


def test_guarantee_13_hostile_refresh_token_of_the_token_endpoint_is_refused(talk, server):
    auth = talk.auth(server.issue(access_token=False))
    server.token_endpoint.fail(faults.reply(200, {"access_token": "fine", "refresh_token": "evil\r\nX: y"}))
    with pytest.raises(RefreshError, match="unusable"):
        talk(auth, get)
    assert server.api_requests == 0


def test_token_read_from_a_file_with_its_newline_fails_where_it_is_made_and_says_why(tmp_path):
    path = tmp_path / "token"
    path.write_text("abc123\n")
    with pytest.raises(ValueError, match=r"\.strip\(\)"):
        Token(path.read_text())


def test_hostile_token_of_a_refresh_function_is_a_refresh_error_of_the_request(talk, server):
    auth = talk.auth(server.issue(access_token=False), lambda token: Token("abc\n"))
    with pytest.raises(talk.package.TransportError) as failure:
        talk(auth, get)
    assert isinstance(failure.value, RefreshError)
    assert isinstance(failure.value.__cause__, ValueError)
    assert server.api_requests == 0
