"""Sampling a MODEL through the host, with a preset on it: what the sampler and the calibration nodes share."""

from __future__ import annotations

from dataclasses import dataclass

import comfy.sample
import comfy.samplers
import torch

from ..qsched_core import Preset, PresetError, SamplingError, mismatches
from .describe import describe
from .patch import EXACT_SAMPLERS, apply_coefficients


@dataclass(frozen=True)
class Recipe:
    """How pictures are sampled. ``denoise`` in (0, 1]: below 1 only the end of the schedule is run.

    Raises:
        SamplingError: a sampler Q-Sched cannot drive exactly.
    """

    steps: int
    cfg: float
    sampler: str
    scheduler: str
    denoise: float = 1.0

    def __post_init__(self) -> None:
        if self.sampler not in EXACT_SAMPLERS:
            raise SamplingError(f"sampler {self.sampler!r} is not supported.", f"use {' or '.join(EXACT_SAMPLERS)}")

    def sigmas(self, model) -> tuple[float, ...]:
        """The sigmas the host will sample on, noisiest first."""
        sampler = comfy.samplers.KSampler(
            model, self.steps, model.load_device, self.sampler, self.scheduler, self.denoise, model.model_options
        )
        return tuple(float(sigma) for sigma in sampler.sigmas)


def fit(preset: Preset, strength: float, model, recipe: Recipe) -> tuple[object, list[str]]:
    """(MODEL with the preset on it, everything in which preset and use differ).

    Another number of steps, or a part of the schedule, is looked up by sigma. ``strength`` 0 is the stock sampler.

    Raises:
        PresetError: what is plugged in is no preset.
    """
    coefficients = getattr(preset, "coefficients", None)
    if coefficients is None or not hasattr(preset, "sigmas"):
        raise PresetError(f"{type(preset).__name__} is not a Q-Sched preset.", "plug in Load Q-Sched Preset")
    here = describe(model, recipe.sampler, recipe.scheduler, recipe.cfg)
    found = [str(item) for item in mismatches(preset, here, recipe.sigmas(model))]
    return apply_coefficients(model, coefficients.blend(strength), preset.sigmas), found


def check_latent(model, latent: torch.Tensor) -> torch.Tensor:
    """The latent as the model takes it: an empty one is given the model's channels.

    Raises:
        SamplingError: a latent with content and another channel count.
    """
    fitted = comfy.sample.fix_empty_latent_channels(model, latent)
    wanted = model.get_model_object("latent_format").latent_channels
    if fitted.shape[1] != wanted:
        raise SamplingError(
            f"the latent has {fitted.shape[1]} channels, the model takes {wanted}.",
            "encode the picture with this model's VAE",
        )
    return fitted
