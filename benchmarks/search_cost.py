"""How many network evaluations a search needs: ``python -m benchmarks.search_cost [flow|noise ...]``.

Two trained toys in W4A4, the paper's space (c_x and c_eps of the first step, the last pinned to 1) within 0.2 of 1, and
as many prompts as the default search has. A candidate that moves away from the full model's pictures cannot win, as by
default. The mark is the exhaustive grid of the paper's script, 50 × 50 points: a search has arrived when its best
candidate has 99 % of the *gain* of the grid's best on held-out prompts. Every strategy starts with the identity and is
run with 20 seeds on the same landscape (``benchmarks.landscape``), which is measured at 11 × 11 points and read
between them along straight lines, ``median_error`` off the truth.
"""

from __future__ import annotations

import argparse
import math
import statistics
from dataclasses import replace

import numpy as np

from calibration import Settings, Trial, calibrate

from . import toys
from .landscape import HELD_OUT, POINTS, SEARCHED, SETTINGS, Landscape, load
from .record import earlier_of_demo, record

SEEDS = 20
STEPS = 4
GRID = 50
MOST = 0.02
"""Share of the grid's pictures after which a search that has not arrived has failed."""

ARRIVED = 0.99
STRATEGIES = {
    "guided, raced (default)": Settings(strategy="guided"),
    "guided": Settings(strategy="guided", race=False),
    "tpe": Settings(strategy="tpe", race=False),
    "random": Settings(strategy="random", race=False),
    "random, raced": Settings(strategy="random"),
}


class Arrived(Exception):
    """The search may stop."""


class Course:
    """One landscape, the grid's best on it, and searches that run until they are as good."""

    def __init__(self, landscape: Landscape):
        self.landscape, self.guard = landscape, landscape.guard()
        self.identity = self.means((1.0, 1.0))
        self.best = self.best_of(GRID)
        self.goal = self.gains(self.best)

    def best_of(self, points: int) -> tuple[float, float]:
        """The place of the largest mean JAQ on the searched prompts that the guard allows, of points × points."""
        axis = np.linspace(1 - SETTINGS.radius, 1 + SETTINGS.radius, points)
        places = [(c_x, c_eps) for c_x in axis for c_eps in axis]
        places.sort(key=lambda place: -self.means(place)[0])
        return next((place for place in places if self.may_win(place)), (1.0, 1.0))

    def may_win(self, place) -> bool:
        after, before = (self.guard_values(where) for where in (place, (1.0, 1.0)))
        return all(self.guard.excess(name, after[name], before[name]) <= 0 for name in after)

    def guard_values(self, place) -> dict[str, dict[int, float]]:
        """Of the searched prompts, by name and index."""
        rows = self.landscape.at(place)[0, :SEARCHED]
        return {name: dict(enumerate(values)) for name, values in self.guard(rows, range(SEARCHED)).items()}

    def means(self, place) -> np.ndarray:
        """(on the searched, on the held-out prompts)"""
        values = self.landscape.at(place)[0, :, 0]
        return np.array([values[:SEARCHED].mean(), values[SEARCHED:].mean()])

    def gains(self, place) -> np.ndarray:
        return self.means(place) - self.identity

    def run(self, settings: Settings) -> tuple[int | None, int | None, float]:
        """Pictures until the held-out goal, until the searched one (None: not within MOST of the grid), and the share
        of the held-out gain that the best of all candidates had."""
        best, arrived, shares, pictures = -math.inf, [None, None], [0.0, 0.0], 0

        def note(progress) -> None:
            nonlocal best, pictures
            trial: Trial | None = progress.trial
            if trial is None:
                return
            pictures += trial.pictures
            if trial.whole and trial.value > best:
                best = trial.value
                gains = self.gains((trial.point["c_x_first"], trial.point["c_eps_first"]))
                shares[:] = gains / self.goal
            for which in (0, 1):
                if arrived[which] is None and shares[which] >= ARRIVED:
                    arrived[which] = pictures
            if None not in arrived:
                raise Arrived

        def generate(coefficients, indices):
            rows = self.landscape.at((coefficients.c_x[0], coefficients.c_eps[0]))[0]
            return rows[np.asarray(indices) % (SEARCHED + HELD_OUT)]

        def score(pictures, indices):
            return {"tc": pictures[:, 0], "iq": np.zeros(len(indices))}

        settings = replace(settings, space="first step", radius=SETTINGS.radius, trials=120, seeds=1)
        settings = replace(settings, pictures=round(MOST * GRID**2 * SEARCHED))
        verdict = range(SEARCHED, SEARCHED + HELD_OUT)
        try:
            calibrate(
                generate, score, SEARCHED + HELD_OUT, STEPS, settings, verdict_prompts=verdict, on_progress=note,
                guard=self.guard,
            )  # fmt: skip
        except Arrived:
            pass
        return arrived[1], arrived[0], float(shares[1])


def paper_grid(course: Course, points: int = 10) -> dict:
    share = course.gains(course.best_of(points)) / course.goal
    return {"evaluations": points**2 * SEARCHED * STEPS, "share_of_gain_held_out": round(float(share[1]), 3)}


def summary(runs: list[tuple[int | None, int | None, float]], whole: int) -> dict:
    """Medians over all seeds; a search that did not arrive counts as infinitely long."""
    out: dict = {}
    for name, pictures in (("held_out", [run[0] for run in runs]), ("searched", [run[1] for run in runs])):
        median = statistics.median(math.inf if count is None else count for count in pictures)
        out[f"success_{name}"] = round(sum(count is not None for count in pictures) / len(pictures), 2)
        out[f"median_evaluations_{name}"] = None if math.isinf(median) else round(median * STEPS)
        out[f"median_share_of_grid_{name}"] = None if math.isinf(median) else round(median / whole, 5)
    out["median_share_of_gain_held_out"] = round(statistics.median(run[2] for run in runs), 3)
    return out


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.search_cost", description=__doc__)
    arguments.add_argument("kinds", nargs="*", default=toys.KINDS, help="flow, noise (default: both)")
    result: dict = {"grid": f"{GRID} x {GRID} x {SEARCHED} prompts x {STEPS} steps", "seeds": SEEDS}
    result["models"] = earlier_of_demo("search_cost", "models")
    whole = GRID**2 * SEARCHED
    for kind in arguments.parse_args().kinds:
        landscape = load(kind)
        course = Course(landscape)
        row = {
            "grid_evaluations": whole * STEPS,
            "grid_best": [round(float(v), 3) for v in course.best],
            "grid_gain_searched": round(float(course.goal[0]), 4),
            "grid_gain_held_out": round(float(course.goal[1]), 4),
            "points_measured": POINTS**2,
            "median_error": round(landscape.error(), 5),
            "paper's 10 x 10 grid": paper_grid(course),
        }
        for name, settings in STRATEGIES.items():
            runs = [course.run(replace(settings, seed=seed)) for seed in range(SEEDS)]
            row[name] = summary(runs, whole)
            print(kind, name, row[name], flush=True)
        result["models"][kind] = row
    record("search_cost", result, on_demo=True)


if __name__ == "__main__":
    main()
