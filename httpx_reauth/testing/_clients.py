"""Which client a token request comes from: the client authentication of RFC 6749 §2.3."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from typing import Literal
from urllib.parse import unquote_plus

from httpx_reauth.testing._grants import OAuthError
from httpx_reauth.testing._messages import Received

ClientAuth = Literal["client_secret_basic", "client_secret_post", "none"]
CLIENT_AUTHS: tuple[ClientAuth, ...] = ("client_secret_basic", "client_secret_post", "none")


def authenticate(
    request: Received,
    form: Mapping[str, str],
    clients: Mapping[str, str | None] | None,
    allowed: Collection[ClientAuth],
) -> str | None:
    """The id of the client, or None where nobody asks (`clients` is None).

    Raises:
        OAuthError: `invalid_client` (401 with a challenge if the client used the `Authorization` header),
            `invalid_request` if it used two methods at once, or a header that cannot be read.
    """
    method, client_id, secret = _presented(request, form)
    if clients is None:
        return client_id
    challenge = 401 if request.authorization else 400
    if method not in allowed:
        raise OAuthError("invalid_client", f"This server does not take the client authentication {method}.", challenge)
    if client_id is None:
        raise OAuthError("invalid_client", "The client did not say who it is.", challenge)
    if client_id not in clients or (clients[client_id] or "") != (secret or ""):
        raise OAuthError("invalid_client", "The client is unknown, or its secret is wrong.", challenge)
    return client_id


def _presented(request: Received, form: Mapping[str, str]) -> tuple[ClientAuth, str | None, str | None]:
    header = request.authorization
    if header is None:
        method: ClientAuth = "client_secret_post" if "client_secret" in form else "none"
        return method, form.get("client_id"), form.get("client_secret")
    if "client_secret" in form:
        raise OAuthError("invalid_request", "The client used more than one method to authenticate (RFC 6749 §2.3).")
    scheme, _, encoded = header.partition(" ")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    # RFC 6749 §2.3.1: both were form-encoded before they were joined, so the first colon is the separator.
    client_id, colon, secret = text.partition(":")
    if scheme.lower() != "basic" or not colon:
        raise OAuthError("invalid_client", "The Authorization header is not Basic, or not readable.", 401)
    client_id = unquote_plus(client_id)
    if form.get("client_id", client_id) != client_id:
        raise OAuthError("invalid_request", "The client gave two different client ids.")
    return "client_secret_basic", client_id, unquote_plus(secret)
