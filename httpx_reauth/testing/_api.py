"""The protected resource: it refuses as RFC 6750 §3 says, echoes what it got, and has paths that stream, wait and redirect."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from ._grants import Grants
from ._messages import Answer, Received, Step, json_answer
from ._settings import Settings
from ._signal import Signal

_CHALLENGE = 'Bearer realm="api"'


def refusal(request: Received, settings: Settings, grants: Grants, now: float) -> Answer | None:
    """The answer to a request whose access token is no good; None if it is. The caller holds the server's lock."""
    if settings.access == "open":
        return None
    token = settings.access_token_of(request)
    flaw = None if token is None else grants.flaw(token, now)
    if settings.access == "refused":
        flaw = flaw or "The access token is refused."
    elif token is not None and flaw is None:
        return None
    if settings.refusal is not None:
        return settings.refusal
    if token is None:  # RFC 6750 §3.1: then no error code either
        return json_answer(401, {"error": "no access token"}, ("WWW-Authenticate", _CHALLENGE))
    return json_answer(
        401,
        {"error": "invalid_token", "error_description": flaw},
        ("WWW-Authenticate", f'{_CHALLENGE}, error="invalid_token", error_description="{flaw}"'),
    )


def resource(request: Received, stream: Callable[[bool], Signal]) -> Answer:
    """The answer to a request whose access token is good.

    `stream(True)` opens one more event stream and returns its end, `stream(False)` closes it.
    """
    try:
        return _resource(request, stream)
    except (KeyError, ValueError) as error:
        return json_answer(400, {"error": f"The query is wrong: {error!r}"})


def _resource(request: Received, stream: Callable[[bool], Signal]) -> Answer:
    params = request.params
    match request.path:
        case "/redirect":
            return Answer(int(params.get("status", "302")), (("Location", params["to"]),))
        case "/slow":
            return _echo(request, (float(params.get("seconds", "1")),))
        case "/stream":
            return _stream(int(params.get("chunks", "10")), int(params.get("size", "1024")))
        case "/sse":
            return _events(stream)
        case _:
            return _echo(request, ())


def _echo(request: Received, waits: tuple[float, ...]) -> Answer:
    answer = json_answer(
        200,
        {
            "method": request.method,
            "path": request.path,
            "length": len(request.body),
            "sha256": hashlib.sha256(request.body).hexdigest(),
        },
    )
    return Answer(answer.status, answer.headers, answer.body, waits)


def _stream(chunks: int, size: int) -> Answer:
    def steps() -> Iterator[Step]:
        for number in range(chunks):
            yield bytes([ord("a") + number % 26]) * size

    return Answer(200, (("Content-Type", "application/octet-stream"),), steps)


def _events(stream: Callable[[bool], Signal]) -> Answer:
    def steps() -> Iterator[Step]:
        end = stream(True)
        try:
            yield b"data: open\n\n"
            yield end
            yield b"data: end\n\n"
        finally:
            stream(False)

    return Answer(200, (("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")), steps)
