"""One preset over two models, each of which samples a part of the steps, as Wan 2.2's are."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from exactness import differ, distance, near

pytestmark = pytest.mark.usefixtures("one_thread")


def pair_of(tiny, gain: float = 1.0) -> tuple:
    """(high noise, low noise): the same architecture and schedule, other weights; their outputs times ``gain``."""
    high, low = (tiny.model("FLOW", **tiny.ONE_BLOCK) for _ in range(2))
    for parameter in low.model.parameters():
        parameter.data = parameter.data * 0.9
    for model in (high, low):
        last = model.model.diffusion_model.out
        last[0].weight.data.fill_(1.0)  # loud enough to be seen beside the noise
        for parameter in last[2].parameters():
            parameter.data *= gain
    return high, low


@pytest.fixture
def experts(tiny):
    return pair_of(tiny)


def sampled(tiny, parts) -> torch.Tensor:
    """KSamplerAdvanced after KSamplerAdvanced: each of `parts` is (MODEL, first step, last step) of four."""
    import nodes

    inputs, latent = tiny.inputs(1), None
    for place, (model, start, end) in enumerate(parts):
        latent = nodes.common_ksampler(
            model, 5, 4, 1.0, "euler", "simple", inputs["positive"], inputs["negative"],
            latent or {"samples": inputs["latent_image"]}, disable_noise=place > 0, start_step=start, last_step=end,
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


def test_a_preset_for_two_models_is_refused_by_one(pack, tiny, refused):
    core, sigmas = pack("qsched_core"), (1.0, 0.5, 0.0)
    plan = core.Precision((4, 4), sigmas, (0, 1))
    preset = core.Preset(core.Coefficients.identity(2), sigmas, precision=plan)
    with refused(core.SamplingError, "needs 2 models, the MODEL has 1"):
        with_preset(pack, tiny.model("FLOW"), preset)


@pytest.mark.parametrize(
    ("c_eps", "quiet"), [((0.9, 0.8, 1.0, 1.0), 1), ((1.0, 1.0, 0.9, 0.8), 0)], ids=["high", "low"]
)
def test_each_model_takes_what_belongs_to_its_sigmas(pack, tiny, experts, c_eps, quiet):
    preset = preset_for(pack, experts[0], c_eps)
    models = [with_preset(pack, model, preset) for model in experts]
    both = sampled(tiny, [(models[0], 0, 2), (models[1], 2, 4)])
    mixed = [models[0], models[1]]
    mixed[quiet] = experts[quiet]
    assert near(sampled(tiny, [(mixed[0], 0, 2), (mixed[1], 2, 4)]), both)
    assert differ(both, sampled(tiny, [(experts[0], 0, 2), (experts[1], 2, 4)]))


class Pixels:
    """Decodes latents (B, 4, h, w) as they are."""

    first_stage_model = torch.nn.Linear(1, 1)

    def decode(self, samples):
        return samples[:, :3].sigmoid().movedim(1, -1)


@pytest.fixture
def calibrated(pack, calibrate_node):
    """``calibrated(model, full)``: what JAQ Calibrate finds for a MODEL beside its reference."""

    generator = torch.Generator().manual_seed(2)
    conditionings = [[[torch.randn(1, 7, 32, generator=generator), {}]] for _ in range(8)]
    settings = pack("nodes.calibrating.options").CalibrationSettings(
        prompt_set=pack("nodes.calibrating.prompt_list").conditioned([], [], conditionings),
        verdict_seeds=1,
        space="constant",
    )

    def calibrated(model, full):
        return calibrate_node.execute(
            model=model, full_model=full, vae=Pixels(), latent_image={"samples": torch.zeros(1, 4, 8, 8)}, prompts="",
            steps=4, cfg=1.0, sampler_name="euler", scheduler="simple", trials=14, metric="nearness to the reference",
            batch_size=8, negative="", settings=settings,
        ).args[0]  # fmt: skip

    return calibrated


def test_one_calibration_over_both_gives_one_preset_for_both(pack, tiny, experts, calibrated, monkeypatch):
    """Both of the quantised pair say a tenth too little: the search finds that from the full pair's pictures."""
    schedule = pack("nodes.precision_schedule").QSchedPrecisionSchedule
    monkeypatch.setattr(schedule, "hidden", SimpleNamespace(unique_id=None), raising=False)
    weak = pair_of(tiny, gain=0.9)
    plan = "1, 1, 2, 2"
    joined, full = (schedule.execute(high, plan, "simple", model_2=low).args[0] for high, low in (weak, experts))
    preset = calibrated(joined, full)
    assert not preset.coefficients.is_identity
    one = sampled(tiny, [(with_preset(pack, joined, preset), 0, 4)])
    parts = [with_preset(pack, model, replace(preset, precision=None)) for model in weak]  # with a sampler for each
    two = sampled(tiny, [(parts[0], 0, 2), (parts[1], 2, 4)])
    assert near(two, one)
    expected = sampled(tiny, [(experts[0], 0, 2), (experts[1], 2, 4)])
    before = sampled(tiny, [(weak[0], 0, 2), (weak[1], 2, 4)])
    assert distance(one, expected) < 0.5 * distance(before, expected)
