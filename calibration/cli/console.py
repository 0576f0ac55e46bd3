"""What a command prints while it runs, and at its end."""

from __future__ import annotations

import time
from dataclasses import dataclass

from .. import report
from ..progress import Progress
from ..result import Result


@dataclass
class Watch:
    """Prints a line per trial; what it was told last is kept for a stop."""

    last: Progress | None = None
    phase: str = ""
    start_time: float = 0.0
    before: int = 0

    def __call__(self, progress: Progress) -> None:
        if self.last is None:
            self.start_time, self.before = time.monotonic(), progress.done
        worth_a_line = progress.trial is not None or progress.phase != self.phase or progress.phase == "verdict"
        self.last, self.phase = progress, progress.phase
        if worth_a_line:
            gain = progress.best_jaq - progress.identity_jaq
            print(
                f"{progress.phase}: {progress.done} of about {progress.total} pictures, "
                f"best JAQ {progress.best_jaq:.4f} ({gain:+.4f}), {self._left(progress)}",
                flush=True,
            )

    def _left(self, progress: Progress) -> str:
        count = progress.done - self.before
        if count <= 0:
            return "time left unknown"
        seconds = (time.monotonic() - self.start_time) / count * max(0, progress.total - progress.done)
        minutes, seconds = divmod(round(seconds), 60)
        return f"about {minutes} min {seconds:02d} s left"


def result_table(result: Result) -> list[str]:
    rows = [report.Row("without", result.identity), report.Row("with Q-Sched", result.candidate)]
    if (there := result.on_reference) is not None:
        rows = [
            report.Row("reference", there.identity), *rows, report.Row("reference with Q-Sched", there.candidate)
        ]  # fmt: skip
    table = report.table(rows)
    lines = [["", *table["columns"]]]
    lines += [[row["name"], *(_number(row[column]) for column in table["columns"])] for row in table["rows"]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
