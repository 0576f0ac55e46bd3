"""What a sampler does, measured before it is driven: it runs on a few numbers, with a model that predicts zero. There
is no list of names that could become outdated: new samplers of the host and of other packs are tried like the old ones.

Three runs of a few scalars per step, with the run's own sigmas and options. The first notes which model evaluation
opens which step. The other two start from different numbers and overwrite the tensor of one step in each row of the
batch: where the two still differ afterwards, the sampler keeps a copy of the state that c_x cannot reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from comfy.model_management import InterruptProcessingException
from torch import Tensor

from ...qsched_core import SamplingError

OFF_SCHEDULE = 0.02
"""Samplers may shave this part off a sigma (the host moves a flow's first sigma from 1 to 0.9999)."""
MAX_EVALUATIONS = 8
"""Per step; no sampler of a fixed schedule needs more than three."""

_MENU_NAMES = {"unipc": "uni_pc", "unipc_bh2": "uni_pc_bh2"}
"""Functions that menus call otherwise."""

_NEAREST_SAMPLERS = {"uni_pc": "dpmpp_2m", "uni_pc_bh2": "dpmpp_2m", "dpm_fast": "dpmpp_2m", "dpm_adaptive": "dpmpp_2m"}
_NEAREST_SAMPLERS |= {"sa_solver": "er_sde", "sa_solver_pece": "er_sde"}

_INNER_FUNCTION_NAMES = {"<lambda>", "sample", "sampler", "sampler_function", "wrapped", "wrapper", "inner", "_"}
"""What functions inside functions are called: the outer one has the sampler's name."""


@dataclass(frozen=True)
class Rehearsal:
    """What a sampler function does on a schedule.

    ``steps`` has one entry per model evaluation: the step it opens, or None for a later stage of a step.
    ``sigmas`` are what the evaluations saw. ``reads_guidance``: it looks at the unconditional prediction by itself.
    """

    steps: tuple[int | None, ...]
    sigmas: tuple[float, ...]
    reads_guidance: bool

    @property
    def one_evaluation_per_step(self) -> bool:
        """The published update, exactly; else Q-Sched is applied by rule, on the first evaluation of a step."""
        return None not in self.steps


def name_of(function: Callable) -> str:
    """The host's name of a sampler function, as menus and presets spell it; of other packs' what they call it."""
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__name__", type(function).__name__)
    outer, inside, _ = getattr(function, "__qualname__", name).rpartition(".<locals>.")
    if inside and name in _INNER_FUNCTION_NAMES:
        name = outer.rpartition(".")[2]
    return _MENU_NAMES.get(name := name.removeprefix("sample_").removesuffix("_function"), name)


_rehearsals: dict[tuple, Rehearsal] = {}
_MAX_REHEARSALS = 16
"""Remembered: a graph samples with one or two schedules, a calibration with one."""


def rehearse(
    function: Callable, model: Any, x: Tensor, sigmas: Tensor, extra_args: Mapping[str, Any], options: Mapping[str, Any]
) -> Rehearsal:
    """Try a k-diffusion sampler function on ``sigmas`` (n + 1,) for tensors like ``x`` (B, …).

    ``model`` is what the function will be given: its attributes are read, it is not called. The same function,
    schedule and options are not tried twice: a rehearsal takes milliseconds, and a GPU step may take no more.

    Raises:
        SamplingError: coefficients cannot be applied to this sampler; says why and names the nearest that works.
    """
    sampling = model.inner_model.inner_model.model_sampling
    key = (function, tuple(sigmas.tolist()), x.ndim, x.device, sampling, tuple(sorted(options.items())))
    try:
        if (rehearsal := _rehearsals.get(key)) is not None:
            return rehearsal
    except TypeError:  # an option without a hash
        return _rehearse(function, model, x, sigmas, extra_args, options)
    rehearsal = _rehearse(function, model, x, sigmas, extra_args, options)
    if len(_rehearsals) >= _MAX_REHEARSALS:
        _rehearsals.pop(next(iter(_rehearsals)))
    _rehearsals[key] = rehearsal
    return rehearsal


def _rehearse(function, model, x: Tensor, sigmas: Tensor, extra_args, options) -> Rehearsal:
    name, run = name_of(function), sigmas.tolist()

    def play(start: Tensor, rows_by_evaluation: Mapping[int, int]) -> _Stand:
        stand = _Stand(
            model, len(extra_args.get("model_options", {}).get("sampler_post_cfg_function", [])), rows_by_evaluation
        )
        stand.remaining = MAX_EVALUATIONS * len(run)
        with _same_random_numbers(x.device):
            last = function(
                stand, start.clone(), sigmas.clone(), extra_args={**extra_args, "denoise_mask": None},
                callback=stand.on_step, disable=True, **options,
            )  # fmt: skip
        stand.states.append(last.clone())
        return stand

    ones = x.new_ones([len(run) - 1] + [1] * (x.ndim - 1))
    try:
        first = play(ones, {})
        opening = _openings(first, run)
        rows_by_evaluation = {evaluation: step for step, evaluation in enumerate(opening)}
        has_copy = _keeps_a_copy(play(ones, rows_by_evaluation), play(-2 * ones, rows_by_evaluation), opening)
    except _NoSteps as reason:
        raise _refused(name, str(reason)) from None
    except _TooMany:
        raise _refused(name, "takes steps of its own choice") from None
    except (SamplingError, InterruptProcessingException):  # a cancel is an Exception in hosts before 0.24
        raise
    except Exception as error:  # noqa: BLE001  it may be anybody's code; whatever it raised, it cannot be driven
        raise _refused(name, f"failed in rehearsal ({type(error).__name__}: {error})") from error
    if has_copy:
        raise _refused(name, "keeps a copy of the latent, which c_x cannot reach")
    steps = dict.fromkeys(range(len(first.sigmas))) | rows_by_evaluation
    return Rehearsal(tuple(steps.values()), tuple(first.sigmas), first.reads_guidance)


@contextmanager
def _same_random_numbers(device: torch.device) -> Iterator[None]:
    """Every play draws the same from torch's global generators, and leaves them as they were, on all devices."""
    module = getattr(torch, device.type, None)
    own = hasattr(module, "get_rng_state") and hasattr(module, "manual_seed")
    with torch.random.fork_rng([device] if own else [], device_type=device.type if own else "cuda"):
        # Not torch.manual_seed: it would seed accelerators too, whose state is not restored here.
        torch.default_generator.manual_seed(0)
        if own:
            module.manual_seed(0)
        yield


def _refused(name: str, reason: str) -> SamplingError:
    return SamplingError(
        f"sampler {name} {reason}.", f"use {_NEAREST_SAMPLERS.get(name, 'euler')}", name=name, reason=reason
    )


def _openings(stand: _Stand, run: list[float]) -> list[int]:
    """The evaluation that opens each step: the last before the sampler reports the step. Raises _NoSteps.

    A sampler that never reports must evaluate exactly once at each sigma. One that shows the model other sigmas than
    it reports (to add detail, for one) must evaluate once per step: which of several is which could not be told.
    """
    reports = stand.reports or [(k, k, sigma, sigma) for k, sigma in enumerate(stand.sigmas)]
    openings = [evaluation for evaluation, *_ in reports]
    in_order = [step for _, step, *_ in reports] == list(range(len(run) - 1)) and openings == sorted(set(openings))
    on_schedule = in_order and all(
        math.isclose(sigma, run[step], rel_tol=OFF_SCHEDULE) for _, step, sigma, _ in reports
    )
    if not on_schedule or openings[0] < 0:
        raise _NoSteps("does not take the schedule's steps one by one")
    is_shifted = not all(
        math.isclose(stand.sigmas[at], model_sigma, rel_tol=OFF_SCHEDULE) for at, _, _, model_sigma in reports
    )
    if is_shifted and (len(stand.sigmas) != len(openings) or not stand.reports):
        raise _NoSteps("shows the model other sigmas than the schedule's, more than once a step")
    return openings


def _keeps_a_copy(one: _Stand, other: _Stand, opening: list[int]) -> bool:
    """Whether any state after a spoiled one still tells two starts apart. The model predicts zero, so nothing may."""
    for step, evaluation in enumerate(opening):
        for mine, theirs in zip(one.states[evaluation + 1 :], other.states[evaluation + 1 :], strict=True):
            if not (mine[step].isnan() | (mine[step] == theirs[step])).all():
                return True
    return False


class _NoSteps(Exception):
    """Evaluations that cannot be told apart by the schedule's steps. The text follows the sampler's name."""


class _TooMany(Exception):
    """More evaluations than any sampler of a fixed schedule needs."""


@dataclass
class _Stand:
    """Stands in for the model: predicts zero, notes every call, and overwrites one row of some of the tensors.

    ``rows_to_spoil`` maps an evaluation to the row it spoils. Row 0 becomes zero and must stay zero: a sampler that
    still changes it keeps a copy of the start. The others become NaN, because a multistep sampler may rightly remember
    earlier steps.
    """

    model: Any
    host_functions: int
    rows_to_spoil: Mapping[int, int]
    remaining: int = 0
    sigmas: list[float] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    reports: list[tuple[int, int, float, float]] = field(default_factory=list)
    reads_guidance: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["model"], name)

    def on_step(self, report: Mapping[str, Any]) -> None:
        evaluation = len(self.sigmas) - 1
        sigma = float(report.get("sigma", self.sigmas[-1] if self.sigmas else math.nan))
        self.reports.append((evaluation, int(report["i"]), sigma, float(report.get("sigma_hat", sigma))))

    def __call__(self, x: Tensor, sigma: Tensor, model_options: Mapping[str, Any] | None = None, **_: Any) -> Tensor:
        if self.remaining <= 0:
            raise _TooMany
        self.remaining -= 1
        evaluation, zero = len(self.sigmas), torch.zeros_like(x)
        self.sigmas.append(float(sigma.flatten()[0]))
        self.states.append(x.clone())
        self._answer_guidance(zero, x, sigma, model_options or {})
        if (row := self.rows_to_spoil.get(evaluation)) is not None:
            x[row] = 0.0 if row == 0 else float("nan")
        return zero

    def _answer_guidance(self, zero: Tensor, x: Tensor, sigma: Tensor, options: Mapping[str, Any]) -> None:
        """CFG++ samplers ask for the unconditional prediction through a function they add to the model's options."""
        for function in options.get("sampler_post_cfg_function", [])[self.host_functions :]:
            self.reads_guidance = True
            function(
                {"denoised": zero, "cond_denoised": zero, "uncond_denoised": zero, "cond": None, "uncond": None,
                 "cond_scale": 1.0, "input": x, "sigma": sigma, "model": None, "model_options": options}
            )  # fmt: skip
