"""The one door to ``qsched_core``: a sibling inside the pack, a top-level package in a checkout or a script."""

if "." in (__package__ or ""):
    from ..qsched_core import CalibrationError, Coefficients, DependencyError
else:
    from qsched_core import CalibrationError, Coefficients, DependencyError

__all__ = ["CalibrationError", "Coefficients", "DependencyError"]
