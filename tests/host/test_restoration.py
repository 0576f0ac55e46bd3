"""A model that restores a picture in one step: its gain is calibrated against the full model's pictures."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.usefixtures("one_thread")

PICTURES = 8


def restorer_of(gain: float = 1.0):
    """SeedVR2 with two blocks, a tenth as wide, and random weights; it reads the picture that it is to restore. Its
    output is ``gain`` times what it should be."""
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SeedVR2(
        {"image_model": "seedvr2", "vid_dim": 256, "heads": 2, "num_layers": 2, "mm_layers": 1, "norm_eps": 1e-5,
         "mlp_type": "swiglu", "vid_out_norm": True, "dtype": torch.float32}
    )  # fmt: skip
    config.set_inference_dtype(torch.float32, None)
    base = config.get_model({}, "")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in [*base.parameters(), base.diffusion_model.positive_conditioning]:
            value.copy_(torch.randn(value.shape, generator=generator) * (0.05 if value.ndim > 1 else 0.02))
        for value in base.diffusion_model.vid_out.parameters():
            value.mul_(30 * gain)
    return comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))


@pytest.fixture(scope="module")
def restorer(pack):
    return restorer_of()


class ClipOfFrames:
    """Decodes as the host's video VAEs do, a single frame."""

    first_stage_model = torch.nn.Linear(1, 1)

    def decode(self, samples):
        frames = samples[:, :3].sigmoid()
        return frames.repeat_interleave(8, dim=-1).repeat_interleave(8, dim=-2).movedim(1, -1)


@pytest.fixture
def run(pack, calibrate_node, restorer):
    from comfy_extras.nodes_seedvr import SeedVR2Conditioning

    generator = torch.Generator().manual_seed(1)
    latents = [torch.randn(1, 16, 1, 8, 8, generator=generator) for _ in range(PICTURES)]
    conditionings = [SeedVR2Conditioning.execute(restorer, {"samples": latent}).args[0] for latent in latents]
    prompts = pack("nodes.calibrating.prompt_list").conditioned([], [], conditionings)
    settings = pack("nodes.calibrating.options").CalibrationSettings(
        prompt_set=prompts, verdict_seeds=1, strategy="random"
    )

    def run(**changed):
        inputs = {
            "model": restorer, "vae": ClipOfFrames(), "latent_image": {"samples": torch.zeros_like(latents[0])},
            "prompts": "", "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "trials": 6,
            "metric": "nearness to the reference", "batch_size": 4, "negative": "", "settings": settings,
        }  # fmt: skip
        return calibrate_node.execute(**{**inputs, **changed}).args

    return run


def test_the_gain_of_the_single_step_is_found_from_the_full_models_pictures(pack, run, restorer):
    """Quantising makes weights shorter: here the output is a tenth too small, so that the answer is known."""
    weak = restorer_of(gain=0.9)
    job = pack("nodes.quantization.backends").job_for(weak, "w8a8", backend="torch")
    twin, _ = pack("nodes.quantization.twin_model").quantized_twin(weak, job)
    preset, report, *_ = run(model=twin, full_model=restorer)
    assert preset.steps == 1
    assert preset.coefficients.c_eps[0] == pytest.approx(1 / 0.9, rel=0.05)
    gains = preset.record["gains"]
    # What it gains is what pictures come nearer by.
    assert gains["tc"] == gains["iq"]
    assert gains["tc"]["gain"] == pytest.approx(-gains["distance to full"]["gain"], abs=1e-9)
    assert gains["tc"]["low"] > 0


def test_without_a_reference_it_is_refused(pack, run, refused):
    with refused(pack("qsched_core").CalibrationError, "there is none", "into reference"):
        run()


def test_it_is_offered_last_and_needs_no_texts(pack):
    names = pack("nodes.calibrating.metric_menu").metric_names()
    assert names[-1] == "nearness to the reference"
    assert not pack("nodes.calibrating.scorer").load_scorer(names[-1]).reads_prompts
