"""Samplers that remember earlier predictions. What they remember is D', the prediction of the scaled pair."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..errors import SamplingError
from .evaluate import SamplerRun
from .one_step import ancestral_step

ER_INTEGRAL_POINTS = 200
"""Points of the ER-SDE integrals, as many as the authors take."""


# There and back as k-diffusion goes, with l for lambda: sigma / sigma' is not the same float as exp(l' - l) or
# exp(-l) / exp(-l').
def _lambda(sigma: Tensor) -> Tensor:
    return sigma.log().neg()


def _sigma(value: Tensor) -> Tensor:
    return value.neg().exp()


def dpmpp_2m(run: SamplerRun, x: Tensor) -> Tensor:
    """DPM-Solver++(2M) of Lu et al. (arXiv 2211.01095); first and last step are of order one."""
    sigmas, before = run.sigmas, None
    for i in range(run.steps):
        x, denoised = run.evaluate(i, x)
        here, there = _lambda(sigmas[i]), _lambda(sigmas[i + 1])
        h, target = there - here, denoised
        if before is not None and sigmas[i + 1] > 0:
            r = (here - _lambda(sigmas[i - 1])) / h
            target = (1 + 1 / (2 * r)) * denoised - (1 / (2 * r)) * before
        x = (_sigma(there) / _sigma(here)) * x - (-h).expm1() * target
        before = denoised
    return x


def res_multistep(run: SamplerRun, x: Tensor, *, eta: float = 0.0, s_noise: float = 1.0) -> Tensor:
    """The multistep form of RES (Zhang et al., arXiv 2308.02157), of order two; first and last step are Euler's.

    ``eta`` > 0 steps to sigma_down and adds fresh noise, multiplied by ``s_noise``: 1 is ComfyUI's
    res_multistep_ancestral. Like there, that noise is for x = x0 + sigma·noise whatever the model.
    """
    sigmas, before, down_before = run.sigmas, None, None
    for i in range(run.steps):
        x, denoised = run.evaluate(i, x)
        sigma_down, sigma_up = ancestral_step(sigmas[i], sigmas[i + 1], eta)
        if before is None or sigma_down == 0:
            d = (x - denoised) / sigmas[i]
            x = x + d * (sigma_down - sigmas[i])
        else:
            h = _lambda(sigma_down) - _lambda(sigmas[i])
            c2 = (_lambda(sigmas[i - 1]) - _lambda(down_before)) / h
            b1, b2 = _res_weights(h, c2)
            x = _sigma(h) * x + h * (b1 * denoised + b2 * before)
        if eta != 0 and sigmas[i + 1] > 0:
            x = x + run.fresh_noise(i) * s_noise * sigma_up
        before, down_before = denoised, sigma_down
    return x


def _res_weights(h: Tensor, c2: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of this and the last D for a step h in lambda, with the last one at c2·h (c2 < 0)."""
    phi1 = torch.expm1(-h) / -h
    phi2 = (phi1 - 1.0) / -h
    # Two equal sigmas make 0/0, where nothing moves.
    return torch.nan_to_num(phi1 - phi2 / c2, nan=0.0), torch.nan_to_num(phi2 / c2, nan=0.0)


def er_sde(
    run: SamplerRun, x: Tensor, *, s_noise: float = 1.0, max_stage: int = 3, first_sigma: float | None = None
) -> Tensor:
    """VP ER-SDE-Solver-3 (Cui et al., arXiv 2309.06169), with the noise scale its authors recommend.

    ``s_noise`` multiplies the fresh noise, 0 adds none. ``max_stage`` in {1, 2, 3} is the highest order. A flow model's
    first sigma of 1 has no signal-to-noise ratio: ``first_sigma`` in (0, 1) takes its place, for the model too. It is
    not used otherwise, so a caller may always give it.

    Raises:
        SamplingError: max_stage or first_sigma out of range, or first_sigma missing where it is needed.
    """
    if max_stage not in (1, 2, 3):
        raise SamplingError(f"er_sde's max_stage is {max_stage}.", "use 1, 2 or 3", name="er_sde", max_stage=max_stage)
    run = _below_one(run, first_sigma)
    sigmas = run.sigmas
    lambdas = (sigmas.logit() if run.flow else sigmas.log()).exp()
    before = slope_before = None
    for i in range(run.steps):
        x, denoised = run.evaluate(i, x)
        if sigmas[i + 1] == 0:
            x, before = denoised, denoised
            continue
        here, there = lambdas[i], lambdas[i + 1]
        alpha_here, alpha_there = sigmas[i] / here, sigmas[i + 1] / there
        r, dt = _er_scale(there) / _er_scale(here), there - here
        x = (alpha_there / alpha_here) * r * x + alpha_there * (1 - r) * denoised
        if min(max_stage, i + 1) >= 2:
            inverse, ramp = _er_integrals(here, there)
            slope = (denoised - before) / (here - lambdas[i - 1])
            x = x + alpha_there * (dt + inverse * _er_scale(there)) * slope
            if slope_before is not None and max_stage == 3:
                bend = (slope - slope_before) / ((here - lambdas[i - 2]) / 2)
                x = x + alpha_there * ((dt**2) / 2 + ramp * _er_scale(there)) * bend
            slope_before = slope
        if s_noise > 0:
            deviation = (there**2 - here**2 * r**2).sqrt().nan_to_num(nan=0.0)
            x = x + alpha_there * run.fresh_noise(i) * s_noise * deviation
        before = denoised
    return x


def _below_one(run: SamplerRun, first_sigma: float | None) -> SamplerRun:
    """The run with a first sigma whose signal-to-noise ratio exists."""
    if not run.flow or run.sigmas[0] < 1:
        return run
    if first_sigma is None or not 0 < first_sigma < 1:
        raise SamplingError(
            f"er_sde cannot start a flow at sigma {float(run.sigmas[0]):.4g}.",
            f"pass first_sigma, just below 1 (it is {first_sigma})",
            name="er_sde",
            first_sigma=first_sigma,
        )
    sigmas = run.sigmas.clone()
    sigmas[0] = first_sigma
    return replace(run, sigmas=sigmas)


def _er_scale(value: Tensor) -> Tensor:
    return value * ((value**0.3).exp() + 10.0)


def _er_integrals(here: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """The integrals of 1/scale and of (lambda - here)/scale from ``there`` up to ``here``, as left sums."""
    step = -(there - here) / float(ER_INTEGRAL_POINTS)
    places = there + torch.arange(ER_INTEGRAL_POINTS, dtype=there.dtype, device=there.device) * step
    scales = _er_scale(places)
    return torch.sum(1 / scales) * step, torch.sum((places - here) / scales) * step
