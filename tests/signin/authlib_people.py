"""Authlib's server for signing people in: authorization codes with PKCE and `iss`, device codes, document, revocation.

It needs no Node.js. Its attribute `answer` says what the user answers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, OAuth2Error, grants
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc8628 import DeviceAuthorizationEndpoint, DeviceCodeGrant
from authlib.oauth2.rfc8628 import DeviceCredentialDict as DeviceCredential
from authlib.oauth2.rfc9207 import IssuerParameter
from authlib_server import ForeignServer
from flask import Flask, jsonify, request

_EVERY_METHOD = ["client_secret_basic", "client_secret_post", "none"]


@dataclass
class Code(AuthorizationCodeMixin):
    code: str
    client_id: str
    redirect_uri: str
    scope: str
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


class PeopleServer(ForeignServer):
    """Authlib's server, whose users consent unless `answer` is "no"."""

    def __init__(self) -> None:
        self.answer = "yes"
        self.codes: dict[str, Code] = {}
        self.devices: dict[str, DeviceCredential] = {}
        self.device_answers: dict[str, bool] = {}
        self.device_lifetime = 600
        self.polls = 0
        super().__init__()

    def register(self, app: Flask, authorization: AuthorizationServer) -> None:
        memory = {"memory": self}
        code_grant = type("CodeGrant", (_CodeGrant,), memory)
        authorization.register_grant(code_grant, [CodeChallenge(required=True)])
        authorization.register_grant(type("Device", (_DeviceGrant,), memory))
        authorization.register_endpoint(type("DeviceEndpoint", (_DeviceEndpoint,), memory))
        authorization.register_endpoint(type("Revocation", (_Revocation,), memory))
        authorization.register_extension(type("Issuer", (_Issuer,), memory)())

        @app.get("/.well-known/oauth-authorization-server")
        def document() -> Any:
            return jsonify(
                issuer=self.url,
                authorization_endpoint=f"{self.url}/authorize",
                token_endpoint=f"{self.url}/token",
                device_authorization_endpoint=f"{self.url}/device_authorization",
                revocation_endpoint=f"{self.url}/revoke",
                token_endpoint_auth_methods_supported=_EVERY_METHOD,
                authorization_response_iss_parameter_supported=True,
            )

        @app.get("/authorize")
        def authorize() -> Any:
            user = "ada" if self.answer == "yes" else None
            try:
                grant = authorization.get_consent_grant(end_user=user)
            except OAuth2Error as error:
                return authorization.handle_error_response(request, error)
            return authorization.create_authorization_response(grant_user=user, grant=grant)

        @app.post("/device_authorization")
        def device_authorization() -> Any:
            return authorization.create_endpoint_response("device_authorization")

        @app.post("/revoke")
        def revoke() -> Any:
            return authorization.create_endpoint_response("revocation")

        @app.get("/device")
        def device() -> Any:
            self.device_answers[request.args["user_code"]] = self.answer == "yes"
            return "Thank you."


class _CodeGrant(grants.AuthorizationCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = _EVERY_METHOD
    memory: PeopleServer

    def save_authorization_code(self, code: str, request: Any) -> None:
        asked = request.payload.data
        self.memory.codes[code] = Code(
            code,
            request.client.client_id,
            asked["redirect_uri"],
            request.payload.scope or "",
            asked["code_challenge"],
            asked["code_challenge_method"],
        )

    def query_authorization_code(self, code: str, client: Any) -> Code | None:
        found = self.memory.codes.get(code)
        return found if found is not None and found.client_id == client.client_id else None

    def delete_authorization_code(self, authorization_code: Code) -> None:
        del self.memory.codes[authorization_code.code]

    def authenticate_user(self, authorization_code: Code) -> str:
        return "ada"


class _DeviceGrant(DeviceCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = _EVERY_METHOD
    memory: PeopleServer

    def query_device_credential(self, device_code: str) -> DeviceCredential | None:
        self.memory.polls += 1
        return self.memory.devices.get(device_code)

    def query_user_grant(self, user_code: str) -> tuple[str, bool] | None:
        said = self.memory.device_answers.get(user_code)
        return None if said is None else ("ada", said)

    def should_slow_down(self, credential: DeviceCredential) -> bool:
        return self.memory.polls == 1


class _DeviceEndpoint(DeviceAuthorizationEndpoint):
    INTERVAL = 0
    memory: PeopleServer

    def get_verification_uri(self) -> str:
        return f"{self.memory.url}/device"

    def save_device_credential(self, client_id: str, scope: str, data: dict[str, Any]) -> None:
        data["expires_in"] = self.memory.device_lifetime
        expires_at = time.time() + self.memory.device_lifetime
        self.memory.devices[data["device_code"]] = DeviceCredential(
            {"client_id": client_id, "scope": scope, "expires_at": expires_at, **data}
        )


class _Revocation(RevocationEndpoint):
    CLIENT_AUTH_METHODS = _EVERY_METHOD
    memory: PeopleServer

    def query_token(self, token_string: str, token_type_hint: str | None) -> Any:
        return self.memory.find(access_token=token_string) or self.memory.find(refresh_token=token_string)

    def revoke_token(self, token: Any, request: Any) -> None:
        for one in self.memory.issued:
            if one.family == token.family:
                one.revoked = one.spent = True


class _Issuer(IssuerParameter):
    memory: PeopleServer

    def get_issuer(self) -> str:
        return self.memory.url
