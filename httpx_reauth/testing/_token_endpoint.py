"""The token endpoint: RFC 6749 §4.4 (client credentials) and §6 (refresh token), answers as in §5."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from httpx_reauth.testing._clients import authenticate
from httpx_reauth.testing._grants import Family, Grants, OAuthError
from httpx_reauth.testing._ledger import Ledger
from httpx_reauth.testing._messages import Answer, Received, json_answer
from httpx_reauth.testing._settings import Settings

_NOT_TO_BE_STORED = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))  # RFC 6749 §5.1


def answer_token_request(request: Received, settings: Settings, grants: Grants, ledger: Ledger, now: float) -> Answer:
    """What the token endpoint answers; tokens are committed and counted. The caller holds the server's lock."""
    try:
        fields = _grant(request, settings, grants, ledger, now)
    except OAuthError as error:
        challenge = [("WWW-Authenticate", "Basic")] if error.status == 401 else []
        fields = {"error": error.error, "error_description": error.description}
        return json_answer(error.status, fields, *_NOT_TO_BE_STORED, *challenge)
    edited = fields if settings.edit_token_answer is None else settings.edit_token_answer(fields)
    return edited if isinstance(edited, Answer) else json_answer(200, edited, *_NOT_TO_BE_STORED)


def _grant(request: Received, settings: Settings, grants: Grants, ledger: Ledger, now: float) -> dict[str, Any]:
    form = _read(request)
    client_id = authenticate(request, form, settings.clients, settings.client_auth)
    grant_type = form.get("grant_type", "")
    refresh_token = None
    if grant_type == "refresh_token":
        family, refresh_token = _refresh(form, settings, grants, ledger, client_id)
        ledger.refreshes += 1
    elif grant_type == "client_credentials":
        if settings.clients is not None and (client_id is None or settings.clients[client_id] is None):
            raise OAuthError("unauthorized_client", "A public client has no credentials to get a token for.")
        family = Family(client_id, form.get("scope"))
    elif not grant_type:
        raise OAuthError("invalid_request", "The field grant_type is missing.")
    else:
        raise OAuthError("unsupported_grant_type", "This server knows refresh_token and client_credentials.")
    ledger.tokens_issued += 1
    ends = None if settings.lifetime is None else now + settings.lifetime
    fields: dict[str, Any] = {"access_token": grants.new_access_token(family, ends), "token_type": "Bearer"}
    if settings.lifetime is not None:
        fields["expires_in"] = seconds(settings.lifetime)
    if refresh_token is not None:
        fields["refresh_token"] = refresh_token
    scope = form.get("scope", family.scope)
    if scope is not None:
        fields["scope"] = scope
    return fields


def _read(request: Received) -> dict[str, str]:
    if request.method != "POST":
        raise OAuthError("invalid_request", "Token requests are POSTed (RFC 6749 §3.2).", 405)
    kind = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "A token request is a form (RFC 6749 §4.4.2, §6).")
    fields = parse_qsl(request.body.decode("utf-8", "replace"))  # one without a value ledger as left out (§3.2)
    form = dict(fields)
    if len(form) != len(fields):
        raise OAuthError("invalid_request", "A field is repeated (RFC 6749 §3.2).")
    return form


def _refresh(
    form: dict[str, str], settings: Settings, grants: Grants, ledger: Ledger, client_id: str | None
) -> tuple[Family, str | None]:
    presented = form.get("refresh_token")
    if presented is None:
        raise OAuthError("invalid_request", "The field refresh_token is missing.")
    family, used_up = grants.family_of(presented, client_id)
    if used_up:
        ledger.reuse_detected += 1
        ledger.families_revoked += 1
        grants.revoke_family(family)
        raise OAuthError("invalid_grant", "The refresh token had been used before; all tokens of it are revoked.")
    if family.scope is not None and not set(form.get("scope", "").split()) <= set(family.scope.split()):
        raise OAuthError("invalid_scope", "More scope was asked for than granted (RFC 6749 §6).")
    if settings.revoke_previous:
        grants.revoke_access(family)
    return family, grants.rotate(family, presented) if settings.rotate else None


def seconds(lifetime: float) -> float:
    """`lifetime` as a JSON number: a whole one without a fraction, as servers send it."""
    return int(lifetime) if lifetime == int(lifetime) else lifetime
