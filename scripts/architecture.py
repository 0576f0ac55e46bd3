"""The picture in docs/ARCHITECTURE.md, made from the imports: ``python -m scripts.architecture`` writes it anew."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from .layout import ROOT

PAGE = ROOT / "docs" / "ARCHITECTURE.md"
ROOMS = (
    "nodes",
    "nodes/library",
    "nodes/voting",
    "nodes/environment",
    "nodes/calibrating",
    "nodes/quantization",
    "nodes/sampling",
    "nodes/host",
    "calibration/cli",
    "calibration",
    "calibration/plots",
    "calibration/search",
    "calibration/metrics",
    "demo",
    "qsched_core",
    "qsched_core/samplers",
    "qsched_core/quant",
    "qsched_core/quant/sensitivity",
    "qsched_core/quant/backends",
)
"""What users get, from the top floor down; a file belongs to the longest name that it lies below."""

APART = frozenset({"demo/training"})
"""Programs of their own that nothing else imports."""

DOORS = ("__main__.py",)
"""What starts a program is in the room of all its parts, and calls the one on top."""

BEGIN, END = "```mermaid\n", "```\n"


def room_of(path: Path) -> str | None:
    """The room of a file, by its path below the root; None for what is in none."""
    parents = [parent.as_posix() for parent in path.parents]
    if APART.intersection(parents):
        return None
    return max((room for room in ROOMS if room in parents), key=len, default=None)


@cache
def arrows(root: Path = ROOT) -> set[tuple[str, str]]:
    """(Room that imports, room that is imported). A room inside another may use that one's files: that is no arrow."""
    pairs = set()
    for room in ROOMS:
        for path in (root / room).rglob("*.py"):
            here = path.relative_to(root)
            if room_of(here) != room or path.name in DOORS:
                continue
            for name in imports(here, ast.parse(path.read_text("utf-8"))):
                there = _room_of_module(root, name)
                if there and there != room and not room.startswith(f"{there}/"):
                    pairs.add((room, there))
    return pairs


def picture(root: Path = ROOT) -> str:
    """The arrows as Mermaid draws them, without those that a longer way makes plain."""
    pairs = arrows(root)
    lines = ["flowchart TD"]
    lines += [f'  {_short(room)}["{room}/"]' for room in ROOMS]
    lines += [f"  {_short(one)} --> {_short(other)}" for one, other in sorted(pairs) if not _follows(pairs, one, other)]
    return "\n".join(lines) + "\n"


def _follows(pairs: set[tuple[str, str]], one: str, other: str) -> bool:
    """Whether there is a way from one room to the other over a third."""
    return any((one, room) in pairs and (room, other) in pairs for room in ROOMS)


def _short(room: str) -> str:
    return room.replace("/", "_")


def imports(here: Path, tree: ast.Module) -> Iterator[str]:
    """Every module that a file imports, as a path below the root; names that are imported from it, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            # `import nodes` means the host's file of that name: ours is imported relatively.
            yield from (alias.name.replace(".", "/") for alias in node.names if alias.name != "nodes")
        elif isinstance(node, ast.ImportFrom):
            base = here.parents[node.level - 1].as_posix() if node.level else ""
            module = "/".join(filter(None, [base if base != "." else "", (node.module or "").replace(".", "/")]))
            yield from (f"{module}/{alias.name}".strip("/") for alias in node.names)


def _room_of_module(root: Path, name: str) -> str | None:
    """The room that a module, or a name in it, belongs to."""
    path = Path(name)
    for candidate in (path, *path.parents):
        if candidate.parts and ((root / f"{candidate}.py").is_file() or (root / candidate).is_dir()):
            return room_of(candidate / "a file")
    return None


def circles(root: Path = ROOT) -> list[list[str]]:
    """Files that import each other, over whatever way; imports inside functions and of types alone do not count."""
    floors = {room.partition("/")[0] for room in ROOMS}
    files = {path.relative_to(root) for floor in floors for path in (root / floor).rglob("*.py")}
    modules = {path.with_suffix("").as_posix().removesuffix("/__init__"): path for path in files}
    follows = {name: _imported_modules(root, path, modules) - {name} for name, path in modules.items()}
    try:
        tuple(TopologicalSorter(follows).static_order())
    except CycleError as error:
        return [error.args[1]]
    return []


def _imported_modules(root: Path, here: Path, modules: dict[str, Path]) -> set[str]:
    tree = ast.parse((root / here).read_text("utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = (Path(name) for name in imports(here, tree))
    files = (next((str(n.as_posix()) for n in (name, name.parent) if n.as_posix() in modules), None) for name in names)
    return {name for name in files if name}


def with_picture(page: str, mermaid: str) -> str:
    """The page with the picture in the place of the one that is in it."""
    begin = page.index(BEGIN) + len(BEGIN)
    return page[:begin] + mermaid + page[page.index(END, begin) :]


def main() -> None:
    PAGE.write_text(with_picture(PAGE.read_text("utf-8"), picture()), "utf-8")


if __name__ == "__main__":
    main()
