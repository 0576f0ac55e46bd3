"""Batches that shrink when the host says that memory ran out."""

from __future__ import annotations

import logging
from collections.abc import Callable

import comfy.model_management

from ...calibration import batches
from ...calibration.batches import Part


class Batches(batches.Batches):
    """As there, with the host's view of its memory. A cancel takes effect between batches."""

    def __init__(self, size: int):
        super().__init__(size, is_shortage, _free_memory)

    def run(self, work: Callable[[int, int], Part], count: int) -> list[Part]:
        def uncancelled(start: int, end: int) -> Part:
            comfy.model_management.throw_exception_if_processing_interrupted()
            return work(start, end)

        return super().run(uncancelled, count)


def _free_memory(size: int) -> None:
    logging.warning("Q-Sched: out of memory, going on with %d pictures at once.", size)
    comfy.model_management.soft_empty_cache()


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
