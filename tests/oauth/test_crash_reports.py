"""Tests that a traceback with its local variables, as a crash reporter sends it, shows no secret of a failed grant."""

from __future__ import annotations

import socket
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from raw_server import PATIENCE, Connection, RawServer, answers, drops_after_reading, drops_before_reading, hangs
from sites import HttpLibrary

from httpx_reauth import Reauth, ReauthError, RefreshRejected, Token
from httpx_reauth.oauth import ClientCredentialsGrant, Grant, JWTBearerGrant, RefreshTokenGrant, TokenExchangeGrant
from httpx_reauth.oauth.driver import run

TIMEOUT = 0.3  # seconds
ID = "me"
CLIENT_SECRET = "the/client+secret"
REFRESH = "the-refresh-token-that-is-spent"
ACCESS = "the-access-token-that-was-used"
NEW = "the-new-refresh-token"
SUBJECT = "the/subject-token"
ACTOR = "the-actor-token"
ASSERTION = "the.signed.assertion"
SECRETS = (
    *(CLIENT_SECRET, "the%2Fclient%2Bsecret", "bWU6dGhl"),  # the last: of Basic's header
    *(REFRESH, ACCESS, NEW, SUBJECT, "the%2Fsubject-token", ACTOR, ASSERTION),
)


def illegal(connection: Connection) -> None:
    request = connection.read_request()
    connection.send(request.partition(b"\r\n\r\n")[2] + b"\r\n\r\n")


def breaks_off(connection: Connection) -> None:
    connection.read_request()
    connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n" + b'{"access_token": "' + NEW.encode())


def echoes(status: int, error: str) -> Callable[[Connection], None]:
    def script(connection: Connection) -> None:
        sent = connection.read_request().partition(b"\r\n\r\n")[2].decode()
        connection.answer(status, b'{"error": "%s", "error_description": "%s"}' % (error.encode(), sent.encode()))

    return script


def redirects(connection: Connection) -> None:
    connection.read_request()
    connection.answer(302, b"", b"location: https://elsewhere.example.com/")


USABLE = b'{"access_token": 7, "refresh_token": "%s"}' % NEW.encode()
WEIRD = b'{"access_token": "a", "token_type": "mac", "refresh_token": "%s"}' % NEW.encode()

SCRIPTS: dict[str, Callable[[Connection], None]] = {
    "503": answers(503, b"busy"),
    "500 with an echo": echoes(500, "server_error"),
    "invalid_grant": echoes(400, "invalid_grant"),
    "invalid_client": echoes(401, "invalid_client"),
    "HTML": answers(200, b"<html>", b"content-type: text/html"),
    "a redirect": redirects,
    "a timeout": hangs,
    "a dropped connection": drops_after_reading,
    "a connection dropped at once": drops_before_reading,
    "an answer that breaks off": breaks_off,
    "no HTTP": illegal,
    "an access token of a wrong type": answers(200, USABLE),
    "a token type that is not known": answers(200, WEIRD),
    "too long an answer": answers(200, NEW.encode() * 60_000),
    "broken gzip": answers(200, NEW.encode(), b"content-encoding: gzip"),
}
OTHERS = ("TLS", "connection refused", "a closed client", "a failing function", "a URL that cannot be used")


def raises() -> str:
    held = CLIENT_SECRET  # noqa: F841 - what a function of a user's may hold
    raise KeyError("vault")


@contextmanager
def failing(kind: str, package: Any, tls: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The token URL that fails in that way, and the settings for it."""
    settings: dict[str, Any] = {"client_secret": CLIENT_SECRET, "timeout": TIMEOUT}
    if kind == "connection refused":
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        yield f"http://127.0.0.1:{port}/token", settings
        return
    if kind == "a URL that cannot be used":
        yield "https://exa\u1806mple.com\u2000/token", settings
        return
    script = SCRIPTS.get(kind, answers())
    with RawServer(script, tls=tls[0] if kind == "TLS" else None) as server:
        if kind == "a closed client":
            settings["client"] = package.Client()
            settings["client"].close()
        if kind == "a failing function":
            settings["client_secret"] = raises
        yield server.url, settings


def chain(error: BaseException) -> list[BaseException]:
    """`error` and all that it came from."""
    seen: list[BaseException] = [error]
    for one in seen:
        seen += [e for e in (one.__cause__, one.__context__) if e is not None and not any(e is s for s in seen)]
    return seen


def frames(error: BaseException) -> Iterator[types.FrameType]:
    for one in chain(error):
        for frame, _ in traceback.walk_tb(one.__traceback__):
            yield frame


def check(error: BaseException) -> None:
    """No secret in what a crash reporter sends of `error`, nor in a local of a frame that is still attached."""
    report = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    for secret in SECRETS:
        assert secret not in report
    for frame in frames(error):
        if frame.f_code.co_filename == __file__:
            continue
        for name, value in frame.f_locals.items():
            held = repr(value) if isinstance(value, (str, bytes, list, tuple, dict)) else ""
            for secret in SECRETS:
                assert secret not in held, (frame.f_code.co_name, name)


each_kind = pytest.mark.parametrize("kind", [*SCRIPTS, *OTHERS])


def exchange(*arguments: Any, **settings: Any) -> Grant:
    return TokenExchangeGrant(*arguments, subject_token=SUBJECT, actor_token=lambda: ACTOR, **settings)


def chained(*arguments: Any, **settings: Any) -> Grant:
    first = Reauth(lambda _: Token(SUBJECT), token=Token(SUBJECT))
    return TokenExchangeGrant(*arguments, subject_token=first, **settings)


def assertion(*arguments: Any, **settings: Any) -> Grant:
    return JWTBearerGrant(*arguments, assertion=lambda: ASSERTION, client_auth="client_secret_basic", **settings)


each_grant = pytest.mark.parametrize(
    "grant_type", [ClientCredentialsGrant, RefreshTokenGrant, exchange, chained, assertion]
)


@each_kind
@each_grant
def test_guarantee_11_failure_of_a_grant_that_is_called_has_no_secret_in_a_local(kind, grant_type, library, tls):
    with failing(kind, library.package, tls) as (url, settings), library.package.Client(trust_env=False) as client:
        grant = grant_type(url, ID, **{"client": client, **settings})
        settings.clear()  # or the frame of this very test would have the secret
        with pytest.raises((ReauthError, RuntimeError)) as failure:
            run(grant, Token(ACCESS, refresh_token=REFRESH), refresh_timeout=TIMEOUT / 2)
    check(failure.value)


@each_kind
@each_grant
def test_guarantee_11_failure_of_a_refresh_has_no_secret_in_a_local(kind, grant_type, library: HttpLibrary, tls):
    with failing(kind, library.package, tls) as (url, settings):
        old = Token(ACCESS, refresh_token=REFRESH)
        auth = library.Reauth(grant_type(url, ID, **settings), token=old, refresh_timeout=1.0)
        settings.clear()
        failed = threading.Event()  # of a timeout, later than the caller has given up
        auth.store.subscribe(lambda _, action: failed.set() if isinstance(action, RefreshRejected) else None)
        with pytest.raises(ReauthError) as failure:
            auth.get_token(rejected=auth.store.state.token)
        assert failed.wait(PATIENCE)
    check(failure.value)
    shared = auth.store.state.error
    check(shared)
    assert list(frames(shared)) == []


@pytest.mark.parametrize("kind", ["503", "invalid_grant", "a dropped connection"])
def test_guarantee_11_failure_of_a_request_has_no_secret_in_a_local(kind, library: HttpLibrary, tls):
    with failing(kind, library.package, tls) as (url, settings):
        auth = library.Reauth(RefreshTokenGrant(url, ID, **settings), token=Token(refresh_token=REFRESH))
        settings.clear()
        with pytest.raises(ReauthError) as failure:
            library.package.get(url, auth=auth)
        check(failure.value)

        async def request() -> None:
            async with library.package.AsyncClient(auth=auth) as client:
                await client.get(url)

        with pytest.raises(ReauthError) as failure:
            anyio.run(request)
        check(failure.value)


@each_grant
def test_an_error_that_is_not_ours_says_where_it_came_from(grant_type):
    grant = grant_type("https://id.example.com/token", ID, raises)
    with pytest.raises(ReauthError) as failure:
        grant(Token(ACCESS, refresh_token=REFRESH))
    line = raises.__code__.co_firstlineno + 2
    assert f"{Path(__file__).name}:{line}" in str(failure.value)
    assert "KeyError" in str(failure.value)


def test_an_error_of_a_flow_of_ones_own_says_where_it_came_from():
    class Own(Grant):
        def flow(self, token: Token, /):
            yield from ()
            raise KeyError("vault")

    line = Own.flow.__code__.co_firstlineno + 2
    with pytest.raises(KeyError) as failure:
        Own()(Token())
    place = f"{Path(__file__).name}:{line}"
    assert place in "".join(failure.value.__notes__)
    with pytest.raises(ReauthError, match="KeyError") as failure:
        Reauth(Own()).get_token()
    assert place in str(failure.value)
