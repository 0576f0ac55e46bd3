"""Q-Sched for ComfyUI: the host's door. Nothing heavy is imported here; a failure is logged and raised."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """The host calls this once, after its own nodes are loaded."""
    try:
        from .nodes import QSchedExtension
    except Exception:
        import logging

        logging.exception("Q-Sched could not be loaded; the reason is below. Other packs are not affected.")
        raise
    return QSchedExtension()


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
