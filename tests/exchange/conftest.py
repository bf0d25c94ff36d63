"""The fixtures for tests of whole requests: clients that are sync, asyncio or trio, of httpx or httpx2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from httpx_reauth import Token
from httpx_reauth.testing import AuthorizationServer, ManualClock

MODES = ("sync", "asyncio", "trio")


@dataclass(frozen=True)
class Talk:
    """Clients of one mode (sync, asyncio or trio) and of one HTTP library, for one server.

    A test is written once for all.
    """

    library: Any
    site: Any
    server: AuthorizationServer
    clock: ManualClock
    mode: str

    @property
    def is_async(self) -> bool:
        return self.mode != "sync"

    @property
    def package(self) -> Any:
        return self.library.package

    def auth(self, token: Token | None = None, refresh: Any = None, **settings: Any) -> Any:
        """Return a `Reauth` of the HTTP library with the server's clock.

        Its default token is one that the server has issued.
        """
        return self.library.Reauth(
            refresh or self.site.refresh("coroutine" if self.is_async else "function"),
            token=self.server.issue() if token is None else token,
            **{"clock": self.clock, **settings},
        )

    def all(self, auth: Any, *calls: Callable[[Any], Any], **settings: Any) -> list[Any]:
        """Call each of `calls`, one after the other, with one client that uses `auth`. Return their results."""
        if not self.is_async:
            with self.site.client(auth, **settings) as client:
                return [call(client) for call in calls]

        async def main() -> list[Any]:
            async with self.site.async_client(auth, **settings) as client:
                return [await call(client) for call in calls]

        return anyio.run(main, backend=self.mode)

    def __call__(self, auth: Any, call: Callable[[Any], Any], **settings: Any) -> Any:
        """Call `call` with a client that uses `auth`, and return its result."""
        return self.all(auth, call, **settings)[0]

    def token(self, auth: Any, **arguments: Any) -> Token:
        """Return `auth.get_token()`, or `await auth.aget_token()`."""
        if not self.is_async:
            return auth.get_token(**arguments)

        async def main() -> Token:
            return await auth.aget_token(**arguments)

        return anyio.run(main, backend=self.mode)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def talk(library: Any, site: Any, server: AuthorizationServer, clock: ManualClock, mode: str) -> Talk:
    """Return a `Talk` by a transport in memory."""
    return Talk(library, site, server, clock, mode)


@pytest.fixture
def socket_talk(library: Any, socket_site: Any, server: AuthorizationServer, clock: ManualClock, mode: str) -> Talk:
    """Return a `Talk` by a real loopback socket."""
    return Talk(library, socket_site, server, clock, mode)
