"""The samplers our nodes offer: the host's, but for those that cannot be driven, and TCD, which it lacks."""

from __future__ import annotations

import comfy.model_sampling
import comfy.samplers
from comfy.k_diffusion.sampling import default_noise_sampler
from comfy.samplers import KSAMPLER

from ...qsched_core import SamplingError

UNDRIVABLE_SAMPLERS = ("dpm_fast", "dpm_adaptive", "sa_solver", "sa_solver_pece", "uni_pc", "uni_pc_bh2")
"""Stock samplers that a rehearsal refuses; only so that menus do not offer them. A test holds both together."""
TCD_ETA = 0.3
"""The TCD paper's default gamma."""


def sampler_names() -> list[str]:
    """Menu order: what few-step models use first, then the host's own order."""
    first = ["euler", "euler_ancestral", "lcm", "tcd", "res_multistep", "dpmpp_2m", "er_sde"]
    return first + [name for name in comfy.samplers.SAMPLER_NAMES if name not in (*first, *UNDRIVABLE_SAMPLERS)]


def sampler_object(name: str) -> KSAMPLER:
    """A SAMPLER by name, ``tcd`` among them.

    Raises:
        SamplingError: the host has no sampler of this name.
    """
    if name == "tcd":
        return tcd_sampler()
    if name not in comfy.samplers.SAMPLER_NAMES:
        raise SamplingError(f"ComfyUI has no sampler {name!r}.", "use one of the node's list", name=name)
    return comfy.samplers.sampler_object(name)


def tcd_sampler(eta: float = TCD_ETA) -> KSAMPLER:
    """Trajectory consistency sampling as a SAMPLER; ``eta`` in [0, 1], 0 is deterministic, 1 re-noises from x0."""
    return KSAMPLER(sample_tcd, {"eta": eta})


def sample_tcd(model, x, sigmas, extra_args=None, callback=None, disable=None, eta=TCD_ETA, noise_sampler=None):
    """The core's TCD in the call shape of the host's samplers."""
    from ...qsched_core import Coefficients, sample

    extra_args = extra_args or {}
    sampling = model.inner_model.inner_model.model_sampling
    flow = isinstance(sampling, comfy.model_sampling.CONST)
    noise = noise_sampler or default_noise_sampler(x, seed=extra_args.get("seed"))
    scale = getattr(sampling, "noise_scale", 1.0)
    return sample(
        "tcd",
        lambda x, sigma: model(x, sigma, **extra_args),
        x,
        sigmas,
        Coefficients.identity(len(sigmas) - 1),
        flow=flow,
        noise_sampler=lambda sigma, sigma_next: scale * noise(sigma, sigma_next),
        callback=callback,
        eta=eta,
        table=None if flow else sampling.sigmas,
    )
