"""Over how many columns a scale is shared, by the names that menus have for it."""

from __future__ import annotations

from comfy_api.latest import io

GROUPS = {"format's own": None, "16": 16, "32": 32, "64": 64, "128": 128, "per channel": 0}
"""None leaves it to the format, 0 is a whole row."""


def group_size_input() -> io.Combo.Input:
    return io.Combo.Input(
        "group_size",
        options=list(GROUPS),
        default="format's own",
        advanced=True,
        tooltip="Columns that share a scale. Fewer: better and larger. Per channel: smallest, most damage.",
    )
