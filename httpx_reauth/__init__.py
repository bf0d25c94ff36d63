"""An `httpx.Auth` that keeps its token in a small observable store, renews it in one shared flight, and sends the
request again (floor 5: the face for httpx).

    auth = Reauth(refresh, token=Token(refresh_token="..."))
    async with auth, httpx.AsyncClient(auth=auth) as client:
        me = await client.get("https://api.example.com/me")
"""

from __future__ import annotations

import httpx

from ._auth import Face, ReauthBase
from ._clock import Clock
from ._errors import InsecureOrigin, ReauthError, RefreshError, SignInRequired, StorageError
from ._state import (
    AuthState,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    SaveFailed,
    SignedIn,
    SignedOut,
)
from ._store import TokenStore
from ._token import Token

__all__ = [
    "AuthState",
    "Clock",
    "InsecureOrigin",
    "Reauth",
    "ReauthError",
    "RefreshError",
    "RefreshFulfilled",
    "RefreshPending",
    "RefreshRejected",
    "SaveFailed",
    "SignInRequired",
    "SignedIn",
    "SignedOut",
    "StorageError",
    "Token",
    "TokenStore",
]


class Reauth(ReauthBase[httpx.Request, httpx.Response], httpx.Auth):
    __doc__ = ReauthBase.__doc__
    __slots__ = ()

    face = Face(httpx.URL, httpx.ByteStream, httpx.TransportError)
