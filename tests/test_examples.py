"""Tests of the examples as scripts.

They print what really happened, so each line and each count is compared exactly.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys

import examples_by_name
import pytest
from examples_by_name import EXAMPLES, ROOT

PRINTED = {
    "login_then_refresh": [
        "/me: 200, after /login",
        "/me: 200, after /login /refresh",
        "/me: 200, after /login /refresh /refresh /login",
    ],
    "audience_behind_a_proxy": [
        "/reports: 200",
        "/reports: 200",
        "token requests: 1, for https://api.example.com",
        "through the proxy: POST /token HTTP/1.1",
        "through the proxy: GET /reports HTTP/1.1",
    ],
    "github_app": [
        "/installation/repositories: 200",
        "/installation/repositories: 200",
        "the token lives 60 minutes",
        "/installation/repositories: 200",
        "exchanges: 2",
    ],
    "service_account": [
        "/reports: 200, 200",
        "/reports: 200",
        "assertions: 2, for reports.read",
    ],
    "cli": [
        "$ cli.py whoami",
        "You are not signed in. Run: cli.py login",
        "$ cli.py login",
        "Your browser opens so that you can sign in. If it does not, open:",
        "LOOPBACK/authorize?...",
        "You are signed in.",
        "$ cli.py whoami",
        "Ada",
        "$ cli.py logout",
        "You are signed out.",
        "$ cli.py whoami",
        "You are not signed in. Run: cli.py login",
        "$ cli.py login --device",
        "Open LOOPBACK/device_authorization on any device and enter",
        "CODE",
        "You are signed in.",
        "$ cli.py whoami",
        "Ada",
    ],
    "fastapi_service": [
        "alice: 10 x 200",
        "bob: 10 x 200",
        "carol: 10 x 403",
        "bob: 10 x 403",
        "token requests: 2",
    ],
    "sdks": [
        "openai: stand-in-1",
        "anthropic: stand-in-1",
        "token requests: 1",
        "openai: stand-in-1",
        "anthropic: stand-in-1",
        "token requests: 2",
        "openai: SignInRequired, as it is",
        "anthropic: SignInRequired, raised as APIConnectionError",
        "token requests: 3",
        "keys that were sent: 0",
    ],
    "header_cookie_csrf": [
        "key: 200; after the server has ended it: 200",
        "session: 201; after the server has ended it: 201",
        "keys asked for: 2, logins: 2",
    ],
}
IN_A_PROCESS_OF_THEIR_OWN = {"me", "observing", "sql_storage", "async_sql_refresh"}

SECRETS = re.compile(r"(access|refresh)-\d+-[0-9a-f]{8}|eyJ|BEGIN|correct horse|kept in the environment|not used")


def as_a_script(name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, f"examples/{name}.py"], cwd=ROOT, capture_output=True, timeout=60, check=False, text=True
    )


def test_every_example_is_here_and_in_the_table_of_the_readme():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == PRINTED.keys() | IN_A_PROCESS_OF_THEIR_OWN
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[`(\w+)\.py`\]", readme, flags=re.MULTILINE)) == names
    recipes = {f"testing/{path.name}" for path in EXAMPLES.glob("testing/test_*.py")}
    assert set(re.findall(r"^\| \[`(testing/\w+\.py)`\]", readme, flags=re.MULTILINE)) == recipes


@pytest.mark.parametrize("name", sorted({path.stem for path in EXAMPLES.glob("*.py")}))
def test_an_example_says_how_it_is_run(name: str):
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert f"Run it: `python examples/{name}.py`" in text.split('"""')[1].replace("\n", " ")


def test_the_first_example_prints_what_the_seed_prints_byte_for_byte():
    done = as_a_script("me")
    assert done.stderr == ""
    assert done.stdout == (ROOT / "tests" / "trace.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_happens_and_no_secret(name: str, capsys, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG, "httpx_reauth")
    examples_by_name.run(name, monkeypatch)
    out, err = capsys.readouterr()
    out = re.sub(r"http://127\.0\.0\.1:\d+", "LOOPBACK", out)
    out = re.sub(r"(?m)^(LOOPBACK/authorize\?)\S+$", r"\1...", out)  # a state and a challenge, which are new each time
    out = re.sub(r"╭─+╮\n│ +[A-Z]{4}-[A-Z]{4} +│\n╰─+╯", "CODE", out)
    assert out.splitlines() == PRINTED[name]
    assert err == ""
    assert not SECRETS.search(out + caplog.text)


def test_what_is_observed_is_one_status_and_structured_lines_without_a_secret():
    done = as_a_script("observing")
    status = ["renewing ...", "signed in", "renewing ...", "not renewed: RefreshError", "renewing ...", "signed in"]
    assert done.stdout.splitlines() == [*status, "renewing ...", "sign in again"]
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    told = [line for line in lines if line["logger"] == "my_app.auth"]
    assert [(line["event"], line["reason"], line["level"]) for line in told] == [
        ("RefreshPending", "missing", "INFO"),
        ("RefreshFulfilled", "missing", "INFO"),
        ("RefreshPending", "expired", "INFO"),
        ("RefreshRejected", "expired", "WARNING"),
        ("RefreshPending", "expired", "INFO"),
        ("RefreshFulfilled", "expired", "INFO"),
        ("RefreshPending", "expired", "INFO"),
        ("RefreshRejected", "expired", "WARNING"),
    ]
    renewed, failed, _, dead = [line for line in told if line["event"] != "RefreshPending"]
    assert (renewed["lifetime"], renewed["adopted"]) == (3600, False)
    assert (failed["error"], failed["http_status"], failed["code"]) == ("RefreshError", 500, None)
    assert 0.4 <= failed["retry_after"] <= 0.5
    assert (dead["error"], dead["code"]) == ("SignInRequired", "invalid_grant")
    own = [line for line in lines if line["logger"] == "httpx_reauth"]
    assert len(own) == 4
    assert len(told) + len(own) == len(lines)
    assert not SECRETS.search(done.stdout + done.stderr)
