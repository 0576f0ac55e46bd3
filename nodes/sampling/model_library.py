"""Several MODELs of one source that sample as one: each step is evaluated by the model that the plan gives it.

The MODEL that nodes see is a clone of the first. A run asks the host to load the model that a step needs when the step
comes, as the host loads a MODEL before a run; what it moves out for it is the host's choice. What nodes have put on the
MODEL since (LoRAs, another ModelSampling, patches, wrappers) holds for all of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
from comfy.model_patcher import create_model_options_clone
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key

from ...qsched_core import Precision, SamplingError
from ..host.progress import say
from .later_changes import LaterChanges
from .step_precision import put_precision, wrapper_in_run

WRAPPER_KEY = "qsched_models"


class ModelLibrary:
    """The OUTER_SAMPLE wrapper that has the MODELs, in the plan's order. ``unique_id`` is the node's that says what a
    run has loaded."""

    def __init__(self, models: Sequence, unique_id: str | None = None):
        self.models = tuple(models)
        self.unique_id = unique_id
        self.changes = LaterChanges(self.models[0])
        self._patched: dict[int, tuple] = {}
        self.loads: list[Load] = []
        """Of the latest run."""

    def __call__(self, executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        guider = executor.class_obj
        run = _LibraryRun(self, guider, sigmas)
        for kind, wrapper in ((WrappersMP.PREPARE_SAMPLING, run.prepare), (WrappersMP.CALC_COND_BATCH, run.evaluate)):
            add_wrapper_with_key(kind, WRAPPER_KEY, wrapper, guider.model_options, is_model_options=True)
        try:
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        finally:
            run.finish()
            self.loads = run.loads
            self._tell()

    def patched(self, number: int, carrier):
        """A model with the weights' patches that nodes have put on the MODEL since. The same clone as long as they are
        the same, so that the host does not load it anew for every run."""
        if not self.changes.patches_of(carrier):
            return self.models[number]
        state = carrier.patches_uuid, {name: id(value) for name, value in carrier.object_patches.items()}
        latest = self._patched.get(number)
        if latest is None or latest[0] != state:
            clone = self.models[number].clone()
            self.changes.put_patches(carrier, clone)
            latest = self._patched[number] = state, clone
        return latest[1]

    def _tell(self) -> None:
        if len({load.model for load in self.loads}) < 2:
            return
        text = loads_text(self.loads)
        logging.info("Q-Sched: %s", text)
        say(self.unique_id, text)


@dataclass(frozen=True)
class Load:
    """One model brought in for a step; ``held_bytes`` of all models' weights are on the device after it."""

    model: int
    seconds: float
    held_bytes: int


def loads_text(loads: Sequence[Load]) -> str:
    """What a run has loaded, in one sentence."""
    seconds, most = sum(load.seconds for load in loads), max(load.held_bytes for load in loads)
    names = ", ".join(str(load.model + 1) for load in loads)
    megabytes = f"{most / 1e6:.0f}"
    return f"Models loaded in this run: {names}. {seconds:.1f} s in all, at most {megabytes} MB of weights at once."


def with_library(models: Sequence, plan: Precision, unique_id: str | None = None):
    """One MODEL out of several, which samples by the plan. Those given stay as they are; a plan that one of them has
    already is not used.

    Raises:
        SamplingError: the plan needs more of them.
    """
    own = []
    for model in models:
        clone = model.clone()
        put_precision(clone, None)
        clone.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY)
        own.append(clone)
    carrier = own[0].clone()
    if len(own) > 1:
        carrier.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY, ModelLibrary(own, unique_id))
    require_models(carrier, plan)
    put_precision(carrier, plan)
    return carrier


def library_on(model) -> ModelLibrary | None:
    """What ``with_library`` left on a MODEL."""
    return next(iter(model.get_wrappers(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY)), None)


def library_of(model) -> tuple:
    """The MODELs that sample as this one: itself alone where there is no library."""
    library = library_on(model)
    return (model,) if library is None else library.models


def require_models(model, plan: Precision) -> None:
    """Raises SamplingError for a plan of more models than the MODEL has."""
    if plan.model_count > (there := len(library_of(model))):
        what = f"the plan of the steps needs {plan.model_count} models, the MODEL has {there}."
        raise SamplingError(what, "put Precision Schedule before this node")


@dataclass
class _LibraryRun:
    """One run of the host's sampling."""

    library: ModelLibrary
    guider: object
    sigmas: object
    loads: list[Load] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.carrier = self.guider.model_patcher
        self.patchers: dict[int, object] = {}
        self.options: dict[int, dict] = {}
        self.current: int | None = None
        self._load = None

    # --- the host's wrappers

    def prepare(self, executor, model, noise_shape, conds, *args, **kwargs):
        """The host's ``prepare_sampling``: it loads the model of the first step, in place of the first model."""
        if model is not self.carrier:  # a guider's second model
            return executor(model, noise_shape, conds, *args, **kwargs)
        if "multigpu_clones" in self.guider.model_options or model.get_additional_models_with_key("multigpu"):
            raise SamplingError("several models cannot be spread over several GPUs.", "take the MultiGPU node out")
        self._load = lambda patcher: executor(patcher, noise_shape, conds, *args, **kwargs)
        return self._use(self._model_at(self.guider.model_options, float(self.sigmas[0])))

    def evaluate(self, executor, model, conds, x_in, timestep, model_options):
        """The host's ``calc_cond_batch``, with ``timestep`` (B,) the sigmas of this evaluation."""
        if model is not getattr(self.guider, "inner_model", None):
            return executor(model, conds, x_in, timestep, model_options)
        number = self._model_at(model_options, float(timestep.max()))
        if number != self.current or not self._is_loaded(number):
            self.guider.inner_model = self._use(number)[0]
        self._put_current()
        options = model_options
        if number:
            options = self.library.changes.put_options(model_options, self.options[number])
        return executor(self.guider.inner_model, conds, x_in, timestep, options)

    def finish(self) -> None:
        """Leaves nothing of the run on the models."""
        for number, patcher in self.patchers.items():
            if number:  # the host does so with the first
                comfy.samplers.cast_to_load_options(self.options[number], device=patcher.offload_device)
                patcher.restore_hook_patches()
                patcher.cleanup()
        self._load = None

    # --- models

    def _model_at(self, model_options: dict, sigma: float) -> int:
        wrapper = wrapper_in_run(model_options)
        precision = None if wrapper is None else wrapper.in_run(self._run_sigmas(model_options))
        number = 0 if precision is None else precision.model_at(sigma)
        if number >= len(self.library.models):
            raise SamplingError("the plan of the steps needs more models.", "put Precision Schedule before this node")
        return number

    def _run_sigmas(self, model_options: dict):
        """The run's own tensor: before the host has put it into the options, the one it will be made of."""
        return model_options.get("transformer_options", {}).get("sample_sigmas", self.sigmas)

    def _use(self, number: int) -> tuple:
        """Loads a model as the host loads one before a run; what ``prepare_sampling`` returns."""
        start = time.perf_counter()
        patcher = self._patcher(number)
        prepared = self._load(patcher)
        if number and number not in {load.model for load in self.loads}:  # the host does so with the first
            patcher.pre_run()
        self.current = number
        networks = {id(each.model): each for each in self.patchers.values()}  # two of them may be one with other LoRAs
        bytes_on_device = sum(each.loaded_size() for each in networks.values())
        self.loads.append(Load(number, time.perf_counter() - start, bytes_on_device))
        return prepared

    def _put_current(self) -> None:
        """Two of the models may be one network with other LoRAs: it has to know by which MODEL it is run."""
        patcher = self.patchers[self.current]
        if hasattr(patcher.model, "current_patcher"):
            patcher.model.current_patcher = patcher

    def _patcher(self, number: int):
        """The MODEL to be loaded: of the first the one that is sampled."""
        if number in self.patchers:
            return self.patchers[number]
        patcher = self.carrier if number == 0 else self.library.patched(number, self.carrier)
        if number:
            options = self.options[number] = create_model_options_clone(patcher.model_options)
            comfy.sampler_helpers.prepare_model_patcher(patcher, self.guider.conds, options)
            comfy.samplers.cast_to_load_options(options, device=patcher.load_device, dtype=patcher.model_dtype())
        self.patchers[number] = patcher
        return patcher

    def _is_loaded(self, number: int) -> bool:
        """Whether the host has not moved it out since: another node's model may have needed the room."""
        patcher = self.patchers[number]
        with suppress(ReferenceError):
            return any(entry.model is patcher for entry in comfy.model_management.current_loaded_models)
        return False
