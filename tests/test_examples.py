"""The examples run as a newcomer would run them: as scripts, in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*argv: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, *argv], cwd=ROOT, capture_output=True, timeout=60, check=False)


def test_the_first_example_prints_what_the_seed_prints_byte_for_byte():
    done = run("examples/me.py")
    assert done.stderr == b""
    assert done.stdout.replace(b"\r\n", b"\n") == (ROOT / "tests" / "trace.txt").read_bytes()
