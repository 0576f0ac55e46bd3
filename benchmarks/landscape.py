"""JAQ over (c_x, c_eps) of the first step, picture by picture: ``python -m benchmarks.landscape flow|noise``.

The true model is asked once at every point of a grid and at some points between, which takes half an hour; searches
can then be tried on it a thousand times. Between the points it is read along straight lines; the error is known.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from calibration import Evaluation, Settings, evaluate
from calibration.search.space import Space

from . import toys

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "benchmarks"
SETTINGS = Settings(space="first step", radius=0.2)
POINTS = 17
"""Per axis of [0.8, 1.2]: 1 is one of them."""

SEARCHED, HELD_OUT = 25, 25
BETWEEN = 12
FORMAT = {"format": "w4a4", "group_size": 0}
"""One scale per channel: damage that can be seen."""


@dataclass(frozen=True)
class Landscape:
    """``grid`` (POINTS, POINTS, pictures) of JAQ, c_x first; ``between`` (BETWEEN, pictures) at ``places``.
    The first SEARCHED pictures are for searches, the others are held out."""

    grid: np.ndarray
    places: np.ndarray
    between: np.ndarray

    @cached_property
    def _lines(self):
        from scipy.interpolate import RegularGridInterpolator

        # Splines were tried and are further off: quantised activations make the landscape rough, not smooth.
        return RegularGridInterpolator((axis(), axis()), self.grid, method="linear")

    def at(self, places) -> np.ndarray:
        """JAQ (n, pictures) at places (n, 2) of (c_x, c_eps)."""
        return self._lines(np.atleast_2d(places))

    def error(self) -> float:
        """Median error of the searched pictures' mean between the points."""
        difference = self.at(self.places)[:, :SEARCHED].mean(1) - self.between[:, :SEARCHED].mean(1)
        return float(np.median(np.abs(difference)))


def axis() -> np.ndarray:
    return np.linspace(1 - SETTINGS.radius, 1 + SETTINGS.radius, POINTS)


def load(kind: str) -> Landscape:
    """What was measured; measures it first where it was not."""
    path = FOLDER / f"landscape_{kind}.npz"
    if not path.exists():
        measure(kind, path)
    with np.load(path) as file:
        return Landscape(**file)


def measure(kind: str, path: Path) -> None:
    """Asks the quantised toy at every point; goes on where it was stopped."""
    toy = toys.load(kind).quantized(**FORMAT)
    captions = toys.captions(SEARCHED + HELD_OUT, seed=3)
    generate, (score, _) = toy.generator(captions), toys.scored(captions)
    places = np.random.default_rng(5).uniform(axis()[0], axis()[-1], (BETWEEN, 2))
    points = [(c_x, c_eps) for c_x in axis() for c_eps in axis()] + [tuple(place) for place in places]
    space, part = Space(SETTINGS, len(toy.sigmas) - 1), path.with_suffix(".part.npy")
    rows = list(np.load(part)) if part.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    for number, point in enumerate(points[len(rows) :], start=len(rows) + 1):
        coefficients = space.coefficients(dict(zip(space.axes, point, strict=True)))
        row: Evaluation = evaluate(generate, score, coefficients, range(len(captions)))[0]
        rows.append(row.scores["jaq"])
        if number % 10 == 0 or number == len(points):
            np.save(part, np.stack(rows))
            print(f"{kind}: {number} of {len(points)} points", flush=True)
    values = np.stack(rows)
    grid = values[: POINTS**2].reshape(POINTS, POINTS, -1)
    np.savez(path, grid=grid, places=places, between=values[POINTS**2 :])
    part.unlink()


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.landscape", description=__doc__)
    arguments.add_argument("kind", choices=toys.KINDS)
    found = load(arguments.parse_args().kind)
    means = found.grid[..., :SEARCHED].mean(2)
    print(f"best {means.max():.4f}, identity {means[POINTS // 2, POINTS // 2]:.4f}, between {found.error():.4f}")


if __name__ == "__main__":
    main()
