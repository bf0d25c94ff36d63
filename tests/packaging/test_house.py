"""Tests of the figures of the redesign, as far as they can be counted.

`python -m tests.benchmarks house` prints them.
"""

from __future__ import annotations

from benchmarks._source import circles, drivers, entries, modules
from benchmarks.house import PUBLIC

import httpx_reauth

FOLDERS = ("_state", "_tokens", "_request")  # each folder may import only those before it
SHAPES = "httpx_reauth._request.packages"  # the shapes of httpx's classes, which every module may import


def test_the_package_has_at_most_15_entries():
    assert len(entries()) <= 15


def test_no_modules_import_one_another_in_a_circle():
    assert circles(modules()) == []


def test_there_is_one_door_to_what_only_a_refresh_needs():
    doors = {(name, one) for name, module in modules(core_only=True).items() for one in module.inner_imports}
    # `Token.from_response` reads an answer as a grant does. It imports that code only when it is called.
    assert doors == {
        ("httpx_reauth._tokens", "httpx_reauth._tokens._refresh"),
        ("httpx_reauth._token", "httpx_reauth.oauth.response"),
    }


def test_a_folder_of_the_core_imports_only_what_is_below_it():
    known = modules()
    for name, module in known.items():
        folder = name.split(".")[1] if "." in name else ""
        if folder in FOLDERS:
            above = {f"httpx_reauth.{one}" for one in FOLDERS[FOLDERS.index(folder) + 1 :]}
            assert not {one for one in module.imports if one.rpartition(".")[0] in above} - {SHAPES}, name


def test_generators_are_driven_at_four_places():
    assert len(drivers(modules(core_only=True).values())) == 4


def test_a_reauth_has_no_public_name_but_those_for_users():
    assert {name for name in dir(httpx_reauth.Reauth) if not name.startswith("_")} == PUBLIC
