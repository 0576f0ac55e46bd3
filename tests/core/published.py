"""What the sampler tests share: stand-ins for networks, and the published updates in float64.

The updates are written from the papers (docs: s = c_x, m = c_eps), in the papers' own variables where those differ
from k-diffusion's: they multiply the sample by s and the network's raw output by m, then go on as printed.
``qs.sample`` only ever sees the denoised prediction.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qsched_core import Coefficients

STEPS = (1, 2, 3, 4, 8)
SHAPE = (2, 4, 3, 3)
# Relative to the largest value of the reference. float64: 8 steps of a few roundings each. float32: the same, where
# x is up to 15 and D about 1, so that x - D carries 15 units in the last place.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def falling_sigmas(first: float, steps: int, seed: int) -> Tensor:
    """Descending to 0, each 0.25 … 0.85 of the one before, as few-step schedules are."""
    draw = random.Random(seed)
    sigmas = [first]
    for _ in range(steps - 1):
        sigmas.append(sigmas[-1] * draw.uniform(0.25, 0.85))
    return torch.tensor([*sigmas, 0.0], dtype=torch.float64)


def random_coefficients(steps: int, seed: int) -> Coefficients:
    draw = random.Random(1000 + seed)
    return Coefficients(*(tuple(draw.uniform(0.7, 1.3) for _ in range(steps)) for _ in range(2)))


def noises(steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(SHAPE, dtype=torch.float64, generator=generator) for _ in range(steps)]


def start(first_sigma: float) -> Tensor:
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * first_sigma


def network(x: Tensor, sigma: Tensor) -> Tensor:
    """A smooth stand-in for a network, with outputs about 1; the same function in every dtype."""
    mixed = x.roll(1, dims=1) * 0.7 + x.flip(-1) * 0.4 - x * 0.2
    return torch.tanh(mixed / (1 + sigma**2) ** 0.5 + 0.3 * torch.cos(sigma)) + 0.1 * x / (1 + sigma**2) ** 0.5


@dataclass(frozen=True)
class Parameterisation:
    """``convert(output, x, sigma)`` -> denoised."""

    convert: Callable[[Tensor, Tensor, Tensor], Tensor]

    def model(self, x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (x.shape[0],)
        sigma = sigma.view(-1, 1, 1, 1)
        return self.convert(network(x, sigma), x, sigma)

    def zero_denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.convert(torch.zeros_like(x), x, sigma.view(-1, 1, 1, 1))

    def scaled(self, x: Tensor, sigma: Tensor, s: float, m: float) -> tuple[Tensor, Tensor]:
        """The scaled sample, and the denoised prediction that belongs to it and to the scaled raw output."""
        return s * x, self.convert(m * network(x, sigma), s * x, sigma)


def _lcm(output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    scaled_time = 10 * torch.log1p(sigma)
    c_skip, c_out = 0.25 / (scaled_time**2 + 0.25), scaled_time / (scaled_time**2 + 0.25) ** 0.5
    return c_skip * x + c_out * (x - sigma * output)


NOISE = Parameterisation(lambda output, x, sigma: x - sigma * output)
FLOW = NOISE  # the same line with sigma in [0, 1] and the velocity as output
OTHERS = {
    "v": Parameterisation(
        lambda output, x, sigma: x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5,
    ),
    "x0": Parameterisation(lambda output, x, sigma: output),
    "lcm": Parameterisation(_lcm),
}


@dataclass
class Replay:
    """A noise sampler that hands out prepared noises, and remembers for which sigmas it was asked."""

    prepared: list[Tensor]
    dtype: torch.dtype = torch.float64
    requests: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        self.requests.append((float(sigma), float(sigma_next)))
        return self.prepared[len(self.requests) - 1].to(self.dtype)


def relative(value: Tensor, reference: Tensor) -> float:
    return ((value.double() - reference).abs().max() / reference.abs().max()).item()


# --- updates in terms of the raw output, for noise and flow prediction


def euler(x: Tensor, sigmas: Tensor, coefficients: Coefficients) -> Tensor:
    """x_prev = s·x + m·eps·(sigma_next - sigma); flow-match Euler is the same with v."""
    for i in range(len(sigmas) - 1):
        s, m = coefficients.at(i)
        x = s * x + m * network(x, sigmas[i]) * (sigmas[i + 1] - sigmas[i])
    return x


def euler_ancestral(x: Tensor, sigmas: Tensor, coefficients: Coefficients, z: list[Tensor]) -> Tensor:
    """x_prev = s·x + m·eps·(sigma_down - sigma) + sigma_up·z (SDXL-Turbo)."""
    for i in range(len(sigmas) - 1):
        s, m = coefficients.at(i)
        sigma_down = sigmas[i + 1] ** 2 / sigmas[i]
        sigma_up = (sigmas[i + 1] ** 2 - sigma_down**2) ** 0.5
        x = s * x + m * network(x, sigmas[i]) * (sigma_down - sigmas[i]) + sigma_up * z[i]
    return x


def euler_ancestral_flow(x: Tensor, sigmas: Tensor, coefficients: Coefficients, z: list[Tensor], eta: float) -> Tensor:
    """Flow Euler on the scaled pair to sigma_down, then alpha rescaled and the variance filled up to sigma_next²."""
    for i in range(len(sigmas) - 1):
        s, m = coefficients.at(i)
        sigma, after = sigmas[i], sigmas[i + 1]
        down = after * (1 + (after / sigma - 1) * eta)
        x = s * x + m * network(x, sigma) * (down - sigma)
        gain = (1 - after) / (1 - down)
        x = gain * x + (after**2 - (gain * down) ** 2).clamp(min=0) ** 0.5 * z[i]
    return x


def tcd_flow(x: Tensor, sigmas: Tensor, coefficients: Coefficients, z: list[Tensor], eta: float) -> Tensor:
    """Flow Euler on the scaled pair to (1-eta)·sigma_next, then the same way up; no noise at the end."""
    for i in range(len(sigmas) - 1):
        s, m = coefficients.at(i)
        lower = (1 - eta) * sigmas[i + 1]
        x = s * x + m * network(x, sigmas[i]) * (lower - sigmas[i])
        gain = (1 - sigmas[i + 1]) / (1 - lower)
        x = gain * x + (sigmas[i + 1] ** 2 - (gain * lower) ** 2).clamp(min=0) ** 0.5 * z[i]
    return x


# --- updates in terms of the denoised prediction, for any parameterisation


def lcm(kind: Parameterisation, x: Tensor, sigmas: Tensor, coefficients: Coefficients, z: list[Tensor], flow: bool):
    """x_prev = sqrt(A_prev)·x0 + sqrt(1-A_prev)·z, the re-noising of LCMScheduler; (1-sigma)·x0 + sigma·z for flow."""
    for i in range(len(sigmas) - 1):
        _, x0 = kind.scaled(x, sigmas[i], *coefficients.at(i))
        after = sigmas[i + 1]
        if flow:
            x = (1 - after) * x0 + after * z[i]
        else:
            signal = 1 / (1 + after**2)
            x = (signal**0.5 * x0 + (1 - signal) ** 0.5 * z[i]) / signal**0.5
    return x


def dpmpp_2m(kind: Parameterisation, x: Tensor, sigmas: Tensor, coefficients: Coefficients, flow: bool) -> Tensor:
    """Algorithm 2 of DPM-Solver++, in its alpha, sigma, lambda of a variance preserving process.

    For flow models alpha is 1: ComfyUI, and so the core, takes lambda = -log sigma there too.
    """
    alpha = torch.ones_like(sigmas) if flow else 1 / (1 + sigmas**2) ** 0.5
    std = alpha * sigmas
    half_log_snr = (alpha / std).log()
    y, before = alpha[0] * x, None
    for i in range(len(sigmas) - 1):
        _, x0 = kind.scaled(y / alpha[i], sigmas[i], *coefficients.at(i))
        scaled, target = coefficients.c_x[i] * y, x0
        h = half_log_snr[i + 1] - half_log_snr[i]
        if before is not None and sigmas[i + 1] > 0:
            r = (half_log_snr[i] - half_log_snr[i - 1]) / h
            target = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * before
        y = std[i + 1] / std[i] * scaled - alpha[i + 1] * (torch.exp(-h) - 1) * target
        before = x0
    return y


def res_multistep(
    kind: Parameterisation, x: Tensor, sigmas: Tensor, coefficients: Coefficients, z: list[Tensor], eta: float
) -> Tensor:
    """dx/dlambda = D(lambda) - x integrated exactly, D a line in lambda = -log sigma through the last two."""
    before = end_before = None
    for i in range(len(sigmas) - 1):
        x, x0 = kind.scaled(x, sigmas[i], *coefficients.at(i))
        sigma, after = sigmas[i], sigmas[i + 1]
        up = eta * (after**2 * (sigma**2 - after**2) / sigma**2) ** 0.5
        down = (after**2 - up**2) ** 0.5
        if down == 0:
            x = x0
            continue
        h = math.log(sigma / down)
        # The last prediction stands as far back as the last step went without its noise.
        slope = 0.0 if before is None else (x0 - before) / math.log(sigmas[i - 1] / end_before)
        x = math.exp(-h) * x + (1 - math.exp(-h)) * x0 + (h - 1 + math.exp(-h)) * slope + up * z[i]
        before, end_before = x0, down
    return x


def er_sde(
    kind: Parameterisation,
    x: Tensor,
    sigmas: Tensor,
    coefficients: Coefficients,
    z: list[Tensor],
    flow: bool,
    stage: int,
) -> Tensor:
    """ER-SDE-Solver-1 to -3 on x/alpha, with the process x0 + lambda·noise; the integrals as 200 left rectangles."""

    def phi(value: float) -> float:
        return value * (math.exp(value**0.3) + 10)

    alphas = [1 - sigma if flow else 1.0 for sigma in sigmas.tolist()]
    lambdas = [sigma / alpha for sigma, alpha in zip(sigmas.tolist(), alphas, strict=True)]
    predictions: list[Tensor] = []
    slopes: list[Tensor] = []
    for i in range(len(sigmas) - 1):
        x, x0 = kind.scaled(x, sigmas[i], *coefficients.at(i))
        predictions.append(x0)
        if sigmas[i + 1] == 0:
            return x0
        here, there = lambdas[i], lambdas[i + 1]
        ratio, width = phi(there) / phi(here), (here - there) / 200
        places = [there + width * k for k in range(200)]
        y = ratio * x / alphas[i] + (1 - ratio) * x0
        if i >= 1:
            slopes.append((x0 - predictions[-2]) / (here - lambdas[i - 1]))
            if stage >= 2:
                area = sum(width / phi(place) for place in places)
                y = y + (there - here + phi(there) * area) * slopes[-1]
        if i >= 2 and stage >= 3:
            bend = 2 * (slopes[-1] - slopes[-2]) / (here - lambdas[i - 2])
            area = sum(width * (place - here) / phi(place) for place in places)
            y = y + ((there - here) ** 2 / 2 + phi(there) * area) * bend
        x = alphas[i + 1] * (y + math.sqrt(there**2 - (here * ratio) ** 2) * z[i])
    return x
