"""Tests of a 401 on a real socket: the body is sent again byte for byte, or not at all (guarantee 5)."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from httpx_reauth import RefreshError, SignInRequired
from httpx_reauth.testing import faults

# More than a socket's buffer, and more than one chunk of a multipart file. No two parts of it are equal.
DATA = b"".join(b"%07d." % number for number in range(60_000))
PARTS = [DATA[:100_000], DATA[100_000:100_001], DATA[100_001:]]


class ReadOnly:
    """A file that can only be read, as a pipe or a socket's file."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


class Unseekable(ReadOnly):
    """A file that has a method `seek`, but cannot seek, and says so."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation("seek")

    def tell(self) -> int:
        raise io.UnsupportedOperation("tell")


class Flagged(ReadOnly):
    """A file class of a user. Only its attribute `closed` shows that it is closed."""

    closed = False

    def seekable(self) -> bool:
        return True

    def seek(self, *where: int) -> int:
        return self._file.seek(*where)

    def close(self) -> None:
        self.closed = True
        self._file = io.BytesIO()


def generator() -> Iterator[bytes]:
    yield from PARTS


async def async_generator() -> AsyncIterator[bytes]:
    for part in PARTS:
        yield part


class AsyncIterated:
    """An async iterator that is not a generator. httpx does not notice when it has been read to its end."""

    def __init__(self) -> None:
        self._parts = iter(PARTS)

    def __aiter__(self) -> AsyncIterated:
        return self

    async def __anext__(self) -> bytes:
        for part in self._parts:
            return part
        raise StopAsyncIteration


@dataclass(frozen=True)
class Body:
    """A way to send `payload`.

    For each request, `arguments` makes the request's arguments from a file that contains DATA.
    """

    name: str
    arguments: Callable[[Any, Any], dict[str, Any]]  # a function of the talk and of the path
    payload: bytes = DATA
    is_whole: bool = True  # the body is exactly the payload

    def __repr__(self) -> str:
        return self.name


def opened(path: Any, position: int = 0) -> Any:
    file = path.open("rb")
    file.seek(position)
    return file


def in_memory(position: int) -> io.BytesIO:
    file = io.BytesIO(DATA)
    file.seek(position)
    return file


def in_form(name: str, file: Callable[[Any], Any]) -> Body:
    return Body(
        name, lambda talk, path: {"files": {"file": ("name", file(path))}, "data": {"field": "värde"}}, is_whole=False
    )


def of_either(sync: Callable[[], Any], not_sync: Callable[[], Any]) -> Callable[[Any, Any], dict[str, Any]]:
    return lambda talk, path: {"content": not_sync() if talk.is_async else sync()}


def open_file(talk: Any, path: Any) -> dict[str, Any]:
    return {"content": anyio.wrap_file(opened(path)) if talk.is_async else opened(path)}


def custom_stream(talk: Any, path: Any) -> dict[str, Any]:
    package = talk.package

    class Stream(package.SyncByteStream, package.AsyncByteStream):
        def __init__(self) -> None:
            self._parts = iter(PARTS)

        def __iter__(self) -> Iterator[bytes]:
            return self._parts

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for part in self._parts:
                yield part

    headers = {"Host": talk.site.url.removeprefix("http://"), "Transfer-Encoding": "chunked"}
    return {"stream": Stream(), "headers": headers}


SAFE = [
    Body("nothing", lambda talk, path: {}, b""),
    Body("empty bytes", lambda talk, path: {"content": b""}, b""),
    Body("bytes", lambda talk, path: {"content": DATA}),
    Body("text", lambda talk, path: {"content": DATA.decode()}),
    Body("json", lambda talk, path: {"json": {"n": list(range(20_000)), "ö": None}}, is_whole=False, payload=b"19999"),
    Body("form", lambda talk, path: {"data": {"field": DATA.decode()}}, b"field=" + DATA),
    Body("parts of a form in order", lambda talk, path: {"data": {"n": ["1", "2"]}}, b"n=1&n=2"),
    in_form("multipart with bytes", lambda path: DATA),
    in_form("multipart with a file in memory", lambda path: in_memory(0)),
    in_form("multipart with a file in memory, partly read", lambda path: in_memory(4_711)),
    in_form("multipart with a file in memory, at its end", lambda path: in_memory(len(DATA))),
    in_form("multipart with an open file", opened),
    in_form("multipart with an open file, partly read", lambda path: opened(path, 12_345)),
    in_form("multipart with a file of an own class", lambda path: Flagged(DATA)),
]
SPENT = [
    Body("generator", of_either(generator, async_generator)),
    Body("iterator", of_either(lambda: iter(PARTS), AsyncIterated)),
    Body("open file", open_file),
    Body("custom stream", custom_stream),
    in_form("multipart with a file that cannot seek", lambda path: Unseekable(DATA)),
    in_form("multipart with a file that has no seek", lambda path: ReadOnly(DATA)),
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "upload.bin"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def sends(path):
    """Return a function that makes a call which sends `body`. Afterwards, close the files that it has opened."""
    made = []

    def sends(talk, body: Body, to: str = "/upload"):
        def call(client):
            arguments = body.arguments(talk, path)
            made.append(arguments)
            if "stream" in arguments:
                return client.send(talk.package.Request("POST", f"{talk.site.url}{to}", **arguments))
            return client.post(to, **arguments)

        return call

    yield sends
    for arguments in made:
        close_files(arguments)


def close_files(arguments: dict[str, Any]) -> None:
    file = arguments["files"]["file"][1] if "files" in arguments else arguments.get("content")
    file = getattr(file, "wrapped", file)
    if isinstance(file, io.IOBase):
        file.close()


def assert_arrived(request, body: Body) -> None:
    assert not request.truncated
    assert request.body == body.payload if body.is_whole else body.payload in request.body


@pytest.mark.parametrize("body", SAFE, ids=repr)
def test_guarantee_5_body_that_can_be_sent_again_is_sent_again_byte_for_byte(socket_talk, server, sends, body):
    auth = socket_talk.auth()
    server.revoke_access_tokens()
    response = socket_talk(auth, sends(socket_talk, body))
    first, second = server.requests_to("/upload")
    assert response.status_code == 200
    assert_arrived(first, body)
    assert second.body == first.body
    assert response.json()["sha256"] == hashlib.sha256(first.body).hexdigest()
    assert [pair for pair in first.headers if pair[0] != "authorization"] == [
        pair for pair in second.headers if pair[0] != "authorization"
    ]
    assert second.bearer_token == auth.store.state.token.access_token != first.bearer_token
    assert (server.token_requests, server.truncated_requests) == (1, 0)


@pytest.mark.parametrize("body", SPENT, ids=repr)
def test_guarantee_5_body_that_is_spent_is_not_sent_again_and_the_next_request_has_a_new_token(
    socket_talk, server, sends, body
):
    auth = socket_talk.auth()
    server.revoke_access_tokens()
    send = sends(socket_talk, body)
    refused, accepted = socket_talk.all(auth, send, send)
    assert (refused.status_code, accepted.status_code) == (401, 200)
    assert refused.json()["error"] == "invalid_token"
    first, second = server.requests_to("/upload")  # one request for each call
    assert_arrived(first, body)
    assert_arrived(second, body)
    assert first.bearer_token != second.bearer_token
    assert (server.token_requests, server.truncated_requests) == (1, 0)


@pytest.mark.parametrize("body", [*SAFE, *SPENT], ids=repr)
def test_guarantee_5_with_buffer_request_body_every_body_is_sent_again(socket_talk, server, sends, body):
    auth = socket_talk.auth(buffer_request_body=True)
    server.revoke_access_tokens()
    response = socket_talk(auth, sends(socket_talk, body))
    assert response.status_code == 200
    first, second = server.requests_to("/upload")
    assert_arrived(first, body)
    assert second.body == first.body
    assert (server.token_requests, server.truncated_requests) == (1, 0)


@pytest.mark.parametrize("body", SPENT, ids=repr)
def test_subclass_may_ask_for_the_request_body_as_with_every_auth(socket_talk, server, sends, body):
    class Buffering(socket_talk.library.Reauth):
        requires_request_body = True

    auth = Buffering(socket_talk.site.refresh("function"), token=server.issue(), clock=socket_talk.clock)
    server.revoke_access_tokens()
    assert socket_talk(auth, sends(socket_talk, body)).status_code == 200
    first, second = server.requests_to("/upload")
    assert_arrived(first, body)
    assert second.body == first.body


@pytest.mark.parametrize(
    ("place", "kind"),
    [("files", opened), ("content", opened), ("files", lambda path: Flagged(DATA))],
    ids=["files", "content", "files of an own class"],
)
def test_guarantee_5_file_that_was_closed_meanwhile_is_not_sent_again(socket_talk, server, path, place, kind):
    file = kind(path)
    auth = socket_talk.auth()
    server.revoke_access_tokens()

    def close(response):
        file.close()

    async def close_async(response):
        file.close()

    def call(client):
        client.event_hooks = {"response": [close_async if socket_talk.is_async else close]}
        if place == "files":
            return client.post("/upload", files={"file": file})
        return client.post("/upload", content=anyio.wrap_file(file) if socket_talk.is_async else file)

    refused, accepted = socket_talk.all(auth, call, lambda client: client.get("/me"))
    assert (refused.status_code, accepted.status_code) == (401, 200)
    assert DATA in server.requests_to("/upload")[0].body
    assert len(server.requests_to("/upload")) == 1
    assert server.token_requests == 1


def test_guarantee_5_iterable_of_parts_never_arrives_shortened(socket_talk, server):
    class Parts:
        async def __aiter__(self):
            for part in PARTS:
                yield part

    # httpx could send the body again, but does not say so. Each request that arrives has the whole body.
    auth = socket_talk.auth()
    server.revoke_access_tokens()
    parts = Parts() if socket_talk.is_async else PARTS
    response = socket_talk(auth, lambda client: client.post("/upload", content=parts))
    bodies = [request.body for request in server.requests_to("/upload")]
    assert (response.status_code, bodies) in ((401, [DATA]), (200, [DATA, DATA]))
    assert (server.token_requests, server.truncated_requests) == (1, 0)


@pytest.mark.parametrize("body", [SAFE[2], SPENT[0]], ids=repr)
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (faults.unavailable(), RefreshError),
        (faults.dropped(), RefreshError),
        (faults.reply(400, {"error": "invalid_grant"}), SignInRequired),
    ],
    ids=["unavailable", "dropped", "invalid_grant"],
)
def test_guarantee_5_401_whose_refresh_fails_raises_that_failure(socket_talk, server, sends, body, fault, expected):
    auth = socket_talk.auth()
    server.revoke_access_tokens()
    server.token_endpoint.fail_always(fault)
    with pytest.raises(expected):
        socket_talk(auth, sends(socket_talk, body))
    assert len(server.requests_to("/upload")) == 1
    assert server.token_requests == 1


@pytest.mark.parametrize("body", [SAFE[2], SPENT[0]], ids=repr)
def test_guarantee_5_request_is_replayed_once_even_if_it_is_refused_again(socket_talk, server, sends, body):
    auth = socket_talk.auth()
    server.access = "refused"
    response = socket_talk(auth, sends(socket_talk, body))
    assert response.status_code == 401
    assert len(server.requests_to("/upload")) == (2 if body in SAFE else 1)
    assert server.token_requests == 1


@pytest.mark.parametrize("body", [SAFE[2], SPENT[0]], ids=repr)
def test_guarantee_13_upload_that_needs_a_token_first_is_sent_once_and_whole(socket_talk, server, sends, body):
    auth = socket_talk.auth(server.issue(access_token=False))
    response = socket_talk(auth, sends(socket_talk, body))
    assert response.status_code == 200
    assert [request.path for request in server.requests] == ["/token", "/upload"]
    assert server.requests[1].body == DATA


def test_guarantee_13_upload_whose_token_cannot_be_had_is_not_sent_and_not_read(socket_talk, server):
    read = []

    def parts():
        read.append("sync")
        yield b"never"

    async def async_parts():
        read.append("async")
        yield b"never"

    auth = socket_talk.auth(server.issue(access_token=False))
    server.token_endpoint.fail(faults.unavailable())
    with pytest.raises(RefreshError):
        socket_talk(
            auth, lambda client: client.post("/upload", content=async_parts() if socket_talk.is_async else parts())
        )
    assert read == []
    assert [request.path for request in server.requests] == ["/token"]


def test_guarantee_4_and_5_late_401_of_a_spent_body_is_returned_without_a_refresh(socket_talk, server, sends):
    auth = socket_talk.auth()
    send = sends(socket_talk, SPENT[0])
    renewed = server.issue(access_token=False)  # the next request will renew it; this request needs no new token

    def sign_in(response):
        auth.sign_in(renewed)

    async def sign_in_async(response):
        sign_in(response)

    def call(client):  # when its 401 arrives, another token is the current one
        client.event_hooks = {"response": [sign_in_async if socket_talk.is_async else sign_in]}
        server.revoke_access_tokens()
        return send(client)

    assert socket_talk(auth, call).status_code == 401
    assert auth.store.state.token is renewed
    assert (len(server.requests_to("/upload")), server.token_requests) == (1, 0)


def test_replayed_json_reads_back_as_what_was_sent(socket_talk, server):
    sent = {"title": "naïve – ✓", "nested": [1, {"a": None}], "big": "x" * 100_000}
    auth = socket_talk.auth()
    server.revoke_access_tokens()
    socket_talk(auth, lambda client: client.put("/doc", json=sent))
    assert [json.loads(request.body) for request in server.requests_to("/doc")] == [sent, sent]


def test_history_of_a_replayed_response_holds_the_401(socket_talk, server):
    auth = socket_talk.auth()
    server.revoke_access_tokens()
    replayed, plain = socket_talk.all(auth, lambda client: client.get("/me"), lambda client: client.get("/me"))
    assert [response.status_code for response in replayed.history] == [401]
    assert replayed.history[0].json()["error"] == "invalid_token"
    assert plain.history == []
