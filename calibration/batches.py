"""Work in batches that shrink when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Part = TypeVar("Part")


class Batches:
    """Remembers how many items fit into memory at once: one shortage costs one batch, and not one per picture.

    ``is_shortage(error)`` says whether an error means too little memory; ``free_memory(size)`` is called after one,
    with the new number of items at once.
    """

    def __init__(self, size: int, is_shortage: Callable[[BaseException], bool], free_memory: Callable[[int], None]):
        self.size, self._is_shortage, self._free_memory = size, is_shortage, free_memory

    def run(self, work: Callable[[int, int], Part], count: int) -> list[Part]:
        """``work(start, end)`` over ``count`` items; a batch that did not fit is halved and tried again.

        Raises:
            Whatever ``work`` raises: a shortage only where a single item does not fit.
        """
        parts, start = [], 0
        while start < count:
            end = min(count, start + self.size)
            try:
                parts.append(work(start, end))
            except Exception as error:  # noqa: BLE001 - what counts as a shortage is the caller's to say
                if end - start == 1 or not self._is_shortage(error):
                    raise
            else:
                start = end
                continue
            # Outside the handler: the error's traceback would keep the tensors that did not fit.
            self.size = (end - start) // 2
            self._free_memory(self.size)
        return parts
