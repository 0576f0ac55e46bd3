"""tcd against diffusers' TCDScheduler itself: its ``step`` gets the scaled sample and the scaled raw output."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from exactness import same_bits
from in_turn import in_turn
from torch import Tensor

import qsched_core as qs
from qsched_core import Coefficients

SHAPE = (2, 4, 3, 3)
# Relative to the largest value. The rounding of eight steps, where x is up to 15 and D about 1.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}

# D of the network's output at (x, sigma), for each of the scheduler's prediction types.
DENOISED: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "epsilon": lambda output, x, sigma: x - sigma * output,
    "v_prediction": lambda output, x, sigma: x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5,
    "sample": lambda output, x, sigma: output,
}


def network(x: Tensor, sigma: Tensor) -> Tensor:
    """A smooth stand-in for a network, with outputs about 1."""
    return torch.tanh((x.roll(1, dims=1) - 0.3 * x) / (1 + sigma**2) ** 0.5 + torch.cos(sigma))


def scheduler_for(kind: str):
    from diffusers import TCDScheduler

    scheduler = TCDScheduler(prediction_type=kind)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    return scheduler


def start() -> Tensor:
    return 14.6 * torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def random_coefficients(steps: int) -> Coefficients:
    draw = random.Random(steps)
    return Coefficients(*(tuple(draw.uniform(0.7, 1.3) for _ in range(steps)) for _ in range(2)))


def trajectory_of(scheduler, coefficients: Coefficients, eta: float) -> list[Tensor]:
    """The scheduler's samples after each step, in k-diffusion's variables x = y/sqrt(A)."""
    generator = torch.Generator().manual_seed(7)
    signal = [scheduler.alphas_cumprod[t] for t in [*scheduler.timesteps.tolist(), 0]]
    y, states = start() * signal[0].sqrt(), []
    for i, timestep in enumerate(scheduler.timesteps):
        s, m = coefficients.at(i)
        output = network(y / signal[i].sqrt(), (1 / signal[i] - 1).sqrt())
        y = scheduler.step(m * output, timestep, s * y, eta=eta, generator=generator).prev_sample
        states.append(y / signal[i + 1].sqrt())
    return states


def ours(
    scheduler, coefficients: Coefficients, eta: float, dtype=torch.float64, last: float | None = None, **more
) -> Tensor:
    table = (1 / scheduler.alphas_cumprod - 1).sqrt()
    ends = table[0] if last is None else torch.tensor(last, dtype=torch.float64)
    sigmas = torch.stack([*table[scheduler.timesteps], ends])
    generator = torch.Generator().manual_seed(7)
    denoised = DENOISED[scheduler.config.prediction_type]

    def shaped(sigma: Tensor) -> Tensor:
        return sigma.view(-1, 1, 1, 1)

    return qs.sample(
        "tcd",
        lambda x, sigma: denoised(network(x, shaped(sigma)), x, shaped(sigma)),
        start().to(dtype),
        sigmas.to(dtype),
        coefficients,
        noise_sampler=lambda *_: torch.randn(SHAPE, dtype=torch.float64, generator=generator).to(dtype),
        zero_denoised=lambda x, sigma: denoised(torch.zeros_like(x), x, shaped(sigma)),
        eta=eta,
        table=table,
        **more,
    )


def relative(value: Tensor, reference: Tensor) -> float:
    return ((value.double() - reference).abs().max() / reference.abs().max()).item()


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["float64", "float32"])
@pytest.mark.parametrize("kind", DENOISED)
@in_turn("eta", [0.0, 0.3, 1.0])
@in_turn("steps", [1, 2, 3, 4, 8])
def test_is_the_scheduler_of_diffusers(dtype, kind, eta, steps):
    scheduler, coefficients = scheduler_for(kind), random_coefficients(steps)
    scheduler.set_timesteps(steps)
    reference = trajectory_of(scheduler, coefficients, eta)
    assert relative(ours(scheduler, coefficients, eta, dtype), reference[-1]) <= TOLERANCE[dtype]


@pytest.mark.parametrize("eta", [0.1, 0.3, 0.7, 0.9])
def test_every_timestep_leads_to_the_timestep_of_diffusers(eta):
    """(1 - eta)·t is rounded before its floor is taken: in another precision some steps would land one beside."""
    scheduler, coefficients = scheduler_for("epsilon"), Coefficients.identity(1000)
    scheduler.set_timesteps(timesteps=list(range(999, -1, -1)))
    states: list[Tensor] = []
    final = ours(scheduler, coefficients, eta, callback=lambda event: states.append(event["x"]))
    reference = trajectory_of(scheduler, coefficients, eta)
    # 1e-10: a thousand steps. One timestep beside is 1e-3.
    wrong = [i for i, pair in enumerate(zip([*states[1:], final], reference, strict=True)) if relative(*pair) > 1e-10]
    assert wrong == []


@pytest.mark.parametrize("eta", [0.0, 0.3])
def test_a_last_sigma_of_zero_gives_the_prediction(eta):
    """The host's schedules end at 0; up to the last step it is the same trajectory."""
    scheduler, coefficients = scheduler_for("epsilon"), random_coefficients(4)
    scheduler.set_timesteps(4)
    events = []
    result = ours(scheduler, coefficients, eta, last=0.0, callback=events.append)
    before = trajectory_of(scheduler, coefficients, eta)[-2]
    assert relative(events[-1]["x"], coefficients.c_x[-1] * before) <= 1e-12
    assert same_bits(result, events[-1]["denoised"])


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_a_sigma_between_two_of_the_table_takes_the_nearest(factor):
    """A schedule of another kind hits no timestep; sigma_s is still below the next sigma, and the noise real."""
    table = torch.logspace(-1.5, 1.2, 20, dtype=torch.float64)
    sigmas = torch.stack([table[-1], table[8] * factor, torch.tensor(0.0, dtype=torch.float64)])
    nexts = []

    def zero(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def ones(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        nexts.append(float(sigma_next))
        return torch.ones(SHAPE, dtype=torch.float64)

    def second_x(eta: float) -> Tensor:
        states = []
        qs.sample(
            "tcd", zero, start(), sigmas, Coefficients.identity(2), eta=eta, table=table, noise_sampler=ones,
            callback=lambda event: states.append(event["x"]),
        )  # fmt: skip
        return states[1]

    # With D = 0 the step is x·sigma_s/sigma and noise. floor(0.5 · 8) = 4.
    lower, after = table[4], sigmas[1]
    expected = start() * lower / sigmas[0] + (after**2 - lower**2).sqrt()
    assert relative(second_x(0.5), expected) <= 1e-12
    # An eta so small that the floor only just reaches timestep 7, or sigma_s that would lie above: never above.
    lower = min(table[7], after)
    expected = start() * lower / sigmas[0] + (after**2 - lower**2).sqrt()
    assert relative(second_x(1e-3), expected) <= 1e-12
    assert nexts == [float(after)] * 2
