"""The steps of which a sign-in consists, and the two drivers that take them.

A sign-in is a generator. It yields a request to send, something to show, seconds to pause, a port to listen at, or an
answer of the browser to wait for; it gets what came of it, and returns a `Token`. It does no I/O, so it is tested with
`next` and `send`. What a request fails with is thrown into it.

`run` and `arun` take every step from the first to the last, and differ in how they wait. Nothing outlives them: the
sockets and the terminal are given back however they end, an interrupt included.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from httpx_reauth._errors import ReauthError
from httpx_reauth._token import Token
from httpx_reauth.oauth.request import MetadataRequest, TokenRequest
from httpx_reauth.signin.listener import bind
from httpx_reauth.signin.redirect import AwaitRedirect, Redirect

if TYPE_CHECKING:
    import socket

_SLICE = 0.5  # seconds that a sync wait takes at most, so that Ctrl-C gets through on Windows, too
_LOOK = 0.05  # seconds between two looks of an async wait: a person signs in meanwhile, who does not notice


@dataclass(frozen=True, slots=True)
class Show:
    """Show `prompt` to the person."""

    prompt: object


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Listen:
    """Listen at `host`, on the first of `ports` that is free. The answer is that port."""

    host: str
    ports: Sequence[int]


Request: TypeAlias = TokenRequest | MetadataRequest
Step: TypeAlias = Request | Show | Pause | Listen | AwaitRedirect
Steps: TypeAlias = Generator[Step, Any, Token]
Post: TypeAlias = Callable[[Request], Any]  # raises ReauthError
ShowPrompt: TypeAlias = Callable[[Any], object]


def run(steps: Steps, post: Post, show: ShowPrompt) -> Token:
    """The token at the end of `steps`; every wait blocks."""
    with closing(_Session(steps)) as session:
        step = session.send(None)
        while step is not None:
            match step:
                case Show():
                    _show(show, step.prompt)
                    step = session.send(None)
                case Pause():
                    time.sleep(step.seconds)
                    step = session.send(None)
                case Listen():
                    step = session.send(session.listen(step))
                case AwaitRedirect():
                    redirect = session.wait_for(step)
                    while not redirect.is_over:
                        for prompt in redirect.look(_SLICE):
                            _show(show, prompt)
                    step = session.send(session.answered())
                case _:
                    step = session.settle(_outcome(post, step))
        return session.token


async def arun(steps: Steps, post: Post, show: ShowPrompt) -> Token:
    """The same; every wait lets other tasks run, and a request is posted by a worker thread."""
    import anyio
    import anyio.to_thread

    with closing(_Session(steps)) as session:
        step = session.send(None)
        while step is not None:
            match step:
                case Show():
                    await _ashow(show, step.prompt)
                    step = session.send(None)
                case Pause():
                    await anyio.sleep(step.seconds)
                    step = session.send(None)
                case Listen():
                    step = session.send(session.listen(step))
                case AwaitRedirect():
                    redirect = session.wait_for(step)
                    while not redirect.is_over:
                        for prompt in redirect.look(0):
                            await _ashow(show, prompt)
                        await anyio.sleep(_LOOK)
                    step = session.send(session.answered())
                case _:
                    outcome = await anyio.to_thread.run_sync(_outcome, post, step, abandon_on_cancel=True)
                    step = session.settle(outcome)
        return session.token


def _show(show: ShowPrompt, prompt: object) -> None:
    shown = show(prompt)
    if inspect.isawaitable(shown):
        if inspect.iscoroutine(shown):
            shown.close()
        raise TypeError("show is a coroutine function, which run() cannot await. Give a plain function, or use arun().")


async def _ashow(show: ShowPrompt, prompt: object) -> None:
    shown = show(prompt)
    if inspect.isawaitable(shown):
        await shown


def _outcome(post: Post, request: Request) -> object:
    """The answer to `request`, or the error instead of one."""
    try:
        return post(request)
    except ReauthError as error:
        return error


class _Session:
    """The steps that are under way, and what they hold."""

    __slots__ = ("_redirect", "_sockets", "_steps", "token")

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._sockets: list[socket.socket] = []
        self._redirect: Redirect | None = None
        self.token = Token()  # until the steps have come to their end

    def send(self, result: object) -> Step | None:
        """The next step, or None at the end."""
        return self._advance(lambda: self._steps.send(result))

    def settle(self, outcome: object) -> Step | None:
        """The same, after a request."""
        if isinstance(outcome, ReauthError):
            return self._advance(lambda: self._steps.throw(outcome))
        return self.send(outcome)

    def _advance(self, advance: Callable[[], Step]) -> Step | None:
        try:
            return advance()
        except StopIteration as end:
            self.token = end.value
            return None

    def listen(self, step: Listen) -> int:
        self._sockets = bind(step.host, step.ports)
        port: int = self._sockets[0].getsockname()[1]
        return port

    def wait_for(self, step: AwaitRedirect) -> Redirect:
        self._redirect = redirect = Redirect(self._sockets, step)
        redirect.start()  # from here on, `close` knows of it
        return redirect

    def answered(self) -> object:
        """What the browser brought; the sockets are closed."""
        answer = None if self._redirect is None else self._redirect.answer
        self._close_sockets()
        return answer

    def _close_sockets(self) -> None:
        redirect, self._redirect = self._redirect, None
        sockets, self._sockets = self._sockets, []
        if redirect is not None:
            redirect.close()
        for one in sockets:
            one.close()

    def close(self) -> None:
        """Leave nothing behind."""
        try:
            self._close_sockets()
        finally:
            self._steps.close()
