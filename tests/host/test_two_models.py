"""One preset over two models, each of which samples a part of the steps, as Wan 2.2's are."""

from __future__ import annotations

import pytest
import torch
from exactness import differ, near

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def experts(tiny):
    """(high noise, low noise): the same architecture and schedule, other weights."""
    high, low = tiny.model("FLOW"), tiny.model("FLOW")
    for parameter in low.model.parameters():
        parameter.data = parameter.data * 0.9
    for model in (high, low):  # loud enough to be seen beside the noise
        model.model.diffusion_model.out[0].weight.data.fill_(1.0)
    return high, low


def sampled(tiny, parts) -> torch.Tensor:
    """KSamplerAdvanced after KSamplerAdvanced: each of `parts` is (MODEL, first step, last step) of four."""
    import nodes

    given, latent = tiny.inputs(1), None
    for place, (model, start, end) in enumerate(parts):
        latent = nodes.common_ksampler(
            model, 5, 4, 1.0, "euler", "simple", given["positive"], given["negative"],
            latent or {"samples": given["latent_image"]}, disable_noise=place > 0, start_step=start, last_step=end,
            force_full_denoise=place == len(parts) - 1,
        )[0]  # fmt: skip
    return latent["samples"]


def preset_for(pack, model, c_eps) -> object:
    core = pack("qsched_core")
    recipe = pack("nodes.sampling.ksampler").Recipe(4, 1.0, "euler", "simple")
    sigmas = recipe.falling_sigmas(model)
    binding = pack("nodes.host.model_info").describe(model, "euler", "simple", 1.0)
    return core.Preset(core.Coefficients((1.0,) * 4, c_eps), sigmas, binding)


def with_preset(pack, model, preset):
    return pack("nodes.sampling.patch").model_with(model, pack("nodes.sampling.patch").PresetUse(preset))


def test_halves_with_one_preset_are_the_whole_run_with_it(pack, tiny, experts):
    high, _ = experts
    preset = preset_for(pack, high, (0.9, 0.8, 0.9, 0.85))
    one = with_preset(pack, high, preset)
    whole = sampled(tiny, [(one, 0, 4)])
    assert near(sampled(tiny, [(one, 0, 2), (one, 2, 4)]), whole)
    assert differ(whole, sampled(tiny, [(high, 0, 4)]))


@pytest.mark.parametrize(
    ("c_eps", "quiet"), [((0.9, 0.8, 1.0, 1.0), 1), ((1.0, 1.0, 0.9, 0.8), 0)], ids=["high", "low"]
)
def test_each_model_takes_what_belongs_to_its_sigmas(pack, tiny, experts, c_eps, quiet):
    preset = preset_for(pack, experts[0], c_eps)
    driven = [with_preset(pack, model, preset) for model in experts]
    both = sampled(tiny, [(driven[0], 0, 2), (driven[1], 2, 4)])
    mixed = [driven[0], driven[1]]
    mixed[quiet] = experts[quiet]
    assert near(sampled(tiny, [(mixed[0], 0, 2), (mixed[1], 2, 4)]), both)
    assert differ(both, sampled(tiny, [(experts[0], 0, 2), (experts[1], 2, 4)]))
