"""Tests of a signal handler that raises in the middle of a call: one refresh, no refresh token lost, nobody hangs.

The test tries bytecodes of the library and of `threading`, in the thread of the caller. Python runs signal handlers in
the main thread only, so no other thread can be interrupted.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from seams import busy, state_of
from steps import at_step

import httpx_reauth
from httpx_reauth import Reauth, Token
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.storage import MemoryStorage

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] == (3, 14),
    reason="CPython 3.14 itself can leave a lock locked after an interrupt: its issue 148874, see docs/limits.md",
)

INTERRUPTED = (str(Path(httpx_reauth.__file__).parent), threading.__file__)
# if not every bytecode is tried, the step between two of them; a prime number, so that almost every line gets a turn
STRIDE = 23
URL = "https://api.test/me"


class Interrupt(BaseException):
    """The exception that the signal handler raises."""


def interrupt() -> None:
    raise Interrupt


class World:
    """One auth object, and a server that rotates: it accepts each refresh token once."""

    def __init__(self, kind: str, *, has_storage: bool) -> None:
        self.others = set(threading.enumerate())  # earlier tests may have left threads
        self.spent: list[str | None] = []
        self.storage = MemoryStorage() if has_storage else None
        self.auth = Reauth(self._refresh(kind), token=Token(refresh_token="r0"), storage=self.storage)

    def _refresh(self, kind: str) -> Any:
        def function(token: Token) -> Token:
            self.spent.append(token.refresh_token)
            number = len(self.spent)
            return Token(f"a{number}", refresh_token=f"r{number}", expires_in=3600)

        async def coroutine(token: Token) -> Token:
            await asyncio.sleep(0)
            return function(token)

        def answer(request: httpx.Request) -> httpx.Response:
            form = httpx.QueryParams(request.content.decode())
            token = function(Token(refresh_token=form["refresh_token"]))
            return httpx.Response(
                200, json={"access_token": token.access_token, "refresh_token": token.refresh_token, "expires_in": 3600}
            )

        client = httpx.Client(transport=httpx.MockTransport(answer))
        grant = RefreshTokenGrant("https://id.test/token", "app", client=client)
        return {"function": function, "coroutine": coroutine, "grant": grant}[kind]

    def nothing_is_lost(self, where: str) -> None:
        """Assert that the next call returns the one token that was issued, and that the call after it gets a new one.

        A new one can only be issued if no refresh token was lost.
        """
        first = in_time(self.auth.get_token, where)
        in_time(self.auth.close, where)
        assert (first.access_token, self.spent) == ("a1", ["r0"]), where
        assert busy(self.auth) == [], where
        self.is_saved(where)
        assert in_time(lambda: self.auth.get_token(rejected=first), where).access_token == "a2", where
        assert self.spent == ["r0", "r1"], where
        self.no_thread_is_left(where)

    def is_saved(self, where: str) -> None:
        if self.storage is not None:
            assert self.storage.load() == self.auth.token, where
            assert state_of(self.auth).pending_write == "", where

    def no_thread_is_left(self, where: str) -> None:
        """Assert that no thread of a refresh runs any more. The interpreter would wait for it when it exits."""
        for thread in set(threading.enumerate()) - self.others:
            # a thread without an `ident` was interrupted in its start
            if "httpx_reauth" in thread.name and thread.ident is not None:
                thread.join(30)
                assert not thread.is_alive(), where


def in_time(function: Callable[[], Any], where: str) -> Any:
    """Return the result of `function`. Fail if it hangs."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(function()), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), f"it hangs: {where}"
    return answers[0]


def get_token(world: World) -> Callable[[], object]:
    return world.auth.get_token


def a_request(world: World) -> Callable[[], object]:
    def run() -> None:
        flow = world.auth.sync_auth_flow(httpx.Request("GET", URL))
        sent = next(flow)
        with pytest.raises(StopIteration):
            flow.send(httpx.Response(200, request=sent))

    return run


def interrupt_at(step: int, call: Callable[[], object]) -> bool:
    """Make `call`, and interrupt it at that bytecode. Return whether the call reached it."""
    try:
        return at_step(step, call, interrupt, of="opcode", file=INTERRUPTED, raises=True)
    except Interrupt:
        return True


@pytest.mark.skipif(sys.version_info < (3, 11), reason="CPython 3.10 itself crashes if a trace function raises there")
@pytest.mark.parametrize("has_storage", [False, True])
def test_guarantee_2_an_interrupt_at_any_bytecode_of_a_call_loses_nothing(*, has_storage: bool):
    # the first refresh imports modules; that must happen before
    World("function", has_storage=has_storage).auth.get_token()
    step, was_reached = 0, True
    while was_reached:
        step += 1
        world = World("function", has_storage=has_storage)
        was_reached = interrupt_at(step, world.auth.get_token)
        world.nothing_is_lost(f"at bytecode {step}")
    assert step > 500


@pytest.mark.parametrize("call", [get_token, a_request])
@pytest.mark.parametrize("has_storage", [False, True])
@pytest.mark.parametrize("kind", ["function", "grant", "coroutine"])
def test_guarantee_2_an_interrupt_loses_nothing_whatever_the_refresh_is(
    kind: str, call: Callable[[World], Callable[[], object]], *, has_storage: bool
):
    World(kind, has_storage=has_storage).auth.get_token()
    step, was_reached = 1, True
    while was_reached:
        world = World(kind, has_storage=has_storage)
        was_reached = interrupt_at(step, call(world))
        world.nothing_is_lost(f"at bytecode {step}")
        step += STRIDE
    assert step > 500


def change_session(world: World) -> None:
    world.auth.sign_in(Token("given", refresh_token="g0", expires_in=3600))
    world.auth.sign_out()


def renew_and_close(world: World) -> None:
    world.auth.renew()
    world.auth.close()


@pytest.mark.parametrize("calls", [change_session, renew_and_close])
@pytest.mark.parametrize("has_storage", [False, True])
def test_guarantee_2_an_interrupt_of_what_begins_or_ends_a_session_leaves_nobody_waiting_and_is_saved(
    calls: Callable[[World], None], *, has_storage: bool
):
    calls(World("function", has_storage=has_storage))
    step, was_reached = 1, True
    while was_reached:
        world = World("function", has_storage=has_storage)
        was_reached = interrupt_at(step, lambda: calls(world))  # noqa: B023 - it is called immediately
        where = f"at bytecode {step}"
        in_time(world.auth.close, where)
        assert busy(world.auth) == [], where
        if world.auth.token != Token(refresh_token="r0"):  # else the interrupt came before the call changed anything
            world.is_saved(where)
        in_time(lambda: world.auth.sign_in(Token(refresh_token="s0")), where)  # noqa: B023
        in_time(world.auth.get_token, where)
        world.is_saved(where)
        world.no_thread_is_left(where)
        step += STRIDE
    assert step > 200


# the coroutine was made, and then the interrupt came
@pytest.mark.filterwarnings("ignore:.*was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_guarantee_2_an_interrupt_at_any_bytecode_of_an_async_call_loses_nothing():
    async def one(step: int) -> bool:
        world = World("coroutine", has_storage=False)
        request = world.auth.aget_token()
        was_reached = True
        try:
            was_reached = at_step(
                step, lambda: request.send(None), interrupt, of="opcode", file=INTERRUPTED, raises=True
            )
        except (Interrupt, StopIteration):
            was_reached = True
        finally:
            request.close()
        for _ in range(5):
            await asyncio.sleep(0)
        token = await asyncio.wait_for(world.auth.aget_token(), 30)
        await asyncio.wait_for(world.auth.aclose(), 30)
        assert (token.access_token, world.spent) == ("a1", ["r0"]), f"at bytecode {step}"
        assert busy(world.auth) == [], f"at bytecode {step}"
        return was_reached

    step = 1
    while asyncio.run(one(step)):
        step += STRIDE
    assert step > 20 * STRIDE
