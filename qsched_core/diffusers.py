"""Presets in diffusers: a pipeline's own scheduler steps on the scaled pair, as the published schedulers do.

from qsched_core import load_preset
from qsched_core.diffusers import apply_preset
with apply_preset(pipe, load_preset("mine.safetensors")):
    picture = pipe(prompt, num_inference_steps=4, guidance_scale=0.0).images[0]

``scheduler.step`` is wrapped, nothing is copied; diffusers is not imported: schedulers are told by class name.
"""

from __future__ import annotations

import copy
import functools
import logging
import operator
from typing import Any

import torch
from torch import Tensor

from .errors import PresetError, SamplingError
from .precondition import precondition_output, precondition_sample
from .preset import Binding, Preset
from .preset_fit import fit
from .samplers import check_finite

_log = logging.getLogger(__name__)

# Class name -> (the host's sampler, whether it is for flow models). With one network output per step and no memory
# between steps, scaling what goes into the step is all of Q-Sched.
_EXACT_SCHEDULERS = {
    "EulerDiscreteScheduler": ("euler", False),
    "EulerAncestralDiscreteScheduler": ("euler_ancestral", False),
    "TCDScheduler": ("tcd", False),
    "LCMScheduler": ("lcm", False),
    "FlowMatchEulerDiscreteScheduler": ("euler", True),
    "FlowMatchLCMScheduler": ("lcm", True),
}
_PREDICTIONS = {"epsilon": "EPS", "v_prediction": "V_PREDICTION", "sample": "X0", "original_sample": "X0"}
_MEMORY_ATTRIBUTES = ("model_outputs", "ets", "derivatives", "prev_derivative", "dt", "sample")
"""Attributes in which schedulers keep earlier steps."""


def apply_preset(pipe: Any, preset: Preset, *, strength: float = 1.0, if_differs: str = "resample") -> Applied:
    """Put ``preset`` on ``pipe.scheduler`` until the returned handle is removed, or leaves its ``with`` block.

    Exact for the Euler, Euler ancestral, TCD, LCM and flow-match Euler and LCM schedulers. A second preset replaces
    the first. The preset is on the scheduler: put another one into ``pipe.scheduler`` and it stays with the old one.
    Schedulers made with ``from_config`` are stock; ``copy.deepcopy`` makes one with a preset of its own.

    ``strength`` 0 is the stock scheduler bit for bit, 1 as calibrated. ``if_differs`` is one of IF_DIFFERS and speaks
    of the kind of sampler and prediction (known now) and of steps and sigmas (known at the first step of a run).

    Raises:
        SamplingError: no scheduler, or one that cannot be driven exactly. In a run: a step that is not finite.
        PresetError: not a preset, an unknown ``if_differs``, or a difference that was to be refused; also in a run.
        CoefficientError: a strength that is not finite, or that takes a coefficient out of its range.
    """
    scheduler = getattr(pipe, "scheduler", None)
    if scheduler is None:
        raise SamplingError(f"{type(pipe).__name__} has no scheduler.", "give a diffusers pipeline")
    if not all(hasattr(preset, name) for name in ("coefficients", "sigmas", "binding")):
        raise PresetError(f"{type(preset).__name__} is not a Q-Sched preset.", "give what load_preset(path) returns")
    handle = Applied(scheduler, preset, strength, if_differs)
    step = scheduler.step
    while step is not None:  # through the wrappers that others put over ours
        if isinstance(step, Applied):
            step.remove()
        step = getattr(step, "__wrapped__", None)
    handle._put()
    return handle


class Applied:
    """A preset on a scheduler. It stands in the place of ``scheduler.step`` and is called as that.

    ``differences``: in what the preset differs from the latest run; before one, from the kind of scheduler.
    """

    def __init__(self, scheduler: Any, preset: Preset, strength: float, if_differs: str):
        self.scheduler = scheduler
        here = describe_scheduler(scheduler, preset.binding)
        self._fit = functools.partial(fit, preset, here, strength=strength, if_differs=if_differs)
        self._warns = if_differs == "resample"
        self._warned: set[str] = set()
        self._active = False
        self._before: Any = None
        self._schedule: tuple[Any, Any] = (None, None)
        self._begin(preset.sigmas)

    def remove(self) -> None:
        """Give the scheduler its own step back. Once more does nothing; a preset that was replaced stays away."""
        if self._active and vars(self.scheduler).get("step") is self:
            if self._before is None:
                del self.scheduler.step
            else:
                self.scheduler.step = self._before
        # Others may have wrapped this wrapper: then it stays where it is and only hands on.
        self._active = False

    def __enter__(self) -> Applied:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def __call__(self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The scheduler's own step on c_x·sample and c_eps·model_output, all else as it came."""
        if not self._active:
            return self.__wrapped__(model_output, timestep, sample, *args, **kwargs)
        step = self._step(timestep)
        c_x, c_eps = pair = self._coefficients.at(step)
        if pair != (1.0, 1.0):
            if kwargs.get("per_token_timesteps") is not None:
                raise SamplingError("every token has a sigma of its own here.", "remove the preset from this pipeline")
            sample, model_output = precondition_sample(sample, c_x), precondition_output(model_output, c_eps)
        result = self.__wrapped__(model_output, timestep, sample, *args, **kwargs)
        check_finite(result[0], step, self._sigmas[step], pair)
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Applied:
        # Some pipelines copy only the scheduler's __dict__, to put it back later: it must come back as it was.
        if id(self.scheduler) not in memo:
            return self
        twin = copy.copy(self)
        twin.scheduler = memo[id(self.scheduler)]
        twin.__wrapped__ = copy.deepcopy(self.__wrapped__, memo)
        twin._before = copy.deepcopy(self._before, memo)
        twin._warned, twin._schedule = set(self._warned), (None, None)
        return twin

    def _put(self) -> None:
        self._before = vars(self.scheduler).get("step")
        # Pipelines ask inspect.signature(scheduler.step) whether it takes eta and a generator.
        functools.update_wrapper(self, self.scheduler.step)
        self.scheduler.step = self
        self._active = True

    def _step(self, timestep: Any) -> int:
        """The index of this step, with the coefficients of the schedule that is now on the scheduler."""
        scheduler = self.scheduler
        schedule = (scheduler.timesteps, getattr(scheduler, "sigmas", None))
        if not all(map(operator.is_, schedule, self._schedule)):  # set_timesteps makes new tensors
            self._begin(run_sigmas(scheduler))
            self._schedule = schedule
        index = scheduler.begin_index if scheduler.step_index is None else scheduler.step_index
        if index is None:  # the first step, of a scheduler whose scale_model_input does not look
            place = timestep.to(scheduler.timesteps.device) if isinstance(timestep, Tensor) else timestep
            index = scheduler.index_for_timestep(place)
        return min(index, len(self._coefficients) - 1)

    def _begin(self, sigmas: tuple[float, ...]) -> None:
        self._coefficients, mismatches = self._fit(sigmas)
        self._sigmas, self.differences = sigmas, [str(item) for item in mismatches]
        new = [text for text in self.differences if text not in self._warned]
        if new and self._warns:
            _log.warning("Q-Sched: the preset differs, each range of sigma gets its effect: %s", "; ".join(new))
            self._warned.update(new)


def describe_scheduler(scheduler: Any, binding: Binding) -> Binding:
    """Sampler and prediction in the host's words, or the reason why Q-Sched does not fit this scheduler."""
    name = next((kind.__name__ for kind in type(scheduler).__mro__ if kind.__name__ in _EXACT_SCHEDULERS), None)
    if name is None:
        raise _refusal(scheduler)
    sampler, flow = _EXACT_SCHEDULERS[name]
    config = scheduler.config
    if flow:
        return Binding(prediction="CONST", sampler="lcm" if config.get("stochastic_sampling") else sampler)
    prediction = _PREDICTIONS.get(config.get("prediction_type"), "")
    if name == "LCMScheduler" and prediction == "EPS" and binding.prediction == "LCM":
        prediction = "LCM"  # epsilon with LCM's c_skip and c_out; plain EPS is the same but for 1 in 100 000
    return Binding(prediction=prediction, sampler=sampler)


def run_sigmas(scheduler: Any) -> tuple[float, ...]:
    """Sigmas (n + 1,) of the scheduler's n steps in the host's terms, noisiest first."""
    timesteps = scheduler.timesteps
    if hasattr(scheduler, "sigmas"):
        sigmas = scheduler.sigmas[: len(timesteps) + 1].tolist()
        return tuple(1 - sigma for sigma in sigmas) if scheduler.config.get("invert_sigmas") else tuple(sigmas)
    alphas = scheduler.alphas_cumprod.to("cpu", torch.float64)[timesteps.cpu()]
    return (*((1 - alphas) / alphas).sqrt().tolist(), 0.0)


def _refusal(scheduler: Any) -> SamplingError:
    name, config = type(scheduler).__name__, getattr(scheduler, "config", {})
    noisy = any(word in name for word in ("Ancestral", "SDE", "DDPM"))
    if "FlowMatch" in name or config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        fix = "use FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)"
    elif "EulerDiscreteScheduler" in getattr(scheduler, "_compatibles", ()):
        fix = f"use Euler{'Ancestral' * noisy}DiscreteScheduler.from_config(pipe.scheduler.config)"
    else:
        fix = f"use a pipeline that takes {', '.join(_EXACT_SCHEDULERS)}"
    memory = getattr(scheduler, "order", 1) != 1 or any(
        hasattr(scheduler, attribute) for attribute in _MEMORY_ATTRIBUTES
    )
    why = "keeps copies of earlier steps" if memory else "is not one that Q-Sched drives exactly"
    return SamplingError(f"{name} {why}.", fix, scheduler=name)
