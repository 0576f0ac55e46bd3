"""Studies in a world of formulas: a "picture" is the pair (coefficients, index), and scores are functions of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from calibration import Result, Settings, calibrate
from qsched_core import Coefficients

N_PROMPTS, N_STEPS = 12, 4
Picture = tuple[Coefficients, int]


def quick(**changed) -> Settings:
    """Few trials, all of them scattered points (a search without the Gaussian process takes milliseconds), and each on
    all prompts at once. Most worlds here have no reference model: what they find is taken without one."""
    defaults = {"space": "last step", "radius": 0.2, "trials": 6, "seeds": 2, "strategy": "random", "race": False}
    return Settings(**{**defaults, "accept": "re-tuning", **changed})


def own(index: int) -> float:
    """What a prompt and its noise bring of themselves: the same in every candidate's row."""
    return math.sin(12.9898 * index + 1.0)


def hill(coefficients: Coefficients) -> float:
    """0 at c_x = 0.95, c_eps = 1.1 in the last step, about -0.5 at the identity."""
    c_x, c_eps = coefficients.at(len(coefficients) - 1)
    return -40 * ((c_x - 0.95) ** 2 + (c_eps - 1.1) ** 2)


def better(picture: Picture) -> float:
    """A real gain, not the same on every prompt."""
    coefficients, index = picture
    return own(index) + hill(coefficients) * (1 + 0.3 * math.cos(index % N_PROMPTS))


def indifferent(picture: Picture) -> float:
    """Two identical models: the coefficients do nothing."""
    return own(picture[1])


def noisy(picture: Picture) -> float:
    """Pure noise, new for every candidate and picture, and the same when asked again."""
    coefficients, index = picture
    generator = np.random.default_rng(abs(hash((coefficients.c_x, coefficients.c_eps, index))))
    return generator.normal()


@dataclass
class World:
    """``value`` is the JAQ of a picture: half of it TC, the rest k·IQ."""

    value: Callable[[Picture], float] = better
    generated: list[tuple[Coefficients, tuple[int, ...]]] = field(default_factory=list)

    def generate(self, coefficients: Coefficients, indices: Sequence[int]) -> list[Picture]:
        self.generated.append((coefficients, tuple(indices)))
        return [(coefficients, index) for index in indices]

    def score(self, pictures: list[Picture], indices: Sequence[int]) -> dict[str, np.ndarray]:
        assert [index for _, index in pictures] == list(indices)
        values = np.array([self.value(picture) for picture in pictures])
        return {"tc": values / 2, "iq": values / 4}

    def calibrate(self, settings: Settings | None = None, n_steps: int = N_STEPS, **options) -> Result:
        return calibrate(self.generate, self.score, N_PROMPTS, n_steps, settings or quick(), **options)
