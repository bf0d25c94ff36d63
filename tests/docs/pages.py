"""Reads the documents for the tests: pages, their fenced blocks, headings and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
STAND_INS = Path(__file__).parent / "stand_ins"
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "examples" / "README.md", *(ROOT / "docs").rglob("*.md")]
)

_FILE = re.compile(r"# (?P<continues>continues )?(?P<name>[\w/]+\.py)\n")
_BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int  # the number of its first line of code, counted from 1
    language: str
    code: str

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"

    @property
    def file(self) -> str | None:
        """Return the file that the block says it is, in a first line like `# app.py`."""
        named = _FILE.match(self.code)
        return named["name"] if named and not named["continues"] else None

    @property
    def continues(self) -> str | None:
        """Return the file of the same page that this block continues, by a first line like `# continues app.py`."""
        named = _FILE.match(self.code)
        return named["name"] if named and named["continues"] else None

    def run(self, names: dict[str, object]) -> None:
        """Run the block as if the page were a module. A traceback shows the page's own lines."""
        code = "\n" * (self.line - 1) + self.code
        names.setdefault("__name__", "a_page")
        exec(compile(code, str(self.page), "exec", dont_inherit=True), names)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks_of(page: Path) -> list[Block]:
    text = text_of(page)
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(_BLOCK.findall(text)), f"{page}: an open block"
    return [
        Block(page, text.count("\n", 0, one.start("code")) + 1, one["language"].strip(), one["code"])
        for one in _BLOCK.finditer(text)
    ]


def program_of(block: Block) -> list[Block]:
    """Return the blocks of one program: those that `block` says it continues, and `block` itself."""
    if block.continues is None:
        return [block]
    before = [one for one in blocks_of(block.page) if one.language == "python" and one.line < block.line]
    first = [one for one in before if one.file == block.continues]
    assert len(first) == 1, f"{block}: there is no block before it that begins with `# {block.continues}`"
    return [*first, *(one for one in before if one.continues == block.continues), block]


def prose_of(page: Path) -> str:
    """Return the page without its fenced blocks and without code between backquotes."""
    return re.sub(r"`[^`\n]*`", "``", _BLOCK.sub("", text_of(page)))


def links_of(page: Path) -> list[str]:
    return _LINK.findall(prose_of(page))


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that a Markdown viewer gives to the headings."""
    return {_slug(heading) for _, heading in _HEADING.findall(_BLOCK.sub("", text_of(page)))}


def _slug(heading: str) -> str:
    heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")
