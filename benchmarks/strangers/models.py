"""Strangers' nets as things to sample: grey pictures from a seed, in few steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

import qsched_core as qs

from ..terrain_rounding import network as terrain_network
from . import galaxies
from .packages import fetch

TERRAIN = (
    "adaptive-terrain-diffusion",
    "0.4.2",
    "dd803be2c98d764e4e64db18c631eef46c210282b398c4dd080f4cda3fa7c84d",
    "terrain_diffusion/weights/terrain_consistency_unet_difficulty100.onnx",
)
BATCH = 16


@dataclass(frozen=True)
class Stranger:
    """``asks_for(i)``: what prompt i asks for, in [0, 1]. ``white``: values that are shown black and white.
    ``precision``: the bits of each step."""

    name: str
    network: nn.Module
    denoiser: Callable
    shape: tuple[int, int]
    sigmas: tuple[float, ...]
    sampler: str
    white: tuple[float, float]
    conditional: bool
    prompts: int
    fresh: int
    seeds: int
    precision: qs.Precision | None = None

    def asks_for(self, prompt: int, prompts: int) -> float:
        return (prompt + 0.5) / prompts if self.conditional else 0.5

    def quantized(self, form: str) -> Stranger:
        """Fitted to what the full net sees on three noises, as the node does by default."""
        observation = qs.observe(self.network, lambda: self.generator(3, 77)(self.identity(), range(3)))
        network = copy.deepcopy(self.network)
        qs.quantize(network, form, backend="torch", observation=observation)
        return replace(self, network=network)

    def identity(self) -> qs.Coefficients:
        return qs.Coefficients.identity(len(self.sigmas) - 1)

    def in_steps(self, steps: int) -> Stranger:
        return replace(self, sigmas=karras(self.sigmas[0], self.sigmas[-2], steps))

    def generator(self, prompts: int, seed: int) -> Callable[[qs.Coefficients, Sequence[int]], Tensor]:
        """generate(coefficients, indices) -> pictures (B, side, side, 3) in [0, 1]."""

        @torch.inference_mode()
        def generate(coefficients: qs.Coefficients, indices: Sequence[int]) -> Tensor:
            parts = [list(indices)[start : start + BATCH] for start in range(0, len(indices), BATCH)]
            return torch.cat([self.pictures_of(self.sampled(coefficients, part, prompts, seed)) for part in parts])

        return generate

    def sampled(self, coefficients: qs.Coefficients, indices: Sequence[int], prompts: int, seed: int) -> Tensor:
        """What the sampler ends with (B, 1, height, width), in the net's own units."""
        steps = len(self.sigmas) - 1 if self.sampler == "lcm" else 1
        draws = [np.random.default_rng((seed, i)).standard_normal((steps, 1, *self.shape), np.float32) for i in indices]
        noises = iter(torch.from_numpy(np.stack(draws, axis=1)))
        wishes = torch.tensor([self.asks_for(i % prompts, prompts) for i in indices])
        return qs.sample(
            self.sampler, self.denoiser(self.network, wishes), next(noises) * self.sigmas[0], torch.tensor(self.sigmas),
            coefficients, noise_sampler=lambda sigma, after: next(noises), precision=self.precision,
        )  # fmt: skip

    def pictures_of(self, x: Tensor) -> Tensor:
        """Pictures (B, height, width, 3) in [0, 1] of what the sampler ends with."""
        black, white = self.white
        return ((x - black) / (white - black)).clamp(0, 1).movedim(1, -1).expand(-1, -1, -1, 3).contiguous()


def karras(first: float, last: float, steps: int) -> tuple[float, ...]:
    """Sigmas (steps + 1,) of Karras et al. (2022), rho 7, ending in 0."""
    return (*(np.linspace(first ** (1 / 7), last ** (1 / 7), steps) ** 7).tolist(), 0.0)


def wish_denoiser(net: nn.Module, wishes: Tensor):
    return lambda x, sigma: net(x, sigma, wishes)


def galaxy(side: int) -> Stranger:
    """Log-brightness of galaxies of the HSC survey, in 8 steps from where training ends."""
    net = galaxies.load(f"eqx_hsc_ScoreNet{side}", side)
    return Stranger(
        f"galaxies {side} x {side}", net, lambda net, _: galaxies.denoiser(net), (side, side),
        karras(148.0, 0.05, 8), "euler", (-0.2, 7.0), conditional=False, prompts=24, fresh=96, seeds=4,
    )  # fmt: skip


def terrain() -> Stranger:
    """Heights of terrain of an asked difficulty, in four steps of consistency sampling."""
    return Stranger(
        "terrain", terrain_network(fetch(*TERRAIN)), wish_denoiser, (128, 128),
        (80.0, 24.4, 5.84, 0.9, 0.0), "lcm", (-1.0, 1.0), conditional=True, prompts=16, fresh=32, seeds=2,
    )  # fmt: skip
