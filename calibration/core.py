"""The one door to ``qsched_core``: a sibling inside the pack, a top-level package in a checkout or a script."""

if "." in (__package__ or ""):
    from ..qsched_core.coefficients import Coefficients
    from ..qsched_core.errors import CalibrationError, DependencyError
else:
    from qsched_core.coefficients import Coefficients
    from qsched_core.errors import CalibrationError, DependencyError

__all__ = ["CalibrationError", "Coefficients", "DependencyError"]
