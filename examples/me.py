"""`GET /me` twice: the first request finds no access token and gets one, the second request uses it.

Run it: `python examples/me.py`. It starts a real HTTP server on loopback and sends requests to it. Each line is printed
by the code that handles its event.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import httpx

from httpx_reauth import AuthState, Reauth, RefreshPending, Token

REFRESH_TOKEN = "I-am-an-refreshToken"
ACCESS_TOKEN = "I-am-a-new-accessToken"


class Api(BaseHTTPRequestHandler):
    """The server: `POST /token` takes a second, `GET /me` refuses a wrong token."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """The token endpoint."""
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        time.sleep(1)
        if self.path == "/token" and form.get("refresh_token") == [REFRESH_TOKEN]:
            self.answer(200, {"access_token": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 3600})
        else:
            self.answer(400, {"error": "invalid_grant"})

    def do_GET(self) -> None:
        """The protected resource."""
        if self.path == "/me" and self.headers["Authorization"] == f"Bearer {ACCESS_TOKEN}":
            self.answer(200, {"name": "me"})
        else:
            self.answer(401, {"error": "invalid_token"})

    def answer(self, status: int, fields: dict[str, object]) -> None:
        """Send `fields` as JSON."""
        body = json.dumps(fields).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing: the client prints what happens."""


@contextmanager
def server() -> Iterator[str]:
    """Run the server, and return its base URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as http_server:
        thread = threading.Thread(target=http_server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http_server.server_port}"
        finally:
            http_server.shutdown()
            thread.join()


async def main(base_url: str) -> None:
    """The program: one auth object, one client, two requests."""
    needs_token = False

    async def renew_access_token(token: Token) -> Token:  # the thunk
        async with httpx.AsyncClient(base_url=base_url) as client:
            print(f'Thunk: refreshToken "{token.refresh_token}" is being sent to the server, waiting...')
            form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
            renewed = Token.from_response(await client.post("/token", data=form))
            print(f'Thunk: New accessToken "{renewed.access_token}" received.')
            return renewed

    def on_change(_: AuthState, action: object) -> None:  # called after each change of the state
        nonlocal needs_token
        if isinstance(action, RefreshPending):
            needs_token = True
            print("Base Query: I need a new accessToken, dispatch renewAccessToken thunk")

    async def on_request(_: httpx.Request) -> None:  # called when the client sends a request
        nonlocal needs_token
        if needs_token:
            print("Base Query: Forward the query")
        else:
            print("Base Query: I have a valid accessToken, forward the query")
        needs_token = False

    auth = Reauth(renew_access_token, token=Token(refresh_token=REFRESH_TOKEN), origins=[base_url])
    auth.store.subscribe(on_change)

    async with auth, httpx.AsyncClient(base_url=base_url, auth=auth, event_hooks={"request": [on_request]}) as client:

        async def me() -> httpx.Response:  # the endpoint
            print("Endpoint: /me")
            return (await client.get("/me")).raise_for_status()

        await me()
        print("\n--- send a request again ---")
        await me()


if __name__ == "__main__":
    with server() as url:
        asyncio.run(main(url))
