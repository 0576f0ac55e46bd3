"""The host's server, through which the page is told and asked; a script that calls a node has none."""

from __future__ import annotations


def page_server():
    """The server that runs, or None."""
    from server import PromptServer

    return getattr(PromptServer, "instance", None)


def workflow_id(extra_pnginfo: object) -> str | None:
    """The page's id of the workflow that a prompt was made from; None where a script sent it."""
    workflow = extra_pnginfo.get("workflow") if isinstance(extra_pnginfo, dict) else None
    found = workflow.get("id") if isinstance(workflow, dict) else None
    return found if isinstance(found, str) else None
