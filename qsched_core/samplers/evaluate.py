"""One evaluation of the model as every sampler sees it, with the two lines of Q-Sched in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..coefficients import Coefficients
from ..errors import SamplingError
from ..precision import Precision
from ..precondition import precondition_denoised, precondition_sample
from ..step_bits import least_activation_bits

Model = Callable[[Tensor, Tensor], Tensor]
"""model(x (B, …), sigma (B,)) -> denoised (B, …)"""
ZeroDenoised = Callable[[Tensor, Tensor], Tensor]
"""zero_denoised(x (B, …), sigma (B,)) -> D0 (B, …), see ``precondition_denoised``"""
NoiseSampler = Callable[[Tensor, Tensor], Tensor]
"""noise_sampler(sigma, sigma_next) -> unit noise shaped as x"""


def noise_or_flow(x: Tensor, sigma: Tensor) -> Tensor:
    """D0 of models that predict noise or a flow: x itself."""
    return x


@dataclass(frozen=True)
class SamplerRun:
    """What one run of a sampler is made of. Samplers loop over ``steps`` and call ``evaluate`` once in each."""

    model: Model
    coefficients: Coefficients
    sigmas: Tensor
    flow: bool
    noise_sampler: NoiseSampler
    zero_denoised: ZeroDenoised
    callback: Callable[[dict[str, Any]], None] | None
    precision: Precision | None = None

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    def evaluate(self, step: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """(x', D') of this step, to be used instead of x. Where both coefficients are 1, x' is x, the same tensor."""
        sigma = self.sigmas[step]
        sigma_batch = sigma * x.new_ones([x.shape[0]])
        bits = 0 if self.precision is None else self.precision.activation_bits[step]
        with least_activation_bits(bits) if bits else nullcontext():
            denoised = self.model(x, sigma_batch)
        c_x, c_eps = self.coefficients.at(step)
        check_finite(denoised, step, float(sigma), (c_x, c_eps))
        if not c_x == c_eps == 1.0:
            denoised = precondition_denoised(denoised, self.zero_denoised(x, sigma_batch), c_x, c_eps)
            x = precondition_sample(x, c_x)
        if self.callback is not None:
            self.callback({"i": step, "x": x, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        return x, denoised

    def fresh_noise(self, step: int) -> Tensor:
        return self.noise_sampler(self.sigmas[step], self.sigmas[step + 1])


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
