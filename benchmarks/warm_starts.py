"""Whether a warm start ever wins: ``python -m benchmarks.warm_starts [--seeds 3]``.

On the settings of ``benchmarks.verdict_pictures``, after it: each closed form is judged on the search's prompts as the
search judges a candidate, beside the one that the search found. It *may win* where it worsens nothing that is
guarded, and *wins* where its JAQ is then higher than that candidate's. Each costs a picture of each prompt.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

import qsched_core as qs
from calibration import Settings
from calibration.reference_pictures import ReferencePictures, guard_of
from calibration.split import SEARCH_PROMPTS, split

from . import toys, verdict_pictures
from .closed_forms import Pairs, closed_forms
from .code_digest import code_digest
from .half_decoder import HalfDecoder
from .record import record

NAMES = ("W4A4", "W4A8", "W3A8")
PICTURES = 6
"""Behind the closed forms: 5 to 8 are enough."""


def pairs_of(model: toys.Toy, right: toys.Toy, captions: list[str]) -> Pairs:
    """Outputs of both wherever the quantised one opens a step."""
    steps = len(model.sigmas) - 1
    pairs = Pairs(steps)
    with torch.inference_mode():
        out = model.text(input_ids=toys.compact_ids(captions))
        text = out.last_hidden_state, out.pooler_output
        wrap = toys.flow_model if model.kind == "flow" else toys.noise_model
        here, there = (wrap(toy.network, text) for toy in (model, right))
        count = 0

        def denoised(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            nonlocal count
            outputs = [(x - each(x, sigma)) / sigma.view(-1, 1, 1, 1) for each in (there, here)]
            pairs.add(count, *outputs)
            count += 1
            return x - outputs[1] * sigma.view(-1, 1, 1, 1)

        sigmas, noises = torch.tensor(model.sigmas), iter(model.noises(0, range(len(captions))))
        scale = sigmas[0] if model.kind == "flow" else (1 + sigmas[0].square()).sqrt()
        qs.sample(
            model.sampler, denoised, next(noises) * scale, sigmas, qs.Coefficients.identity(steps),
            flow=model.kind == "flow", noise_sampler=lambda sigma, after: next(noises),
        )  # fmt: skip
    return pairs


def judged(kind: str, name: str, seed: int, best: qs.Coefficients) -> dict[str, dict]:
    """{candidate: {"gain": JAQ above the identity's on the search's prompts, "may win"}}"""
    setting, toy = verdict_pictures.SETTINGS[name], toys.load(kind)
    toy = replace(toy, decoder=HalfDecoder(toy.decoder))
    captions = toys.captions(verdict_pictures.PROMPTS + verdict_pictures.FRESH, seed=1000 + seed)
    captions = captions[: verdict_pictures.PROMPTS]
    model, right = setting.model(toy), setting.reference(toy)
    steps = len(model.sigmas) - 1
    search_indices = list(split(len(captions), Settings(seed=seed)).search)
    starts = closed_forms(pairs_of(model, right, [captions[i] for i in search_indices[:PICTURES]]), model.sigmas)
    reference = ReferencePictures(right.generator(captions, seed), search_indices, steps)
    guard, generate = guard_of(reference, stay_near=True), model.generator(captions, seed)
    score, _ = toys.scored(captions)

    def row(coefficients: qs.Coefficients) -> tuple[float, Mapping[str, dict[int, float]]]:
        pictures = generate(coefficients, search_indices)
        scores, watch = score(pictures, search_indices), guard(pictures, search_indices)
        values = {metric: dict(zip(search_indices, line, strict=True)) for metric, line in watch.items()}
        return float((scores["tc"] + 2 * scores["iq"]).mean()), values

    base, before = row(qs.Coefficients.identity(steps))
    out = {}
    for title, coefficients in {**starts, "search": best}.items():
        value, after = row(coefficients)
        excess = max(guard.excess(metric, after[metric], before[metric]) for metric in after)
        out[title] = {"gain": round(value - base, 4), "may win": bool(excess <= 0)}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="studies of each setting (%(default)s)")
    done = verdict_pictures.kept_rows(verdict_pictures.FOLDER / "verdict_rows.jsonl", code_digest())
    seeds, rows = parser.parse_args().seeds, {}
    for (kind, name, seed), row in sorted(done.items()):
        if name in NAMES and seed < seeds:
            values = judged(kind, name, seed, qs.Coefficients(*map(tuple, row["coefficients"])))
            rows[f"{kind}: {name}, study {seed + 1}"] = values
            print(kind, name, seed, values, file=sys.stderr, flush=True)
    titles = [title for title in next(iter(rows.values())) if title != "search"]
    summary = {
        title: {
            "studies": len(rows),
            "may win": sum(row[title]["may win"] for row in rows.values()),
            "wins": sum(row[title]["may win"] and row[title]["gain"] > row["search"]["gain"] for row in rows.values()),
            "median gain": round(float(np.median([row[title]["gain"] for row in rows.values()])), 4),
        }
        for title in titles
    }
    record(
        "warm_starts",
        {"pictures each": SEARCH_PROMPTS, "summary": summary, "studies": rows},
        on_demo=True,
    )


if __name__ == "__main__":
    main()
