"""Posts one request of a sign-in, as a grant does: the same bounds, the same client authentication."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast

import httpx

from httpx_reauth._errors import RefreshError
from httpx_reauth._token import Token
from httpx_reauth.oauth.grant import Grant
from httpx_reauth.oauth.grants import ClientAuth, ClientGrant
from httpx_reauth.oauth.request import FormFields, MetadataRequest, TokenRequest


class Client(ClientGrant):
    """The client as a grant sees it: its name, its secret, and how it shows that."""

    __slots__ = ()

    def flow(self, token: Token, /) -> Any:
        """Nothing is asked for by it."""
        raise NotImplementedError


def authenticated(
    url: str, form: FormFields, client_id: str, client_secret: str | None, client_auth: ClientAuth, *, allow_http: bool
) -> TokenRequest:
    """`form` with the client's authentication."""
    client = Client(url, client_id, client_secret, client_auth=client_auth, allow_http=allow_http)
    return client.request(form, idempotent=False)


class _One(Grant):
    """A grant that asks for one thing and returns the answer."""

    def __init__(self, request: TokenRequest, client: httpx.Client | None, *, allow_http: bool) -> None:
        self.client = client
        self.allow_http = allow_http
        self._request = request

    def flow(self, token: Token, /) -> Generator[TokenRequest, httpx.Response, Token]:  # noqa: ARG002
        return cast("Token", (yield self._request))


def post(request: TokenRequest | MetadataRequest, client: Any, *, allow_http: bool) -> Any:
    """The answer to `request`."""
    if isinstance(request, MetadataRequest):
        try:
            with httpx.Client(timeout=5.0) as own:
                return (client or own).get(request.url)
        except httpx.HTTPError as error:
            raise RefreshError(f"No answer ({error!r})") from error
    return _One(request, client, allow_http=allow_http)(Token())
