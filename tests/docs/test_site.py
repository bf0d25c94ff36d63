"""Tests of the site: it builds without a warning, has every page and every public name, and its links work."""

from __future__ import annotations

import html
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

sys.path.insert(0, str(ROOT / "docs"))
import build

sys.path.remove(str(ROOT / "docs"))

NAV = re.findall(r"^ +- .*: ([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("zensical", "mkdocstrings_handlers.python"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("site") / "built"
    # The environment is unchanged, because the builder starts further processes.
    command = [sys.executable, str(ROOT / "docs" / "build.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_in_the_navigation_once_and_nothing_else_is():
    reference = [f"reference/{module}.md" for module in build.MODULES]
    assert sorted(NAV) == sorted([*build.pages().values(), *reference])


def test_every_public_module_has_a_page_of_the_reference():
    public = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "httpx_reauth").rglob("*.py")
        if re.search(r"^__all__ = ", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert set(build.MODULES) == {name for name in public if "._" not in name}


def test_every_page_is_built(site: Path):
    for page in NAV:
        assert (site / page).with_suffix(".html").is_file(), page


def text_of(page: Path) -> str:
    """Return the text of a page, as a reader sees it."""
    text = html.unescape(re.sub(r"<[^>]*>", "", page.read_text(encoding="utf-8")))
    return re.sub(r"\s+", " ", text).replace("'", '"')


def test_every_public_name_is_on_the_site_with_its_defaults(site: Path):
    for module in build.MODULES:
        page = site / "reference" / f"{module}.html"
        raw, text = page.read_text(encoding="utf-8"), text_of(page)
        for name in build.names_of(module):
            if f"{module}.{name}" in build.MODULES:
                continue  # it has a page
            assert f'id="{module}.{name}"' in raw, name
            what = getattr(importlib.import_module(module), name)
            if callable(what) and not getattr(what, "_is_protocol", False):
                for parameter in inspect.signature(what).parameters.values():
                    if isinstance(parameter.default, (bool, int, float, str, type(None))):
                        assert is_shown(parameter, text), (module, name, parameter)


def is_shown(parameter: inspect.Parameter, text: str) -> bool:
    """Return whether `text` has the parameter with its default, or with the name of a constant that is its default."""
    default = re.escape(repr(parameter.default).replace("'", '"'))
    return bool(re.search(rf"\b{parameter.name}\b[^=()]*(\([^()]*\)[^=()]*)*= ({default}|_?[A-Z][A-Z_]+)", text))


def test_every_link_inside_of_the_site_leads_somewhere(site: Path):
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # the links of this page begin at the root of a server
            continue
        for link in re.findall(r'(?:href|src)="([^"]+)"', page.read_text(encoding="utf-8")):
            target, _, anchor = html.unescape(link).partition("#")
            if re.match(r"\w+:", target):
                continue
            there = page if target in {"", "."} else page.parent / target
            assert there.exists(), (page.name, link)
            if anchor and there.suffix == ".html" and not anchor.startswith("__"):
                assert f'id="{anchor}"' in there.read_text(encoding="utf-8"), (page.name, link)


def test_no_page_loads_anything_from_another_host(site: Path):
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"?(\w+:)?//", page.read_text("utf-8"))
        assert not loaded, page.name


def test_llms_txt_names_every_page_and_each_lies_there_as_markdown(site: Path):
    text = (site / "llms.txt").read_text(encoding="utf-8")
    assert text.startswith("# httpx-reauth\n\n> ")
    linked = set(re.findall(r"\]\(([^)]+)\)", text))
    assert all((site / target).is_file() for target in linked)
    assert set(build.pages().values()) - {"index.md", "contents.md"} <= linked
    assert {f"reference/{module}.html" for module in build.MODULES} <= linked
