"""The JWT bearer grant: a new assertion for each attempt."""

from __future__ import annotations

from joserfc.jwk import ECKey

from httpx_reauth import Reauth
from httpx_reauth.oauth import Issuer
from httpx_reauth.oauth.jwt_bearer import JWTBearerGrant, SignedAssertion
from httpx_reauth.testing import AuthorizationServer, faults
from httpx_reauth.testing._assertions import read

KEY = ECKey.generate_key("P-256")


def test_each_attempt_has_an_assertion_of_its_own():
    public = KEY.as_pem(private=False).decode()
    with AuthorizationServer(trusted_issuers={"robot": public}) as server, server.serve() as url:
        server.token_endpoint.fail(faults.unavailable(), faults.unavailable())
        signed = SignedAssertion(KEY.as_pem(private=True), iss="robot", sub="robot", aud=url)
        auth = Reauth(JWTBearerGrant(Issuer(url), assertion=signed))
        assert auth.get_token().access_token
        seen = {read(request.form["assertion"])["jti"] for request in server.requests_to("/token")}
        assert (len(seen), server.tokens_issued) == (3, 1)
