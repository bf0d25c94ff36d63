"""Tests of what a user sees of the package in a shell: `help`, completion, the version, the logger."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import logging
import pydoc
import re
import subprocess
import sys
import textwrap
import traceback
import typing

import pytest
import respx

import httpx_reauth
from httpx_reauth import AuthState, ReauthError, Token, TokenStore, oauth
from httpx_reauth.storage import MemoryStorage


def help_of(thing: object) -> str:
    return pydoc.plain(pydoc.render_doc(thing))


def test_help_opens_with_an_example_that_runs(capsys: pytest.CaptureFixture[str]):
    text = help_of(httpx_reauth).split("DESCRIPTION", 1)[1].split("PACKAGE CONTENTS")[0]
    example = re.search(r"^ {8}import httpx\n.*?(?=^ {4}\S)", text, flags=re.MULTILINE | re.DOTALL)
    assert example is not None
    assert text.index("import httpx") < 80  # the example comes early in the text
    with respx.mock() as router:
        router.post("https://id.example.com/token").respond(json={"access_token": "a", "expires_in": 3600})
        router.get("https://api.example.com/me", headers={"Authorization": "Bearer a"}).respond(json={"name": "me"})
        exec(compile(textwrap.dedent(example[0]), "help(httpx_reauth)", "exec"), {})
    assert capsys.readouterr().out == "{'name': 'me'}\n"


def test_help_names_the_main_classes_and_modules():
    text = help_of(httpx_reauth).split("PACKAGE CONTENTS")[0]
    modules = ("httpx2.Reauth", "oauth", "signin", "storage", "testing")
    for name in ("Reauth", "Token", "RefreshError", "SignInRequired", "ReauthPool", *modules):
        assert name in text


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (AuthState, {"status", "token", "error"}),
        (Token, {"access_token", "refresh_token", "expires_in", "expires_at", "token_type", "scope", "extra"}),
    ],
)
def test_help_of_a_value_shows_its_public_fields_only(cls: type, fields: set[str]):
    text = help_of(cls)
    signature = re.search(rf"^ +\|  {cls.__name__}\((.*?)\) -> None$", text, flags=re.MULTILINE | re.DOTALL)
    assert signature is not None
    assert set(re.findall(r"(\w+):", signature[1])) == fields
    described = text.split("Data descriptors defined here:")[1].split("Data and other attributes")[0]
    listed = set(re.findall(r"^ +\|  (\w+)$", described, flags=re.MULTILINE))
    assert listed - {"__weakref__"} == fields  # Python 3.10 lists `annotations` as well


PUBLIC = {
    "store", "token", "get_token", "aget_token", "renew", "arenew", "sign_in", "asign_in", "sign_out", "asign_out",
    "close", "aclose",
}  # fmt: skip
OF_THE_CLIENT = {"auth_flow", "sync_auth_flow", "async_auth_flow", "requires_request_body", "requires_response_body"}


def test_completion_offers_no_internal_name(library):
    auth = library.Reauth(lambda token: token, storage=MemoryStorage(), authorize=lambda request, token: None)
    assert {name for name in dir(auth) if not name.startswith("_")} == PUBLIC | OF_THE_CLIENT
    assert {name for name in dir(TokenStore()) if not name.startswith("_")} == {"state", "dispatch", "subscribe"}


def test_completion_of_the_package_offers_what_is_public():
    offered = {name for name in dir(httpx_reauth) if not name.startswith("_")}
    modules = {"httpx2", "oauth", "otel", "signin", "storage", "testing"}
    assert offered == {*httpx_reauth.__all__, *modules} - {"__version__"}
    for name in httpx_reauth.__all__:
        assert getattr(httpx_reauth, name) is not None


def test_the_version_is_that_of_the_distribution():
    assert httpx_reauth.__version__ == importlib.metadata.version("httpx-reauth")


WARNS = """
import httpx, httpx_reauth
{set_up}
auth = httpx_reauth.Reauth(lambda token: httpx_reauth.Token("a"), origins=["https://api.example.com"])
transport = httpx.MockTransport(lambda _: httpx.Response(200))
httpx.Client(transport=transport, auth=auth).get("https://other.example")
"""


@pytest.mark.parametrize(("set_up", "shown"), [("", False), ("import logging; logging.basicConfig()", True)])
def test_a_program_that_has_set_up_no_logging_sees_no_warning(set_up: str, *, shown: bool):
    ran = subprocess.run(
        [sys.executable, "-c", WARNS.format(set_up=set_up)], capture_output=True, text=True, check=True, timeout=60
    )
    assert ("without the access token" in ran.stderr) is shown
    assert any(isinstance(one, logging.NullHandler) for one in logging.getLogger("httpx_reauth").handlers)


PUBLIC_MODULES = ("", ".httpx2", ".identity", ".oauth", ".otel", ".signin", ".storage", ".testing", ".testing.pytest")
EVERY_PUBLIC_NAME = [
    (f"httpx_reauth{module}", name)
    for module in PUBLIC_MODULES
    for name in importlib.import_module(f"httpx_reauth{module}").__all__
]


@pytest.mark.parametrize(("module", "name"), [pytest.param(*one, id=".".join(one)) for one in EVERY_PUBLIC_NAME])
def test_a_public_name_says_where_it_is_imported_from(module: str, name: str):
    value = getattr(importlib.import_module(module), name)
    if isinstance(value, type) and (module, name) != ("httpx_reauth.storage", "StorageError"):
        assert f"{value.__module__}.{value.__qualname__}" == f"{module}.{name}"


@pytest.mark.parametrize("name", ["MetadataRequest", "TokenRequest"])
def test_what_fields_are_annotated_with_can_be_looked_up(name: str):
    cls = getattr(oauth, name)
    assert typing.get_type_hints(cls).keys() >= {field.name for field in dataclasses.fields(cls)}


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [("httpx_reauth.httpx2", "httpx2", "httpx2"), ("httpx_reauth.otel", "opentelemetry", "otel")],
)
def test_a_missing_extra_names_the_command_that_installs_it(module: str, missing: str, extra: str, monkeypatch):
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=re.escape(f'pip install "httpx-reauth[{extra}]"')) as raised:
        importlib.import_module(module)
    assert raised.value.name == missing


def test_a_token_url_may_be_a_url_of_the_client(library):
    grant = oauth.ClientCredentialsGrant(library.package.URL("https://id.example.com/token"), "reports", "secret")
    assert grant.token_url == "https://id.example.com/token"


def test_a_failed_refresh_says_its_sentence_once_in_the_traceback(library):
    def refresh(_: Token) -> Token:
        raise KeyError("ttl")

    transport = library.package.MockTransport(lambda _: library.package.Response(200))
    client = library.package.Client(auth=library.Reauth(refresh), transport=transport)
    with client, pytest.raises(ReauthError) as raised:
        client.get("https://api.example.com")
    assert "".join(traceback.format_exception(raised.value)).count(str(raised.value)) == 1
