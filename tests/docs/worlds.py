"""Servers and files that the blocks of a page need while they run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import httpx
import respx
from vendors import serve_vendors, write_keys


@contextmanager
def _example_com() -> Iterator[None]:
    """The servers that the pages talk to: `auth`, `accounts` and `api.example.com`, and whatever runs on loopback.

    `auth` gives a token to anybody. `accounts` uses other JSON fields, and knows no session `s0`. `api` wants a token,
    except at `/open`.
    """

    def renew(request: httpx.Request) -> httpx.Response:
        if json.loads(request.content)["session"] == "s0":
            return httpx.Response(410)
        return httpx.Response(200, json={"jwt": "a", "session": "s2", "ttl": 600})

    with respx.mock(assert_all_called=False) as router:
        router.route(host="127.0.0.1").pass_through()
        token = {"access_token": "a", "refresh_token": "r", "expires_in": 3600}
        router.post("https://auth.example.com/token").respond(json=token)
        router.post("https://accounts.example.com/v1/sessions/renew").mock(side_effect=renew)
        router.post("https://accounts.example.com/v1/sessions").respond(json={"jwt": "a", "session": "s1", "ttl": 600})
        router.get("https://api.example.com/open").respond(json={})
        router.get("https://api.example.com/me", headers={"Authorization": "Bearer a"}).respond(json={"name": "me"})
        router.get("https://api.example.com/me").respond(401)
        yield


@contextmanager
def _vendors() -> Iterator[None]:
    """Mock the servers of the page about vendors, and write a key that they know."""
    write_keys(kind="RSA")
    with respx.mock(assert_all_called=False) as router:
        serve_vendors(router)
        yield


@contextmanager
def _with_a_key() -> Iterator[None]:
    """Do the same as `_example_com`, with a key in the current folder."""
    write_keys(kind="EC")
    with _example_com():
        yield


_HAS_ITS_OWN = {"docs/testing.md"}  # its blocks make their own mocks


def world_of(page: str) -> AbstractContextManager[None]:
    """Return the context in which the blocks of `page` run."""
    if page in _HAS_ITS_OWN:
        return nullcontext()
    worlds = {
        "docs/vendors.md": _vendors,
        "docs/service-with-a-key.md": _with_a_key,
        "docs/workload-identity.md": _with_a_key,
    }
    return worlds.get(page, _example_com)()
