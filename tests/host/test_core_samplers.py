"""The core's samplers with the identity are the host's, bit for bit, in every parameterisation."""

from __future__ import annotations

import pytest
import torch
from exactness import differ, same_bits

# Two threads of a busy machine only wait for each other here: the model is tiny.
pytestmark = pytest.mark.usefixtures("one_thread")

# The host's name, the core's, and the options that make them one.
TWINS = {
    "euler": ("euler", {}),
    "euler_ancestral": ("euler_ancestral", {}),
    "lcm": ("lcm", {}),
    "res_multistep": ("res_multistep", {}),
    "res_multistep_ancestral": ("res_multistep", {"eta": 1.0}),
    "dpmpp_2m": ("dpmpp_2m", {}),
    "er_sde": ("er_sde", {}),
}
# Options of the host's own SAMPLER objects, as its SamplerEulerAncestral and other nodes set them.
WITH_OPTIONS = {
    "euler_ancestral": {"eta": 0.4, "s_noise": 0.9},
    "lcm": {"s_noise": 0.9},
    "res_multistep_ancestral": {"eta": 0.4, "s_noise": 0.9},
    "er_sde": {"s_noise": 0.9, "max_stage": 2},
}


@pytest.fixture(scope="module", params=["EPS", "V_PREDICTION", "FLOW"])
def model(request, pack, tiny):
    return tiny.model(request.param, **tiny.ONE_BLOCK)


def ours(pack, tiny, model, name: str, steps: int, **options):
    choices, always = TWINS[name]
    identity = pack("qsched_core").Coefficients.identity(steps)
    return tiny.core_sampler(pack, choices, identity, model, **{**always, **options})


def test_every_core_sampler_but_tcd_has_a_twin_in_the_host(pack):
    assert {name for name, _ in TWINS.values()} == set(pack("qsched_core").SAMPLERS) - {"tcd"}


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("name", TWINS)
def test_the_identity_is_the_stock_sampler_bit_for_bit(pack, tiny, model, name, steps):
    import comfy.samplers

    sigmas = tiny.schedule(model, steps=steps)
    stock = tiny.run(model, comfy.samplers.sampler_object(name), sigmas)
    assert torch.isfinite(stock).all()
    assert same_bits(tiny.run(model, ours(pack, tiny, model, name, steps), sigmas), stock)


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_options_mean_what_they_mean_in_the_host(pack, tiny, model, name):
    import comfy.samplers

    sigmas, options = tiny.schedule(model), WITH_OPTIONS[name]
    stock = tiny.run(model, comfy.samplers.ksampler(name, options), sigmas)
    plain = tiny.run(model, comfy.samplers.sampler_object(name), sigmas)
    assert same_bits(tiny.run(model, ours(pack, tiny, model, name, tiny.STEPS, **options), sigmas), stock)
    assert differ(stock, plain), "the options did nothing"


@pytest.mark.parametrize("name", TWINS)
def test_a_run_that_ends_early_leaves_the_same_noise(pack, tiny, model, name):
    """Split sampling: the last sigma is not 0, and the next part goes on from there."""
    import comfy.samplers

    sigmas = tiny.schedule(model)[:3]
    stock = tiny.run(model, comfy.samplers.sampler_object(name), sigmas)
    assert same_bits(tiny.run(model, ours(pack, tiny, model, name, 2), sigmas), stock)


def test_tcd_without_noise_is_the_stock_euler(pack, tiny, model):
    """There is no TCD in the host. With eta 0 its step is DDIM's, which in these variables is Euler's."""
    import comfy.samplers

    sigmas = tiny.schedule(model)
    identity = pack("qsched_core").Coefficients.identity(tiny.STEPS)
    stock = tiny.run(model, comfy.samplers.sampler_object("euler"), sigmas)
    result = tiny.run(model, tiny.core_sampler(pack, "tcd", identity, model, eta=0.0), sigmas)
    noisy = tiny.run(model, tiny.core_sampler(pack, "tcd", identity, model, eta=0.3), sigmas)
    # float32, four steps: the two differ only in the order of a few roundings.
    assert torch.linalg.norm(result - stock) <= 2e-6 * torch.linalg.norm(stock)
    assert torch.linalg.norm(noisy - stock) > 1e-2 * torch.linalg.norm(stock), "the noise did nothing"
