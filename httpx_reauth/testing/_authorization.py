"""The server's document, and the two endpoints where people sign in."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode, urlsplit

from httpx_reauth.testing._grants import OAuthError
from httpx_reauth.testing._messages import Answer, Received, json_answer
from httpx_reauth.testing._settings import Settings
from httpx_reauth.testing._sign_ins import SignIns
from httpx_reauth.testing._token_endpoint import GRANT_TYPES, TokenEndpoint, error_answer, seconds

WELL_KNOWN = "/.well-known/"

_ALGORITHMS = ["RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA", "HS256"]
_CHALLENGE = 43  # characters of a SHA-256 in base64url


def metadata_path(settings: Settings) -> str:
    """Return the path of the document."""
    if settings.metadata_path is not None:
        return settings.metadata_path
    return f"{WELL_KNOWN}oauth-authorization-server{settings.issuer_path.rstrip('/')}"


def metadata(request: Received, settings: Settings) -> Answer:
    """Return the server's document (RFC 8414 section 3.2), or a 404 at every other path."""
    if request.path != metadata_path(settings):
        return json_answer(404, {"error": "not found"})
    origin = request.origin
    fields: dict[str, Any] = {
        "issuer": f"{origin}{settings.issuer_path}",
        "authorization_endpoint": f"{origin}{settings.authorization_path}",
        "token_endpoint": f"{origin}{settings.token_path}",
        "device_authorization_endpoint": f"{origin}{settings.device_path}",
        "revocation_endpoint": f"{origin}{settings.revocation_path}",
        "response_types_supported": ["code"],
        "grant_types_supported": list(GRANT_TYPES),
        "token_endpoint_auth_methods_supported": list(settings.client_auth),
        "token_endpoint_auth_signing_alg_values_supported": _ALGORITHMS,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
    }
    if settings.scopes is not None:
        fields["scopes_supported"] = list(settings.scopes)
    edited = fields if settings.edit_metadata is None else settings.edit_metadata(fields)
    return edited if isinstance(edited, Answer) else json_answer(200, edited)


def authorize(request: Received, settings: Settings, sign_ins: SignIns, now: float) -> Answer:
    """Redirect the browser with a code or with an error (RFC 6749 section 4.1.2, RFC 7636, RFC 9207)."""
    params = request.params
    back = params.get("redirect_uri", "")
    known = {**(settings.clients or {}), **(settings.client_keys or {})}
    is_open = settings.clients is None and settings.client_keys is None
    if urlsplit(back).scheme not in ("http", "https") or "#" in back:
        return json_answer(400, {"error": "invalid_request", "error_description": "The redirect_uri is no URL."})
    if not is_open and params.get("client_id") not in known:
        return json_answer(400, {"error": "invalid_request", "error_description": "The client is unknown."})
    answer: dict[str, str]
    if params.get("response_type") != "code":
        answer = {"error": "unsupported_response_type"}
    elif params.get("code_challenge_method") != "S256" or len(params.get("code_challenge", "")) != _CHALLENGE:
        answer = {"error": "invalid_request", "error_description": "PKCE with S256 is needed (RFC 7636 section 4.4.1)."}
    elif not settings.consent:
        answer = {"error": "access_denied", "error_description": "The user said no."}
    else:
        answer = {"code": sign_ins.new_code(params.get("client_id"), params, now)}
    if "state" in params:
        answer["state"] = params["state"]
    answer["iss"] = f"{request.origin}{settings.issuer_path}"
    edited = answer if settings.edit_authorization_answer is None else settings.edit_authorization_answer(answer)
    return Answer(302, (("Location", f"{back}{'&' if '?' in back else '?'}{urlencode(dict(edited))}"),))


def authorize_device(
    request: Received, settings: Settings, sign_ins: SignIns, endpoint: TokenEndpoint, now: float
) -> Answer:
    """Return a code for a device and a code for its user (RFC 8628 section 3.2)."""
    try:
        form, client_id = endpoint.client_of(request)
        if client_id is None:
            raise OAuthError("invalid_request", "The field client_id is missing.")  # noqa: TRY301 - caught for all alike
    except OAuthError as error:
        return error_answer(error)
    device_code, user_code = sign_ins.new_device(
        client_id, form.get("scope"), lifetime=settings.device_lifetime, interval=settings.device_interval, now=now
    )
    page = f"{request.origin}{settings.device_path}"
    fields = {
        "device_code": device_code,
        "user_code": user_code,
        "verification_uri": page,
        "verification_uri_complete": f"{page}?user_code={user_code}",
        "expires_in": seconds(settings.device_lifetime),
        "interval": seconds(settings.device_interval),
    }
    return json_answer(200, fields)
