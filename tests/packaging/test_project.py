"""Tests of the project's files: extras and groups, the lock for CI, workflows and forms."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:  # coverage[toml] installs it
    import tomli as tomllib

ROOT = Path(__file__).parent.parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
GROUPS: dict[str, list[Any]] = PROJECT["dependency-groups"]
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
VERSIONS = ["3.10", "3.11", "3.12", "3.13", "3.14", "3.15"]


def requirements(lines: list[Any]) -> dict[str, Requirement]:
    """Return the requirements by name, without our own extras and the included groups."""
    known = [Requirement(line) for line in lines if isinstance(line, str)]
    return {canonicalize_name(one.name): one for one in known if one.name != "httpx-reauth"}


def test_the_extras_are_those_that_users_need_and_the_one_for_the_test_command():
    assert set(EXTRAS) == {"file", "redis", "keyring", "encrypted", "otel", "httpx2", "jwt", "test"}


@pytest.mark.parametrize("group", ["examples", "docs"])
def test_the_test_extra_contains_the_requirements_of_the_examples_and_the_site(group):
    test = requirements(EXTRAS["test"])
    for name, needed in requirements(GROUPS[group]).items():
        assert test[name].specifier == needed.specifier, name


def test_every_version_of_python_is_named_and_looked_for():
    classifiers = PROJECT["project"]["classifiers"]
    assert [one.rpartition(" ")[2] for one in classifiers if re.search(r":: 3\.\d+$", one)] == VERSIONS
    assert f"for version in {' '.join(VERSIONS)}; do" in CI
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^ +(3\.\d+)$", workflow, re.MULTILINE)) == VERSIONS


def locked() -> dict[str, list[str]]:
    """Return the versions of each package in the lock for CI.

    There are several if they depend on the Python version.
    """
    versions: dict[str, list[str]] = {}
    for line in (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines():
        pin = Requirement(line)
        assert not pin.url, line
        assert not pin.extras, line
        (only,) = pin.specifier
        assert only.operator == "==", line
        versions.setdefault(canonicalize_name(pin.name), []).append(only.version)
    return versions


def test_the_lock_for_ci_holds_every_dependency_in_a_version_that_is_allowed():
    versions = locked()
    lines = [
        *PROJECT["project"]["dependencies"],
        *(line for extra in EXTRAS.values() for line in extra),
        *GROUPS["lint"],
    ]
    needed = [Requirement(line) for line in lines]
    for one in needed:
        if one.name != "httpx-reauth":
            assert any(one.specifier.contains(version) for version in versions[canonicalize_name(one.name)]), one


def test_the_lock_for_ci_names_no_host_and_no_option():
    text = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8")
    assert not re.search(r"://|^-|--hash", text, re.MULTILINE)


def test_the_lowest_versions_that_ci_installs_are_those_of_the_project():
    script = "\n".join([CI[CI.index("lowest() {") : CI.index("}", CI.index("lowest() {")) + 1], "lowest"])
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    users = [line for name, extra in EXTRAS.items() if name != "test" for line in extra]
    wanted = set()
    for one in requirements([*PROJECT["project"]["dependencies"], *users]).values():
        (lowest,) = [part.version for part in SpecifierSet(str(one.specifier)) if part.operator == ">="]
        wanted.add(f"{canonicalize_name(one.name)}=={lowest}")
    assert set(done.stdout.split()) == wanted


def tool(name: str) -> str:
    found = shutil.which(name, path=Path(sys.executable).parent)
    if found is None:
        pytest.skip(f"{name} is not installed here; the extra `test` brings it where it exists")
    return found


def lint(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflows_are_safe():
    lint(tool("zizmor"), "--offline", "--no-progress", ".github")


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", "workflows/*.yml"),
        ("vendor.github-issue-forms", "ISSUE_TEMPLATE/[!c]*.yml"),
        ("vendor.github-issue-config", "ISSUE_TEMPLATE/config.yml"),
    ],
)
def test_the_workflows_and_forms_are_what_they_should_be(schema, files):
    found = [str(path) for path in (ROOT / ".github").glob(files)]
    assert found
    lint(tool("check-jsonschema"), "--builtin-schema", schema, *found)


def test_the_workflows_run_what_a_contributor_runs():
    for name in ("ci.yml", "release.yml"):
        assert "bash .ci/run" in (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["SECURITY.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md"])
def test_every_link_of_the_pages_beside_the_readme_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not re.search(r"https?://", text)
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / target).exists(), target
