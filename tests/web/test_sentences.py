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
    "calibration/report.py",
    "nodes/presets.py",
    "nodes/quantize_model.py",
    "nodes/run.py",
    "qsched_core/environment.py",
    "qsched_core/quant/report.py",
)
LANGUAGES = 5
PLACE = re.compile(r"\{\d\}")


def read_sentences() -> list[list[str]]:
    text = (ROOT / "web" / "sentences.js").read_text("utf-8")
    table = text[text.index("const SENTENCES = ") : text.index("\n];")]
    rows = re.findall(r'\[\s*((?:"(?:[^"\\]|\\.)*",?\s*){2,})\]', table)
    return [[json.loads(item) for item in re.findall(r'"(?:[^"\\]|\\.)*"', row)] for row in rows]


def read_sources() -> str:
    """All of them, with texts that are written in several pieces joined."""
    text = "".join((ROOT / name).read_text("utf-8") for name in SOURCES)
    return re.sub(r'"\s*\n?\s*(\+ \()?f?"', "", text)


SENTENCES = read_sentences()


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


@pytest.mark.parametrize("row", SENTENCES, ids=lambda row: row[0][:40])
def test_a_sentence_has_the_same_places_in_all_languages(row):
    assert len(row) == LANGUAGES
    assert [sorted(PLACE.findall(text)) for text in row] == [sorted(PLACE.findall(row[0]))] * LANGUAGES


@pytest.mark.parametrize("row", [row for row in SENTENCES if "Q-Sched {0}" not in row[0]], ids=lambda row: row[0][:40])
def test_a_sentence_is_one_that_the_sources_write(row):
    sources = read_sources()
    words = [part for piece in PLACE.split(row[0]) for part in re.split(r" \((?:not )?accepted\)\.", piece)]
    missing = [part for part in words if len(part) > 3 and part not in sources]
    assert missing == []
