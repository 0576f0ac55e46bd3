"""JAQ over (c_x, c_eps) of the first step, with what no winner may worsen: ``python -m benchmarks.landscape flow``.

A quantised model, a toy or a stranger's net (``benchmarks.strangers``), is asked once, picture by picture, at every
point of a grid and at some points between, which takes minutes; searches can then be tried on it a thousand times.
Between the points it is read along straight lines; the error is known.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from calibration import Settings
from calibration.metrics.pixels import pixel_statistics
from calibration.metrics.reference import DISTANCE, distance
from calibration.search.guard import Guard
from calibration.search.space import Space
from calibration.validate import STATISTICS, Generate, Score
from qsched_core import Coefficients

from . import toys
from .code_digest import MEASURES, code_digest
from .record import demo_hash
from .strangers.models import galaxy
from .strangers.scores import Scores

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "benchmarks"
SETTINGS = Settings(space="first step", radius=0.2)
POINTS = 11
"""Per axis of [0.8, 1.2]: 1 is one of them."""

SEARCHED, HELD_OUT = 12, 24
"""Prompts: as many as the default search has, and twice as many."""

STRANGERS = {"galaxies 32": lambda: galaxy(32), "galaxies 64": lambda: galaxy(64)}
BANK_STEPS = 32
"""Of the pictures that a stranger's are compared with."""

BETWEEN = 10
NAMES = ("jaq", DISTANCE, *STATISTICS)
"""What is known of each picture."""


@dataclass(frozen=True)
class Landscape:
    """``grid`` (NAMES, POINTS, POINTS, pictures), c_x first; ``between`` (NAMES, BETWEEN, pictures) at ``places``
    (BETWEEN, 2); ``right`` (NAMES, pictures): the full model's pictures, whose JAQ nobody needs. The first SEARCHED
    pictures are for searches, the others are held out. A picture takes so many ``steps``."""

    grid: np.ndarray
    places: np.ndarray
    between: np.ndarray
    right: np.ndarray
    steps: int

    @cached_property
    def _lines(self):
        from scipy.interpolate import RegularGridInterpolator

        # Splines were tried and are further off: quantised activations make the landscape rough, not smooth.
        return RegularGridInterpolator((axis(), axis()), np.moveaxis(self.grid, 0, -1), method="linear")

    def at(self, places) -> np.ndarray:
        """(n, pictures, NAMES) at places (n, 2) of (c_x, c_eps)."""
        return self._lines(np.atleast_2d(places))

    def error(self) -> float:
        """Median error of the searched pictures' mean JAQ between the points."""
        difference = self.at(self.places)[:, :SEARCHED, 0].mean(1) - self.between[0, :, :SEARCHED].mean(1)
        return float(np.median(np.abs(difference)))

    def guard(self) -> Guard:
        """The default's: near to the full model's pictures, statistics included. A picture here is its row (NAMES,)."""

        def measure(pictures: np.ndarray, indices: Sequence[int]) -> dict[str, np.ndarray]:
            return {name: pictures[:, place] for place, name in enumerate(NAMES) if place}

        def reference(indices: Sequence[int]) -> dict[str, np.ndarray]:
            return {name: self.right[place, list(indices)] for place, name in enumerate(NAMES) if name in STATISTICS}

        return Guard(measure, reference)


def axis() -> np.ndarray:
    return np.linspace(1 - SETTINGS.radius, 1 + SETTINGS.radius, POINTS)


@dataclass(frozen=True)
class Subject:
    """What is asked: a quantised model, its reference, and the score of their pictures."""

    generate: Generate
    reference: Generate
    score: Score
    steps: int


def toy_subject(kind: str) -> Subject:
    whole = toys.load(kind)
    toy = whole.quantized("w4a4", **toys.VISIBLE_DAMAGE[kind])
    captions = toys.captions(SEARCHED + HELD_OUT, seed=3)
    score, _ = toys.scored(captions)
    return Subject(toy.generator(captions), whole.generator(captions), score, len(toy.sigmas) - 1)


def stranger_subject(kind: str) -> Subject:
    whole, count = STRANGERS[kind](), SEARCHED + HELD_OUT
    model, scores = whole.quantized("w4a4"), Scores(whole, count, BANK_STEPS)
    return Subject(model.generator(count, 3), whole.generator(count, 3), scores.score, len(whole.sigmas) - 1)


def load(kind: str) -> Landscape:
    """What was measured of the demo that lies here, by the code as it stands; measures it first where it was not."""
    folders, model = (
        (MEASURES, demo_hash()) if kind in toys.KINDS else ((*MEASURES, "benchmarks/strangers"), "strangers")
    )
    path = FOLDER / f"landscape_{kind}_{model}_{code_digest(folders=folders)}.npz"
    if not path.exists():
        measure(kind, path)
    with np.load(path) as file:
        return Landscape(**{**file, "steps": int(file["steps"])})


def measure(kind: str, path: Path) -> None:
    """Asks the quantised model at every point; goes on where it was stopped."""
    subject, indices = toy_subject(kind) if kind in toys.KINDS else stranger_subject(kind), range(SEARCHED + HELD_OUT)
    right = subject.reference(Coefficients.identity(subject.steps), indices)
    places = np.random.default_rng(5).uniform(axis()[0], axis()[-1], (BETWEEN, 2))
    points = [(c_x, c_eps) for c_x in axis() for c_eps in axis()] + [tuple(place) for place in places]
    space, part = Space(SETTINGS, subject.steps), path.with_suffix(".part.npy")
    rows = list(np.load(part)) if part.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)

    def row(pictures) -> np.ndarray:
        scores, statistics = subject.score(pictures, indices), pixel_statistics(pictures)
        far = distance(pictures, right)[DISTANCE]
        others = (statistics[name].numpy() for name in STATISTICS)
        return np.stack([scores["tc"] + 2 * scores["iq"], far.numpy(), *others])

    for number, point in enumerate(points[len(rows) :], start=len(rows) + 1):
        coefficients = space.coefficients(dict(zip(space.axes, point, strict=True)))
        rows.append(row(subject.generate(coefficients, indices)))
        if number % 5 == 0 or number == len(points):
            np.save(part, np.stack(rows))
            print(f"{kind}: {number} of {len(points)} points", flush=True)
    values = np.stack(rows, axis=1)
    grid = values[:, : POINTS**2].reshape(len(NAMES), POINTS, POINTS, -1)
    np.savez(path, grid=grid, places=places, between=values[:, POINTS**2 :], right=row(right), steps=subject.steps)
    part.unlink()


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.landscape", description=__doc__)
    arguments.add_argument("kind", choices=[*toys.KINDS, *STRANGERS])
    landscape = load(arguments.parse_args().kind)
    means = landscape.grid[0, ..., :SEARCHED].mean(2)
    print(f"best {means.max():.4f}, identity {means[POINTS // 2, POINTS // 2]:.4f}, between {landscape.error():.4f}")


if __name__ == "__main__":
    main()
