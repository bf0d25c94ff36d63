"""The auth objects that are compared (none, the smallest bearer auth, ours), and functions that use them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

import httpx

from httpx_reauth import Reauth, Token

URL = "https://api.example.com/v1/users/42"
ACCESS_TOKEN = "Wv3Hc0sT9rXq7yZb2LmKfUeAnJdGpQiO5xS8tR1wE4o"  # 43 characters: 32 random bytes in base64url


class Bearer(httpx.Auth):
    """The smallest bearer auth: it sets a header that was made before."""

    def __init__(self, access_token: str) -> None:
        self._header = f"Bearer {access_token}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = self._header
        yield request


def refresh(token: Token) -> Token:
    """Raise, because nothing may call this: the token of these benchmarks is good for an hour."""
    raise AssertionError("The token was to be valid.")


def reauth(url: str, **settings: Any) -> Reauth:
    """Return a `Reauth` for `url`, whose token is valid and has been used before."""
    auth = Reauth(refresh, token=Token(ACCESS_TOKEN, expires_in=3600.0), **settings)
    for _ in range(2):
        run_sync(auth, [httpx.Request("GET", url)])
    return auth


def subjects(url: str = URL) -> dict[str, httpx.Auth]:
    """Return the auth objects by name. `url` is the URL of the requests."""
    origin = str(httpx.URL(url).join("/")).rstrip("/")
    return {
        "none": httpx.Auth(),
        "bearer": Bearer(ACCESS_TOKEN),
        "default": reauth(url),
        "one origin": reauth(url, origins=[origin]),
    }


def requests(count: int, url: str = URL) -> list[httpx.Request]:
    """Make requests as a client does."""
    # so it loads no TLS certificates
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
        return [client.build_request("GET", url) for _ in range(count)]


def without_token(requests: Iterable[httpx.Request]) -> None:
    """Remove the header that a flow has set."""
    for request in requests:
        request.headers.pop("Authorization", None)


def run_sync(auth: httpx.Auth, requests: Iterable[httpx.Request]) -> None:
    """Drive the flow of each request, step by step as `httpx.Client` does."""
    response = httpx.Response(200)
    for request in requests:
        flow = auth.sync_auth_flow(request)
        try:
            next(flow)
            try:  # noqa: SIM105 - `suppress` would cost as much as the code that is measured
                flow.send(response)
            except StopIteration:
                pass
        finally:
            flow.close()


def run_async(auth: httpx.Auth, requests: Iterable[httpx.Request]) -> None:
    """Do the same as `httpx.AsyncClient` does. With a valid token nothing waits, so no event loop is needed."""
    run_without_loop(_run_async(auth, requests))


async def _run_async(auth: httpx.Auth, requests: Iterable[httpx.Request]) -> None:
    response = httpx.Response(200)
    for request in requests:
        flow = auth.async_auth_flow(request)
        try:
            await flow.__anext__()
            try:  # noqa: SIM105 - as above
                await flow.asend(response)
            except StopAsyncIteration:
                pass
        finally:
            await flow.aclose()


def run_without_loop(coroutine: Any) -> None:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("It waited, although nothing was to be waited for.")


Run = Callable[[httpx.Auth, Iterable[httpx.Request]], None]

RUNS: dict[str, Run] = {"sync": run_sync, "async": run_async}
