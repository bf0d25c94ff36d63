"""Tests of the token endpoint without I/O: both grants, rotation, reuse, expiry, revocation, the errors of RFC 6749."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, urlencode

import pytest
from server_ways import bearer, form

from httpx_reauth import Token
from httpx_reauth.testing import Answer, AuthorizationServer, ManualClock

FORM = [("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")]


def post(server, fields, headers=()):
    """Return the status and the fields of the answer to a token request."""
    body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
    answer = server.respond("POST", "/token", [*FORM, *headers], body)
    assert dict(answer.headers)["Cache-Control"] == "no-store"
    return answer.status, json.loads(answer.body)


def status(server, token):
    return server.respond("GET", "/me", bearer(token).items()).status


def counts(server):
    return (
        server.token_requests,
        server.tokens_issued,
        server.refreshes,
        server.reuse_detected,
        server.families_revoked,
    )


def test_a_refresh_answers_as_rfc_6749_says_and_rotates_the_refresh_token(server):
    token = server.issue(scope="read write")
    code, answer = post(server, form(token))
    assert code == 200
    assert answer == {
        "access_token": answer["access_token"],
        "token_type": "Bearer",
        "expires_in": 3600,
        "refresh_token": answer["refresh_token"],
        "scope": "read write",
    }
    assert answer["access_token"] != token.access_token
    assert answer["refresh_token"] != token.refresh_token
    assert status(server, answer["access_token"]) == status(server, token) == 200
    assert counts(server) == (1, 1, 1, 0, 0)


def test_a_refresh_token_used_twice_revokes_its_whole_family_and_no_other(server):
    token, other = server.issue(), server.issue()
    _, second = post(server, form(token))
    _, third = post(server, form(second["refresh_token"]))
    code, answer = post(server, form(token))
    assert (code, answer["error"]) == (400, "invalid_grant")
    assert "used before" in answer["error_description"]
    assert [status(server, t) for t in (token, second["access_token"], third["access_token"])] == [401] * 3
    assert post(server, form(third["refresh_token"]))[1]["error"] == "invalid_grant"
    assert status(server, other) == 200
    assert post(server, form(other))[0] == 200
    assert counts(server) == (5, 3, 3, 1, 1)


def test_without_rotation_the_refresh_token_stays_and_is_left_out_of_the_answer(server):
    server.rotate = False
    token = server.issue()
    for _ in range(3):
        code, answer = post(server, form(token))
        assert code == 200
        assert "refresh_token" not in answer
    assert counts(server) == (3, 3, 3, 0, 0)


def test_a_refresh_ends_the_previous_access_token_immediately_if_so_ordered(server):
    server.revoke_previous = True
    token, other = server.issue(), server.issue()
    _, answer = post(server, form(token))
    assert status(server, token) == 401
    assert status(server, answer["access_token"]) == status(server, other) == 200


@pytest.mark.parametrize(("lifetime", "expires_in"), [(20.0, 20), (0.5, 0.5), (0, 0)])
def test_an_access_token_lives_as_long_as_its_answer_says(clock, lifetime, expires_in):
    server = AuthorizationServer(lifetime=lifetime, clock=clock)
    _, answer = post(server, {"grant_type": "client_credentials"})
    assert answer["expires_in"] == expires_in
    assert type(answer["expires_in"]) is type(expires_in)
    if lifetime:
        clock.advance(lifetime - 0.25)
        assert status(server, answer["access_token"]) == 200
        clock.advance(0.25)
    assert status(server, answer["access_token"]) == 401


def test_a_token_without_an_end_never_expires(clock):
    server = AuthorizationServer(lifetime=None, clock=clock)
    _, answer = post(server, {"grant_type": "client_credentials"})
    assert "expires_in" not in answer
    clock.advance(1e9)
    assert status(server, answer["access_token"]) == 200


def test_the_servers_tokens_age_while_the_client_machine_sleeps_and_ignore_its_clock_being_set(clock, server):
    token = server.issue()
    clock.jump(7200)
    assert status(server, token) == 200
    clock.sleep_through(3600)
    assert status(server, token) == 401


def test_any_clock_will_do():
    class Clock:
        now = 5.0

        def monotonic(self):
            return self.now

        def time(self):
            return 1000.0 + self.now

    clock = Clock()
    server = AuthorizationServer(lifetime=10, clock=clock)
    token = server.issue()
    assert token.expires_at == 1015.0
    clock.now = 14.0
    assert status(server, token) == 200
    clock.now = 15.0
    assert status(server, token) == 401


def test_client_credentials_return_only_an_access_token(server):
    code, answer = post(server, {"grant_type": "client_credentials", "scope": "read"})
    assert code == 200
    assert set(answer) == {"access_token", "token_type", "expires_in", "scope"}
    assert answer["scope"] == "read"
    assert counts(server) == (1, 1, 0, 0, 0)


def test_a_first_sign_in_gives_what_an_application_would_hold():
    server = AuthorizationServer(clock=ManualClock(time=1000.0), lifetime=60)
    token = server.issue(scope="read")
    assert token == Token(
        token.access_token, refresh_token=token.refresh_token, expires_in=60, expires_at=1060.0, scope="read"
    )
    assert counts(server) == (0, 0, 0, 0, 0)


def test_a_first_sign_in_may_lack_a_part(server):
    only_refresh = server.issue(access_token=False)
    assert only_refresh == Token(refresh_token=only_refresh.refresh_token)
    assert post(server, form(only_refresh))[0] == 200
    assert server.issue(refresh_token=False).refresh_token is None
    forever = server.issue(lifetime=None)
    assert (forever.expires_in, forever.expires_at) == (None, None)
    gone = server.issue(lifetime=0)
    assert status(server, gone) == 401
    assert post(server, form(gone))[0] == 200


def test_access_tokens_may_expire_early(server, clock):
    token, forever, short = server.issue(), server.issue(lifetime=None), server.issue(lifetime=0)
    clock.advance(1)
    server.expire_access_tokens()
    assert [status(server, t) for t in (token, forever, short)] == [401] * 3
    assert status(server, server.issue()) == 200
    assert post(server, form(token))[0] == 200


def test_access_tokens_may_be_revoked_early(server):
    token = server.issue()
    server.revoke_access_tokens()
    assert status(server, token) == 401
    assert status(server, server.issue()) == 200
    assert post(server, form(token))[0] == 200


def test_refresh_tokens_may_be_revoked(server):
    token = server.issue()
    server.revoke_refresh_tokens()
    assert status(server, token) == 200
    code, answer = post(server, form(token))
    assert (code, answer["error"]) == (400, "invalid_grant")
    assert counts(server) == (1, 0, 0, 0, 0)


def test_no_token_of_one_server_is_good_at_another(server):
    other = AuthorizationServer()
    assert status(other, server.issue()) == 401
    assert post(other, form(server.issue()))[1]["error"] == "invalid_grant"


def test_the_answers_fields_may_be_edited(server):
    server.edit_token_answer = lambda fields: {**fields, "expires_in": "3600", "token_type": "bEARER"}
    code, answer = post(server, form(server.issue()))
    assert (code, answer["expires_in"], answer["token_type"]) == (200, "3600", "bEARER")
    server.edit_token_answer = lambda _: {"error": "slow_down"}
    assert post(server, {"grant_type": "client_credentials"}) == (200, {"error": "slow_down"})
    assert counts(server) == (2, 2, 1, 0, 0)


def test_the_whole_answer_may_be_replaced_and_the_token_in_it_is_good(server):
    kind = (("Content-Type", "application/x-www-form-urlencoded"),)
    server.edit_token_answer = lambda fields: Answer(201, kind, urlencode(fields).encode())
    answer = server.respond("POST", "/token", FORM, urlencode(form(server.issue())).encode())
    assert (answer.status, answer.headers[:1]) == (201, kind)
    assert status(server, dict(parse_qsl(answer.body.decode()))["access_token"]) == 200


def test_less_scope_may_be_asked_for_and_more_may_not(server):
    token = server.issue(scope="read write")
    assert post(server, {**form(token), "scope": "read write admin"})[1]["error"] == "invalid_scope"
    code, answer = post(server, {**form(token), "scope": "read"})
    assert (code, answer["scope"]) == (200, "read")
    assert post(server, {**form(server.issue()), "scope": "read"})[1]["scope"] == "read"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": "refresh_token"}, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": ""}, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": "nobody's"}, "invalid_grant"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        (b"grant_type=client_credentials&grant_type=client_credentials", "invalid_request"),
    ],
)
def test_a_wrong_request_gets_the_error_of_rfc_6749_and_no_token(server, fields, error):
    code, answer = post(server, fields)
    assert (code, answer["error"]) == (400, error)
    assert counts(server) == (1, 0, 0, 0, 0)


def test_a_token_request_is_a_posted_form(server):
    assert server.respond("GET", "/token").status == 405
    answer = server.respond("POST", "/token", [("Content-Type", "application/json")], b"{}")
    assert (answer.status, json.loads(answer.body)["error"]) == (400, "invalid_request")
    assert server.respond("POST", "/token").status == 400
    assert server.token_requests == 3


def test_the_token_endpoint_may_stand_elsewhere():
    server = AuthorizationServer(token_path="/oauth2/token")
    assert server.respond("POST", "https://id.test/oauth2/token").status == 400
    assert server.respond("POST", "https://id.test/token").status == 401
    assert (server.token_requests, server.api_requests) == (1, 1)
