"""Tests of the log: there is one logger, it writes the lines that `docs/observing.md` lists, and nothing else."""

from __future__ import annotations

import ast
import logging
import re
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

import httpx_reauth
from httpx_reauth import Reauth, RefreshError, SignInRequired, StorageError, Token
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import faults

PACKAGE = Path(httpx_reauth.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "observing.md").read_text(encoding="utf-8")
NODES = [node for file in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR"}


def calls(name: str) -> list[ast.Call]:
    """Return the calls of `name` in the package, e.g. `_log.info`."""
    return [node for node in NODES if isinstance(node, ast.Call) and ast.unparse(node.func) == name]


def said(caplog) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "httpx_reauth"]


def pattern_of(template: str) -> str:
    """Return a pattern for the lines that `template` makes, without the name of the auth object before them."""
    template = re.sub(r"^%s(?=[A-Z%])", "", template)
    parts = re.split(r"(%(?:\.\d)?[sdfgr])", template)
    return "".join(".+" if part.startswith("%") else re.escape(part) for part in parts)


@pytest.fixture
def client(server):
    with httpx.Client(transport=server.transport(httpx), base_url="https://api.test") as client:
        yield client


@pytest.fixture
def grant(client):
    return RefreshTokenGrant("https://api.test/token", "app", client=httpx.Client(transport=client._transport))


@pytest.fixture(autouse=True)
def everything(caplog):
    caplog.set_level(logging.DEBUG, "httpx_reauth")


def test_there_is_one_logger():
    names = [ast.unparse(call) for call in calls("logging.getLogger")]
    assert set(names) == {"logging.getLogger('httpx_reauth')"}
    attributes = [ast.unparse(node) for node in NODES if isinstance(node, ast.Attribute)]
    used = {name for name in attributes if name.startswith(("_log.", "logging."))}
    quiet = {"logging.NullHandler", "logging.getLogger('httpx_reauth').addHandler"}  # one logger for the package
    assert used == {"logging.getLogger", *quiet, *(f"_log.{name}" for name in LEVELS)}


def test_the_documents_list_every_line_with_its_level_and_no_other():
    listed = re.findall(r"^\| (DEBUG|INFO|WARNING|ERROR) \| `(.*?)` \|", PAGE, flags=re.MULTILINE)
    made = [
        (level, pattern_of(ast.literal_eval(call.args[0])))
        for name, level in LEVELS.items()
        for call in calls(f"_log.{name}")
    ]
    for level, pattern in made:
        assert [one for one, line in listed if re.fullmatch(pattern, line)] == [level], pattern
    assert len(listed) == len(made)


def test_the_page_on_errors_quotes_lines_of_the_same_list():
    errors = (PACKAGE.parent / "docs" / "errors.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^`]+) \.\.\.` \|", errors, flags=re.MULTILINE)
    assert len(quoted) == 3
    for beginning in quoted:
        assert f"| `{beginning}" in PAGE, beginning


def test_no_line_carries_a_traceback_whose_frames_might_show_a_secret():
    for name in LEVELS:
        for call in calls(f"_log.{name}"):
            assert not {keyword.arg for keyword in call.keywords} & {"exc_info", "stack_info"}


def test_a_refresh_is_seen_to_begin_and_to_succeed_with_its_reason_and_seconds(server, client, grant, clock, caplog):
    client.auth = auth = Reauth(grant, token=server.issue(lifetime=0), clock=clock)
    client.get("/me")
    auth.close()
    assert said(caplog) == [
        ("DEBUG", "Renewing the access token (expired) by RefreshTokenGrant at api.test."),
        ("INFO", "Renewed the access token (expired) by RefreshTokenGrant at api.test in 0.000 s."),
    ]


class Login:
    """A refresh that is an object, not a function."""

    def __call__(self, _: Token) -> Token:
        return Token("a")

    def method(self, _: Token) -> Token:
        return Token("a")


@dataclass
class AtAnOddUrl(Login):
    token_url: Any


@pytest.mark.parametrize(
    ("refresh", "name"),
    [
        (Login(), "Login"),
        (Login().method, "test_logging.Login.method"),
        (partial(Login.method, Login()), "test_logging.Login.method"),
        (lambda _: Token("a"), "test_logging.<lambda>"),
        (AtAnOddUrl("https://user:s3cret@id.example.com:8443/token?key=s3cret"), "AtAnOddUrl at id.example.com:8443"),
        (AtAnOddUrl("https://id.example.com?key=s3cret"), "AtAnOddUrl at id.example.com"),
        (AtAnOddUrl("nowhere"), "AtAnOddUrl"),
        (AtAnOddUrl(b"https://id.example.com"), "AtAnOddUrl"),
    ],
)
def test_guarantee_11_the_log_names_the_refresh_and_shows_no_secret(refresh, name, caplog):
    Reauth(refresh).get_token()
    assert said(caplog)[0] == ("DEBUG", f"Renewing the access token (missing) by {name}.")
    assert "s3cret" not in caplog.text


def test_a_failed_refresh_is_one_warning_that_says_when_it_is_tried_again(server, client, grant, clock, caplog):
    client.auth = auth = Reauth(grant, token=server.issue(lifetime=0), clock=clock)
    server.token_endpoint.fail(faults.unavailable(retry_after=700))
    for _ in range(20):
        with pytest.raises(RefreshError):
            client.get("/me")
    auth.close()
    _, (level, line) = said(caplog)
    assert level == "WARNING"
    assert line.startswith("Could not renew the access token (expired) by RefreshTokenGrant at api.test in 0.000 s, ")
    assert f" failure 1 in a row; tried again in 700.0 s at the earliest: {auth.store.state.error}" in line


def test_a_dead_refresh_token_is_one_warning_that_says_what_helps(server, client, grant, clock, caplog):
    client.auth = auth = Reauth(grant, token=server.issue(lifetime=0), clock=clock)
    server.revoke_refresh_tokens()
    for _ in range(20):
        with pytest.raises(SignInRequired):
            client.get("/me")
    auth.close()
    _, (level, line) = said(caplog)
    assert level == "WARNING"
    assert "tried again once somebody has signed in: " in line


def test_a_missing_first_sign_in_is_no_warning(client, grant, clock, caplog):
    client.auth = auth = Reauth(grant, clock=clock)
    for _ in range(3):
        with pytest.raises(SignInRequired):
            client.get("/me")
    auth.close()
    assert [level for level, _ in said(caplog)] == ["DEBUG", "INFO"]
    assert said(caplog)[1][1].startswith("Nobody is signed in")


def test_an_expired_token_from_a_storage_is_expired_and_not_missing(server, client, grant, clock, caplog):
    storage, actions = MemoryStorage(), []
    storage.save(server.issue(lifetime=60))
    clock.advance(100)
    client.auth = auth = Reauth(grant, clock=clock, storage=storage)
    auth.store.subscribe(lambda state, action: actions.append(action))
    assert client.get("/me").status_code == 200
    auth.close()
    assert actions[-1].reason == "expired"
    assert said(caplog)[-1][1].startswith("Renewed the access token (expired) by ")


def test_a_line_begins_with_the_name_of_the_auth_object(server, client, grant, clock, caplog):
    def token_of(user: str) -> None:
        client.auth = auth = Reauth(
            grant, token=server.issue(lifetime=0), clock=clock, name=user, origins=["https://api.test"]
        )
        client.get("/me")
        client.get("https://elsewhere.test/me")
        server.api.fail(*[faults.reply(401)] * 2)
        client.get("/me")
        server.token_endpoint.fail(*[faults.unavailable()] * 3)
        with pytest.raises(RefreshError):
            auth.renew()
        auth.close()

    for user, prefix in (("user-42", "user-42: "), ("J\u00f6rg", "J\\xf6rg: ")):
        caplog.clear()
        token_of(user)
        lines = [line for _, line in said(caplog)]
        assert len(lines) >= 6
        assert [line for line in lines if not line.startswith(prefix)] == []
        assert "".join(lines).isascii()


def test_a_thread_carries_the_name_of_the_auth_object():
    def refresh(_: Token) -> Token:
        names.append(threading.current_thread().name)
        return Token("a")

    names: list[str] = []
    Reauth(refresh, name="user-42").get_token()
    Reauth(refresh).get_token()
    assert names == ["httpx_reauth refresh user-42", "httpx_reauth refresh"]


def test_a_valid_token_logs_nothing(server, client, grant, clock, caplog):
    client.auth = Reauth(grant, token=server.issue(), clock=clock, origins=["https://api.test"])
    for _ in range(20):
        client.get("/me")
    assert said(caplog) == []


def test_an_api_that_refuses_new_tokens_is_one_warning_a_quiet_time(server, client, grant, clock, caplog):
    client.auth = Reauth(grant, token=server.issue(), clock=clock)
    server.api.fail(*[faults.reply(401)] * 20)
    for _ in range(10):
        assert client.get("/me").status_code == 401
    warnings = [line for level, line in said(caplog) if level == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].startswith("The API refused a token that had just been issued")
    assert "for 1 s" in warnings[0]


@pytest.mark.anyio
async def test_of_two_requests_whose_new_token_is_refused_one_says_so(server, grant, clock, caplog):
    auth = Reauth(grant, token=server.issue(), clock=clock)
    server.api.fail_always(faults.reply(401))
    client = httpx.AsyncClient(transport=server.transport(httpx), base_url="https://api.test", auth=auth)
    async with auth, client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.get, "/me")
        tasks.start_soon(client.get, "/me")
    assert server.api_requests == 4
    assert len([line for level, line in said(caplog) if level == "WARNING"]) == 1


def test_a_body_that_cannot_be_sent_again_is_logged(server, client, grant, clock, caplog):
    client.auth = Reauth(grant, token=server.issue(), clock=clock)
    server.revoke_access_tokens()
    assert client.post("/orders", content=iter([b"a", b"b"])).status_code == 401
    assert said(caplog)[-1] == (
        "DEBUG",
        "Renewed the token, but the body of this request cannot be sent again: its 401 is returned.",
    )


def test_a_superseded_refresh_is_logged(server, client, caplog):
    def refresh(token: Token) -> Token:
        auth.sign_in(Token("signed-in"))
        return Token("renewed")

    auth = Reauth(refresh)
    assert auth.get_token().access_token == "signed-in"
    auth.close()
    assert said(caplog)[-1] == (
        "DEBUG",
        "A sign-in or a sign-out has superseded the refresh, whose token does not count.",
    )


class Moody(MemoryStorage):
    """A storage that raises "full" until a test changes that."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = True

    def save(self, token: Token) -> None:
        if self.is_full:
            raise OSError(28, "s3cret")
        super().save(token)


def test_a_token_that_cannot_be_saved_is_logged_once_and_so_is_its_later_save(server, client, grant, clock, caplog):
    storage = Moody()
    client.auth = auth = Reauth(grant, token=server.issue(lifetime=0), clock=clock, storage=storage)
    for _ in range(5):
        client.get("/me")
        clock.advance(100)
        auth.close()
    saving = [(level, line) for level, line in said(caplog) if "save" in line]
    assert [level for level, _ in saving] == ["WARNING"]
    storage.is_full = False
    auth.close()
    assert said(caplog)[-1] == ("INFO", "Saved the token that could not be saved before.")
    assert storage.load() == auth.store.state.token
    assert "s3cret" not in caplog.text


def test_a_sign_in_that_cannot_be_saved_is_logged_once(server, clock, caplog):
    auth = Reauth(lambda token: token, clock=clock, storage=Moody())
    with pytest.raises(StorageError):
        auth.sign_in(server.issue())
    auth.close()
    assert [level for level, line in said(caplog) if line.startswith("Could not save the new token")] == ["WARNING"]


def test_with_a_storage_too_a_dead_refresh_token_says_what_helps(server, client, grant, clock, caplog):
    client.auth = auth = Reauth(grant, token=server.issue(lifetime=0), clock=clock, storage=MemoryStorage())
    server.revoke_refresh_tokens()
    for _ in range(2):
        with pytest.raises(SignInRequired):
            client.get("/me")
        auth.close()  # a line may be written a moment after the answer
        clock.advance(10)
    warnings = [line for level, line in said(caplog) if level == "WARNING"]
    assert len(warnings) == 2
    assert all("tried again once somebody has signed in: " in line for line in warnings)
    assert server.token_requests == 1


def test_a_sign_out_in_another_process_is_logged(server, client, grant, clock, caplog):
    storage = MemoryStorage()
    storage.save(server.issue())
    client.auth = auth = Reauth(grant, clock=clock, storage=storage)
    client.get("/me")
    storage.clear()
    server.revoke_access_tokens()
    with pytest.raises(SignInRequired):
        client.get("/me")
    auth.close()  # the waiting request continued when it happened; the line is written after that
    assert ("INFO", "Signed out by another process: the storage holds no token any more.") in said(caplog)
