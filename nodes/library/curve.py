"""A preset's two curves and its plan of precision for the page: with a node's result, and of a file just chosen."""

from __future__ import annotations


def curve(preset, strength: float = 1.0) -> dict:
    """What a node adds to its ``ui``, so that the page draws the preset on it; no preset takes the drawing away."""
    return {"qsched_curve": [] if preset is None else [values(preset, strength)]}


def values(preset, strength: float) -> dict:
    """What the page draws, as plain JSON."""
    coefficients = preset.coefficients.blend(strength)
    lists = {"c_x": list(coefficients.c_x), "c_eps": list(coefficients.c_eps), "sigmas": list(preset.sigmas)}
    plan = getattr(preset, "precision", None)
    return lists if plan is None else {**lists, "bits": list(plan.activation_bits), "models": list(plan.models)}
