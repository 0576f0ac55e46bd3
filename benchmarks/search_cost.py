"""What a search finds for how many network evaluations: ``python -m benchmarks.search_cost [flow "galaxies 32" ...]``.

Two trained toys and two strangers' nets in W4A4, the paper's space (c_x and c_eps of the first step, the last pinned to
1) within 0.2 of 1, and as many prompts as the default search has. A candidate that moves away from the full model's
pictures cannot win, as by default. Every strategy starts with the identity and runs with 20 seeds on the same landscape
(``benchmarks.landscape``), which is measured at 11 × 11 points and read between them along straight lines.

A search sees twelve prompts. Four-bit activations fall to the other side of a step at the smallest change, so that two
neighbours differ by half of all that can be gained there (``rough``). What a candidate is worth is therefore read off
held-out prompts and smoothed over the neighbouring points: its *expected gain*. The mark is the largest expected gain
of a candidate that is expected to come no farther from the full model's pictures.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from functools import cached_property

import numpy as np
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import gaussian_filter

from calibration import Settings, Trial, calibrate

from . import toys
from .landscape import HELD_OUT, POINTS, SEARCHED, SETTINGS, STRANGERS, Landscape, axis, load
from .record import earlier_of_demo, record

SEEDS = 20
GRID = 50
EVALUATIONS = (300, 600, 1200)
"""After which the best candidate so far is looked at; the last one ends a search."""

ARRIVED = 0.9
"""Share of the mark. 0.99 is less than the roughness lets any search tell."""

STRATEGIES = {
    "guided, raced (default)": Settings(strategy="guided"),
    "guided": Settings(strategy="guided", race=False),
    "tpe": Settings(strategy="tpe", race=False),
    "random": Settings(strategy="random", race=False),
    "random, raced": Settings(strategy="random"),
}

Place = tuple[float, float]
"""(c_x, c_eps) of the first step."""


class Course:
    """One landscape, what each place on it is worth, and searches that run over it."""

    def __init__(self, landscape: Landscape):
        self.landscape, self.guard = landscape, landscape.guard()

    @cached_property
    def smooth(self) -> RegularGridInterpolator:
        """(JAQ, distance to the full model) on the held-out prompts, smoothed by one point's width."""
        means = self.landscape.grid[:2, ..., SEARCHED:].mean(-1)
        layers = [gaussian_filter(layer, 1.0, mode="nearest") for layer in means]
        return RegularGridInterpolator((axis(), axis()), np.moveaxis(np.stack(layers), 0, -1))

    def expected(self, place: Place) -> np.ndarray:
        """(gain in JAQ, growth of the distance to the full model's pictures)"""
        return (self.smooth([place]) - self.smooth([(1.0, 1.0)]))[0]

    @cached_property
    def mark(self) -> tuple[Place, float]:
        """(The place that is worth most, its expected gain.)"""
        places = even_places(GRID)
        gains = [(gain if farther <= 0 else -math.inf) for gain, farther in map(self.expected, places)]
        best = int(np.argmax(gains))
        return (places[best], gains[best]) if gains[best] > 0 else ((1.0, 1.0), 0.0)

    @cached_property
    def rough(self) -> float:
        """How far the mean JAQ of the searched prompts lies from the smoothed one, root mean square over the points."""
        means = self.landscape.grid[0, ..., :SEARCHED].mean(-1)
        return float((means - gaussian_filter(means, 1.0, mode="nearest")).std())

    def picked_of(self, points: int) -> Place:
        """What an exhaustive grid picks: the largest JAQ on the searched prompts that the guard allows."""
        places = even_places(points)
        places.sort(key=lambda place: -self.landscape.at(place)[0, :SEARCHED, 0].mean())
        return next((place for place in places if self.may_win(place)), (1.0, 1.0))

    def may_win(self, place: Place) -> bool:
        after, before = (self.guard_values(where) for where in (place, (1.0, 1.0)))
        return all(self.guard.excess(name, after[name], before[name]) <= 0 for name in after)

    def guard_values(self, place: Place) -> dict[str, dict[int, float]]:
        """Of the searched prompts, by name and index."""
        rows = self.landscape.at(place)[0, :SEARCHED]
        return {name: dict(enumerate(values)) for name, values in self.guard(rows, range(SEARCHED)).items()}

    def run(self, settings: Settings) -> list[tuple[int, float]]:
        """(evaluations so far, expected gain of the best candidate so far) whenever one of them changes."""
        course: list[tuple[int, float]] = [(0, 0.0)]
        best, steps = -math.inf, self.landscape.steps

        def note(progress) -> None:
            nonlocal best
            trial: Trial | None = progress.trial
            if trial is None:
                return
            gain = course[-1][1]
            if trial.whole and trial.value > best:
                place = trial.point["c_x_first"], trial.point["c_eps_first"]
                best, gain = trial.value, float(self.expected(place)[0])
            course.append((course[-1][0] + trial.pictures * steps, gain))

        def generate(coefficients, indices):
            rows = self.landscape.at((coefficients.c_x[0], coefficients.c_eps[0]))[0]
            return rows[np.asarray(indices) % (SEARCHED + HELD_OUT)]

        def score(pictures, indices):
            return {"tc": pictures[:, 0], "iq": np.zeros(len(indices))}

        settings = replace(settings, space="first step", radius=SETTINGS.radius, trials=120, seeds=1)
        settings = replace(settings, pictures=math.ceil(EVALUATIONS[-1] / steps))
        verdict = range(SEARCHED, SEARCHED + HELD_OUT)
        calibrate(
            generate, score, SEARCHED + HELD_OUT, steps, settings, verdict_prompts=verdict, on_progress=note,
            guard=self.guard,
        )  # fmt: skip
        return course


def even_places(points: int) -> list[Place]:
    values = np.linspace(1 - SETTINGS.radius, 1 + SETTINGS.radius, points).tolist()
    return [(c_x, c_eps) for c_x in values for c_eps in values]


def after(course: list[tuple[int, float]], evaluations: int) -> float:
    """Expected gain of the best candidate that so many evaluations had found."""
    return next(gain for spent, gain in reversed(course) if spent <= evaluations)


def arrival(course: list[tuple[int, float]], goal: float) -> float:
    """Evaluations until the best candidate was expected to gain ``goal``; infinite where none was."""
    return next((spent for spent, gain in course if gain >= goal), math.inf)


def summary(courses: list[list[tuple[int, float]]], mark: float) -> dict:
    """Medians over the seeds; a search that did not arrive counts as infinitely long."""
    row: dict = {"gain after": {n: round(float(np.median([after(c, n) for c in courses])), 4) for n in EVALUATIONS}}
    if mark > 0:
        arrivals = [arrival(course, ARRIVED * mark) for course in courses]
        median = float(np.median(arrivals))
        row |= {
            "arrive": round(float(np.mean(np.isfinite(arrivals))), 2),
            "median evaluations": None if math.isinf(median) else round(median),
        }
    return row


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.search_cost", description=__doc__)
    arguments.add_argument("kinds", nargs="*", default=[*toys.KINDS, *STRANGERS], help="(default: all)")
    result: dict = {"seeds": SEEDS, "searched prompts": SEARCHED, "arrived": ARRIVED, "evaluations": EVALUATIONS}
    result["models"] = earlier_of_demo("search_cost", "models")
    for kind in arguments.parse_args().kinds:
        landscape = load(kind)
        course = Course(landscape)
        place, mark = course.mark
        row: dict = {
            "mark": [round(value, 3) for value in place],
            "gain of the mark": round(mark, 4),
            "rough": round(course.rough, 4),
            "points measured": POINTS**2,
            "error between the points": round(landscape.error(), 4),
            "grids": {
                f"{points} x {points}": {
                    "evaluations": points**2 * SEARCHED * landscape.steps,
                    "gain": round(float(course.expected(course.picked_of(points))[0]), 4),
                }
                for points in (10, GRID)
            },
            "strategies": {},
        }
        for name, settings in STRATEGIES.items():
            courses = [course.run(replace(settings, seed=seed)) for seed in range(SEEDS)]
            row["strategies"][name] = summary(courses, mark)
            print(kind, name, row["strategies"][name], flush=True)
        result["models"][kind] = row
    record("search_cost", result, on_demo=True)


if __name__ == "__main__":
    main()
