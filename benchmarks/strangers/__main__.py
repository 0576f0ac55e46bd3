from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from calibration import Evaluation, Result, Settings, calibrate, paired_gain
from calibration.metrics.reference import DISTANCE, distance
from calibration.reference_pictures import ReferencePictures, guard_of
from calibration.split import split
from calibration.validate import net_gain
from qsched_core import Coefficients

from ..record import earlier, record
from .models import Stranger, galaxy, terrain
from .scores import SET, Scores

TRIALS = 16
STRANGERS: dict[str, tuple[Callable[[], Stranger], tuple[str, ...], int]] = {
    "galaxies 32": (lambda: galaxy(32), ("w4a8", "w4a4"), 32),
    "galaxies 64": (lambda: galaxy(64), ("w4a8", "w4a4"), 32),
    "terrain": (terrain, ("w4a8", "w3a8"), 0),
}
"""(net, formats, steps of the pictures to compare with; 0: as many as it samples in, a consistency net knows no
more)."""


def calibrated(model: Stranger, right: Stranger, scores: Scores, *, guard: bool) -> Result:
    """As the node does it with a reference, or without one."""
    count, steps = model.prompts, len(model.sigmas) - 1
    settings = Settings(trials=TRIALS, seeds=model.seeds, radius=0 if guard else 0.2, space="both ends").resolved(guard)
    parts = split(count, settings)
    reference = ReferencePictures(right.generator(count, 0), [*parts.held_out, *parts.search], steps) if guard else None

    def judge(pictures: torch.Tensor, indices) -> dict[str, np.ndarray]:
        near = {DISTANCE: reference.distance(pictures, indices)} if guard else {}
        return {**scores.judge(pictures, indices), **near}

    return calibrate(
        model.generator(count, 0), scores.score, count, steps, settings, judge=judge,
        reference=reference.generate if guard else None, guard=guard_of(reference, stay_near=True) if guard else None,
    )  # fmt: skip


def worth(model: Stranger, right: Stranger, scores: Scores, best: Coefficients) -> dict:
    """On noises nobody saw: gain, gain net of what the reference gains, and what got worse, with 95 % intervals."""
    if best.is_identity:
        return {}
    count = model.fresh
    indices, rows, full_pictures = range(count), {}, None
    fresh_scores = scores.for_prompts(count)
    for toy, coefficients in ((right, right.identity()), (right, best), (model, model.identity()), (model, best)):
        pictures = toy.generator(count, 9999)(coefficients, indices)
        full_pictures = pictures if full_pictures is None else full_pictures
        values = {**fresh_scores.score(pictures, indices), **fresh_scores.judge(pictures, indices)}
        values["jaq"] = values["tc"] + 2 * values["iq"]
        values[DISTANCE] = distance(pictures, full_pictures)[DISTANCE].double().numpy()
        rows[toy is model, coefficients is best] = Evaluation(tuple(indices), values)
    here, there = (rows[True, False], rows[True, True]), (rows[False, False], rows[False, True])
    changes = {metric: paired_gain(*here, metric, count, 0.95) for metric in ("jaq", "tc", "iq", SET, DISTANCE)}
    changes["net jaq"] = net_gain(*here, *there, "jaq", count, 0.95)
    intervals = {name: [round(v, 4) for v in (c.gain, c.low, c.high)] for name, c in changes.items()}
    worse = [name for name in ("tc", "iq") if changes[name].high < 0]
    worse += [name for name in (SET, DISTANCE) if changes[name].low > 0]
    return {**intervals, "worse": worse}


def mean_jaq(model: Stranger, scores: Scores) -> float:
    indices = range(model.fresh)
    metrics = scores.for_prompts(model.fresh).score(
        model.generator(model.fresh, 9999)(model.identity(), indices), indices
    )
    return float((metrics["tc"] + 2 * metrics["iq"]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="The default search on nets that nobody here trained.")
    parser.add_argument("names", nargs="*", default=list(STRANGERS), help="some nets; the others keep their rows")
    torch.set_grad_enabled(False)
    rows = {(row["net"], row["format"], row["search"]): row for row in earlier("strangers").get("rows", [])}
    for name in parser.parse_args().names:
        make, formats, bank_steps = STRANGERS[name]
        full = make()
        twin, scores = full.quantized("w8a8"), Scores(full, full.prompts, bank_steps)
        for form in formats:
            model = full.quantized(form)
            loss = round(mean_jaq(twin, scores) - mean_jaq(model, scores), 4)
            for search, guard in (("with the reference", True), ("free", False)):
                start = time.perf_counter()
                result = calibrated(model, twin, scores, guard=guard)
                row = {
                    "net": full.name, "format": form.upper(), "search": search, "answer": result.answer, "lost": loss,
                    "drifts": list(result.drifts), "network evaluations": result.nfe,
                    "held-out gain": [round(v, 4) for v in (result.gain.gain, result.gain.low, result.gain.high)],
                    "fresh": worth(model, twin, scores, result.coefficients),
                    "seconds": round(time.perf_counter() - start),
                }  # fmt: skip
                rows[full.name, row["format"], search] = row
                print(row, file=sys.stderr, flush=True)
        record("strangers", {"trials": TRIALS, "rows": list(rows.values())})


if __name__ == "__main__":
    main()
