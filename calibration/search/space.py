"""Few numbers -> coefficients per step, inside a trust region around the identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..core import Coefficients
from ..settings import Settings

_AXES = {
    "both ends": ("c_x_first", "c_x_last", "c_eps_first", "c_eps_last"),
    "first step": ("c_x_first", "c_eps_first"),
    "last step": ("c_x_last", "c_eps_last"),
    "constant": ("c_x", "c_eps"),
}

BORDER_SHARE = 0.02
"""An optimum within this share of the trust region's width from its edge counts as on the border."""


class Space:
    """The searched axes and their common bounds. All that is not searched is as in ``base``, else 1."""

    def __init__(
        self, settings: Settings, n_steps: int, *, steps: Sequence[int] = (), base: Coefficients | None = None
    ):
        """``settings`` are resolved ones: nothing is automatic any more. ``steps``: of a table, those whose numbers are
        searched; all by default."""
        if not settings.radius:
            raise ValueError('resolve the settings first: a radius of 0 says "automatic"')
        self.n_steps, self.base = n_steps, base or Coefficients.identity(n_steps)
        if settings.space == "table":
            places = steps or range(n_steps)
            self.axes = tuple(f"{name}_{place + 1}" for name in ("c_x", "c_eps") for place in places)
        else:
            axes = _AXES[settings.space]
            # A line over one step is a point: its "last" value does nothing, so nobody should search for it.
            self.axes = tuple(axis for axis in axes if n_steps > 1 or not axis.endswith("_last")) or axes
        self.low, self.high = 1 - settings.radius, 1 + settings.radius
        self._table = settings.space == "table"

    def identity(self) -> dict[str, float]:
        return dict.fromkeys(self.axes, 1.0)

    def coefficients(self, point: Mapping[str, float]) -> Coefficients:
        """The coefficients of a point."""
        if self._table:
            curves = (
                tuple(point.get(f"{name}_{i + 1}", value) for i, value in enumerate(getattr(self.base, name)))
                for name in ("c_x", "c_eps")
            )
            return Coefficients(*curves)

        def ends(name: str) -> tuple[float, float]:
            if name in point:
                return point[name], point[name]
            return point.get(f"{name}_first", 1.0), point.get(f"{name}_last", 1.0)

        if self.n_steps == 1:
            c_x, c_eps = (max(ends(name), key=lambda value: abs(value - 1)) for name in ("c_x", "c_eps"))
            return Coefficients((c_x,), (c_eps,))
        return Coefficients.ramp(self.n_steps, c_x=ends("c_x"), c_eps=ends("c_eps"))

    def nearest(self, coefficients: Coefficients) -> dict[str, float]:
        """The point of this space whose curves come nearest to others (least squares), inside the trust region."""
        target = np.array(coefficients.c_x + coefficients.c_eps)
        origin = np.array(self._flat(self.identity()))
        # Every space is linear in its numbers: its columns are what each adds to the curves.
        columns = np.array([np.array(self._flat({**self.identity(), axis: 2.0})) - origin for axis in self.axes]).T
        solution, *_ = np.linalg.lstsq(columns, target - origin, rcond=None)
        return {a: float(np.clip(1 + d, self.low, self.high)) for a, d in zip(self.axes, solution, strict=True)}

    def on_border(self, point: Mapping[str, float]) -> tuple[str, ...]:
        """Axes whose value touches the edge of the trust region."""
        margin = BORDER_SHARE * (self.high - self.low)
        return tuple(a for a in self.axes if point[a] < self.low + margin or point[a] > self.high - margin)

    def _flat(self, point: Mapping[str, float]) -> tuple[float, ...]:
        coefficients = self.coefficients(point)
        return coefficients.c_x + coefficients.c_eps
