"""Tests of what the server can do beyond refresh tokens and client credentials, without any I/O."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from server_ways import bearer, form

from httpx_reauth.testing import Answer, AuthorizationServer, ManualClock, faults

HOST = "https://id.test"
KEY = ECKey.generate_key("P-256")
OTHER = ECKey.generate_key("P-256")
CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE = "urn:ietf:params:oauth:token-type:"


def call(server: AuthorizationServer, method: str, path: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    headers = [("Content-Type", "application/x-www-form-urlencoded")]
    answer = server.respond(method, f"{HOST}{path}", headers, urlencode(fields, doseq=True).encode())
    assert isinstance(answer.body, bytes)
    return answer.status, json.loads(answer.body or b"{}")


def post(server: AuthorizationServer, **fields: Any) -> tuple[int, dict[str, Any]]:
    return call(server, "POST", "/token", **fields)


def signed(key: Any = KEY, alg: str = "ES256", **claims: Any) -> str:
    fields = {"iss": "app", "sub": "app", "aud": HOST, "exp": int(time.time()) + 60, "jti": str(time.monotonic_ns())}
    return jwt.encode({"alg": alg}, {name: value for name, value in (fields | claims).items() if value}, key, [alg])


def public(key: Any) -> str:
    return key.as_pem(private=False).decode()


@pytest.fixture
def server() -> AuthorizationServer:
    return AuthorizationServer(clock=ManualClock(time=time.time()))


# The document


def test_the_document_names_the_issuer_and_every_endpoint_by_the_origin_that_was_asked(server):
    code, fields = call(server, "GET", "/.well-known/oauth-authorization-server")
    assert code == 200
    assert fields["issuer"] == HOST
    assert fields["token_endpoint"] == f"{HOST}/token"
    assert fields["authorization_endpoint"] == f"{HOST}/authorize"
    assert fields["device_authorization_endpoint"] == f"{HOST}/device_authorization"
    assert fields["revocation_endpoint"] == f"{HOST}/revoke"
    assert JWT_BEARER in fields["grant_types_supported"]
    assert "scopes_supported" not in fields
    assert (server.metadata_requests, server.api_requests) == (1, 0)


def test_the_document_is_where_rfc_8414_puts_it_or_where_it_is_ordered_and_nowhere_else(server):
    server.issuer_path = "/realms/a"
    inserted, appended = (
        "/.well-known/oauth-authorization-server/realms/a",
        "/realms/a/.well-known/openid-configuration",
    )
    assert [call(server, "GET", path)[0] for path in (inserted, appended)] == [200, 404]
    server.metadata_path = appended
    assert [call(server, "GET", path)[0] for path in (inserted, appended)] == [404, 200]
    assert call(server, "GET", appended)[1]["issuer"] == f"{HOST}/realms/a"


def test_the_document_may_be_edited_replaced_or_that_of_somebody_else(server):
    path = "/.well-known/oauth-authorization-server"
    server.scopes = ["a", "b"]
    server.edit_metadata = lambda fields: {**fields, "token_endpoint": "https://evil.example/token"}
    fields = call(server, "GET", path)[1]
    assert (fields["token_endpoint"], fields["scopes_supported"]) == ("https://evil.example/token", ["a", "b"])
    server.edit_metadata = lambda _: Answer(418)
    assert call(server, "GET", path)[0] == 418
    server.metadata_endpoint.fail(faults.metadata_of("https://evil.example"), faults.html())
    assert call(server, "GET", path)[1]["issuer"] == "https://evil.example"
    assert server.respond("GET", path).headers[0] == ("Content-Type", "text/html")


# Signed clients


def test_a_client_may_sign_instead_of_saying_a_secret(server):
    server.client_keys = {"app": public(KEY)}
    proof = {"client_assertion_type": CLIENT_ASSERTION, "grant_type": "client_credentials"}
    assert post(server, client_assertion=signed(), **proof)[0] == 200
    assert post(server, client_assertion=signed(aud=f"{HOST}/token"), **proof)[0] == 200
    assert post(server, client_assertion=signed(), client_id="app", **proof)[0] == 200
    assert server.tokens_issued == 3


@pytest.mark.parametrize(
    ("assertion", "why"),
    [
        (lambda: signed(OTHER), "signature"),
        (lambda: signed(aud="https://elsewhere.test"), "meant for"),
        (lambda: signed(exp=1), "expired"),
        (lambda: signed(exp=None), "exp"),
        (lambda: signed(iss="other"), "both iss and sub"),
        (lambda: signed(sub="nobody", iss="nobody"), "unknown"),
        (lambda: "not.a.jwt", "signature|unknown|lacks"),
    ],
)
def test_an_assertion_that_is_not_right_is_refused_with_the_reason(server, assertion, why):
    server.client_keys = {"app": public(KEY)}
    code, fields = post(
        server, grant_type="client_credentials", client_assertion_type=CLIENT_ASSERTION, client_assertion=assertion()
    )
    assert (code, fields["error"]) == (400, "invalid_client")
    assert any(word in fields["error_description"] for word in why.split("|"))
    assert server.tokens_issued == 0


def test_an_assertion_counts_once(server):
    server.client_keys = {"app": public(KEY)}
    proof = {"client_assertion_type": CLIENT_ASSERTION, "client_assertion": signed()}
    assert post(server, grant_type="client_credentials", **proof)[0] == 200
    code, fields = post(server, grant_type="client_credentials", **proof)
    assert (code, fields["error"]) == (400, "invalid_client")
    assert "jti" in fields["error_description"]
    assert server.assertions_replayed == 1


def test_a_client_with_a_key_has_to_use_it(server):
    server.client_keys, server.clients = {"app": dict(KEY.as_dict(private=False))}, {"app": None, "other": "s" * 32}
    assert post(server, grant_type="client_credentials", client_id="app")[1]["error"] == "invalid_client"


def test_a_client_may_prove_its_secret_instead_of_saying_it(server):
    server.clients = {"app": "s" * 32}
    proof = {"client_assertion_type": CLIENT_ASSERTION, "grant_type": "client_credentials"}
    right, wrong = OctKey.import_key("s" * 32), OctKey.import_key("t" * 32)
    assert post(server, client_assertion=signed(right, "HS256"), **proof)[0] == 200
    assert post(server, client_assertion=signed(wrong, "HS256"), **proof)[1]["error"] == "invalid_client"
    server.client_auth = ["private_key_jwt"]
    assert post(server, client_assertion=signed(right, "HS256"), **proof)[1]["error"] == "invalid_client"


def test_two_ways_of_authenticating_are_one_too_many(server):
    code, fields = post(
        server,
        grant_type="client_credentials",
        client_assertion_type=CLIENT_ASSERTION,
        client_assertion=signed(),
        client_secret="s",
    )
    assert (code, fields["error"]) == (400, "invalid_request")


@pytest.mark.parametrize(("kind", "alg"), [(RSAKey.generate_key(2048), "RS256"), (RSAKey.generate_key(2048), "PS256")])
def test_keys_of_other_kinds_do_as_well(server, kind, alg):
    server.client_keys = {"app": public(kind)}
    assertion = signed(kind, alg)
    proof = {"client_assertion_type": CLIENT_ASSERTION, "client_assertion": assertion}
    assert post(server, grant_type="client_credentials", **proof)[0] == 200


def test_a_key_that_is_none_is_said(server):
    server.client_keys = {"app": "no key"}
    with pytest.raises(ValueError, match="PEM"):
        post(server, grant_type="client_credentials", client_assertion_type=CLIENT_ASSERTION, client_assertion=signed())


# Signed assertions as a grant


def test_an_assertion_of_somebody_who_is_trusted_brings_a_token(server):
    server.trusted_issuers = {"app": public(KEY)}
    code, fields = post(server, grant_type=JWT_BEARER, assertion=signed(sub="user"), scope="read")
    assert (code, fields["scope"]) == (200, "read")
    assert server.is_good(fields["access_token"])
    assert "refresh_token" not in fields
    for wrong in (signed(OTHER), signed(iss="nobody"), signed(aud="https://elsewhere.test"), "", "x"):
        code, fields = post(server, grant_type=JWT_BEARER, assertion=wrong)
        assert (code, fields["error"]) == (400, "invalid_grant")


def test_where_nobody_is_named_any_assertion_brings_a_token_once(server):
    assertion = signed(OTHER, aud="anybody")
    assert post(server, grant_type=JWT_BEARER, assertion=assertion)[0] == 200
    assert post(server, grant_type=JWT_BEARER, assertion=assertion)[1]["error"] == "invalid_grant"
    assert server.assertions_replayed == 1


# Token exchange


def subject(token: str, kind: str = "access_token") -> dict[str, str]:
    return {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": f"{TYPE}{kind}"}


def test_a_good_token_is_exchanged_for_another_and_its_type_is_said(server):
    token = server.issue()
    code, fields = post(server, **subject(token.access_token), audience=["a", "b"], resource="https://api.test")
    assert code == 200
    assert (fields["issued_token_type"], fields["token_type"]) == (f"{TYPE}access_token", "Bearer")
    assert fields["access_token"] != token.access_token
    assert server.is_good(fields["access_token"])


def test_a_bad_token_is_not_exchanged(server):
    token = server.issue()
    server.revoke_access_tokens()
    code, fields = post(server, **subject(token.access_token))
    assert (code, fields["error"]) == (400, "invalid_request")
    assert post(server, **subject(token.refresh_token, "refresh_token"))[0] == 200
    for part in ("subject_token", "subject_token_type"):
        rest = {name: value for name, value in subject("t").items() if name != part}
        assert post(server, **rest)[1]["error"] == "invalid_request"
    assert post(server, **subject(server.issue().access_token), actor_token="a")[1]["error"] == "invalid_request"


def test_jwts_are_exchanged_as_trusted_issuers_has_it(server):
    assert post(server, **subject("anything", "jwt"))[0] == 200
    server.trusted_issuers = {"app": public(KEY)}
    assert post(server, **subject(signed(), "jwt"))[0] == 200
    assert post(server, **subject(signed(OTHER), "id_token"))[1]["error"] == "invalid_request"
    assert post(server, **subject("anything", "jwt"))[1]["error"] == "invalid_request"


def test_tokens_of_another_server_are_exchanged_as_ordered(server):
    other = AuthorizationServer()
    server.subject_tokens = lambda token, _: other.is_good(token)
    assert post(server, **subject(other.issue().access_token))[0] == 200
    assert post(server, **subject(server.issue().access_token))[0] == 400


@pytest.mark.parametrize("kind", ["refresh_token", "id_token", "saml2"])
def test_what_is_no_access_token_has_the_type_n_a(server, kind):
    code, fields = post(server, **subject(server.issue().access_token), requested_token_type=f"{TYPE}{kind}")
    assert (code, fields["token_type"], fields["issued_token_type"]) == (200, "N_A", f"{TYPE}{kind}")
    assert fields["access_token"]


def test_a_target_that_is_not_listed_is_refused(server):
    server.targets = ["a", "https://api.test"]
    token = server.issue().access_token
    assert post(server, **subject(token), audience="a", resource="https://api.test")[0] == 200
    assert post(server, **subject(token), audience=["a", "b"])[1]["error"] == "invalid_target"


# A browser


VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


def authorize(server: AuthorizationServer, **params: Any) -> dict[str, str]:
    fields = {
        "response_type": "code",
        "client_id": "app",
        "redirect_uri": "http://127.0.0.1:1/callback",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "state": "s",
    }
    answer = server.respond("GET", f"{HOST}/authorize?{urlencode(fields | params)}")
    if answer.status != 302:
        return {"status": str(answer.status)}
    back = urlsplit(dict(answer.headers)["Location"])
    return dict(parse_qsl(back.query)) | {"path": back.path}


def redeem(server: AuthorizationServer, code: str, **fields: str) -> tuple[int, dict[str, Any]]:
    known = {"client_id": "app", "redirect_uri": "http://127.0.0.1:1/callback", "code_verifier": VERIFIER}
    return post(server, **{"grant_type": "authorization_code", "code": code, **known, **fields})


def test_a_browser_is_sent_back_with_a_code_that_brings_a_token_once(server):
    back = authorize(server, scope="read")
    assert (back["state"], back["iss"], back["path"]) == ("s", HOST, "/callback")
    code, fields = redeem(server, back["code"])
    assert (code, fields["scope"]) == (200, "read")
    assert post(server, **form(fields["refresh_token"]), client_id="app")[0] == 200
    assert server.is_good(fields["access_token"])
    assert redeem(server, back["code"])[1]["error"] == "invalid_grant"
    assert post(server, **form(fields["refresh_token"]), client_id="app")[1]["error"] == "invalid_grant"
    assert server.authorization_requests == 1


@pytest.mark.parametrize(
    "wrong", [{"code_verifier": "w" * 43}, {"client_id": "other"}, {"redirect_uri": "http://127.0.0.1:2/callback"}]
)
def test_a_code_is_good_for_the_one_who_asked_for_it(server, wrong):
    assert redeem(server, authorize(server)["code"], **wrong)[1]["error"] == "invalid_grant"


def test_a_code_lives_for_a_minute(server):
    code = authorize(server)["code"]
    server.clock.advance(60)
    assert redeem(server, code)[1]["error"] == "invalid_grant"


def test_a_browser_is_sent_back_with_what_is_wrong(server):
    assert authorize(server, response_type="token")["error"] == "unsupported_response_type"
    assert authorize(server, code_challenge_method="plain")["error"] == "invalid_request"
    server.consent = False
    assert authorize(server)["error"] == "access_denied"
    assert authorize(server, redirect_uri="javascript:alert(1)") == {"status": "400"}
    server.clients = {"known": None}
    assert authorize(server) == {"status": "400"}


def test_what_a_browser_is_sent_back_with_may_be_edited(server):
    server.edit_authorization_answer = lambda answer: {**answer, "state": "another"}
    assert authorize(server, redirect_uri="http://127.0.0.1:1/callback?a=b")["state"] == "another"


# A device


def test_a_device_waits_for_its_user(server):
    code, fields = call(server, "POST", "/device_authorization", client_id="app", scope="read")
    assert code == 200
    assert (fields["expires_in"], fields["interval"]) == (600, 5)
    user_code = parse_qs(urlsplit(fields["verification_uri_complete"]).query)["user_code"]
    assert user_code == [fields["user_code"]]
    look = {"grant_type": DEVICE, "client_id": "app", "device_code": fields["device_code"]}
    assert post(server, **look)[1]["error"] == "authorization_pending"
    server.clock.advance(4)
    assert post(server, **look)[1]["error"] == "slow_down"
    server.clock.advance(9)
    assert post(server, **look)[1]["error"] == "slow_down"
    assert server.approve_device(fields["user_code"]) == 1
    server.clock.advance(15)
    code, token = post(server, **look)
    assert (code, token["scope"]) == (200, "read")
    assert server.is_good(token["refresh_token"])
    assert post(server, **look)[1]["error"] == "invalid_grant"
    assert server.device_requests == 1


def test_a_device_whose_user_says_no_or_nothing_gets_no_token(server):
    look = []
    for _ in range(2):
        fields = call(server, "POST", "/device_authorization", client_id="app")[1]
        look.append({"grant_type": DEVICE, "client_id": "app", "device_code": fields["device_code"]})
    assert post(server, **look[0] | {"client_id": "other"})[1]["error"] == "invalid_grant"
    assert server.deny_device() == 2
    assert post(server, **look[0])[1]["error"] == "access_denied"
    server.expire_device_codes()
    assert post(server, **look[1])[1]["error"] == "expired_token"


def test_the_page_of_a_devices_user_says_what_the_user_says(server):
    for consent, error in ((True, None), (False, "access_denied")):
        server.consent = consent
        fields = call(server, "POST", "/device_authorization", client_id="app")[1]
        assert server.respond("GET", fields["verification_uri_complete"]).status == 200
        assert server.respond("GET", fields["verification_uri_complete"]).status == 404
        look = {"grant_type": DEVICE, "client_id": "app", "device_code": fields["device_code"]}
        assert post(server, **look)[1].get("error") == error
    assert server.respond("GET", "/device_authorization").status == 404


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.authorization_pending(), "authorization_pending"),
        (faults.slow_down(), "slow_down"),
        (faults.expired_token(), "expired_token"),
        (faults.access_denied(), "access_denied"),
        (faults.replayed_jti(), "invalid_client"),
    ],
)
def test_what_may_happen_at_the_token_endpoint_can_be_ordered(server, fault, error):
    server.token_endpoint.fail(fault)
    code, fields = post(server, grant_type="client_credentials")
    assert (code, fields["error"]) == (400, error)
    assert post(server, grant_type="client_credentials")[0] == 200


# Revocation


def test_a_revoked_refresh_token_takes_its_access_tokens_along(server):
    token = server.issue()
    assert call(server, "POST", "/revoke", token=token.refresh_token, token_type_hint="refresh_token") == (200, {})
    assert not server.is_good(token.refresh_token)
    assert server.respond("GET", "/me", bearer(token).items()).status == 401
    assert (server.revocation_requests, server.tokens_revoked) == (1, 1)


def test_revoking_an_access_token_revokes_no_other_and_an_unknown_token_is_no_error(server):
    token = server.issue()
    assert call(server, "POST", "/revoke", token=token.access_token)[0] == 200
    assert not server.is_good(token.access_token)
    assert server.is_good(token.refresh_token)
    for known in (token.access_token, "unknown"):
        assert call(server, "POST", "/revoke", token=known)[0] == 200
    assert (server.revocation_requests, server.tokens_revoked) == (3, 1)


def test_a_token_is_revoked_by_its_own_client_only(server):
    server.clients = {"app": "secret", "other": "secret"}
    token = server.issue(client_id="app")
    for wrong in (
        {"client_id": "other", "client_secret": "secret"},
        {"client_id": "app", "client_secret": "wrong"},
        {},
    ):
        code, _ = call(server, "POST", "/revoke", token=token.refresh_token, **wrong)
        assert code == 400
    assert server.is_good(token.refresh_token)
    assert call(server, "POST", "/revoke", client_id="app", client_secret="secret")[1]["error"] == "invalid_request"


def test_a_revocation_that_fails_can_be_ordered(server):
    token = server.issue()
    server.revocation_endpoint.fail(faults.unsupported_token_type(), faults.unavailable())
    assert call(server, "POST", "/revoke", token=token.refresh_token)[1]["error"] == "unsupported_token_type"
    assert server.respond("POST", "/revoke").status == 503
    assert server.is_good(token.refresh_token)
