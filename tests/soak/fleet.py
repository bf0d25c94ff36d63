"""The fleet: sync, asyncio and trio workers.

Each is a thread with a client, and with its own and shared auth objects.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2

from httpx_reauth import ReauthError, Token
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.storage import FileStorage
from httpx_reauth.testing import AuthorizationServer

from .tally import Tally

MODES = ("asyncio", "trio", "sync")
CLIENT_SETTINGS: dict[str, Any] = {"verify": False, "trust_env": False, "timeout": 30.0}
LOOK = 0.1  # seconds between two attempts after the faults have ended
ATTEMPTS = 600  # for each worker and auth object; a back-off lasts at most 30 s
ERRORS = (ReauthError, httpx.HTTPError, httpx2.HTTPError)
_CANCELLED = 0.01  # the share of requests of async workers that is cancelled
_PAUSE = 0.02  # the most seconds between two requests of a task


@dataclass(frozen=True)
class Shared:
    """The auth objects that all workers with one HTTP library share."""

    package: Any
    reauth: Any
    server: AuthorizationServer
    url: str
    auths: list[Any]
    over: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, package: Any, reauth: Any, server: AuthorizationServer, url: str, file: Path) -> Shared:
        """Make one auth object for all workers, and two that share a file, as two processes would."""
        grant = RefreshTokenGrant(f"{url}/token", "app", timeout=5.0)
        in_file = server.issue(lifetime=...)
        auths = [reauth(grant, token=server.issue(lifetime=...))]
        auths += [reauth(grant, token=in_file, storage=FileStorage(file)) for _ in range(2)]
        return cls(package, reauth, server, url, auths)

    def close(self) -> None:
        for auth in self.auths:
            auth.close()


def _form(token: Token) -> dict[str, str]:
    return {"grant_type": "refresh_token", "refresh_token": token.refresh_token or ""}


class Worker:
    """A thread with one client.

    Attributes:
        tally: the outcomes of its requests.
        unserved: the number of its auth objects that got no answer after the faults had ended.
    """

    def __init__(self, shared: Shared, mode: str, tasks: int, number: int) -> None:
        self.shared, self.mode, self.tasks = shared, mode, tasks
        self.tally = Tally()
        self.unserved = 0
        self._random = random.Random(number)
        run: Callable[[], None] = self._sync if mode == "sync" else lambda: anyio.run(self._async, backend=mode)
        self.thread = threading.Thread(target=run, name=f"{mode} {shared.package.__name__}")

    def _sync(self) -> None:
        shared = self.shared
        with shared.package.Client(base_url=shared.url, **CLIENT_SETTINGS) as client:

            def refresh(token: Token) -> Token:
                return Token.from_response(client.post("/token", data=_form(token), auth=None))

            with shared.reauth(refresh, token=shared.server.issue(lifetime=...)) as own:
                auths = [own, *shared.auths]
                while not shared.over.wait(self._random.uniform(0, _PAUSE)):
                    with self.tally.request() as said:
                        said(client.get("/me", auth=self._random.choice(auths)).status_code)
                for auth in auths:
                    for _ in range(ATTEMPTS):
                        with suppress(*ERRORS):
                            if client.get("/me", auth=auth).status_code == 200:
                                break
                        time.sleep(LOOK)
                    else:
                        self.unserved += 1

    async def _async(self) -> None:
        shared = self.shared
        async with shared.package.AsyncClient(base_url=shared.url, **CLIENT_SETTINGS) as client:

            async def refresh(token: Token) -> Token:
                return Token.from_response(await client.post("/token", data=_form(token), auth=None))

            async with shared.reauth(refresh, token=shared.server.issue(lifetime=...)) as own:
                auths = [own, *shared.auths]

                async def work() -> None:
                    while not shared.over.is_set():
                        await anyio.sleep(self._random.uniform(0, _PAUSE))
                        patience = self._random.uniform(0, 0.01) if self._random.random() < _CANCELLED else 60.0
                        with self.tally.request() as said, anyio.move_on_after(patience):
                            said((await client.get("/me", auth=self._random.choice(auths))).status_code)

                async with anyio.create_task_group() as group:
                    for _ in range(self.tasks):
                        group.start_soon(work)
                for auth in auths:
                    for _ in range(ATTEMPTS):
                        with suppress(*ERRORS):
                            if (await client.get("/me", auth=auth)).status_code == 200:
                                break
                        await anyio.sleep(LOOK)
                    else:
                        self.unserved += 1
