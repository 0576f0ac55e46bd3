"""Every sampler's trajectory as numbers in a file, so that a change of any update is seen, and is a decision.

Nothing here is drawn: latents, noises and the network are closed forms, so the numbers hold for every torch.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import qsched_core as qs
from qsched_core import Coefficients

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "trajectories.json"
COEFFICIENTS = Coefficients((0.93, 0.97, 1.02, 1.05), (0.88, 0.95, 1.04, 1.08))
SIGMAS = {False: (14.6, 6.1, 2.3, 0.7, 0.0), True: (1.0, 0.85, 0.6, 0.3, 0.0)}
# Of float64, relative to the norm: what other processors and torch versions may round differently in four steps.
TOLERANCE = 1e-10

Convert = Callable[[Tensor, Tensor, Tensor], Tensor]
PREDICTIONS: dict[str, Convert] = {
    "eps": lambda output, x, sigma: x - sigma * output,
    "v": lambda output, x, sigma: x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5,
    "x0": lambda output, x, sigma: output,
    "flow": lambda output, x, sigma: x - sigma * output,
}
TABLE = torch.tensor([0.03 * 1.15**k for k in range(45)], dtype=torch.float64)
"""0.03 … 14.1"""
SAMPLERS = {
    "euler": ("euler", {}),
    "euler_ancestral": ("euler_ancestral", {}),
    "lcm": ("lcm", {}),
    "tcd": ("tcd", {"table": TABLE}),
    "res_multistep": ("res_multistep", {}),
    "res_multistep_ancestral": ("res_multistep", {"eta": 1.0}),
    "dpmpp_2m": ("dpmpp_2m", {}),
    "er_sde": ("er_sde", {"first_sigma": 0.9999}),
}


def wave(offset: float) -> Tensor:
    """(1, 2, 4, 4), about as large as unit noise."""
    values = [math.sqrt(2) * math.sin(offset + 1.7 * k + 0.31 * k * k) for k in range(32)]
    return torch.tensor(values, dtype=torch.float64).view(1, 2, 4, 4)


def network(x: Tensor, sigma: Tensor) -> Tensor:
    """About 1 large, and each value depends on others."""
    scaled = (x + 0.5 * x.roll(1, dims=-1) - 0.3 * x.flip(1)) / (1 + sigma**2) ** 0.5
    return scaled / (1 + scaled**2) ** 0.5 + 0.2 / (1 + sigma)


def trajectory(sampler: str, prediction: str) -> list[list[float]]:
    """For the start of each step, as its update sees it, and for the end: the first three values of x and its norm."""
    name, options = SAMPLERS[sampler]
    convert, flow = PREDICTIONS[prediction], prediction == "flow"
    sigmas = torch.tensor(SIGMAS[flow], dtype=torch.float64)
    noises: list[Tensor] = []
    passed: list[Tensor] = []

    def noise(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        noises.append(wave(10.0 + 2.3 * len(noises)))
        return noises[-1]

    final = qs.sample(
        name,
        lambda x, sigma: convert(network(x, sigma), x, sigma),
        sigmas[0] * wave(0.4),
        sigmas,
        COEFFICIENTS,
        flow=flow,
        noise_sampler=noise,
        zero_denoised=lambda x, sigma: convert(torch.zeros_like(x), x, sigma),
        callback=lambda event: passed.append(event["x"]),
        **options,
    )
    return [[*x.flatten()[:3].tolist(), x.norm().item()] for x in (*passed, final)]


CASES = [f"{sampler}/{prediction}" for sampler in SAMPLERS for prediction in PREDICTIONS]


@pytest.fixture(scope="module")
def golden() -> dict[str, list[list[float]]]:
    """QSCHED_WRITE_GOLDEN=1 writes anew."""
    if os.environ.get("QSCHED_WRITE_GOLDEN"):
        trajectories = {case: trajectory(*case.split("/")) for case in CASES}
        lines = [
            f" {json.dumps(case)}: [\n  " + ",\n  ".join(json.dumps(x) for x in states) + "\n ]"
            for case, states in trajectories.items()
        ]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_the_file_holds_every_sampler_and_prediction(golden):
    assert list(golden) == CASES
    assert {name for name, _ in SAMPLERS.values()} == set(qs.SAMPLERS)


@pytest.mark.parametrize("case", CASES)
def test_trajectories_are_the_golden_ones(golden, case):
    result, expected = trajectory(*case.split("/")), golden[case]
    assert len(result) == len(expected) == len(COEFFICIENTS) + 1
    for step, (ours, theirs) in enumerate(zip(result, expected, strict=True)):
        assert ours == pytest.approx(theirs, rel=TOLERANCE, abs=TOLERANCE * theirs[-1]), step


def test_no_two_of_them_are_the_same(golden):
    """A case that ran another sampler by mistake would be a promise about nothing."""
    ends = {tuple(states[-1]) for states in golden.values()}
    assert len(ends) == len(CASES)
