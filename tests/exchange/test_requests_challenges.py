"""Tests of refusals with a reason in `WWW-Authenticate`.

Three errors start no refresh, because a new token would not help.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from httpx_reauth.testing import Answer
from httpx_reauth.testing.faults import Fault

ANOTHER_TOKEN_WOULD_NOT_HELP = [
    ['Bearer realm="api", error="insufficient_scope", scope="admin"'],
    ['BEARER Error = "insufficient_scope"'],
    ["Bearer error=insufficient_scope"],
    ['Bearer error="insufficient_user_authentication", acr_values="myACR", max_age="5"'],
    ['DPoP error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof"'],
    ['Basic realm="a, b", Bearer realm="c", error="insufficient_scope"'],
    ["Negotiate oYG2==", 'Bearer realm="c"', 'Bearer error="insufficient_scope"'],
]
ANOTHER_TOKEN_MAY_HELP = [
    [],
    ["Bearer"],
    ['Bearer error="invalid_token", error_description="not for insufficient_scope"'],
    ['Bearer realm="error=insufficient_scope, error=\\"insufficient_scope\\""'],
    ["insufficient_scope"],
    ['DPoP error="use_dpop_nonce"', 'Bearer error="invalid_token"'],
    ['Bearer error="', "\\"],
]


def get(client):
    return client.get("/me")


def refusal(fields: list[str], status: int = 401) -> Fault:
    return Fault(Answer(status, tuple(("WWW-Authenticate", field) for field in fields), b"no"))


@pytest.mark.parametrize("fields", ANOTHER_TOKEN_WOULD_NOT_HELP, ids=str)
def test_guarantee_6_a_401_that_another_token_would_get_as_well_is_returned_and_starts_no_refresh(talk, server, fields):
    auth = talk.auth()
    server.api.fail(*[refusal(fields)] * 3)
    answers = talk.all(auth, *[get] * 4)  # the first request has no snapshot yet, the others have one
    assert [answer.status_code for answer in answers] == [401, 401, 401, 200]
    assert (server.token_requests, server.api_requests) == (0, 4)


def test_guarantee_6_insufficient_scope_over_a_socket_keeps_its_body_and_its_connection(socket_talk, server):
    auth = socket_talk.auth()
    server.api.fail(refusal(ANOTHER_TOKEN_WOULD_NOT_HELP[0]))
    refused, fine = socket_talk.all(auth, get, get)
    assert (refused.status_code, refused.content, fine.status_code) == (401, b"no", 200)
    assert server.token_requests == 0


@pytest.mark.parametrize("fields", ANOTHER_TOKEN_MAY_HELP, ids=str)
def test_any_other_401_renews_the_token_whatever_its_challenges_look_like(talk, server, fields):
    auth = talk.auth()
    server.api.fail(refusal(fields))
    assert talk(auth, get).status_code == 200
    assert (server.token_requests, server.api_requests) == (1, 2)


def test_the_error_of_our_own_scheme_decides_where_several_name_one(talk, server):
    fields = ['Bearer error="invalid_token"', 'DPoP error="use_dpop_nonce"']
    server.access_token_of = lambda request: request.authorization.partition(" ")[2]
    for scheme, token_requests in (("DPoP", 0), ("dpop", 0), ("Bearer", 1)):
        server.api.fail(refusal(fields))
        talk(talk.auth(replace(server.issue(), token_type=scheme)), get)
        assert server.token_requests == token_requests


def test_insufficient_scope_under_403_starts_no_refresh_either(talk, server):
    auth = talk.auth()
    server.api.fail(refusal(ANOTHER_TOKEN_WOULD_NOT_HELP[0], status=403))
    assert talk(auth, get).status_code == 403
    assert server.token_requests == 0


@pytest.mark.parametrize("status", [401, 403])
def test_if_is_rejected_is_given_only_it_decides(talk, server, status):
    """A server may give a new role only to new tokens, and refuse the old ones with this error."""
    auth = talk.auth(is_rejected=lambda response: response.status_code == status)
    server.api.fail(refusal(ANOTHER_TOKEN_WOULD_NOT_HELP[0], status=status))
    assert talk(auth, get).status_code == 200
    assert server.token_requests == 1


def test_a_replay_that_is_refused_for_its_scope_says_nothing_against_the_new_token(talk, server):
    auth = talk.auth()
    server.revoke_access_tokens()
    server.api.fail(refusal(['Bearer error="invalid_token"']), refusal(ANOTHER_TOKEN_WOULD_NOT_HELP[0]))
    assert talk(auth, get).status_code == 401
    server.revoke_access_tokens()
    assert talk(auth, get).status_code == 200  # there is no back-off: this 401 starts a refresh immediately
    assert server.token_requests == 2
