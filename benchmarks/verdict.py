"""How often the verdict is wrong where the truth is known: ``python -m benchmarks.verdict``.

Worlds of formulas, in which every study is run whole: 12 candidates searched, the best of them judged on held-out
prompts, on the quantised model and on the reference. Prompts differ more than candidates do, gains differ from prompt
to prompt, and noises have heavy tails, as on the toys. An error is a repair that is none: no gain, a gain that the
reference has as well, or a score that is gamed.

The interval is Student's t over prompts. What a bootstrap would have said of the same differences stands beside it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence

import numpy as np

import qsched_core as qs
from calibration import Result, Settings, calibrate
from calibration.validate import ANSWERS

from .record import record

STUDIES = 300
PROMPTS = (8, 12, 24, 60)
"""60 leave 48 held-out prompts, as the usual calibration has."""
STEPS = 4
SETTINGS = {"space": "last step", "radius": 0.2, "strategy": "random", "race": False, "trials": 12, "seeds": 2}
MOST_ERRORS = 0.05

Scores = Callable[[qs.Coefficients, int, np.random.Generator, bool], dict[str, float]]
"""(coefficients, index, noise, whether it is the reference model) -> scores of a picture."""


def pushed(coefficients: qs.Coefficients) -> float:
    return coefficients.c_eps[-1] - 1


WATCHED = 9
"""Metrics that nobody optimises, as many as the demo's judges give."""

APART = 10_007
"""Multiples of the prompts between the indices of two studies."""


def prompt(index: int, n_prompts: int) -> np.random.Generator:
    """What a prompt brings of itself; every study has prompts of its own."""
    return np.random.default_rng((index // (APART * n_prompts), index % n_prompts))


def nothing(n_prompts: int) -> Scores:
    """Identical models: the coefficients change the noise of every picture and nothing else."""
    return lambda c, index, draw, on_reference: {
        "jaq": prompt(index, n_prompts).normal(0, 0.3) + 0.05 * draw.standard_t(4)
    }


def real(size: float, on_both: bool = False) -> Callable[[int], Scores]:
    """A gain of ``size`` on average at the top, which lies on the edge of the trust region; half as much again or none
    on single prompts. ``on_both``: the reference gains as much, so it is re-tuning."""

    def world(n_prompts: int) -> Scores:
        def score(c: qs.Coefficients, index: int, draw: np.random.Generator, on_reference: bool) -> dict[str, float]:
            own = prompt(index, n_prompts)
            level, share = own.normal(0, 0.3), own.normal(1, 0.5) * (on_both or not on_reference)
            return {"jaq": level + share * size * pushed(c) / 0.2 + 0.05 * draw.standard_t(4)}

        return score

    return world


def watched(n_prompts: int) -> Scores:
    """The gain of 0.2, and ``WATCHED`` metrics that change by chance alone: none of them may refuse it."""
    gained = real(0.2)(n_prompts)

    def score(c: qs.Coefficients, index: int, draw: np.random.Generator, on_reference: bool) -> dict[str, float]:
        others = {f"metric {number}": 0.05 * draw.standard_t(4) for number in range(WATCHED)}
        return {**gained(c, index, draw, on_reference), **others}

    return score


def overfitted(n_prompts: int) -> Scores:
    """What helps one prompt hurts another: no gain on average, and the search finds what helps its own."""

    def score(c: qs.Coefficients, index: int, draw: np.random.Generator, on_reference: bool) -> dict[str, float]:
        own = prompt(index, n_prompts)
        level, taste = own.normal(0, 0.3), own.normal(0, 0.5) * (not on_reference)
        return {"jaq": level + taste * pushed(c) + 0.02 * draw.standard_t(4)}

    return score


def gamed(n_prompts: int) -> Scores:
    """The score loves contrast and the pictures only get harsher."""

    def score(c: qs.Coefficients, index: int, draw: np.random.Generator, on_reference: bool) -> dict[str, float]:
        own = prompt(index, n_prompts)
        level = own.normal(0, 0.3)
        return {
            # Only the quantised model's score is fooled: the hardest case, the control sees nothing.
            "jaq": level + 0.5 * pushed(c) * (not on_reference) + 0.02 * draw.standard_t(4),
            "contrast": 0.2 * (1 + 0.4 * pushed(c)) + 0.002 * draw.standard_normal(),
        }

    return score


def study(world: Callable[[int], Scores], n_prompts: int, seed: int) -> Result:
    """One calibration of one world; another seed has other prompts and other noises."""
    scores = world(n_prompts)

    def rows(pictures: Sequence[tuple[qs.Coefficients, int, bool]]) -> list[dict[str, float]]:
        return [
            scores(
                c, index + APART * n_prompts * seed, np.random.default_rng(_key(seed, c, index, on_reference)),
                on_reference,
            )
            for c, index, on_reference in pictures
        ]  # fmt: skip

    def generate(on_reference: bool):
        return lambda c, indices: [(c, index, on_reference) for index in indices]

    def score(pictures, indices):
        jaq = np.array([row["jaq"] for row in rows(pictures)])
        return {"tc": jaq, "iq": np.zeros(len(jaq))}

    def judge(pictures, indices):
        metrics = rows(pictures)
        return {name: np.array([row[name] for row in metrics]) for name in metrics[0] if name != "jaq"}

    settings = Settings(**SETTINGS, seed=seed)
    return calibrate(
        generate(False), score, n_prompts, STEPS, settings, judge=judge, reference=generate(True)
    )  # fmt: skip


def _key(seed: int, coefficients: qs.Coefficients, index: int, on_reference: bool) -> list[int]:
    places = [round(1e6 * value) for value in (coefficients.c_x[-1], coefficients.c_eps[-1])]
    return [seed, index, *places, int(on_reference)]


def answers(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """How often each answer was given."""
    return {name: rate(sum(r.answer == name for r in results), len(results)) for name in ANSWERS}


def differences(result: Result, n_prompts: int) -> np.ndarray:
    """(prompts,): what the interval is computed from."""
    indices = np.asarray(result.identity.indices) % n_prompts
    change = result.candidate.scores["jaq"] - result.identity.scores["jaq"]
    return np.array([change[indices == place].mean() for place in np.unique(indices)])


def bootstrap(values: np.ndarray, method: str) -> bool:
    """Whether scipy's bootstrap interval lies above zero."""
    from scipy.stats import bootstrap as resample

    if np.ptp(values) == 0:
        return False
    with np.errstate(all="ignore"):
        low = resample(
            (values,), np.mean, method=method, n_resamples=999, random_state=np.random.default_rng(0)
        ).confidence_interval.low  # fmt: skip
    return bool(low > 0)


def rate(hits: int, of: int) -> dict[str, float]:
    """A share with its 95 % Wilson interval."""
    share, z = hits / of, 1.96
    middle = (share + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z * math.sqrt(share * (1 - share) / of + z**2 / (4 * of**2)) / (1 + z**2 / of)
    return {"rate": round(share, 4), "low": round(max(0.0, middle - half), 4), "high": round(middle + half, 4)}


def main() -> None:
    table: dict = {
        "studies_each": STUDIES,
        "promised": MOST_ERRORS,
        "watched": WATCHED,
        "settings": SETTINGS,
        "prompts": {},
    }
    for n_prompts in PROMPTS:
        line: dict = {}
        for name, world in (("identical models", nothing), ("overfitted", overfitted)):
            results = [study(world, n_prompts, seed) for seed in range(STUDIES)]
            searched = [r for r in results if not r.coefficients.is_identity]
            changes = [differences(r, n_prompts) for r in searched]
            line[name] = {
                "looked good on the search prompts": rate(len(searched), STUDIES),
                "false accept": rate(sum(r.accepted for r in results), STUDIES),
                "false accept, percentile bootstrap": rate(sum(bootstrap(c, "percentile") for c in changes), STUDIES),
                "false accept, BCa bootstrap": rate(sum(bootstrap(c, "BCa") for c in changes), STUDIES),
                "mean optimism of the search": round(float(np.mean([r.optimism for r in searched])), 4),
            }
        for size in (0.05, 0.1, 0.2):
            results = [study(real(size), n_prompts, seed) for seed in range(STUDIES)]
            retuned = [study(real(size, on_both=True), n_prompts, seed) for seed in range(STUDIES)]
            truth = [size * pushed(r.coefficients) / 0.2 for r in results]
            line[f"real gain of {size}"] = {
                "accepted": rate(sum(r.accepted for r in results), STUDIES),
                "answers": answers(results),
                "answers where the reference gains as much": answers(retuned),
                "interval holds the truth": rate(
                    sum(r.gain.low <= true <= r.gain.high for r, true in zip(results, truth, strict=True)), STUDIES
                ),
            }
        results = [study(watched, n_prompts, seed) for seed in range(STUDIES)]
        gaining = [r for r in results if r.gain.low > 0]
        line["a real gain, watched"] = {
            "answers": answers(results),
            "refused for a drift, of those that gain": rate(sum(bool(r.drifts) for r in gaining), len(gaining)),
        }
        results = [study(gamed, n_prompts, seed) for seed in range(STUDIES)]
        line["gamed score"] = {
            "accepted": rate(sum(r.accepted for r in results), STUDIES),
        }
        table["prompts"][n_prompts] = line
        print(n_prompts, line, file=sys.stderr, flush=True)
    record("verdict", table)


if __name__ == "__main__":
    main()
