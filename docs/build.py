"""Build the site: `python docs/build.py [FOLDER]`. It needs the dependency group `docs`, and asks no other host.

The pages are read where they lie. On the way to the site:

1. README.md, docs/README.md, CHANGELOG.md and examples/README.md become pages, and links between pages follow them.
2. A link to a file that is no page (an example, a test) becomes its text, as the project has no public address yet.
3. Each public module gets a page of the reference, with every name of its `__all__`.
4. `llms.txt` lists all pages, and each page lies beside its HTML as Markdown.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The pages that have another name on the site.
RENAMED = {
    "README.md": "index.md",
    "docs/README.md": "contents.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
}

MODULES = (
    "httpx_reauth",
    "httpx_reauth.httpx2",
    "httpx_reauth.oauth",
    "httpx_reauth.signin",
    "httpx_reauth.identity",
    "httpx_reauth.storage",
    "httpx_reauth.otel",
    "httpx_reauth.testing",
    "httpx_reauth.testing.faults",
    "httpx_reauth.testing.pytest",
)

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r"^- \[([^\]]+)\]\(([\w-]+\.md)\)(.*)$", re.MULTILINE)

# All that a build without a warning says.
_UNEXPECTED = re.compile(r"^(?!Build started|Build finished|No issues found|$)", re.MULTILINE)


def pages() -> dict[str, str]:
    """The name on the site of each page, by its path in the repository."""
    docs = {path.relative_to(ROOT).as_posix(): path.name for path in sorted((ROOT / "docs").glob("*.md"))}
    return {**docs, **RENAMED}


def page_of(path: str) -> str:
    """The text of a page as it is on the site."""
    names = pages()
    here = (ROOT / path).parent

    def link(found: re.Match[str]) -> str:
        image, text, target = found.groups()
        name, _, anchor = target.partition("#")
        if not name or "://" in name:
            return found[0]
        there = Path(os.path.normpath(here / name)).relative_to(ROOT).as_posix()
        if there in names:
            return f"[{text}]({names[there]}{'#' * bool(anchor)}{anchor})"
        return f"![{text}]({Path(there).name})" if image else text

    text = (ROOT / path).read_text(encoding="utf-8")
    parts, end = [], 0
    for fence in _FENCE.finditer(text):  # code is left as it is
        parts += [_LINK.sub(link, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(link, text[end:])])


def names_of(module: str) -> list[str]:
    """The `__all__` of a module, read without an import: it may need a package that is not installed."""
    path = ROOT / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    raise SystemExit(f"{path} has no __all__")


def reference_of(module: str) -> str:
    """The page of a public module: what it says of itself, and all of its names."""
    modules = [name for name in names_of(module) if f"{module}.{name}" in MODULES]
    names = [name for name in names_of(module) if name not in modules]
    head = f"# {module}\n\n::: {module}\n    options:\n      members: false\n      show_root_heading: false\n"
    beside = [f"[`{name}`]({module}.{name}.md) has a page of its own.\n" for name in modules]
    return "\n".join([head, *beside, *(f"::: {module}.{name}" for name in names), ""])


def contents() -> str:
    """llms.txt: what the project is, and where each page lies as Markdown."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    title, summary = readme.split("\n\n")[:2]
    lines = [title, "", f"> {' '.join(summary.split())}", "", "## Pages", ""]
    for text, target, rest in _ENTRY.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8")):
        lines.append(f"- [{text}]({target}){rest}")
    lines += ["- [What changed](changelog.md)", "- [Examples](examples.md)", "", "## Reference", ""]
    lines += [f"- [{module}](reference/{module}.html)" for module in MODULES]
    return "\n".join([*lines, ""])


def build(folder: Path) -> str:
    """Build the site into `folder`, and return what the builder says. A warning ends it."""
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        docs = work / "docs"
        (docs / "reference").mkdir(parents=True)
        shutil.copy(ROOT / "mkdocs.yml", work)
        (work / "httpx_reauth").symlink_to(ROOT / "httpx_reauth", target_is_directory=True)
        for path, name in pages().items():
            (docs / name).write_text(page_of(path), encoding="utf-8")
        for image in (ROOT / "docs").glob("*.svg"):
            shutil.copy(image, docs)
        for module in MODULES:
            (docs / "reference" / f"{module}.md").write_text(reference_of(module), encoding="utf-8")
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if done.returncode or _UNEXPECTED.search(said):  # `--strict` does not count what is wrong with a docstring
            raise SystemExit(said)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(work / "site", folder)
        for name in pages().values():
            shutil.copy(docs / name, folder)
    (folder / "llms.txt").write_text(contents(), encoding="utf-8")
    return said


if __name__ == "__main__":
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "site"))
