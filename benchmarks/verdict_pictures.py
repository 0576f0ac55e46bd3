"""What the verdict says of real pictures: ``python -m benchmarks.verdict_pictures [--studies 3]``.

Both trained toys, quantised in several ways, each calibrated whole as *JAQ Calibrate* does by default: 24 prompts, 24
trials, the 8-bit twin as the reference. Then the truth: the candidate on 200 captions that neither the search nor the
verdict saw, on the model and on the reference. A candidate *harms* where the set of pictures goes away from drawn
scenes, or where fewer pictures show what was asked for (told by a net that no search has asked), each beyond its noise.
It *repairs* where its net gain is above 0 there beyond noise, and it does no harm. An accept is wrong where the
candidate harms or where nothing was taken that could come back; a refusal is wrong where it repairs.

Studies that are finished are kept in ``.cache/benchmarks``: the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from calibration import Evaluation, Result, Settings, calibrate, paired_gain
from calibration.metrics.reference import DISTANCE
from calibration.reference_pictures import ReferencePictures, guard_of
from calibration.split import split
from calibration.validate import net_gain
from demo.judges import DemoJudge
from qsched_core import Coefficients

from . import toys
from .record import record

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "benchmarks"
PROMPTS, TRIALS, FRESH = 24, 24, 200
HARD = {"flow": {"group_size": 0, "include": ["*"]}, "noise": {"group_size": 0}}
"""One scale per channel, on the flow toy in all layers (the other one does not survive that): damage to be seen."""

SET, ACCURACY = "distance to drawn set", "attribute accuracy"
Make = Callable[[toys.Toy], toys.Toy]


@dataclass(frozen=True)
class Setting:
    """``model`` and ``reference`` are made of the full toy; ``repairable``: something was taken that could come back;
    ``gamed``: the image quality is the saturation."""

    model: Make
    reference: Make
    repairable: bool = True
    gamed: bool = False


def full(toy: toys.Toy) -> toys.Toy:
    return toy


def packed(form: str) -> Make:
    return lambda toy: toy.quantized(form, **HARD[toy.kind])


def twin(toy: toys.Toy) -> toys.Toy:
    """In 8 bits, as Quantize Model makes it."""
    return toy.quantized("w8a8")


def broken(toy: toys.Toy) -> toys.Toy:
    """One output row in eight of every third Linear layer is lost: no schedule brings it back."""
    made = toy.quantized("w8a16")
    for number, module in enumerate(module for module in made.network.modules() if isinstance(module, torch.nn.Linear)):
        if number % 3 == 0:
            module.weight.data[::8] = 0
    return made


SETTINGS = {
    "identical models": Setting(full, full, repairable=False),
    "full precision": Setting(full, twin, repairable=False),
    "W8A8": Setting(twin, full, repairable=False),
    "W4A8": Setting(packed("w4a8"), twin),
    "W4A4": Setting(packed("w4a4"), twin),
    "W3A8": Setting(packed("w3a8"), twin),
    "gamed score, W4A4": Setting(packed("w4a4"), twin, gamed=True),
    "broken model": Setting(broken, twin),
}


def scored(captions: Sequence[str], *, gamed: bool):
    score, judge = toys.scored(captions)
    if not gamed:
        return score, judge

    def saturated(pictures: torch.Tensor, indices: Sequence[int]) -> dict[str, np.ndarray]:
        found = score(pictures, indices)
        return {**found, "iq": judge(pictures, indices)["saturation"]}

    return saturated, judge


def study(kind: str, name: str, seed: int) -> dict:
    """One calibration, and what it was worth."""
    setting, toy = SETTINGS[name], toys.load(kind)
    captions = toys.captions(PROMPTS + FRESH, seed=1000 + seed)
    model, right = setting.model(toy), setting.reference(toy)
    result = calibrated(model, right, captions[:PROMPTS], seed, gamed=setting.gamed)
    truth = measured(model, right, captions[PROMPTS:], result.coefficients, seed, gamed=setting.gamed)
    there = result.on_reference
    return {
        "answer": result.answer,
        "gain": [round(v, 4) for v in (result.gain.gain, result.gain.low, result.gain.high)],
        "net": [round(v, 4) for v in (there.net.gain, there.net.low, there.net.high)],
        "drifts": list(result.drifts),
        "identity": result.coefficients.is_identity,
        "evaluations": result.nfe,
        **truth,
    }


def calibrated(model: toys.Toy, right: toys.Toy, captions: Sequence[str], seed: int, *, gamed: bool) -> Result:
    """As the node does by default."""
    settings = Settings(trials=TRIALS, seed=seed).resolved(True)
    steps, parts = len(model.sigmas) - 1, split(len(captions), settings)
    reference = ReferencePictures(right.generator(captions, seed), [*parts.held_out, *parts.search], steps)
    score, judge = scored(captions, gamed=gamed)
    referee = DemoJudge()

    def watched(pictures: torch.Tensor, indices: Sequence[int]) -> dict[str, np.ndarray]:
        of_set = {metric: values.numpy() for metric, values in referee.score_set(pictures).items()}
        return {**judge(pictures, indices), **of_set, DISTANCE: reference.distance(pictures, indices)}

    return calibrate(
        model.generator(captions, seed), score, len(captions), steps, settings,
        judge=watched, reference=reference.generate, guard=guard_of(reference, stay_near=True),
    )  # fmt: skip


def measured(
    model: toys.Toy, right: toys.Toy, captions: Sequence[str], found: Coefficients, seed: int, *, gamed: bool
) -> dict:
    """On captions nobody saw: {"net gain", SET, ACCURACY} of the candidate, each [mean, low, high]."""
    if found.is_identity:
        return {}
    score, judge = scored(captions, gamed=gamed)
    referee, indices = DemoJudge(), range(len(captions))

    def row(toy: toys.Toy, coefficients: Coefficients) -> Evaluation:
        pictures = toy.generator(captions, 10_000 + seed)(coefficients, indices)
        scores = score(pictures, indices)
        rest = {ACCURACY: judge(pictures, indices)[ACCURACY], SET: referee.score_set(pictures)[SET].numpy()}
        return Evaluation(tuple(indices), {"jaq": scores["tc"] + 2 * scores["iq"], **rest})

    identity = Coefficients.identity(len(found))
    here, there = ([row(toy, coefficients) for coefficients in (identity, found)] for toy in (model, right))
    rules = len(captions), 0.95
    intervals = {metric: paired_gain(*here, metric, *rules) for metric in (SET, ACCURACY)}
    intervals["net gain"] = net_gain(*here, *there, "jaq", *rules)
    return {metric: [round(v, 4) for v in (i.gain, i.low, i.high)] for metric, i in intervals.items()}


def harms(row: dict) -> bool:
    return SET in row and (row[SET][1] > 0 or row[ACCURACY][2] < 0)


def repairs(row: dict) -> bool:
    return "net gain" in row and row["net gain"][1] > 0 and not harms(row)


def summary(rows: dict[str, list[dict]]) -> dict:
    """Per setting how often each answer came, and how often it was wrong."""
    found = {}
    for name, studies in rows.items():
        repairable = SETTINGS[name.partition(": ")[2]].repairable
        accepted = [row for row in studies if row["answer"] == "repair"]
        repairing = [row for row in studies if repairable and repairs(row)]
        found[name] = {
            "studies": len(studies),
            "answers": {answer: sum(row["answer"] == answer for row in studies) for answer in ANSWERS},
            "wrong accepts": sum(harms(row) or not repairable for row in accepted),
            "accepts that harm": sum(map(harms, accepted)),
            "candidates that repair": len(repairing),
            "of them refused": sum(row["answer"] != "repair" for row in repairing),
            "candidates that harm": sum(map(harms, studies)),
        }
    return found


ANSWERS = ("repair", "re-tuning", "nothing found")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=20, help="of each setting (%(default)s)")
    parser.add_argument("--kept", action="store_true", help="make none, only sum up those that are finished")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    kept = FOLDER / "verdict_pictures.jsonl"
    lines = [json.loads(line) for line in kept.read_text("utf-8").splitlines()] if kept.exists() else []
    known = {(line["kind"], line["setting"], line["seed"]): line["row"] for line in lines}
    rows: dict[str, list[dict]] = {}
    for seed in range(arguments.studies):
        for kind in toys.KINDS:
            for name in SETTINGS:
                key = (kind, name, seed)
                if key not in known and arguments.kept:
                    continue
                if key not in known:
                    known[key] = study(kind, name, seed)
                    line = {"kind": kind, "setting": name, "seed": seed, "row": known[key]}
                    with kept.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
                    print(line, file=sys.stderr, flush=True)
                rows.setdefault(f"{kind}: {name}", []).append(known[key])
    record("verdict_pictures", {"prompts": PROMPTS, "trials": TRIALS, "settings": summary(rows), "studies": rows})


if __name__ == "__main__":
    main()
