"""The host's server, through which nodes reach the page; a script that calls a node has none."""

from __future__ import annotations

NO_ID = "00000000-0000-0000-0000-000000000000"
"""What a graph has that was made from an API prompt: the page gives it another id whenever it loads it."""


def page_server():
    """The server that runs, or None."""
    from server import PromptServer

    return getattr(PromptServer, "instance", None)


def workflow_id(extra_pnginfo: object) -> str | None:
    """The page's id of the workflow that a prompt was made from; None where it has none, or a script sent it."""
    workflow = extra_pnginfo.get("workflow") if isinstance(extra_pnginfo, dict) else None
    value = workflow.get("id") if isinstance(workflow, dict) else None
    return value if isinstance(value, str) and value != NO_ID else None


def running_prompt() -> tuple[str | None, str | None]:
    """(The id of the prompt that runs now, the id of the workflow it was made from); None where there is none."""
    running = _running()
    return (None, None) if running is None else (running[1], workflow_id(running[3].get("extra_pnginfo")))


def running_graph() -> dict | None:
    """The graph of the prompt that runs now, see ``graphs``; None where there is none."""
    running = _running()
    return None if running is None else running[2]


def _running() -> tuple | None:
    """The host's (number, id, graph, extra, …) of what runs now."""
    server = page_server()
    running = server.prompt_queue.get_current_queue_volatile()[0] if server is not None else []
    return running[0] if running else None
