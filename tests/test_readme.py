"""What the README's examples do, beyond running: that they run, and its links, is in tests/docs."""

from __future__ import annotations

import re
from pathlib import Path

import anyio
import httpx
import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
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


def test_the_grants_of_the_readme_get_a_token(respx_mock, names):
    respx_mock.post("https://auth.example.com/token").respond(json={"access_token": "a", "expires_in": 3600})
    respx_mock.get("https://api.example.com/me", headers={"Authorization": "Bearer a"}).respond(json={})
    for snippet in SNIPPETS[:2]:
        exec(snippet, names)
    for auth in (names["service"], names["user"]):
        with httpx.Client(auth=auth) as client:
            assert client.get("https://api.example.com/me").status_code == 200


def test_the_readme_has_what_a_stranger_looks_for_first():
    top = README[: README.index("## ")]
    assert "pip install httpx-reauth" in top
    assert SNIPPETS[0] in top
    assert len(top.splitlines()) < 70  # a screen of promise, one example, and links
