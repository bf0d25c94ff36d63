"""Tests of an exception that the user's refresh raises: what our messages say of it, and what an error keeps alive."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import sys
import traceback
import weakref

import anyio
import httpx
import pytest
from seams import join_refreshes

from httpx_reauth import Reauth, ReauthError, RefreshError, SignInRequired, Token
from httpx_reauth.oauth import Grant, RefreshTokenGrant, TokenRequest
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import ManualClock, faults

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


def get(client):
    return client.get("/me")


def warnings(caplog, auth) -> list[str]:
    auth.close()  # a waiting request continues before the line is written
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


# --- what the log says ---


def raises_here(token):
    raise KeyError("ttl")


def raises_below(token):
    return raises_here(token)


async def raises_in_a_coroutine(token):
    raise KeyError("ttl")


class Callable:
    def __call__(self, token):
        raise KeyError("ttl")

    def method(self, token):
        raise KeyError("ttl")


class OwnGrant(Grant):
    def flow(self, token):
        yield TokenRequest("https://id.example.com/token", {})
        raise KeyError("ttl")

    client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200)))


def wrapped(function):
    @functools.wraps(function)
    def wrapper(token):
        return function(token)

    return wrapper


def line_of(function, words: str) -> str:
    lines, start = inspect.getsourcelines(function)
    return f"{__file__}:{start + next(number for number, line in enumerate(lines) if words in line)}"


PLACES = {
    "a function": (raises_here, line_of(raises_here, " raise KeyError")),
    "a function that it calls": (raises_below, line_of(raises_here, " raise KeyError")),
    "a coroutine": (raises_in_a_coroutine, line_of(raises_in_a_coroutine, " raise KeyError")),
    "an object": (Callable(), line_of(Callable.__call__, " raise KeyError")),
    "a method": (Callable().method, line_of(Callable.method, " raise KeyError")),
    "a partial": (functools.partial(raises_here), line_of(raises_here, " raise KeyError")),
    "a decorated function": (wrapped(raises_here), line_of(raises_here, " raise KeyError")),
    "a grant": (OwnGrant(), line_of(OwnGrant.flow, " raise KeyError")),
    "a library below it": (lambda token: int(token.refresh_token), None),
}


@pytest.mark.parametrize(("refresh", "place"), PLACES.values(), ids=PLACES)
def test_log_line_says_type_words_and_place_of_what_the_refresh_raised(talk, server, refresh, place, caplog):
    if place is None:
        place = f"{__file__}:{refresh.__code__.co_firstlineno}"
    auth = talk.auth(server.issue(access_token=False), refresh)
    with pytest.raises(RefreshError) as failure:
        talk(auth, get)
    (line,) = warnings(caplog, auth)
    kind = type(failure.value.__cause__).__name__
    assert kind in {"KeyError", "ValueError"}
    for text in (line, str(failure.value)):
        assert f"{kind} at {place}" in text
        assert "see the cause" not in text
    assert str(failure.value.__cause__)[:5] in line


def test_guarantee_11_words_in_the_log_are_those_without_secrets(talk, server, caplog):
    def refresh(token):
        raise RuntimeError(
            f"POST https://me:pw@id.test/token?key=s3cret failed: {token.refresh_token} {token.extra['id_token']} "
            f"{{'access_token': 'unknown-to-us'}} {'x' * 10_000}"
        )

    token = Token(refresh_token="the-refresh-token", extra={"id_token": "the-id-token"})
    auth = talk.auth(token, refresh)
    with pytest.raises(RefreshError):
        talk(auth, get)
    (line,) = warnings(caplog, auth)
    assert "RuntimeError" in line
    assert "https://id.test/token failed" in line
    assert len(line) < 1_500
    for secret in ("the-refresh-token", "the-id-token", "unknown-to-us", "s3cret", "pw"):
        assert secret not in line


def test_exception_that_cannot_be_shown_is_a_failure_like_any_other(talk, server, caplog):
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def refresh(token):
        raise Odd

    auth = talk.auth(server.issue(access_token=False), refresh)
    with pytest.raises(RefreshError, match="Odd"):
        talk(auth, get)
    assert len(warnings(caplog, auth)) == 1


# --- groups ---


def group(*errors: Exception) -> Exception:
    return ExceptionGroup("unhandled errors in a TaskGroup", list(errors))


GROUPS = {
    "alone": lambda: group(SignInRequired("Sign in.")),
    "beside others": lambda: group(ValueError("a"), SignInRequired("Sign in."), RefreshError("b", retry_after=7.0)),
    "in a group in a group": lambda: group(ValueError("a"), group(KeyError("b"), group(SignInRequired("Sign in.")))),
}


@pytest.mark.parametrize("make", GROUPS.values(), ids=GROUPS)
def test_guarantee_6_sign_in_required_in_a_group_is_final(talk, server, clock, make):
    asked = []

    def refresh(token):
        asked.append(token)
        raise make()

    auth = talk.auth(server.issue(access_token=False), refresh)
    for _ in range(3):
        with pytest.raises(SignInRequired, match="Sign in"):
            talk(auth, get)
        clock.advance(10_000)
    assert len(asked) == 1


@pytest.mark.anyio
async def test_guarantee_6_sign_in_required_out_of_a_task_group_is_final(anyio_backend, clock):
    async def child():
        raise SignInRequired("Sign in.")

    async def refresh(token):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)
        raise AssertionError

    async with Reauth(refresh, clock=clock) as auth:
        for _ in range(2):
            with pytest.raises(SignInRequired, match="Sign in"):
                await auth.aget_token()
            clock.advance(10_000)


def test_refresh_error_in_a_group_is_the_failure_with_what_it_says(talk, server):
    def refresh(token):
        raise group(ValueError("a"), RefreshError("Later.", retry_after=7.0))

    with pytest.raises(RefreshError, match="Later") as failure:
        talk(talk.auth(server.issue(access_token=False), refresh), get)
    assert failure.value.retry_after == 7.0


def test_response_in_a_group_is_read(talk, server):
    def refresh(token):
        with talk.site.client() as client:
            form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
            try:
                client.post("/token", data=form).raise_for_status()
            except talk.package.HTTPStatusError as error:
                raise group(error) from None

    auth = talk.auth(server.issue(access_token=False), refresh)
    server.revoke_refresh_tokens()
    with pytest.raises(SignInRequired) as failure:
        talk(auth, get)
    assert failure.value.error == "invalid_grant"


def test_group_of_other_errors_names_the_first_and_is_the_cause(talk, server, caplog):
    def refresh(token):
        raise group(KeyError("first"), ValueError("second"))

    auth = talk.auth(server.issue(access_token=False), refresh)
    with pytest.raises(RefreshError, match="KeyError") as failure:
        talk(auth, get)
    assert isinstance(failure.value.__cause__, ExceptionGroup)
    assert "first" in warnings(caplog, auth)[0]


# --- a message is not repeated in the traceback ---


@pytest.mark.parametrize("kind", ["coroutine", "function", "grant"])
def test_traceback_of_a_failure_does_not_say_one_sentence_three_times(library, kind):
    def unreachable(request):
        try:
            try:
                raise OSError(111, "Connection refused")  # noqa: TRY301
            except OSError as error:
                raise RuntimeError("[Errno 111] Connection refused") from error  # httpcore does the same
        except RuntimeError as error:
            raise library.package.ConnectError("[Errno 111] Connection refused") from error

    transport = library.package.MockTransport(unreachable)

    def function(token):
        with library.package.Client(transport=transport) as client:
            return Token.from_response(client.post("https://id.test/token"))

    async def coroutine(token):
        return function(token)

    grant = RefreshTokenGrant(
        "https://id.test/token", "app", timeout=0.1, client=library.package.Client(transport=transport)
    )
    refresh = {"coroutine": coroutine, "function": function, "grant": grant}[kind]
    auth = library.Reauth(refresh, token=Token(refresh_token="r"), clock=ManualClock())
    with library.package.Client(auth=auth, transport=transport) as client:
        for _ in range(2):
            with pytest.raises(RefreshError) as failure:
                client.get("https://api.test/me")
            told = "".join(traceback.format_exception(failure.value))
            assert told.count("[Errno 111] Connection refused") <= 2
            assert told.count(str(failure.value)) <= 2


# --- what a failure keeps alive ---


class Witness:
    """An object in a local variable of a refresh."""


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "storage"])
@pytest.mark.parametrize("kind", ["function", "coroutine", "from a cause", "a group", "invalid_grant", "grant"])
def test_error_that_is_kept_has_no_frames(kind, stored, site, server, clock):
    witnesses = []

    def fails(token):
        here = Witness()
        witnesses.append(weakref.ref(here))
        if kind == "from a cause":
            try:
                raise KeyError("first")  # noqa: TRY301
            except KeyError as error:
                raise ValueError("second") from error
        if kind == "a group":
            raise group(ValueError("a"), RefreshError("b"))
        if kind == "invalid_grant":
            return Token.from_response({"error": "invalid_grant"})
        raise ValueError("first")

    async def coroutine(token):
        return fails(token)

    refresh = {"coroutine": coroutine, "grant": site.refresh("grant")}.get(kind, fails)
    server.token_endpoint.fail_always(faults.reply(400, {"error": "invalid_client"}))
    auth = Reauth(refresh, token=Token(refresh_token="r"), clock=clock, storage=MemoryStorage() if stored else None)
    for _ in range(3):
        with pytest.raises(ReauthError) as failure:
            auth.get_token()
        assert failure.value.__cause__ is not None
        # the exception that is raised has frames of the test; its cause has none
        assert frames_behind(failure.value.__cause__) == []
        del failure
        clock.advance(1_000)
    join_refreshes()  # until then, frames of the refresh's thread keep the witness alive
    kept = auth.store.state.error
    assert kept is not None
    assert frames_behind(kept) == []
    gc.collect()
    assert [witness for witness in witnesses if witness() is not None] == []


def frames_behind(error: BaseException) -> list[BaseException]:
    """Return those of `error`, its causes and its contexts that have a traceback."""
    found, left, seen = [], [error], set()
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if one.__traceback__ is not None:
            found.append(one)
        left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return found


def test_1000_failures_in_a_row_hold_the_memory_of_one(clock):
    alive: list[weakref.ref[Witness]] = []

    class Failed(Exception):
        def __init__(self) -> None:
            super().__init__("no")
            self.witness = Witness()
            alive.append(weakref.ref(self.witness))

    def refresh(token):
        raise Failed

    auth = Reauth(refresh, clock=clock)
    for _ in range(1_000):
        with pytest.raises(RefreshError):
            auth.get_token()
        clock.advance(1_000)
    assert len(alive) == 1_000
    join_refreshes()
    gc.collect()
    assert len([one for one in alive if one() is not None]) <= 2


# --- a refresh whose event loop is gone ---


def test_coroutine_refresh_that_is_lost_with_its_loop_says_how_to_leave(library):
    told = []

    async def refresh(token):
        await asyncio.Event().wait()

    async def main():
        auth = library.Reauth(refresh, token=Token("a", refresh_token="r", expires_in=60), clock=clock)
        auth.store.subscribe(lambda state, action: told.append(getattr(action, "error", None)))
        clock.advance(50)
        transport = library.package.MockTransport(lambda _: library.package.Response(200))
        async with library.package.AsyncClient(auth=auth, transport=transport) as client:
            await client.get("https://api.test/me")  # the renewal runs on in the background
        return auth

    clock = ManualClock()
    auth = asyncio.run(main())
    assert auth.store.state.status != "pending"
    (error,) = [error for error in told if error is not None]
    assert "async with auth" in str(error)
    assert "unknown" in str(error)


# --- scopes ---


@pytest.mark.parametrize("kind", ["function", "grant"])
def test_scope_that_shrank_is_logged_once(site, server, clock, kind, caplog):
    auth = Reauth(site.refresh(kind), token=Token(refresh_token="r", scope="read write admin"), clock=clock)
    for number in range(3):
        answer = {"access_token": f"a{number}", "expires_in": 60, "scope": "read extra", "refresh_token": "r"}
        server.token_endpoint.fail(faults.reply(200, answer))
        assert auth.get_token().scope == "read extra"
        clock.advance(100)
    (line,) = warnings(caplog, auth)
    assert "admin write" in line
    assert "read" not in line


@pytest.mark.parametrize(("before", "after"), [("repo gist", "gist,repo"), ("a,b", "b, a"), ("a,b", "b a c")])
def test_scopes_that_a_server_separates_by_commas_have_not_shrunk(site, server, clock, before, after, caplog):
    auth = Reauth(site.refresh("function"), token=Token(refresh_token="r", scope=before), clock=clock)
    server.token_endpoint.fail(faults.reply(200, {"access_token": "a", "scope": after}))
    assert auth.get_token().scope == after
    assert warnings(caplog, auth) == []


def test_scope_that_was_asked_for_and_not_granted_is_logged(site, server, clock, caplog):
    grant = RefreshTokenGrant(
        "https://api.test/token",
        "app",
        scope="read write",
        client=httpx.Client(transport=server.transport(httpx)),
    )
    server.token_endpoint.fail(faults.reply(200, {"access_token": "a", "scope": "read"}))
    auth = Reauth(grant, token=Token(refresh_token="r"), clock=clock)
    auth.get_token()
    (line,) = warnings(caplog, auth)
    assert "write" in line


class AsksForScope(Grant):
    """A grant that a user writes."""

    def __init__(self, client) -> None:
        self.client = client

    def flow(self, token):
        response = yield TokenRequest("https://api.test/token", {"grant_type": "x", "scope": "read write"})
        return Token.from_response(response)


@pytest.mark.parametrize(("answered", "scope"), [(None, "read write"), ("read", "read"), ("", "")])
@pytest.mark.parametrize("own", [False, True], ids=["ours", "a user's"])
def test_scope_that_was_asked_for_and_not_answered_is_the_one_asked_for(server, answered, scope, own):
    client = httpx.Client(transport=server.transport(httpx))
    ours = RefreshTokenGrant("https://api.test/token", "app", scope=["read", "write"], client=client)
    fields = {} if answered is None else {"scope": answered}
    server.token_endpoint.fail(faults.reply(200, {"access_token": "a", **fields}))
    grant = AsksForScope(client) if own else ours
    assert Reauth(grant, token=Token(refresh_token="r")).get_token().scope == scope


def test_further_fields_that_a_refresh_omits_are_kept_but_for_lifetimes(talk, server):
    first = {"id_token": "i", "instance_url": "https://na1.test", "refresh_expires_in": 5, "issued_at": "6"}
    auth = talk.auth(Token(refresh_token="r", extra=first))
    server.access = "open"
    server.token_endpoint.fail(faults.reply(200, {"access_token": "a", "instance_url": "https://na2.test"}))
    talk(auth, get)
    assert auth.store.state.token.extra == {"id_token": "i", "instance_url": "https://na2.test"}


def test_further_fields_of_an_error_reach_the_caller(talk, server):
    auth = talk.auth(Token(refresh_token="the-refresh-token"))
    said = {"error": "invalid_client", "trace_id": "t-1", "correlation_id": "c-1", "echo": "the-refresh-token"}
    server.token_endpoint.fail(faults.reply(401, said))
    with pytest.raises(RefreshError) as failure:
        talk(auth, get)
    assert failure.value.extra == {"trace_id": "t-1", "correlation_id": "c-1", "echo": "***"}
