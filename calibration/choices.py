"""What a caller may choose from: the words of menus and command lines, without the work that they stand for."""

from __future__ import annotations

AUTOMATIC = "automatic"
"""What suits, by whether there is a reference: of a space or a radius."""

SPACES = ("both ends", "first step", "last step", "constant", "table")
"""Which numbers are searched, see ``Settings``."""

STRATEGIES = ("guided", "grid", "random", "tpe", "greedy")
"""How they are searched; the first is the cheapest by far."""

ACCEPT = ("repair", "re-tuning")
"""Which verdict makes a candidate the result."""

STEP_COSTS = ("bits", "time", "memory")
"""What a plan of the steps' precision has a budget of: bit operations or seconds of the mean step, or the weights of
all models that take part."""
