"""Measures the size of the core: entries, modules, import circles, and the calls that one request makes.

Only calls of the package's functions count, without the test kit. Another object has made the same request before. If a
generator continues, that counts as a call.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from httpx_reauth import Reauth, Token
from httpx_reauth._tokens import _refresh
from httpx_reauth.storage import FileStorage

from ._report import Row
from ._source import PACKAGE, circles, drivers, entries, modules

URL = "https://api.example.com/me"
# The attributes that `design.md` lists for a user, and those that httpx needs.
PUBLIC = {
    "aclose", "aget_token", "arenew", "asign_in", "asign_out", "async_auth_flow", "auth_flow", "close", "get_token",
    "renew", "requires_request_body", "requires_response_body", "sign_in", "sign_out", "store", "sync_auth_flow",
    "token",
}  # fmt: skip


@dataclass
class Walk:
    """The modules of the called functions, one entry for each call."""

    modules: list[str] = field(default_factory=list)

    @property
    def changes(self) -> int:
        """Return how many calls are in another module than the call before."""
        return sum(one != other for one, other in zip(self.modules, self.modules[1:], strict=False))

    def __str__(self) -> str:
        return f"{len(self.modules)} calls / {len(set(self.modules))} modules / {self.changes} changes"


def run() -> list[Row]:
    """Return the rows of the table, measured now."""
    core, everything = modules(core_only=True), modules()
    doors = [(name, one) for name, module in core.items() for one in module.inner_imports]
    found = drivers(core.values())
    names = {name for name in dir(Reauth) if not name.startswith("_")} - PUBLIC
    slots = [*_refresh.Flight.__slots__, *(name for name in _refresh.Worker.__slots__ if name != "__weakref__")]
    without, faster, valid = walks()
    return [
        Row("entries at the top", "", len(entries()), "15", note=", ".join(entries())),
        Row("core", "modules", len(core), "30"),
        Row("core", "lines", sum(module.lines for module in core.values())),
        Row("core", "lines but docstrings, comments and empty ones", sum(module.code for module in core.values())),
        Row("core", "imports of ours inside of functions", len(doors), "1", note=_listed(doors)),
        Row("circles of imports", "", len(circles(everything)), "0", note=_listed(circles(everything))),
        *_rows("a request without a token, coroutine", without, ("130", "14", "75")),
        *_rows("file storage, another process was faster", faster, ("130", "16", "75")),
        *_rows("a valid token, second request", valid, ("2", "1", "1")),
        Row("slots of flight and worker", "", len(slots), "20", note=", ".join(slots)),
        Row("drivers of generators", "", len(found), "4", note=", ".join(found)),
        Row("internal names on Reauth", "", len(names), "0", note=", ".join(sorted(names))),
    ]


def walks() -> tuple[Walk, Walk, Walk]:
    """Measure three requests.

    One has no token, for one another process was faster, and one is the second with a valid token.
    """
    return asyncio.run(_without_a_token()), asyncio.run(_another_was_faster()), asyncio.run(_valid())


async def _refresh_function(_: Token) -> Token:
    return Token("new", refresh_token="next", expires_in=3600.0)


async def _send(auth: Reauth) -> None:
    flow = auth.async_auth_flow(httpx.Request("GET", URL))
    request = await flow.__anext__()
    try:
        await flow.asend(httpx.Response(200, request=request))
    except StopAsyncIteration:
        return


async def _without_a_token() -> Walk:
    warm, auth = (Reauth(_refresh_function, token=Token(refresh_token="first")) for _ in range(2))
    await _send(warm)
    with watched() as walk:
        await _send(auth)
    return walk


async def _another_was_faster() -> Walk:
    with tempfile.TemporaryDirectory() as folder:
        auths = []
        for name in ("warm", "measured"):
            path = Path(folder) / name
            auth = Reauth(_refresh_function, storage=FileStorage(path), leeway=0.0)
            await auth.asign_in(Token("old", refresh_token="first", expires_in=0.001))
            FileStorage(path).save(Token("theirs", refresh_token="next", expires_at=4e9))
            auths.append(auth)
        warm, auth = auths
        await _send(warm)
        with watched() as walk:
            await _send(auth)
    assert auth.token is not None
    assert auth.token.access_token == "theirs"
    return walk


async def _valid() -> Walk:
    auth = Reauth(_refresh_function, token=Token("valid", expires_in=3600.0))
    await _send(auth)
    with watched() as walk:
        await _send(auth)
    return walk


@contextmanager
def watched() -> Iterator[Walk]:
    """Record each call of a function of the package, on every thread."""
    walk = Walk()

    def see(frame: FrameType, event: str, _: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith(f"{PACKAGE}.") and not module.startswith(f"{PACKAGE}.testing"):
            walk.modules.append(module)

    threading.setprofile(see)
    sys.setprofile(see)
    try:
        yield walk
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def _rows(case: str, walk: Walk, musts: tuple[str, str, str]) -> list[Row]:
    figures = (len(walk.modules), len(set(walk.modules)), walk.changes)
    kinds = ("calls", "modules", "changes of module")
    return [Row(case, kind, figure, must) for kind, figure, must in zip(kinds, figures, musts, strict=True)]


def _listed(things: list[Any]) -> str:
    return "; ".join(" -> ".join(one) for one in things)
