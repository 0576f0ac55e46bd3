"""Sampling a MODEL through the host: what the sampler and the calibration nodes share."""

from __future__ import annotations

from dataclasses import dataclass

import comfy.sample
import comfy.samplers
import torch
from comfy_extras.nodes_custom_sampler import SamplerCustom

import nodes as host_nodes

from ..qsched_core import SamplingError
from .samplers import REFUSED, sampler_names, sampler_object


@dataclass(frozen=True)
class Recipe:
    """How pictures are sampled. ``denoise`` in (0, 1]: below 1 only the end of the schedule is run.

    Raises:
        SamplingError: a sampler that the host does not have, or that Q-Sched cannot drive.
    """

    steps: int
    cfg: float
    sampler: str
    scheduler: str
    denoise: float = 1.0

    def __post_init__(self) -> None:
        if self.sampler not in sampler_names():
            known = "cannot be driven by Q-Sched" if self.sampler in REFUSED else "is not known"
            raise SamplingError(f"sampler {self.sampler!r} {known}.", "use one of the node's list", name=self.sampler)

    def sigmas(self, model) -> tuple[float, ...]:
        """The sigmas the host will sample on, noisiest first."""
        sampler = comfy.samplers.KSampler(
            model, self.steps, model.load_device, self.sampler, self.scheduler, self.denoise, model.model_options
        )
        return tuple(float(sigma) for sigma in sampler.sigmas)


def sample_latent(model, recipe: Recipe, seed: int, positive, negative, latent: dict) -> dict:
    """KSampler's work on a LATENT; where the host has no sampler of the name, its SamplerCustom's with ours."""
    if recipe.sampler in comfy.samplers.SAMPLER_NAMES:
        (done,) = host_nodes.common_ksampler(
            model, seed, recipe.steps, recipe.cfg, recipe.sampler, recipe.scheduler, positive, negative, latent,
            denoise=recipe.denoise,
        )  # fmt: skip
        return done
    sigmas, sampler = torch.tensor(recipe.sigmas(model)), sampler_object(recipe.sampler)
    return SamplerCustom.execute(model, True, seed, recipe.cfg, positive, negative, sampler, sigmas, latent).args[0]


def check_latent(model, latent: dict) -> torch.Tensor:
    """The samples of a LATENT as the model takes them: empty ones are given the model's channels and its scale.

    Raises:
        SamplingError: a latent with content and another channel count.
    """
    ratios = (latent.get("downscale_ratio_spacial"), latent.get("downscale_ratio_temporal"))
    fitted = comfy.sample.fix_empty_latent_channels(model, latent["samples"], *ratios)
    wanted = model.get_model_object("latent_format").latent_channels
    if fitted.shape[1] != wanted:
        raise SamplingError(
            f"the latent has {fitted.shape[1]} channels, the model takes {wanted}.",
            "encode the picture with this model's VAE",
        )
    return fitted
