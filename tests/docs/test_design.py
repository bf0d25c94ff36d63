"""Tests that the figures of the design page show what the code does: states, sequences, windows, folders."""

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
    RevokeFailed,
    SaveFailed,
    SignedIn,
    SignedOut,
    SignInRequired,
    StorageError,
    Token,
)
from httpx_reauth._state.actions import (
    Action,
    FlightDropped,
    GrantRefused,
    Internal,
    Loaded,
    ReplayAccepted,
    ReplayEnded,
    ReplayRefused,
    ReplayStarted,
    Saved,
    SaveStarted,
    StorageGiven,
    TokenGiven,
    TokenRefused,
    WriteSuperseded,
)
from httpx_reauth._state.policy import windows
from httpx_reauth._state.reduce import reduce
from httpx_reauth._state.state import BackOff, Current, State, Stored
from httpx_reauth.testing import AuthorizationServer, ManualClock

PAGE = ROOT / "docs" / "design.md"
FLIGHT, OLD, NEW = object(), Token("old"), Token("new")
DOWN, PLACE = RefreshError("down"), ("https://api.test", "/")
TRIED = ("https://api.test", "/tried")

ACTIONS: list[Any] = [
    RefreshPending("expired", flight=FLIGHT),
    RefreshFulfilled(NEW, "expired", 1.0, flight=FLIGHT),
    RefreshRejected(RefreshError("again"), "expired", 1.0, flight=FLIGHT),
    SaveFailed(StorageError("full"), token=OLD),
    SignedIn(NEW),
    SignedOut(),
    TokenGiven(NEW),
    StorageGiven(),
    TokenRefused(OLD),
    ReplayRefused(PLACE, session=0, at=1.0),
    ReplayAccepted(PLACE),
    Loaded(NEW),
    Saved(OLD),
    SaveStarted(1.0),
    WriteSuperseded(OLD),
    GrantRefused(OLD, SignInRequired("dead")),
    FlightDropped(FLIGHT),
    ReplayStarted(("https://api.test", "/other"), session=0, at=1.0),
    ReplayEnded(TRIED, session=0),
]


def diagrams(kind: str) -> list[str]:
    return [one.code for one in blocks_of(PAGE) if one.language == "mermaid" and one.code.startswith(kind)]


def states() -> list[State]:
    """Return states with each phase, with and without a token, and with whatever else an action may depend on."""
    return [
        State(
            token and Current(token),
            phase,
            FLIGHT if phase == "pending" else None,
            stored=stored,
            places={PLACE: BackOff(1, 5.0), TRIED: BackOff(0, 5.0, is_on_trial=True)} if has_refused else {},
        )
        for phase, token, stored, has_refused in itertools.product(
            ("idle", "pending", "fulfilled", DOWN),
            (None, OLD),
            (None, Stored(pending_write="signed in")),
            (True, False),
        )
        if token or phase != "fulfilled"
    ]


def transitions() -> set[tuple[str, str, str]]:
    """Return the status before, the status after, and the action, for each action that changes the status."""
    pairs = ((before, reduce(before, action), action) for before, action in itertools.product(states(), ACTIONS))
    return {
        (before.as_public().status, after.as_public().status, type(action).__name__)
        for before, after, action in pairs
        if after.as_public().status != before.as_public().status
    }


def test_the_actions_tried_here_are_all_there_are():
    # RevokeFailed is for listeners only, and changes nothing here.
    assert {type(action) for action in ACTIONS} == {*get_args(Action), *get_args(Internal)} - {RevokeFailed}


def test_the_state_diagram_shows_every_transition_that_changes_the_status():
    (diagram,) = diagrams("stateDiagram-v2")
    drawn = re.findall(r"^ +(\w+) --> (\w+): (\w+)$", diagram, flags=re.MULTILINE)
    assert "[*] --> idle" in diagram
    assert AuthState().status == "idle"
    assert set(drawn) == transitions()
    assert len(drawn) == len(set(drawn))


def test_what_the_page_says_of_the_other_actions_is_so():
    others = {type(action).__name__ for action in ACTIONS} - {action for *_, action in transitions()}
    (sentence,) = re.findall(r"^(`SaveFailed`.*?) change what is remembered", text_of(PAGE), re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(\w+)`", sentence)) == others
    for action in ACTIONS:  # each action changes something
        assert any(reduce(before, action) is not before for before in states())


# Sequences


class Scribe:
    """Writes down each event as an arrow of a diagram."""

    def __init__(self, server: AuthorizationServer) -> None:
        self.arrows: list[str] = []
        self.server = server

    def told(self, who: str, _: object, action: Any) -> None:
        sender = who if isinstance(action, RefreshPending) else "Flight"
        self.arrows.append(f"{sender}->>Store: {type(action).__name__} ({action.reason})")

    def client(self, who: str, old: Token) -> httpx.AsyncClient:
        """Return a client that writes down the requests it sends to the API, and their answers."""

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
    """A transport that sees each request that is sent. httpx's own hooks see no replay."""

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
        for jitter, renew_from in ((0.0, renewed), (1.0, with_jitter)):
            state = State(Current(Token("a", expires_in=lifetime), lifetime, jitter))
            assert windows(state, leeway) == (pytest.approx(renew_from, abs=5e-4), pytest.approx(awaited)), row


def test_the_page_names_every_module_of_the_core_and_no_other():
    root = Path(httpx_reauth.__file__).parent
    rows = re.findall(r"^\| `([\w./]+)` \| ((?:`\w+`(?:, )?)+) \|", text_of(PAGE), re.MULTILINE)
    assert len(rows) == 5
    for folder, modules in rows:
        there = {file.stem for file in (root / folder).glob("*.py")} - ({"__init__"} if folder != "." else set())
        assert set(re.findall(r"`(\w+)`", modules)) == there, folder


def test_contributing_has_a_line_for_every_module_of_the_package_and_for_no_other():
    package = Path(httpx_reauth.__file__).parent
    there = {
        path.relative_to(package.parent).as_posix() for path in package.rglob("*.py") if path.name != "__init__.py"
    }
    rows = re.findall(
        r"^\| [^|]+ \| `(httpx_reauth/[\w/]+\.py)` \|$", text_of(ROOT / "docs" / "contributing.md"), re.MULTILINE
    )
    assert set(rows) == there | {"httpx_reauth/__init__.py"}
    assert len(rows) == len(set(rows))


def test_the_design_names_every_folder_of_the_package():
    package = Path(httpx_reauth.__file__).parent
    folders = {path.parent.relative_to(package).as_posix() for path in package.rglob("*.py")}
    assert folders == set(re.findall(r"^\| `([\w./]+)` \| ", text_of(PAGE).split("## The states")[0], re.MULTILINE))
