"""Keeps the figures of the last `make demo` as a result: ``make demo && python -m benchmarks.demo``."""

from __future__ import annotations

import json

from scripts.layout import DEMO_OUTPUT

from .record import record

PARTS = ("title", "table", "verdict", "answer", "accepted")
"""What people read; the search's trace stays in ``output/demo/report.json``."""


def main() -> None:
    report = json.loads((DEMO_OUTPUT / "report.json").read_text("utf-8"))
    also = [{key: part[key] for key in PARTS} for part in report["also"]]
    record("demo", {**{key: report[key] for key in PARTS}, "also": also}, on_demo=True)


if __name__ == "__main__":
    main()
