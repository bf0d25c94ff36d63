"""The examples, by their names: run as a script is run, or loaded so that a test can take a part of one."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def run(name: str, monkeypatch) -> None:
    """What `python examples/NAME.py` does, in this process: to start another costs more than all else."""
    monkeypatch.setattr(sys, "argv", [f"examples/{name}.py"])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def load(name: str) -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where annotations are looked up
    spec.loader.exec_module(module)
    return module
