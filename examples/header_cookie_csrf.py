"""A header other than `Authorization`, or a cookie with its CSRF token: `authorize` and `is_rejected`.

The first API needs a short-lived key in `X-API-Key`, and returns 403 for an old key. The second API is a web site for
browsers. Its login sets a session cookie and returns a CSRF token. If the session has ended, the site returns 419.
After a 403 or a 419, the auth object gets a new key or a new session, and the request is sent again.

At a redirect, httpx removes `Cookie`. If the redirect leads to another origin, it also removes `Authorization`. It
keeps your own headers.

Run it: `python examples/header_cookie_csrf.py`. It starts both servers on loopback.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from http.cookies import SimpleCookie

import httpx

from httpx_reauth import Reauth, Token
from httpx_reauth.oauth import ClientCredentialsGrant
from httpx_reauth.testing import Answer, AuthorizationServer, Received, faults


def key_auth(grant: ClientCredentialsGrant, api_url: str) -> Reauth:
    """Return an auth object that puts the key of any grant into a header other than `Authorization`."""

    def authorize(request: httpx.Request, token: Token) -> None:
        request.headers["X-API-Key"] = token.access_token

    return Reauth(grant, authorize=authorize, is_rejected=lambda answer: answer.status_code == 403, origins=[api_url])


def session_auth(login_url: str, user: str, password: str, site_url: str) -> Reauth:
    """Return an auth object for a web site. The cookie is the access token, and the CSRF token is another field."""

    def log_in(_: Token) -> Token:
        answer = httpx.post(login_url, data={"user": user, "password": password}, timeout=5.0)
        if answer.is_error:
            return Token.from_response(answer)  # raises the error for this response
        return Token(answer.cookies["session"], extra={"csrf": answer.json()["csrf"]})

    def authorize(request: httpx.Request, token: Token) -> None:
        others = request.headers.get("Cookie")  # from the client's own cookie jar
        session = f"session={token.access_token}"
        request.headers["Cookie"] = f"{others}; {session}" if others else session
        request.headers["X-CSRF-Token"] = token.extra["csrf"]

    return Reauth(log_in, authorize=authorize, is_rejected=lambda answer: answer.status_code == 419, origins=[site_url])


class Site:
    """A replacement for the site. People log in at one address and order at another one."""

    def __init__(self, user: str, password: str) -> None:
        self.user = {"user": user, "password": password}
        self.csrf: dict[str, str] = {}  # the CSRF token of each session
        self.logins = AuthorizationServer(access="open", resource=self.log_in)
        self.orders = AuthorizationServer(access_token_of=session_of, refusal=Answer(419), resource=self.order)

    def log_in(self, request: Received) -> Answer:
        """Start a new session, if the password is correct."""
        if request.form != self.user:
            return faults.reply(401, {"error": "wrong password"}).answer
        session = self.orders.issue(refresh_token=False).access_token
        self.csrf[session] = secrets.token_hex(8)
        cookie = f"session={session}; HttpOnly; SameSite=Lax; Path=/"
        return faults.reply(200, {"csrf": self.csrf[session]}, {"Set-Cookie": cookie}).answer

    def order(self, request: Received) -> Answer:
        """Accept an order, if it has the CSRF token."""
        if request.header("x-csrf-token") != self.csrf[session_of(request) or ""]:
            return Answer(400)
        return faults.reply(201, {"bytes": len(request.body)}).answer


def session_of(request: Received) -> str | None:
    """Return the session in the cookies of `request`."""
    morsel = SimpleCookie(request.header("cookie") or "").get("session")
    return None if morsel is None else morsel.value


def show(what: str, ask: Callable[[], httpx.Response], revoke: Callable[[], None]) -> None:
    """Send two requests. The server ends the key or session of the first one before the second one."""
    first = ask().status_code
    revoke()
    print(f"{what}: {first}; after the server has ended it: {ask().status_code}")


def main() -> None:
    """Show both kinds, each before and after the server has ended the key or session."""
    secret = os.environ.get("EXAMPLE_SECRET", "kept in the environment")
    prices = AuthorizationServer(
        clients={"shop": secret}, access_token_of=lambda request: request.header("x-api-key"), refusal=Answer(403)
    )
    site = Site("me", secret)
    with prices.serve() as prices_url, site.logins.serve() as logins_url, site.orders.serve() as orders_url:
        grant = ClientCredentialsGrant(f"{prices_url}/token", "shop", secret)
        with httpx.Client(base_url=prices_url, auth=key_auth(grant, prices_url)) as client:
            show("key", lambda: client.get("/prices"), prices.revoke_access_tokens)
        auth = session_auth(f"{logins_url}/login", "me", secret, orders_url)
        with httpx.Client(base_url=orders_url, auth=auth, cookies={"lang": "en"}) as client:
            show("session", lambda: client.post("/orders", json={"item": "tea"}), site.orders.revoke_access_tokens)
    print(f"keys asked for: {prices.token_requests}, logins: {len(site.logins.requests)}")


if __name__ == "__main__":
    main()
