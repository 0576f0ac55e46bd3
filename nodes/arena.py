"""Q-Sched Arena: pictures without and with a preset side by side, and a person who does not know which is which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..qsched_core import VoteError
from .host.progress import node_id
from .host.server import workflow_id
from .sockets import CATEGORY, PresetSocket

if TYPE_CHECKING:
    from .voting.ballots import Ballot

NO_PRESET = ExecutionBlocker("Q-Sched: Q-Sched Arena has no preset to hand on. Fix: plug one into it")
"""What a node that needs a preset says instead of running."""


class QSchedArena(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedArena",
            display_name="Q-Sched Arena",
            category=CATEGORY,
            description="A blind vote on pairs of pictures, without and with a preset, by arrow keys on the node. When "
            "it is closed it says how often the preset won, with an interval, and whether that means anything.",
            search_aliases=[
                "vote",
                "a/b test",
                "compare images",
                "side by side",
                "blind test",
                "user study",
                "preference",
                "qsched",
            ],
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Image.Input(
                    "without",
                    tooltip="Pictures made without the preset, strength 0 or unplugged: a batch or a list.",
                ),
                io.Image.Input(
                    "with_preset", tooltip="The same prompts and seeds with the preset, in the same order and size."
                ),
                PresetSocket.Input("preset", optional=True, tooltip="The preset that is voted on; it is handed on."),
                io.String.Input(
                    "texts",
                    optional=True,
                    force_input=True,
                    tooltip="The prompts, shown above the pictures: one for each pair, or one for all.",
                ),
                io.Boolean.Input(
                    "keep_in_preset",
                    optional=True,
                    default=False,
                    tooltip="Write the result into the preset that is handed on. Save it to keep it.",
                ),
                io.Int.Input(
                    "ballot",
                    optional=True,
                    default=1,
                    min=1,
                    max=2**31 - 1,
                    advanced=True,
                    tooltip="Another number is a new vote on the same pictures: for somebody else, or a second look.",
                ),
            ],
            outputs=[
                PresetSocket.Output(display_name="preset", tooltip="The preset; with the result, if that was wished."),
                io.String.Output(display_name="report", tooltip="The result, or how far the vote has come."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> int:
        from .voting.ballots import ballots

        return ballots.stamp()

    @classmethod
    def execute(
        cls, without, with_preset, preset=(None,), texts=(), keep_in_preset=(False,), ballot=(1,)
    ) -> io.NodeOutput:
        from ..calibration.record import with_votes
        from .voting.ballots import Shown, ballots
        from .voting.pairs import ballot_key, read_pairs, texts_of, write_pairs

        output_preset = preset_of(preset)
        pairs = read_pairs(without, with_preset)
        key, indices = ballot_key(pairs, ballot[0])
        pair_texts = texts_of(texts, len(pairs))
        state = ballots.open(key, len(indices))
        lines = [pair_texts[index] for index in indices]
        if ballots.has_pictures(key):
            ballots.retell(key, lines)
        else:
            ballots.show(key, Shown(write_pairs([pairs[index] for index in indices], state, node_id(cls)), lines))
        if state.complete and not state.closed:
            ballots.act(key, 0, "close")
            state = ballots.open(key, len(indices))
        if workflow := workflow_id(cls.hidden and cls.hidden.extra_pnginfo):
            ballots.note(workflow, str(node_id(cls)), key)
        if output_preset is not None and keep_in_preset[0] and state.closed:
            output_preset = replace(output_preset, record=with_votes(output_preset.record, state.count()))
        text = report(state, len(pairs) - len(indices))
        return io.NodeOutput(NO_PRESET if output_preset is None else output_preset, text, ui={"qsched_arena": [key]})


def report(ballot: Ballot, equal: int) -> str:
    """How far the vote has come, or what came out of it."""
    pairs = len(ballot.sides)
    if not ballot.closed:
        lines = [f"{len(ballot.votes)} of {pairs} pairs are voted on. Vote on the node, then run it again."]
    else:
        lines = [str(ballot.count())]
        kinds = {"For the preset": [], "Against it": [], "Skipped": []}
        for pair, choice in sorted(ballot.votes):
            kind = "Skipped" if choice == "skip" else "For the preset"
            kinds["Against it" if choice not in ("skip", ballot.sides[pair]) else kind].append(str(pair + 1))
        lines += [f"{kind}: pair {', '.join(numbers)}" for kind, numbers in kinds.items() if numbers]
        if not ballot.complete:
            lines.append(f"Closed after {len(ballot.votes)} of {pairs} pairs.")
    if equal:
        lines.append(f"{equal} more pairs are equal to the last pixel and were not asked.")
    return "\n".join(lines)


def preset_of(presets: Sequence):
    """The only one of a list, or None.

    Raises:
        VoteError: several.
    """
    if len(presets) > 1:
        raise VoteError(f"{len(presets)} presets cannot be voted on at once.", "vote on one at a time")
    return presets[0] if presets else None


NODES = [QSchedArena]
