"""Names that leave their folder, hide, overwrite or never end, at every place where a name is taken."""

from __future__ import annotations

import importlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import qsched_core as qs
from benchmarks.in_host import import_host, import_pack

from .tally import Tally, memory_folder

STEMS = (
    "", " ", ".", "..", "...", "/", "\\", "~", "~root", "C:", "C:x", "\\\\server\\share\\x", "//server/share/x",
    "/etc/passwd",
    "a/b", "a\\b", "a/../b", "a\0b", "a\nb", "a\rb", "a\x1bb", "a\x7fb", "a\x85b", "a\u2028b", "a\u202egnp",
    "\u200fa", "a\u2066",
    "a\ud83e", "\udcff", "\ufeffa", "a.", "a ", " a", "a:b", "a:stream", "a|b", "a*", "a?", 'a"b', "a<b>", "CON",
    "con", "nul.txt",
    "COM1", "lpt9.a", "aux .x", "CONIN$", "x" * 121, "x" * 5000, "\u4e2d" * 100, "%2e%2e%2fa", "%00", "..%5ca",
    "....//a", ".hidden",
    "taken", "dangling", "loop", "folder", "link to outside", "a.safetensors.safetensors", "a.SAFETENSORS", "-rf",
    "$(id)", "`id`",
)  # fmt: skip
AFFIXES = (
    "{}",
    "../{}",
    "../../{}",
    "/{}",
    "a/{}",
    "..\\{}",
    "C:\\{}",
    "{}/..",
    "{}/x",
    "./{}",
    "{}.safetensors",
    "{}\0.safetensors",
)


def run() -> Tally:
    import_host()
    import_pack()
    logging.disable(logging.WARNING)  # the host says of each link that it leads nowhere
    tally = Tally()
    for name in dict.fromkeys(affix.format(stem) for stem in STEMS for affix in AFFIXES):
        for attempt in (_make, _import, _rename, _read):
            with tempfile.TemporaryDirectory(dir=memory_folder()) as place:
                _attack(attempt, name, Path(place), tally)
    logging.disable(logging.NOTSET)
    return tally


def _attack(attempt: Callable, name: str, place: Path, tally: Tally) -> None:
    import folder_paths

    folder, outside = place / "presets", place / "outside"
    _furnish(folder, outside)
    before = dict(_everything(place))
    folders = folder_paths.folder_names_and_paths
    folders["qsched_presets"] = ([str(folder)], {".safetensors"})
    folder_paths.filename_list_cache.clear()
    folder_paths.set_output_directory(str(outside))
    folder_paths.input_directory = str(folder)
    error = importlib.import_module("pack.qsched_core").QSchedError
    try:
        attempt(name, folder)
        outcome = "taken"
    except error:
        outcome = "refused"
    except BaseException as failure:  # noqa: BLE001 - whatever it is, it is no sentence for a person
        tally.hurt(f"{attempt.__name__}({name!r}): {type(failure).__name__}: {failure}")
        return
    after = dict(_everything(place))
    new = [path for path in after if path not in before]
    missing = [path for path in before if path not in after]
    changed = [path for path in before if path in after and after[path] != before[path]]
    names = importlib.import_module("pack.nodes.host.folders")
    wrong = [path for path in new if path.parent != folder or names.file_stem(path.name) != path.stem]
    rename_only = attempt is _rename and missing == [folder / "old.safetensors"] and len(new) == 1
    if changed or wrong or (missing and not rename_only) or len(new) > 1:
        tally.hurt(f"{attempt.__name__}({name!r}): made {new}, gone {missing}, changed {changed}")
    else:
        tally.count(outcome)


def _furnish(folder: Path, outside: Path) -> None:
    preset = qs.encode_preset(qs.Preset(qs.Coefficients.identity(2), (1.0, 0.5, 0.0)))
    for path in (folder, outside, folder / "folder.safetensors"):
        path.mkdir(exist_ok=True)
    for path in (folder / "old.safetensors", folder / "taken.safetensors", outside / "a.safetensors"):
        path.write_bytes(preset)
    (folder / "dangling.safetensors").symlink_to(folder / "nowhere")
    (folder / "loop.safetensors").symlink_to(folder / "loop.safetensors")
    (folder / "link to outside.safetensors").symlink_to(outside / "a.safetensors")


def _everything(place: Path) -> Iterator[tuple[Path, object]]:
    for root, folders, files in os.walk(place):
        for name in (*folders, *files):
            path = Path(root, name)
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            yield path, content


def _make(name: str, _folder: Path) -> None:
    path = importlib.import_module("pack.nodes.host.folders").unused_path("qsched_presets", name)
    qs.save_preset(qs.Preset(qs.Coefficients.identity(2), (1.0, 0.5, 0.0)), path)


def _import(name: str, folder: Path) -> None:
    library = importlib.import_module("pack.nodes.library.files")
    library.import_preset(name, (folder / "old.safetensors").read_bytes())


def _rename(name: str, _folder: Path) -> None:
    importlib.import_module("pack.nodes.library.files").rename("old.safetensors", name)


def _read(name: str, folder: Path) -> None:
    """A listed preset, and a file of prompts: neither may come from outside."""
    folders = importlib.import_module("pack.nodes.host.folders")
    error = importlib.import_module("pack.qsched_core").QSchedError
    readable = []
    for look in (
        lambda: folders.file_path("qsched_presets", name),
        lambda: importlib.import_module("pack.nodes.host.input_files").input_path(name),
    ):
        try:
            readable.append(look())
        except error:
            continue
    for path in readable:
        # A link in the folder is the user's own.
        if Path(os.path.normpath(path)).parent not in (folder, folder.resolve()):
            raise AssertionError(f"read {path}")
    if not readable:
        raise error("nothing of that name.", "use another name")
