"""What fitted rounding loses without any prompt: ``python -m benchmarks.no_data [flow|noise ...]``.

*Observe Layers* without prompts samples what it makes up itself: an empty prompt with eight noises, or eight prompts of
words drawn from the text encoder's own vocabulary. Each is judged beside eight captions and beside nearest rounding, by
the distance to the full model's pictures, on captions that nothing was observed of. *ratio*: to that of the model
fitted to captions, with a paired 95 % interval over captions of the difference.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from calibration import Evaluation, paired_gain
from calibration.metrics.reference import DISTANCE, distance
from demo.vocabulary import WORDS
from qsched_core import Coefficients

from . import toys
from .half_decoder import HalfDecoder
from .record import earlier_of_demo, record

FORMATS = ("w4a8", "w4a4", "w3a8")
PROMPTS, WORDS_EACH, JUDGES = 8, 8, 192
NEAREST, CAPTIONS = "nearest", "captions"


def random_words(seed: int = 0) -> list[str]:
    """PROMPTS prompts of WORDS_EACH words, no sentence among them."""
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, WORDS_EACH, replace=False)) for _ in range(PROMPTS)]


def rows_of(kind: str) -> list[dict]:
    toy = toys.load(kind)
    toy = replace(toy, decoder=HalfDecoder(toy.decoder))
    captions = toys.captions(JUDGES + PROMPTS, 77)
    judges, others = captions[:JUDGES], captions[JUDGES:]
    identity, indices = Coefficients.identity(len(toy.sigmas) - 1), range(JUDGES)
    full = toy.generator(judges)(identity, indices)
    prompts = {CAPTIONS: others, "an empty prompt": [""] * PROMPTS, "words at random": random_words()}
    observations = {name: toy.observed(texts) for name, texts in prompts.items()}
    rows = []
    for form in FORMATS:
        packed = {name: toy.quantized(form, observation=observation) for name, observation in observations.items()}
        packed[NEAREST] = toy.quantized(form)
        far = {
            name: distance(model.generator(judges)(identity, indices), full)[DISTANCE].double().numpy()
            for name, model in packed.items()
        }
        scores = {name: Evaluation(tuple(indices), {DISTANCE: values}) for name, values in far.items()}
        for name, values in far.items():
            change = paired_gain(scores[CAPTIONS], scores[name], DISTANCE, JUDGES, 0.95)
            rows.append(
                {
                    "format": form,
                    "observed": name,
                    "distance": round(float(values.mean()), 5),
                    "ratio": round(float(values.mean() / far[CAPTIONS].mean()), 3),
                    "farther": [round(value, 5) for value in (change.gain, change.low, change.high)],
                }
            )
            print(kind, rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.no_data", description=__doc__)
    parser.add_argument("kinds", nargs="*", default=toys.KINDS, help="flow, noise (default: both)")
    facts = {"prompts": PROMPTS, "words each": WORDS_EACH, "judged on": JUDGES}
    for kind in parser.parse_args().kinds:
        record("no_data", {**facts, "toys": earlier_of_demo("no_data", "toys") | {kind: rows_of(kind)}}, on_demo=True)


if __name__ == "__main__":
    main()
