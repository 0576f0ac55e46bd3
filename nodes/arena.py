"""Q-Sched Arena: pictures without and with a preset side by side, and a person who does not know which is which."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import folder_paths
import numpy as np
from aiohttp import web
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image
from torch import Tensor

from ..qsched_core import VoteError
from .host.page_requests import post_route
from .host.progress import NodeProgress, node_id
from .host.server import page_server, workflow_id
from .sockets import CATEGORY, PresetSocket
from .voting.ballots import MOST_PAIRS, Ballot, Ballots, Shown

SUBFOLDER = "qsched_arena"
MOST_TEXT, MOST_BODY = 300, 1000
"""Characters of a text beside a pair, and bytes of a vote."""

NO_PRESET = ExecutionBlocker("Q-Sched: Q-Sched Arena has no preset to hand on. Fix: plug one into it")
"""Told to whoever needs one."""

ballots = Ballots(lambda: Path(folder_paths.get_system_user_directory("qsched")) / "votes")


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
        return ballots.stamp()

    @classmethod
    def execute(
        cls, without, with_preset, preset=(None,), texts=(), keep_in_preset=(False,), ballot=(1,)
    ) -> io.NodeOutput:
        handed = preset_of(preset)
        pairs = read_pairs(without, with_preset)
        key, asked = ballot_key(pairs, ballot[0])
        spread = texts_of(texts, len(pairs))
        found = ballots.open(key, len(asked))
        said = [spread[index] for index in asked]
        if ballots.has_pictures(key):
            ballots.retell(key, said)
        else:
            ballots.show(key, Shown(write_pairs([pairs[index] for index in asked], found, node_id(cls)), said))
        if found.complete and not found.closed:
            ballots.act(key, 0, "close")
            found = ballots.open(key, len(asked))
        if workflow := workflow_id(cls.hidden and cls.hidden.extra_pnginfo):
            ballots.note(workflow, str(node_id(cls)), key)
        if handed is not None and keep_in_preset[0] and found.closed:
            handed = replace(handed, record={**handed.record, "votes": found.count().record()})
        text = report(found, len(pairs) - len(asked))
        return io.NodeOutput(NO_PRESET if handed is None else handed, text, ui={"qsched_arena": [key]})


def read_pairs(without: Sequence[Tensor], with_preset: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Lists of IMAGE batches (B, H, W, C) -> pairs of pictures (H, W, C).

    Raises:
        VoteError: nothing, unequal numbers or sizes, too many, or no pictures at all.
    """
    first, second = (
        list(_pictures(name, batches)) for name, batches in (("without", without), ("with_preset", with_preset))
    )
    if len(first) != len(second):
        raise VoteError(
            f"{len(first)} pictures without and {len(second)} with the preset.",
            "make both from the same prompts and seeds: each pair is one prompt with one seed",
            without=len(first),
            with_preset=len(second),
        )
    if not 1 <= len(first) <= MOST_PAIRS:
        raise VoteError(
            f"{len(first)} pairs cannot be voted on.", f"plug in 1 to {MOST_PAIRS} pictures each", pairs=len(first)
        )
    for number, (one, other) in enumerate(zip(first, second, strict=True), 1):
        if one.shape != other.shape:
            raise VoteError(
                f"pair {number} has pictures of {_size(one)} and {_size(other)}.",
                "give both lists in the same order and the same size",
                pair=number,
            )
    return list(zip(first, second, strict=True))


def ballot_key(pairs: Sequence[tuple[Tensor, Tensor]], ballot: int) -> tuple[str, list[int]]:
    """(The sha256 of all pictures as shown and of the ballot's number, the pairs whose pictures differ).

    Raises:
        VoteError: no pair differs.
    """
    digest, asked = hashlib.sha256(f"ballot {ballot}".encode()), []
    for index, pair in enumerate(pairs):
        one, other = (_pixels(picture) for picture in pair)
        if not np.array_equal(one, other):
            asked.append(index)
        for pixels in (one, other):
            digest.update(str(pixels.shape).encode())
            digest.update(pixels.tobytes())
    if not asked:
        raise VoteError(
            "the pictures of every pair are equal.", "plug in some made without, and some made with a preset"
        )
    return digest.hexdigest(), asked


def texts_of(texts: Sequence[str], pairs: int) -> list[str]:
    """One text per pair, cut to what a page shows.

    Raises:
        VoteError: neither none, nor one, nor as many as pairs.
    """
    if len(texts) not in (0, 1, pairs):
        raise VoteError(
            f"there are {len(texts)} texts for {pairs} pairs.", "give one text for each pair, or one for all"
        )
    lines = [" ".join(str(text).split())[:MOST_TEXT] for text in texts] or [""]
    return lines * pairs if len(lines) == 1 else lines


def write_pairs(pairs: Sequence[tuple[Tensor, Tensor]], ballot: Ballot, unique_id: str | None) -> list:
    """PNGs in the host's temporary folder, (left, right) per pair. Names are drawn, the left file is always the older
    one, and nothing is written into them but pixels: they tell a page nothing of the sides."""
    folder = Path(folder_paths.get_temp_directory()) / SUBFOLDER
    folder.mkdir(parents=True, exist_ok=True)
    bar, files = NodeProgress(unique_id, len(pairs)), []
    for number, ((without, with_preset), side) in enumerate(zip(pairs, ballot.sides, strict=True), 1):
        ordered = (with_preset, without) if side == "left" else (without, with_preset)
        paths = tuple(folder / f"{secrets.token_hex(16)}.png" for _ in ordered)
        for path, picture in zip(paths, ordered, strict=True):
            Image.fromarray(_pixels(picture)).save(path, compress_level=1)
        files.append(paths)
        bar.update(number)
    return files


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
        lines += [f"{kind}: pair {', '.join(found)}" for kind, found in kinds.items() if found]
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


def add_arena_routes() -> None:
    """GET /qsched/arena?key=KEY or ?workflow=ID, and POST /qsched/arena/vote with {"key", "pair", "choice"}; nothing
    where no server runs. To be called once, as the pack is loaded."""
    server = page_server()
    if server is None:
        return

    @server.routes.get("/qsched/arena")
    async def state(request: web.Request) -> web.Response:
        if "workflow" in request.query:
            return web.json_response({"nodes": ballots.noted(request.query["workflow"])})
        return await _answer(request.query.get("key"))

    @post_route(server, "/qsched/arena/vote")
    async def vote(request: web.Request) -> web.Response:
        try:
            key, pair, choice = _read_vote(await _body(request))
            await asyncio.to_thread(ballots.act, key, pair, choice)  # it waits for the disk
        except VoteError as error:
            return _refusal(error)
        server.send_sync("qsched.arena", {"key": key})  # to every tab that shows it
        return await _answer(key)


async def _body(request: web.Request) -> bytes:
    """Nothing where it is too long to be a vote."""
    length = request.content_length
    return await request.read() if length is not None and length <= MOST_BODY else b""


def _read_vote(body: bytes) -> tuple[str, int, str]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    found = [told.get(name) for name in ("key", "pair", "choice")] if isinstance(told, dict) else [None] * 3
    if [type(value) for value in found] != [str, int, str]:
        raise VoteError("this is no vote.", 'send {"key": text, "pair": number, "choice": text}', status=400)
    return tuple(found)


async def _answer(key: str | None) -> web.Response:
    try:
        return web.json_response(await asyncio.to_thread(ballots.told, key))
    except VoteError as error:
        return _refusal(error)


def _refusal(error: VoteError) -> web.Response:
    return web.json_response({"error": str(error)}, status=error.fields.get("status", 400))


def _pictures(name: str, batches: Sequence[Tensor]) -> Iterator[Tensor]:
    for batch in batches:
        if getattr(batch, "ndim", 0) != 4 or batch.shape[-1] not in (1, 3, 4) or 0 in batch.shape[1:3]:
            raise VoteError(f"{name} holds something that is no picture.", "plug in an IMAGE", name=name)
        yield from batch


def _pixels(picture: Tensor) -> np.ndarray:
    """(H, W, C) or (H, W) in 8 bits; what is no number is black."""
    return (picture.detach().cpu().float().nan_to_num(0).clamp(0, 1) * 255).round().byte().squeeze(-1).numpy()


def _size(picture: Tensor) -> str:
    height, width, channels = picture.shape
    return f"{width} x {height}" + ("" if channels == 3 else f" x {channels}")


NODES = [QSchedArena]
