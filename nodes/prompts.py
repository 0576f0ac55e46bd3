"""Q-Sched Prompts: what a calibration is made on, from text, files and other nodes, encoded here or by the user."""

from __future__ import annotations

import json
from collections.abc import Iterable

from comfy_api.latest import io

from ..qsched_core import CalibrationError
from .host.reports import keep_output
from .sockets import CATEGORY, PromptsSocket


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
                PromptsSocket.Output(display_name="prompts", tooltip="For Calibration Settings."),
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
        from ..calibration.prompt_files import parse_file, parse_sets, read_lines
        from ..calibration.prompts import select
        from .calibrating.prompt_list import conditioned, plain, report
        from .host.input_files import read_input

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
            prompt_list = conditioned(first, second, list(conditionings), notes)
        else:
            prompt_list = plain(select(first, second, draw_seed[0], notes))
        text = report(prompt_list)
        return io.NodeOutput(prompt_list, text, ui=keep_output(cls, {"text": [text]}))


def _flat(where: str, values: Iterable) -> list[str]:
    """Texts of an input. Some nodes put a whole list into one value."""
    items = []
    for value in values:
        items += value if isinstance(value, (list, tuple)) else [value]
    for number, text in enumerate(items, 1):
        if not isinstance(text, str):
            raise CalibrationError(
                f"value {number} of {where} is {type(text).__name__[:30]}, not a text.", "plug in texts", number=number
            )
    return items


def _names(where: str, values: Iterable) -> list[str]:
    return [name.strip() for name in _flat(where, values) if name.strip()]


def _dates(values: Iterable) -> list[list]:
    """[name, time changed, bytes] of each file that is there; a plugged in name is None as yet."""
    from .host.input_files import input_path

    dates = []
    for name in values:
        if isinstance(name, str) and name.strip():
            try:
                stat = input_path(name.strip()).stat()
                dates.append([name, stat.st_mtime_ns, stat.st_size])
            except (CalibrationError, OSError):
                dates.append([name])
    return dates


NODES = [QSchedPrompts]
