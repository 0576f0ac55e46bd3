"""Names of packages, imported when the first of them is asked for."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("qsched_core", "qsched_core.quant", "calibration")


@pytest.mark.parametrize("name", PACKAGES)
def test_the_two_lists_are_one_and_no_name_is_a_files(name):
    """A function `quantize` in a file `quantize.py` was the function or the file, by what was imported before."""
    package, public = importlib.import_module(name), importlib.import_module(f"{name}.public")
    imported = [key for key in vars(public) if key[0] != "_" and key != "annotations"]
    assert package.__all__ == sorted(imported)
    assert [key for key in package.__all__ if getattr(package, key) is not getattr(public, key)] == []
    files = {path.stem for path in Path(package.__file__).parent.iterdir()}
    assert files.intersection(package.__all__) == set()


@pytest.mark.parametrize("name", PACKAGES)
def test_another_name_is_refused(name):
    with pytest.raises(AttributeError, match="has no attribute 'quantum'"):
        _ = importlib.import_module(name).quantum


def test_a_file_is_loaded_without_the_others_and_all_of_them_without_diffusers():
    """Files import each other while they are loaded: none of that may ask for the whole package."""
    code = """
import sys
sys.modules["diffusers"] = None
loaded = lambda: sorted(name for name in sys.modules if name.startswith("qsched_core."))
from qsched_core import PresetError
assert loaded() == ["qsched_core.errors"], loaded()
import qsched_core.quant.layers
assert not [name for name in loaded() if name.endswith(".public")], loaded()
import qsched_core as qs
assert qs.quantize is qs.quant.quantize
import qsched_core.diffusers
"""
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
