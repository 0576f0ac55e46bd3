"""A kernel is tried before it is trusted: what throws or errs on a device is not used there, and says why.

Tables of what a kernel takes are promises: comfy-kitchen's says that W4A8 takes any rotation, and its CUDA kernel
throws for all but one. So a small product is computed once per process, on the device, and compared with the slow one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

ROWS = (1, 33)
"""Tokens tried: one has kernels of its own, and 33 are no multiple of what a kernel takes at once."""

_outcomes: dict[Hashable, str] = {}
_failures: dict[str, str] = {}


def trial(key: Hashable, run: Callable[[], str]) -> str:
    """What ``run`` said the first time that this ``key`` was tried: "" or why the kernel is out. An error is a reason.

    Running out of memory says nothing of a kernel: it is raised, and nothing is remembered.
    """
    if key not in _outcomes:
        try:
            _outcomes[key] = run()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - kernels throw what they like; whatever it is, they are out
            _outcomes[key] = f"it fails here ({first_line(error)})"
    return _outcomes[key]


def outcomes() -> dict[Hashable, str]:
    """What was tried in this process, and "" or why it is out."""
    return dict(_outcomes)


def failures() -> dict[str, str]:
    """Kernels that passed their trial and failed later, in a run: what they are, and why."""
    return dict(_failures)


def forget() -> None:
    """Try everything again: drivers and packages changed, or a test did."""
    _outcomes.clear()
    _failures.clear()


def failed_in_run(what: str, error: BaseException) -> None:
    """Remember, and say once, that ``what`` was computed the slow way because of ``error``."""
    if what not in _failures:
        _failures[what] = first_line(error)
        logging.warning("Q-Sched: %s failed (%s). It is computed the slow way from now on.", what, _failures[what])


def first_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:120]


def relative_error(value: Tensor, exact: Tensor) -> float:
    """The L2 error of ``value`` relative to ``exact``, infinite where it is not finite."""
    value, exact = value.detach().cpu().double(), exact.detach().cpu().double()
    error = ((value - exact).norm() / exact.norm().clamp(min=1e-30)).item()
    return error if error == error else float("inf")


def numbers(rows: int, columns: int, seed: int) -> Tensor:
    """(rows, columns) of about normal size, without drawing from a generator that somebody has seeded."""
    index = torch.arange(rows * columns, dtype=torch.float64) + 0.5 + 1e4 * seed
    return (index * 0.754877666).frac().mul(2).sub(1).view(rows, columns).float()
