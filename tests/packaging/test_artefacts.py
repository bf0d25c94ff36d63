"""Tests of the wheel and the sdist, built from this tree and installed outside of the checkout."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from trove_classifiers import classifiers as known_classifiers

ROOT = Path(__file__).parent.parent.parent
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP_", "COVERAGE_"))}

# The packages that are imported, besides the standard library, and what installs each: a dependency, one of our extras,
# or (None) the user, who may want to test with respx or to run on trio.
BROUGHT_BY: dict[str, str | None] = {
    "anyio": "",
    "cryptography": "jwt",
    "filelock": "file",
    "h11": "",  # httpx installs it; the server of the test kit uses it
    "httpx": "",
    "httpx2": "httpx2",
    "joserfc": "jwt",
    "keyring": "keyring",
    "opentelemetry": "otel",
    "pytest": None,
    "respx": None,
    "trio": None,
}


def run(*argv: object, cwd: Path, python: Path | str = sys.executable) -> str:
    command = [str(python), *map(str, argv)]
    done = subprocess.run(command, cwd=cwd, env=CLEAN, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from the sdist. Return their folder."""
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    (sdist,) = built.glob("*.tar.gz")
    return sdist


def contents_of_wheel(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def contents_of_sdist(sdist: Path) -> dict[str, bytes]:
    """Return the files of the sdist, without its top folder."""
    with tarfile.open(sdist) as archive:
        files = {one.name.split("/", 1)[1]: archive.extractfile(one) for one in archive.getmembers() if one.isfile()}
        return {name: file.read() for name, file in files.items() if file is not None}


def sources(*folders: str) -> set[str]:
    """Return the files below `folders`, as paths from the root of the tree."""
    files = [file for folder in folders for file in (ROOT / folder).rglob("*") if file.is_file()]
    return {file.relative_to(ROOT).as_posix() for file in files if "__pycache__" not in file.parts}


def metadata_in(contents: Mapping[str, bytes]) -> Metadata:
    (text,) = [data for name, data in contents.items() if name.endswith((".dist-info/METADATA", "PKG-INFO"))]
    return Metadata.from_email(text, validate=True)


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Metadata:
    return metadata_in(contents_of_wheel(wheel))


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    contents = contents_of_wheel(wheel)
    package = {name for name in contents if ".dist-info/" not in name}
    assert package == sources("httpx_reauth")
    assert {Path(name).suffix for name in package} == {".py", ".typed"}
    about = {re.sub(r"^[^/]*\.dist-info/", "", name) for name in contents if ".dist-info/" in name}
    assert about == {"METADATA", "RECORD", "WHEEL", "licenses/LICENSE"}
    for name in package:
        assert contents[name] == (ROOT / name).read_bytes(), name


def test_the_wheel_tells_type_checkers_that_it_is_typed(wheel):
    assert contents_of_wheel(wheel)["httpx_reauth/py.typed"] == b""


def test_the_wheel_is_for_any_machine_and_for_python_3(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_sdist_holds_what_it_takes_to_build_to_test_and_to_read(sdist):
    names = set(contents_of_sdist(sdist))
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "PKG-INFO", ".ci/run"} <= names
    # Only files in use count: an editor or a tool may have left ignored files beside them.
    wanted = {name for name in sources("httpx_reauth", "tests", "examples", "docs") if not name.endswith(".pyc")}
    assert wanted <= names
    tops = {name.split("/")[0] for name in names}
    assert tops <= {
        ".ci", ".github", ".gitignore", "CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "LICENSE", "PKG-INFO",
        "README.md", "SECURITY.md", "docs", "examples", "httpx_reauth", "mkdocs.yml", "pyproject.toml", "tests",
    }  # fmt: skip
    compiled = {".pyc", ".pyd", ".so", ".egg-info"}
    assert not [name for name in names if Path(name).suffix in compiled or "__pycache__" in name]
    assert not [name for name in names if name[0] != "." and any(part[0] == "." for part in name.split("/"))]


def test_the_wheel_of_the_checkout_is_the_wheel_of_the_sdist(wheel, tmp_path):
    run("-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (direct,) = tmp_path.glob("*.whl")
    assert contents_of_wheel(direct) == contents_of_wheel(wheel)
    assert direct.name == wheel.name


def test_the_package_index_would_take_both_and_render_the_readme(wheel, sdist, tmp_path):
    said = run("-m", "twine", "--no-color", "check", "--strict", wheel, sdist, cwd=tmp_path)
    assert len(re.findall(r"PASSED$", said, flags=re.MULTILINE)) == 2


def test_the_metadata_is_complete(metadata):
    assert metadata.name == "httpx-reauth"
    assert metadata.summary
    assert metadata.license_expression == "BSD-3-Clause"
    assert metadata.license_files == ["LICENSE"]
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description == (ROOT / "README.md").read_text(encoding="utf-8")
    assert metadata.keywords
    assert metadata.author


def test_the_sdist_says_of_itself_what_the_wheel_says(metadata, sdist):
    contents = {"PKG-INFO": contents_of_sdist(sdist)["PKG-INFO"]}
    assert metadata_in(contents).as_rfc822().as_bytes() == metadata.as_rfc822().as_bytes()


def test_the_classifiers_exist_and_name_the_pythons_that_the_tests_run_on(metadata):
    assert set(metadata.classifiers) <= known_classifiers
    assert metadata.classifiers == sorted(metadata.classifiers)
    named = {one.rpartition(" ")[2] for one in metadata.classifiers if re.search(r":: Python :: 3\.\d+$", one)}
    tested = re.search(r"^for version in ([\d. ]+); do$", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)
    assert tested
    assert named == set(tested[1].split())
    assert all(version in metadata.requires_python for version in named)
    assert "3.9" not in metadata.requires_python


def test_the_extras_are_those_that_the_documents_name_and_each_brings_something(metadata):
    for_users = {"encrypted", "file", "httpx2", "jwt", "keyring", "otel", "redis"}
    assert for_users <= set(metadata.provides_extra) <= for_users | {"dev", "examples", "lint", "test"}
    for extra in metadata.provides_extra:
        assert required_by(metadata, extra)


def required_by(metadata: Metadata, extra: str) -> list[Requirement]:
    """Return what `extra` requires. If `extra` is empty, return what the package itself requires."""
    return [
        one
        for one in metadata.requires_dist
        if (one.marker is None) == (not extra) and (one.marker is None or one.marker.evaluate({"extra": extra}))
    ]


def test_without_an_extra_httpx_and_anyio_are_all_it_needs(metadata):
    assert {one.name for one in required_by(metadata, "")} == {"httpx", "anyio"}


def test_what_the_package_imports_is_brought_by_a_dependency_or_an_extra(metadata):
    imported = set()
    for file in (ROOT / "httpx_reauth").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {one.name.split(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                imported.add(node.module.split(".")[0])
    # the last one is for type checkers only
    imported -= {*sys.stdlib_module_names, "httpx_reauth", "typing_extensions"}
    assert imported == set(BROUGHT_BY)
    for module, extra in BROUGHT_BY.items():
        if extra is not None and module != "h11":
            names = {canonicalize_name(one.name) for one in required_by(metadata, extra)}
            assert any(name.startswith(module) for name in names), (module, extra)


# The package, installed in a new environment. The dependencies come from the environment of the tests.


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a new environment with the wheel in it, and return its Python."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, symlinks=os.name != "nt")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run("-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    site = Path(
        run("-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder, python=python)[:-1]
    )
    here = sysconfig.get_paths()
    # The path is appended, so packages of the new environment come first. Its path files are not read.
    (site / "dependencies.pth").write_text(f"{here['purelib']}\n{here['platlib']}\n", encoding="utf-8")
    return python


def test_installed_every_module_is_imported_from_there(installed, metadata, tmp_path):
    code = """
import importlib, importlib.metadata, pathlib, pkgutil, sys
import httpx_reauth

folder = pathlib.Path(httpx_reauth.__file__).parent
assert folder.is_relative_to(sys.prefix), folder
names = [module.name for module in pkgutil.walk_packages([str(folder)], "httpx_reauth.")]
for name in names:
    module = importlib.import_module(name)
    assert pathlib.Path(module.__file__).is_relative_to(folder), name
print(importlib.metadata.version("httpx-reauth"), len(names) + 1)
"""
    said = run("-I", "-W", "error", "-c", code, cwd=tmp_path, python=installed)
    modules = [name for name in sources("httpx_reauth") if name.endswith(".py")]
    assert said.split() == [str(metadata.version), str(len(modules))]


def test_installed_the_first_example_prints_what_the_seed_prints(installed, tmp_path):
    script = tmp_path / "me.py"
    script.write_bytes((ROOT / "examples" / "me.py").read_bytes())
    said = run("-I", script, cwd=tmp_path, python=installed)
    assert said == (ROOT / "tests" / "trace.txt").read_text(encoding="utf-8")


def test_a_release_needs_addresses_that_exist(metadata):
    if not metadata.project_urls and not os.environ.get("RELEASE"):
        pytest.skip("[project.urls] is empty, as the project has no public place yet; a release needs it: RELEASE=1")
    assert set(metadata.project_urls or ()) >= {"Source", "Documentation", "Changelog", "Issues"}
