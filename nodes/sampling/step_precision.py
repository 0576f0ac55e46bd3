"""Precision per step on a MODEL: a wrapper tells the layers of each evaluation how finely to round activations.

It is on the MODEL, so every sampler node does it; the packed layers, which clones share, know nothing of it.
"""

from __future__ import annotations

import weakref

from comfy.patcher_extension import WrappersMP

from ...qsched_core.precision import LastSteps, Precision, in_run
from ...qsched_core.quant import least_activation_bits

WRAPPER_KEY = "qsched_precision"


class StepPrecision:
    """Brings a plan to the layers: a Precision, or a rule of the last steps. A run that stops above sigma 0 is the
    start of another."""

    def __init__(self, plan: Precision | LastSteps):
        self.plan = plan
        self._latest: tuple[weakref.ref, Precision | None] | None = None

    def __call__(
        self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs
    ):
        """The host's ``apply_model``, with ``t`` (B,) the sigmas of this evaluation."""
        options = {} if transformer_options is None else transformer_options
        run = options.get("sample_sigmas")  # who calls the model outside of sampling has none
        precision = None if run is None else self.in_run(run)
        with least_activation_bits(4 if precision is None else precision.bits_at(float(t.max()))):
            return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def in_run(self, run) -> Precision | None:
        """The plan in a run on these sigmas, a tensor (n + 1,). A device is asked for them once in a run."""
        latest = self._latest
        if latest is None or latest[0]() is not run:
            latest = self._latest = weakref.ref(run), in_run(self.plan, run.tolist())
        return latest[1]


def put_precision(model, plan: Precision | LastSteps | None) -> None:
    """From now on this MODEL, and clones of it, sample by this plan and by no earlier one. None: by none."""
    model.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, WRAPPER_KEY)
    if plan is not None:
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, WRAPPER_KEY, StepPrecision(plan))


def put_last_steps(model, count: int) -> None:
    """The last ``count`` steps with 8-bit activations. 0: as the others."""
    put_precision(model, LastSteps(count) if count else None)


def precision_of(model) -> Precision | LastSteps | None:
    """What ``put_precision`` left on a MODEL."""
    return next((wrapper.plan for wrapper in model.get_wrappers(WrappersMP.APPLY_MODEL, WRAPPER_KEY)), None)


def precision_on(model, sigmas) -> Precision | None:
    """The precision that a MODEL has in each step of a schedule (n + 1,); None where it has no plan."""
    plan = precision_of(model)
    precision = None if plan is None else in_run(plan, tuple(sigmas))
    plain = precision is None or precision.is_plain or precision.sigmas != tuple(sigmas)
    return None if plain else precision


def put_precision_in_run(model_options: dict, plan: Precision) -> None:
    """The same in the options of one run, in place of what the MODEL has."""
    wrappers = model_options.setdefault("transformer_options", {}).setdefault("wrappers", {})
    wrappers.setdefault(WrappersMP.APPLY_MODEL, {})[WRAPPER_KEY] = [StepPrecision(plan)]


def wrapper_in_run(model_options: dict) -> StepPrecision | None:
    """What brings a plan to the layers in this run."""
    wrappers = model_options.get("transformer_options", {}).get("wrappers", {})
    return next(iter(wrappers.get(WrappersMP.APPLY_MODEL, {}).get(WRAPPER_KEY, ())), None)
