"""Tests of one server by respx, by a transport of httpx or httpx2, and on a socket: sync, asyncio and trio."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from hashlib import sha256

import anyio
import anyio.to_thread
import pytest
from server_ways import Caller, bearer, form

from httpx_reauth.testing import Answer, Signal, faults

pytestmark = pytest.mark.anyio

# httpx leaves its generators to the garbage collector if a body is not read to its end, and trio warns of that.
LEFT_TO_THE_COLLECTOR = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")


def options(call: Caller, **timeouts: float) -> dict:
    return {"timeout": call.way.package.Timeout(5.0, **timeouts)}


async def test_a_good_token_gets_an_echo_that_shows_what_arrived(call, server):
    body = bytes(range(256)) * 1000
    response = await call("PUT", "/some/path?x=1", content=body, headers=bearer(server.issue()))
    assert response.status_code == 200
    assert response.json() == {
        "method": "PUT",
        "path": "/some/path",
        "length": len(body),
        "sha256": sha256(body).hexdigest(),
    }
    assert server.body_bytes == len(body)
    assert (server.api_requests, server.api_unauthorized) == (1, 0)


async def test_a_missing_token_is_challenged_without_an_error_and_a_bad_one_with_invalid_token(call, server):
    missing = await call("GET", "/me")
    bad = await call("GET", "/me", headers=bearer("nobody's"))
    assert (missing.status_code, bad.status_code) == (401, 401)
    assert missing.headers["WWW-Authenticate"] == 'Bearer realm="api"'
    assert bad.headers["WWW-Authenticate"].startswith('Bearer realm="api", error="invalid_token", error_description=')
    assert bad.json()["error"] == "invalid_token"
    assert (server.api_requests, server.api_unauthorized) == (2, 2)


async def test_a_token_is_refreshed_expires_and_is_refreshed_again(call, server, clock):
    token = server.issue()
    for _ in range(2):
        clock.advance(3600)
        assert (await call("GET", "/me", headers=bearer(token))).status_code == 401
        answer = (await call("POST", "/token", data=form(token))).json()
        token = server.issue(access_token=False).renewed(type(token).from_response(answer), 0)
        assert (await call("GET", "/me", headers=bearer(token))).status_code == 200
    assert (server.token_requests, server.refreshes, server.api_requests, server.api_unauthorized) == (2, 2, 4, 2)


async def test_every_request_is_recorded_as_it_was_sent(call, server):
    token = server.issue()
    await call("GET", "/me?a=1&b=", headers=bearer(token))
    await call("POST", "/token", data={"grant_type": "x", "y": "é"})
    me, post = server.requests
    assert (me.method, me.path, me.query, me.params, me.body) == ("GET", "/me", "a=1&b=", {"a": "1", "b": ""}, b"")
    assert me.bearer_token == token.access_token
    assert me.header("ACCEPT") == "*/*"
    assert me.header("X-None") is None
    assert (post.method, post.path, post.form) == ("POST", "/token", {"grant_type": "x", "y": "é"})
    assert (post.authorization, post.bearer_token, post.truncated) == (None, None, False)
    assert server.authorizations() == [f"Bearer {token.access_token}", None]
    assert server.authorizations("/token") == [None]
    assert server.requests_to("/me") == [me]


async def test_nothing_is_recorded_if_so_ordered(call, server):
    server.keep_requests = False
    await call("GET", "/me")
    assert (server.requests, server.api_requests) == ([], 1)


async def test_the_api_may_refuse_every_token_or_serve_everybody(call, server):
    server.access = "refused"
    response = await call("GET", "/me", headers=bearer(server.issue()))
    assert (response.status_code, response.json()["error"]) == (401, "invalid_token")
    assert (await call("GET", "/me", headers=bearer("nobody's"))).status_code == 401
    server.access = "open"
    assert (await call("GET", "/me")).status_code == 200
    assert (server.api_requests, server.api_unauthorized) == (3, 2)


async def test_the_api_may_refuse_in_its_own_way_and_look_for_the_token_elsewhere(call, server):
    server.refusal = Answer(200, (("Content-Type", "application/json"),), b'{"error": "expired"}')
    server.access_token_of = lambda request: request.header("x-token")
    assert (await call("GET", "/me")).json() == {"error": "expired"}
    assert (await call("GET", "/me", headers={"X-Token": server.issue().access_token})).json()["path"] == "/me"
    assert (server.api_requests, server.api_unauthorized) == (2, 1)


async def test_a_redirect_goes_where_the_query_says(call, server):
    token = server.issue()
    response = await call("GET", "/redirect?to=https://evil.test/&status=307", headers=bearer(token))
    assert (response.status_code, response.headers["Location"]) == (307, "https://evil.test/")
    assert (await call("GET", "/redirect?to=/me", headers=bearer(token))).status_code == 302
    assert (await call("GET", "/redirect", headers=bearer(token))).status_code == 400
    assert (await call("GET", "/slow?seconds=soon", headers=bearer(token))).status_code == 400


async def test_a_stream_comes_in_chunks(call, server):
    chunks = await call.chunks("/stream?chunks=3&size=5", headers=bearer(server.issue()))
    assert b"".join(chunks) == b"aaaaabbbbbccccc"
    assert len(await call.chunks("/stream", headers=bearer(server.issue()))) >= 1


async def test_a_pause_between_chunks_is_kept(call, server):
    go_on = Signal()

    def steps():
        yield b"first"
        yield 0.001
        yield go_on
        yield b"second"

    server.api.fail(faults.Fault(Answer(body=steps)))
    chunks = []

    async def read():
        chunks.extend(await call.chunks("/me"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await server.await_until(lambda: server.api_requests == 1)
        go_on.set()
    assert b"".join(chunks) == b"firstsecond"


async def test_an_event_stream_stays_open_until_it_is_ended(call, server):
    chunks = []

    async def read():
        chunks.extend(await call.chunks("/sse", headers=bearer(server.issue())))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await server.await_until(lambda: server.open_streams == 1)
        assert (await call("GET", "/me", headers=bearer(server.issue()))).status_code == 200
        server.end_streams()
    assert b"".join(chunks) == b"data: open\n\ndata: end\n\n"
    await server.await_until(lambda: server.open_streams == 0)


@LEFT_TO_THE_COLLECTOR
async def test_an_event_stream_that_the_client_closes_is_open_no_more(call, server):
    if call.is_sync:

        def look():
            with call.client.stream("GET", "/sse", headers=bearer(server.issue())) as response:
                body = response.iter_raw()
                assert next(body) == b"data: open\n\n"
                assert server.open_streams == 1

        await anyio.to_thread.run_sync(look)
    else:
        async with call.client.stream("GET", "/sse", headers=bearer(server.issue())) as response:
            body = response.aiter_raw()
            assert await body.__anext__() == b"data: open\n\n"
            assert server.open_streams == 1
            await body.aclose()
    await server.await_until(lambda: server.open_streams == 0)


async def test_head_has_no_body_and_204_no_length(call, server):
    head = await call("HEAD", "/me", headers=bearer(server.issue()))
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["Content-Length"]) > 50
    assert (await call("HEAD", "/stream", headers=bearer(server.issue()))).content == b""
    server.api.fail(faults.reply(204, "no body"))
    nothing = await call("GET", "/me")
    assert (nothing.status_code, nothing.content) == (204, b"")
    assert "Content-Length" not in nothing.headers


async def test_latency_delays_the_answer_not_the_effect(call, server):
    server.token_endpoint.latency = 0.05
    token = server.issue()
    before = time.monotonic()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: call("POST", "/token", data=form(token)))
        await server.await_until(lambda: server.refreshes == 1)
        assert (await call("GET", "/me", headers=bearer(token))).status_code == 200
    assert time.monotonic() - before >= 0.049
    server.token_endpoint.latency, server.api.latency = 0.0, 0.01
    assert (await call("GET", "/me", headers=bearer(token))).status_code == 200


async def test_a_slow_answer_comes_when_the_query_says(call, server):
    before = time.monotonic()
    response = await call("POST", "/slow?seconds=0.02", content=b"abc", headers=bearer(server.issue()))
    assert (response.status_code, response.json()["length"]) == (200, 3)
    assert time.monotonic() - before >= 0.019


async def test_a_gate_holds_answers_back_until_it_is_released(call, server):
    tokens = [server.issue() for _ in range(5)]
    answers = []

    async def refresh(token):
        answers.append(await call("POST", "/token", data=form(token)))

    with server.token_endpoint.hold() as gate:
        async with anyio.create_task_group() as tasks:
            for token in tokens:
                tasks.start_soon(refresh, token)
            await server.await_until(lambda: gate.held == 5)
            assert (server.refreshes, answers, gate.is_released) == (5, [], False)
            assert (await call("GET", "/me", headers=bearer(tokens[0]))).status_code == 200
            gate.release()
    assert [answer.status_code for answer in answers] == [200] * 5
    assert gate.is_released
    assert (await call("POST", "/token")).status_code == 400


async def test_faults_come_in_their_order_and_then_all_is_well(call, server):
    date = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    server.api.fail(
        faults.unavailable(),
        faults.too_many_requests(retry_after=2.5),
        faults.too_many_requests(date),
    )
    server.api.fail(faults.redirect("https://evil.test/"), faults.reply(200, {"error": "x"}), faults.reply(body="text"))
    answers = [await call("GET", "/me", headers=bearer(server.issue())) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [503, 429, 429, 307, 200, 200, 200]
    assert answers[0].text == "<h1>Service Unavailable</h1>"
    assert [answer.headers.get("Retry-After") for answer in answers[:3]] == [
        None,
        "2.5",
        "Wed, 02 Jan 2030 03:04:05 GMT",
    ]
    assert answers[3].headers["Location"] == "https://evil.test/"
    assert (answers[4].json(), answers[5].text, answers[6].json()["path"]) == ({"error": "x"}, "text", "/me")
    assert (server.api_requests, server.api_unauthorized) == (7, 0)


async def test_a_standing_fault_lasts_until_the_endpoint_heals(call, server):
    server.token_endpoint.fail(faults.reply(500))
    server.token_endpoint.fail_always(faults.unavailable(retry_after=1))
    token = server.issue()
    assert [(await call("POST", "/token", data=form(token))).status_code for _ in range(3)] == [500, 503, 503]
    assert server.refreshes == 0
    server.token_endpoint.fail(faults.reply(500))
    server.token_endpoint.heal()
    assert (await call("POST", "/token", data=form(token))).status_code == 200
    assert (server.token_requests, server.refreshes) == (4, 1)


async def test_a_dropped_connection_changes_nothing(call, server):
    server.token_endpoint.fail(faults.dropped())
    token = server.issue()
    with pytest.raises(call.error("RemoteProtocolError")):
        await call("POST", "/token", data=form(token))
    assert (server.token_requests, server.refreshes) == (1, 0)
    assert (await call("POST", "/token", data=form(token))).status_code == 200


async def test_a_lost_answer_has_taken_effect(call, server):
    server.token_endpoint.fail(faults.dropped().after_processing())
    token = server.issue()
    with pytest.raises(call.error("RemoteProtocolError")):
        await call("POST", "/token", data=form(token))
    assert (server.token_requests, server.tokens_issued, server.refreshes) == (1, 1, 1)
    assert (await call("POST", "/token", data=form(token))).json()["error"] == "invalid_grant"
    assert (server.reuse_detected, server.families_revoked) == (1, 1)


async def test_a_refused_connection_is_a_connect_error_where_there_is_no_real_one(call, server):
    server.token_endpoint.fail(faults.refused_connection())
    error = call.error("RemoteProtocolError" if call.way.name == "socket" else "ConnectError")
    with pytest.raises(error) as caught:
        await call("POST", "/token")
    assert caught.value.request.url.path == "/token"


async def test_a_body_may_be_cut_off(call, server):
    server.token_endpoint.fail(faults.cut_off(), faults.cut_off(b"binary", 401))
    for _ in range(2):
        with pytest.raises(call.error("RemoteProtocolError")):
            await call("POST", "/token")
    assert (await call("POST", "/token")).status_code == 400


@LEFT_TO_THE_COLLECTOR
async def test_a_body_may_have_no_end(call, server):
    server.token_endpoint.fail_always(faults.endless())
    read = 0
    if call.is_sync:

        def look():
            nonlocal read
            with call.client.stream("POST", "/token") as response:
                for chunk in response.iter_bytes():
                    read += len(chunk)
                    if read > 1_000_000:
                        break

        await anyio.to_thread.run_sync(look)
    else:
        async with call.client.stream("POST", "/token") as response:
            body = response.aiter_bytes()
            async for chunk in body:
                read += len(chunk)
                if read > 1_000_000:
                    break
            await body.aclose()
    assert read > 1_000_000


async def test_a_hanging_request_ends_with_the_clients_timeout(call, server):
    server.token_endpoint.fail(faults.hanging(), faults.hanging().after_processing())
    token = server.issue()
    for number in (1, 2):
        with pytest.raises(call.error("ReadTimeout")):
            await call("POST", "/token", data=form(token), **options(call, read=0.02))
        # a busy server may read the request later
        await server.await_until(lambda number=number: server.token_requests == number)
    assert server.refreshes == 1


async def test_latency_beyond_the_clients_timeout_is_a_timeout(call, server):
    server.api.latency = 30
    with pytest.raises(call.error("ReadTimeout")):
        await call("GET", "/me", **options(call, read=0.02))


async def test_a_held_answer_beyond_the_clients_timeout_is_a_timeout(call, server):
    with server.api.hold(), pytest.raises(call.error("ReadTimeout")):
        await call("GET", "/me", **options(call, read=0.02))


async def test_closing_the_server_lets_everybody_go(call, server):
    server.token_endpoint.fail(faults.hanging())
    ends = []

    async def hang():
        with pytest.raises(call.error("RemoteProtocolError")):
            await call("POST", "/token", timeout=None)
        ends.append("dropped")

    async def held():
        ends.append((await call("GET", "/me", timeout=None)).status_code)

    async def listen():
        ends.append(len(b"".join(await call.chunks("/sse", headers=bearer(server.issue()), timeout=None))))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hang)
        tasks.start_soon(listen)
        await server.await_until(lambda: server.open_streams == 1)
        gate = server.api.hold()
        tasks.start_soon(held)
        await server.await_until(lambda: server.token_requests == 1 and gate.held == 1)
        server.close()
    assert sorted(map(str, ends)) == ["23", "401", "dropped"]


async def test_a_herd_is_counted_exactly(call, server):
    token = server.issue()

    async def one(path):
        assert (await call("GET", path, headers=bearer(token))).status_code == 200

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(one, f"/{number}")
    assert (server.api_requests, server.api_unauthorized) == (20, 0)
    assert sorted(int(request.path[1:]) for request in server.requests) == list(range(20))
