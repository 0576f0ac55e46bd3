"""Pictures for a calibration from any text-to-image pipeline of diffusers.

from diffusers import DiffusionPipeline
import qsched_core as qs
from calibration import Settings, calibrate
from calibration.pipelines import PipelineGenerator, network

pipe = DiffusionPipeline.from_pretrained("models/lcm", local_files_only=True)
qs.quantize(network(pipe), "w4a8")
generate = PipelineGenerator(pipe, prompts, steps=4, guidance_scale=1.0)
result = calibrate(generate, score, len(prompts), generate.steps, Settings(trials=40), journal="study.jsonl")
qs.save_preset(qs.Preset(result.recommended, generate.sigmas, generate.binding), "mine.safetensors")

diffusers is not imported: the pipeline comes from outside.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# From a checkout alone: inside the host the nodes make the pictures.
from qsched_core import Binding, CalibrationError, Coefficients, Preset, SamplingError
from qsched_core.diffusers import apply_preset, describe_scheduler, run_sigmas
from qsched_core.quant import has_few_bits, label_of

from .batches import Batches
from .indices import noise_seed, prompt_of

_REFERENCE_FIX = "give the pipeline before quantising, or its 8-bit form"

_FINGERPRINT_VALUES = 64
"""Numbers of each parameter that its model is known by."""


class PipelineGenerator:
    """``generate(coefficients, indices)`` of ``calibrate``. Index i is prompt i mod n with noise number i div n.

    All noise of a picture, that of the scheduler's steps too, is a function of (seed, index) alone: every candidate
    sees the same, whatever else is in its batch. ``sigmas`` (steps + 1,) and ``binding`` are what a preset needs.
    """

    def __init__(
        self,
        pipe: Any,
        prompts: Sequence[str],
        *,
        steps: int,
        guidance_scale: float,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        batch_size: int = 4,
        negative: str = "",
    ):
        """``size`` is (width, height) in pixels, None the pipeline's own. Makes one picture, to see that all goes well.

        Raises:
            SamplingError: a scheduler that cannot be driven exactly.
            CalibrationError: one picture alone does not fit into memory.
        """
        self.pipe, self.prompts, self.seed = pipe, tuple(prompts), seed
        self._batches = Batches(batch_size, _is_shortage, _free_memory)
        self.before_pictures: Callable[[], None] = lambda: None
        self._options = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "output_type": "pt"}
        self._options |= {"width": size[0], "height": size[1]} if size else {}
        self._negative = negative
        # LCM's schedulers have c_skip and c_out; the hint changes nothing for others.
        kind = describe_scheduler(pipe.scheduler, Binding(prediction="LCM"))
        self._shape = tuple(self._in_batches([0])[0].shape)
        self.sigmas = run_sigmas(pipe.scheduler)
        self.binding = Binding(
            prediction=kind.prediction,
            sampler=kind.sampler,
            quantization=label_of(network(pipe)),
            cfg=self._cfg(guidance_scale),
        )

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def picture_shape(self) -> tuple[int, ...]:
        """(H, W, 3)"""
        return self._shape

    def __call__(self, coefficients: Coefficients, indices: Sequence[int]) -> Tensor:
        """Pictures (B, H, W, 3) in [0, 1], float32 on the CPU; NaN where a step was not finite.

        Raises:
            CalibrationError: one picture alone does not fit into memory.
        """
        self.before_pictures()
        preset = Preset(coefficients, self.sigmas, self.binding)
        with apply_preset(self.pipe, preset, if_differs="refuse"):
            return self._in_batches(indices)

    def _in_batches(self, indices: Sequence[int]) -> Tensor:
        indices = list(indices)
        try:
            return torch.cat(self._batches.run(lambda start, end: self._finite(indices[start:end]), len(indices)))
        except torch.cuda.OutOfMemoryError as error:
            raise CalibrationError(
                "one picture alone does not fit into memory.", "make smaller pictures, or quantise more"
            ) from error

    def _finite(self, indices: list[int]) -> Tensor:
        try:
            return self._pictures(indices)
        except SamplingError:
            if len(indices) > 1:  # one of them may be the only broken one
                return torch.cat([self._finite([index]) for index in indices])
            return torch.full((1, *self._shape), torch.nan)

    def _pictures(self, indices: list[int]) -> Tensor:
        # On the CPU, so that every machine draws the same.
        noises = [torch.Generator().manual_seed(self._seed(index)) for index in indices]
        texts = {"prompt": [self.prompts[prompt_of(index, len(self.prompts))] for index in indices]}
        if self._negative:
            texts["negative_prompt"] = [self._negative] * len(indices)
        with _step_noise(self.pipe.scheduler, noises):
            images = self.pipe(**texts, generator=noises, **self._options).images
        return images.movedim(1, -1)[..., :3].float().cpu()

    def _seed(self, index: int) -> int:
        """As in the host: with the same seed it starts from the same noise."""
        return noise_seed(self.seed, index, len(self.prompts))

    def _cfg(self, guidance_scale: float) -> float:
        """1 is no guidance; 0, any, where the pipeline does not say whether its scale is one."""
        has_guidance = getattr(self.pipe, "do_classifier_free_guidance", None)
        return 0.0 if has_guidance is None else float(guidance_scale) if has_guidance else 1.0


def _is_shortage(error: BaseException) -> bool:
    return isinstance(error, torch.cuda.OutOfMemoryError)


def _free_memory(size: int) -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def check_reference(generate: PipelineGenerator, reference: PipelineGenerator) -> None:
    """Whether the second can make the first one's pictures, only better.

    Raises:
        CalibrationError: another kind of pipeline, another schedule, pictures of another size, or fewer than 8 bits.
    """
    kinds = [type(each.pipe).__name__ for each in (generate, reference)]
    if kinds[0] != kinds[1]:
        raise CalibrationError(f"the reference is a {kinds[1]}, the model a {kinds[0]}.", _REFERENCE_FIX)
    if has_few_bits(reference.binding.quantization):
        raise CalibrationError(f"the reference is quantised to {reference.binding.quantization[:40]}.", _REFERENCE_FIX)
    if generate.sigmas != reference.sigmas or generate.binding.prediction != reference.binding.prediction:
        raise CalibrationError("the reference samples on another schedule than the model.", _REFERENCE_FIX)
    if generate.picture_shape != reference.picture_shape:
        sizes = ["x".join(map(str, each.picture_shape[1::-1])) for each in (reference, generate)]
        raise CalibrationError(f"the reference makes pictures of {sizes[0]}, the model of {sizes[1]}.", _REFERENCE_FIX)


def take_turns(device: str, *generators: PipelineGenerator) -> None:
    """Pipelines that need not fit on the device together: each moves there when it is asked, the others to the CPU."""
    if device == "cpu":
        return
    for generator in generators:
        others = [other.pipe for other in generators if other is not generator]
        generator.before_pictures = functools.partial(_move, generator.pipe, others, device)


def _move(pipe: Any, others: Sequence[Any], device: str) -> None:
    for other in others:
        other.to("cpu")
    pipe.to(device)


def network(pipe: Any) -> nn.Module:
    """The part of a pipeline that denoises, and that is worth quantising.

    Raises:
        CalibrationError: the pipeline has neither a unet nor a transformer.
    """
    module = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    if module is None:
        raise CalibrationError(f"{type(pipe).__name__} has no unet or transformer.", "give a text-to-image pipeline")
    return module


def fingerprint(pipe: Any) -> str:
    """16 hex digits that two pipelines share when all their networks have the same weights, as far as a look at the
    beginning of every parameter can tell."""
    digest = hashlib.sha256(type(pipe).__name__.encode())
    for part, module in sorted(pipe.components.items()):
        for name, value in module.named_parameters() if isinstance(module, nn.Module) else ():
            digest.update(f"{part}.{name}{tuple(value.shape)}".encode())
            digest.update(value.detach().flatten()[:_FINGERPRINT_VALUES].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def _step_noise(scheduler: Any, noises: list[torch.Generator]) -> Iterator[None]:
    """Some pipelines, FLUX among them, do not hand their generators on to the scheduler's step."""
    before, own = vars(scheduler).get("step"), scheduler.step
    if "generator" not in inspect.signature(own).parameters:
        yield
        return

    @functools.wraps(own)
    def step(*args: Any, **kwargs: Any) -> Any:
        return own(*args, **{"generator": noises, **kwargs})

    scheduler.step = step
    try:
        yield
    finally:
        if before is None:
            del scheduler.step
        else:
            scheduler.step = before
