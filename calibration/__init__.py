"""The search for coefficients, and the verdict on what it found. Knows callables only: no host, no model.

from calibration import Settings, calibrate
result = calibrate(generate, score, n_prompts=24, n_steps=4, settings=Settings(trials=40))
"""

from .jaq import Objective, jaq
from .settings import Settings
from .validate import Evaluation, Interval, evaluate, paired_gain

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
    """The search is imported when it is first asked for: a host that only shows its settings starts without it."""
    if name in ("OnReference", "Progress", "Result", "Trial", "calibrate"):
        from . import study

        return getattr(study, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
