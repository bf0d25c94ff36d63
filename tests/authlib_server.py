"""The OAuth server of Authlib, another project. It runs with Flask and Werkzeug on a loopback socket.

Authlib checks requests and clients, and writes the errors. This module adds the parts that Authlib leaves to a
deployment: it stores the tokens, allows one use of each refresh token, and revokes the whole family of a refresh token
that is used twice (RFC 9700 §4.14.2).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from authlib.integrations.flask_oauth2 import AuthorizationServer, ResourceProtector, current_token
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin, grants
from authlib.oauth2.rfc6750 import BearerTokenValidator
from flask import Flask, jsonify
from werkzeug.serving import WSGIRequestHandler, make_server

from httpx_reauth import Token

_EVERY_METHOD = ["client_secret_basic", "client_secret_post", "none"]


@dataclass
class Client(ClientMixin):
    client_id: str
    secret: str | None

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Allow each port of the loopback address (RFC 8252 section 7.3)."""
        return urlsplit(redirect_uri).hostname == "127.0.0.1"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str | None) -> str:
        return scope or ""

    def check_client_secret(self, client_secret: str) -> bool:
        return self.secret == client_secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return (method == "none") is (self.secret is None)

    def check_grant_type(self, grant_type: str) -> bool:
        return True


@dataclass
class Issued(TokenMixin):
    client_id: str
    access_token: str
    refresh_token: str | None
    scope: str
    expires_in: int
    expires_at: float
    family: int
    revoked: bool = False  # the access token
    spent: bool = False  # the refresh token

    def check_client(self, client: Client) -> bool:
        return client.client_id == self.client_id

    def get_scope(self) -> str:
        return self.scope

    def get_expires_in(self) -> int:
        return self.expires_in

    def is_expired(self) -> bool:
        return time.time() >= self.expires_at

    def is_revoked(self) -> bool:
        return self.revoked


class ForeignServer:
    """Authlib's server, with stored tokens, counters, and a gate before each answer of the token endpoint."""

    def __init__(self) -> None:
        self.clients = {"app": Client("app", None), "shop": Client("shop", "p%s:s w&rd+ü")}
        self.early_revocation = False
        self.lifetime = 3600
        self.issued: list[Issued] = []
        self.token_requests = 0
        self.refused = 0  # the number of API requests answered with 401
        self.reuse_detected = 0
        self.url = ""
        self.gate = threading.Event()
        self.gate.set()
        self.committed = threading.Event()
        self._lock = (
            threading.RLock()
        )  # Authlib looks a token up, and marks it as used later. A database would use a transaction.
        self._refusals = threading.Condition()
        self.app = self._make_app()

    # --- the methods for tests ---

    def sign_in(self, client_id: str = "app") -> Token:
        """Sign a user in; return the first token of a new family."""
        with self._lock:
            family = len(self.issued)
            first = Issued(client_id, f"a-{family}", f"r-{family}", "", 3600, time.time() + 3600, family)
            self.issued.append(first)
        return Token(first.access_token, refresh_token=first.refresh_token, expires_in=3600)

    def expire_access_tokens(self) -> None:
        for issued in self.issued:
            issued.expires_at = 0

    def wait_until_refused(self, count: int) -> None:
        with self._refusals:
            assert self._refusals.wait_for(lambda: self.refused >= count, 20)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Delay the answers to token requests until the end of the block. The requests take effect immediately."""
        self.committed.clear()
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()

    @contextmanager
    def serve(self) -> Iterator[str]:
        server = make_server("127.0.0.1", 0, self.app, threaded=True, request_handler=_Quiet)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self.url = f"http://127.0.0.1:{server.port}"
        try:
            yield self.url
        finally:
            self.gate.set()
            server.shutdown()
            thread.join()
            server.server_close()

    # --- the methods that each deployment of Authlib must write ---

    def _make_app(self) -> Flask:
        app = Flask(__name__)
        app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
        app.config["OAUTH2_TOKEN_EXPIRES_IN"] = dict.fromkeys(("refresh_token", "client_credentials"), 3600)
        authorization = AuthorizationServer(app, self.clients.get, self._save)
        authorization.register_grant(_bound(_Rotating, self))
        authorization.register_grant(_ClientCredentials)
        self.register(app, authorization)
        protector = ResourceProtector()
        protector.register_token_validator(_Validator(self))

        @app.post("/token")
        def token() -> Any:
            with self._lock:
                self.token_requests += 1
                response = authorization.create_token_response()
            self.committed.set()
            assert self.gate.wait(20)
            return response

        @app.get("/me")
        @protector()
        def me() -> Any:
            return jsonify(family=current_token.family)

        @app.after_request
        def count(response: Any) -> Any:
            if response.status_code == 401 and response.headers.get("WWW-Authenticate", "").startswith("Bearer"):
                with self._refusals:
                    self.refused += 1
                    self._refusals.notify_all()
            return response

        return app

    def register(self, app: Flask, authorization: AuthorizationServer) -> None:
        """Register further grants of Authlib, in a subclass."""

    def _save(self, token: dict[str, Any], request: Any) -> None:
        before: Issued | None = getattr(request, "refresh_token", None)
        self.issued.append(
            Issued(
                client_id=request.client.client_id,
                access_token=token["access_token"],
                refresh_token=token.get("refresh_token"),
                scope=token.get("scope", ""),
                expires_in=token["expires_in"],
                expires_at=time.time() + token["expires_in"],
                family=len(self.issued) if before is None else before.family,
            )
        )

    def find(self, **fields: str) -> Issued | None:
        with self._lock:
            return next((one for one in self.issued if fields.items() <= vars(one).items()), None)

    def spend(self, issued: Issued) -> None:
        issued.spent = True
        issued.revoked = issued.revoked or self.early_revocation

    def revoke_family(self, family: int) -> None:
        self.reuse_detected += 1
        for one in self.issued:
            if one.family == family:
                one.revoked = one.spent = True


class _Rotating(grants.RefreshTokenGrant):
    INCLUDE_NEW_REFRESH_TOKEN = True
    TOKEN_ENDPOINT_AUTH_METHODS = _EVERY_METHOD
    memory: ForeignServer

    def authenticate_refresh_token(self, refresh_token: str) -> Issued | None:
        issued = self.memory.find(refresh_token=refresh_token)
        if issued is not None and issued.spent:
            self.memory.revoke_family(issued.family)
            return None
        return issued

    def authenticate_user(self, refresh_token: Issued) -> str:
        return "somebody"

    def revoke_old_credential(self, refresh_token: Issued) -> None:
        self.memory.spend(refresh_token)


class _ClientCredentials(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = _EVERY_METHOD


class _Validator(BearerTokenValidator):
    def __init__(self, memory: ForeignServer) -> None:
        super().__init__()
        self.memory = memory

    def authenticate_token(self, token_string: str) -> Issued | None:
        return self.memory.find(access_token=token_string)


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # so that connections are kept open, as most servers do

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - Werkzeug names it so
        pass


def _bound(grant: type[_Rotating], memory: ForeignServer) -> type[_Rotating]:
    return type(grant.__name__, (grant,), {"memory": memory})
