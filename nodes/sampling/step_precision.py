"""Precision per step on a MODEL: a wrapper tells the layers of each evaluation how finely to round activations.

It is on the MODEL, so every sampler node does it; the packed layers, which clones share, know nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from comfy.patcher_extension import WrappersMP

from ...qsched_core.precision import last_step_bits
from ...qsched_core.quant import least_activation_bits

WRAPPER_KEY = "qsched_precision"


@dataclass(frozen=True)
class LastSteps:
    """8-bit activations in the last ``count`` steps of a run. One that stops above sigma 0 is the start of another."""

    count: int

    def __call__(
        self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs
    ):
        """The host's ``apply_model``, with ``t`` (B,) the sigmas of this evaluation."""
        options = {} if transformer_options is None else transformer_options
        run = options.get("sample_sigmas")  # who calls the model outside of sampling has none
        bits = 4 if run is None else last_step_bits(run.tolist(), self.count, float(t.max()))
        with least_activation_bits(bits):
            return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def put_last_steps(model, count: int) -> None:
    """From now on this MODEL, and clones of it, sample their last ``count`` steps so. 0: as the others."""
    model.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, WRAPPER_KEY)
    if count:
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, WRAPPER_KEY, LastSteps(count))


def last_steps_of(model) -> int:
    """What ``put_last_steps`` left on a MODEL."""
    return next((wrapper.count for wrapper in model.get_wrappers(WrappersMP.APPLY_MODEL, WRAPPER_KEY)), 0)
