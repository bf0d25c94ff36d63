"""The figures of the design page are what the code does: states, sequences, windows, floors."""

from __future__ import annotations

import itertools
import re
from functools import partial
from pathlib import Path
from typing import Any, get_args

import anyio
import httpx
import pytest
from pages import ROOT, blocks_of, text_of

import httpx_reauth
from httpx_reauth import (
    AuthState,
    Reauth,
    RefreshError,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    SaveFailed,
    SignedIn,
    SignedOut,
    StorageError,
    Token,
)
from httpx_reauth._state.actions import (
    Action,
    FlightDropped,
    Internal,
    ReplayAccepted,
    ReplayRefused,
    ReplayStarted,
    Saved,
)
from httpx_reauth._state.policy import windows
from httpx_reauth._state.state import Record, Status, reduce
from httpx_reauth.testing import AuthorizationServer, ManualClock

PAGE = ROOT / "docs" / "design.md"
FLIGHT, OLD, NEW = object(), Token("old"), Token("new")

ACTIONS: list[Any] = [
    RefreshPending("expired", flight=FLIGHT),
    RefreshFulfilled(NEW, "expired", 1.0, flight=FLIGHT),
    RefreshRejected(RefreshError("down"), "expired", 1.0, flight=FLIGHT),
    SaveFailed(StorageError("full")),
    SignedIn(NEW),
    SignedOut(),
    ReplayStarted(OLD, 1.0),
    ReplayRefused(OLD, 1.0),
    ReplayAccepted(),
    Saved(OLD),
    FlightDropped(FLIGHT),
]


def diagrams(kind: str) -> list[str]:
    return [one.code for one in blocks_of(PAGE) if one.language == "mermaid" and one.code.startswith(kind)]


def states() -> list[AuthState]:
    """Every status, with and without a token, and what else decides whether an action changes anything."""
    return [
        AuthState(status, token, flight=FLIGHT if status == "pending" else None, unsaved=unsaved, record=record)
        for status, token, unsaved, record in itertools.product(
            get_args(Status), (None, OLD), ("", "signed in"), (Record(), Record(useless=1, quiet_until=5.0))
        )
    ]


def test_the_actions_tried_here_are_all_there_are():
    assert {type(action) for action in ACTIONS} == {*get_args(Action), *get_args(Internal)}


def test_the_state_diagram_shows_every_transition_that_changes_the_status():
    (diagram,) = diagrams("stateDiagram-v2")
    drawn = re.findall(r"^ +(\w+) --> (\w+): (\w+)$", diagram, flags=re.MULTILINE)
    assert "[*] --> idle" in diagram
    assert AuthState().status == "idle"
    made = {
        (before.status, after.status, type(action).__name__)
        for before, action in itertools.product(states(), ACTIONS)
        if (after := reduce(before, action)).status != before.status
    }
    assert set(drawn) == made
    assert len(drawn) == len(made)


def test_what_the_page_says_of_the_other_actions_is_so():
    changing = {
        type(action).__name__
        for before, action in itertools.product(states(), ACTIONS)
        if reduce(before, action).status != before.status
    }
    others = {type(action).__name__ for action in ACTIONS} - changing
    (sentence,) = re.findall(r"^(`SaveFailed`.*?) change what is remembered", text_of(PAGE), re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(\w+)`", sentence)) == others
    for action in ACTIONS:  # each does change something
        assert any(reduce(before, action) is not before for before in states())


# Sequences


class Scribe:
    """Writes down what happens, as the arrows of a diagram."""

    def __init__(self, server: AuthorizationServer) -> None:
        self.arrows: list[str] = []
        self.server = server

    def told(self, who: str, _: object, action: Any) -> None:
        sender = who if isinstance(action, RefreshPending) else "Flight"
        self.arrows.append(f"{sender}->>Store: {type(action).__name__} ({action.reason})")

    def client(self, who: str, old: Token) -> httpx.AsyncClient:
        """A client that writes down the requests to the API that it sends, and what comes back."""

        async def sent(request: httpx.Request) -> None:
            which = "old" if request.headers["Authorization"] == f"Bearer {old.access_token}" else "new"
            self.arrows.append(f"{who}->>API: {request.method} {request.url.path}, {which} token")

        async def came(response: httpx.Response) -> None:
            self.arrows.append(f"API-->>{who}: {response.status_code}")

        transport = Hooked(self.server.transport(httpx), sent, came)
        return httpx.AsyncClient(transport=transport, base_url="https://api.test")

    async def refresh(self, token: Token) -> Token:
        async with httpx.AsyncClient(transport=self.server.transport(httpx)) as client:
            self.arrows.append("Flight->>Endpoint: POST /token")
            form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
            response = await client.post("https://api.test/token", data=form)
            self.arrows.append(f"Endpoint-->>Flight: {response.status_code}")
            return Token.from_response(response)


class Hooked(httpx.AsyncBaseTransport):
    """Sees each request that is really sent; httpx's own hooks see no replay."""

    def __init__(self, inner: httpx.AsyncBaseTransport, sent: Any, came: Any) -> None:
        self.inner, self.sent, self.came = inner, sent, came

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self.sent(request)
        response = await self.inner.handle_async_request(request)
        await self.came(response)
        return response


def drawn_arrows(diagram: str) -> list[str]:
    return [line.strip() for line in diagram.splitlines() if ">>" in line]


@pytest.mark.anyio
async def test_the_sequence_of_a_flight_is_what_happens():
    with AuthorizationServer(clock=ManualClock()) as server:
        scribe, token = Scribe(server), server.issue(lifetime=0)
        auth = Reauth(scribe.refresh, token=token, clock=server.clock)
        auth.store.subscribe(partial(scribe.told, "A"))
        first = anyio.CancelScope()

        async def a() -> None:
            with first:
                await client_a.get("/me", auth=auth)
            assert first.cancelled_caught
            scribe.arrows.append("A->>A: cancelled")

        async def b() -> None:
            await client_b.get("/me", auth=auth)

        async with scribe.client("A", token) as client_a, scribe.client("B", token) as client_b:
            with server.token_endpoint.hold() as gate:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(a)
                    await server.await_until(lambda: gate.held == 1)
                    tasks.start_soon(b)
                    await anyio.wait_all_tasks_blocked()
                    scribe.arrows.append("B->>Flight: waits")
                    first.cancel()
                    await anyio.wait_all_tasks_blocked()
                    gate.release()
        await auth.aclose()
    assert drawn_arrows(diagrams("sequenceDiagram")[0]) == scribe.arrows


@pytest.mark.anyio
async def test_the_sequence_of_a_401_is_what_happens():
    with AuthorizationServer(clock=ManualClock()) as server:
        scribe, token = Scribe(server), server.issue()
        auth = Reauth(scribe.refresh, token=token, clock=server.clock)
        auth.store.subscribe(partial(scribe.told, "A"))
        server.revoke_access_tokens()
        async with auth, scribe.client("A", token) as client:
            await client.get("/me", auth=auth)
    assert drawn_arrows(diagrams("sequenceDiagram")[1]) == scribe.arrows


def test_there_are_no_other_diagrams():
    assert len(diagrams("sequenceDiagram")) == 2
    assert len([one for one in blocks_of(PAGE) if one.language == "mermaid"]) == 3


# Numbers


def test_the_windows_are_those_of_the_policy():
    rows = re.findall(r"^\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text_of(PAGE), re.MULTILINE)
    assert len(rows) == 5
    for row in rows:
        lifetime, leeway, renewed, with_jitter, awaited = map(float, row)
        for spread, renew_from in ((0.0, renewed), (1.0, with_jitter)):
            state = AuthState("fulfilled", Token("a", expires_in=lifetime), deadline=lifetime, spread=spread)
            window = windows(state, leeway)
            assert (round(window.renew_from, 3), round(window.wait_from, 3)) == (renew_from, awaited), row


def test_the_page_names_every_module_of_the_core_and_no_other():
    root = Path(httpx_reauth.__file__).parent
    rows = re.findall(r"^\| `([\w./]+)` \| ((?:`\w+`(?:, )?)+) \|", text_of(PAGE), re.MULTILINE)
    assert len(rows) == 5
    for folder, modules in rows:
        there = {file.stem for file in (root / folder).glob("*.py")} - ({"__init__"} if folder != "." else set())
        assert set(re.findall(r"`(\w+)`", modules)) == there, folder
