"""Tests of callbacks that are coroutine functions where a plain function is needed. Each is an error immediately."""

from __future__ import annotations

import logging
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any

import pytest

from httpx_reauth import Token, TokenStore


def get(client):
    return client.get("/me")


async def coroutine(*_: Any) -> bool:
    return True


async def generator(*_: Any):
    yield True


class WithMethod:
    async def method(self, *_: Any) -> bool:
        return True

    async def __call__(self, *_: Any) -> bool:
        return True


ASYNC = {
    "coroutine function": coroutine,
    "partial": partial(coroutine),
    "partial of a partial": partial(partial(coroutine)),
    "method": WithMethod().method,
    "partial of a method": partial(WithMethod().method),
    "object with an async call": WithMethod(),
    "partial of an object with an async call": partial(WithMethod()),
    "async generator function": generator,
    "partial of an async generator function": partial(generator),
}


@pytest.fixture(params=ASYNC.values(), ids=ASYNC)
def async_callback(request):
    return request.param


@pytest.mark.parametrize("setting", ["authorize", "is_rejected"])
def test_an_async_callback_is_a_type_error_immediately(library, setting, async_callback):
    with pytest.raises(TypeError, match=rf"{setting} .*`def`"):
        library.Reauth(lambda token: token, **{setting: async_callback})


def test_an_async_listener_is_a_type_error_immediately(async_callback):
    store = TokenStore()
    with pytest.raises(TypeError, match=r"listener .*`def`"):
        store.subscribe(async_callback)


def test_an_async_generator_function_is_refused_as_a_refresh(library):
    with pytest.raises(TypeError, match="refresh"):
        library.Reauth(generator)


@wraps(coroutine)
def in_disguise(*arguments: Any) -> Any:
    """Return a plain function that calls a coroutine function, as a decorator does.

    Nothing shows this before the call.
    """
    return coroutine(*arguments)


class Awaitable:
    def __await__(self):
        yield


AWAITABLES = {
    "coroutine": in_disguise,
    "async generator": lambda *_: generator(),
    "awaitable object": lambda *_: Awaitable(),
}


@pytest.fixture(params=AWAITABLES.values(), ids=AWAITABLES)
def disguised(request):
    return request.param


def test_guarantee_13_an_authorize_that_returns_an_awaitable_sends_nothing(talk, server, disguised):
    auth = talk.auth(authorize=disguised)
    with pytest.raises(TypeError, match="authorize"):
        talk(auth, get)
    assert server.requests == []


def test_an_is_rejected_that_returns_an_awaitable_is_an_error_and_no_refusal(talk, server, disguised):
    auth = talk.auth(is_rejected=disguised)
    with pytest.raises(TypeError, match="is_rejected"):
        talk(auth, lambda client: client.post("/order", content=b"one"))
    assert (server.api_requests, server.token_requests) == (1, 0)


def test_a_listener_that_returns_an_awaitable_is_logged_and_the_next_one_is_called(talk, server, disguised, caplog):
    auth, heard = talk.auth(server.issue(access_token=False)), []
    auth.store.subscribe(disguised)
    auth.store.subscribe(lambda state, action: heard.append(action))
    with caplog.at_level(logging.ERROR, "httpx_reauth"):
        assert talk(auth, get).status_code == 200
        auth.close()
    assert len(heard) == 2
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "listener" in caplog.text


def test_a_listener_may_start_a_task_and_return_it():
    """The task runs without anybody awaiting it, so nothing is lost."""
    store, task = TokenStore(), SimpleNamespace(__await__=None, add_done_callback=print)
    logged: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = logged.append  # type: ignore[method-assign]
    logging.getLogger("httpx_reauth").addHandler(handler)
    try:
        store.subscribe(lambda state, action: task)
        from httpx_reauth import SignedIn

        store.dispatch(SignedIn(Token("a")))
    finally:
        logging.getLogger("httpx_reauth").removeHandler(handler)
    assert logged == []


class AClass:
    """A class, given where one of its objects is expected."""

    def __init__(self, *_: Any) -> None: ...


@pytest.mark.parametrize("setting", ["authorize", "is_rejected"])
@pytest.mark.parametrize("value", [5, "X-Api-Key", {403}, Token("a"), AClass], ids=str)
def test_a_callback_that_is_not_a_function_is_a_type_error_that_says_what_is_wanted(library, setting, value):
    with pytest.raises(TypeError, match=rf"^{setting} .*function"):
        library.Reauth(lambda token: token, **{setting: value})


@pytest.mark.parametrize("value", [None, 5, "print", AClass], ids=str)
def test_a_listener_that_cannot_be_called_is_a_type_error(value):
    with pytest.raises(TypeError, match=r"^listener .*function"):
        TokenStore().subscribe(value)
