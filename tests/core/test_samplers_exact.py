"""Samplers where the exact answer is known: data ~ N(0, 0.5²), whose denoiser and trajectories are closed forms.

x at sigma has the deviation sqrt(alpha²·0.5² + sigma²), with alpha = 1, or 1 - sigma for flow, and a trajectory
of the probability flow ODE is a plain rescaling by the ratio of two of them.
"""

from __future__ import annotations

import math

import pytest
import torch
from in_turn import in_turn
from module_files import beside
from torch import Tensor

import qsched_core as qs
from qsched_core import Coefficients

SPREAD = 0.5
published = beside(__file__, "published")
STEPS, falling_sigmas = published.STEPS, published.falling_sigmas


def deviation(sigma: float, flow: bool = False) -> float:
    return math.hypot((1 - sigma if flow else 1.0) * SPREAD, sigma)


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    return x * SPREAD**2 / (SPREAD**2 + sigma.view(-1, 1) ** 2)


def gaussian_flow(x: Tensor, sigma: Tensor) -> Tensor:
    sigma = sigma.view(-1, 1)
    alpha = 1 - sigma
    return x * alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)


def smooth_sigmas(steps: int, flow: bool = False) -> Tensor:
    """Spacing without jumps, so that the order shows."""
    falling = 1 - torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return falling if flow else 10.0 * falling**3


def final_deviation(name: str, model, sigmas: Tensor, **options) -> float:
    """The deviation of the result, without chance: each row of x is one of the independent noises, at 1.

    Every step is linear here, so the result of all of them together has the sum of the rows' squares.
    """
    rows, calls = len(sigmas), []
    x = torch.zeros(rows, 1, dtype=torch.float64)
    x[0] = deviation(float(sigmas[0]), options.get("flow", False))

    def one_hot(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        calls.append(sigma)
        return torch.eye(rows, dtype=torch.float64)[len(calls)].view(rows, 1)

    identity = Coefficients.identity(rows - 1)
    return qs.sample(name, model, x, sigmas, identity, noise_sampler=one_hot, **options).norm().item()


# --- few steps, exact


@pytest.mark.parametrize("steps", STEPS)
def test_the_right_c_eps_makes_few_step_euler_exact(steps):
    sigmas = falling_sigmas(10.0, steps, steps)
    c_eps = []
    for before, after in zip(sigmas.tolist(), sigmas.tolist()[1:], strict=False):
        # Euler multiplies by 1 + m·(1 - c)·(after/before - 1) with D = c·x: solved for m at the exact ratio.
        c = SPREAD**2 / (SPREAD**2 + before**2)
        c_eps.append((1 - deviation(after) / deviation(before)) / ((1 - c) * (1 - after / before)))
    x = torch.tensor([[10.0], [-3.0]], dtype=torch.float64)
    result = qs.sample("euler", gaussian, x, sigmas, Coefficients((1.0,) * steps, tuple(c_eps)))
    # 1e-12: a few roundings in each step.
    torch.testing.assert_close(result, x * deviation(0.0) / deviation(10.0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("steps", STEPS)
def test_the_inverse_gain_undoes_a_model_that_overshoots(steps):
    """The case the method is made for: the quantised output is (1 + k_t) times the true one."""
    sigmas = falling_sigmas(10.0, steps, steps)
    gains = [1 + 0.2 * math.sin(1 + i) for i in range(steps)]

    def quantized(x: Tensor, sigma: Tensor) -> Tensor:
        return x - gains[(sigmas - sigma[0]).abs().argmin()] * (x - gaussian(x, sigma))

    x = torch.tensor([[10.0], [-3.0]], dtype=torch.float64)
    clean = qs.sample("euler", gaussian, x, sigmas, Coefficients.identity(steps))
    uncorrected = qs.sample("euler", quantized, x, sigmas, Coefficients.identity(steps))
    repaired = qs.sample("euler", quantized, x, sigmas, Coefficients((1.0,) * steps, tuple(1 / gain for gain in gains)))
    assert not torch.allclose(uncorrected, clean, rtol=1e-3)
    torch.testing.assert_close(repaired, clean, rtol=1e-12, atol=0)  # as above


TABLE = torch.logspace(-2, 1.1, 300, dtype=torch.float64)


def _timestep(sigma: float) -> int:
    return min(range(len(TABLE)), key=lambda k: abs(math.log(TABLE[k] / sigma)))


# Where each sampler of one step asks the model to lead, before it adds noise: from (sigma, next sigma).
LOWER = {
    "euler": lambda sigma, after: after,
    "euler_ancestral": lambda sigma, after: after**2 / sigma,
    "lcm": lambda sigma, after: 0.0,
    "tcd": lambda sigma, after: min(float(TABLE[int(_timestep(after) / 2)]), after) if after else 0.0,
}
LOWER_FLOW = {**LOWER, "tcd": lambda sigma, after: after / 2}


@pytest.mark.parametrize("flow", [False, True], ids=["noise", "flow"])
@pytest.mark.parametrize("name", LOWER)
@in_turn("steps", STEPS)
@in_turn("ends_early", [False, True])
def test_a_perfect_model_keeps_the_deviation_of_the_data(name, flow, steps, ends_early):
    """The perfect few-step model leads along the exact trajectory. Then the noise has to be exactly what is missing."""
    sigmas = falling_sigmas(1.0 if flow else 10.0, steps + ends_early, steps + ends_early)[: steps + 1]
    lower = (LOWER_FLOW if flow else LOWER)[name]
    ends = dict(zip(sigmas.tolist(), sigmas.tolist()[1:], strict=False))

    def perfect(x: Tensor, sigma: Tensor) -> Tensor:
        here = float(sigma[0])
        down = lower(here, ends[here])
        # x(down) = D + (x - D)·down/sigma, in both spaces: solved for D at the exact ratio.
        return x * (deviation(down, flow) / deviation(here, flow) - down / here) / (1 - down / here)

    options = {"eta": 0.5, "table": TABLE} if name == "tcd" else {}
    result = final_deviation(name, perfect, sigmas, flow=flow, **options)
    # 1e-12: a few roundings in each step.
    assert result == pytest.approx(deviation(float(sigmas[-1]), flow), rel=1e-12)


# --- many steps, converging


def order(errors: list[float]) -> list[float]:
    return [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]


@pytest.mark.parametrize(
    ("name", "expected"), [("euler", 1), ("tcd", 1), ("dpmpp_2m", 2), ("res_multistep", 2)], ids=str
)
def test_error_of_the_trajectory_falls_with_the_order_of_the_sampler(name, expected):
    options = {"eta": 0.0} if name == "tcd" else {}
    x = torch.ones(1, 1, dtype=torch.float64)
    exact = deviation(0.0) / deviation(10.0)
    errors = []
    for steps in (128, 256, 512):
        result = qs.sample(name, gaussian, x, smooth_sigmas(steps), Coefficients.identity(steps), **options)
        errors.append(abs(result.item() / exact - 1))
    # 0.1: what the next order still adds at 128 steps.
    assert order(errors) == pytest.approx([expected] * 2, abs=0.1)


CONVERGING = {
    "euler_ancestral": ("euler_ancestral", False, {}, 1),
    "euler_ancestral-flow": ("euler_ancestral", True, {"eta": 0.5}, 1),
    "res_multistep-eta": ("res_multistep", False, {"eta": 1.0}, 2),
    "er_sde-1": ("er_sde", False, {"max_stage": 1}, 1),
    "er_sde-1-flow": ("er_sde", True, {"max_stage": 1, "first_sigma": 0.9999}, 1),
}


@pytest.mark.parametrize("case", CONVERGING)
def test_error_of_the_deviation_falls_with_the_order_of_the_sampler(case):
    """Samplers that add noise have no one trajectory: their results as a whole have to become the data."""
    name, flow, options, expected = CONVERGING[case]
    model = gaussian_flow if flow else gaussian
    errors = [
        abs(final_deviation(name, model, smooth_sigmas(steps, flow), flow=flow, **options) / SPREAD - 1)
        for steps in (128, 256, 512)
    ]
    # 0.15: as above, and these begin further off.
    assert order(errors) == pytest.approx([expected] * 2, abs=0.15)


@pytest.mark.parametrize("flow", [False, True], ids=["noise", "flow"])
def test_the_higher_stages_of_er_sde_are_nearer_to_the_data(flow):
    """Stages 2 and 3 stop falling where the 200 rectangles of their integrals do: compared at 32 steps, well before."""
    model, sigmas = gaussian_flow if flow else gaussian, smooth_sigmas(32, flow)
    first = {"first_sigma": 0.9999} if flow else {}
    errors = [
        abs(final_deviation("er_sde", model, sigmas, flow=flow, max_stage=stage, **first) / SPREAD - 1)
        for stage in (1, 2, 3)
    ]
    # 26 to 170 times nearer.
    assert max(errors[1:]) < errors[0] / 20
