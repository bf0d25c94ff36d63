"""Helpers for the tests of signing in: a server without a socket, and a function instead of a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import anyio
import httpx
import pytest

from httpx_reauth import Token
from httpx_reauth.oauth import Issuer
from httpx_reauth.signin.settings import SignIn

URL = "https://id.example.com"
CODE = "s3cret-code"


def query_of(url: str) -> dict[str, str]:
    """Return the parameters in `url`. Each must be there once."""
    fields = parse_qs(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)
    assert all(len(values) == 1 for values in fields.values())
    return {name: values[0] for name, values in fields.items()}


class StandIn:
    """An authorization server behind a transport. It checks what RFC 7636 demands, and records the requests.

    Attributes:
        device: the answers of the device authorization endpoint, the last one for ever.
        token: the answers of the token endpoint, the last one for ever; a status and a document, or an exception.
    """

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {
            "issuer": URL,
            "authorization_endpoint": f"{URL}/authorize",
            "token_endpoint": f"{URL}/token",
            "device_authorization_endpoint": f"{URL}/device",
        }
        token = {"access_token": "s3cret-access", "refresh_token": "s3cret-refresh", "expires_in": 3600}
        self.token: list[Any] = [(200, token)]
        self.device: list[Any] = [
            (
                200,
                {
                    "device_code": "s3cret-device",
                    "user_code": "WDJB-MJHT",
                    "verification_uri": f"{URL}/go",
                    "expires_in": 600,
                    "interval": 5,
                },
            )
        ]
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.authorized: dict[str, str] = {}  # the parameters of the last authorization request

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def forms(self, path: str) -> list[dict[str, str]]:
        return [form for one, form in self.requests if one == path]

    def issuer(self) -> Issuer:
        return Issuer(URL)

    def client(self, package: Any = httpx) -> Any:
        return package.Client(transport=package.MockTransport(lambda request: self._answer(package, request)))

    def _answer(self, package: Any, request: Any) -> Any:
        path = request.url.path
        if path.startswith("/.well-known/"):
            self.requests.append((path, {}))
            return package.Response(200, json=self.metadata)
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        self.requests.append((path, form))
        answers = {"/token": self.token, "/device": self.device}[path]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = answer()
        status, document, *headers = answer
        if path == "/token" and form["grant_type"] == "authorization_code" and status == 200:
            self._check_pkce(form)
        return package.Response(status, content=json.dumps(document), headers=dict(*headers))

    def _check_pkce(self, form: dict[str, str]) -> None:
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        assert challenge == self.authorized["code_challenge"]
        assert form["redirect_uri"] == self.authorized["redirect_uri"]
        assert form["code"] == CODE

    # --- the browser ---

    def callback(self, url: str, **fields: str | None) -> str:
        """Return the URL to which the server redirects the browser that opened `url`.

        `fields` replaces its parameters.
        """
        self.authorized = query_of(url)
        said = {"code": CODE, "state": self.authorized["state"], **fields}
        return self.authorized["redirect_uri"] + "?" + urlencode({k: v for k, v in said.items() if v is not None})

    def visit(self, url: str, **fields: str | None) -> httpx.Response:
        """Do what a user does who consents, and return the last page."""
        return get(self.callback(url, **fields))


def get(url: str, **settings: Any) -> httpx.Response:
    with httpx.Client(trust_env=False, verify=False, timeout=10.0, **settings) as browser:
        return browser.get(url)


def skip_without(host: str) -> None:
    """Skip the test if this machine has no such loopback address."""
    if host == "::1":
        try:
            socket.create_server((host, 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("this machine has no ::1")


Run = Callable[..., Token]


def run_by(way: str) -> Run:
    """Return a function that calls `run`, or `arun` on that event loop."""
    if way == "run":
        return lambda sign_in, **settings: sign_in.run(**settings)

    def arun(sign_in: SignIn, **settings: Any) -> Token:
        async def main() -> Token:
            return await sign_in.arun(**settings)

        return anyio.run(main, backend=way)

    return arun
