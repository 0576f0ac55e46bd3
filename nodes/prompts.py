"""Q-Sched Prompts: what a calibration is made on, from text, files and other nodes, encoded here or by the user."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from ..calibration.prompt_files import LARGEST, parse_file, parse_sets, read_lines
from ..calibration.prompts import Prompts, select, select_as_given
from ..qsched_core import CalibrationError
from .host.progress import inert
from .host.reports import keep_output
from .sockets import CATEGORY, PromptsSocket

SHOWN = 6
"""Prompts of each set in the report."""


@dataclass(frozen=True, eq=False)
class PromptList:
    """What crosses the socket. ``verdict`` are indices into ``texts`` (empty: the calibration holds a share out);
    ``conditionings`` are None or one for each text; without ``has_texts`` the texts are mere names, of no use to a
    metric that reads prompts."""

    texts: tuple[str, ...]
    note: str
    digest: str
    verdict: tuple[int, ...] = ()
    conditionings: list | None = None
    has_texts: bool = True

    def __len__(self) -> int:
        return len(self.texts)


class QSchedPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedPrompts",
            display_name="Q-Sched Prompts",
            category=CATEGORY,
            description="The prompts of a calibration: written here, from a file, from other nodes, or as "
            "conditionings you prepared yourself (ControlNet, regions, guidance). A second set can be kept for the "
            "verdict.",
            search_aliases=["prompt list", "calibration prompts", "held out", "csv", "yaml", "qsched"],
            is_input_list=True,
            inputs=[
                io.String.Input(
                    "prompts",
                    optional=True,
                    default="",
                    multiline=True,
                    tooltip="One per line; # starts a comment. Those of the file and of texts are added.",
                ),
                io.String.Input(
                    "prompt_file",
                    optional=True,
                    default="",
                    tooltip="A .txt, .csv, .tsv, .yaml or .json file in ComfyUI's input folder.",
                ),
                io.String.Input(
                    "verdict_prompts",
                    optional=True,
                    default="",
                    multiline=True,
                    tooltip="One per line: the verdict is made on these, the search never sees them. None: half of "
                    "the others is held out. With conditionings: some of their texts.",
                ),
                io.String.Input(
                    "verdict_file",
                    optional=True,
                    default="",
                    advanced=True,
                    tooltip="The same from a file in ComfyUI's input folder.",
                ),
                io.Int.Input(
                    # Not "seed": the front end would make a new one for every run.
                    "draw_seed",
                    optional=True,
                    default=0,
                    min=0,
                    max=2**53,
                    advanced=True,
                    tooltip="Of the draw from more than 256 prompts.",
                ),
                io.String.Input(
                    "texts",
                    optional=True,
                    force_input=True,
                    tooltip="A list of texts from other nodes, one prompt each.",
                ),
                io.Conditioning.Input(
                    "conditionings",
                    optional=True,
                    tooltip="A list (Create List) of prompts that you encoded and prepared yourself. Give their texts, "
                    "too, in the same order, if the metric reads prompts.",
                ),
            ],
            outputs=[
                PromptsSocket.Output(display_name="prompts", tooltip="For JAQ Calibrate."),
                io.String.Output(display_name="report", tooltip="How many there are, and what was left out."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, prompt_file=(), verdict_file=(), **others) -> str:
        """Files by their dates: an edited one is read anew."""
        return json.dumps([_dates(prompt_file), _dates(verdict_file)])

    @classmethod
    def execute(
        cls,
        prompts=("",),
        prompt_file=("",),
        verdict_prompts=("",),
        verdict_file=("",),
        draw_seed=(0,),
        texts=(),
        conditionings=(),
    ) -> io.NodeOutput:
        boxes = [read_lines(text) for text in _flat("prompts", prompts)]
        files = [parse_sets(name, read_input(name)) for name in _names("prompt_file", prompt_file)]
        verdict_boxes = [read_lines(text) for text in _flat("verdict_prompts", verdict_prompts)]
        verdict_files = [parse_file(name, read_input(name)) for name in _names("verdict_file", verdict_file)]
        first = [text for source in (*boxes, *files) for text in source.texts] + _flat("texts", texts)
        second = [text for source in verdict_boxes for text in source.texts]
        second += [text for source in files for text in source.verdict]
        second += [text for source in verdict_files for text in source.texts]
        notes = [source.note for source in (*boxes, *files, *verdict_boxes, *verdict_files)]
        if conditionings:
            made = conditioned(first, second, list(conditionings), notes)
        else:
            made = plain(select(first, second, draw_seed[0], notes))
        text = report(made)
        return io.NodeOutput(made, text, ui=keep_output(cls, {"text": [text]}))


def plain(prompts: Prompts) -> PromptList:
    """Prompts that the calibration encodes."""
    return PromptList(prompts.texts, prompts.note, prompts.digest, prompts.verdict)


def conditioned(
    texts: Sequence[str], second: Sequence[str], conditionings: list, read_notes: Sequence[str] = ()
) -> PromptList:
    """Prompts with the user's own conditionings, as many as texts; without texts they are named "conditioning 1" ….
    ``second`` are those of the texts, or of the names, that are kept for the verdict.

    Raises:
        CalibrationError: as ``select_as_given``, or another number of texts, or something that is no conditioning.
    """
    count = len(conditionings)
    if texts and len(texts) != count:
        raise CalibrationError(
            f"there are {len(texts)} texts for {count} conditionings.",
            "give one text each in the same order, or no texts",
            texts=len(texts),
            conditionings=count,
        )
    for number, conditioning in enumerate(conditionings, 1):
        if not _is_conditioning(conditioning):
            raise CalibrationError(f"conditioning {number} is empty.", "check the node it comes from", number=number)
    chosen = select_as_given(texts or [f"conditioning {number}" for number in range(1, count + 1)], second, read_notes)
    digest = hashlib.sha256(chosen.digest.encode())
    _tell(digest, conditionings)
    return PromptList(chosen.texts, chosen.note, digest.hexdigest(), chosen.verdict, conditionings, bool(texts))


def report(prompts: PromptList) -> str:
    """The list in a few lines for a person."""
    held_out = [prompts.texts[i] for i in prompts.verdict]
    searched = [text for i, text in enumerate(prompts.texts) if i not in set(prompts.verdict)]
    lines = [f"{len(prompts)} prompts; a share of them is held out for the verdict."]
    if held_out:
        lines = [f"{len(searched)} prompts to search on, {len(held_out)} for the verdict."]
    if prompts.note:
        lines.append(f"{prompts.note[0].upper()}{prompts.note[1:]}.")
    if prompts.conditionings is not None:
        lines.append("They are sampled with the conditionings plugged in.")
    if not prompts.has_texts:
        lines.append("Their texts are unknown: a metric that reads prompts will refuse them.")
    for name, texts in (("Search" if held_out else "Prompts", searched), ("Verdict", held_out)):
        if texts:
            lines += ["", f"{name}:", *(f"  {text[:100]}" for text in texts[:SHOWN])]
        if len(texts) > SHOWN:
            lines.append(f"  … and {len(texts) - SHOWN} more")
    return inert("\n".join(lines))


def input_path(name: str) -> Path:
    """A file of the host's input folder.

    Raises:
        CalibrationError: a path outside the folder, or no such file.
    """
    try:
        root = Path(folder_paths.get_input_directory()).resolve()
        path = (root / name).resolve()
        if root in path.parents and path.is_file():
            return path
    except (OSError, ValueError, RuntimeError):
        pass  # a name that no file can have, or a link to itself
    raise CalibrationError(
        f"no file {name[:40]!r} in ComfyUI's input folder.",
        f"put the prompt file into {folder_paths.get_input_directory()}",
        name=name,
    )


def read_input(name: str) -> bytes:
    """The content of a file of the host's input folder, cut one byte beyond what a file of prompts may have.

    Raises:
        CalibrationError: a path outside the folder, no such file, or one that cannot be read.
    """
    path = input_path(name)
    try:
        with path.open("rb") as file:
            return file.read(LARGEST + 1)
    except OSError as error:
        raise CalibrationError(
            f"{name[:40]!r} cannot be read: {error.strerror}.", "check who may read the file"
        ) from error


def _flat(where: str, values: Iterable) -> list[str]:
    """Texts of an input. Some nodes put a whole list into one value."""
    found = []
    for value in values:
        found += value if isinstance(value, (list, tuple)) else [value]
    for number, text in enumerate(found, 1):
        if not isinstance(text, str):
            raise CalibrationError(
                f"value {number} of {where} is {type(text).__name__[:30]}, not a text.", "plug in texts", number=number
            )
    return found


def _names(where: str, values: Iterable) -> list[str]:
    return [name.strip() for name in _flat(where, values) if name.strip()]


def _dates(values: Iterable) -> list[list]:
    """[name, time changed, bytes] of each file that is there; a plugged in name is None as yet."""
    found = []
    for name in values:
        if isinstance(name, str) and name.strip():
            try:
                stat = input_path(name.strip()).stat()
                found.append([name, stat.st_mtime_ns, stat.st_size])
            except (CalibrationError, OSError):
                found.append([name])
    return found


def _is_conditioning(value: object) -> bool:
    """[[tensor, {…}], …] with at least one entry."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(
        isinstance(entry, (list, tuple)) and len(entry) == 2 and hasattr(entry[0], "shape") and hasattr(entry[1], "get")
        for entry in value
    )


def _tell(digest, value: object) -> None:
    """Feeds what decides a conditioning's pictures to a hash: tensors by their bytes, a ControlNet by its picture, its
    strength and some of its weights, other objects (hooks) by their kind alone."""
    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            digest.update(f"{key}=".encode())
            _tell(digest, value[key])
    elif isinstance(value, (list, tuple)):
        digest.update(f"[{len(value)}]".encode())
        for item in value:
            _tell(digest, item)
    elif value is None or isinstance(value, (str, int, float)):
        digest.update(f"{value!r};".encode())
    else:
        digest.update(f"{type(value).__name__};".encode())
        for name in ("cond_hint_original", "strength", "timestep_percent_range", "extra_concat_orig"):
            _tell(digest, getattr(value, name, None))
        for patcher in getattr(value, "get_models_only_self", list)():
            _tell(digest, [weight for weight in patcher.model.parameters() if weight.ndim == 1][:16])
        if (before := getattr(value, "previous_controlnet", None)) is not None:
            _tell(digest, before)


NODES = [QSchedPrompts]
