"""Benchmarks and scripts that no test runs whole: every call fits what it calls.

A function that was renamed, or that takes its arguments in another way since, is found here and not on the day when the
figures are made anew. Only calls of things of a file's own or of what it imports are looked at.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("benchmarks", "calibration", "demo", "qsched_core", "scripts")
FILES = sorted(path for folder in ("benchmarks", "scripts") for path in (ROOT / folder).rglob("*.py"))
MISSING = object()


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.Module, path: Path) -> Iterator[tuple[str, int, Any]]:
    """(name, line, what it stands for) of everything that the file imports from us, inside of functions too."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            if source.split(".")[0] in OURS:
                module = importlib.import_module(source)
                for alias in node.names:
                    thing = getattr(module, alias.name, MISSING)
                    if thing is MISSING and importlib.util.find_spec(f"{source}.{alias.name}"):
                        thing = importlib.import_module(f"{source}.{alias.name}")
                    yield alias.asname or alias.name, node.lineno, thing


def local_names(tree: ast.Module) -> set[str]:
    """Names that a function binds: they may stand for anything."""
    names = set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.Lambda):
            names |= {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.add(node.id)
                elif isinstance(node, ast.FunctionDef) and node is not function:
                    names.add(node.name)
    return names


def what_is_called(node: ast.expr, scope: dict[str, Any]) -> Any:
    """What a name or an attribute of a module of ours stands for; None: nothing that is known here."""
    if isinstance(node, ast.Name):
        return scope.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = what_is_called(node.value, scope)
        if inspect.ismodule(owner) and owner.__name__.split(".")[0] in OURS:
            return getattr(owner, node.attr, MISSING)
    return None


def misfits(path: Path, own_names: dict[str, Any]) -> Iterator[str]:
    """``own_names``: what the names of the file's module stand for."""
    tree = ast.parse(path.read_text("utf-8"))
    bound, scope = local_names(tree), dict(own_names)
    for name, line, thing in imports(tree, path):
        if thing is MISSING:
            yield f"{path.name}:{line} imports {name}, which is not there"
        scope[name] = thing
    scope = {name: thing for name, thing in scope.items() if name not in bound}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = what_is_called(node.func, scope)
        if function is MISSING:
            yield f"{path.name}:{node.lineno} calls {ast.unparse(node.func)}, which is not there"
        elif getattr(function, "__module__", "").split(".")[0] in OURS and callable(function):
            if reason := misfit(node, function):
                yield f"{path.name}:{node.lineno} {ast.unparse(node.func)}: {reason}"


def misfit(node: ast.Call, function: Any) -> str:
    """Why the arguments do not fit, or nothing. Where some are spread from a list, the others are tried alone."""
    spread = any(isinstance(argument, ast.Starred) for argument in node.args) or any(
        keyword.arg is None for keyword in node.keywords
    )
    arguments = [None for argument in node.args if not isinstance(argument, ast.Starred)]
    keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg is not None}
    try:
        signature = inspect.signature(function)
        if spread:
            signature.bind_partial(**keywords)
        else:
            signature.bind(*arguments, **keywords)
    except TypeError as error:
        return str(error)
    except ValueError:  # a class of C: it has no signature
        pass
    return ""


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_call_fits_what_it_calls(path):
    if path.name == "plots.py" and path.parent.name == "benchmarks":
        pytest.importorskip("matplotlib")
    assert list(misfits(path, vars(importlib.import_module(module_name(path))))) == []


def test_a_call_that_does_not_fit_is_found(tmp_path, monkeypatch):
    (tmp_path / "benchmarks").mkdir()
    file = tmp_path / "benchmarks" / "torn.py"
    file.write_text(
        "from calibration import Settings, nothing_of_this_name\n"
        "from qsched_core import coefficients\n"
        "Settings(trials=2)\n"
        "Settings(tries=2)\n"
        "coefficients.no_such_function(1)\n"
        "module_name(1, 2)\n",
        "utf-8",
    )
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    monkeypatch.setattr(module_name, "__module__", "benchmarks.torn")
    starts = ["torn.py:1 imports ", "torn.py:4 Settings: ", "torn.py:5 calls ", "torn.py:6 module_name: "]
    texts = list(misfits(file, {"module_name": module_name}))
    assert [text[: len(start)] for text, start in zip(texts, starts, strict=True)] == starts
