"""Few-step samplers without a host: ``f(model, x, sigmas, coefficients, …)``, after k-diffusion's call shape.

Symbols are k-diffusion's: x in the space of the sigmas (x = x0 + σ·noise, or (1−σ)·x0 + σ·noise for flow),
``denoised`` is the model's prediction of x0, ``d`` its derivative to sigma. With the identity each equals the
sampler of the same name in ComfyUI bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .coefficients import Coefficients
from .errors import CoefficientError, SamplingError
from .precondition import precondition_denoised, precondition_sample

Model = Callable[[Tensor, Tensor], Tensor]
"""model(x (B, …), sigma (B,)) → denoised (B, …)"""
ZeroDenoised = Callable[[Tensor, Tensor], Tensor]
"""zero_denoised(x, sigma) → D0, see ``precondition_denoised``"""
NoiseSampler = Callable[[Tensor, Tensor], Tensor]
"""noise_sampler(sigma, sigma_next) → unit noise shaped as x"""


def _noise_or_flow(x: Tensor, sigma: Tensor) -> Tensor:
    return x


class _Evaluator:
    """Runs the model at a step and hands the sampler what it may use: the scaled x and the D that belongs to it."""

    def __init__(self, model: Model, coefficients: Coefficients, sigmas: Tensor, zero_denoised: ZeroDenoised):
        self.model, self.coefficients, self.sigmas, self.zero_denoised = model, coefficients, sigmas, zero_denoised

    def __call__(self, step: int, x: Tensor) -> tuple[Tensor, Tensor]:
        sigma = self.sigmas[step] * x.new_ones([x.shape[0]])
        denoised = self.model(x, sigma)
        check_finite(denoised, step, float(self.sigmas[step]), self.coefficients.at(step))
        c_x, c_eps = self.coefficients.at(step)
        if c_x == 1.0 and c_eps == 1.0:
            return x, denoised
        denoised = precondition_denoised(denoised, self.zero_denoised(x, sigma), c_x, c_eps)
        return precondition_sample(x, c_x), denoised


def check_finite(denoised: Tensor, step: int, sigma: float, coefficients: tuple[float, float]) -> None:
    """Raises SamplingError naming the step, sigma and coefficients when a prediction is NaN or infinite."""
    if not torch.isfinite(denoised).all():
        c_x, c_eps = coefficients
        raise SamplingError(
            f"step {step + 1} (sigma {sigma:.4g}, c_x {c_x:.4g}, c_eps {c_eps:.4g}) is not finite.",
            "use c_x and c_eps nearer to 1, or another precision",
            step=step,
            sigma=sigma,
            c_x=c_x,
            c_eps=c_eps,
        )


def ancestral_step(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """(sigma_down, sigma_up) of Karras et al.'s ancestral step, eta in [0, 1]."""
    sigma_up = min(sigma_next, eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
    return (sigma_next**2 - sigma_up**2) ** 0.5, sigma_up


def _euler(evaluate: _Evaluator, x: Tensor, sigmas: Tensor, callback, noise_sampler) -> Tensor:
    """Algorithm 2 (Euler steps) of Karras et al. (2022); flow models take the same step."""
    for i in range(len(sigmas) - 1):
        x, denoised = evaluate(i, x)
        callback(i, x, denoised)
        d = (x - denoised) / sigmas[i]
        x = x + d * (sigmas[i + 1] - sigmas[i])
    return x


def _euler_ancestral(
    evaluate: _Evaluator, x: Tensor, sigmas: Tensor, callback, noise_sampler, *, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """Euler to sigma_down, then fresh noise up to the next sigma (k-diffusion)."""
    for i in range(len(sigmas) - 1):
        x, denoised = evaluate(i, x)
        callback(i, x, denoised)
        sigma_down, sigma_up = ancestral_step(sigmas[i], sigmas[i + 1], eta)
        if sigma_down == 0:
            x = denoised
            continue
        d = (x - denoised) / sigmas[i]
        x = x + d * (sigma_down - sigmas[i]) + noise_sampler(sigmas[i], sigmas[i + 1]) * s_noise * sigma_up
    return x


def _euler_ancestral_flow(
    evaluate: _Evaluator, x: Tensor, sigmas: Tensor, callback, noise_sampler, *, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """The ancestral step on x = (1−σ)·x0 + σ·noise: step below the next sigma, rescale, add fresh noise."""
    for i in range(len(sigmas) - 1):
        x, denoised = evaluate(i, x)
        callback(i, x, denoised)
        if sigmas[i + 1] == 0:
            x = denoised
            continue
        sigma_down = sigmas[i + 1] * (1 + (sigmas[i + 1] / sigmas[i] - 1) * eta)
        alpha_next, alpha_down = 1 - sigmas[i + 1], 1 - sigma_down
        renoise = (sigmas[i + 1] ** 2 - sigma_down**2 * alpha_next**2 / alpha_down**2) ** 0.5
        ratio = sigma_down / sigmas[i]
        x = ratio * x + (1 - ratio) * denoised
        if eta > 0:
            fresh = noise_sampler(sigmas[i], sigmas[i + 1]) * s_noise * renoise
            x = (alpha_next / alpha_down) * x + fresh
    return x


_STEPPERS = {"euler": _euler, "euler_ancestral": _euler_ancestral, "euler_ancestral_flow": _euler_ancestral_flow}

SAMPLERS = tuple(_STEPPERS)


def sample(
    name: str,
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    coefficients: Coefficients,
    *,
    noise_sampler: NoiseSampler | None = None,
    zero_denoised: ZeroDenoised = _noise_or_flow,
    callback: Callable[[dict[str, Any]], None] | None = None,
    **options: float,
) -> Tensor:
    """Sample x_0 (B, …) from x (B, …) at ``sigmas[0]`` with one model evaluation per step.

    ``sigmas`` (n + 1,) descend; ``coefficients`` have n steps. ``callback`` gets {"i", "x", "sigma", "denoised"}
    before each update, x and denoised as the update uses them.

    Raises:
        SamplingError: unknown name, or a prediction that is not finite.
        CoefficientError: another number of steps than the sigmas have.
    """
    if name not in _STEPPERS:
        raise SamplingError(f"no sampler is called {name!r}.", f"use one of {', '.join(SAMPLERS)}", name=name)
    steps = len(sigmas) - 1
    if len(coefficients) != steps:
        raise CoefficientError(
            f"{len(coefficients)} coefficients for {steps} steps.", "call coefficients.resample(steps)", steps=steps
        )

    def report(i: int, x: Tensor, denoised: Tensor) -> None:
        if callback is not None:
            callback({"i": i, "x": x, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})

    fresh = noise_sampler or (lambda sigma, sigma_next: torch.randn_like(x))
    return _STEPPERS[name](_Evaluator(model, coefficients, sigmas, zero_denoised), x, sigmas, report, fresh, **options)
