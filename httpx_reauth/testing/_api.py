"""The protected resource. It refuses requests (RFC 6750 §3), or echoes, streams, waits and redirects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Protocol

from httpx_reauth.testing._grants import Grants
from httpx_reauth.testing._messages import Answer, Received, Step, json_answer
from httpx_reauth.testing._settings import Settings
from httpx_reauth.testing._signal import Signal

_CHALLENGE = 'Bearer realm="api"'


class Streams(Protocol):
    """The counter of the open event streams, with the signal for their end."""

    def stream_opened(self) -> Signal:
        """Count one more open stream. It must end when the returned signal is set."""
        ...

    def stream_closed(self) -> None:
        """Count one stream less."""
        ...


def refusal(request: Received, settings: Settings, grants: Grants, now: float) -> Answer | None:
    """Return the refusal of a request, or None if its access token is valid. The caller holds the server's lock."""
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
    if token is None:  # RFC 6750 §3.1: then the response has no error code
        return json_answer(401, {"error": "no access token"}, ("WWW-Authenticate", _CHALLENGE))
    return json_answer(
        401,
        {"error": "invalid_token", "error_description": flaw},
        ("WWW-Authenticate", f'{_CHALLENGE}, error="invalid_token", error_description="{flaw}"'),
    )


def resource(request: Received, streams: Streams) -> Answer:
    """Return the response to a request with a valid access token, or a 400 if its query is wrong."""
    params = request.params
    try:
        match request.path:
            case "/redirect":
                return Answer(int(params.get("status", "302")), (("Location", params["to"]),))
            case "/slow":
                return _echo(request, waits=(float(params.get("seconds", "1")),))
            case "/stream":
                return _stream(int(params.get("chunks", "10")), int(params.get("size", "1024")))
            case "/sse":
                return _events(streams)
            case _:
                return _echo(request)
    except (KeyError, ValueError) as error:
        return json_answer(400, {"error": f"The query is wrong: {error!r}"})


def _echo(request: Received, waits: tuple[float, ...] = ()) -> Answer:
    echo = {
        "method": request.method,
        "path": request.path,
        "length": len(request.body),
        "sha256": hashlib.sha256(request.body).hexdigest(),
    }
    return json_answer(200, echo, waits=waits)


def _stream(chunks: int, size: int) -> Answer:
    def steps() -> Iterator[Step]:
        for number in range(chunks):
            yield bytes([ord("a") + number % 26]) * size

    return Answer(200, (("Content-Type", "application/octet-stream"),), steps)


def _events(streams: Streams) -> Answer:
    def steps() -> Iterator[Step]:
        end = streams.stream_opened()
        try:
            yield b"data: open\n\n"
            yield end
            yield b"data: end\n\n"
        finally:
            streams.stream_closed()

    return Answer(200, (("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")), steps)
