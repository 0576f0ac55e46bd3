"""Batches that shrink when memory runs out."""

from __future__ import annotations

import pytest

from calibration.batches import Batches


def run(room: int, size: int, count: int) -> tuple[list[int], list[int], int]:
    """(the items in order, the new sizes that were announced, the size afterwards) of work that fits ``room`` items."""
    sizes: list[int] = []
    batches = Batches(size, lambda error: isinstance(error, MemoryError), sizes.append)

    def work(start: int, end: int) -> list[int]:
        if end - start > room:
            raise MemoryError
        return list(range(start, end))

    return sum(batches.run(work, count), []), sizes, batches.size


def test_a_batch_that_does_not_fit_is_halved_and_every_item_is_done_once():
    assert run(2, 8, 11) == (list(range(11)), [4, 2], 2)
    assert run(8, 8, 11) == (list(range(11)), [], 8)


def test_one_item_that_does_not_fit_and_another_error_come_through():
    with pytest.raises(MemoryError):
        run(0, 4, 3)
    with pytest.raises(ZeroDivisionError):
        Batches(4, lambda error: isinstance(error, MemoryError), lambda size: None).run(lambda start, end: 1 // 0, 4)
