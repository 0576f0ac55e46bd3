"""What a MODEL is, in the words a preset is bound by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from ...qsched_core import Binding
from ...qsched_core.quant import label_of

PERCENTS = (0.25, 0.5, 0.75)
"""Places of the schedule at which two models must have the same noise."""

_SIGMA_TOLERANCE = 1e-3
"""Relative: sigmas are computed in single precision."""

_FINGERPRINT_VECTORS = 16
"""Parameters that tell two checkpoints apart: training moves all of them, and reading sixteen takes a moment."""


def describe(model, sampler: str, scheduler: str, cfg: float) -> Binding:
    """The Binding of a MODEL and its sampling settings."""
    base = model.model
    return Binding(
        model=type(base.model_config).__name__,
        fingerprint=fingerprint(model),
        prediction=_prediction(model),
        quantization=quantization(model),
        sampler=sampler,
        scheduler=scheduler,
        cfg=float(cfg),
    )


@dataclass(frozen=True)
class Difference:
    """In what two MODELs cannot sample one picture: ``what`` is "family", "latent", "prediction" or "schedule"."""

    what: str
    here: str
    there: str


def first_difference(model, other) -> Difference | None:
    """Why a MODEL cannot go on where another has begun, or be compared with it; None: it can."""
    pairs = (
        ("family", *(type(each.model.model_config).__name__ for each in (model, other))),
        ("latent", *map(_latent, (model, other))),
        ("prediction", *map(_denoising, (model, other))),
    )
    for what, here, there in pairs:
        if here != there:
            return Difference(what, here, there)
    for percent in PERCENTS:
        schedules = [each.get_model_object("model_sampling") for each in (model, other)]
        here, there = (float(schedule.percent_to_sigma(percent)) for schedule in schedules)
        if abs(here - there) > _SIGMA_TOLERANCE * abs(here):
            return Difference("schedule", f"{here:.4g}", f"{there:.4g}")
    return None


def _denoising(model) -> str:
    """The class that turns the network's output into a picture: the host's, or a node's of its own (LCM)."""
    kinds = type(model.get_model_object("model_sampling")).__mro__
    return next((kind.__name__ for kind in kinds if "calculate_denoised" in vars(kind)), kinds[0].__name__)


def _latent(model) -> str:
    kind = model.get_model_object("latent_format")
    return f"of {kind.latent_channels} channels ({type(kind).__name__})"


def fingerprint(model) -> str:
    """16 hex digits that a model shares with its quantised twins, not with other checkpoints.

    Taken over the values of a few one-dimensional parameters (norms and biases), which quantising leaves alone.
    LoRAs do not change it: the parameters as loaded are read.
    """
    digest = hashlib.sha256(type(model.model.model_config).__name__.encode())
    vectors = sorted(
        (key, value) for key, value in model.model.diffusion_model.named_parameters() if value.ndim == 1 and len(value)
    )
    stride = max(1, len(vectors) // _FINGERPRINT_VECTORS)
    for key, value in vectors[::stride]:
        backup = model.backup.get(f"diffusion_model.{key}")
        value = value if backup is None else backup.weight
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(value.detach()[:64].to("cpu", torch.float16).numpy().tobytes())
    return digest.hexdigest()[:16]


def quantization(model) -> str:
    """How a MODEL's network is quantised, by us or by others; "none" if it is not."""
    return label_of(model.model.diffusion_model)


_FITTED = "qsched_fitted"
"""Where a MODEL carries the format that its rounding was fitted in: its packed layers look like any others, and those
at its edges have another one."""


def mark_fitted(model, format: str) -> None:
    """From now on this MODEL, and clones of it, say that they were rounded to what their layers see."""
    model.set_attachments(_FITTED, format)


def fitted_format(model) -> str:
    """The format that a MODEL's rounding was fitted in, as it was asked for; "" where it was not fitted."""
    return model.get_attachment(_FITTED) or ""


def sums(value) -> list[float]:
    """Numbers that differ when tensors do: plain and squared sums of all in a nest of lists and weight adapters.

    A LoRA's patch is (strength, adapter, …), the adapter holding its tensors in ``weights``.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach().double()
        return [float(value.sum()), float(value.square().sum())]
    if isinstance(value, (list, tuple)):
        return [number for item in value for number in sums(item)]
    if isinstance(value, (int, float)):
        return [float(value)]
    return sums(getattr(value, "weights", ()))


def _prediction(model) -> str:
    """The host's parameterisation class: EPS, V_PREDICTION, CONST (flow), X0 …"""
    kinds = type(model.get_model_object("model_sampling")).__mro__
    names = [kind.__name__ for kind in kinds if kind.__module__ == "comfy.model_sampling"]
    main_names = ("LCM", "V_PREDICTION", "X0", "IMG_TO_IMG", "COSMOS_RFLOW", "EDM", "CONST", "EPS")
    return next((name for name in main_names if name in names), names[0] if names else kinds[0].__name__)
