"""What stands around the snippets of a page: the names that it takes as given, and who answers to its requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import httpx
import respx

from httpx_reauth import Reauth
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.testing import AuthorizationServer

Names = dict[str, object]


@contextmanager
def _example_com(_: Names) -> Iterator[respx.Router]:
    """`auth.example.com` gives a token to anybody, `api.example.com` wants one, except at `/open`."""
    with respx.mock(assert_all_called=False) as router:
        router.post("https://auth.example.com/token").respond(json={"access_token": "a", "expires_in": 3600})
        router.get("https://api.example.com/open").respond(json={})
        router.get("https://api.example.com/me", headers={"Authorization": "Bearer a"}).respond(json={"name": "me"})
        router.get("https://api.example.com/me").respond(401)
        yield router


@contextmanager
def _with_auth(names: Names) -> Iterator[None]:
    """`auth`, `client` and `grant` are given, as the README makes them; the token has expired."""
    with respx.mock() as router, AuthorizationServer() as server:
        server.mock(router)
        grant = RefreshTokenGrant("https://auth.example.com/token", "my-app")
        auth = Reauth(grant, token=server.issue(lifetime=0))
        with httpx.Client(base_url="https://api.example.com", auth=auth) as client:
            names |= {"auth": auth, "client": client, "grant": grant}
            yield


@contextmanager
def _with_accounts(names: Names) -> Iterator[None]:
    """`accounts.example.com` speaks JSON in words of its own."""

    def renew(request: httpx.Request) -> httpx.Response:
        if json.loads(request.content)["session"] == "s0":
            return httpx.Response(410)
        return httpx.Response(200, json={"jwt": "a", "session": "s2", "ttl": 600})

    with _example_com(names) as router:
        router.post("https://accounts.example.com/v1/sessions/renew").mock(side_effect=renew)
        router.post("https://accounts.example.com/v1/sessions").respond(json={"jwt": "a", "session": "s1", "ttl": 600})
        yield


_WORLDS: dict[str, Callable[[Names], AbstractContextManager[object]]] = {
    "docs/command-line.md": nullcontext,  # it has servers itself
    "docs/custom-endpoint.md": _with_accounts,
    "docs/observing.md": _with_auth,
    "docs/testing.md": nullcontext,  # it has servers of its own
    "docs/tutorial.md": nullcontext,
}


def world_of(page: str, names: Names) -> AbstractContextManager[object]:
    """What `page` stands in, while its snippets run; it puts the names that the page takes as given into `names`."""
    return _WORLDS.get(page, _example_com)(names)
