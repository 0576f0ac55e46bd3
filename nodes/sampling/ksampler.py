"""Sampling a MODEL through the host: what the sampler and the calibration nodes share."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature

import comfy.sample
import comfy.samplers
import torch
from comfy_extras.nodes_custom_sampler import SamplerCustom

import nodes as host_nodes

from ...qsched_core import CalibrationError, SamplingError
from ...qsched_core.schedule import check_schedule, schedule_name
from .sampler_menu import UNDRIVABLE_SAMPLERS, sampler_names, sampler_object


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
            problem = "cannot be driven by Q-Sched" if self.sampler in UNDRIVABLE_SAMPLERS else "is not known"
            raise SamplingError(f"sampler {self.sampler!r} {problem}.", "use one of the node's list", name=self.sampler)

    def sigmas(self, model) -> tuple[float, ...]:
        """The sigmas the host will sample on, noisiest first."""
        sampler = comfy.samplers.KSampler(
            model, self.steps, model.load_device, self.sampler, self.scheduler, self.denoise, model.model_options
        )
        return tuple(float(sigma) for sigma in sampler.sigmas)

    def falling_sigmas(self, model) -> tuple[float, ...]:
        """The same, for what needs a schedule that falls at every step.

        Raises:
            SamplingError: it does not: kl_optimal, for one, gives NaN for a single step.
        """
        sigmas = self.sigmas(model)
        check_schedule(sigmas, schedule_name(self.scheduler, self.steps), strict=True)
        return sigmas


def sample_latent(model, recipe: Recipe, seed: int, positive, negative, latent: dict) -> dict:
    """KSampler's work on a LATENT; where the host has no sampler of the name, its SamplerCustom's with ours."""
    if recipe.sampler in comfy.samplers.SAMPLER_NAMES:
        (result,) = host_nodes.common_ksampler(
            model, seed, recipe.steps, recipe.cfg, recipe.sampler, recipe.scheduler, positive, negative, latent,
            denoise=recipe.denoise,
        )  # fmt: skip
        return result
    sigmas, sampler = torch.tensor(recipe.sigmas(model)), sampler_object(recipe.sampler)
    return SamplerCustom.execute(model, True, seed, recipe.cfg, positive, negative, sampler, sigmas, latent).args[0]


def single_latent(model, latent: dict) -> torch.Tensor:
    """As ``check_latent``, for work that cannot be done on several latents in one.

    Raises:
        SamplingError: several latents in one, or a latent with content and another channel count.
    """
    samples = check_latent(model, latent)
    if getattr(samples, "is_nested", False):
        raise SamplingError(
            "this latent holds several: a video and its sound, for example.", "plug in one for pictures or video alone"
        )
    return samples


def empty_latent(model, latent: dict) -> torch.Tensor:
    """The samples of an empty LATENT, for work that makes its own noise.

    Raises:
        SamplingError: several latents in one, or another channel count.
        CalibrationError: a latent with content.
    """
    samples = single_latent(model, latent)
    if torch.count_nonzero(samples):
        raise CalibrationError("the latent is not empty.", "plug in an empty latent: calibration makes its own noise")
    return samples


def check_latent(model, latent: dict) -> torch.Tensor:
    """The samples of a LATENT as the model takes them: empty ones are given the model's channels and its scale. What
    holds several latents (a video and its sound) is handed through as it is.

    Raises:
        SamplingError: a latent with content and another channel count.
    """
    if getattr(latent["samples"], "is_nested", False):
        return latent["samples"]
    ratios = (latent.get("downscale_ratio_spacial"), latent.get("downscale_ratio_temporal"))
    samples = _with_models_channels(model, latent["samples"], ratios)
    channels = model.get_model_object("latent_format").latent_channels
    if samples.shape[1] != channels:
        raise SamplingError(
            f"the latent has {samples.shape[1]} channels, the model takes {channels}.",
            "encode the picture with this model's VAE",
        )
    return samples


def _with_models_channels(model, samples: torch.Tensor, ratios: tuple) -> torch.Tensor:
    """The host's own fit of an empty latent, with as many of the latent's scales as this host's function takes."""
    fit = comfy.sample.fix_empty_latent_channels
    return fit(model, samples, *ratios[: len(signature(fit).parameters) - 2])
