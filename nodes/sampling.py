"""Sampling a MODEL through the host: what the sampler and the calibration nodes share."""

from __future__ import annotations

from dataclasses import dataclass

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch

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
    """KSampler's work on a LATENT, with any sampler of ours; KSampler itself where the host has the sampler."""
    if recipe.sampler in comfy.samplers.SAMPLER_NAMES:
        (done,) = host_nodes.common_ksampler(
            model, seed, recipe.steps, recipe.cfg, recipe.sampler, recipe.scheduler, positive, negative, latent,
            denoise=recipe.denoise,
        )  # fmt: skip
        return done
    start = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    noise = comfy.sample.prepare_noise(start, seed, latent.get("batch_index"))
    callback = latent_preview.prepare_callback(model, recipe.steps)
    done = sample_tensor(
        model, recipe, noise, positive, negative, start, seed, latent.get("noise_mask"), callback,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
    )  # fmt: skip
    return {key: value for key, value in latent.items() if key != "downscale_ratio_spacial"} | {"samples": done}


def sample_tensor(
    model, recipe: Recipe, noise, positive, negative, latent, seed, noise_mask=None, callback=None, disable_pbar=True
) -> torch.Tensor:
    """The latent (B, …) sampled from ``noise`` shaped like it."""
    sigmas = torch.tensor(recipe.sigmas(model), dtype=torch.float32)
    return comfy.sample.sample_custom(
        model, noise, recipe.cfg, sampler_object(recipe.sampler), sigmas, positive, negative, latent,
        noise_mask=noise_mask, callback=callback, disable_pbar=disable_pbar, seed=seed,
    )  # fmt: skip


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
