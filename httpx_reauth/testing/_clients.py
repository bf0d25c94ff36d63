"""The authentication of the client of a token request: RFC 6749 section 2.3, with assertions RFC 7523 section 2.2."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote_plus

from httpx_reauth.testing._assertions import Assertions, is_authenticated, read
from httpx_reauth.testing._grants import OAuthError
from httpx_reauth.testing._messages import Received

if TYPE_CHECKING:
    from httpx_reauth.testing._settings import Settings

ClientAuth = Literal["client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "none"]
CLIENT_AUTHS: tuple[ClientAuth, ...] = (
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "none",
)

_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def authenticate(request: Received, form: Mapping[str, str], settings: Settings, assertions: Assertions) -> str | None:
    """Return the id of the client. It may be None if neither `clients` nor `client_keys` is set.

    Raises:
        OAuthError: `invalid_client` (401 with a challenge if the client used the `Authorization` header), or
            `invalid_request` if the client used two methods or two client ids.
    """
    method, client_id, secret = _presented(request, form, settings)
    keys, clients = settings.client_keys or {}, settings.clients or {}
    is_open = settings.clients is None and settings.client_keys is None
    challenge = 401 if request.authorization else 400
    if not is_open and method not in settings.client_auth:
        raise OAuthError("invalid_client", f"This server does not take the client authentication {method}.", challenge)
    if secret is not None and method in ("private_key_jwt", "client_secret_jwt"):
        key = keys.get(client_id or "") if method == "private_key_jwt" else None
        audiences = None if is_open else audiences_of(request, settings)
        wall = settings.clock.time()
        claims = assertions.check(secret, key, "invalid_client", audiences=audiences, wall=wall)
        if claims["iss"] != claims["sub"]:
            raise OAuthError("invalid_client", "The client is both iss and sub of its assertion (RFC 7523 section 3).")
    if is_open:
        return client_id
    if client_id is None:
        raise OAuthError("invalid_client", "The client did not say who it is.", challenge)
    if not _is_proven(method, secret, client_id in keys, clients.get(client_id) or "", client_id in clients):
        raise OAuthError("invalid_client", "The client is unknown, or its secret or key is wrong.", challenge)
    return client_id


def audiences_of(request: Received, settings: Settings) -> set[str]:
    """Return the audiences that this server accepts: its issuer, its token endpoint, and the URL of the request."""
    return {f"{request.origin}{path}" for path in (settings.issuer_path, settings.token_path, request.path)}


def _is_proven(method: ClientAuth, secret: str | None, has_key: bool, known: str, is_known: bool) -> bool:  # noqa: FBT001
    if method == "private_key_jwt":
        return has_key  # `authenticate` has checked the signature
    if has_key or not is_known:
        return False
    if method == "client_secret_jwt":
        return bool(known) and is_authenticated(secret or "", known)
    return known == (secret or "")


def _presented(
    request: Received, form: Mapping[str, str], settings: Settings
) -> tuple[ClientAuth, str | None, str | None]:
    """Return the method, the client id, and the secret or the assertion."""
    header, assertion = request.authorization, form.get("client_assertion")
    if sum([header is not None, assertion is not None, "client_secret" in form]) > 1:
        what = "The client used more than one method to authenticate (RFC 6749 section 2.3)."
        raise OAuthError("invalid_request", what)
    client_id = form.get("client_id")
    if assertion is not None:
        if form.get("client_assertion_type") != _ASSERTION:
            raise OAuthError(
                "invalid_request", "The client_assertion_type must be that of a JWT (RFC 7523 section 2.2)."
            )
        subject = str(read(assertion).get("sub"))
        if (client_id or subject) != subject:
            raise OAuthError("invalid_client", "The client_id is not the sub of the assertion (RFC 7521 section 4.2).")
        is_symmetric = bool((settings.clients or {}).get(subject))
        return "client_secret_jwt" if is_symmetric else "private_key_jwt", subject, assertion
    if header is None:
        method: ClientAuth = "client_secret_post" if "client_secret" in form else "none"
        return method, client_id, form.get("client_secret")
    scheme, _, encoded = header.partition(" ")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    # RFC 6749 section 2.3.1: both were form-encoded before they were joined, so the first colon is the separator.
    said, colon, secret = text.partition(":")
    if scheme.lower() != "basic" or not colon:
        raise OAuthError("invalid_client", "The Authorization header is not Basic, or not readable.", 401)
    said = unquote_plus(said)
    if (client_id or said) != said:
        raise OAuthError("invalid_request", "The client gave two different client ids.")
    return "client_secret_basic", said, unquote_plus(secret)
