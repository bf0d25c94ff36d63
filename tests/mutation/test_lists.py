"""Tests of the lists in `[tool.mutmut]`: they name existing modules and tests, and every module of the core."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ("_request", "_state", "_tokens")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs tomllib")
def test_the_modules_that_mutmut_changes_exist_and_no_module_of_the_core_is_missing():
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    named = set(settings["only_mutate"])
    core = {
        path.relative_to(ROOT).as_posix()
        for folder in CORE
        for path in (ROOT / "httpx_reauth" / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert core - named == set()
    assert [name for name in settings["pytest_add_cli_args_test_selection"] if not (ROOT / name).exists()] == []
