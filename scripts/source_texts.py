"""What the pack's Python can say to a person on a page, read from its source: errors, and lines of reports."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from .layout import ROOT

ENTRY = "nodes/__init__.py"
"""What the host imports. A file that is not imported from there, one from the other, says nothing on a page: the
command line, for example."""

PLACE = re.compile(r"\{(\d+)\}")
"""A hole of a sentence as catalogues write it."""

_HOLE = "\0"
_DEEPEST = 8
"""Names that stand for names, and functions that call functions, are followed so far."""

_MOST_VARIANTS = 64
"""Of one text with "step{'s' * (count != 1)}" and the like in it."""

_WORDS = re.compile(r"[A-Za-z]{2,}[^A-Za-z]* .*[A-Za-z]{2,}")
_WORD_OF_A_SENTENCE = re.compile(r" [\w'-]*[A-Za-z]{2,}|[A-Za-z]{3,}[\w'-]*[,;:]? ")
"""In an f-string a blank tells a word from a part of a name."""

_FIELD = re.compile(r"\{[^{}]*\}")
_UNSEEN_CALLS = frozenset(
    {"warning", "info", "debug", "error", "exception", "print", "compile", "fullmatch", "search", "Input", "Output"}
)
_UNSEEN_FUNCTIONS = frozenset({"define_schema", "extra_repr"})
_CANVAS_CLASSES = frozenset({"Canvas", "ImageDraw"})


@dataclass(frozen=True)
class Said:
    """A text, its holes as {0}, {1}, …, and where it stands."""

    text: str
    place: str


def page_files(root: Path = ROOT) -> list[Path]:
    """The Python files that the host's entry imports, one from the other, sorted."""
    files: set[Path] = set()
    waiting = [root / ENTRY]
    while waiting:
        path = waiting.pop()
        if path not in files:
            files.add(path)
            waiting += _imported(path)
    return sorted(files)


def error_kinds(root: Path = ROOT) -> frozenset[str]:
    """Names of our classes of errors."""
    tree = ast.parse((root / "qsched_core" / "errors.py").read_text("utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.ClassDef))


def numbered(text: str) -> str:
    """ "{0} is not in {1}." of a text with holes, its blanks and line feeds as one blank."""
    count = itertools.count()
    return re.sub(_HOLE, lambda _: f"{{{next(count)}}}", " ".join(text.split()))


def words_of(text: str) -> frozenset[str]:
    """In small letters and without a plural's s, which is often added elsewhere."""
    return frozenset(word.lower().removesuffix("s") for word in re.findall(r"[A-Za-z]{3,}", text))


@dataclass
class Module:
    """One file: its functions, its constants, and who calls whom."""

    path: Path
    tree: ast.Module = field(init=False)

    def __post_init__(self) -> None:
        self.tree = ast.parse(self.path.read_text("utf-8"))
        for parent in ast.walk(self.tree):
            for child in ast.iter_child_nodes(parent):
                child.parent = parent  # type: ignore[attr-defined]

    def place(self, node: ast.AST) -> str:
        return f"{self.path.relative_to(ROOT).as_posix()}:{node.lineno}"

    @cached_property
    def functions(self) -> dict[str, ast.FunctionDef]:
        return {node.name: node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)}

    @cached_property
    def calls(self) -> dict[str, list[ast.Call]]:
        calls_by_name: dict[str, list[ast.Call]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                calls_by_name.setdefault(_called(node), []).append(node)
        return calls_by_name

    @cached_property
    def constants(self) -> dict[str, ast.expr]:
        values = {}
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                values[node.targets[0].id] = node.value
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
                values[node.target.id] = node.value
        return values

    @cached_property
    def words(self) -> frozenset[str]:
        """Of all its texts."""
        texts = (node.value for node in ast.walk(self.tree) if isinstance(node, ast.Constant))
        return words_of(" ".join(text for text in texts if isinstance(text, str)))

    @property
    def is_drawn(self) -> bool:
        """Whether its texts are drawn into pictures, which are the same for all readers."""
        return any(getattr(node, "id", getattr(node, "name", "")) in _CANVAS_CLASSES for node in ast.walk(self.tree))


class Sources:
    """All texts of some files."""

    def __init__(self, files: list[Path]):
        self.modules = [Module(path) for path in files]
        self._constants = {name: value for module in self.modules for name, value in module.constants.items()}
        self._kinds = error_kinds() | {"refusal"}

    def errors(self) -> Iterator[Said]:
        """What is wrong, and what to do, of every error that is made. What only a run can tell is left out: the fix
        that is another library's message, for example."""
        for module in self.modules:
            for call in self._error_calls(module):
                first = 1 if _called(call) == "refusal" else 0
                fixes = [keyword.value for keyword in call.keywords if keyword.arg == "fix"]
                for node in [*call.args[first : 2 if not fixes else 1], *fixes]:
                    yield from self._sentences(node, module)
            for node in ast.walk(module.tree):
                if _is_text(node) and not _is_text(node.parent) and not _is_unseen(node):
                    yield from (Said(text, module.place(node)) for text in self._whole_messages(node, module))

    def _sentences(self, node: ast.expr, module: Module) -> Iterator[Said]:
        for text in map(numbered, self.texts(node, module) or ()):
            # Where a fragment is empty it is not put in: "this model is one of ."
            if PLACE.sub("", text).strip(" .:;()") and not re.search(r" \.(?!\w)", text.replace("...", "")):
                yield Said(text, module.place(node))

    def _whole_messages(self, node: ast.expr, module: Module) -> Iterator[str]:
        """Errors of other kinds that are worded as ours."""
        for text in map(numbered, self.texts(node, module) or ()):
            match = re.fullmatch(r"Q-Sched: (.*[a-z].*) Fix: (.*[a-z].*)", text)
            for part in match.groups() if match else ():
                yield numbered(PLACE.sub(_HOLE, part))

    def lines(self) -> Iterator[Said]:
        """Every other piece of text that a person may read on a page, as it stands between the holes."""
        for module in self.modules:
            if module.is_drawn:
                continue
            errors = {id(one) for call in self._error_calls(module) for one in ast.walk(call)}
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in errors:
                    yield from (Said(piece, module.place(node)) for piece in _pieces(node))

    def _error_calls(self, module: Module) -> list[ast.Call]:
        return [call for name in sorted(self._kinds) for call in module.calls.get(name, ())]

    def texts(self, node: ast.expr, module: Module, depth: int = 0) -> set[str] | None:
        """Every text that an expression can be, with holes for what only a run can tell; None where all of it is so."""
        if depth > _DEEPEST:
            return None

        def inner(other: ast.expr) -> set[str] | None:
            return self.texts(other, module, depth + 1)

        if isinstance(node, ast.Constant):
            return {node.value} if isinstance(node.value, str) else None
        if isinstance(node, ast.JoinedStr):
            return _product([self._part(value, module, depth) for value in node.values])
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            sides = [inner(node.left), inner(node.right)]
            return _product([side or {_HOLE} for side in sides]) if any(sides) else None
        if isinstance(node, ast.IfExp):
            return _union([inner(node.body), inner(node.orelse)])
        if isinstance(node, ast.BoolOp):
            return _union([inner(value) for value in node.values])
        if isinstance(node, ast.Name):
            return self._named(node, module, depth)
        return self._returned(node, module, depth) if isinstance(node, ast.Call) else None

    def _part(self, value: ast.expr, module: Module, depth: int) -> set[str]:
        """Of an f-string. A name that stands for words of ours is taken as its words, a name of a thing is a hole."""
        if isinstance(value, ast.Constant):
            return {str(value.value)}
        inner = value.value if isinstance(value, ast.FormattedValue) else value
        if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Mult) and _is_text(inner.left):
            return {"", *(self.texts(inner.left, module, depth + 1) or ())}
        if isinstance(inner, (ast.IfExp, ast.Name)):
            texts = self.texts(inner, module, depth + 1) or set()
            if any(" " in text.strip() for text in texts):
                return texts
        return {_HOLE}

    def _named(self, node: ast.Name, module: Module, depth: int) -> set[str] | None:
        function = _enclosing(node)
        if function is not None:
            values, added = _assigned(function, node.id)
            if node.id in (names := _parameters(function)):
                values += [one for call in module.calls.get(function.name, ()) for one in _handed(call, names, node.id)]
            if values or node.id in names:
                texts = _union([None if _holds(one, node.id) else self.texts(one, module, depth + 1) for one in values])
                for value in added if texts else ():
                    texts = texts | _product([texts, self.texts(value, module, depth + 1) or {_HOLE}])
                return texts
        value = module.constants.get(node.id, self._constants.get(node.id))
        return None if value is None else self.texts(value, module, depth + 1)

    def _returned(self, node: ast.Call, module: Module, depth: int) -> set[str] | None:
        """By a function of the same file."""
        function = module.functions.get(_called(node))
        returns = ast.walk(function) if function is not None else ()
        values = [one.value for one in returns if isinstance(one, ast.Return) and one.value is not None]
        return _union([self.texts(value, module, depth + 1) for value in values])


def _imported(path: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for place in (base, *(base / alias.name for alias in node.names)):
                yield from (file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file())


def _pieces(node: ast.Constant) -> Iterator[str]:
    """Of a text, or of one between two holes: what may be words for a person."""
    words = _WORD_OF_A_SENTENCE if isinstance(node.parent, ast.JoinedStr) else _WORDS
    if not node.value.startswith("Q-Sched: ") and not _is_unseen(node):
        pieces = (piece for piece in _FIELD.split(node.value) if words.search(piece.replace("\n", " ")))
        yield from (" ".join(piece.split()) for piece in pieces)


def _is_text(node: ast.AST) -> bool:
    """A text or a sum of texts. What stands inside of one is none by itself."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, (ast.JoinedStr, ast.FormattedValue)) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _is_unseen(node: ast.AST) -> bool:
    """Docstrings, what defines nodes (locales/ has it), the log, patterns, annotations, what other errors say inside of
    the pack, and keys: of dictionaries, or what something is compared with."""
    child, parent = node, node.parent
    if isinstance(parent, (ast.Expr, ast.Compare, ast.Subscript)) or (
        isinstance(parent, ast.Dict) and child in parent.keys
    ):
        return True
    while parent is not None:
        if isinstance(parent, ast.FunctionDef) and parent.name in _UNSEEN_FUNCTIONS:
            return True
        if isinstance(parent, ast.Call) and _called(parent) in _UNSEEN_CALLS:
            return True
        if isinstance(parent, ast.Raise) or (isinstance(parent, ast.AnnAssign) and child is parent.annotation):
            return True
        child, parent = parent, getattr(parent, "parent", None)
    return False


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def _enclosing(node: ast.AST) -> ast.FunctionDef | None:
    while (node := getattr(node, "parent", None)) is not None:
        if isinstance(node, ast.FunctionDef):
            return node
    return None


def _holds(node: ast.expr, name: str) -> bool:
    return any(isinstance(one, ast.Name) and one.id == name for one in ast.walk(node))


def _assigned(function: ast.FunctionDef, name: str) -> tuple[list[ast.expr], list[ast.expr]]:
    """(What a function gives a name, what it adds to it)."""
    values, added = [], []
    for node in ast.walk(function):
        for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
            if isinstance(target, ast.Tuple):
                places = [place for place, one in enumerate(target.elts) if getattr(one, "id", "") == name]
                sides = node.value.elts if isinstance(getattr(node, "value", None), ast.Tuple) else []
                values += [sides[place] if place < len(sides) else target for place in places]
            elif isinstance(target, ast.Name) and target.id == name:
                # What a loop goes through is not read: the target itself stands for what cannot be told.
                value = getattr(node, "value", None) or target
                (added if isinstance(node, ast.AugAssign) else values).append(value)
    return values, added


def _parameters(function: ast.FunctionDef) -> list[str]:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [one.arg for one in arguments if one.arg not in ("self", "cls")]


def _handed(call: ast.Call, names: list[str], name: str) -> list[ast.expr]:
    place = names.index(name)
    return [*call.args[place : place + 1], *(keyword.value for keyword in call.keywords if keyword.arg == name)][:1]


def _product(parts: list[set[str]]) -> set[str]:
    return {"".join(words) for words in itertools.islice(itertools.product(*map(sorted, parts)), _MOST_VARIANTS)}


def _union(parts: list[set[str] | None]) -> set[str] | None:
    """Where one of several cannot be told, it is a hole."""
    return set().union(*(texts or {_HOLE} for texts in parts)) if any(parts) else None
