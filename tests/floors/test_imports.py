"""The floors: imports point down only, and `import httpx_reauth` brings nothing that it does not need."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

import httpx_reauth
from httpx_reauth import _flow

ROOT = Path(httpx_reauth.__file__).parent

FLOORS = {
    "_http": 0,
    "_value": 0,
    "_errors": 0,
    "_answer": 0,
    "_token": 0,
    "_clock": 0,
    "_storage": 0,
    "_actions": 1,
    "_state": 1,
    "_policy": 1,
    "_store": 2,
    "_loops": 2,
    "_flight": 2,
    "_runner": 2,
    "_storage_steps": 3,
    "_adoption": 3,
    "_stored": 3,
    "_renewal": 3,
    "_wait": 3,
    "_errands": 3,
    "_refresher": 3,
    "_origins": 4,
    "_replay": 4,
    "_flow": 4,
    "_snapshot": 4,
    "_alarm": 4,
    "_source": 4,
    "_auth": 4,
    "__init__": 5,
    "httpx2": 5,
}
BESIDE = {"oauth", "storage", "testing", "_pool", "otel"}  # they may import the core; the core never imports them

FILES = sorted(ROOT.rglob("*.py"))
CORE = [file for file in FILES if file.parent == ROOT and file.stem not in BESIDE]


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


class Import(NamedTuple):
    """One imported module: `httpx_reauth`'s own as a path from its root, e.g. `_state`; others by their name."""

    module: str
    is_own: bool
    is_typing: bool  # under `if TYPE_CHECKING`: it never runs
    is_late: bool  # inside of a function


def imports_of(file: Path) -> Iterator[Import]:
    package = file.relative_to(ROOT).parent.parts
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node, is_typing, is_late in statements_of(tree):
        if isinstance(node, ast.Import):
            modules = [one.name.split(".") for one in node.names]
        elif node.level == 0 and (node.module or "").split(".")[0] != "httpx_reauth":
            modules = [(node.module or "").split(".")]
        else:
            modules = [["httpx_reauth", *path] for path in own_modules(node, package)]
        for top, *rest in modules:
            if top == "httpx_reauth":
                yield Import(".".join(rest) or "__init__", is_own=True, is_typing=is_typing, is_late=is_late)
            else:
                yield Import(".".join([top, *rest]), is_own=False, is_typing=is_typing, is_late=is_late)


def statements_of(
    node: ast.AST, *, is_typing: bool = False, is_late: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    """The import statements below `node`; whether each is for types only, and whether inside of a function."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield node, is_typing, is_late
    is_late = is_late or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    for_types = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    for child in ast.iter_child_nodes(node):
        is_body = for_types and isinstance(node, ast.If) and child in node.body
        yield from statements_of(child, is_typing=is_typing or is_body, is_late=is_late)


def own_modules(node: ast.ImportFrom, package: tuple[str, ...]) -> Iterator[list[str]]:
    """The modules of ours that `from ... import ...` names: `from . import _policy` does, `import decide` does not."""
    above = list(package[: len(package) - node.level + 1]) if node.level else []
    where = above + [part for part in (node.module or "").split(".") if part][0 if node.level else 1 :]
    for one in node.names:
        inner = ROOT.joinpath(*where, one.name)
        yield [*where, one.name] if inner.is_dir() or inner.with_suffix(".py").exists() else where


def test_the_reader_of_imports_finds_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "inner").mkdir()
    (tmp_path / "_policy.py").touch()
    (tmp_path / "inner" / "_post.py").touch()
    file = tmp_path / "inner" / "here.py"
    file.write_text(
        "import json, os.path\n"
        "import httpx_reauth\n"
        "import httpx_reauth._policy\n"
        "from httpx_reauth import _policy, Token\n"
        "from httpx_reauth._policy import decide\n"
        "from .. import _policy\n"
        "from .._policy import decide\n"
        "from . import _post\n"
        "from ._post import post\n"
        "if TYPE_CHECKING:\n"
        "    import trio\n"
        "else:\n"
        "    import anyio\n"
        "try:\n"
        "    import redis\n"
        "except ImportError:\n"
        "    pass\n"
        "class A:\n"
        "    import abc\n"
        "    async def f(self):\n"
        "        with self:\n"
        "            from asyncio import run\n"
    )
    own, top = {"is_own": True, "is_typing": False, "is_late": False}, {"is_typing": False, "is_late": False}
    assert list(imports_of(file)) == [
        Import("json", False, **top),
        Import("os.path", False, **top),
        Import("__init__", **own),
        Import("_policy", **own),
        Import("_policy", **own),
        Import("__init__", **own),
        Import("_policy", **own),
        Import("_policy", **own),
        Import("_policy", **own),
        Import("inner._post", **own),
        Import("inner._post", **own),
        Import("trio", False, is_typing=True, is_late=False),
        Import("anyio", False, **top),
        Import("redis", False, **top),
        Import("abc", False, **top),
        Import("asyncio", False, is_typing=False, is_late=True),
    ]


def test_every_module_of_the_core_has_a_floor():
    assert {file.stem for file in CORE} == set(FLOORS)


def test_everything_else_stands_beside_the_core():
    assert {name_of(file).split(".")[0] for file in FILES if file not in CORE} <= BESIDE


@pytest.mark.parametrize("file", CORE, ids=name_of)
def test_imports_point_down_only(file: Path):
    for one in imports_of(file):
        if one.is_own and one.module.split(".")[0] not in BESIDE:
            assert FLOORS[one.module] <= FLOORS[file.stem], f"{file.stem} imports {one.module}"
            assert one.module != file.stem


def test_on_one_floor_imports_go_in_no_circle():
    graph = {file.stem: {one.module for one in imports_of(file) if one.is_own and not one.is_typing} for file in CORE}
    list(TopologicalSorter(graph).static_order())  # CycleError, else


@pytest.mark.parametrize("file", CORE, ids=name_of)
def test_the_core_imports_nothing_that_stands_beside_it(file: Path):
    beside = {one for one in imports_of(file) if one.is_own and one.module.split(".")[0] in BESIDE}
    if file.stem == "__init__":  # it names the pool, and imports it when somebody asks for it
        beside = {one for one in beside if one.module != "_pool" or not one.is_typing}
    assert not beside


@pytest.mark.parametrize("file", CORE, ids=name_of)
def test_the_core_knows_no_http_client_but_in_its_two_faces(file: Path):
    foreign = {one.module.split(".")[0] for one in imports_of(file) if not one.is_own and not one.is_typing}
    foreign -= set(sys.stdlib_module_names)
    assert foreign == {"__init__": {"httpx"}, "httpx2": {"httpx2"}, "_loops": {"anyio"}}.get(file.stem, set())


@pytest.mark.parametrize("file", CORE, ids=name_of)
def test_the_pure_floors_do_no_io_and_read_no_clock(file: Path):
    if FLOORS[file.stem] > 1:
        return
    banned = {"threading", "asyncio", "anyio", "socket", "time", "random", "os", "logging"}
    if file.stem == "_clock":
        banned -= {"time"}  # the one place that reads it
    assert not {one.module.split(".")[0] for one in imports_of(file)} & banned


@pytest.mark.parametrize("file", [file for file in FILES if not name_of(file).startswith("testing.")], ids=name_of)
def test_asyncio_and_trio_are_never_imported_at_a_modules_top(file: Path):
    top = {one.module.split(".")[0] for one in imports_of(file) if not one.is_typing and not one.is_late}
    assert not top & {"asyncio", "trio", "sniffio"}


def test_the_test_kit_imports_neither_trio_nor_httpx2_nor_respx_at_a_modules_top():
    kit = [file for file in FILES if name_of(file).startswith("testing.")]
    assert kit
    for file in kit:
        top = {one.module.split(".")[0] for one in imports_of(file) if not one.is_typing and not one.is_late}
        assert not top & {"trio", "httpx2", "respx"}, name_of(file)


def imported_by(code: str) -> set[str]:
    """What `code` imports in a new interpreter."""
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=60)
    return set(json.loads(done.stdout))


def test_import_httpx_reauth_brings_no_event_loop_and_no_other_package():
    before = imported_by("import httpx, anyio")
    brought = imported_by("import httpx_reauth") - before
    assert {"httpx_reauth", "httpx_reauth._auth"} <= brought
    backends = {name for name in brought if name.startswith("anyio._backends")}
    assert not backends
    assert not brought & {
        "asyncio",
        "trio",
        "httpx2",
        "respx",
        "sniffio",
        "redis",
        "keyring",
        "cryptography",
        "opentelemetry",
    }
    beside = tuple(f"httpx_reauth.{name}" for name in BESIDE)
    assert not {name for name in brought if name.startswith((*beside, "httpx_reauth.httpx2"))}
    others = {name.split(".")[0] for name in brought} - {"httpx_reauth"} - set(sys.stdlib_module_names)
    assert not others


def test_the_face_for_httpx2_brings_httpx2():
    pytest.importorskip("httpx2")
    brought = imported_by("import httpx_reauth.httpx2")
    assert "httpx2" in brought
    assert not brought & {"respx", "trio"}


def test_a_type_checkers_imports_are_not_needed_to_run():
    assert "typing_extensions" not in imported_by("import httpx_reauth") - imported_by("import httpx, anyio")


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_module_is_longer_than_250_lines(file: Path):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 250


@pytest.mark.parametrize("file", CORE, ids=name_of)
def test_a_module_opens_with_one_sentence_that_names_its_floor(file: Path):
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert doc is not None
    opening = doc.split("\n\n")[0]
    assert re.search(rf"\(floor {FLOORS[file.stem]}\b", opening), opening


# Docstrings.

PUBLIC = [
    "httpx_reauth",
    "httpx_reauth.httpx2",
    "httpx_reauth.oauth",
    "httpx_reauth.otel",
    "httpx_reauth.storage",
    "httpx_reauth.testing",
]


def public_modules() -> Iterator[ModuleType]:
    for name in PUBLIC:
        if name == "httpx_reauth.storage" and not list(ROOT.glob("storage*")):
            continue
        if name == "httpx_reauth.httpx2":
            try:
                importlib.import_module("httpx2")
            except ImportError:
                continue
        yield importlib.import_module(name)


PUBLIC_NAMES = {
    f"{module.__name__}.{name}": getattr(module, name) for module in public_modules() for name in module.__all__
}
CLASSES = {name: one for name, one in PUBLIC_NAMES.items() if inspect.isclass(one)}
CONSTRUCTED = {
    name: cls
    for name, cls in CLASSES.items()
    if not (issubclass(cls, Exception) or getattr(cls, "_is_protocol", False) or name == "httpx_reauth.httpx2.Reauth")
    and (not name.startswith("httpx_reauth.testing.") or name.endswith(("AuthorizationServer", "ManualClock")))
}


def own_classes(cls: type) -> list[type]:
    return [base for base in cls.__mro__ if base.__module__.startswith("httpx_reauth")]


def test_what_is_public_is_sorted_and_there():
    assert set(httpx_reauth.__all__) <= set(dir(httpx_reauth))  # the pool, too, which is imported when it is wanted
    for module in public_modules():
        assert module.__all__ == sorted(module.__all__)
        assert module.__doc__


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_every_public_name_has_a_docstring_of_its_own(name: str):
    one = PUBLIC_NAMES[name]
    if not (inspect.isclass(one) or inspect.isroutine(one) or inspect.ismodule(one)):
        return  # an alias of a type
    doc = one.__dict__.get("__doc__") if inspect.isclass(one) else one.__doc__
    assert doc, name
    assert not (is_dataclass(one) and doc.startswith(f"{one.__name__}("))  # the one that dataclass makes
    assert re.match(r"[A-Z`]", doc)


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_method_and_property_has_a_docstring(name: str):
    for member_name, member in [pair for cls in own_classes(CLASSES[name]) for pair in vars(cls).items()]:
        is_method = inspect.isroutine(member) or isinstance(member, (property, classmethod, staticmethod))
        if is_method and not member_name.startswith(("_", "test_")):  # the name of a test is its sentence
            assert getattr(member, "__func__", member).__doc__, f"{name}.{member_name}"


def public_functions() -> Iterator[tuple[str, object]]:
    for name, one in PUBLIC_NAMES.items():
        if inspect.isroutine(one):
            yield name, one
        elif inspect.isclass(one):
            yield name, one
            for member_name, member in [pair for cls in own_classes(one) for pair in vars(cls).items()]:
                function = getattr(member, "__func__", getattr(member, "fget", member))
                is_public = member_name == "__init__" or not member_name.startswith("_")
                if inspect.isfunction(function) and is_public and not hasattr(_flow.Auth, member_name):
                    yield f"{name}.{member_name}", function


OF_OTHERS = {"httpx_reauth.otel.instrument", "httpx_reauth.testing.AuthorizationServer.mock"}  # whose types cannot
HINTED = {name: one for name, one in public_functions() if name not in OF_OTHERS}


if sys.version_info < (3, 11):  # which cannot read the `_: KW_ONLY` of a dataclass
    HINTED = {name: one for name, one in HINTED.items() if not name.startswith("httpx_reauth.oauth")}


@pytest.mark.parametrize("name", HINTED)
def test_the_annotations_of_what_is_public_can_be_read_at_run_time(name: str):
    typing.get_type_hints(HINTED[name])  # as libraries do that inject or document; NameError, else


@pytest.mark.parametrize("name", CONSTRUCTED)
def test_the_docstring_of_a_public_class_names_every_argument(name: str):
    cls = CONSTRUCTED[name]
    doc = "\n".join(one.__doc__ or "" for one in own_classes(cls))
    private = {one.name for one in fields(cls) if not one.repr} if is_dataclass(cls) else set()
    for argument in set(inspect.signature(cls).parameters) - private:
        assert re.search(rf"\b{argument}\b", doc), argument


def test_the_face_for_httpx2_refers_to_the_other_for_its_arguments():
    if "httpx_reauth.httpx2.Reauth" in CLASSES:
        face, other = CLASSES["httpx_reauth.httpx2.Reauth"], CLASSES["httpx_reauth.Reauth"]
        assert "`httpx_reauth.Reauth`" in (face.__doc__ or "")
        assert inspect.signature(face) == inspect.signature(other)
