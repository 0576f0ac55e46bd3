"""One preset file, one small network, two worlds: diffusers' schedulers and the host's samplers take the same path."""

from __future__ import annotations

import pytest
import torch

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

STEPS, SEED = 4, 5
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
"""Stable Diffusion's, the host's own for such models."""


def as_lcm(model):
    """The host's node that gives a model LCM's boundary conditions."""
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    return ModelSamplingDiscrete().patch(model, "lcm", False)[0]


def schedulers():
    import diffusers as d

    return {
        "euler": ("EPS", "euler", d.EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing")),
        "euler, v": (
            "V_PREDICTION", "euler", d.EulerDiscreteScheduler(**BETAS, prediction_type="v_prediction"),
        ),
        "euler ancestral": (
            "EPS", "euler_ancestral", d.EulerAncestralDiscreteScheduler(**BETAS, timestep_spacing="trailing"),
        ),
        "tcd": ("EPS", "tcd", d.TCDScheduler(**BETAS)),
        "lcm": ("EPS", "lcm", d.LCMScheduler(**BETAS)),
        "flow": ("FLOW", "euler", d.FlowMatchEulerDiscreteScheduler(shift=3.0)),
    }  # fmt: skip


NAMES = ("euler", "euler, v", "euler ancestral", "tcd", "lcm", "flow")


class Recorder:
    """What the host's sampler had at each step, through the callback that previews use."""

    def __init__(self):
        self.states, self.sigmas = [], []

    def watch(self, model):
        watched = model.clone()

        def note(arguments):
            self.states.append(arguments["input"].clone())
            self.sigmas.append(float(arguments["sigma"][0]))
            return arguments["denoised"]

        watched.set_model_sampler_post_cfg_function(note)
        return watched


class Pipe:
    """As much of a pipeline as apply_preset asks for."""

    def __init__(self, scheduler):
        self.scheduler = scheduler


@pytest.mark.parametrize("name", NAMES)
def test_the_same_preset_takes_the_same_path(pack, tiny, tmp_path, name):
    from qsched_core import Coefficients, Preset, load_preset, save_preset
    from qsched_core.diffusers import apply_preset

    kind, sampler_name, scheduler = schedulers()[name]
    model = tiny.model(kind)
    model = as_lcm(model) if name == "lcm" else model
    scheduler.set_timesteps(STEPS)
    vp = not hasattr(scheduler, "sigmas")
    if vp:
        table = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()
        # diffusers' TCD ends at timestep 0, where a little noise is left; its LCM ends in x0.
        end = table[:1] if name == "tcd" else torch.zeros(1)
        sigmas = torch.cat([table[scheduler.timesteps], end]).float()
    else:
        sigmas = scheduler.sigmas.float()
    preset = Preset(Coefficients((0.94, 0.97, 1.02, 1.04), (0.9, 0.96, 1.03, 1.06)), tuple(sigmas.tolist()))
    save_preset(preset, tmp_path / "shared.safetensors")
    preset = load_preset(tmp_path / "shared.safetensors")

    recorder, patch = Recorder(), pack("nodes.sampling.patch")
    preset_model = patch.model_with(recorder.watch(model), patch.PresetUse(preset, if_differs="refuse"))
    data = tiny.inputs()
    ours = tiny.run(preset_model, pack("nodes.sampling.sampler_menu").sampler_object(sampler_name), sigmas)

    sampling = model.get_model_object("model_sampling")
    network = model.model.diffusion_model
    context = data["positive"][0][0].expand(2, -1, -1)
    generator = torch.Generator().manual_seed(SEED + 1)  # as the host seeds its noise on a CPU
    scale = (1 + sigmas**2).sqrt() if vp else torch.ones(STEPS + 1)
    # The same start; what follows is diffusers' own.
    sample = recorder.states[0] / scale[0]
    with apply_preset(Pipe(scheduler), preset) as applied:
        for step, timestep in enumerate(scheduler.timesteps):
            x = sample * scale[step]
            expected = recorder.states[step]
            assert torch.linalg.norm(x - expected) <= 2e-5 * torch.linalg.norm(expected), f"step {step}"
            sigma = sigmas[step].expand(2)
            output = network(sampling.calculate_input(sigma, x), sampling.timestep(sigma).float(), context=context)
            options = {"eta": 0.3} if name == "tcd" else {}
            sample = scheduler.step(output, timestep, sample, generator=generator, **options)[0]
        assert [text for text in applied.differences if not text.startswith("sigmas")] == []
    theirs = model.model.process_latent_out(sampling.inverse_noise_scaling(sigmas[-1], sample * scale[-1]))
    assert torch.linalg.norm(ours - theirs) <= 2e-5 * torch.linalg.norm(theirs)
    assert len(recorder.states) == STEPS
