"""What a study of the steps has measured, a line of JSON for each plan: after a cancel it goes on from there."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .core import CalibrationError
from .validate import Evaluation

Key = tuple[tuple[int, ...], tuple[int, ...]]
"""(the option of each step, indices of the pictures)"""


class StepRows:
    """Rows by plan and pictures. Without a ``path`` they are kept in memory alone.

    Raises:
        CalibrationError: the file cannot be read or written.
    """

    def __init__(self, path: Path | None = None):
        self._path = path
        self._rows: dict[Key, tuple[Evaluation, float]] = {}
        if path is not None and path.exists():
            try:
                lines = path.read_text("utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise _refused(path, error) from error
            for line in lines:
                self._read(line)

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, plan: Sequence[int], indices: Sequence[int]) -> tuple[Evaluation, float] | None:
        """(scores, seconds for one picture)"""
        return self._rows.get((tuple(plan), tuple(indices)))

    def add(self, plan: Sequence[int], row: Evaluation, seconds: float) -> None:
        self._rows[tuple(plan), row.indices] = row, seconds
        if self._path is None:
            return
        scores = {name: values.tolist() for name, values in row.scores.items()}
        line = json.dumps({"plan": list(plan), "indices": list(row.indices), "scores": scores, "seconds": seconds})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                # A line that a crash has cut must not swallow this one.
                file.write(f"\n{line}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _refused(self._path, error) from error

    def _read(self, line: str) -> None:
        """A line that is not whole was being written when the power went: what it held is measured again."""
        try:
            value = json.loads(line)
            indices = tuple(int(i) for i in value["indices"])
            scores = {str(name): np.array(values, dtype=np.float64) for name, values in value["scores"].items()}
            plan, seconds = tuple(int(i) for i in value["plan"]), float(value["seconds"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return
        if all(values.shape == (len(indices),) for values in scores.values()):
            self._rows[plan, indices] = Evaluation(indices, scores), seconds


def _refused(path: Path, error: Exception) -> CalibrationError:
    why = getattr(error, "strerror", None) or type(error).__name__
    return CalibrationError(f"the study's file cannot be used: {why}.", f"make room, or delete {path}")
