"""GitHub App installation tokens: the app signs a JWT (RS256) and exchanges it for a token that lives an hour.

`POST /app/installations/{id}/access_tokens` returns `token` and `expires_at` in ISO 8601. The grant makes a new JWT for
each exchange. The token is renewed before its end, with one exchange for all users of the auth object.

Run it: `python examples/github_app.py`, after `pip install 'pyjwt[crypto]'`. It starts a replacement for GitHub on
loopback, which checks the signature. For the real GitHub, leave out `base_url`.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from httpx_reauth import Reauth, Token
from httpx_reauth.oauth import Grant, TokenRequest
from httpx_reauth.testing import Answer, AuthorizationServer, Received, faults

GITHUB = "https://api.github.com"


class InstallationGrant(Grant):
    """A grant that gets a token for one installation of a GitHub App.

    Args:
        client_id: the app's client id.
        private_key: the app's key, as the PEM that GitHub lets you download.
        installation: the number of the installation.
        base_url: GitHub's API; different for GitHub Enterprise Server, or in a test.
    """

    def __init__(self, client_id: str, private_key: str, installation: int, *, base_url: str = GITHUB) -> None:
        self.client_id = client_id
        self.private_key = private_key
        self.url = f"{base_url}/app/installations/{installation}/access_tokens"

    def assertion(self) -> str:
        """Return the JWT. It ends in nine minutes. Its `iat` is a minute ago, because GitHub's clock may be behind."""
        now = int(time.time())
        claims = {"iss": self.client_id, "iat": now - 60, "exp": now + 540}
        return jwt.encode(claims, self.private_key, algorithm="RS256")

    def flow(self, _: Token, /) -> Generator[TokenRequest, httpx.Response, Token]:
        """Exchange a JWT for a token. This request may be sent twice."""
        headers = {"Authorization": f"Bearer {self.assertion()}", "Accept": "application/vnd.github+json"}
        answer = yield TokenRequest(self.url, {}, headers=headers)
        if answer.status_code != 201:
            return Token.from_response(answer)  # raises the error for this response
        fields = answer.json()
        return Token.from_response({"access_token": fields["token"], "expires_at": fields["expires_at"]})


class GitHub:
    """A replacement for GitHub. It knows one app with one installation, and checks the app's signature."""

    def __init__(self, client_id: str, public_key: rsa.RSAPublicKey) -> None:
        self.client_id = client_id
        self.public_key = public_key
        self.tokens = AuthorizationServer()
        self.server = AuthorizationServer(access="open", resource=self.answer)

    def answer(self, request: Received) -> Mapping[str, Any] | Answer:
        """Return the response to any request."""
        if request.path != "/app/installations/42/access_tokens":
            return self.tokens.respond(request.method, request.path, request.headers)
        try:
            claims = jwt.decode(request.bearer_token or "", self.public_key, algorithms=["RS256"])
        except jwt.InvalidTokenError:
            claims = {}
        if claims.get("iss") != self.client_id:
            return faults.reply(401, {"message": "A JSON web token could not be decoded"}).answer
        ends = datetime.now(timezone.utc) + timedelta(hours=1)
        token = self.tokens.issue(lifetime=3600, refresh_token=False)
        fields = {"token": token.access_token, "expires_at": ends.strftime("%Y-%m-%dT%H:%M:%SZ"), "permissions": {}}
        return faults.reply(201, fields).answer


def new_key() -> rsa.RSAPrivateKey:
    """Return a key, as GitHub makes it for an app."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: rsa.RSAPrivateKey) -> str:
    """Return the key in the form that you download from GitHub."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()


def main() -> None:
    """Send two requests with one token, and a third request after GitHub has revoked the token."""
    key = new_key()
    github = GitHub("Iv23example", key.public_key())
    with github.server.serve() as base_url:
        auth = Reauth(InstallationGrant("Iv23example", pem(key), 42, base_url=base_url), origins=[base_url])
        with auth, httpx.Client(base_url=base_url, auth=auth) as client:
            for _ in range(2):
                print(f"/installation/repositories: {client.get('/installation/repositories').status_code}")
            lives = (auth.get_token().expires_at or 0) - time.time()
            print(f"the token lives {lives / 60:.0f} minutes")
            github.tokens.revoke_access_tokens()
            print(f"/installation/repositories: {client.get('/installation/repositories').status_code}")
        print("exchanges:", len(github.server.requests_to("/app/installations/42/access_tokens")))


if __name__ == "__main__":
    main()
