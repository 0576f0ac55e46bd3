"""Few-step samplers without a host, in one call shape: ``sample(name, model, x, sigmas, coefficients, …)``.

Symbols are k-diffusion's: x in the space of the sigmas (x = x0 + s·noise, or with ``flow`` (1-s)·x0 + s·noise at a
sigma s), ``denoised`` is the model's prediction of x0. With the identity each equals the sampler of the same name in
ComfyUI bit for bit, so the order of its operations is part of the promise; ``tcd`` has no twin there.

Every sampler goes on with the very tensor it passed to the model and keeps no other copy of the state; where a step's
coefficients are 1 that tensor is not even copied. ComfyUI wraps these loops as it wraps its own, and Q-Sched's patch
then scales that tensor in place after the model has seen it: a second copy would miss it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..coefficients import Coefficients
from ..errors import CoefficientError, SamplingError
from ..precision import Precision
from .evaluate import Model, NoiseSampler, SamplerRun, ZeroDenoised, check_finite, noise_or_flow
from .multistep import dpmpp_2m, er_sde, res_multistep
from .one_step import euler, euler_ancestral, lcm, tcd

__all__ = ["OPTIONS", "SAMPLERS", "Model", "NoiseSampler", "ZeroDenoised", "check_finite", "sample"]

_STEPPERS: dict[str, Callable[..., Tensor]] = {
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "lcm": lcm,
    "tcd": tcd,
    "res_multistep": res_multistep,
    "dpmpp_2m": dpmpp_2m,
    "er_sde": er_sde,
}

SAMPLERS = tuple(_STEPPERS)

OPTIONS: dict[str, tuple[str, ...]] = {
    name: tuple(inspect.getfullargspec(stepper).kwonlyargs) for name, stepper in _STEPPERS.items()
}
"""The options of each sampler, by name."""


def sample(
    name: str,
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    coefficients: Coefficients,
    *,
    flow: bool = False,
    noise_sampler: NoiseSampler | None = None,
    zero_denoised: ZeroDenoised = noise_or_flow,
    callback: Callable[[dict[str, Any]], None] | None = None,
    precision: Precision | None = None,
    **options: float | Tensor | None,
) -> Tensor:
    """Sample x_0 (B, …) from x (B, …) at ``sigmas[0]`` with one model evaluation per step.

    ``sigmas`` (n + 1,) descend, to 0 or to where the run shall end; ``coefficients`` have n steps. ``flow`` says that
    x is (1-sigma)·x0 + sigma·noise. ``noise_sampler`` is asked once per step that adds noise; else it is torch's.
    ``callback`` gets {"i", "x", "sigma", "sigma_hat", "denoised"} before each update, x and denoised as the update
    uses them. ``precision`` is what the packed layers inside the model round activations to, found again by sigma.

    Options (``OPTIONS`` lists the names; each sampler's docstring has its source):
        euler, dpmpp_2m: none.
        euler_ancestral: ``eta`` = 1 (0 adds no noise), ``s_noise`` = 1 multiplies the fresh noise.
        lcm: ``s_noise`` = 1.
        tcd: ``eta`` = 0.3 in [0, 1], the paper's gamma; ``table`` (T,), the ascending sigmas of the training
            timesteps. Not needed where ``flow`` or ``eta`` = 0.
        res_multistep: ``eta`` = 0 (1 is ComfyUI's res_multistep_ancestral), ``s_noise`` = 1.
        er_sde: ``s_noise`` = 1, ``max_stage`` = 3 in {1, 2, 3}, ``first_sigma`` in (0, 1), what
            stands in for a first sigma >= 1 of a flow model (ComfyUI: ``model_sampling.percent_to_sigma(1e-4)``).
    A host's own noise scale (ComfyUI: ``model_sampling.noise_scale``) belongs into ``s_noise``.

    Raises:
        SamplingError: unknown name or option, an option out of range, or a prediction that is not finite.
        CoefficientError: another number of steps than the sigmas have.
    """
    if name not in _STEPPERS:
        raise SamplingError(f"no sampler is called {name!r}.", f"use one of {', '.join(SAMPLERS)}", name=name)
    _check_options(name, options)
    steps = len(sigmas) - 1
    if len(coefficients) != steps:
        raise CoefficientError(
            f"coefficients and steps differ in number: {len(coefficients)} and {steps}.",
            "call coefficients.for_sigmas(its own sigmas, sigmas)",
            steps=steps,
        )
    fresh = noise_sampler or (lambda sigma, sigma_next: torch.randn_like(x))
    bits = None if precision is None else precision.for_sigmas(sigmas.tolist())
    run = SamplerRun(model, coefficients, sigmas, flow, fresh, zero_denoised, callback, bits)
    return _STEPPERS[name](run, x, **options)


def _check_options(name: str, options: dict[str, Any]) -> None:
    for option in options:
        if option not in OPTIONS[name]:
            names = ", ".join(OPTIONS[name])
            raise SamplingError(
                f"{name} has no option {option!r}.",
                f"use {names}" if names else "leave it out, there are none",
                name=name,
                option=option,
            )
