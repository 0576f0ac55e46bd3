"""Results of benchmarks as pictures in ``docs/``: ``python -m benchmarks.plots`` (needs matplotlib)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from .record import earlier

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#808691"
KINDS = {"flow": ("flow toy", BLUE), "noise": ("noise toy", ORANGE)}


def search_cost() -> plt.Figure:
    """Expected gain of the best candidate so far by network evaluations, and how many searches arrive at the mark."""
    result = earlier("search_cost")
    models, names = result["models"], list(result["models"]["flow"]["strategies"])
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), width_ratios=(3, 3, 2))
    colours = (GREEN, BLUE, ORANGE, GREY, "#cc79a7")
    for axis, (kind, (label, _)) in zip(axes, KINDS.items(), strict=False):
        for name, colour in zip(names, colours, strict=True):
            gains = models[kind]["strategies"][name]["gain after"]
            axis.plot([0, *map(int, gains)], [0, *gains.values()], "o-", color=colour, label=name)
        axis.axhline(models[kind]["gain of the mark"], color="black", lw=1, ls="--")
        axis.set(title=f"{label} (dashed: the mark)", xlabel="network evaluations", ylabel="expected gain in JAQ")
    axes[0].legend(loc="lower right", frameon=False, fontsize=8)
    shares = [100 * models["flow"]["strategies"][name]["arrive"] for name in names]
    axes[2].barh(names, shares, color=colours)
    axes[2].invert_yaxis()
    axes[2].set(
        xlim=(0, 100), title="flow toy", xlabel=f"% of searches with {100 * result['arrived']:.0f} % of the mark"
    )
    return figure


def recovery() -> plt.Figure:
    """Gains of every space over the quantised model, free and held, beside what quantising had taken."""
    models = earlier("recovery")["models"]
    metrics = ("tc+iq", "attribute accuracy", "distance to drawn set", "distance to full")
    figure, axes = plt.subplots(len(models), len(metrics), figsize=(13, 5.2 * len(models)), squeeze=False)
    for line, (kind, model) in zip(axes, sorted(models.items()), strict=True):
        rows = list(_recovery_rows(model))
        for axis, metric in zip(line, metrics, strict=True):
            for place, _, intervals, colour in rows:
                if metric in intervals:
                    gain, low, high = intervals[metric]
                    axis.errorbar(gain, place, xerr=[[gain - low], [high - gain]], fmt="o", color=colour, ms=4)
            names = [name if axis is line[0] else "" for _, name, _, _ in rows]
            axis.axvline(0, color="black", lw=0.8)
            axis.set_yticks([place for place, _, _, _ in rows], names, fontsize=8)
            axis.set_ylim(rows[-1][0] + 0.8, -0.8)
            better = "lower is better" if metric.startswith("distance") else "higher is better"
            axis.set_title(f"{KINDS[kind][0]}: {metric}\n({better})", fontsize=9)
            axis.locator_params(axis="x", nbins=5)
    return figure


def _recovery_rows(model: dict) -> Iterator[tuple[float, str, dict, str]]:
    """(place, name, intervals by metric, colour) from the top."""
    place = 0.0
    for form, values in model["formats"].items():
        if not isinstance(values, dict):
            continue
        yield place, f"{form.upper()} lost", values["lost"], GREY
        for group, colour in (("spaces", GREEN), ("held", ORANGE)):
            for name, row in values.get(group, {}).items():
                if isinstance(row, dict):
                    place += 1
                    yield place, f"{form.upper()} {name}{', held' * (group == 'held')}", row["gain"], colour
        place += 1.6
    yield place, "full precision, own search", model["control, full precision"]["gain"], BLUE


def verdict() -> plt.Figure:
    """False and true acceptances against the number of prompts."""
    prompts = earlier("verdict")["prompts"]
    counts = [int(count) for count in prompts]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    lines = (("", "Student's t (ours)", BLUE), (", percentile bootstrap", "percentile bootstrap", ORANGE),
             (", BCa bootstrap", "BCa bootstrap", GREEN))  # fmt: skip
    for key, label, colour in lines:
        rows = [prompts[str(count)]["identical models"][f"false accept{key}"] for count in counts]
        _line(left, counts, rows, label, colour)
    left.axhline(5, color=GREY, lw=1, ls="--")
    left.set(xlabel="prompts (half or more held out)", ylabel="% accepted", title="identical models (dashed: promise)")
    for size, colour in ((0.05, GREEN), (0.1, ORANGE), (0.2, BLUE)):
        rows = [prompts[str(count)][f"real gain of {size}"]["accepted"] for count in counts]
        _line(right, counts, rows, f"gain of {size}", colour)
    right.set(xlabel="prompts (half or more held out)", title="real gains", ylim=(0, 100))
    for axis in (left, right):
        axis.set_xticks(counts)
        axis.legend(frameon=False, fontsize=9)
    left.set_ylim(bottom=0)
    return figure


def precision() -> plt.Figure:
    """What plans of the steps bring back against what they cost."""
    models = earlier("precision")["models"]
    figure, axes = plt.subplots(1, len(models), figsize=(4 * len(models), 3.6), squeeze=False)
    key = "distance to full recovered"
    for axis, (name, model) in zip(axes[0], models.items(), strict=True):
        for form, row in model["uniforms"].items():
            if row[key] is not None:
                axis.plot(row["cost"], 100 * row[key][0], "o", color=GREY, ms=9, mfc="none")
                axis.annotate(form, (row["cost"], 100 * row[key][0]), (0, -16), textcoords="offset points", fontsize=8)
        for kind, label, colour in (("planned", "planned", GREEN), ("worst", "worst placement", ORANGE)):
            rows = [row[kind] for row in model["budgets"] if row[kind][key] is not None]
            places, values = [row["cost"] for row in rows], [[100 * v for v in row[key]] for row in rows]
            bars = [[v - low for v, low, _ in values], [high - v for v, _, high in values]]
            axis.errorbar(places, [v for v, _, _ in values], yerr=bars, fmt="o", color=colour, capsize=3, label=label)
        axis.set(title=name, xlabel="mean cost of a step, the best is 1", ylim=(-25, 115))
        axis.axhline(0, color="black", lw=0.8)
    axes[0][0].set_ylabel("% of the narrowest precision's\nsquared distance recovered")
    axes[0][0].legend(loc="lower right", frameon=False, fontsize=9)
    return figure


def _line(axis, counts: list[int], rates: list[dict], label: str, colour: str) -> None:
    middle = [100 * rate["rate"] for rate in rates]
    low = [m - 100 * rate["low"] for m, rate in zip(middle, rates, strict=True)]
    high = [100 * rate["high"] - m for m, rate in zip(middle, rates, strict=True)]
    axis.errorbar(counts, middle, yerr=[low, high], marker="o", capsize=3, color=colour, label=label)


def main() -> None:
    for draw in (search_cost, recovery, verdict, precision):
        if not earlier(draw.__name__):
            print(f"{draw.__name__}: not run yet")
            continue
        figure = draw()
        for axis in figure.axes:
            axis.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        figure.savefig(DOCS / f"{draw.__name__}.png", dpi=100)


if __name__ == "__main__":
    main()
