"""Tiny random pipelines of diffusers as ``generate``: noise by index, coefficients in the scheduler's own step."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from exactness import same_bits
from torch import Tensor

from calibration import Settings, calibrate
from calibration.pipelines import PipelineGenerator, check_reference, fingerprint, network, take_turns
from qsched_core import CalibrationError, Coefficients, Preset, SamplingError, load_preset, quantize, save_preset
from qsched_core.diffusers import apply_preset

# diffusers' schedulers hand tensors to numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array_.*:DeprecationWarning")

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
PROMPTS = ("a red ball", "a dog", "two cats", "rain on a window", "an old house")
RAMP = Coefficients.ramp(4, c_x=(1.05, 0.97), c_eps=(0.9, 1.1))
IDENTITY = Coefficients.identity(4)
NOISY = ("EulerAncestralDiscreteScheduler", "LCMScheduler", "TCDScheduler")
KINDS = ("EulerDiscreteScheduler", *NOISY, "FlowMatchLCMScheduler")


def autoencoder(diffusers: ModuleType) -> Any:
    torch.manual_seed(1)
    return diffusers.AutoencoderKL(
        block_out_channels=(4, 4),
        shift_factor=0.0,
        norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()


def words(prompts: list[str], *shape: int) -> Tensor:
    """Stands in for a text encoder: numbers that depend on each prompt alone."""
    return torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(len(text))) for text in prompts])


def stable_diffusion(diffusers: ModuleType, scheduler: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 32),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    ).eval()
    none = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    instance = getattr(diffusers, scheduler)(**SD)
    vae = autoencoder(diffusers)
    pipe = diffusers.StableDiffusionPipeline(
        unet=unet, vae=vae, scheduler=instance, requires_safety_checker=False, **none
    )

    def encode_prompt(prompt, device, count, guided, negative_prompt=None, **rest):
        return words(prompt, 3, 8), words(negative_prompt or [""] * len(prompt), 3, 8)

    pipe.encode_prompt = encode_prompt
    pipe.set_progress_bar_config(disable=True)
    return pipe


def flux(diffusers: ModuleType, scheduler: str) -> Any:
    """Its pipeline hands no generator to the step."""
    torch.manual_seed(0)
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=1,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    names = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    instance = getattr(diffusers, scheduler)(shift=1.0)
    vae = autoencoder(diffusers)
    pipe = diffusers.FluxPipeline(scheduler=instance, transformer=transformer, vae=vae, **dict.fromkeys(names))

    def encode_prompt(prompt, **rest):
        return words(prompt, 3, 8), words(prompt, 8), torch.zeros(3, 3)

    pipe.encode_prompt = encode_prompt
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generator(diffusers: ModuleType, kind: str, **options: Any) -> PipelineGenerator:
    pipe = (flux if kind.startswith("Flow") else stable_diffusion)(diffusers, kind)
    arguments = {"steps": 4, "guidance_scale": 1.0, "size": (16, 16), **options}
    return PipelineGenerator(pipe, PROMPTS, **arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_a_function_of_its_index_alone(diffusers, kind):
    generate = generator(diffusers, kind, batch_size=3)
    many = generate(RAMP, [0, 1, 6, 9])
    assert many.shape == (4, 16, 16, 3)
    assert many.dtype == torch.float32
    assert 0 <= many.min() < many.max() <= 1
    torch.manual_seed(12345)
    for row, index in ((3, 9), (1, 1)):
        # Convolutions of a batch round other than those of one picture.
        torch.testing.assert_close(generate(RAMP, [index])[0], many[row], rtol=0, atol=1e-5)
    assert same_bits(generate(RAMP, [0, 1, 6, 9]), many)
    same_prompt = (many[1] - many[2]).abs().max()  # 1 and 6 are one prompt with two noises
    assert same_prompt > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_coefficients_are_what_a_preset_does_to_the_pipeline(diffusers, kind, tmp_path):
    generate = generator(diffusers, kind)
    pipe = generate.pipe
    assert "step" not in vars(pipe.scheduler)
    save_preset(Preset(RAMP, generate.sigmas, generate.binding), tmp_path / "mine.safetensors")
    with apply_preset(pipe, load_preset(tmp_path / "mine.safetensors"), if_differs="refuse"):
        expected = generate._pictures([2])
    torch.testing.assert_close(generate(RAMP, [2]), expected, rtol=0, atol=1e-5)
    assert same_bits(generate(IDENTITY, [2]), generate._pictures([2]))
    assert (expected - generate(IDENTITY, [2])).abs().max() > 0.001
    assert "step" not in vars(pipe.scheduler)


@pytest.mark.parametrize(
    ("kind", "scale", "expected"),
    [
        ("EulerDiscreteScheduler", 3.0, ("EPS", "euler", 3.0)),
        ("EulerDiscreteScheduler", 0.0, ("EPS", "euler", 1.0)),
        ("LCMScheduler", 1.0, ("LCM", "lcm", 1.0)),
        ("FlowMatchEulerDiscreteScheduler", 3.5, ("CONST", "euler", 0.0)),
    ],
)
def test_a_preset_is_bound_to_what_was_run(diffusers, kind, scale, expected):
    generate = generator(diffusers, kind, guidance_scale=scale)
    bound = generate.binding
    assert (bound.prediction, bound.sampler, bound.cfg) == expected
    assert bound.quantization == "none"
    assert generate.steps == 4
    assert len(generate.sigmas) == 5
    assert generate.sigmas[-1] == 0


def test_a_quantized_network_is_named(diffusers):
    pipe = stable_diffusion(diffusers, "EulerDiscreteScheduler")
    quantize(network(pipe), "w4a8", backend="torch")
    bound = PipelineGenerator(pipe, PROMPTS, steps=2, guidance_scale=1.0, size=(16, 16)).binding
    assert bound.quantization.startswith("conv+w4a8")


def test_guidance_and_negative_prompt_change_the_picture(diffusers):
    plain, guided, negative = (
        generator(diffusers, "EulerDiscreteScheduler", **options)(IDENTITY, [0])
        for options in ({}, {"guidance_scale": 7.0}, {"guidance_scale": 7.0, "negative": "blurred"})
    )
    assert (plain - guided).abs().max() > 0.001
    assert (guided - negative).abs().max() > 0.001


def test_the_seed_changes_every_noise(diffusers):
    one, other = (generator(diffusers, "LCMScheduler", seed=seed)(IDENTITY, [3]) for seed in (0, 1))
    assert (one - other).abs().max() > 0.01


# --- memory and broken pictures


class Small:
    """A pipeline in a memory that holds ``room`` pictures."""

    def __init__(self, pipe: Any, room: int):
        self.pipe, self.room, self.batches = pipe, room, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipe, name)

    def __call__(self, prompt: list[str], **options: Any) -> Any:
        self.batches.append(len(prompt))
        if len(prompt) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return self.pipe(prompt=prompt, **options)


def test_memory_that_does_not_suffice_halves_the_batch_once_and_for_all(diffusers):
    pipe = stable_diffusion(diffusers, "EulerDiscreteScheduler")
    small = Small(pipe, 2)
    options = {"steps": 4, "guidance_scale": 1.0, "size": (16, 16), "batch_size": 8}
    pictures = PipelineGenerator(small, PROMPTS, **options)(RAMP, range(7))
    assert small.batches == [1, 7, 3, 1, 1, 1, 1, 1, 1, 1]
    torch.testing.assert_close(pictures, PipelineGenerator(pipe, PROMPTS, **options)(RAMP, range(7)), rtol=0, atol=1e-5)


def test_a_picture_that_fits_into_no_memory_is_refused(diffusers, refused):
    small = Small(stable_diffusion(diffusers, "EulerDiscreteScheduler"), 0)
    with refused(CalibrationError, "one picture alone does not fit"):
        PipelineGenerator(small, PROMPTS, steps=4, guidance_scale=1.0)
    assert "step" not in vars(small.scheduler)


def test_a_step_that_is_not_finite_breaks_its_own_picture_alone(diffusers):
    generate = generator(diffusers, "EulerDiscreteScheduler", batch_size=4)
    forward, calls = generate.pipe.unet.forward, []

    def explode(sample, *args, **kwargs):
        pictures = forward(sample, *args, **kwargs)
        calls.append(len(sample))
        pictures[0][-1] = torch.nan if len(sample) == 3 or len(calls) > 9 else pictures[0][-1]
        return pictures

    generate.pipe.unet.forward = explode
    pictures = generate(RAMP, [0, 1, 2])
    assert pictures.isnan().flatten(1).any(1).tolist() == [False, False, True]
    assert pictures[2].isnan().all()


def test_a_scheduler_with_a_memory_is_refused_before_a_picture_is_made(diffusers, refused):
    pipe = Small(stable_diffusion(diffusers, "DPMSolverMultistepScheduler"), 9)
    with refused(SamplingError, "DPMSolverMultistepScheduler keeps copies of earlier steps"):
        PipelineGenerator(pipe, PROMPTS, steps=4, guidance_scale=1.0)
    assert pipe.batches == []


# --- together


def test_a_calibration_of_a_pipeline_runs_through(diffusers):
    generate = generator(diffusers, "LCMScheduler")

    def score(pictures: Tensor, indices: list[int]) -> dict:
        brightness = pictures.flatten(1).mean(1).double().numpy()
        return {"tc": brightness, "iq": 0 * brightness}

    settings = Settings(trials=3, seeds=1, strategy="random")
    result = calibrate(generate, score, len(PROMPTS), generate.steps, settings)
    assert len(result.trace) == 4
    assert result.coefficients == max(
        (c for c in [result.coefficients, IDENTITY]), key=lambda c: generate(c, [0, 1, 2]).mean()
    )


def test_a_fingerprint_tells_weights_apart(diffusers):
    one, same, other = (stable_diffusion(diffusers, "EulerDiscreteScheduler", seed) for seed in (0, 0, 1))
    assert fingerprint(one) == fingerprint(same)
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize(("place", "is_seen"), [(0, True), (63, True), (64, False)])
def test_a_fingerprint_looks_at_64_values_of_each_parameter(place, is_seen):
    """Another number of them, and every study that was begun before would begin anew."""
    net = torch.nn.Linear(8, 32).requires_grad_(False)
    pipe = SimpleNamespace(components={"unet": net, "scheduler": object()})
    before = fingerprint(pipe)
    net.weight.view(-1)[place] += 1
    assert (fingerprint(pipe) != before) == is_seen and len(before) == 16


def test_what_has_no_network_is_refused(refused):
    with refused(CalibrationError, "object has no unet or transformer."):
        network(object())


# --- the reference


def maker(kind: str = "Painter", **changed: Any) -> SimpleNamespace:
    """What is looked at of a PipelineGenerator."""
    binding = {"quantization": "w8a8", "prediction": "epsilon", **changed}
    own = {"sigmas": (1.0, 0.5, 0.0), "picture_shape": (16, 24, 3), **changed}
    return SimpleNamespace(pipe=type(kind, (), {})(), binding=SimpleNamespace(**binding), **own)


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        (maker("Drawer"), "the reference is a Drawer, the model a Painter."),
        (maker(quantization="w4a8/g32"), "the reference is quantised to w4a8/g32."),
        (maker(sigmas=(1.0, 0.6, 0.0)), "the reference samples on another schedule than the model."),
        (maker(prediction="v"), "the reference samples on another schedule than the model."),
        (maker(picture_shape=(32, 40, 3)), "the reference makes pictures of 40x32, the model of 24x16."),
    ],
)
def test_a_reference_that_makes_other_pictures_is_refused(refused, reference, text):
    with refused(CalibrationError, text, "give the pipeline before quantising"):
        check_reference(maker(), reference)
    check_reference(maker(), maker())


def test_two_pipelines_take_turns_on_a_device():
    moves: list[tuple[str, str]] = []

    def movable(name: str) -> SimpleNamespace:
        pipe = SimpleNamespace(to=lambda device: moves.append((name, device)))
        return SimpleNamespace(pipe=pipe, before_pictures=None)

    model, reference = movable("model"), movable("reference")
    take_turns("cpu", model, reference)
    assert model.before_pictures is reference.before_pictures is None
    take_turns("cuda", model, reference)
    reference.before_pictures()
    model.before_pictures()
    assert moves == [("model", "cpu"), ("reference", "cuda"), ("reference", "cpu"), ("model", "cuda")]
