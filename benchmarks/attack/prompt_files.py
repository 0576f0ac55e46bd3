"""Prompt files that stall, lose or split: the largest of each kind by CPU time, and small ones damaged at random."""

from __future__ import annotations

import random
import time

from calibration.prompt_files import MAX_FILE_BYTES, parse_sets
from calibration.prompt_lines import MAX_VALUES
from qsched_core import QSchedError

from .hostile_prompts import HOSTILE
from .tally import Tally

DAMAGED = 20_000
MOST_SECONDS = 1.0
"""CPU time for the largest file allowed."""
GROWTH = 8
"""The largest is so many times as long as what it is compared with."""

SEEDS = {
    "a.txt": "# animals\n#1 cat\n#ff0000 dog\na hen\u2028in grass\n\n  a cow  \n",
    "a.csv": 'sep=;\r\n# x\r\nid;prompt;seed\r\n1;"a cat; sitting";7\r\n2;a dog;8\r\n;;\r\n3;;9\r\n',
    "b.csv": '"a cat, sitting"\na dog\n"a ""hen"""\n',
    "a.tsv": "id\tcaption\n1\ta cat\n2\ta dog\n",
    "a.yaml": "author: me\nprompts:\n- text: a cat\n  seed: 1:1\n- 'a dog: sitting'\n- |\n  a hen\nverdict: [a, b]\n",
    "a.json": '{"prompts": ["a cat", {"positive": "a \\u0064og", "n": 1.5}], "held_out": [{"text": "a hen"}], "x": 1}',
}
PIECES = (
    '"', "'", ",", ";", "\t", "|", "\n", "\r", "#", "- ", ": ", "[", "]", "{", "}", "&a ", "*a", "<<: *a", "!!int ",
    "? ", "1:1",
    "\\u", "\\ud83e", "null", "yes", "2024-99-99", "1e999", "\u2028", "\x85", "\x0b", "\0", "\ufeff", "sep=",
    "---\n", "%YAML 9\n",
)  # fmt: skip


def run() -> Tally:
    tally, draw = Tally(), random.Random(0)
    seconds, growth = {}, {}
    for case, (name, text) in HOSTILE.items():
        seconds[case] = _seconds(name, text(MAX_FILE_BYTES).encode()[:MAX_FILE_BYTES], tally)
        growth[case] = seconds[case] / max(1e-3, _seconds(name, text(MAX_FILE_BYTES // GROWTH).encode(), tally))
        if seconds[case] > MOST_SECONDS:
            tally.hurt(f"{case}: {seconds[case]:.2f} s")
    for _ in range(DAMAGED):
        name, seed = draw.choice([*SEEDS.items()])
        _read(name, _damaged(seed, draw), tally)
    slowest, steepest = max(seconds, key=seconds.get), max(growth, key=growth.get)
    tally.figures = {
        "largest file, slowest": {"kind": slowest, "seconds": round(seconds[slowest], 3)},
        f"{GROWTH} times the bytes, most times the seconds": {"kind": steepest, "ratio": round(growth[steepest], 2)},
    }
    return tally


def _damaged(seed: str, draw: random.Random) -> bytes:
    text = seed
    for _ in range(draw.choice((1, 2, 4))):
        place = draw.randrange(len(text) + 1)
        cut = draw.choice((0, 0, 1, 5, 30))
        text = text[:place] + draw.choice(PIECES) * draw.choice((1, 1, 1, 50)) + text[place + cut :]
    content = text.encode(draw.choice(("utf-8", "utf-8-sig", "utf-16")), "surrogatepass")
    return content[: draw.randrange(len(content) + 1)] if draw.random() < 0.1 else content


def _seconds(name: str, content: bytes, tally: Tally) -> float:
    start = time.process_time()
    _read(name, content, tally)
    return time.process_time() - start


def _read(name: str, content: bytes, tally: Tally) -> None:
    try:
        read = parse_sets(name, content)
    except QSchedError as error:
        first = str(error).splitlines()[0]
        tally.count("refused") if len(first) <= 90 else tally.hurt(f"a long sentence: {first}")
        return
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is no sentence for a person
        tally.hurt(f"{name}: {type(error).__name__}: {error}")
        return
    texts = [*read.texts, *read.verdict]
    if len(texts) > MAX_VALUES * 2 or any(text != " ".join(text.split()) or not text for text in texts):
        tally.hurt(f"{name}: a prompt that is no line of text, or too many")
    else:
        tally.count("read")
