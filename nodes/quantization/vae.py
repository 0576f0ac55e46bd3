"""A quantised copy of a loaded VAE, and how near its pictures are to the full one's."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...qsched_core import QuantizationError
from ...qsched_core.quant import Job, candidates
from ...qsched_core.quant.select import MAX_LATENT_CHANNELS
from .backends import own_job_for
from .sources import require_readable
from .twin_model import quantized_twin

MIN_PSNR = 40.0
"""dB between two pictures; above it nobody sees a difference, side by side or not."""

MIN_SIDE = 64
"""Pixels of a picture's side: what two VAEs are compared on has to be larger than what their convolutions see."""

END_REASON = "it reads or writes pixels or the latent"


def quantized_vae(
    vae,
    format: str,
    exclude: Sequence[str] = (),
    image: Tensor | None = None,
    on_layer: Callable[[int, int], None] = lambda done, total: None,
) -> tuple:
    """(VAE, report for a person): a copy of the host's object over a packed copy of its network. ``image`` (B, H, W, C)
    in 0 … 1 is what the two are compared on.

    Raises:
        QuantizationError: no VAE, one that was quantised already, or without a layer to quantise; a picture too small.
    """
    if getattr(vae, "first_stage_model", None) is None:
        fix = "load one with Load VAE, and plug that in"
        raise QuantizationError("this checkpoint has no VAE.", fix)
    if image is not None and min(image.shape[1:3]) < MIN_SIDE:
        height, width = image.shape[1:3]
        what = f"the picture has {height} x {width} pixels."
        raise QuantizationError(what, f"plug in one of {MIN_SIDE} x {MIN_SIDE} or more", height=height, width=width)
    job = vae_job(vae, format, exclude)
    full = None if image is None else round_trip(vae, image)
    patcher, report = quantized_twin(vae.patcher, job, on_layer)
    twin = copy.copy(vae)
    twin.patcher, twin.first_stage_model, twin.size = patcher, patcher.model, None
    twin.get_sd = lambda: dict(patcher.model_state_dict().items())  # what Save VAE writes: floats
    lines = [report.text()]
    if image is not None and report.quantized:
        lines += comparison(round_trip(twin, image), full, image)
    return twin, "\n".join(lines)


def vae_job(vae, format: str, exclude: Sequence[str] = ()) -> Job:
    """What is asked for.

    Raises:
        QuantizationError: one that was quantised already, or without a layer of a kind that is packed.
    """
    network = vae.first_stage_model
    require_readable(network)
    layers = dict(candidates(network))
    ends = {name: END_REASON for name, layer in layers.items() if is_end(network, name, layer)}
    if len(ends) == len(layers):
        fix = "leave this node out: convolutions of sound are not packed"
        raise QuantizationError("this VAE has no layer to quantise.", fix)
    return own_job_for(vae.patcher, format, dtype=vae.vae_dtype, include=["*"], exclude=exclude, keep=ends)


def is_end(network: nn.Module, name: str, layer: nn.Module) -> bool:
    """Whether a layer reads or writes pixels or the latent: few channels, or part of what is there once. Few VAEs hold
    their blocks in lists, as diffusion models do."""
    channels = [getattr(layer, side) for side in ("in_channels", "out_channels") if hasattr(layer, side)]
    if channels and min(channels) <= MAX_LATENT_CHANNELS:
        return True
    owner_name, _, _ = name.rpartition(".")
    # A plain sequence of layers is part of what it stands in: the head of a video's decoder is one.
    while isinstance(owner := network.get_submodule(owner_name), nn.Sequential) and owner_name:
        if any(any(part.children()) for part in owner):
            break
        owner_name, _, _ = owner_name.rpartition(".")
    return sum(type(module) is type(owner) for module in network.modules()) == 1


def round_trip(vae, image: Tensor) -> Tensor:
    """The first picture, encoded and decoded."""
    return vae.decode(vae.encode(image[:1, ..., :3])).detach().to("cpu", torch.float32)


def comparison(ours: Tensor, full: Tensor, image: Tensor) -> list[str]:
    """Lines on how near two round trips of a picture are, and how near each is to the picture."""
    picture = image[:1, : full.shape[-3], : full.shape[-2], :3].to("cpu", torch.float32).reshape(full.shape)
    between, mine, theirs = psnr(ours, full), psnr(ours, picture), psnr(full, picture)
    lines = [f"Your picture: PSNR {between:.1f} dB to the full VAE's; to the picture itself {mine:.1f} dB, "
             f"the full VAE {theirs:.1f} dB."]  # fmt: skip
    if not between >= MIN_PSNR:
        lines.append("That can be seen: use w8a16, or leave this VAE full.")
    return lines


def psnr(one: Tensor, other: Tensor) -> float:
    """Peak signal to noise ratio of pictures in 0 … 1, in dB; infinite for the same."""
    error = (one.double() - other.double()).square().mean().item()
    return math.inf if error == 0 else -10 * math.log10(error)
