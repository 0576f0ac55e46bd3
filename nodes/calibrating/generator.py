"""Pictures for a calibration: MODEL + CLIP + VAE as ``generate(coefficients, indices)``."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence

import comfy.model_management
import comfy.sample
import torch
from torch import Tensor

from ...calibration.frames import decoded_pictures
from ...calibration.indices import noise_seed, prompt_of
from ...qsched_core import Coefficients
from ..host.conditioning import Conditioning
from ..host.memory import Batches
from ..sampling.patch import apply_coefficients
from .sampling_setup import SamplingSetup


class HostGenerator:
    """Samples through the host and decodes. Index i is prompt i mod n with noise number i div n.

    Noise is a function of (seed, index) alone, so every candidate sees the same; prompts are sampled together in
    batches whose composition depends on the indices alone, so ancestral noise is the same too.
    """

    def __init__(
        self,
        model,
        vae,
        prompts: Sequence[Conditioning],
        negative: Conditioning,
        latent: Tensor,
        setup: SamplingSetup,
        seed: int,
        batch_size: int,
        on_batch: Callable[[int], None] = lambda count: None,
    ):
        self.model, self.vae, self.prompts, self.negative = model, vae, prompts, negative
        self.latent, self.setup, self.seed, self.batch_size = latent, setup, seed, batch_size
        self.on_batch = on_batch
        self._decode_batches = Batches(batch_size)
        self._seconds, self._picture_count = 0.0, 0
        self._frames: tuple[int, int] | None = None

    @property
    def note(self) -> str:
        """What a reader of the report must know of the pictures; most often nothing."""
        if self._frames is None:
            return ""
        count, total = self._frames
        return f"Videos: {count} of {total} frames of each are scored, and their scores averaged."

    @property
    def sigmas(self) -> tuple[float, ...]:
        return self.setup.sigmas

    @property
    def seconds_per_picture(self) -> float:
        """Sampling and decoding, averaged over all pictures made so far."""
        return self._seconds / max(1, self._picture_count)

    def with_model(self, model) -> HostGenerator:
        """The same pictures from another MODEL."""
        other = copy.copy(self)
        other.model, other._seconds, other._picture_count = model, 0.0, 0
        return other

    def __call__(self, coefficients: Coefficients, indices: Sequence[int]) -> Tensor:
        """Pictures (B, H, W, 3) in [0, 1] on the CPU, of a video model (B, F, H, W, 3): see ``frames``.

        Raises:
            CalibrationError: the VAE makes no pictures of these latents.
        """
        model = apply_coefficients(self.model, coefficients, self.sigmas)
        pictures = []
        for start in range(0, len(indices), self.batch_size):
            chunk = list(indices[start : start + self.batch_size])
            start_time = time.monotonic()
            pictures += [self._decode(self.sample(model, group)) for group in self._alike(chunk)]
            self._seconds += time.monotonic() - start_time
            self._picture_count += len(chunk)
            self.on_batch(len(chunk))
        return torch.cat(pictures)

    def sample(self, model, indices: Sequence[int]) -> Tensor:
        """Latents of indices that can be sampled as one batch."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        latent = self.latent[:1].repeat(len(indices), *[1] * (self.latent.ndim - 1))
        noise = torch.cat([comfy.sample.prepare_noise(self.latent[:1], self._seed(i)) for i in indices])
        positive = _stack([self._prompt(i) for i in indices])
        guider = self.setup.guide(model, positive, self.negative)
        samples = guider.sample(
            noise, latent, self.setup.sampler, torch.tensor(self.sigmas),
            disable_pbar=True, seed=self._seed(indices[0]),
        )  # fmt: skip
        return samples.to(comfy.model_management.intermediate_device(), comfy.model_management.intermediate_dtype())

    def _decode(self, samples: Tensor) -> Tensor:
        def decode(start: int, end: int) -> Tensor:
            frames = self.vae.decode(samples[start:end])
            pictures = decoded_pictures(frames, end - start)
            if pictures.ndim == 5:
                self._frames = pictures.shape[1], frames[..., 0, 0, 0].numel() // (end - start)
            return pictures.float().cpu()

        return torch.cat(self._decode_batches.run(decode, len(samples)))

    def _seed(self, index: int) -> int:
        return noise_seed(self.seed, index, len(self.prompts))

    def _prompt(self, index: int) -> Conditioning:
        return self.prompts[prompt_of(index, len(self.prompts))]

    def _alike(self, indices: list[int]) -> list[list[int]]:
        """Neighbouring indices whose conditionings can be sampled as one batch, order kept."""
        groups: list[list[int]] = []
        for index in indices:
            shape = _shape(self._prompt(index))
            if groups and shape is not None and shape == _shape(self._prompt(groups[-1][0])):
                groups[-1].append(index)
            else:
                groups.append([index])
        return groups


def _shape(conditioning: Conditioning) -> tuple | None:
    """What must agree for two prompts to share a batch; None: this one is sampled alone."""
    if len(conditioning) != 1:
        return None
    tensor, extra = conditioning[0]
    tensors = {key: tuple(value.shape) for key, value in extra.items() if isinstance(value, Tensor)}
    if set(extra) - set(tensors) - {key for key, value in extra.items() if value is None}:
        return None
    return tuple(tensor.shape), tuple(sorted(tensors.items()))


def _stack(conditionings: list[Conditioning]) -> Conditioning:
    if len(conditionings) == 1:
        return conditionings[0]
    entries = [conditioning[0] for conditioning in conditionings]
    extra = {
        key: torch.cat([entry[1][key] for entry in entries]) if isinstance(value, Tensor) else value
        for key, value in entries[0][1].items()
    }
    return [[torch.cat([entry[0] for entry in entries]), extra]]
