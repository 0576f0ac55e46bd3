"""Few numbers → coefficients per step, inside a trust region around the identity."""

from __future__ import annotations

from collections.abc import Mapping

from .core import Coefficients
from .settings import Settings

_AXES = {
    "both ends": ("c_x_first", "c_x_last", "c_eps_first", "c_eps_last"),
    "first step": ("c_x_first", "c_eps_first"),
    "last step": ("c_x_last", "c_eps_last"),
    "constant": ("c_x", "c_eps"),
}

BORDER = 0.02
"""An optimum within this share of the trust region's width from its edge counts as on the border."""


class Space:
    """The searched axes and their common bounds."""

    def __init__(self, settings: Settings, n_steps: int):
        axes = _AXES[settings.space]
        # A line over one step is a point: its "last" value does nothing, so nobody should search for it.
        self.axes = tuple(axis for axis in axes if n_steps > 1 or not axis.endswith("_last")) or axes
        self.low, self.high = 1 - settings.radius, 1 + settings.radius
        self.n_steps = n_steps

    def identity(self) -> dict[str, float]:
        return dict.fromkeys(self.axes, 1.0)

    def coefficients(self, point: Mapping[str, float]) -> Coefficients:
        """The coefficients of a point; axes that are not searched stay 1."""

        def ends(name: str) -> tuple[float, float]:
            if name in point:
                return point[name], point[name]
            return point.get(f"{name}_first", 1.0), point.get(f"{name}_last", 1.0)

        if self.n_steps == 1:
            c_x, c_eps = (max(ends(name), key=lambda value: abs(value - 1)) for name in ("c_x", "c_eps"))
            return Coefficients((c_x,), (c_eps,))
        return Coefficients.ramp(self.n_steps, c_x=ends("c_x"), c_eps=ends("c_eps"))

    def on_border(self, point: Mapping[str, float]) -> tuple[str, ...]:
        """Axes whose value touches the edge of the trust region."""
        margin = BORDER * (self.high - self.low)
        return tuple(a for a in self.axes if point[a] < self.low + margin or point[a] > self.high - margin)
