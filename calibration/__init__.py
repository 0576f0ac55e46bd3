"""The search for coefficients, and the verdict on what it found. Knows callables only: no host, no model.

from calibration import Settings, calibrate
result = calibrate(generate, score, n_prompts=24, n_steps=4, settings=Settings(trials=40))
"""

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
    """They are imported when the first is asked for: ComfyUI starts without them."""
    if name in __all__:
        from . import public

        return getattr(public, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
