"""Tests of refusals that only the body shows: `read_body_of` names the statuses whose bodies `is_rejected` may read."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import pytest

from httpx_reauth.testing import Answer, faults

ENDED = json.dumps({"code": "SESSION_EXPIRED"}).encode()
JSON = (("Content-Type", "application/json"),)
FIRST = b"data: open\n\n"


def get(client):
    return client.get("/me")


def has_ended(response: Any) -> bool:
    """Do what the recipe of docs/custom-endpoint.md does."""
    if response.status_code != 403:
        return response.status_code == 401
    try:
        body = response.json()
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("code") == "SESSION_EXPIRED"


def test_a_403_whose_body_says_that_the_session_has_ended_renews_the_token(socket_talk, server):
    server.refusal = Answer(403, JSON, ENDED)
    auth = socket_talk.auth(is_rejected=has_ended, read_body_of={403})
    server.revoke_access_tokens()
    assert [answer.status_code for answer in socket_talk.all(auth, get, get)] == [200, 200]
    assert (server.token_requests, server.api_requests) == (1, 3)


def test_the_body_of_the_replay_s_answer_is_read_as_well(socket_talk, server):
    server.access, server.refusal = "refused", Answer(403, JSON, ENDED)
    auth = socket_talk.auth(is_rejected=has_ended, read_body_of={403})
    refused = socket_talk(auth, get)
    assert (refused.status_code, refused.json()) == (403, {"code": "SESSION_EXPIRED"})
    assert (server.token_requests, server.api_requests) == (1, 2)


@pytest.mark.parametrize(
    "fault",
    [
        faults.reply(403, b"<h1>Forbidden</h1>", {"Content-Type": "text/html"}),
        faults.reply(403),
        faults.reply(403, b"[1, 2]", {"Content-Type": "application/json"}),
        faults.reply(403, b'"SESSION_EXPIRED"', {"Content-Type": "application/json"}),
        faults.reply(403, b"null", {"Content-Type": "application/json"}),
        faults.reply(403, b"\xff\xfe\x00binary", {"Content-Type": "application/octet-stream"}),
        faults.reply(403, {"code": ["SESSION_EXPIRED"]}),
        faults.reply(403, {"code": "FORBIDDEN"}),
        faults.reply(204),
        faults.reply(200, b"PK\x03\x04 a file", {"Content-Type": "application/zip"}),
        faults.reply(200, b"[]", {"Content-Type": "application/json"}),
    ],
    ids=lambda fault: f"{fault.answer.status} {fault.answer.body[:10]!r}",
)
def test_every_other_answer_passes_the_recipe_of_the_docs_and_is_returned(talk, server, fault):
    auth = talk.auth(is_rejected=has_ended, read_body_of={403})
    server.api.fail(fault)
    answer = talk(auth, get)
    assert (answer.status_code, answer.content) == (fault.answer.status, fault.answer.body)
    assert server.token_requests == 0


def test_an_event_stream_of_another_status_streams_on(socket_talk, server):
    auth = socket_talk.auth(is_rejected=has_ended, read_body_of={403})

    def read(client):
        with client.stream("GET", "/sse") as response:
            chunks = response.iter_bytes()
            assert next(chunks) == FIRST  # the server has not sent everything yet
            server.end_streams()
            return b"".join(chunks)

    async def read_async(client):
        async with client.stream("GET", "/sse") as response:
            chunks = response.aiter_bytes()
            assert await anext(chunks) == FIRST
            server.end_streams()
            return b"".join([chunk async for chunk in chunks])

    assert socket_talk(auth, read_async if socket_talk.is_async else read) == b"data: end\n\n"


def test_a_body_that_cannot_be_read_is_the_client_s_own_error_and_nothing_is_renewed(socket_talk, server):
    auth = socket_talk.auth(is_rejected=has_ended, read_body_of={403})
    server.api.fail(faults.cut_off(ENDED[:5], status=403))
    with pytest.raises(socket_talk.package.RemoteProtocolError):
        socket_talk(auth, get)
    assert server.token_requests == 0
    assert socket_talk(auth, get).status_code == 200


@pytest.mark.parametrize("statuses", [{403}, [403, 419], (HTTPStatus.FORBIDDEN,), range(400, 404)])
def test_the_statuses_may_come_in_any_iterable(talk, server, statuses):
    server.refusal = Answer(403, JSON, ENDED)
    auth = talk.auth(is_rejected=has_ended, read_body_of=statuses)
    server.revoke_access_tokens()
    assert talk(auth, get).status_code == 200


@pytest.mark.parametrize("statuses", [403, "403", b"403", None, ["403"], {403.0}, [True], [None]], ids=str)
def test_a_wrong_read_body_of_is_a_type_error_that_says_what_to_write(library, statuses):
    with pytest.raises(TypeError, match=r"read_body_of=\{403\}"):
        library.Reauth(lambda token: token, is_rejected=has_ended, read_body_of=statuses)


@pytest.mark.parametrize("status", [0, 99, 600, 4030, -403])
def test_a_number_that_is_not_a_status_is_a_value_error(library, status):
    with pytest.raises(ValueError, match=rf"{status}.*read_body_of=\{{403\}}"):
        library.Reauth(lambda token: token, is_rejected=has_ended, read_body_of={status})


def test_read_body_of_without_is_rejected_is_a_type_error_that_says_so(library):
    with pytest.raises(TypeError, match=r"read_body_of=\{403\} needs is_rejected="):
        library.Reauth(lambda token: token, read_body_of={403, 419})
    library.Reauth(lambda token: token, read_body_of=())


def test_a_subclass_that_sets_requires_response_body_has_every_body_read(socket_talk, server):
    class ByBody(socket_talk.library.Reauth):
        requires_response_body = True

    server.refusal = Answer(200, JSON, ENDED)
    auth = ByBody(
        socket_talk.site.refresh("function"),
        token=server.issue(),
        clock=socket_talk.clock,
        is_rejected=lambda response: b"SESSION_EXPIRED" in response.content,
        read_body_of={403},
    )
    server.revoke_access_tokens()
    assert socket_talk(auth, get).status_code == 200
    assert server.token_requests == 1


# --- a body that was not read ---

# Each of these reads the body in a different way.
READS = [
    lambda response: response.json(),
    lambda response: response.content,
    lambda response: response.text,
]


@pytest.mark.parametrize("read", READS)
def test_is_rejected_that_reads_an_unread_body_is_an_error_that_points_to_read_body_of(socket_talk, server, read):
    auth = socket_talk.auth(is_rejected=read)
    server.api.fail(faults.reply(403, {"a": 1}))
    with pytest.raises(RuntimeError, match=r"is_rejected .*read_body_of=\{403\}") as failure:
        socket_talk(auth, get)
    assert isinstance(failure.value.__cause__, socket_talk.package.ResponseNotRead)


def test_is_rejected_that_reads_in_a_sync_way_what_an_async_client_has_not_read_is_pointed_there_as_well(
    socket_talk, server
):
    auth = socket_talk.auth(is_rejected=lambda response: b"no" in response.read())
    if not socket_talk.is_async:
        assert socket_talk(auth, get).status_code == 200
        return
    with pytest.raises(RuntimeError, match=r"read_body_of=\{200\}"):
        socket_talk(auth, get)


def test_another_runtime_error_of_is_rejected_stays_what_it_is(talk):
    def is_rejected(response):
        raise RuntimeError("of the user")

    with pytest.raises(RuntimeError, match=r"^of the user$"):
        talk(talk.auth(is_rejected=is_rejected), get)


def test_authorize_that_reads_a_body_that_was_not_read_is_pointed_to_buffer_request_body(socket_talk, server):
    """An `authorize` that signs the body must read it."""

    def authorize(request, token):
        request.headers["X-Signature"] = str(len(request.content))
        request.headers["Authorization"] = f"Bearer {token.access_token}"

    async def parts():
        yield b"an order"

    def post(client):
        return client.post("/order", content=parts() if socket_talk.is_async else iter([b"an order"]))

    with pytest.raises(RuntimeError, match=r"authorize .*buffer_request_body=True") as failure:
        socket_talk(socket_talk.auth(authorize=authorize), post)
    assert isinstance(failure.value.__cause__, socket_talk.package.RequestNotRead)
    assert server.api_requests == 0
    assert socket_talk(socket_talk.auth(authorize=authorize, buffer_request_body=True), post).status_code == 200
