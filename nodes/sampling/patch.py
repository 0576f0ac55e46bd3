"""Q-Sched on a MODEL or on a SAMPLER: the two places where a graph can carry coefficients into the host's sampling.

One rule for both: the last one applied counts, nothing is stacked. Where MODEL and SAMPLER both carry some, the
SAMPLER's are used, because it is nearer to the sampling.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from comfy.patcher_extension import WrappersMP
from comfy.samplers import CFGGuider

from ...qsched_core import Coefficients, Precision, PresetError, fit
from ..host.model_info import describe
from ..host.reports import keep_note
from .driver import Choose, drive
from .model_library import require_models
from .step_precision import put_precision

WRAPPER_KEY = "qsched"


def apply_coefficients(model, coefficients: Coefficients, sigmas: Sequence[float]):
    """A clone of the MODEL that samples with ``coefficients``, made for ``sigmas`` (n + 1,) and found again by sigma.

    The identity leaves no wrapper behind: it is the stock sampler, bit for bit.
    """
    own = tuple(float(sigma) for sigma in sigmas)
    return _patched(model, None if coefficients.is_identity else lambda _, __, run: coefficients.for_sigmas(own, run))


@dataclass(frozen=True)
class PresetUse:
    """A preset as a node uses it. ``if_differs`` is one of IF_DIFFERS; what differs is said under the node.

    ``scheduler`` is the host's name where the node knows it: while sampling only the sigmas can be seen. ``kind`` is
    the id of the node in the host's list.
    """

    preset: object
    strength: float = 1.0
    if_differs: str = "resample"
    unique_id: str | None = None
    scheduler: str = ""
    kind: str = ""

    def __post_init__(self) -> None:
        if not hasattr(self.preset, "coefficients") or not hasattr(self.preset, "sigmas"):
            raise PresetError(f"{type(self.preset).__name__} is not a Q-Sched preset.", "plug in Load Q-Sched Preset")

    def __call__(self, guider, sampler: str, run: tuple[float, ...]) -> Coefficients:
        """The coefficients of a run. Raises PresetError when something differs and the node shall refuse it."""
        bound = self.preset.binding
        # ddim is euler under another name; the host keeps it for its noise in inpainting.
        sampler = bound.sampler if (sampler, bound.sampler) == ("euler", "ddim") else sampler
        here = describe(guider.model_patcher, sampler, self.scheduler, guidance_scale(guider))
        coefficients, mismatches = fit(self.preset, here, run, strength=self.strength, if_differs=self.if_differs)
        if mismatches:
            logging.warning("Q-Sched: Preset differs (%s): %s", self.if_differs, "; ".join(map(str, mismatches)))
        differences = [{"what": item.what, "preset": item.preset, "here": item.here} for item in mismatches]
        note = {"kind": "differs", "choice": self.if_differs, "differences": differences}
        self.show(note if mismatches else None)
        return coefficients

    def show(self, note: dict | None) -> None:
        """A note on the node that uses the preset; None takes it away."""
        keep_note(self.unique_id, self.kind, note)

    @property
    def precision(self) -> Precision | None:
        """The preset's plan of the steps' precision; it counts whole, whatever the strength, but not at 0."""
        plan = getattr(self.preset, "precision", None)  # another copy of the pack may have none
        if plan is None or self.strength == 0:
            return None
        return Precision(plan.activation_bits, plan.sigmas, plan.models)

    @property
    def changes_nothing(self) -> bool:
        return self.preset.coefficients.blend(self.strength).is_identity and self.precision is None


def model_with(model, use: PresetUse):
    """A clone of the MODEL that samples with a preset. An earlier one on it is replaced, and a plan of the steps'
    precision by the preset's if that has one.

    Raises:
        SamplingError: the preset's plan is for more models than the MODEL has.
    """
    if use.changes_nothing:
        use.show(None)
    clone = _patched(model, None if use.changes_nothing else use)
    if (plan := use.precision) is not None:
        require_models(model, plan)
        put_precision(clone, plan)
    return clone


def sampler_with(sampler, use: PresetUse):
    """The SAMPLER with a preset. An earlier one on it is replaced; the identity gives back the plain one.

    Raises:
        SamplingError: not a k-diffusion sampler of the host.
    """
    preset_sampler = drive(sampler, use, use.precision)
    if not use.changes_nothing:
        return preset_sampler
    use.show(None)
    return preset_sampler.qsched_inner


def _patched(model, choose: Choose | None):
    clone = model.clone()
    clone.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY)
    if choose is not None:
        clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY, _Outer(choose))
    return clone


class _Outer:
    """Hands the host's sampling a driven sampler in place of the plain one."""

    def __init__(self, choose: Choose):
        self.choose = choose

    def __call__(self, executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        if hasattr(sampler, "qsched_inner"):
            logging.info("Q-Sched: the SAMPLER carries a preset of its own, the MODEL's is not used.")
        else:
            sampler = drive(sampler, self.choose)
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)


def guidance_scale(guider) -> float:
    """The guidance scale, or 0 ("any") where a guider of another kind has more than one or none."""
    plain = type(guider).predict_noise is CFGGuider.predict_noise
    return float(guider.cfg) if plain else 0.0
