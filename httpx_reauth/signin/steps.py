"""The steps of a sign-in, and the two drivers that execute them.

A sign-in is a generator. It yields steps, and returns a `Token`. A step is a request to send, a prompt to show, a
pause, ports to listen at, or a wait for the browser's answer. The driver executes the step, and sends its result into
the generator. If a request fails, the driver throws the error into the generator. The generator does no I/O, so you can
test it with `next` and `send`.

`run` and `arun` execute all steps. They differ only in how they wait. Both close the sockets and reset the terminal at
the end, also after an error or an interrupt.
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

_SLICE = 0.5  # seconds; a longer sync wait would block Ctrl-C on Windows
_LOOK = 0.05  # seconds between two calls of `look` in async code; a person does not notice this delay


@dataclass(frozen=True, slots=True)
class Show:
    """Show `prompt` to the person."""

    prompt: object


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Listen:
    """Listen at `host`, on the first of `ports` that is free. The result of the step is that port."""

    host: str
    ports: Sequence[int]


Request: TypeAlias = TokenRequest | MetadataRequest
Step: TypeAlias = Request | Show | Pause | Listen | AwaitRedirect
Steps: TypeAlias = Generator[Step, Any, Token]
Post: TypeAlias = Callable[[Request], Any]  # raises ReauthError
ShowPrompt: TypeAlias = Callable[[Any], object]


def run(steps: Steps, post: Post, show: ShowPrompt) -> Token:
    """Execute `steps`, and return their token. Every wait blocks."""
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
    """Execute `steps`, and return their token. Other tasks run during each wait. A worker thread sends each request."""
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
    """Return the response to `request`, or the error that was raised."""
    try:
        return post(request)
    except ReauthError as error:
        return error


class _Session:
    """The generator of a sign-in that is under way, and the sockets that it holds open."""

    __slots__ = ("_redirect", "_sockets", "_steps", "token")

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._sockets: list[socket.socket] = []
        self._redirect: Redirect | None = None
        self.token = Token()  # replaced when the generator returns

    def send(self, result: object) -> Step | None:
        """Send `result` into the generator. Return the next step, or None if it was the last one."""
        return self._advance(lambda: self._steps.send(result))

    def settle(self, outcome: object) -> Step | None:
        """Send the response of a request into the generator, or throw its error. Return the next step, or None."""
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
        redirect.start()  # `close` already knows it, so an interrupt from here on does not leave it open
        return redirect

    def answered(self) -> object:
        """Return the browser's answer, after closing the sockets."""
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
        """Close the sockets and the generator."""
        try:
            self._close_sockets()
        finally:
            self._steps.close()
