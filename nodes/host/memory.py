"""Work in batches that shrink when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import comfy.model_management

Part = TypeVar("Part")


class Batches:
    """Remembers how many items fit at once, so that one shortage costs one batch and not one per picture."""

    def __init__(self, size: int):
        self.size = size

    def run(self, work: Callable[[int, int], Part], count: int) -> list[Part]:
        """``work(start, end)`` over ``count`` items; a batch that did not fit is halved and tried again.

        A cancel takes effect between batches. One item that does not fit is the host's error, as it is.
        """
        parts, start = [], 0
        while start < count:
            comfy.model_management.throw_exception_if_processing_interrupted()
            end = min(count, start + self.size)
            try:
                parts.append(work(start, end))
            except Exception as error:  # noqa: BLE001 - asked of the host, else let through
                if end - start == 1 or not is_shortage(error):
                    raise
                self.size = (end - start) // 2
                logging.warning("Q-Sched: out of memory, going on with %d pictures at once.", self.size)
            else:
                start = end
                continue
            # Outside the handler: the traceback would keep the tensors that did not fit.
            comfy.model_management.soft_empty_cache()
        return parts


def is_shortage(error: BaseException) -> bool:
    """Out of memory: on the CPU, or on a device in the host's eyes."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "not enough memory" in str(error)):
        return True
    management = comfy.model_management
    # Without a device of its own to ask, the host takes every exception for a shortage.
    has_own_error = getattr(management, "OOM_EXCEPTION", Exception) is not Exception
    return has_own_error and (
        management.is_oom(error) if hasattr(management, "is_oom") else isinstance(error, management.OOM_EXCEPTION)
    )
