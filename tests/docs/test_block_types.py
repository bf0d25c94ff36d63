"""Tests that every Python block of the documents is well typed.

Pyright checks all of them in one run, in strict mode.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PAGES, STAND_INS, blocks_of, name_of, program_of

SETTINGS = {
    "typeCheckingMode": "strict",
    "pythonVersion": "3.10",
    "extraPaths": [str(STAND_INS)],
}


@pytest.mark.skipif(importlib.util.find_spec("pyright") is None, reason="pyright comes with the group `lint`")
def test_every_python_block_passes_pyright_strict(tmp_path: Path):
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(SETTINGS))
    blocks = [block for page in PAGES for block in blocks_of(page) if block.language == "python"]
    for block in blocks:
        name = f"{name_of(block.page).replace('/', '_').removesuffix('.md')}_{block.line}.py"
        (tmp_path / name).write_text("".join(part.code for part in program_of(block)), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "pyright", "--project", str(tmp_path), "--pythonpath", sys.executable, "--outputjson"],
        capture_output=True,
        timeout=240,
        check=False,
        text=True,
    )
    found = json.loads(ran.stdout)
    assert found["summary"]["filesAnalyzed"] == len(blocks)
    complaints = [
        f"{Path(one['file']).name}:{one['range']['start']['line'] + 1}: {one['message']}"
        for one in found["generalDiagnostics"]
    ]
    assert not complaints, "\n".join(complaints)
