"""The search for coefficients, and the verdict on what it found. Knows callables only: no host, no model.

from calibration import Settings, calibrate
result = calibrate(generate, score, n_prompts=24, n_steps=4, settings=Settings(trials=40))
"""

from .jaq import Objective, jaq
from .settings import Settings

__all__ = [
    "Evaluation",
    "Interval",
    "Objective",
    "OnReference",
    "Progress",
    "Result",
    "Settings",
    "Trial",
    "calibrate",
    "evaluate",
    "jaq",
    "paired_gain",
]


def __getattr__(name: str) -> object:
    """Search and verdict are imported when they are first asked for: a host that only shows their settings starts
    without them."""
    if name in ("OnReference", "Progress", "Result", "Trial", "calibrate"):
        from . import study

        return getattr(study, name)
    if name in ("Evaluation", "Interval", "evaluate", "paired_gain"):
        from . import validate

        return getattr(validate, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
