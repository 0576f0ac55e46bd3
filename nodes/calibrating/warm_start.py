"""A warm start: the full model is evaluated where the quantised one was, and closed forms compare their outputs."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.samplers import KSAMPLER
from torch import Tensor

from ...calibration.warm_start import Pairs, closed_forms
from ...qsched_core import Coefficients
from ..sampling.driver import drive
from ..sampling.dry_run import rehearse
from ..sampling.patch import apply_coefficients

Sample = Callable[[Any, Sequence[int], KSAMPLER], object]
"""sample(model, indices, sampler): run these pictures of the calibration with this MODEL and this SAMPLER in place of
its own. The same indices are run in the same batches, in the same order, whatever the MODEL."""


def warm_starts(
    sample: Sample,
    quantized,
    full,
    indices: Sequence[int],
    sampler,
    sigmas: Sequence[float],
    batch_size: int,
    on_progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> dict[str, Coefficients]:
    """Candidates for a search over ``sigmas`` (n + 1,), by name; 5 to 8 pictures are enough.

    ``sampler`` is the SAMPLER that the calibration uses. ``on_progress(done, total, text)`` counts pictures, each once
    with either model; it may raise to stop.

    Raises:
        SamplingError: a sampler that cannot be driven, so it has no use for coefficients either.
        CalibrationError: fewer than two pictures, or the full model is not the one that was quantised.
    """
    pairs = paired_outputs(sample, quantized, full, indices, sampler, sigmas, batch_size, on_progress)
    return closed_forms(pairs, sigmas)


def paired_outputs(
    sample: Sample,
    quantized,
    full,
    indices: Sequence[int],
    sampler,
    sigmas: Sequence[float],
    batch_size: int,
    on_progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> Pairs:
    """Outputs of both MODELs wherever the quantised one, without coefficients, opens a step; as ``warm_starts``."""
    identity = Coefficients.identity(len(sigmas) - 1)
    # Without what a preset on the MODELs or on the SAMPLER would do to the run.
    quantized, full = (apply_coefficients(model, identity, sigmas) for model in (quantized, full))
    plain = drive(sampler, lambda *_: identity).qsched_inner
    pairs, total = Pairs(len(identity)), 2 * len(indices)
    for start in range(0, len(indices), batch_size):
        batch, tape = indices[start : start + batch_size], _Tape(pairs)
        on_progress(2 * start, total, "warm start: the quantised model's run")
        sample(quantized, batch, tape.recorder(plain))
        on_progress(2 * start + len(batch), total, "warm start: the full model at the same places")
        sample(full, batch, tape.player())
    on_progress(total, total, "warm start: done")
    return pairs


@dataclass(frozen=True)
class _Opening:
    """An evaluation that opened a step, kept on the CPU: x and output (B, …), sigma (B,)."""

    step: int
    x: Tensor
    sigma: Tensor
    output: Tensor


class _Tape:
    """Runs of one model, played to another. Conditioning, guidance and wrappers are the host's own in both."""

    def __init__(self, pairs: Pairs):
        self.pairs, self.runs = pairs, deque()

    def recorder(self, sampler: KSAMPLER) -> KSAMPLER:
        """The SAMPLER, watched by its model: the host's callback is not told at which sigma a sampler looked."""
        function = sampler.sampler_function

        def sample(model, x, sigmas, extra_args=None, callback=None, disable=None, **options):
            extra_args = extra_args or {}
            steps, run = iter(rehearse(function, model, x, sigmas, extra_args, options).steps), []
            self.runs.append(run)

            def record(x: Tensor, sigma: Tensor, denoised: Tensor) -> None:
                if (step := next(steps, None)) is not None:
                    place = (x, sigma, _output(model, denoised, x, sigma))
                    run.append(_Opening(step, *(tensor.detach().to("cpu", copy=True) for tensor in place)))

            return function(
                _RecordedModel(model, record),
                x,
                sigmas,
                extra_args=extra_args,
                callback=callback,
                disable=disable,
                **options,
            )

        sample.__name__ = getattr(function, "__name__", "sample")
        recorder = copy.copy(sampler)
        recorder.sampler_function = sample
        return recorder

    def player(self) -> KSAMPLER:
        """A SAMPLER that goes through the oldest run: it looks where that one looked, and takes no step."""

        def sample(model, x, sigmas, extra_args=None, callback=None, disable=None):
            for opening in self.runs.popleft():
                x_there, sigma = opening.x.to(x.device), opening.sigma.to(x.device)
                output = _output(model, model(x_there, sigma, **(extra_args or {})), x_there, sigma)
                self.pairs.add(opening.step, output, opening.output)
            return x

        return KSAMPLER(sample)


class _RecordedModel:
    """The model as samplers know it, with a callback on_evaluation(x, sigma, denoised)."""

    def __init__(self, model: Any, on_evaluation: Callable[[Tensor, Tensor, Tensor], None]):
        self.__dict__.update(_model=model, _on_evaluation=on_evaluation)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_model"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._model, name, value)

    def __call__(self, x: Tensor, sigma: Tensor, **extra: Any) -> Tensor:
        denoised = self._model(x, sigma, **extra)
        self._on_evaluation(x, sigma, denoised)
        return denoised


def _output(model: Any, denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """The network's output after guidance, up to a factor of sigma alone: noise or velocity itself, and in every
    parameterisation in units of dx/dsigma."""
    sampling = model.inner_model.inner_model.model_sampling
    zero = sampling.calculate_denoised(sigma, torch.zeros_like(x), x)
    return (zero - denoised) / sigma.reshape(-1, *[1] * (x.ndim - 1))
