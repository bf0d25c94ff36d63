"""Tests that all messages are ASCII, because the console of Windows or of a container may show no other characters."""

from __future__ import annotations

import ast
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

import httpx_reauth
from httpx_reauth import Reauth, ReauthError, Token
from httpx_reauth.storage import MemoryStorage

PACKAGE = Path(httpx_reauth.__file__).parent
DATA = ("_contract_steps.py",)  # the file contains tokens that a storage has to keep


def docstrings(tree: ast.AST) -> set[int]:
    """Return the ids of the nodes of docstrings, which may have other characters."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = [node.body[0] for node in ast.walk(tree) if isinstance(node, kinds) and node.body]
    return {id(node.value) for node in first if isinstance(node, ast.Expr)}


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_text_in_the_package_has_a_character_beyond_ascii(file: Path):
    if file.name in DATA:
        pytest.skip("data")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    read_by_people = docstrings(tree)
    texts = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in read_by_people
    ]
    assert [(node.lineno, node.value) for node in texts if not node.value.isascii()] == []


class Größe(Exception):  # noqa: PLC2401
    pass


def ärger(token: Token) -> Token:  # noqa: PLC2401
    raise Größe("日本 🎉")


class Übergabe:  # noqa: PLC2401
    def __call__(self, token: Token) -> Any:
        return self


class Äußerung(MemoryStorage):  # noqa: PLC2401
    def save(self, token: Token) -> None:
        raise OSError(28, "日本")


def answering(response: httpx.Response) -> Any:
    return lambda _: Token.from_response(response)


REFRESHES: dict[str, Any] = {
    "a function and its exception": ärger,
    "an object": Übergabe(),
    "words of a server": answering(httpx.Response(400, json={"error": "größe", "error_description": "日本 🎉"})),
    "other words of a server": answering(httpx.Response(200, json={"message": "日本", "größe": {"access_token": "a"}})),
    "a type of token": answering(httpx.Response(200, json={"access_token": "a", "token_type": "日本"})),
    "a URL": answering(
        httpx.Response(404, request=httpx.Request("POST", "https://bücher.example/größe?日本", extensions={}))
    ),
    "a code that is dead": answering(httpx.Response(400, json={"error": "invalid_grant", "message": "日本"})),
}


@pytest.mark.parametrize("storage", [None, Äußerung])
@pytest.mark.parametrize("refresh", REFRESHES.values(), ids=REFRESHES)
def test_texts_of_others_are_written_in_ascii(refresh: Any, storage: Any, caplog: Any):
    caplog.set_level(logging.DEBUG, "httpx_reauth")
    told: list[str] = []
    auth = Reauth(refresh, storage=storage and storage())
    auth.store.subscribe(lambda state, action: told.append(str(getattr(action, "error", ""))))
    try:
        auth.get_token()
    except ReauthError as error:
        told.append(str(error))
    assert [text for text in [*told, *caplog.messages] if not text.isascii()] == []
    assert caplog.messages
