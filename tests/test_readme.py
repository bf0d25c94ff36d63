"""What the README shows runs, and what it says of the tests is so."""

from __future__ import annotations

import re
from pathlib import Path

import anyio
import httpx
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def names() -> dict[str, object]:
    """The names that one snippet leaves for the next."""
    return {}


def test_the_first_snippet_gets_me_with_one_token_request(respx_mock, capsys, names):
    token = respx_mock.post("https://auth.example.com/token").respond(json={"access_token": "a", "expires_in": 3600})
    me = respx_mock.get("https://api.example.com/me", headers={"Authorization": "Bearer a"}).respond(
        json={"name": "me"}
    )
    exec(SNIPPETS[0], names)
    anyio.run(names["main"])
    assert capsys.readouterr().out == "{'name': 'me'}\n"
    assert (token.call_count, me.call_count) == (1, 1)


def test_every_snippet_runs_after_the_ones_before_it(names, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for snippet in SNIPPETS:
        exec(snippet, names)
    assert {"auth", "service", "user"} <= set(names)


def test_the_grants_of_the_readme_get_a_token(respx_mock, names):
    respx_mock.post("https://auth.example.com/token").respond(json={"access_token": "a", "expires_in": 3600})
    respx_mock.get("https://api.example.com/me", headers={"Authorization": "Bearer a"}).respond(json={})
    for snippet in SNIPPETS[:2]:
        exec(snippet, names)
    for auth in (names["service"], names["user"]):
        with httpx.Client(auth=auth) as client:
            assert client.get("https://api.example.com/me").status_code == 200


@pytest.mark.parametrize("number", range(1, 14))
def test_each_guarantee_has_tests_that_carry_its_number(number):
    assert re.search(rf"^{number}\. \*\*", README, flags=re.MULTILINE)
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert re.search(rf"def test_guarantee_{number}_\w+", tests)


def test_every_link_of_the_documents_leads_somewhere():
    for document in (ROOT / "README.md", ROOT / "examples" / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), target
