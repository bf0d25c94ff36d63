"""Tests of the page on errors: it names every exception, and says which of them httpx's `except` catches."""

from __future__ import annotations

import importlib
import re

import httpx
import httpx2
import pytest
from pages import ROOT, text_of

from httpx_reauth import Reauth, ReauthError, RefreshError, StorageUnavailable, Token

TABLE = text_of(ROOT / "docs" / "errors.md").split("## Which error")[1].split("## ")[0]
ROWS = {
    name.removeprefix("httpx_reauth."): seen
    for name, seen in re.findall(r"^\| `([\w.]+)` \| .*\| ([^|]*) \|$", TABLE, re.MULTILINE)
}
MODULES = ("httpx_reauth", "httpx_reauth.oauth", "httpx_reauth.storage", "httpx_reauth.signin", "httpx_reauth.testing")


def every_exception() -> set[str]:
    values = [
        getattr(importlib.import_module(module), name)
        for module in MODULES
        for name in importlib.import_module(module).__all__
    ]
    errors = [value for value in values if isinstance(value, type) and issubclass(value, BaseException)]
    return {f"{error.__module__}.{error.__qualname__}".removeprefix("httpx_reauth.") for error in errors}


def test_every_exception_is_on_the_page_and_no_other():
    assert set(ROWS) == every_exception()


@pytest.mark.parametrize("name", sorted(every_exception()))
def test_what_the_page_says_of_httpx_is_so(name: str, library):
    error = getattr(importlib.import_module(f"httpx_reauth.{name}".rpartition(".")[0]), name.rpartition(".")[2])

    def refresh(token: Token) -> Token:
        raise error("no")

    transport = library.package.MockTransport(lambda request: library.package.Response(200))
    client = library.package.Client(auth=library.Reauth(refresh), transport=transport)
    with client, pytest.raises(error) as raised:
        client.get("https://api.example.com")
    assert isinstance(raised.value, library.package.TransportError) is ROWS[name].startswith("yes")


@pytest.mark.parametrize("error", [RefreshError, StorageUnavailable])
def test_outside_of_a_request_it_is_no_error_of_the_client(error: type[ReauthError]):
    def refresh(token: Token) -> Token:
        raise error("no")

    with pytest.raises(error) as raised:
        Reauth(refresh).get_token()
    assert not isinstance(raised.value, (httpx.HTTPError, httpx2.HTTPError))


@pytest.mark.parametrize("name", sorted(every_exception()))
def test_a_traceback_names_an_error_as_it_is_imported(name: str):
    module, _, cls = f"httpx_reauth.{name}".rpartition(".")
    error = getattr(importlib.import_module(module), cls)
    assert f"{error.__module__}.{error.__qualname__}" == f"{module}.{cls}"
