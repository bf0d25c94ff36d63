"""The bytes that an auth object takes, with its token and the token's strings, if there are 100,000.

All share the refresh function. Each object has its own token: a lifetime, an access token and a refresh token of 43
characters each (32 random bytes in base64url). tracemalloc counts the bytes.
"""

from __future__ import annotations

import gc
import secrets
import tracemalloc

import httpx

from httpx_reauth import Reauth, Token

from ._report import Row
from ._subjects import URL, refresh, run_sync

FIGURE = "memory per auth object at 100,000 of them, refresh function shared, token strings counted"
OBJECTS = 100_000
TARGETS = ("1000", "750")


def run() -> list[Row]:
    request = httpx.Request("GET", URL)
    run_sync(_auth(), [request])  # objects that are made once for all are not counted
    gc.collect()
    tracemalloc.start()
    try:
        auths: list[Reauth | None] = [None] * OBJECTS
        before = tracemalloc.get_traced_memory()[0]
        for number in range(OBJECTS):
            auths[number] = _auth()
        gc.collect()
        constructed = tracemalloc.get_traced_memory()[0] - before
        for auth in auths:
            assert auth is not None
            run_sync(auth, [request])
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    strings = f"of which {2 * len(secrets.token_urlsafe(32)) + 2 * (''.__sizeof__())} are the token's two strings"
    return [
        Row(FIGURE, "constructed", constructed / OBJECTS, *TARGETS, unit=" bytes", note=strings),
        Row(FIGURE, "after its first request", used / OBJECTS, *TARGETS, unit=" bytes", note=strings),
    ]


def _auth() -> Reauth:
    token = Token(secrets.token_urlsafe(32), refresh_token=secrets.token_urlsafe(32), expires_in=3600.0)
    return Reauth(refresh, token=token)
