"""Tests of the documents: every block runs by itself, every command exists, and every link works."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pages import PAGES, ROOT, STAND_INS, Block, anchors_of, blocks_of, links_of, name_of, program_of, text_of
from worlds import world_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads(text_of(ROOT / "pyproject.toml"))
EXTRAS = set(PROJECT["project"]["optional-dependencies"])
GROUPS = set(PROJECT["dependency-groups"])
CI = text_of(ROOT / ".ci" / "run")
SOURCES = {  # the vendors' own documentation
    "auth0.com",
    "developer.okta.com",
    "developers.google.com",
    "developers.openai.com",
    "docs.cloud.google.com",
    "docs.github.com",
    "help.salesforce.com",
    "learn.microsoft.com",
    "platform.claude.com",
}
TESTS = {path: text_of(path) for path in (ROOT / "tests").rglob("test_*.py")}

ALL = [block for page in PAGES for block in blocks_of(page)]


def of(language: str) -> list[Block]:
    return [block for block in ALL if block.language == language]


@pytest.mark.parametrize("block", ALL, ids=str)
def test_no_block_is_of_a_language_that_nothing_checks(block: Block):
    # test_design.py checks the `mermaid` blocks against the code.
    assert block.language in {"python", "sh", "text", "mermaid"}


# Python


@pytest.fixture
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make packages of other projects importable that the pages use and the tests do not install."""
    monkeypatch.syspath_prepend(str(STAND_INS))
    yield
    for name, module in sys.modules.copy().items():
        if str(vars(module).get("__file__")).startswith(str(STAND_INS)):
            del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change into an empty folder, which is the home as well."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("_stand_ins")
@pytest.mark.parametrize("block", of("python"), ids=str)
def test_each_python_block_runs_by_itself_and_prints_what_the_page_says(
    block: Block, folder: Path, capsys: pytest.CaptureFixture[str]
):
    """A `text` block right after a `python` block is the output of that block."""
    names: dict[str, object] = {}
    after = [one for one in blocks_of(block.page) if one.line > block.line][:1]
    with world_of(name_of(block.page)):
        for part in program_of(block):
            capsys.readouterr()
            part.run(names)
    printed = capsys.readouterr().out
    if after and after[0].language == "text":
        assert printed == after[0].code


PROGRAMS = [
    *(pytest.param("".join(part.code for part in program_of(block)), id=str(block)) for block in of("python")),
    *(pytest.param(text_of(path), id=path.name) for path in sorted((ROOT / "examples").rglob("*.py"))),
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_that_makes_a_reauth_says_where_its_token_may_go(program: str):
    assert not re.search(r"\bReauth\(", program) or "origins=" in program


@pytest.mark.parametrize("block", of("text"), ids=str)
def test_a_text_block_is_what_the_snippet_before_it_prints(block: Block):
    before = [one for one in blocks_of(block.page) if one.line < block.line]
    assert before
    assert before[-1].language == "python"


# Commands


def _pip(words: list[str]) -> bool:
    """Accept `pip install` of this package with existing extras, of this checkout, of a group, or of a newer pip."""
    if words[:2] == ["install", "--group"]:
        return set(words[2:]) <= GROUPS
    if words == ["install", "pip>=25.1"]:  # the first version that knows groups
        return True
    ours = re.fullmatch(r"(?:httpx-reauth|\.)(?:\[([\w,]+)\])?", words[-1])
    named = set(ours[1].split(",")) if ours and ours[1] else set()
    return ours is not None and named <= EXTRAS and words[:-1] in (["install"], ["install", "-e"])


def _pytest(words: list[str]) -> bool:
    """Accept `pytest`, `pytest path` and `pytest -k word`, if that path, or a test with that word, exists."""
    if words[:1] == ["-k"] and len(words) == 2:
        return any(re.search(rf"def test_\w*{words[1]}", text) for text in TESTS.values())
    return all((ROOT / word).exists() for word in words)


def _python(words: list[str], page: Path) -> bool:
    """Accept `python script` if the page or the repository has the script, and `python -m module` if there is one."""
    if words[0] != "-m":
        return (ROOT / words[0]).is_file() or f"`{words[0]}`" in text_of(page)
    module, rest = words[1], words[2:]
    if module == "pytest":
        return _pytest(rest)
    if module == "venv":
        return rest == [".venv"]
    return (ROOT / module.replace(".", "/") / "__main__.py").is_file()


def is_known(command: str, page: Path) -> bool:
    """Return whether `command` exists, as far as that can be known without running it."""
    words = shlex.split(command)
    name, rest = words[0].removeprefix(".venv/bin/").removeprefix(".venv\\Scripts\\"), words[1:]
    if name == "pip":
        return _pip(rest)
    if name in {"python", "python3"}:
        return _python(rest, page)
    if name == "pytest":
        return _pytest(rest)
    if name == "bash":
        return len(rest) == 1 and (ROOT / rest[0]).is_file()
    if name in {"ruff", "mypy", "pyright"}:
        return f".venv/bin/{name} {rest[0]}" in CI  # as the continuous integration runs it
    return False


@pytest.mark.parametrize("block", of("sh"), ids=str)
def test_every_command_of_the_documents_is_one_that_exists(block: Block):
    for line in block.code.splitlines():
        for command in line.split(" && "):
            assert is_known(command, block.page), command


@pytest.mark.parametrize(
    "command",
    ["pip install httpx-reauth[nonsense]", "pip install requests", "python nowhere.py", "python -m nowhere",
     "pytest -k guarantee_99_", "pytest tests/nowhere", "bash nowhere", "rm -rf .", "ruff nonsense"],
)  # fmt: skip
def test_a_command_that_does_not_exist_is_found(command: str):
    assert not is_known(command, ROOT / "README.md")


def test_what_the_readme_sets_up_is_what_the_continuous_integration_does():
    lines = text_of(ROOT / "README.md").splitlines()
    assert len([line for line in lines if re.fullmatch(r"python3 -m venv .* -m pytest", line)]) == 1
    assert len([line for line in lines if re.fullmatch(r"python3 -m venv .* examples/me\.py", line)]) == 1


def test_every_extra_that_a_page_names_exists():
    named = {
        extra
        for page in PAGES
        for extras in re.findall(r"httpx-reauth\[([\w,]+)\]", text_of(page))
        for extra in extras.split(",")
    }
    assert {"file", "httpx2", "otel"} <= named <= EXTRAS


# Links


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_of_the_documents_leads_somewhere(page: Path):
    for link in links_of(page):
        target, _, anchor = link.partition("#")
        if target.startswith("https://"):
            assert httpx.URL(target).host in {"keepachangelog.com", "semver.org", "www.rfc-editor.org"} | SOURCES, link
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), link
        assert there.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors_of(there), link


def test_every_page_can_be_reached_from_the_readme():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page not in PAGES:
            continue
        seen.add(page)
        links = [link.partition("#")[0] for link in links_of(page)]
        waiting += [(page.parent / link).resolve() for link in links if link and not link.startswith("https://")]
    assert set(PAGES) <= seen


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_begins_with_its_title(page: Path):
    assert text_of(page).startswith("# ")
