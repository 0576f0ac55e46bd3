"""The search for coefficients, and the verdict on what it found. Knows callables only: no host, no model.

from calibration import Settings, calibrate
result = calibrate(generate, score, n_prompts=24, n_steps=4, settings=Settings(trials=40))
"""

from .jaq import Objective, jaq
from .search import Trial
from .settings import Settings
from .study import Progress, Result, calibrate
from .validate import Evaluation, Interval, evaluate, paired_gain

__all__ = [
    "Evaluation",
    "Interval",
    "Objective",
    "Progress",
    "Result",
    "Settings",
    "Trial",
    "calibrate",
    "evaluate",
    "jaq",
    "paired_gain",
]
