"""Presets in diffusers' real pipelines around small networks (`test_public` has the module without diffusers)."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import pytest
import torch
from exactness import same_bits
from scheduler_cases import CASES, FOUR, NO_NUMPY_WARNING, SD
from torch import Tensor

import qsched_core as qs
import qsched_core.diffusers
from qsched_core import Binding, Coefficients, Preset
from qsched_core.diffusers import apply_preset

pytestmark = NO_NUMPY_WARNING


def stable_diffusion(diffusers: ModuleType, scheduler: Any, kind: str = "StableDiffusionPipeline") -> Any:
    """A real pipeline around networks of a few thousand random weights."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(4, 4),
        norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    none = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    pipe = getattr(diffusers, kind)(unet=unet, vae=vae, scheduler=scheduler, requires_safety_checker=False, **none)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(pipe: Any, steps: int = 4, **options: Any) -> Tensor:
    words = torch.randn(2, 1, 3, 8, generator=torch.Generator().manual_seed(5))
    options = {"generator": torch.Generator().manual_seed(1), "guidance_scale": 3.0} | options
    words = {"prompt_embeds": words[0], "negative_prompt_embeds": words[1]}
    return pipe(num_inference_steps=steps, output_type="pt", **words, **options).images


def published(kind: type, coefficients: Coefficients) -> type:
    """``kind`` with the method written into its step, as the authors publish it."""

    class Published(kind):
        @functools.wraps(kind.step)
        def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor, **kwargs: Any) -> Any:
            i = self.timesteps.tolist().index(timestep)
            return kind.step(
                self, coefficients.c_eps[i] * model_output, timestep, coefficients.c_x[i] * sample, **kwargs
            )

    return Published


@pytest.mark.parametrize("name", ["euler", "ancestral", "tcd", "lcm"])
def test_a_pipeline_paints_with_the_preset_and_as_before_without(diffusers, name):
    case = CASES[name]
    kind, config = getattr(diffusers, case.scheduler), SD | case.config
    preset = case.preset(case.make(diffusers))
    pipe = stable_diffusion(diffusers, kind(**config))
    size = {"height": 16, "width": 16}
    stock = picture(pipe, **size)
    with apply_preset(pipe, preset, if_differs="refuse"):
        result, again = picture(pipe, **size), picture(pipe, **size)
        no_longer_random = same_bits(result, again)  # the generator reaches the step
        with_eta = picture(pipe, eta=1.0, **size)
    assert same_bits(picture(pipe, **size), stock)
    assert "step" not in vars(pipe.scheduler)

    assert no_longer_random
    assert (result - stock).abs().max() > 0.01
    pipe.scheduler = published(kind, FOUR)(**config)
    assert same_bits(picture(pipe, **size), result)
    assert same_bits(picture(pipe, eta=1.0, **size), with_eta)
    assert same_bits(with_eta, result) == (name != "tcd")  # only tcd's step takes eta


@pytest.mark.parametrize("name", ["euler", "tcd", "lcm"])
def test_a_picture_made_from_a_picture_takes_the_last_pairs(diffusers, monkeypatch, name):
    case = CASES[name]
    used = []

    def spy(x: Tensor, c_x: float) -> Tensor:
        used.append(c_x)
        return c_x * x

    monkeypatch.setattr(qsched_core.diffusers, "precondition_sample", spy)
    scheduler = getattr(diffusers, case.scheduler)(**SD | case.config)
    pipe = stable_diffusion(diffusers, scheduler, "StableDiffusionImg2ImgPipeline")
    apply_preset(pipe, case.preset(case.make(diffusers)), if_differs="refuse")
    picture(pipe, image=torch.zeros(1, 3, 16, 16), strength=0.5)
    assert used == list(FOUR.c_x[2:])


def test_flux_with_the_demo_weights_is_our_euler(diffusers):
    """The pack's own transformer in diffusers' pipeline, against ``qs.sample`` on the bare network."""
    from demo import files
    from demo.networks import FLUX_CONFIG, TEXT_WIDTH

    transformer = diffusers.FluxTransformer2DModel(**FLUX_CONFIG).eval()
    transformer.load_state_dict(files.read(files.MODEL))
    names = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    pipe = diffusers.FluxPipeline(scheduler=scheduler, transformer=transformer, **dict.fromkeys(names))
    pipe.set_progress_bar_config(disable=True)
    draw = torch.Generator().manual_seed(2)
    start, words, pooled = (
        torch.randn(1, *shape, generator=draw) for shape in ((16, 64), (5, TEXT_WIDTH), (TEXT_WIDTH,))
    )

    def paint() -> Tensor:
        embeds = {"prompt_embeds": words, "pooled_prompt_embeds": pooled}
        size = {"height": 64, "width": 64, "latents": start, "output_type": "latent"}
        return pipe(num_inference_steps=4, guidance_scale=0.0, **embeds, **size).images

    places = torch.zeros(16, 3)
    places[:, 1], places[:, 2] = torch.arange(16) // 4, torch.arange(16) % 4

    @torch.no_grad()
    def model(x: Tensor, sigma: Tensor) -> Tensor:
        velocity = transformer(x, words, pooled, sigma, places, torch.zeros(5, 3)).sample
        return x - sigma.view(-1, 1, 1) * velocity

    sigmas = (1.0, 0.75, 0.5, 0.25, 0.0)
    stock = paint()
    with apply_preset(pipe, Preset(FOUR, sigmas, Binding(prediction="CONST", sampler="euler")), if_differs="refuse"):
        result = paint()
    assert same_bits(paint(), stock)
    # Of values up to 10. float32 through four passes of a network.
    for coefficients, latents in ((FOUR, result), (Coefficients.identity(4), stock)):
        expected = qs.sample("euler", model, start, torch.tensor(sigmas), coefficients)
        torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)
    assert (result - stock).abs().max() > 0.1
