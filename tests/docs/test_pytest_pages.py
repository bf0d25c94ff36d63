"""Tests of the pytest fixtures on the page on testing: its files are written to a folder, and pytest runs there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pages import ROOT, Block, blocks_of


def files_of(name: str) -> list[Block]:
    return [block for block in blocks_of(ROOT / "docs" / "testing.md") if block.file == name]


def test_the_tests_of_the_page_pass_with_its_first_conftest(tmp_path: Path):
    conftest, *_ = files_of("conftest.py")
    (tests,) = files_of("test_client.py")
    (tmp_path / "conftest.py").write_text(conftest.code, encoding="utf-8")
    (tmp_path / "test_client.py").write_text(tests.code, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stdout
    assert "2 passed" in ran.stdout
