"""Log in, then refresh: a service with JSON endpoints that do not follow OAuth.

`POST /login` takes an e-mail address and a password. `POST /refresh` takes a refresh token, which may be used once. One
function uses both. It gets the last token. If that token has a refresh token, the function sends it. If there is no
refresh token, or if the service does not accept it, the function logs in. After a wrong password, there is no attempt
for a minute, so that no account is locked.

Run it: `python examples/login_then_refresh.py`. It starts both services on loopback, and prints the requests to them.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx

from httpx_reauth import Reauth, Token
from httpx_reauth.testing import Answer, AuthorizationServer, Received, faults


def refresh_at(accounts_url: str, email: str, password: str) -> Callable[[Token], Awaitable[Token]]:
    """Return the refresh for the user with these credentials."""

    async def refresh(last: Token) -> Token:
        async with httpx.AsyncClient(base_url=accounts_url, timeout=5.0) as client:
            if last.refresh_token:
                answer = await client.post("/refresh", json={"refreshToken": last.refresh_token})
                if answer.status_code != 401:
                    return read(answer)
            return read(await client.post("/login", json={"email": email, "password": password}))

    return refresh


def read(answer: httpx.Response) -> Token:
    """Return the token in a response of the service."""
    if answer.is_error:
        return Token.from_response(answer)  # raises the error for this response
    fields = answer.json()
    return Token(fields["accessToken"], refresh_token=fields["refreshToken"], expires_in=fields["expiresIn"])


class Accounts:
    """A replacement for the service that knows the users. `api` is the other service, which accepts its tokens."""

    def __init__(self, api: AuthorizationServer, email: str, password: str) -> None:
        self.api = api
        self.user = {"email": email, "password": password}
        self.refresh_tokens: set[str | None] = set()
        self.server = AuthorizationServer(access="open", resource=self.answer)

    def answer(self, request: Received) -> Mapping[str, Any] | Answer:
        """Return the response to `/login` and `/refresh`."""
        sent = json.loads(request.body)
        is_known = sent == self.user if request.path == "/login" else sent["refreshToken"] in self.refresh_tokens
        if not is_known:
            return faults.reply(401, {"message": "I do not know you."}).answer
        token = self.api.issue()
        self.refresh_tokens = {token.refresh_token}
        return {"accessToken": token.access_token, "refreshToken": token.refresh_token, "expiresIn": token.expires_in}

    def asked(self) -> str:
        """Return the paths of the requests so far."""
        return " ".join(request.path for request in self.server.requests)


async def main() -> None:
    """Send three requests. The first needs a login, the second a refresh, the third a second login."""
    email = os.environ.get("EXAMPLE_EMAIL", "me@example.com")
    password = os.environ.get("EXAMPLE_PASSWORD", "correct horse battery staple")
    api = AuthorizationServer()
    accounts = Accounts(api, email, password)
    with accounts.server.serve() as accounts_url, api.serve() as api_url:
        auth = Reauth(refresh_at(accounts_url, email, password), origins=[api_url])
        async with auth, httpx.AsyncClient(base_url=api_url, auth=auth) as client:
            print(f"/me: {(await client.get('/me')).status_code}, after {accounts.asked()}")

            api.revoke_access_tokens()
            print(f"/me: {(await client.get('/me')).status_code}, after {accounts.asked()}")

            api.revoke_access_tokens()
            accounts.refresh_tokens.clear()
            print(f"/me: {(await client.get('/me')).status_code}, after {accounts.asked()}")


if __name__ == "__main__":
    asyncio.run(main())
