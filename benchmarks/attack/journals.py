"""Journals harmed in one place: the same inputs must come to the same end, or the answer must name the file."""

from __future__ import annotations

import logging
import math
import random
import tempfile
from pathlib import Path

import numpy as np

from calibration import Result, Settings, calibrate
from calibration.cli.show import show_study
from qsched_core import CalibrationError, Coefficients

from .tally import Tally, memory_folder

N_PROMPTS, N_STEPS = 12, 4

BYTES = ("flip", "insert", "remove", "zero")
LINES = ("lose", "double", "swap", "cut", "shuffle", "glue")
KINDS = BYTES + LINES

ATTACKS = 1000
"""Two studies each, 0.2 s of one core."""

SAME, NAMING_ERROR = "the same end", "refused, names the file"
RIGHT = (SAME, NAMING_ERROR)


def mutant(content: bytes, kind: str, draw: random.Random) -> bytes:
    """A journal that was harmed in one place."""
    place = draw.randrange(len(content))
    if kind == "cut":
        return content[:place] + bytes(draw.choice([0, 100, 4096]))
    if kind in BYTES:
        length = draw.choice([1, 16, 512])
        changed = bytes([content[place] ^ (1 << draw.randrange(8))])
        middle = {
            "flip": changed,
            "insert": content[place : place + 1] + draw.randbytes(length),
            "remove": b"",
            "zero": bytes(length),
        }[kind]
        return content[:place] + middle + content[place + (length if kind == "zero" else 1) :]
    lines = content.splitlines(keepends=True)
    one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    if kind == "lose":
        del lines[one]
    elif kind == "double":
        lines.insert(other, lines[one])
    elif kind == "swap":
        lines[one], lines[other] = lines[other], lines[one]
    elif kind == "shuffle":
        draw.shuffle(lines)
    elif kind == "glue":
        lines[one] = lines[one].rstrip(b"\n")
    return b"".join(lines)


def study(journal: Path | None, **changed) -> Result:
    """A study in a world of formulas: a picture is (coefficients, index), best at c_x = 0.95, c_eps = 1.1."""

    def generate(coefficients: Coefficients, indices) -> list:
        return [(coefficients, index) for index in indices]

    options = {"space": "last step", "trials": 6, "seeds": 2, "strategy": "random", **changed}
    return calibrate(generate, score, N_PROMPTS, N_STEPS, Settings(**options), journal=journal)


def score(pictures, indices) -> dict[str, np.ndarray]:
    def value(coefficients: Coefficients, index: int) -> float:
        c_x, c_eps = coefficients.at(N_STEPS - 1)
        hill = -40 * ((c_x - 0.95) ** 2 + (c_eps - 1.1) ** 2)
        return math.sin(12.9898 * index + 1.0) + hill * (1 + 0.3 * math.cos(index % N_PROMPTS))

    values = np.array([value(*picture) for picture in pictures])
    return {"tc": values / 2, "iq": values / 4}


def figures(result: Result) -> tuple:
    return result.trace, result.coefficients, result.gain, result.jaq, result.nfe, result.accepted


def run(attacks: int = ATTACKS, seed: int = 0) -> Tally:
    tally, draw = Tally(), random.Random(seed)
    logging.getLogger().setLevel(logging.ERROR)  # every repair is told to the user
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        calm = {race: Path(folder, f"calm {race}.jsonl") for race in (False, True)}
        outcomes = {race: figures(study(journal, race=race)) for race, journal in calm.items()}
        for number in range(attacks):
            race = draw.random() < 0.5
            journal = Path(folder, f"{number}.jsonl")
            kind = KINDS[number % len(KINDS)]
            journal.write_bytes(mutant(calm[race].read_bytes(), kind, draw))
            outcome = _outcome(journal, race, outcomes[race])
            tally.count(outcome) if outcome in RIGHT else tally.hurt(f"{kind}, journal {number}: {outcome}")
            for left in Path(folder).glob(f"{number}.jsonl*"):
                left.unlink()
    return tally


def _outcome(journal: Path, race: bool, expected: tuple) -> str:
    try:
        show_study(str(journal))
    except CalibrationError:
        pass
    except Exception as error:  # noqa: BLE001 - counted, whatever it is
        return f"raw error: {type(error).__name__} in show"
    try:
        result = figures(study(journal, race=race))
    except CalibrationError as error:
        return NAMING_ERROR if str(journal) in str(error) else "refused, and does not name the file"
    except Exception as error:  # noqa: BLE001 - counted, whatever it is
        return f"raw error: {type(error).__name__}"
    return SAME if result == expected else "another result"
