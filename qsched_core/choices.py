"""What a caller may choose from: the words of menus and command lines, without the work that they stand for."""

from __future__ import annotations

IF_DIFFERS = ("resample", "use as is", "refuse")
"""A preset that differs from its use: give each range of sigma the effect it had, however many steps are in it; take
the coefficients in order, whatever the sigmas; or stop."""

AUTO = "auto"
"""The fastest backend that this machine has."""

STOCK, COMPACT = RECIPES = ("stock", "compact")
"""``stock``: what ComfyUI's own quantised formats know. ``compact``: convolutions too, two thirds of SD1.5's U-Net."""

FAST, FITTED, BEST = QUALITIES = ("fast", "fitted", "best")
"""``fast`` rounds to nearest; ``fitted`` rounds as the observed inputs want it, where that is better; ``best`` also
keeps a float part of a low rank beside each of our Linear layers."""

MAX_RANK = 256
"""Of that part. Far above what pays: rank 32 of 3072 columns is 8 % of their 4-bit bytes."""

LAYERS, NETWORK = DEPTHS = ("layers", "network")
"""Of a study of layers: errors of each layer's own output, or of the network's with that layer replaced."""
