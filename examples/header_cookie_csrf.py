"""Another header than `Authorization`, or a cookie with its CSRF token: `authorize` and `is_rejected`.

The first API wants a short-lived key in `X-API-Key`, and answers 403 to an old one. The second is a site that was made
for browsers: a login sets a session cookie and names a CSRF token; an ended session is answered with 419. A request
that meets one of these gets a new key, or a new session, and is sent again.

When it follows a redirect, httpx drops `Cookie` always and `Authorization` off the origin, but no header of yours.

Run it: `python examples/header_cookie_csrf.py`. It starts both on loopback.
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
    """A key that any grant brings, in another header than `Authorization`."""

    def authorize(request: httpx.Request, token: Token) -> None:
        request.headers["X-API-Key"] = token.access_token

    return Reauth(grant, authorize=authorize, is_rejected=lambda answer: answer.status_code == 403, origins=[api_url])


def session_auth(login_url: str, user: str, password: str, site_url: str) -> Reauth:
    """A session of a web site: the cookie is the access token, its CSRF token a further field."""

    def log_in(_: Token) -> Token:
        answer = httpx.post(login_url, data={"user": user, "password": password}, timeout=5.0)
        if answer.is_error:
            return Token.from_response(answer)  # raises the fitting error
        return Token(answer.cookies["session"], extra={"csrf": answer.json()["csrf"]})

    def authorize(request: httpx.Request, token: Token) -> None:
        others = request.headers.get("Cookie")  # of the client's own jar
        session = f"session={token.access_token}"
        request.headers["Cookie"] = f"{others}; {session}" if others else session
        request.headers["X-CSRF-Token"] = token.extra["csrf"]

    return Reauth(log_in, authorize=authorize, is_rejected=lambda answer: answer.status_code == 419, origins=[site_url])


class Site:
    """A stand-in for the site; people log in at one address and order at another."""

    def __init__(self, user: str, password: str) -> None:
        self.user = {"user": user, "password": password}
        self.csrf: dict[str, str] = {}  # of each session
        self.logins = AuthorizationServer(access="open", resource=self.log_in)
        self.orders = AuthorizationServer(access_token_of=session_of, refusal=Answer(419), resource=self.order)

    def log_in(self, request: Received) -> Answer:
        """A new session, for who knows the password."""
        if request.form != self.user:
            return faults.reply(401, {"error": "wrong password"}).answer
        session = self.orders.issue(refresh_token=False).access_token
        self.csrf[session] = secrets.token_hex(8)
        cookie = f"session={session}; HttpOnly; SameSite=Lax; Path=/"
        return faults.reply(200, {"csrf": self.csrf[session]}, {"Set-Cookie": cookie}).answer

    def order(self, request: Received) -> Answer:
        """An order, from a page of ours."""
        if request.header("x-csrf-token") != self.csrf[session_of(request) or ""]:
            return Answer(400)
        return faults.reply(201, {"bytes": len(request.body)}).answer


def session_of(request: Received) -> str | None:
    """The session in the cookies of `request`."""
    morsel = SimpleCookie(request.header("cookie") or "").get("session")
    return None if morsel is None else morsel.value


def show(what: str, ask: Callable[[], httpx.Response], revoke: Callable[[], None]) -> None:
    """Two requests, the second after the server has ended what the first one used."""
    first = ask().status_code
    revoke()
    print(f"{what}: {first}; after the server has ended it: {ask().status_code}")


def main() -> None:
    """Each kind once, and once more after the server has ended it."""
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
