"""Nodes that were renamed, or whose inputs or outputs were: saved workflows open with what they are called now."""

from __future__ import annotations

from comfy_api.latest import ComfyAPI, io

from .host.server import page_server

RENAMED_NODES: tuple[dict, ...] = ()
"""Arguments of the host's ``io.NodeReplace``, one entry per rename. Nothing has been renamed yet. An example::

    {
        "new_node_id": "QSchedSampler",
        "old_node_id": "QSchedKSampler",
        "old_widget_ids": ["seed", "steps"],  # in the order in which workflows save their values
        "input_mapping": [{"new_id": "seed", "old_id": "noise_seed"}, {"new_id": "strength", "set_value": 1.0}],
        "output_mapping": [{"old_idx": 0, "new_idx": 0}],  # all outputs: one that is not named loses its links
    }
"""


async def register_renamed() -> None:
    """Tells the host; nothing where it replaces no nodes, or where no server runs."""
    service = getattr(ComfyAPI(), "node_replacement", None)
    if service is None or page_server() is None:
        return
    for entry in RENAMED_NODES:
        await service.register(io.NodeReplace(**entry))
