"""Samplers against float64 references of the published updates, stock loops, and a case with an exact answer.

References are written from the table of the paper's official updates (docs: s = c_x, m = c_eps), in terms of the
network's raw output; ``qs.sample`` only ever sees the denoised prediction.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

import qsched_core as qs
from qsched_core import CoefficientError, Coefficients, SamplingError

STEPS = (1, 2, 3, 4, 8)
SHAPE = (2, 4, 3, 3)
# Relative to the largest value of the reference. float64: 8 steps of a few roundings each. float32: the same, where
# x is up to 15 and D about 1, so that x − D carries 15 units in the last place.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
BOTH = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["float64", "float32"])


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
    """``convert(output, x, sigma)`` → denoised."""

    convert: Callable[[Tensor, Tensor, Tensor], Tensor]

    def model(self, x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (x.shape[0],)
        sigma = sigma.view(-1, 1, 1, 1)
        return self.convert(network(x, sigma), x, sigma)

    def zero_denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.convert(torch.zeros_like(x), x, sigma.view(-1, 1, 1, 1))


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
    dtype: torch.dtype
    asked: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        self.asked.append((float(sigma), float(sigma_next)))
        return self.prepared[len(self.asked) - 1].to(self.dtype)


def relative(made: Tensor, reference: Tensor) -> float:
    return ((made.double() - reference).abs().max() / reference.abs().max()).item()


# --- the published updates


def published_euler(x: Tensor, sigmas: Tensor, coefficients: Coefficients) -> Tensor:
    """x_prev = s·x + m·eps·(sigma_next − sigma); flow-match Euler is the same with v."""
    for i in range(len(sigmas) - 1):
        s, m = coefficients.at(i)
        x = s * x + m * network(x, sigmas[i]) * (sigmas[i + 1] - sigmas[i])
    return x


def published_euler_ancestral(x: Tensor, sigmas: Tensor, coefficients: Coefficients, z: list[Tensor]) -> Tensor:
    """x_prev = s·x + m·eps·(sigma_down − sigma) + sigma_up·z (SDXL-Turbo)."""
    for i in range(len(sigmas) - 1):
        s, m = coefficients.at(i)
        sigma_down = sigmas[i + 1] ** 2 / sigmas[i]
        sigma_up = (sigmas[i + 1] ** 2 - sigma_down**2) ** 0.5
        x = s * x + m * network(x, sigmas[i]) * (sigma_down - sigmas[i]) + sigma_up * z[i]
    return x


def ancestral_flow(x: Tensor, sigmas: Tensor, coefficients: Coefficients, z: list[Tensor], eta: float) -> Tensor:
    """Flow Euler on the scaled pair to sigma_down, then α rescaled and the variance filled up to sigma_next²."""
    for i in range(len(sigmas) - 1):
        s, m = coefficients.at(i)
        sigma, after = sigmas[i], sigmas[i + 1]
        down = after * (1 + (after / sigma - 1) * eta)
        x = s * x + m * network(x, sigma) * (down - sigma)
        gain = (1 - after) / (1 - down)
        x = gain * x + (after**2 - (gain * down) ** 2).clamp(min=0) ** 0.5 * z[i]
    return x


@BOTH
@pytest.mark.parametrize("steps", STEPS)
def test_euler_is_the_published_update_for_noise_prediction(dtype, steps):
    sigmas, coefficients = falling_sigmas(14.6, steps, steps), random_coefficients(steps, steps)
    reference = published_euler(start(14.6), sigmas, coefficients)
    made = qs.sample("euler", NOISE.model, start(14.6).to(dtype), sigmas.to(dtype), coefficients)
    assert made.dtype == dtype
    assert relative(made, reference) <= TOLERANCE[dtype]


@BOTH
@pytest.mark.parametrize("steps", STEPS)
def test_euler_is_the_published_update_for_flow_prediction(dtype, steps):
    sigmas, coefficients = falling_sigmas(1.0, steps, steps), random_coefficients(steps, steps)
    reference = published_euler(start(1.0), sigmas, coefficients)
    made = qs.sample("euler", FLOW.model, start(1.0).to(dtype), sigmas.to(dtype), coefficients)
    assert relative(made, reference) <= TOLERANCE[dtype]


@BOTH
@pytest.mark.parametrize("steps", STEPS)
def test_euler_ancestral_is_the_published_update(dtype, steps):
    sigmas, coefficients, z = falling_sigmas(14.6, steps, steps), random_coefficients(steps, steps), noises(steps)
    reference = published_euler_ancestral(start(14.6), sigmas, coefficients, z)
    fresh = Replay(z, dtype)
    made = qs.sample(
        "euler_ancestral",
        NOISE.model,
        start(14.6).to(dtype),
        sigmas.to(dtype),
        coefficients,
        noise_sampler=fresh,
    )
    assert relative(made, reference) <= TOLERANCE[dtype]
    assert len(fresh.asked) == steps - 1  # no noise after the last step


@BOTH
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("steps", STEPS)
def test_euler_ancestral_flow_is_flow_euler_renoised(dtype, steps, eta):
    sigmas, coefficients, z = falling_sigmas(1.0, steps, steps), random_coefficients(steps, steps), noises(steps)
    reference = ancestral_flow(start(1.0), sigmas, coefficients, z, eta)
    made = qs.sample(
        "euler_ancestral_flow",
        FLOW.model,
        start(1.0).to(dtype),
        sigmas.to(dtype),
        coefficients,
        noise_sampler=Replay(z, dtype),
        eta=eta,
    )
    assert relative(made, reference) <= TOLERANCE[dtype]


@BOTH
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("ancestral", [False, True], ids=["euler", "euler_ancestral"])
@pytest.mark.parametrize("steps", STEPS)
def test_other_parameterisations_scale_the_raw_output_before_it_is_converted(dtype, name, ancestral, steps):
    sigmas, coefficients, z = falling_sigmas(14.6, steps, steps), random_coefficients(steps, steps), noises(steps)
    kind, x = OTHERS[name], start(14.6)
    for i in range(steps):
        s, m = coefficients.at(i)
        scaled = s * x
        denoised = kind.convert(m * network(x, sigmas[i]), scaled, sigmas[i])
        down = sigmas[i + 1] ** 2 / sigmas[i] if ancestral else sigmas[i + 1]
        x = scaled + (scaled - denoised) / sigmas[i] * (down - sigmas[i])
        x = x + (sigmas[i + 1] ** 2 - down**2) ** 0.5 * z[i]
    made = qs.sample(
        "euler_ancestral" if ancestral else "euler",
        kind.model,
        start(14.6).to(dtype),
        sigmas.to(dtype),
        coefficients,
        noise_sampler=Replay(z, dtype),
        zero_denoised=kind.zero_denoised,
    )
    assert relative(made, x) <= TOLERANCE[dtype]


def test_one_step_is_a_gain_on_the_output():
    """Without a trajectory the coefficients reduce to D' = (s − m)·x + m·D."""
    x, sigmas = start(14.6), falling_sigmas(14.6, 1, 0)
    made = qs.sample("euler", NOISE.model, x, sigmas, Coefficients((1.1,), (0.9,)))
    # 1e-12 as above.
    assert relative(made, (1.1 - 0.9) * x + 0.9 * NOISE.model(x, sigmas[0].expand(2))) <= 1e-12


# --- the identity is the stock sampler, bit for bit


def stock_euler(model, x, sigmas, z):
    s_in = x.new_ones([x.shape[0]])
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * s_in)
        d = (x - denoised) / sigmas[i]
        x = x + d * (sigmas[i + 1] - sigmas[i])
    return x


def stock_euler_ancestral(model, x, sigmas, z):
    s_in = x.new_ones([x.shape[0]])
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * s_in)
        a, b = sigmas[i], sigmas[i + 1]
        sigma_up = min(b, 1.0 * (b**2 * (a**2 - b**2) / a**2) ** 0.5)
        sigma_down = (b**2 - sigma_up**2) ** 0.5
        if sigma_down == 0:
            x = denoised
        else:
            d = (x - denoised) / a
            x = x + d * (sigma_down - a) + z[i].to(x) * 1.0 * sigma_up
    return x


def stock_euler_ancestral_flow(model, x, sigmas, z):
    s_in = x.new_ones([x.shape[0]])
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * s_in)
        a, b = sigmas[i], sigmas[i + 1]
        if b == 0:
            x = denoised
        else:
            down = b * (1 + (b / a - 1) * 1.0)
            renoise = (b**2 - down**2 * (1 - b) ** 2 / (1 - down) ** 2) ** 0.5
            x = down / a * x + (1 - down / a) * denoised
            x = (1 - b) / (1 - down) * x + z[i].to(x) * 1.0 * renoise
    return x


STOCK = {
    "euler": (stock_euler, 14.6),
    "euler_ancestral": (stock_euler_ancestral, 14.6),
    "euler_ancestral_flow": (stock_euler_ancestral_flow, 1.0),
}


def test_every_sampler_has_a_stock_twin_here():
    assert set(STOCK) == set(qs.SAMPLERS)


@BOTH
@pytest.mark.parametrize("name", STOCK)
@pytest.mark.parametrize("steps", STEPS)
def test_the_identity_is_the_stock_sampler_bit_for_bit(dtype, name, steps):
    stock, first = STOCK[name]
    x, sigmas, z = start(first).to(dtype), falling_sigmas(first, steps, steps).to(dtype), noises(steps)
    identity = Coefficients.identity(steps)
    made = qs.sample(name, NOISE.model, x, sigmas, identity, noise_sampler=Replay(z, dtype))
    assert torch.equal(made, stock(NOISE.model, x, sigmas, z))


@pytest.mark.parametrize("name", STOCK)
def test_coefficients_of_one_step_change_nothing_before_it(name):
    first = STOCK[name][1]
    x, sigmas, z = start(first), falling_sigmas(first, 4, 0), noises(4)

    def trajectory(coefficients: Coefficients) -> list[Tensor]:
        seen = []
        qs.sample(
            name,
            NOISE.model,
            x,
            sigmas,
            coefficients,
            noise_sampler=Replay(z, x.dtype),
            callback=lambda told: seen.append(told["x"]),
        )
        return seen

    stock, changed = trajectory(Coefficients.identity(4)), trajectory(Coefficients((1, 1, 1.1, 1), (1, 1, 0.9, 1)))
    assert [torch.equal(a, b) for a, b in zip(stock, changed, strict=True)] == [True, True, False, False]


def test_euler_ancestral_without_noise_is_euler():
    x, sigmas, coefficients = start(14.6), falling_sigmas(14.6, 4, 0), random_coefficients(4, 0)
    euler = qs.sample("euler", NOISE.model, x, sigmas, coefficients)
    # 1e-12: the last step is x − σ·d here and D there.
    assert relative(qs.sample("euler_ancestral", NOISE.model, x, sigmas, coefficients, eta=0.0), euler) <= 1e-12


def test_s_noise_scales_the_fresh_noise():
    x, sigmas, z = start(14.6), falling_sigmas(14.6, 2, 0), noises(2)
    identity = Coefficients.identity(2)
    double = [2 * noise for noise in z]
    a = qs.sample("euler_ancestral", NOISE.model, x, sigmas, identity, noise_sampler=Replay(z, x.dtype), s_noise=2.0)
    b = qs.sample("euler_ancestral", NOISE.model, x, sigmas, identity, noise_sampler=Replay(double, x.dtype))
    assert torch.equal(a, b)  # times 2 is exact in binary


def test_noise_comes_from_torchs_seed_unless_a_sampler_is_given():
    x, sigmas = start(14.6), falling_sigmas(14.6, 3, 0)

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return qs.sample("euler_ancestral", NOISE.model, x, sigmas, Coefficients.identity(3))

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_inputs_are_left_alone():
    x, sigmas = start(14.6), falling_sigmas(14.6, 3, 0)
    before = x.clone(), sigmas.clone()
    qs.sample("euler", NOISE.model, x, sigmas, random_coefficients(3, 0))
    assert torch.equal(x, before[0])
    assert torch.equal(sigmas, before[1])


# --- a denoiser with a known exact answer: data ~ N(0, 0.5²), where the flow of the ODE is a plain rescaling

SPREAD = 0.5


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    return x * SPREAD**2 / (SPREAD**2 + sigma.view(-1, 1, 1, 1) ** 2)


def exact_ratio(before: float, after: float) -> float:
    """x(after)/x(before) on the probability flow ODE of Gaussian data."""
    return math.sqrt((SPREAD**2 + after**2) / (SPREAD**2 + before**2))


def test_euler_converges_to_the_exact_answer_with_order_one():
    x = start(10.0)
    exact = x * exact_ratio(10.0, 0.0)
    errors = []
    for steps in (64, 128, 256):
        # Smooth spacing, so that the order shows: sigma = 10·(1 − i/n)³.
        sigmas = 10.0 * (1 - torch.linspace(0, 1, steps + 1, dtype=torch.float64)) ** 3
        errors.append(relative(qs.sample("euler", gaussian, x, sigmas, Coefficients.identity(steps)), exact))
    # First order: half the step, half the error. 5 %: what the second order term still adds at 64 steps.
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("steps", STEPS)
def test_the_right_c_eps_makes_few_step_euler_exact_on_gaussian_data(steps):
    sigmas = falling_sigmas(10.0, steps, steps)
    c_eps = []
    for before, after in zip(sigmas.tolist(), sigmas.tolist()[1:], strict=False):
        # Euler multiplies by 1 + m·(1 − c)·(after/before − 1) with D = c·x: solved for m at the exact ratio.
        c = SPREAD**2 / (SPREAD**2 + before**2)
        c_eps.append((1 - exact_ratio(before, after)) / ((1 - c) * (1 - after / before)))
    x = start(10.0)
    made = qs.sample("euler", gaussian, x, sigmas, Coefficients((1.0,) * steps, tuple(c_eps)))
    # 1e-12 as above.
    assert relative(made, x * exact_ratio(10.0, 0.0)) <= 1e-12


@pytest.mark.parametrize("steps", STEPS)
def test_the_inverse_gain_undoes_a_model_that_overshoots(steps):
    """The case the method is made for: the quantised output is (1 + k_t) times the true one."""
    sigmas = falling_sigmas(14.6, steps, steps)
    gains = [1 + 0.2 * math.sin(1 + i) for i in range(steps)]

    def quantised(x: Tensor, sigma: Tensor) -> Tensor:
        gain = gains[(sigmas - sigma[0]).abs().argmin()]
        return x - gain * (x - NOISE.model(x, sigma))

    x = start(14.6)
    clean = qs.sample("euler", NOISE.model, x, sigmas, Coefficients.identity(steps))
    broken = qs.sample("euler", quantised, x, sigmas, Coefficients.identity(steps))
    repaired = qs.sample("euler", quantised, x, sigmas, Coefficients((1.0,) * steps, tuple(1 / gain for gain in gains)))
    assert relative(broken, clean) > 1e-3
    assert relative(repaired, clean) <= 1e-12  # as above


# --- what the caller is told


def test_the_callback_sees_x_and_denoised_as_the_update_uses_them():
    x, sigmas, coefficients = start(14.6), falling_sigmas(14.6, 3, 0), random_coefficients(3, 0)
    told = []
    final = qs.sample("euler", NOISE.model, x, sigmas, coefficients, callback=told.append)
    assert [item["i"] for item in told] == [0, 1, 2]
    assert [float(item["sigma"]) for item in told] == sigmas[:-1].tolist()
    s, m = coefficients.at(0)
    assert torch.equal(told[0]["x"], s * x)
    # 1e-12 as above, for both.
    denoised = s * x - sigmas[0] * m * network(x, sigmas[0])
    assert relative(told[0]["denoised"], denoised) <= 1e-12
    assert relative(told[-1]["denoised"], final) <= 1e-12


@pytest.mark.parametrize("name", STOCK)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_prediction_that_is_not_finite_names_the_step(refused, name, bad):
    first = STOCK[name][1]
    x, sigmas = start(first), falling_sigmas(first, 4, 0)

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        denoised = NOISE.model(x, sigma)
        if sigma[0] == sigmas[2]:
            denoised[1, 0, 0, 0] = bad
        return denoised

    coefficients = Coefficients((1.0, 1.0, 1.25, 1.0), (1.0, 1.0, 0.75, 1.0))
    sigma = float(sigmas[2])
    text = f"step 3 (sigma {sigma:.4g}, c_x 1.25, c_eps 0.75) is not finite."
    with refused(SamplingError, text, step=2, sigma=sigma, c_x=1.25, c_eps=0.75):
        qs.sample(name, model, x, sigmas, coefficients)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_another_number_of_coefficients_than_steps_is_refused(refused, count):
    """Regression: it was a SamplingError, against the docstring of ``sample`` and of CoefficientError."""
    with refused(CoefficientError, f"{count} coefficients for 4 steps.", "resample", steps=4):
        qs.sample("euler", NOISE.model, start(14.6), falling_sigmas(14.6, 4, 0), Coefficients.identity(count))


def test_an_unknown_sampler_is_refused_with_the_known_ones(refused):
    with refused(SamplingError, "'eular'", *qs.SAMPLERS, name="eular"):
        qs.sample("eular", NOISE.model, start(14.6), falling_sigmas(14.6, 4, 0), Coefficients.identity(4))
