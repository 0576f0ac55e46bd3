"""What quantising takes and Q-Sched gives back: ``python -m benchmarks.recovery [flow|noise ...]``.

Two trained toys; W4A8, W4A4 and W3A8 with one scale per channel, on the flow toy in all layers (the other one does not
survive that), so that there is something to repair; every space searched on 24 prompts; then
500 held-out captions per row. Losses and gains are paired, picture by picture, with 95 % intervals over
captions. Not optimised are the accuracy (what is shown, told by a net that no search has asked), the distance of the
set of pictures from drawn scenes, and the distance of each to its full-precision picture. The spaces in GUARD_SPACES
are searched once more with a guard on the last one: a candidate that raises it on the search prompts cannot win. The
control is the full-precision model with coefficients of its own.

Half an hour for each toy on one core; rows that were made are kept in ``.cache/benchmarks``. The decoder runs in
bfloat16, as on a GPU: twice as fast here.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from calibration import Evaluation, Result, Settings, calibrate, paired_gain
from calibration.choices import SPACES
from calibration.metrics.picture_set import set_row
from calibration.metrics.reference import distance
from calibration.search.guard import Guard
from demo.judges import DemoJudge, DrawnSet
from qsched_core import Coefficients

from . import toys
from .code_digest import MEASURES, code_digest
from .half_decoder import HalfDecoder
from .record import demo_hash, earlier_of_demo, record

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "benchmarks"
FORMATS = ("w4a4", "w4a8", "w3a8")
CAPTIONS = 500
SEARCHED, TRIALS = 24, 24
CONTROL_SPACE = "both ends"
GUARD_SPACES = ("both ends", "constant", "table")
SET = "distance to drawn set"
METRICS = ("tc", "iq", "tc+iq", "jaq", "attribute accuracy", "all right", SET, "distance to full", "contrast")


class NotRun(Exception):
    """No time is left for a row."""


class Bench:
    """One toy: rows of held-out scores, made once."""

    def __init__(self, kind: str, out_of_time: Callable[[], bool], prompts: int = CAPTIONS, noises: int = 1):
        self.out_of_time, self.prompts = out_of_time, prompts
        self.pictures = prompts * noises
        self.kind, self.full = kind, toys.load(kind)
        self.full = replace(self.full, decoder=HalfDecoder(self.full.decoder))
        self.steps = len(self.full.sigmas) - 1
        captions = toys.captions(CAPTIONS + SEARCHED + 4, seed=101)
        self.held_out, self.searched = captions[:prompts], captions[CAPTIONS:]
        self.files = f"recovery_{kind}_{prompts}x{noises}_{demo_hash()}_{code_digest(folders=MEASURES)}"
        self.score, self.judge = toys.scored(self.held_out)
        self.references, self.drawn_set = None, DrawnSet(DemoJudge())

    def row(self, name: str, toy: toys.Toy, coefficients: Coefficients) -> Evaluation:
        """Scores of the held-out pictures, the distance to those of the full model among them."""
        row = self.earlier_row(name, coefficients)
        if row is not None:
            return row
        indices = range(self.pictures)
        if self.out_of_time():
            raise NotRun
        generate = toy.generator(self.held_out, seed=7)
        parts: list[dict[str, np.ndarray]] = []
        pictures = torch.empty(len(indices), toys.PICTURE_SIZE, toys.PICTURE_SIZE, 3)
        for start in range(0, len(indices), 250):
            chunk = indices[start : start + 250]
            pictures[chunk.start : chunk.stop] = generate(coefficients, chunk)
            parts.append(self.scores(pictures[chunk.start : chunk.stop], chunk))
        scores = {metric: np.concatenate([part[metric] for part in parts]) for metric in parts[0]}
        scores |= {metric: values.numpy() for metric, values in set_row(self.drawn_set, pictures).items()}
        np.savez(self._row_file(name), coefficients=np.array(coefficients.c_x + coefficients.c_eps), **scores)
        print(f"{self.kind}: {name}", flush=True)
        return Evaluation(tuple(indices), scores)

    def earlier_row(self, name: str, coefficients: Coefficients) -> Evaluation | None:
        """One that was made before by this code, None where there is none."""
        if self._row_file(name).exists():
            with np.load(self._row_file(name)) as file:
                same = tuple(file["coefficients"]) == coefficients.c_x + coefficients.c_eps
                if same and (SET in file.files or self.out_of_time()):
                    scores = {key: file[key] for key in file.files if key != "coefficients"}
                    return Evaluation(tuple(range(self.pictures)), scores)
        return None

    def _row_file(self, name: str) -> Path:
        return FOLDER / f"{self.files}_{name.replace(' ', '_')}.npz"

    def scores(self, pictures: torch.Tensor, chunk: range) -> dict[str, np.ndarray]:
        scores = {**self.score(pictures, chunk), **self.judge(pictures, chunk)}
        far = distance(pictures, self.reference()[list(chunk)].float() / 255)
        scores["distance to full"] = far["distance to full"].double().numpy()
        scores["tc+iq"] = scores["tc"] + scores["iq"]
        scores["jaq"] = scores["tc"] + 2 * scores["iq"]
        return scores

    def reference(self) -> torch.Tensor:
        """The full model's pictures in 8 bits: 74 MB."""
        if self.references is None:
            path = FOLDER / f"{self.files}_reference.pt"
            if not path.exists():
                generate, identity = self.full.generator(self.held_out, seed=7), Coefficients.identity(self.steps)
                parts = [
                    (generate(identity, range(start, min(start + 250, self.pictures))) * 255).round().byte()
                    for start in range(0, self.pictures, 250)
                ]
                torch.save(torch.cat(parts), path)
            self.references = torch.load(path, weights_only=True)
        return self.references

    def search(self, name: str, toy: toys.Toy, space: str, *, guard: bool = False) -> Coefficients:
        """The best candidate of the default search in a space, whatever its verdict would be."""
        journal = FOLDER / f"recovery_{self.kind}_{demo_hash()}_{code_digest()}_{name.replace(' ', '_')}.jsonl"
        if self.out_of_time() and not journal.exists():
            raise NotRun
        score, _ = toys.scored(self.searched)
        result: Result = calibrate(
            toy.generator(self.searched, seed=3), score, len(self.searched), self.steps,
            Settings(space=space, radius=0.2, trials=TRIALS, seeds=1), verdict_prompts=range(SEARCHED, SEARCHED + 4),
            journal=journal, guard=Guard(self.distance_of_searched) if guard else None,
        )  # fmt: skip
        return result.coefficients

    def distance_of_searched(self, pictures: torch.Tensor, chunk: Sequence[int]) -> dict[str, torch.Tensor]:
        return distance(pictures, self.full_of_searched[list(chunk)])

    @cached_property
    def full_of_searched(self) -> torch.Tensor:
        identity = Coefficients.identity(self.steps)
        return self.full.generator(self.searched, seed=3)(identity, range(len(self.searched)))

    def results(self) -> dict:
        """What no time is left for is said to be not run; what was made before is read."""
        identity = Coefficients.identity(self.steps)
        full = self.row("full", self.full, identity)
        own = self.search("control", self.full, CONTROL_SPACE)
        control = self.gains(full, self.row("full with its own", self.full, own))
        of_control = {"gain": control, **curves_of(own)}
        result: dict = {"full": means(full), "control, full precision": of_control, "formats": {}}
        for form in FORMATS:
            toy = self.full.quantized(form, **toys.VISIBLE_DAMAGE[self.kind])
            try:
                plain = self.row(form, toy, identity)
            except NotRun:
                result["formats"][form] = "not run"
                continue
            line: dict = {"identity": means(plain), "lost": self.gains(full, plain)}
            line["spaces"] = {space: self.repaired(form, toy, plain, line["lost"], space) for space in SPACES}
            line["held"] = {
                space: self.repaired(form, toy, plain, line["lost"], space, guard=True) for space in GUARD_SPACES
            }
            result["formats"][form] = line
        return result

    def gains(self, base: Evaluation, other: Evaluation) -> dict[str, list[float]]:
        """[mean, low, high] of other - base for every metric."""
        intervals = {}
        for metric in METRICS:
            if not (metric in base.scores and metric in other.scores):
                continue
            gain = paired_gain(base, other, metric, self.prompts, 0.95)
            intervals[metric] = [round(value, 5) for value in (gain.gain, gain.low, gain.high)]
        return intervals

    def repaired(
        self, form: str, toy: toys.Toy, plain: Evaluation, loss: dict, space: str, *, guard=False
    ) -> dict | str:
        name = f"{form} {space} held" if guard else f"{form} {space}"
        try:
            best = self.search(name, toy, space, guard=guard)
            gained = self.gains(plain, self.row(name, toy, best))
        except NotRun:
            return "not run"
        return {"gain": gained, "recovered": recovered(loss, gained), **curves_of(best)}


def means(row: Evaluation) -> dict[str, float]:
    return {metric: round(row.mean(metric), 4) for metric in METRICS if metric in row.scores}


def recovered(loss: dict, gained: dict) -> dict[str, float | None]:
    """Share of what was lost for certain that came back; None where nothing was."""
    return {
        metric: round(-gained[metric][0] / loss[metric][0], 3) if loss[metric][1] * loss[metric][2] > 0 else None
        for metric in gained
        if metric in loss
    }


def curves_of(coefficients: Coefficients) -> dict[str, list[float]]:
    return {name: [round(value, 4) for value in getattr(coefficients, name)] for name in ("c_x", "c_eps")}


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    arguments.add_argument("kinds", nargs="*", default=toys.KINDS, help="flow, noise (default: both)")
    arguments.add_argument("--captions", type=int, default=CAPTIONS, help="held-out captions (%(default)s)")
    arguments.add_argument("--minutes", type=float, default=math.inf, help="starts no space after as long")
    options = arguments.parse_args()
    end = time.monotonic() + 60 * options.minutes
    FOLDER.mkdir(parents=True, exist_ok=True)
    for kind in options.kinds:
        row = {"held_out": options.captions, **Bench(kind, lambda: time.monotonic() > end, options.captions).results()}
        record("recovery", {"models": earlier_of_demo("recovery", "models") | {kind: row}}, on_demo=True)


if __name__ == "__main__":
    main()
