"""A preset meets a run that is not quite what it was made for: what differs, and which coefficients the run gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import eq

from .choices import IF_DIFFERS
from .coefficients import Coefficients, same_sigma
from .errors import PresetError
from .preset import Binding, Preset, short
from .quant.label import same_quantization
from .schedule import check_schedule, schedule_name


@dataclass(frozen=True)
class Mismatch:
    """One thing in which a preset and its use differ."""

    what: str
    preset: str
    here: str

    def __str__(self) -> str:
        return f"{self.what}: preset {self.preset}, here {self.here}"


def mismatches(preset: Preset, here: Binding, sigmas: Sequence[float]) -> list[Mismatch]:
    """Everything in which ``here`` and ``sigmas`` (n + 1,) differ from what the preset was made for; "" fits all.

    A part of the preset's own schedule (start and end steps, split sampling) is no difference.
    """
    differences = []
    for item in fields(Binding):
        ours, theirs = getattr(preset.binding, item.name), getattr(here, item.name)
        same = same_quantization if item.name == "quantization" else eq
        if ours and theirs and not same(ours, theirs):
            differences.append(Mismatch(item.name, short(ours), short(theirs)))
    steps = len(sigmas) - 1
    if _begins_at(preset.sigmas, sigmas) is not None:
        return differences
    if steps != preset.steps:
        differences.append(Mismatch("steps", str(preset.steps), str(steps)))
    else:
        differences.append(Mismatch("sigmas", _listed(preset.sigmas), _listed(sigmas)))
    return differences


def fit(
    preset: Preset, here: Binding, sigmas: Sequence[float], *, strength: float = 1.0, if_differs: str = "resample"
) -> tuple[Coefficients, list[Mismatch]]:
    """(Coefficients for a run on ``sigmas`` (n + 1,), what differs from the preset).

    ``if_differs`` is one of IF_DIFFERS. ``strength`` 0 is the identity, 1 as calibrated.

    Raises:
        PresetError: something differs and the choice is to refuse; or an unknown choice.
        SamplingError: sigmas that are not finite, or that rise.
        CoefficientError: a strength that is not finite, or that takes a coefficient out of its range.
    """
    if if_differs not in IF_DIFFERS:
        raise PresetError(f"if_differs is {short(if_differs)}.", f"use one of {', '.join(IF_DIFFERS)}")
    check_schedule(sigmas, schedule_name(here.scheduler, len(sigmas) - 1))
    differences = mismatches(preset, here, sigmas)
    if differences and if_differs == "refuse":
        text = "; ".join(str(item) for item in differences)
        fix = "change the settings, or choose to resample"
        raise PresetError(f"the preset does not fit: {text}", fix, found=differences)
    coefficients, steps = preset.coefficients.blend(strength), len(sigmas) - 1
    begin = _begins_at(preset.sigmas, sigmas)
    if begin is not None:
        part = slice(begin, begin + steps)
        return Coefficients(coefficients.c_x[part], coefficients.c_eps[part]), differences
    if if_differs == "use as is":
        return coefficients.take(steps), differences
    return coefficients.for_sigmas(preset.sigmas, sigmas), differences


def _begins_at(own: Sequence[float], run: Sequence[float]) -> int | None:
    """The step of ``own`` at which ``run`` is a part of it, or None. A part that ends early may end in zero noise."""
    for begin in range(len(own) - len(run) + 1):
        part = own[begin : begin + len(run)]
        if all(map(same_sigma, part[:-1], run[:-1])) and (same_sigma(part[-1], run[-1]) or run[-1] == 0):
            return begin
    return None


def _listed(sigmas: Sequence[float]) -> str:
    return ", ".join(f"{sigma:.4g}" for sigma in sigmas[:4]) + (", …" if len(sigmas) > 4 else "")
