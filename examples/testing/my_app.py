"""The code under test in these recipes: it calls an API with a token that it keeps alive, in sync and in async code."""

from __future__ import annotations

import httpx

from httpx_reauth import Clock, Reauth, Token
from httpx_reauth.oauth import RefreshTokenGrant

API = "https://api.example.com"


def make_auth(token: Token, *, clock: Clock | None = None) -> Reauth:
    """The auth object of a user who has signed in. Tests pass a clock."""
    return Reauth(RefreshTokenGrant(f"{API}/token", "my-app"), token=token, origins=[API], clock=clock)


def my_name(auth: Reauth) -> str:
    """What the API calls the user."""
    with httpx.Client(base_url=API, auth=auth) as client:
        return str(client.get("/me").raise_for_status().json()["name"])


async def my_name_async(auth: Reauth) -> str:
    """The same, for async code."""
    async with httpx.AsyncClient(base_url=API, auth=auth) as client:
        return str((await client.get("/me")).raise_for_status().json()["name"])
