"""Graphs as the page sends them to the host: {id: {"class_type": …, "inputs": {name: value or [id, output]}}}."""

from __future__ import annotations

import hashlib
import json

MAX_DEPTH = 500
"""Nodes behind each other; Python's own calls end at a thousand."""


def signature(graph: object, unique_id: str) -> str | None:
    """What decides a node's output: its kind, its inputs, and those of all nodes before it, whatever their ids are.

    None where the graph has no such node, or goes in circles.
    """
    try:
        return _signature(graph, unique_id, {}, MAX_DEPTH)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None  # a script may send anything


def _signature(graph: dict, unique_id: str, hashes: dict[str, str], depth: int) -> str:
    if depth == 0:
        raise RecursionError
    if unique_id not in hashes:
        node = graph[unique_id]
        inputs = {
            name: {"from": _signature(graph, value[0], hashes, depth - 1), "output": value[1]}
            if _is_link(value, graph)
            else value
            for name, value in node["inputs"].items()
        }
        text = json.dumps([node["class_type"], inputs], sort_keys=True)
        hashes[unique_id] = hashlib.sha256(text.encode()).hexdigest()
    return hashes[unique_id]


def _is_link(value: object, graph: dict) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and value[0] in graph
