"""OAuth 2.0 grants, to be given to `Reauth` instead of a refresh function.

Example:
    auth = Reauth(ClientCredentialsGrant("https://id.example.com/token", client_id, client_secret))
"""

from __future__ import annotations

from httpx_reauth._errors import show_as_public
from httpx_reauth.oauth.client_auth import ClientAssertion, ClientSecretJWT, PrivateKeyJWT, TLSClientAuth
from httpx_reauth.oauth.grant import Grant
from httpx_reauth.oauth.grants import ClientCredentialsGrant, RefreshTokenGrant
from httpx_reauth.oauth.issuer import Issuer
from httpx_reauth.oauth.jwt_bearer import JWTBearerGrant, SignedAssertion
from httpx_reauth.oauth.request import MetadataRequest, TokenRequest
from httpx_reauth.oauth.token_exchange import TokenExchangeGrant

__all__ = [
    "ClientAssertion",
    "ClientCredentialsGrant",
    "ClientSecretJWT",
    "Grant",
    "Issuer",
    "JWTBearerGrant",
    "MetadataRequest",
    "PrivateKeyJWT",
    "RefreshTokenGrant",
    "SignedAssertion",
    "TLSClientAuth",
    "TokenExchangeGrant",
    "TokenRequest",
]

show_as_public(globals())
