"""Samplers whose update uses this step's prediction only."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import SamplingError
from .evaluate import SamplerRun


def ancestral_step(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor | float]:
    """(sigma_down, sigma_up) of Karras et al.'s ancestral step; with ``eta`` 0 exactly (sigma_next, 0)."""
    if eta == 0:
        return sigma_next, 0.0
    sigma_up = min(sigma_next, eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
    return (sigma_next**2 - sigma_up**2) ** 0.5, sigma_up


def euler(run: SamplerRun, x: Tensor) -> Tensor:
    """Algorithm 2 (Euler steps) of Karras et al. (arXiv 2206.00364); flow models take the same step."""
    sigmas = run.sigmas
    for i in range(run.steps):
        x, denoised = run.evaluate(i, x)
        d = (x - denoised) / sigmas[i]
        x = x + d * (sigmas[i + 1] - sigmas[i])
    return x


def euler_ancestral(run: SamplerRun, x: Tensor, *, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """Euler to sigma_down, then fresh noise up to the next sigma (k-diffusion)."""
    if run.flow:
        return _euler_ancestral_flow(run, x, eta, s_noise)
    sigmas = run.sigmas
    for i in range(run.steps):
        x, denoised = run.evaluate(i, x)
        sigma_down, sigma_up = ancestral_step(sigmas[i], sigmas[i + 1], eta)
        if sigma_down == 0:
            x = denoised
            continue
        d = (x - denoised) / sigmas[i]
        x = x + d * (sigma_down - sigmas[i])
        if eta != 0:
            x = x + run.fresh_noise(i) * s_noise * sigma_up
    return x


def _euler_ancestral_flow(run: SamplerRun, x: Tensor, eta: float, s_noise: float) -> Tensor:
    """The ancestral step on x = (1-sigma)·x0 + sigma·noise: step below the next sigma, rescale, add fresh noise."""
    sigmas = run.sigmas
    for i in range(run.steps):
        x, denoised = run.evaluate(i, x)
        if sigmas[i + 1] == 0:
            x = denoised
            continue
        sigma_down = sigmas[i + 1] * (1 + (sigmas[i + 1] / sigmas[i] - 1) * eta)
        alpha_next, alpha_down = 1 - sigmas[i + 1], 1 - sigma_down
        renoise = (sigmas[i + 1] ** 2 - sigma_down**2 * alpha_next**2 / alpha_down**2) ** 0.5
        ratio = sigma_down / sigmas[i]
        x = ratio * x + (1 - ratio) * denoised
        if eta > 0:
            x = (alpha_next / alpha_down) * x + run.fresh_noise(i) * s_noise * renoise
    return x


def lcm(run: SamplerRun, x: Tensor, *, s_noise: float = 1.0) -> Tensor:
    """Multistep consistency sampling (Luo et al., arXiv 2310.04378): to x0, and fresh noise up to the next sigma.

    ``s_noise`` multiplies the fresh noise. Only D' of the scaled pair enters: x itself is dropped at each step.
    """
    sigmas = run.sigmas
    for i in range(run.steps):
        _, x = run.evaluate(i, x)
        if sigmas[i + 1] > 0:
            noise = run.fresh_noise(i) * s_noise
            signal = (1 - sigmas[i + 1]) * x if run.flow else x
            x = signal + sigmas[i + 1] * noise
    return x


def tcd(run: SamplerRun, x: Tensor, *, eta: float = 0.3, table: Tensor | None = None) -> Tensor:
    """Strategic stochastic sampling of Trajectory Consistency Distillation (Zheng et al., arXiv 2402.19159).

    Down to sigma_s, below the next sigma, then fresh noise up to it. ``eta`` in [0, 1] is the paper's gamma: 0 steps
    right to the next sigma, without noise. sigma_s stands at timestep floor((1-eta)·t) of ``table`` (T,), the ascending
    sigmas of the training timesteps, where t is the next sigma's; flow models need no table, their sigma_s is
    (1-eta)·sigma_next.

    A last sigma of 0 gives D'. A last sigma of ``table[0]``, where diffusers' TCDScheduler ends, gives x there; it is
    timestep 0, so sigma_s is the same and no noise comes. Any other last sigma is a point on the way, with its noise.

    Raises:
        SamplingError: eta out of range; a table that is missing, not (T,), or not positive and ascending.
    """
    sigmas, lower = run.sigmas, _lower_sigmas(run, eta, table)
    for i in range(run.steps):
        x, denoised = run.evaluate(i, x)
        sigma, sigma_next, sigma_s = sigmas[i], sigmas[i + 1], lower[i]
        if sigma_next == 0:
            x = denoised
            continue
        alpha, alpha_next, alpha_s = (1 - s if run.flow else torch.ones_like(s) for s in (sigma, sigma_next, sigma_s))
        noise_of_x = (x - alpha * denoised) / sigma
        x = alpha_s * denoised + sigma_s * noise_of_x
        if sigma_s < sigma_next:
            gain = alpha_next / alpha_s
            x = gain * x + (sigma_next**2 - (gain * sigma_s) ** 2).sqrt() * run.fresh_noise(i)
    return x


def _lower_sigmas(run: SamplerRun, eta: float, table: Tensor | None) -> Tensor:
    """sigma_s (n,) of each of the n steps, at most the sigma that the step leads to."""
    after = run.sigmas[1:]
    if not 0 <= eta <= 1:
        raise SamplingError(f"tcd's eta is {eta}.", "use 0 (no noise) to 1", name="tcd", eta=eta)
    if eta == 0:
        return after
    if run.flow:
        return (1 - eta) * after
    if table is None:
        raise SamplingError(
            "tcd needs the sigmas of the training timesteps.", "pass table= (T,) ascending, or eta=0", name="tcd"
        )
    if table.ndim != 1 or len(table) == 0 or not table[0] > 0 or not (table.diff() > 0).all():
        raise SamplingError("tcd's table is not an ascending list.", "pass positive sigmas, (T,)", name="tcd")
    table = table.to(after)
    timesteps = (table.log() - after.log()[:, None]).abs().argmin(dim=1)
    # float32 whatever the sigmas are: the published scheduler rounds here, and the floor must fall as it does there.
    lower = torch.floor((1 - eta) * timesteps.to(torch.float32)).long()
    # A sigma between two of the table may lie below the entry that stands for it.
    return torch.minimum(table[lower], after)
