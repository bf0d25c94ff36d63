"""Reads the package as source text: its modules, what they import and when, and which functions drive generators."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "httpx_reauth"
ROOT = Path(__file__).parents[2] / PACKAGE
# The parts beside the core. They may use the core, and the core works without them.
BESIDE = ("oauth", "signin", "storage", "testing", "identity", "otel")


@dataclass(frozen=True)
class Module:
    """One module of the package.

    Attributes:
        name: the name by which it is imported.
        lines: the number of its lines.
        code: the number of its lines that are neither empty nor comment nor docstring.
        tree: its syntax.
        imports: our modules that are imported with it.
        inner_imports: our modules that are imported inside of functions, one entry for each import statement.
    """

    name: str
    lines: int
    code: int
    tree: ast.Module
    imports: frozenset[str]
    inner_imports: tuple[str, ...]


def entries() -> list[str]:
    """Return the files and folders of the package, without `py.typed`."""
    return sorted(one.name for one in ROOT.iterdir() if one.name not in {"py.typed", "__pycache__"})


def modules(*, core_only: bool = False) -> dict[str, Module]:
    """Return the modules by name."""
    paths = [path for path in sorted(ROOT.rglob("*.py")) if not core_only or _top(path) not in BESIDE]
    return {_name(path): _read(path) for path in paths}


def circles(known: dict[str, Module]) -> list[list[str]]:
    """Return the groups of modules that import one another when they are imported."""
    graph = {name: [one for one in module.imports if one in known] for name, module in known.items()}
    reached = {name: _reachable(graph, name) for name in graph}
    groups = {frozenset({name, *(one for one in reached[name] if name in reached[one])}) for name in graph}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def drivers(known: Iterable[Module]) -> list[str]:
    """Return the functions that send or throw something into a generator in a loop, i.e. that drive one to its end."""
    return sorted(
        f"{module.name}.{function.name}"
        for module in known
        for function in ast.walk(module.tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        and any(
            _drives(node) for loop in _own_nodes(function) if isinstance(loop, ast.While) for node in ast.walk(loop)
        )
    )


def _looped_nodes(function: ast.AST) -> Iterator[ast.AST]:
    for loop in _own_nodes(function):
        if isinstance(loop, ast.While):
            yield from ast.walk(loop)


def _drives(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"send", "throw"}


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """Return the nodes of a function, without those of the functions inside it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from _own_nodes(child)


def _reachable(graph: dict[str, list[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for name in graph[todo.pop()]:
            if name not in seen:
                seen.add(name)
                todo.append(name)
    return seen


def _top(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _name(path: Path) -> str:
    parts = (PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def _read(path: Path) -> Module:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    outer = [name for node in _at_import(tree) for name in _imported(node)]
    inner = [
        name
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in _own_nodes(function)
        for name in (*_imported(node), *_imported_by_name(node))[:1]
    ]
    return Module(_name(path), len(text.splitlines()), _code_lines(text, tree), tree, frozenset(outer), tuple(inner))


def _code_lines(text: str, tree: ast.Module) -> int:
    prose: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(
            node
        ):
            first = node.body[0]
            prose.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") and n not in prose for n, line in lines)


def _at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Return the nodes that run when the module is imported, without those that only a type checker reads."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _at_import(child)


def _imported(node: ast.AST) -> list[str]:
    """Return our modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE]
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
        assert node.module is not None
        below = [f"{node.module}.{alias.name}" for alias in node.names]
        here = [name for name in below if (ROOT.parent / name.replace(".", "/")).with_suffix(".py").is_file()]
        here += [name for name in below if (ROOT.parent / name.replace(".", "/")).is_dir()]
        return here if len(here) == len(below) else [node.module, *here]
    return []


def _imported_by_name(node: ast.AST) -> list[str]:
    """Return our module that a call of `import_module` names."""
    is_it = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "import_module"
    if not is_it or not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
        return []
    name = str(node.args[0].value)
    return [name] if name.startswith(PACKAGE) else []
