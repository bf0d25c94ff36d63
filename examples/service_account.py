"""A service account: the program signs a JWT with a key file and exchanges it for a token (RFC 7523 §2.1).

The file is JSON in Google's form: `client_email`, `private_key`, `private_key_id`, `token_uri`. Nobody signs in, and
there is no refresh token. The grant signs a new assertion when a token is needed. While an assertion is valid, it is a
secret. It is sent only to `token_uri`, and errors do not show it.

Run it: `python examples/service_account.py`, after `pip install 'pyjwt[crypto]'`. It starts a token endpoint on
loopback, which checks the assertion. With your own file, `... service_account.py key.json SCOPE ...` gets a token and
prints how long it lives.
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
    """A grant for the service account of a key file, with `scope` (several scopes are separated by spaces)."""

    def __init__(self, file: Path, scope: str) -> None:
        key = json.loads(file.read_text(encoding="utf-8"))
        self.token_url: str = key["token_uri"]
        self.email: str = key["client_email"]
        self.key_id: str = key["private_key_id"]
        self.private_key: str = key["private_key"]
        self.scope = scope

    def assertion(self) -> str:
        """Return the JWT (RFC 7523 §3). It is valid for five minutes, and only for this token endpoint."""
        now = int(time.time())
        claims = {"iss": self.email, "scope": self.scope, "aud": self.token_url, "iat": now, "exp": now + 300}
        return jwt.encode(claims, self.private_key, algorithm="RS256", headers={"kid": self.key_id})

    def flow(self, _: Token, /) -> Generator[TokenRequest, httpx.Response, Token]:
        """Exchange an assertion for a token. This request may be sent twice."""
        form = {"grant_type": JWT_BEARER, "assertion": self.assertion()}
        return Token.from_response((yield TokenRequest(self.token_url, form)))


class Provider:
    """A replacement for the provider. It has one service account, and an API that accepts its tokens."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.api = AuthorizationServer()
        self.server = AuthorizationServer(access="open", token_path="/none", resource=self.answer)
        self.token_url = ""

    def key_file(self, base_url: str, file: Path) -> Path:
        """Write the key file to `file`, and return its path."""
        self.token_url = f"{base_url}/token"
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        account = {"type": "service_account", "client_email": "robot@project.example", "private_key_id": "1"}
        file.write_text(json.dumps({**account, "private_key": key, "token_uri": self.token_url}), encoding="utf-8")
        return file

    def answer(self, request: Received) -> Mapping[str, Any] | Answer:
        """Return the response to any request."""
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
    """Send two requests with one token, and a third request after the provider has revoked the token."""
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
