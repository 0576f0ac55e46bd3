"""CLIP -> a smaller CLIP, and how near its conditioning is to the full one's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...qsched_core import QuantReport
from ...qsched_core.quant import Job, candidates
from ..host.conditioning import encode
from .twin_model import quantized_twin

ANY_TEXT = "a red fox in the snow"
"""Encoded where no prompts are given, to see which layers a text reaches."""

TIED_REASON = "its weight is an embedding's too"
UNREACHED_REASON = "no text reaches it"
"""Towers for pictures and sound: an encoder of text has no use for them, and some ask for the type of their weights."""

MIN_COSINE = 0.99
"""Of the conditioning; two different prompts of one encoder are often at 0.7 to 0.9."""


def quantized_clip(
    clip, job: Job, prompts: Sequence[str], on_layer: Callable[[int, int], None] = lambda done, total: None
) -> tuple:
    """(CLIP, report for a person): a clone of ``clip`` over a packed copy of its encoders, LoRAs and options kept.

    Raises:
        QuantizationError: one that was quantised already, or without a layer to quantise.
    """
    network = clip.cond_stage_model
    with recording_reached(network) as names:
        full = [encode(clip, text) for text in prompts or [ANY_TEXT]]
    keep = {name: UNREACHED_REASON for name, _ in candidates(network, job.recipe) if name not in names}
    keep |= {**(job.keep or {}), **tied_layers(network)}
    patcher, report = quantized_twin(clip.patcher, replace(job, keep=keep), on_layer)
    twin = clip.clone()
    twin.patcher, twin.cond_stage_model = patcher, patcher.model
    return twin, "\n".join([report.text(), *comparison(twin, report, full, prompts)])


@contextmanager
def recording_reached(network: nn.Module) -> Iterator[set[str]]:
    """While this is open, names of layers that run are put into the set."""
    names: set[str] = set()

    def hook(name: str) -> Callable[..., None]:
        return lambda layer, args: names.add(name)

    hooks = [layer.register_forward_pre_hook(hook(name)) for name, layer in candidates(network)]
    try:
        yield names
    finally:
        for handle in hooks:
            handle.remove()


def tied_layers(network: nn.Module) -> dict[str, str]:
    """Layers whose weight an embedding reads as well: packed, it would be there twice."""
    layers = dict(candidates(network))
    own = {id(layer) for layer in layers.values()}
    other_weights = {
        id(weight) for module in network.modules() if id(module) not in own for weight in module._parameters.values()
    }
    return {name: TIED_REASON for name, layer in layers.items() if id(layer.weight) in other_weights}


def comparison(twin, report: QuantReport, full: list, prompts: Sequence[str]) -> list[str]:
    """Lines on how near the conditionings of ``prompts`` are to the ``full`` ones."""
    if not prompts or not report.quantized:
        return []
    pairs = [cosines(ours, theirs) for ours, theirs in zip((encode(twin, text) for text in prompts), full, strict=True)]
    whole = [conditioning for conditioning, _ in pairs]
    count, mean = len(whole), sum(whole) / len(whole)
    text = f"Conditioning of {count} prompt{'s' * (count != 1)}: cosine to the full one {mean:.4f}"
    text += f", least {min(whole):.4f}" if count > 1 else ""
    pooled = [value for _, value in pairs if value is not None]
    if pooled:
        text += f"; pooled {sum(pooled) / len(pooled):.4f}"
    lines = [f"{text}."]
    if not min(whole) >= MIN_COSINE:
        lines.append("That is far: try w4a16, which takes as much memory, or w8a8, or leave this encoder full.")
    return lines


def cosines(ours: list, theirs: list) -> tuple[float, float | None]:
    """(cosine of two conditionings of one prompt, that of their pooled outputs if both have one)."""
    pooled = [conditioning[0][1].get("pooled_output") for conditioning in (ours, theirs)]
    both = all(isinstance(value, Tensor) for value in pooled)
    return _cosine(ours[0][0], theirs[0][0]), _cosine(*pooled) if both else None


def _cosine(one: Tensor, other: Tensor) -> float:
    one, other = (value.detach().to("cpu", torch.float64).flatten() for value in (one, other))
    return torch.nn.functional.cosine_similarity(one, other, dim=0).item()
