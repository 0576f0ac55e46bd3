"""What the verdict says of real pictures: ``python -m benchmarks.verdict_pictures [--studies 3]``.

Both trained toys, quantised in several ways, each calibrated whole as *JAQ Calibrate* does by default: 60 prompts, 24
trials, the 8-bit twin as the reference. Then the truth: the candidate on 200 captions that neither the search nor the
verdict saw, on the model and on the reference. A candidate *harms* where the set of pictures goes away from drawn
scenes, or where fewer pictures show what was asked for (told by a net that no search has asked), each beyond its noise.
It *repairs* where its net gain is above 0 there beyond noise, and it does no harm. An accept is wrong where the
candidate harms or where nothing was taken that could come back; a refusal is wrong where it repairs.

The scores of all pictures are kept in ``.cache/benchmarks``, before any rule reads them: the same command goes on where
it stopped, and ``--kept`` judges anew what is there. Networks and decoder run in bfloat16, as on a GPU. Several
processes may make studies at once, each of its own toy or from its own ``--first``; ``--kept`` then judges all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import torch

from calibration import Evaluation, Interval, Result, Settings, calibrate, paired_gain
from calibration.metrics.picture_set import set_row
from calibration.metrics.reference import DISTANCE, distance
from calibration.reference_pictures import ReferencePictures, guard_of
from calibration.split import split
from calibration.validate import ANSWERS, REPAIR, answer, drifts, net_gain
from calibration.verdict import all_gains
from demo.judges import DemoJudge, DrawnSet
from qsched_core import Coefficients

from . import toys
from .code_digest import code_digest
from .half_decoder import HalfDecoder
from .record import record
from .verdict import rate

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "benchmarks"
PROMPTS, TRIALS, FRESH = 60, 24, 120
HELD_OUT, DRAWS = (12, 24, 48), 100
"""Numbers of prompts at which a verdict is drawn from the fresh pictures, and how often."""

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


@cache
def packed(form: str) -> Make:
    return lambda toy: toy.quantized(form, **toys.VISIBLE_DAMAGE[toy.kind])


def twin(toy: toys.Toy) -> toys.Toy:
    """In 8 bits, as Quantize Model makes it."""
    return toy.quantized("w8a8")


def broken(toy: toys.Toy) -> toys.Toy:
    """One output row in eight of every third Linear layer is lost: no schedule brings it back."""
    damage = toy.quantized("w8a16")
    linears = (module for module in damage.network.modules() if isinstance(module, torch.nn.Linear))
    for number, module in enumerate(linears):
        if number % 3 == 0:
            module.weight.data[::8] = 0
    return damage


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
        scores = score(pictures, indices)
        return {**scores, "iq": judge(pictures, indices)["saturation"]}

    return saturated, judge


class PictureMaker:
    """A toy's pictures of some captions, none made twice: settings of one seed share models, captions and noises."""

    def __init__(self, toy: toys.Toy, captions: Sequence[str], seed: int):
        self.captions, self.steps = captions, len(toy.sigmas) - 1
        self._generate = toy.generator(captions, seed)
        self._pictures: dict[Coefficients, dict[int, torch.Tensor]] = {}

    def __call__(self, coefficients: Coefficients, indices: Sequence[int]) -> torch.Tensor:
        """Of the candidates all but the last one's are forgotten."""
        self._pictures = {key: row for key, row in self._pictures.items() if key.is_identity or key == coefficients}
        row = self._pictures.setdefault(coefficients, {})
        if missing := [index for index in indices if index not in row]:
            with torch.autocast("cpu", torch.bfloat16):
                row.update(zip(missing, self._generate(coefficients, missing), strict=True))
        return torch.stack([row[index] for index in indices])


@cache
def toy_of(kind: str, make: Make) -> toys.Toy:
    toy = toys.load(kind)
    return make(replace(toy, decoder=HalfDecoder(toy.decoder)))


@lru_cache(maxsize=12)
def maker(kind: str, make: Make, seed: int, *, fresh: bool) -> PictureMaker:
    captions = toys.captions(PROMPTS + FRESH, seed=1000 + seed)
    if fresh:
        return PictureMaker(toy_of(kind, make), captions[PROMPTS:], 10_000 + seed)
    return PictureMaker(toy_of(kind, make), captions[:PROMPTS], seed)


def rows_of(kind: str, name: str, seed: int) -> dict:
    """One calibration: its candidate, and the scores of held-out and of fresh pictures, before any rule reads them."""
    setting = SETTINGS[name]
    model, right = (maker(kind, make, seed, fresh=False) for make in (setting.model, setting.reference))
    result = calibrated(model, right, seed, gamed=setting.gamed)
    control, best = result.on_reference, result.coefficients
    new_model, new_right = (maker(kind, make, seed, fresh=True) for make in (setting.model, setting.reference))
    return {
        "coefficients": [best.c_x, best.c_eps],
        "evaluations": result.nfe,
        "indices": result.identity.indices,
        "held out": [_plain(row) for row in (result.identity, result.candidate, control.identity, control.candidate)],
        "fresh": [] if best.is_identity else fresh(new_model, new_right, best, gamed=setting.gamed),
    }


def calibrated(model: PictureMaker, right: PictureMaker, seed: int, *, gamed: bool) -> Result:
    """As the node does by default."""
    settings = Settings(trials=TRIALS, seed=seed).resolved(True)
    parts = split(PROMPTS, settings)
    reference = ReferencePictures(right, [*parts.held_out, *parts.search], model.steps)
    score, judge = scored(model.captions, gamed=gamed)
    drawn_set = DrawnSet(DemoJudge())

    def watched(pictures: torch.Tensor, indices: Sequence[int]) -> dict[str, np.ndarray]:
        return {**judged(judge, drawn_set, pictures, indices), DISTANCE: reference.distance(pictures, indices)}

    return calibrate(
        model, score, PROMPTS, model.steps, settings,
        judge=watched, reference=reference.generate, guard=guard_of(reference, stay_near=True),
    )  # fmt: skip


def judged(judge, drawn_set: DrawnSet, pictures: torch.Tensor, indices: Sequence[int]) -> dict[str, np.ndarray]:
    of_set = {metric: values.numpy() for metric, values in set_row(drawn_set, pictures).items()}
    return {**judge(pictures, indices), **of_set}


def fresh(model: PictureMaker, right: PictureMaker, best: Coefficients, *, gamed: bool) -> list[dict]:
    """The verdict's four rows again, on captions nobody saw, one noise each."""
    score, judge = scored(model.captions, gamed=gamed)
    drawn_set, indices, identity = DrawnSet(DemoJudge()), range(FRESH), Coefficients.identity(len(best))
    rows, full_pictures = [], right(identity, indices)
    for make, coefficients in product((model, right), (identity, best)):
        pictures = make(coefficients, indices)
        near = distance(pictures, full_pictures)[DISTANCE].double().numpy()
        scores = {**score(pictures, indices), **judged(judge, drawn_set, pictures, indices), DISTANCE: near}
        scores["jaq"] = scores["tc"] + 2 * scores["iq"]
        rows.append(_plain(Evaluation(tuple(indices), scores)))
    return rows


def _plain(row: Evaluation) -> dict[str, list[float]]:
    return {metric: np.round(values, 6).tolist() for metric, values in row.scores.items()}


# --- the rule, applied to the scores


def evaluations(rows: Sequence[dict], indices: Sequence[int], places: np.ndarray) -> list[Evaluation]:
    """Of the pictures at these ``places``."""
    own_indices = tuple(np.asarray(indices)[places].tolist())
    return [
        Evaluation(own_indices, {metric: np.array(values, dtype=np.float64)[places] for metric, values in row.items()})
        for row in rows
    ]


def judged_rows(rows: Sequence[Evaluation], n_prompts: int) -> dict:
    """What ``calibrate`` says of these four rows."""
    identity, candidate, base, control = rows
    settings = Settings()
    gains = all_gains(identity, candidate, n_prompts, settings)
    net = net_gain(identity, candidate, base, control, "jaq", n_prompts, settings.confidence)
    drifted = drifts(identity, gains, base, settings.confidence)
    return {
        "answer": answer(identity, candidate, gains["jaq"], net, drifted),
        "gain": _interval(gains["jaq"]),
        "net": _interval(net),
        "drifts": list(drifted),
    }


def study(row: dict) -> dict:
    """One calibration: the verdict as the product gives it by default, and what the candidate was worth."""
    indices = row["indices"]
    outcome = judged_rows(evaluations(row["held out"], indices, np.arange(len(indices))), PROMPTS)
    outcome |= {"identity": not row["fresh"], "evaluations": row["evaluations"]}
    if not row["fresh"]:
        return outcome
    whole = evaluations(row["fresh"], range(FRESH), np.arange(FRESH))
    truth = {metric: paired_gain(*whole[:2], metric, FRESH, 0.95) for metric in (SET, ACCURACY)}
    truth["net gain"] = net_gain(*whole, "jaq", FRESH, 0.95)
    return {**outcome, **{metric: _interval(change) for metric, change in truth.items()}}


def accepted_share(row: dict, prompts: int) -> float:
    """How often the candidate would be accepted on so many prompts, drawn of the fresh ones; one noise each."""
    draw, accepted = np.random.default_rng(0), 0
    for _ in range(DRAWS):
        places = np.sort(draw.choice(FRESH, prompts, replace=False))
        accepted += judged_rows(evaluations(row["fresh"], range(FRESH), places), FRESH)["answer"] == REPAIR
    return accepted / DRAWS


def _interval(change: Interval) -> list[float]:
    return [round(value, 4) for value in (change.gain, change.low, change.high)]


def harms(row: dict) -> bool:
    return SET in row and (row[SET][1] > 0 or row[ACCURACY][2] < 0)


def repairs(row: dict) -> bool:
    return "net gain" in row and row["net gain"][1] > 0 and not harms(row)


def truth_of(row: dict, repairable: bool) -> str:
    if harms(row):
        return "harms"
    return "repairs" if repairable and repairs(row) else "does neither"


def summary(name: str, studies: Sequence[dict]) -> dict:
    """Of one setting how often each answer came, and how often it was wrong."""
    repairable = SETTINGS[name.partition(": ")[2]].repairable
    accepted = [row for row in studies if row["answer"] == REPAIR]
    repairing = [row for row in studies if truth_of(row, repairable) == "repairs"]
    return {
        "studies": len(studies),
        "answers": {kind: sum(row["answer"] == kind for row in studies) for kind in ANSWERS},
        "wrong accepts": sum(harms(row) or not repairable for row in accepted),
        "accepts that harm": sum(map(harms, accepted)),
        "candidates that repair": len(repairing),
        "of them refused": sum(row["answer"] != REPAIR for row in repairing),
        "refused for a drift": sum(bool(row["drifts"]) for row in repairing),
        "candidates that harm": sum(map(harms, studies)),
    }


def in_all(summaries: Iterable[dict]) -> dict:
    """Wrong accepts of all studies, and wrong refusals of all candidates that repair."""
    rows = list(summaries)
    studies, repairing = (sum(row[key] for row in rows) for key in ("studies", "candidates that repair"))
    return {
        "studies": studies,
        "wrong accepts": rate(sum(row["wrong accepts"] for row in rows), studies),
        "candidates that repair": repairing,
        "refused for a drift": sum(row["refused for a drift"] for row in rows),
        "wrong refusals": rate(sum(row["of them refused"] for row in rows), repairing) if repairing else None,
    }


def by_prompts(rows: dict[str, list[dict]], studies: dict[str, list[dict]]) -> dict[str, dict[str, float]]:
    """Mean share of accepts by what the candidate is worth and by the number of held-out prompts."""
    shares: dict[str, list[list[float]]] = {}
    for name, studies_of in studies.items():
        repairable = SETTINGS[name.partition(": ")[2]].repairable
        for row, row_values in zip(studies_of, rows[name], strict=True):
            if row_values["fresh"]:
                line = [accepted_share(row_values, prompts) for prompts in HELD_OUT]
                shares.setdefault(truth_of(row, repairable), []).append(line)
    return {
        truth: {
            "candidates": len(lines),
            **dict(zip(map(str, HELD_OUT), np.mean(lines, 0).round(3).tolist(), strict=True)),
        }
        for truth, lines in shares.items()
    }


def kept_rows(path: Path, code: str) -> dict[tuple[str, str, int], dict]:
    """Rows that this ``code`` has made: those of other code would be mixed with it."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    own = [line for line in lines if line.get("code") == code]
    if len(own) < len(lines):
        print(f"{len(lines) - len(own)} rows of other code are left out", file=sys.stderr)
    return {(line["kind"], line["setting"], line["seed"]): line["row"] for line in own}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=20, help="of each setting (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="study of each setting to begin with (%(default)s)")
    parser.add_argument("kinds", nargs="*", default=toys.KINDS, help="toys to make studies of (default: both)")
    parser.add_argument("--kept", action="store_true", help="make none, only judge those that are there")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    path, code = FOLDER / "verdict_rows.jsonl", code_digest()
    if not arguments.kept:
        for seed, name, kind in product(range(arguments.first, arguments.studies), SETTINGS, arguments.kinds):
            if (kind, name, seed) not in kept_rows(path, code):
                line = {"kind": kind, "setting": name, "seed": seed, "code": code, "row": rows_of(kind, name, seed)}
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(kind, name, seed, file=sys.stderr, flush=True)
    rows: dict[str, list[dict]] = {}
    for (kind, name, seed), row in sorted(kept_rows(path, code).items()):
        if seed < arguments.studies:
            rows.setdefault(f"{kind}: {name}", []).append(row)
    studies = {name: [study(row) for row in rows_of_name] for name, rows_of_name in rows.items()}
    summaries = {name: summary(name, rows_of_name) for name, rows_of_name in studies.items()}
    facts = {"prompts": PROMPTS, "trials": TRIALS, "fresh prompts": FRESH, "held-out prompts": HELD_OUT}
    facts["accepted, by held-out prompts"] = by_prompts(rows, studies)
    record(
        "verdict_pictures",
        {**facts, "in all": in_all(summaries.values()), "settings": summaries, "studies": studies},
        on_demo=True,
    )


if __name__ == "__main__":
    main()
