"""docs/EVIDENCE.md and README's table of sizes, written from benchmarks/results: ``python -m scripts.evidence_page``.

So no figure in them can differ from its result file; tests/scripts/test_evidence_page.py asks that both are up to date.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jinja2

from benchmarks.record import demo_hash

from .layout import ROOT

RESULTS = ROOT / "benchmarks" / "results"
TEMPLATES = ROOT / "scripts" / "evidence_texts"
README, BEGIN, END = ROOT / "README.md", "<!-- sizes: python -m scripts.evidence_page -->\n", "<!-- end of sizes -->\n"
PAGE = ROOT / "docs" / "EVIDENCE.md"

FP16_BYTES = 2
CARDS = (8, 12, 24)
"""GB of memory that people's cards have."""

LEFT_FOR_THE_REST = 2.0
"""GB that activations, the VAE and the system take beside a model: a rule of thumb, see the page."""


def results() -> dict[str, Any]:
    """Every result file by its name without suffix."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))}


def render(template: str, figures: Mapping[str, Any]) -> str:
    """A text of scripts/evidence_texts with the figures of ``figures``; a figure that is not there is an error."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    room = jinja2.Environment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    room.filters |= {"percent": _percent, "range": _range, "smaller": _smaller, "figure": _figure}
    room.filters["count"] = lambda value: f"{value:,}"
    room.tests["on_earlier_demo"] = on_earlier_demo
    earlier = [name for name, result in figures.items() if on_earlier_demo(result)]
    facts = {"demo_hash": demo_hash(), "earlier": earlier, "gigabytes": gigabytes, "smallest_card": smallest_card}
    return room.get_template(template).render(**figures, **facts)


def on_earlier_demo(result: Mapping[str, Any]) -> bool:
    """Whether a result was measured on another demo model than the one that lies in demo/weights."""
    return result.get("ran_on", {}).get("demo", demo_hash()) != demo_hash()


def gigabytes(parameters: int, share: float = 1.0) -> float:
    """Of a model's weights in FP16, or of a ``share`` of them."""
    return parameters * FP16_BYTES * share / 1e9


def smallest_card(size: float) -> str:
    """The first of CARDS that holds a model of ``size`` GB beside the rest."""
    return next((f"{card} GB" for card in CARDS if size + LEFT_FOR_THE_REST <= card), "more than 24 GB")


def with_sizes(readme: str, sizes: str) -> str:
    """README with the table of sizes between its marks."""
    begin = readme.index(BEGIN) + len(BEGIN)
    return readme[:begin] + sizes + readme[readme.index(END, begin) :]


def _percent(value: float | None, digits: int = 0) -> str:
    return "not measured" if value is None else f"{100 * value:.{digits}f} %"


def _figure(value: float | None, digits: int = 3) -> str:
    return "not measured" if value is None else f"{value:.{digits}f}"


def _range(interval: list[float], digits: int = 4) -> str:
    """(value, low, high) as "+0.1 [0.0, 0.2]"."""
    value, low, high = interval
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _smaller(interval: list[float]) -> list[float]:
    """(value, low, high) of how much more as that of how much less."""
    value, low, high = interval
    return [0.0 - value, 0.0 - high, 0.0 - low]  # -value would make a -0.0 of nothing


def main() -> None:
    figures = results()
    PAGE.write_text(render("EVIDENCE.md.jinja", figures), "utf-8")
    README.write_text(with_sizes(README.read_text("utf-8"), render("sizes.md.jinja", figures)), "utf-8")


if __name__ == "__main__":
    main()
