"""Small faults put into source text: what ``scripts/mutate.py`` asks the tests to notice.

A mutant is one replaced piece of one file. Texts, annotations and imports are left alone; the order of a call's first
two arguments is not, so an error whose message and fix change places is a mutant as well.
"""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}  # fmt: skip

SYMMETRIC = {"min", "max", "isinstance", "issubclass", "getattr", "hasattr", "print", "zip"}
"""Calls whose first two arguments are not swapped: the same answer, or an error at once."""


@dataclass(frozen=True)
class Mutant:
    """``new`` in place of the characters ``begin`` to ``end`` of ``file``; ``function`` is the name of the
    innermost function around it, empty outside of all."""

    file: str
    line: int
    function: str
    begin: int
    end: int
    old: str
    new: str

    def applied(self, text: str) -> str:
        return f"{text[: self.begin]}{self.new}{text[self.end :]}"

    @property
    def key(self) -> str:
        """Also tells apart two equal pieces of one line."""
        return f"{self.file}:{self.line}: {self.old} -> {self.new} @{self.begin}"


def python_files(root: Path, places: Iterable[str]) -> list[str]:
    """Every Python file of some folders and files, by its path below the root."""
    paths: list[Path] = []
    for place in places:
        paths += (root / place).rglob("*.py") if (root / place).is_dir() else [root / place]
    return sorted({path.relative_to(root).as_posix() for path in paths})


def sample(root: Path, places: Iterable[str], count: int, seed: int) -> list[Mutant]:
    """``count`` different mutants of folders or files, drawn with a seed, in the order they were drawn."""
    texts = {file: (root / file).read_text("utf-8") for file in python_files(root, places)}
    every = [mutant for file, text in texts.items() for mutant in mutants(file, text)]
    random.Random(seed).shuffle(every)
    compiled = (mutant for mutant in every if _compiles(mutant.applied(texts[mutant.file])))
    return list(islice(compiled, count))


def mutants(file: str, text: str) -> list[Mutant]:
    """Every mutant of a source text; a few may not compile."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    lines = text.splitlines()

    def offset(line: int, column: int) -> int:  # ast counts bytes
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    result = []
    for node, function in _nodes(ast.parse(text)):
        begin, end = offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset)
        old = text[begin:end]
        for new in dict.fromkeys(_variants(node)):
            if new != old:
                result.append(Mutant(file, node.lineno, function, begin, end, old, new))
    return result


def _nodes(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """(node, name of the function around it) of everything that is looked at for mutants."""
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        node, function = waiting.pop()
        if isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom)) or _is_text(node):
            continue
        if isinstance(node, (ast.stmt, ast.expr)):
            yield node, function
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = node.name
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "bases"):
                continue
            children = value if isinstance(value, list) else [value]
            waiting += [(child, function) for child in children if isinstance(child, ast.AST)]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _variants(node: ast.AST) -> Iterable[str]:
    kind = next((kind for kind in _BY_KIND if isinstance(node, kind)), None)
    return [] if kind is None else _BY_KIND[kind](node)


def _compare(node: ast.Compare) -> Iterator[str]:
    if len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        yield _with(node, ops=[COMPARISONS[type(node.ops[0])]()])


def _arithmetic(node: ast.BinOp) -> Iterator[str]:
    if type(node.op) in ARITHMETIC and not isinstance(node.left, (ast.JoinedStr, ast.List)):
        yield _with(node, op=ARITHMETIC[type(node.op)]())


def _boolean(node: ast.BoolOp) -> Iterator[str]:
    yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())


def _unary(node: ast.UnaryOp) -> Iterator[str]:
    if isinstance(node.op, (ast.Not, ast.USub)):
        yield f"({ast.unparse(node.operand)})"


def _constant(node: ast.Constant) -> Iterator[str]:
    if isinstance(node.value, bool):
        yield str(not node.value)
    elif isinstance(node.value, (int, float)):
        yield repr(node.value + 1)


def _call(node: ast.Call) -> Iterator[str]:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    plain = not any(isinstance(argument, ast.Starred) for argument in node.args[:2])
    if len(node.args) >= 2 and plain and name not in SYMMETRIC:
        yield _with(node, args=[node.args[1], node.args[0], *node.args[2:]])


def _choice(node: ast.IfExp) -> Iterator[str]:
    yield _with(node, body=node.orelse, orelse=node.body)


def _returned(node: ast.Return) -> Iterator[str]:
    if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
        yield "return None"


def _removed(node: ast.stmt) -> Iterator[str]:
    yield "pass"


def _jump(node: ast.stmt) -> Iterator[str]:
    yield "break" if isinstance(node, ast.Continue) else "continue"


_BY_KIND: dict[type[ast.AST], Callable[..., Iterable[str]]] = {
    ast.Compare: _compare, ast.BinOp: _arithmetic, ast.BoolOp: _boolean, ast.UnaryOp: _unary, ast.Constant: _constant,
    ast.Call: _call, ast.IfExp: _choice, ast.Return: _returned, ast.Expr: _removed, ast.AugAssign: _removed,
    ast.Raise: _removed, ast.Break: _jump, ast.Continue: _jump,
}  # fmt: skip


def _with(node: ast.expr, **changes: object) -> str:
    other = copy.copy(node)
    for name, value in changes.items():
        setattr(other, name, value)
    return f"({ast.unparse(other)})"


def _compiles(text: str) -> bool:
    try:
        compile(text, "mutant", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True
