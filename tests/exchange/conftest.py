"""What the tests of whole requests share: one way to talk that is sync, asyncio or trio, on httpx or httpx2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from httpx_reauth import Token
from httpx_reauth.testing import AuthorizationServer, ManualClock

COLOURS = ("sync", "asyncio", "trio")


@dataclass(frozen=True)
class Talk:
    """Clients of one colour and one package, at one server; a test is written once for all of them."""

    flavour: Any
    site: Any
    server: AuthorizationServer
    clock: ManualClock
    colour: str

    @property
    def is_async(self) -> bool:
        return self.colour != "sync"

    @property
    def package(self) -> Any:
        return self.flavour.package

    def auth(self, token: Token | None = None, refresh: Any = None, **settings: Any) -> Any:
        """A `Reauth` of the package with the server's clock; by default with a token that the server has issued."""
        return self.flavour.Reauth(
            refresh or self.site.refresh("coroutine" if self.is_async else "function"),
            token=self.server.issue() if token is None else token,
            **{"clock": self.clock, **settings},
        )

    def all(self, auth: Any, *calls: Callable[[Any], Any], **settings: Any) -> list[Any]:
        """What each of `calls` returns, one after the other, given one client that uses `auth`."""
        if not self.is_async:
            with self.site.client(auth, **settings) as client:
                return [call(client) for call in calls]

        async def main() -> list[Any]:
            async with self.site.async_client(auth, **settings) as client:
                return [await call(client) for call in calls]

        return anyio.run(main, backend=self.colour)

    def __call__(self, auth: Any, call: Callable[[Any], Any], **settings: Any) -> Any:
        """What the one `call` returns."""
        return self.all(auth, call, **settings)[0]

    def token(self, auth: Any, **arguments: Any) -> Token:
        """`auth.get_token()`, or `await auth.aget_token()`."""
        if not self.is_async:
            return auth.get_token(**arguments)

        async def main() -> Token:
            return await auth.aget_token(**arguments)

        return anyio.run(main, backend=self.colour)


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def talk(flavour: Any, site: Any, server: AuthorizationServer, clock: ManualClock, colour: str) -> Talk:
    """By a transport in memory."""
    return Talk(flavour, site, server, clock, colour)


@pytest.fixture
def socket_talk(flavour: Any, socket_site: Any, server: AuthorizationServer, clock: ManualClock, colour: str) -> Talk:
    """By a real loopback socket."""
    return Talk(flavour, socket_site, server, clock, colour)
