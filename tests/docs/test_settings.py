"""Tests of the page on settings: it has each parameter of each public class and function, with its default."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Protocol

import pytest
from pages import ROOT, text_of

import httpx_reauth
from httpx_reauth._clock import SYSTEM_CLOCK
from httpx_reauth._state.policy import windows
from httpx_reauth._state.state import Current, State
from httpx_reauth.oauth import Grant
from httpx_reauth.storage import Storage
from httpx_reauth.testing import AuthorizationServer, ManualClock

PAGE = text_of(ROOT / "docs" / "settings.md")
MODULES = ("", ".oauth", ".identity", ".storage", ".signin", ".otel")
# Classes that a user gets but does not make.
GIVEN = {httpx_reauth.AuthState, httpx_reauth.Clock, Grant, Storage}
METHODS = {
    f"{cls.__name__}.{name}": getattr(cls, name)
    for cls, names in [
        (httpx_reauth.Reauth, ["get_token", "aget_token", "sign_in", "asign_in", "sign_out", "asign_out"]),
        (httpx_reauth.Token, ["from_response", "renewed"]),
        (httpx_reauth.TokenStore, ["subscribe", "dispatch"]),
        (importlib.import_module("httpx_reauth.storage").RedisStorage, ["from_url"]),
        (AuthorizationServer, ["issue"]),
    ]
    for name in names
}


KIT = {cls.__name__: cls for cls in (AuthorizationServer, ManualClock)}


def is_made_by_users(value: Any) -> bool:
    if not callable(value) or value in GIVEN or (isinstance(value, type) and issubclass(value, BaseException)):
        return False
    name = value.__name__
    return not (name.endswith("Prompt") or name.startswith(("Refresh", "Signed", "Save", "Revoke"))) or name in {
        "RefreshTokenGrant",
        "SignedAssertion",
    }


MADE = {
    name: getattr(importlib.import_module(f"httpx_reauth{module}"), name)
    for module in MODULES
    for name in importlib.import_module(f"httpx_reauth{module}").__all__
    if is_made_by_users(getattr(importlib.import_module(f"httpx_reauth{module}"), name))
} | KIT


def tables() -> dict[str, dict[str, str]]:
    """Return the parameters and defaults of each name in a heading. A later table wins over an earlier one."""
    found: dict[str, dict[str, str]] = {}
    for section in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        text = text.split("\n## ")[0]
        rows = re.findall(r"^\| `(\w+)` \| (?:`([^`]*)`|(required)) \| [^|]+ \| [^|]*\|$", text, re.MULTILINE)
        assert len(rows) == len(re.findall(r"^\| `", text, re.MULTILINE)), heading
        for name in re.findall(r"`([\w.]+)`", heading):
            found.setdefault(name, {}).update({row[0]: row[1] or row[2] for row in rows})
    return found


def shown(parameter: inspect.Parameter, of: Any) -> str:
    default: Any = parameter.default
    if parameter.kind is parameter.VAR_KEYWORD:
        return "{}"
    if repr(default) == "<factory>":
        default = {field.name: field.default_factory for field in fields(of)}[parameter.name]()
    if default is parameter.empty:
        return "required"
    if default is SYSTEM_CLOCK:
        return "the machine's clock"
    if inspect.isfunction(default):
        return f"{default.__module__}.{default.__qualname__}".removeprefix("httpx_reauth.testing._settings.")
    if isinstance(default, Mapping):
        return "{}" if not default else repr(default)
    return "..." if default is ... else repr(default).replace("'", '"')


def parameters(of: Any) -> dict[str, str]:
    if isinstance(of, type) and of.__init__ is object.__init__:
        return {}
    return {
        parameter.name: shown(parameter, of)
        for parameter in inspect.signature(of).parameters.values()
        if parameter.name != "self"
    }


@pytest.mark.parametrize("name", [*MADE, *METHODS])
def test_the_page_has_each_parameter_with_its_default(name: str):
    there = parameters({**MADE, **METHODS}[name])
    if there:
        assert tables().get(name) == there, name
    else:
        assert f"`{name}` takes nothing" in PAGE


def test_the_page_has_no_name_that_there_is_not():
    assert set(tables()) <= {*MADE, *METHODS}


def test_no_protocol_is_taken_for_something_that_a_user_makes():
    assert not any(Protocol in cls.__bases__ for cls in MADE.values() if isinstance(cls, type))


def test_the_picture_of_the_windows_is_drawn_by_the_policy():
    drawn = text_of(ROOT / "docs" / "windows.svg")
    for lifetime, leeway in re.findall(r"expires_in=(\d+), leeway=(\d+)", drawn):
        state = State(Current(httpx_reauth.Token("a", expires_in=float(lifetime)), float(lifetime)))
        for moment in (*windows(state, float(leeway)), float(lifetime)):
            assert f">{moment:g} s<" in drawn
            assert f"{moment:g} s" in PAGE
