"""The calls that clients make, and the checks of their results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from httpx_reauth import ReauthError, RefreshError, SignInRequired, StorageUnavailable, Token
from httpx_reauth._errors import is_away

from ._loops import asleep
from ._values import API, REQUESTS, STRANGER, Dropped, another

if TYPE_CHECKING:
    from httpx_reauth import Reauth, TokenStore

    from ._world import Process, World

DEEDS = ("request",) * 40 + ("get_token",) * 5 + ("stranger",) * 2 + ("force", "sign in", "sign out", "close")
BLOCKING = ("request", "get_token", "sign in", "close")


class Deed:
    """One thing that a client does."""

    def __init__(self, process: Process, store: TokenStore, *, is_async: bool) -> None:
        self.process = process
        self.world: World = process.world
        self.store = store
        self.kernel = self.world.kernel
        random = self.kernel.random.random
        self.kind = DEEDS[int(random() * len(DEEDS))]
        self.blocks_loop = is_async and random() < 0.02
        if self.blocks_loop and self.kind not in BLOCKING:
            self.kind = "get_token"
        if process.pool is not None and self.kind == "sign out" and random() < 0.5:
            self.kind = "disconnect"
        self.is_done = False
        self.error: BaseException | None = None
        self.is_cancelled = False
        self.begun = self.kernel.now
        self.kernel.news(self.begun)  # the pause before the call has ended; each client makes only a few calls
        self._since = (0.0, 0, 0)
        self._session = 0
        self.kernel.note("begins", self.kind)

    def mark(self) -> None:
        """From here on it waits for a token."""
        machine = self.process.home.machine
        self._session = self.store._state.session
        self._since = (machine.monotonic(), self.process.watch.changes, self.process.disturbed)

    def arrive(self) -> None:
        """It has waited long enough (guarantee 10)."""
        since, changes, disturbed = self._since
        waited = self.process.home.machine.monotonic() - since
        # (If no thread can start, a plain function runs in place, as docs/limits.md says.) (A close waits for the
        # running refresh, and then for one more try to save what could not be saved.)
        is_quiet = (
            not self.world.settings.no_threads
            and self.kind != "close"
            and (changes, disturbed)
            == (
                self.process.watch.changes,
                self.process.disturbed,
            )
        )
        if is_quiet and waited > self.world.settings.refresh_timeout + 1.5:
            self.kernel.fail(f"somebody waited {waited:g} s for a token")

    def request(self) -> httpx.Request:
        return another(REQUESTS[STRANGER if self.kind == "stranger" else API])

    def check(self, request: httpx.Request, number: int, before: str) -> str:
        """What leaves is looked at; returns the token that it carries."""
        carried: str = request.headers.get("Authorization", "")
        server, settings = self.world.server, self.world.settings
        # A storage that is read for the first time may hold the very token that was given by hand, and refused.
        if number > 2 or (number == 2 and carried == before and not settings.storage):
            self.kernel.fail(f"request number {number} with {carried!r} after {before!r}")
        known = server.access.get(carried.removeprefix("Bearer "))
        if number == 2 and known is not None and not settings.storage and not settings.logs_in:
            first = server.access.get(before.removeprefix("Bearer "))
            if first is not None and first.family is not known.family and settings.rotation != "none":
                self.kernel.fail(f"sent with {before!r}, and again with {carried!r}, which is another session's")
        has_ended = known is not None and self.kernel.now >= known.ends
        if has_ended and number == 1 and self.kernel.now == self.begun and self._knows_the_end():
            self.kernel.fail(f"{carried} was sent after its end, though nobody had to wait for it")
        return carried

    def _knows_the_end(self) -> bool:
        settings = self.world.settings
        return settings.says == "expires_in" and not settings.storage and not self.process.disturbed

    def ends(self, status: int | None, error: BaseException | None) -> None:
        """What came of it is looked at: there must be a reason for whatever is not good."""
        self.is_done, self.error = True, error
        server = self.world.server
        self.kernel.note("ends", self.kind, status or "", "" if error is None else f"{type(error).__name__}: {error}")
        if self.is_cancelled and error is None and status is None:
            return
        if error is not None:
            expected = (ReauthError,) if self.kind in {"sign out", "disconnect"} else (ReauthError, Dropped)
            if not isinstance(error, expected):
                self.kernel.fail(f"{self.kind} raised {type(error).__name__}: {error}", error)
            if self.kind == "request" and isinstance(error, ReauthError):
                is_transport_error = isinstance(error, httpx.TransportError)
                if is_transport_error != isinstance(error, RefreshError):
                    self.kernel.fail(f"{type(error).__name__} out of a request: {type(error).__mro__}")
            if isinstance(error, RefreshError) and not (server.troubles or self.blocks_loop or self._is_crowded(error)):
                self.kernel.fail(f"{self.kind} raised an error without a reason: {error}", error)
            if isinstance(error, SignInRequired) and not (server.troubles or self._may_be_signed_out()):
                self.kernel.fail(f"{self.kind} asked for a sign-in without a reason: {error}", error)
        elif status == 401 and self.kind == "request" and not server.refusals:
            self.kernel.fail("a 401 without a reason")
        if self.kernel.violation is None:
            forget_frames(error)

    def _is_crowded(self, error: RefreshError) -> bool:
        """Do so many processes want the lease that one of them gets it too late?"""
        return self.world.settings.storage == "lease" and isinstance(error, StorageUnavailable) and not is_away(error)

    def _may_be_signed_out(self) -> bool:
        world = self.world
        watches = [process.watch for process in world.processes]
        is_another_session = self._session != self.store._state.session
        return is_another_session or world.settings.first == "none" or len(watches) > 1 or world.server.sign_outs > 0


def do(process: Process, auth: Reauth, deed: Deed) -> int | None:
    """Do it, in sync code."""
    status, problem = None, None
    try:
        deed.mark()
        if deed.kind == "get_token":
            auth.get_token()
        elif deed.kind == "force":
            auth.get_token(rejected=forced(process, auth))
        elif deed.kind == "sign in":
            auth.sign_in(process.world.server.sign_in(with_access=process.world.kernel.random.random() < 0.7))
        elif deed.kind == "sign out":
            process.world.server.sign_outs += 1
            auth.sign_out()
        elif deed.kind == "disconnect" and process.pool is not None:
            process.world.server.sign_outs += 1
            process.pool.disconnect()
        elif deed.kind == "close":
            (process.pool or auth).close()
        else:
            status = _send(process, auth, deed)
        deed.arrive()
    except Exception as error:  # noqa: BLE001 - it is checked
        problem = error
    deed.ends(status, problem)
    return status


def _send(process: Process, auth: Reauth, deed: Deed) -> int:
    kernel = process.world.kernel
    flow = auth.sync_auth_flow(deed.request())
    number, carried = 1, ""
    try:
        request = next(flow)
        while True:
            deed.arrive()
            carried = deed.check(request, number, carried)
            steps = process.world.api(request, carried)
            try:
                while True:
                    kernel.sleep(next(steps))
            except StopIteration as stop:
                response: httpx.Response = stop.value
            deed.mark()
            number += 1
            try:
                request = flow.send(response)
            except StopIteration:
                return response.status_code
    finally:
        flow.close()


async def ado(process: Process, auth: Reauth, deed: Deed) -> None:
    """Do it, in async code."""
    if deed.blocks_loop:  # this delays everybody who needs the loop meanwhile
        process.disturbed += 1
        process.world.server.troubles += 1
        do(process, auth, deed)
        return
    status, problem = None, None
    try:
        deed.mark()
        if deed.kind == "get_token":
            await auth.aget_token()
        elif deed.kind == "force":
            await auth.aget_token(rejected=forced(process, auth))
        elif deed.kind == "sign in":
            token = process.world.server.sign_in(with_access=process.world.kernel.random.random() < 0.7)
            await auth.asign_in(token)
        elif deed.kind == "sign out":
            process.world.server.sign_outs += 1
            await auth.asign_out()
        elif deed.kind == "disconnect" and process.pool is not None:
            process.world.server.sign_outs += 1
            await process.pool.adisconnect()
        elif deed.kind == "close":
            await (process.pool or auth).aclose()
        else:
            status = await _asend(process, auth, deed)
        deed.arrive()
    except Exception as error:  # noqa: BLE001 - it is checked
        problem = error
    deed.ends(status, problem)


async def _asend(process: Process, auth: Reauth, deed: Deed) -> int:
    kernel = process.world.kernel
    flow = auth.async_auth_flow(deed.request())
    number, carried = 1, ""
    try:
        request = await flow.__anext__()
        while True:
            deed.arrive()
            carried = deed.check(request, number, carried)
            steps = process.world.api(request, carried)
            while True:
                try:
                    seconds = next(steps)
                except StopIteration as stop:
                    response: httpx.Response = stop.value
                    break
                await asleep(kernel, seconds)
            deed.mark()
            number += 1
            try:
                request = await flow.asend(response)
            except StopAsyncIteration:
                return response.status_code
    finally:
        await flow.aclose()


def forget_frames(error: BaseException | None) -> None:
    """They would keep the auth object alive, in a circle that nothing collects while a world is played."""
    if error is not None:
        error.__traceback__ = None
        forget_frames(error.__cause__)
        forget_frames(error.__context__)


def forced(process: Process, auth: Reauth) -> Token | None:
    token = auth.store.state.token
    if token is not None:
        process.watch.forced.add(token.access_token)
    return token
