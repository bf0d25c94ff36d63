"""Revokes a token (RFC 7009), with the settings of the grant that got the token."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from httpx_reauth._errors import ReauthError, RefreshError
from httpx_reauth._token import Token
from httpx_reauth.oauth.client_auth import TLSClientAuth
from httpx_reauth.oauth.driver import in_place_of_again
from httpx_reauth.oauth.grant import Grant
from httpx_reauth.oauth.issuer import ServerMetadata
from httpx_reauth.oauth.request import MetadataRequest, TokenRequest

if TYPE_CHECKING:
    from httpx_reauth.oauth.grants import ClientGrant


class Revocation(Grant):
    """One request to revoke a token. It is a `Grant` so that the driver can send it; it brings no new token."""

    def __init__(self, grant: ClientGrant) -> None:
        self._grant = grant
        self.timeout, self.client, self.allow_http = grant.timeout, grant.client, grant.allow_http

    def __call__(self, token: Token, /) -> Token:
        """Revoke `token`, and return it. If that fails, it is not tried again, and the error says so."""
        try:
            return super().__call__(token)
        except RefreshError as error:
            raise in_place_of_again(error, "The token may be good until its end.") from error.__cause__

    def flow(self, token: Token, /) -> Generator[TokenRequest | MetadataRequest, Any, Token]:
        """Send the refresh token, or the access token if there is no refresh token (RFC 7009 section 2.1)."""
        server: ServerMetadata = yield from self._grant.server()
        mtls = isinstance(self._grant.client_auth, TLSClientAuth)
        url = self._grant.revocation_url or server.endpoint("revocation_endpoint", mtls=mtls)
        value, hint = token.refresh_token or token.access_token, "access_token"
        if token.refresh_token:
            hint = "refresh_token"
        form = {"token": value, "token_type_hint": hint}
        known = replace(server, token_endpoint=server.token_endpoint or url)
        request = self._grant.request({}, known)
        response = yield TokenRequest(url, form, client_auth=request.client_auth, spends=None)
        if not 200 <= response.status_code < 300:
            code = None
            try:
                Token.from_response(response)
            except ReauthError as error:
                code = error.error
            raise RefreshError(
                f"The authorization server did not revoke the token: {code or 'no error code'} (status "
                f"{response.status_code}). It may be good until its end.",
                status_code=response.status_code,
                error=code,
            )
        return token
