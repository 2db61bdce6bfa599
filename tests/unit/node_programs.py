"""Loads a program that runs on nodes, and has no ending to its name, as a module."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def program(path: str) -> Any:
    """The program at this path of the project; it finds its own neighbours as it does on a node."""
    file = ROOT / path
    sys.path.insert(0, str(file.parent))
    try:
        loader = importlib.machinery.SourceFileLoader(file.name.replace("-", "_"), str(file))
        spec = importlib.util.spec_from_loader(loader.name, loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(file.parent))
