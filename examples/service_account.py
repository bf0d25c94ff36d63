"""A service account: a key file signs a JWT, and the token endpoint gives a token for it (RFC 7523 §2.1).

The file is JSON as Google hands it out: `client_email`, `private_key`, `private_key_id`, `token_uri`. Nobody signs in,
and there is no refresh token: the grant signs a new assertion whenever a token is needed. The assertion is a secret
while it lives; it is posted to `token_uri` only, and hidden in what an error says.

Run it: `python examples/service_account.py`, after `pip install 'pyjwt[crypto]'`. It starts a token endpoint on
loopback, which checks the assertion. With a file of your own, `... service_account.py key.json SCOPE ...` asks for a
token and says how long it lives.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from httpx_reauth import Reauth, Token
from httpx_reauth.oauth import Grant, TokenRequest
from httpx_reauth.testing import Answer, AuthorizationServer, Received, faults

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class ServiceAccountGrant(Grant):
    """A token for the service account of a key file, with `scope` (several are separated by blanks)."""

    def __init__(self, file: Path, scope: str) -> None:
        key = json.loads(file.read_text(encoding="utf-8"))
        self.token_url: str = key["token_uri"]
        self.email: str = key["client_email"]
        self.key_id: str = key["private_key_id"]
        self.private_key: str = key["private_key"]
        self.scope = scope

    def assertion(self) -> str:
        """The JWT (RFC 7523 §3), good for five minutes and for this token endpoint only."""
        now = int(time.time())
        claims = {"iss": self.email, "scope": self.scope, "aud": self.token_url, "iat": now, "exp": now + 300}
        return jwt.encode(claims, self.private_key, algorithm="RS256", headers={"kid": self.key_id})

    def flow(self, _: Token, /) -> Generator[TokenRequest, httpx.Response, Token]:
        """Exchange an assertion for a token; asking twice does no harm."""
        form = {"grant_type": JWT_BEARER, "assertion": self.assertion()}
        return Token.from_response((yield TokenRequest(self.token_url, form)))


class Provider:
    """A stand-in for the provider: it has one service account, and an API that takes its tokens."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.api = AuthorizationServer()
        self.server = AuthorizationServer(access="open", token_path="/none", resource=self.answer)
        self.token_url = ""

    def key_file(self, base_url: str, file: Path) -> Path:
        """The key file, written to `file`."""
        self.token_url = f"{base_url}/token"
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        account = {"type": "service_account", "client_email": "robot@project.example", "private_key_id": "1"}
        file.write_text(json.dumps({**account, "private_key": key, "token_uri": self.token_url}), encoding="utf-8")
        return file

    def answer(self, request: Received) -> Mapping[str, Any] | Answer:
        """What is answered to any request."""
        if request.path != "/token":
            return self.api.respond(request.method, request.path, request.headers)
        try:
            assertion = request.form["assertion"]
            claims = jwt.decode(assertion, self.key.public_key(), algorithms=["RS256"], audience=self.token_url)
        except (KeyError, jwt.InvalidTokenError):
            claims = {}
        if request.form.get("grant_type") != JWT_BEARER or claims.get("iss") != "robot@project.example":
            return faults.reply(400, {"error": "invalid_grant", "error_description": "Invalid JWT"}).answer
        token = self.api.issue(refresh_token=False, scope=claims["scope"])
        return {"access_token": token.access_token, "expires_in": 3600, "token_type": "Bearer", "scope": token.scope}


def main() -> None:
    """Two requests with one token; a third when the provider has revoked it."""
    provider = Provider()
    with provider.server.serve() as base_url, tempfile.TemporaryDirectory() as folder:
        grant = ServiceAccountGrant(provider.key_file(base_url, Path(folder, "key.json")), "reports.read")
        auth = Reauth(grant, origins=[base_url])
        with auth, httpx.Client(base_url=base_url, auth=auth) as client:
            print(f"/reports: {client.get('/reports').status_code}, {client.get('/reports').status_code}")
            provider.api.revoke_access_tokens()
            print(f"/reports: {client.get('/reports').status_code}")
        print(f"assertions: {len(provider.server.requests_to('/token'))}, for {auth.get_token().scope}")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        token = Reauth(ServiceAccountGrant(Path(sys.argv[1]), " ".join(sys.argv[2:]))).get_token()
        print(f"a token that lives {token.expires_in} seconds")
