"""Sentences that the page translates: each is one that the sources write, in as many languages as the page speaks."""

from __future__ import annotations

import json
import re

import pytest
import torch

import qsched_core as qs
from qsched_core import environment
from scripts.layout import ROOT

SOURCES = (
    "nodes/environment_check.py",
    "calibration/report.py",
    "nodes/presets.py",
    "nodes/quantize_model.py",
    "nodes/text_encoder.py",
    "nodes/quantization/twin_model.py",
    "qsched_core/quant/leftover.py",
    "nodes/calibrating/run.py",
    "qsched_core/environment.py",
    "qsched_core/quant/report.py",
)
LANGUAGES = 5
PLACE = re.compile(r"\{\d\}")


def read_sentences(name: str) -> list[list[str]]:
    text = (ROOT / "web" / "reports" / name).read_text("utf-8")
    table = text[text.index("const SENTENCES = ") : text.index("\n];")]
    rows = re.findall(r'\[\s*((?:"(?:[^"\\]|\\.)*",?\s*){2,})\]', table)
    return [[json.loads(item) for item in re.findall(r'"(?:[^"\\]|\\.)*"', row)] for row in rows]


def read_sources() -> str:
    """All of them, with texts that are written in several pieces joined."""
    text = "".join((ROOT / name).read_text("utf-8") for name in SOURCES)
    return re.sub(r'"\s*\n?\s*(\+ \()?f?"', "", text)


SENTENCES = read_sentences("sentences.js")
ERRORS = read_sentences("error_sentences.js")


def test_there_are_sentences():
    assert len(SENTENCES) > 25


def known(line: str) -> bool:
    """Whether the page would translate a line."""
    return any(re.fullmatch("(.+?)".join(map(re.escape, PLACE.split(row[0]))), line) for row in SENTENCES)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_environment_checks_first_line_is_known(count):
    text = environment.report([("a section", lambda: [environment.Line(environment.TO_DO, "x")] * count)])
    assert known(text.splitlines()[0])


def test_every_line_about_a_quantised_module_is_known_but_those_of_its_kernels():
    module = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.Conv2d(64, 64, 3), torch.nn.Linear(3, 3))
    lines = qs.quantize(module, include=("*",)).text().splitlines()
    assert len(lines) > 4
    kernels = re.compile(r"\d+ (Linear|convolution)|Not \w+: ")
    assert [line for line in lines if not known(line) and not kernels.match(line)] == []


@pytest.mark.parametrize("row", SENTENCES + ERRORS, ids=lambda row: row[0][:40])
def test_a_sentence_has_the_same_places_in_all_languages(row):
    assert len(row) == LANGUAGES
    assert [sorted(PLACE.findall(text)) for text in row] == [sorted(PLACE.findall(row[0]))] * LANGUAGES


@pytest.mark.parametrize("row", [row for row in SENTENCES if "Q-Sched {0}" not in row[0]], ids=lambda row: row[0][:40])
def test_a_sentence_is_one_that_the_sources_write(row):
    sources = read_sources()
    words = [part for piece in PLACE.split(row[0]) for part in re.split(r" \((?:not )?accepted\)\.", piece)]
    missing = [part for part in words if len(part) > 3 and part not in sources]
    assert missing == []


def raised() -> str:
    """All that the pack's Python says, with texts that are written in several pieces joined."""
    files = [path for room in ("nodes", "calibration", "qsched_core") for path in (ROOT / room).rglob("*.py")]
    return re.sub(r'"\s*\n?\s*f?"', "", "".join(path.read_text("utf-8") for path in sorted(files)))


def test_an_error_that_is_translated_is_one_that_is_raised():
    sources = raised()
    pieces = [piece.strip() for row in ERRORS for piece in PLACE.split(row[0])]
    known = {"nothing to quantise: outside the repeated blocks.", "nothing to quantise: not among the included."}
    known |= {"sampler", "keeps a copy of the latent, which c_x cannot reach.", "prompts, at least"}
    assert [piece for piece in pieces if len(piece) > 3 and piece not in known and piece not in sources] == []
    reasons = ("nothing to quantise: {why}.", "outside the repeated blocks", "not among the included")
    for part in (*reasons, "sampler {name} {reason}.", "keeps a copy of the latent, which c_x cannot reach"):
        assert part in sources
    assert "{len(search)} {what}, at least {FEWEST} are needed." in sources
