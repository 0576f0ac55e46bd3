"""Files of tests as modules: importlib mode does not put their folders on sys.path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def module_at(path: Path) -> ModuleType:
    """A new module of that file. It is in sys.modules too, where its dataclasses look for themselves."""
    spec = importlib.util.spec_from_file_location(f"qsched_tests_{path.parent.name}_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def beside(file: str, name: str) -> ModuleType:
    """The module ``name`` in the folder of a test file, which says ``__file__``."""
    return module_at(Path(file).with_name(f"{name}.py"))
