"""The two lines of Q-Sched against their definition: scale x and the raw output, then convert."""

from __future__ import annotations

import pytest
import torch
from exactness import same_bits

from qsched_core.precondition import precondition_denoised, precondition_sample

# D as each parameterisation makes it of the network's raw output at (x, sigma).
PARAMETERISATIONS = {
    "noise": lambda out, x, sigma: x - sigma * out,
    "v": lambda out, x, sigma: x / (sigma**2 + 1) - out * sigma / (sigma**2 + 1) ** 0.5,
    "x0": lambda out, x, sigma: out,
    # LCM with the timestep's boundary condition, around a noise-predicting net: c_skip 0.3, c_out 0.7.
    "lcm": lambda out, x, sigma: 0.3 * x + 0.7 * (x - sigma * out),
}


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 5, 3, dtype=torch.float64, generator=generator) for _ in range(2))


@pytest.mark.parametrize("name", PARAMETERISATIONS)
@pytest.mark.parametrize(("c_x", "c_eps"), [(1.0, 0.9), (1.1, 1.0), (0.8, 1.3)])
def test_is_the_prediction_of_the_scaled_pair(pair, name, c_x, c_eps):
    x, out = pair
    convert, sigma = PARAMETERISATIONS[name], 2.5
    result = precondition_denoised(convert(out, x, sigma), convert(torch.zeros_like(out), x, sigma), c_x, c_eps)
    # 1e-14: float64, a few roundings of numbers below 10.
    torch.testing.assert_close(result, convert(c_eps * out, c_x * x, sigma), rtol=1e-14, atol=1e-14)


def test_known_answer():
    x, denoised = torch.tensor([2.0]), torch.tensor([0.5])
    # By hand: (1.25 - 0.5)·2 + 0.5·0.5 = 1.75. All of these are exact in binary.
    assert precondition_denoised(denoised, x, 1.25, 0.5).item() == 1.75
    assert precondition_sample(x, 1.25).item() == 2.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_ones_change_not_a_bit(pair, dtype):
    x, denoised = (tensor.to(dtype) for tensor in pair)
    assert same_bits(precondition_denoised(denoised, x, 1.0, 1.0), denoised)
    assert same_bits(precondition_sample(x, 1.0), x)


def test_leaves_its_inputs_alone(pair):
    x, denoised = pair
    before = x.clone(), denoised.clone()
    precondition_denoised(denoised, x, 1.1, 0.9)
    precondition_sample(x, 1.1)
    assert same_bits(x, before[0])
    assert same_bits(denoised, before[1])
