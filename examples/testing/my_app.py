"""The code under test in these examples: it calls an API with a token that it renews, in sync and async code."""

from __future__ import annotations

import httpx

from httpx_reauth import Clock, Reauth, Token
from httpx_reauth.oauth import RefreshTokenGrant

API = "https://api.example.com"


def make_auth(token: Token, *, clock: Clock | None = None) -> Reauth:
    """Return the auth object of a user who has signed in. Tests pass a clock."""
    return Reauth(RefreshTokenGrant(f"{API}/token", "my-app"), token=token, origins=[API], clock=clock)


def my_name(auth: Reauth) -> str:
    """Return the name of the user at the API."""
    with httpx.Client(base_url=API, auth=auth) as client:
        return str(client.get("/me").raise_for_status().json()["name"])


async def my_name_async(auth: Reauth) -> str:
    """Do the same in async code."""
    async with httpx.AsyncClient(base_url=API, auth=auth) as client:
        return str((await client.get("/me")).raise_for_status().json()["name"])
