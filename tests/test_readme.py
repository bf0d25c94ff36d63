"""Tests of the code blocks in the README. (tests/docs checks that they run and that the links work.)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def token(respx_mock):
    return respx_mock.post("https://auth.example.com/token")


@pytest.fixture
def me(respx_mock):
    answer = respx_mock.get("https://api.example.com/me", headers={"Authorization": "Bearer a"})
    return answer.respond(json={"name": "me"})


def test_the_readme_has_one_example():
    assert len(SNIPPETS) == 1


def test_the_example_requests_me_with_one_token_request(token, me, capsys):
    token.respond(json={"access_token": "a", "expires_in": 3600})
    exec(SNIPPETS[0], {})
    assert capsys.readouterr().out == "{'name': 'me'}\n"
    assert (token.call_count, me.call_count) == (1, 1)


def test_the_example_asks_for_a_sign_in_when_the_refresh_token_is_dead(token, capsys):
    token.respond(400, json={"error": "invalid_grant"})
    exec(SNIPPETS[0], {})
    assert capsys.readouterr().out == "Please sign in again.\n"


def test_the_readme_begins_with_the_problem_the_example_and_an_install_that_works_from_a_clone():
    top = README[: README.index("## What it guarantees")]
    assert SNIPPETS[0] in top
    assert "pip install -e ." in top
    assert len(top.splitlines()) < 70


def test_the_readme_is_short():
    assert len(README.split()) < 1000
