"""The token endpoint and the revocation endpoint.

The grants: RFC 6749 section 4.1 (code), 4.4 (client credentials) and 6 (refresh token), RFC 7523 section 2.1 (signed
assertion), RFC 8628 (device) and RFC 8693 (token exchange). The responses follow RFC 6749 section 5. Revocation: RFC
7009.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias
from urllib.parse import parse_qsl

from httpx_reauth.testing._assertions import Assertions, is_signed, read
from httpx_reauth.testing._clients import audiences_of, authenticate
from httpx_reauth.testing._grants import Family, Grants, OAuthError
from httpx_reauth.testing._ledger import Ledger
from httpx_reauth.testing._messages import Answer, Received, json_answer
from httpx_reauth.testing._settings import Settings
from httpx_reauth.testing._sign_ins import SignIns

_NOT_TO_BE_STORED = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))  # RFC 6749 section 5.1
_REPEATED = frozenset({"resource", "audience"})  # RFC 8707 section 2, RFC 8693 section 2.1

_GRANT = "urn:ietf:params:oauth:grant-type:"
_TYPE = "urn:ietf:params:oauth:token-type:"
_Issued: TypeAlias = tuple[Family, str | None, str | None]


class TokenEndpoint:
    """Issue and revoke tokens. This class is not thread-safe; the server holds a lock."""

    def __init__(
        self, settings: Settings, ledger: Ledger, grants: Grants, sign_ins: SignIns, assertions: Assertions
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._grants = grants
        self._sign_ins = sign_ins
        self._assertions = assertions

    def issue(self, request: Received, now: float) -> Answer:
        """Return the response of the token endpoint. Issued tokens are stored and counted."""
        try:
            fields = self._issue(request, now)
        except OAuthError as error:
            return error_answer(error)
        edit = self._settings.edit_token_answer
        edited = fields if edit is None else edit(fields)
        return edited if isinstance(edited, Answer) else json_answer(200, edited, *_NOT_TO_BE_STORED)

    def revoke(self, request: Received) -> Answer:
        """Return the response of the revocation endpoint. An unknown token gets a 200 too (RFC 7009 section 2.2)."""
        try:
            form, client_id = self.client_of(request)
            token = form.get("token")
            if token is None:
                raise OAuthError("invalid_request", "The field token is missing.")  # noqa: TRY301 - caught for all alike
            family = self._grants.holder_of(token)
            if family is not None and family.client_id not in (None, client_id):
                raise OAuthError("invalid_grant", "The token was issued to another client.")  # noqa: TRY301
        except OAuthError as error:
            return error_answer(error)
        self._ledger.tokens_revoked += self._grants.revoke(token)
        return Answer(200, _NOT_TO_BE_STORED)

    def client_of(self, request: Received) -> tuple[dict[str, str], str | None]:
        """Return the posted form and the id of the client.

        Raises:
            OAuthError: the body is not a form, or the client cannot be authenticated.
        """
        form = _form(request)
        return form, authenticate(request, form, self._settings, self._assertions)

    def _issue(self, request: Received, now: float) -> dict[str, Any]:
        form, client_id = self.client_of(request)
        grant_type = form.get("grant_type")
        if grant_type is None:
            raise OAuthError("invalid_request", "The field grant_type is missing.")
        if grant_type not in _FAMILIES:
            raise OAuthError("unsupported_grant_type", f"This server knows {', '.join(GRANT_TYPES)}.")
        family, refresh_token, kind = _FAMILIES[grant_type](self, request, form, client_id, now)
        settings = self._settings
        self._ledger.tokens_issued += 1
        if kind == f"{_TYPE}refresh_token":  # RFC 8693 section 2.2.1: the field is still access_token
            return {
                "access_token": self._grants.new_refresh_token(family),
                "issued_token_type": kind,
                "token_type": "N_A",
            }
        ends = None if settings.lifetime is None else now + settings.lifetime
        fields: dict[str, Any] = {"access_token": self._grants.new_access_token(family, ends), "token_type": "Bearer"}
        if settings.lifetime is not None:
            fields["expires_in"] = seconds(settings.lifetime)
        if refresh_token is not None:
            fields["refresh_token"] = refresh_token
        scope = form.get("scope", family.scope)
        if scope is not None:
            fields["scope"] = scope
        if kind is not None:
            fields["issued_token_type"] = kind
            fields["token_type"] = "Bearer" if kind == f"{_TYPE}access_token" else "N_A"
        return fields

    # One method for each grant. It returns the family of the new token, its refresh token, and the token type if the
    # response must contain it (RFC 8693).

    def from_credentials(self, _: Received, form: dict[str, str], client_id: str | None, __: float) -> _Issued:
        """RFC 6749 section 4.4."""
        if self._is_public(client_id):
            raise OAuthError("unauthorized_client", "A public client has no credentials to get a token for.")
        return Family(client_id, form.get("scope")), None, None

    def from_code(self, _: Received, form: dict[str, str], client_id: str | None, now: float) -> _Issued:
        """RFC 6749 section 4.1.3, RFC 7636 section 4.5."""
        code = self._sign_ins.use_code(form, client_id, now)
        code.family = Family(client_id, code.scope)
        return code.family, self._grants.new_refresh_token(code.family), None

    def from_device(self, _: Received, form: dict[str, str], client_id: str | None, now: float) -> _Issued:
        """RFC 8628 section 3.4."""
        device = self._sign_ins.use_device(form.get("device_code", ""), client_id, now)
        family = Family(client_id, device.scope)
        return family, self._grants.new_refresh_token(family), None

    def from_assertion(self, request: Received, form: dict[str, str], client_id: str | None, _: float) -> _Issued:
        """RFC 7523 section 2.1."""
        assertion, trusted = form.get("assertion", ""), self._settings.trusted_issuers
        key = None if trusted is None else trusted.get(str(read(assertion).get("iss")))
        if trusted is not None and key is None:
            raise OAuthError("invalid_grant", "The iss of the assertion is none that is known here.")
        audiences = None if trusted is None else audiences_of(request, self._settings)
        wall = self._settings.clock.time()
        self._assertions.check(assertion, key, "invalid_grant", audiences=audiences, wall=wall)
        return Family(client_id, form.get("scope")), None, None

    def _is_public(self, client_id: str | None) -> bool:
        clients, keys = self._settings.clients, self._settings.client_keys
        if clients is None and keys is None:
            return False
        return client_id not in (keys or {}) and not (clients or {}).get(client_id or "")

    def from_refresh(self, _: Received, form: dict[str, str], client_id: str | None, __: float) -> _Issued:
        """RFC 6749 section 6."""
        presented = form.get("refresh_token")
        if presented is None:
            raise OAuthError("invalid_request", "The field refresh_token is missing.")
        ledger, settings, grants = self._ledger, self._settings, self._grants
        family, used_up = grants.family_of(presented, client_id)
        if used_up:
            ledger.reuse_detected += 1
            ledger.families_revoked += 1
            grants.revoke_family(family)
            raise OAuthError("invalid_grant", "The refresh token had been used before; all tokens of it are revoked.")
        if family.scope is not None and not set(form.get("scope", "").split()) <= set(family.scope.split()):
            raise OAuthError("invalid_scope", "More scope was asked for than granted (RFC 6749 section 6).")
        if settings.revoke_previous:
            grants.revoke_access(family)
        ledger.refreshes += 1
        return family, grants.rotate(family, presented) if settings.rotate else None, None

    def from_exchange(self, request: Received, form: dict[str, str], client_id: str | None, now: float) -> _Issued:
        """RFC 8693 section 2."""
        self._check_shown(form, "subject_token", now)
        if "actor_token" in form or "actor_token_type" in form:
            self._check_shown(form, "actor_token", now)
        named = [value for name, value in parse_qsl(request.body.decode("utf-8", "replace")) if name in _REPEATED]
        targets = self._settings.targets
        if targets is not None and not set(named) <= set(targets):
            raise OAuthError("invalid_target", "An audience or a resource is none that tokens are issued for here.")
        return Family(client_id, form.get("scope")), None, form.get("requested_token_type", f"{_TYPE}access_token")

    def _check_shown(self, form: dict[str, str], name: Literal["subject_token", "actor_token"], now: float) -> None:
        token, kind = form.get(name), form.get(f"{name}_type")
        if token is None or kind is None:
            raise OAuthError("invalid_request", f"{name} and {name}_type belong together (RFC 8693 section 2.1).")
        if not self._is_good(token, kind, now):
            raise OAuthError("invalid_request", f"The {name} is not valid (RFC 8693 section 2.2.2).")

    def _is_good(self, token: str, kind: str, now: float) -> bool:
        settings = self._settings
        if settings.subject_tokens is not None:
            return settings.subject_tokens(token, kind)
        if kind in (f"{_TYPE}access_token", f"{_TYPE}refresh_token"):
            return self._grants.is_good(token, now)
        if settings.trusted_issuers is None:
            return True
        key = settings.trusted_issuers.get(str(read(token).get("iss")))
        return key is not None and is_signed(token, key)


_FAMILIES: dict[str, Callable[[TokenEndpoint, Received, dict[str, str], str | None, float], _Issued]] = {
    "authorization_code": TokenEndpoint.from_code,
    "refresh_token": TokenEndpoint.from_refresh,
    "client_credentials": TokenEndpoint.from_credentials,
    f"{_GRANT}jwt-bearer": TokenEndpoint.from_assertion,
    f"{_GRANT}device_code": TokenEndpoint.from_device,
    f"{_GRANT}token-exchange": TokenEndpoint.from_exchange,
}
GRANT_TYPES = tuple(_FAMILIES)


def error_answer(error: OAuthError) -> Answer:
    """Return the response for `error` (RFC 6749 section 5.2)."""
    challenge = [("WWW-Authenticate", "Basic")] if error.status == 401 else []
    fields = {"error": error.error, "error_description": error.description}
    return json_answer(error.status, fields, *_NOT_TO_BE_STORED, *challenge)


def _form(request: Received) -> dict[str, str]:
    if request.method != "POST":
        raise OAuthError("invalid_request", "Token requests are POSTed (RFC 6749 section 3.2).", 405)
    kind = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "A token request is a form (RFC 6749 section 4.4.2, 6).")
    fields = parse_qsl(request.body.decode("utf-8", "replace"))  # a field without a value does not count (section 3.2)
    once = [name for name, _ in fields if name not in _REPEATED]
    if len(set(once)) != len(once):
        raise OAuthError("invalid_request", "A field is repeated (RFC 6749 section 3.2).")
    return dict(fields)


def seconds(lifetime: float) -> float:
    """Return `lifetime` as a JSON number. A whole number has no fraction, as servers send it."""
    return int(lifetime) if lifetime == int(lifetime) else lifetime
