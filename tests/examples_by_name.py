"""Runs an example as a script, or loads it as a module, so that a test can use a part of it."""

from __future__ import annotations

import importlib.util
import logging
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def run(name: str, monkeypatch) -> None:
    """Run `examples/NAME.py` as a script, but in this process: to start a new process would take much longer."""
    monkeypatch.setattr(sys, "argv", [f"examples/{name}.py"])
    with handlers_kept():
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def load(name: str) -> ModuleType:
    """Import the example, and return the module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # `get_type_hints` looks for the module here
    with handlers_kept():
        spec.loader.exec_module(module)
    return module


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore the handlers of the library's logger at the end of the block, because the process runs more tests."""
    logger = logging.getLogger("httpx_reauth")
    before = logger.handlers[:]
    try:
        yield
    finally:
        logger.handlers[:] = before
