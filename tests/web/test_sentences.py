"""All that the pack says on a page is in every language: read from the source, and from what it really says."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch
from module_files import module_at

import qsched_core as qs
from calibration.report import verdict
from calibration.votes import Votes
from qsched_core import environment
from qsched_core.quant import TorchBackend
from scripts.layout import ROOT
from scripts.sentences import (
    LANGUAGES,
    STAYS_ENGLISH,
    catalogue,
    lines,
    sources,
    unused,
)
from scripts.source_texts import PLACE, page_files

FROM_THE_COMMAND_LINE = {
    "cli", "main", "inputs", "console", "arguments", "show", "pipelines", "diffusers", "training", "drawings",
}  # fmt: skip
"""Files and folders whose errors no page shows: nothing that the host loads imports them."""

ALL = pytest.mark.parametrize("language", LANGUAGES)


def test_what_stays_in_english_is_still_said():
    assert set().union(*STAYS_ENGLISH.values()) - {line.text for line in lines()} == set()


@ALL
def test_no_sentence_is_kept_that_nobody_says(language):
    assert unused(language) == []


def test_errors_that_stay_in_english_are_those_that_the_host_cannot_raise():
    rooms = [path for room in ("nodes", "calibration", "qsched_core", "demo") for path in (ROOT / room).rglob("*.py")]
    apart = set(rooms) - set(page_files())
    raising = {path for path in apart if re.search(r"raise \w*Error\(\s*f?\"", path.read_text("utf-8"))}
    assert [path for path in raising if not FROM_THE_COMMAND_LINE & {path.stem, path.parent.name}] == []
    assert len(sources().modules) > 100


@ALL
def test_a_sentence_has_the_same_places_in_all_languages(language):
    assert {name: set(section) for name, section in catalogue(language).items()} == {
        name: set(section) for name, section in catalogue("zh").items()
    }
    for english, text in (item for section in catalogue(language).values() for item in section.items()):
        assert PLACE.findall(english) == [str(n) for n in range(len(PLACE.findall(english)))], english
        assert sorted(PLACE.findall(text)) == sorted(PLACE.findall(english)), english
        assert text.strip(), english
        # Two places without a text between them could be divided anywhere.
        assert not re.search(r"\}\{", english), english


@ALL
def test_a_sentence_ends_as_the_english_one_does(language):
    for english, text in catalogue(language)["sentences"].items():
        assert english.endswith(".") == text.endswith((".", "\u3002"))  # the Chinese and Japanese one, english


# --- what is really said


@cache
def _patterns(section: str) -> list[tuple[re.Pattern, str]]:
    keys = sorted(catalogue("zh")[section], key=lambda key: -len(PLACE.sub("", key)) - 2 * (": " in key))
    pieces = (map(re.escape, PLACE.split(key)[::2]) for key in keys)
    return [(re.compile("(.+?)".join(parts), re.DOTALL), key) for parts, key in zip(pieces, keys, strict=True)]


def _translation(text: str, section: str, depth: int = 0) -> str | None:
    """As web/shared/sentences.js does it, in Chinese, where an English word that is left is seen."""
    for pattern, key in _patterns(section):
        if match := pattern.fullmatch(text):
            return PLACE.sub(lambda place: _part(match[int(place[1]) + 1], depth + 1), catalogue("zh")[section][key])
    return None


def _part(text: str, depth: int = 0) -> str:
    if depth > 5:
        return text
    translation = None if "; " in text else _translation(text, "phrases", depth)
    mark = next((mark for mark in ("; ", ", ") if mark in text), None)
    if translation is None and mark is not None:
        return mark.join(_part(part, depth + 1) for part in text.split(mark))
    return text if translation is None else translation


def left_in_english(line: str) -> list[str]:
    """The words of a line that stay as they are."""
    text = re.sub(r"^(?:OK|TO DO|OPTIONAL) {2,}", "", line)
    name, _, purpose = text.partition(": ")
    translation = _translation(text, "sentences") or f"{name}: {_translation(purpose, 'phrases') or purpose}"
    foreign = r'"[^"]*"(?: -m pip install [\w-]+)?|[(\uff08].*?[)\uff09]'  # commands, and others' words
    words = re.findall(r"(?<![\w/.:-])[a-z]{4,}(?![A-Za-z0-9_/.:-])", re.sub(foreign, "", translation), re.ASCII)
    return [word for word in words if word not in NAMES]


NAMES = {"install", "torch", "optuna", "kitchen", "eager", "triton", "cuda", "quanto", "contrast", "pyiqa", "psutil",
         "psycopg", "diffusers", "safetensors"}  # fmt: skip
"""Of packages, kernels and measures."""


def test_every_line_of_a_verdict_is_known():
    report_cases = module_at(ROOT / "tests" / "calibration" / "test_report.py")
    more = tuple(report_cases.trial(1.0 + n / 100, 1.0, whole=False) for n in range(3))
    cases = [
        report_cases.result(),
        report_cases.result(
            finished=(report_cases.trial(1.0, float("-inf")), *more, report_cases.held_back(1.2, float("-inf"))),
            failed=2,
        ),
        report_cases.result(
            drifts=("contrast",),
            gains=report_cases.with_gains(contrast=report_cases.gain(0.1)),
            on_border=tuple("abcdef"),
            optimism=0.2,
            guarded=("tc",),
        ),
        report_cases.result(
            gains=report_cases.with_gains(
                **{"distance to full": report_cases.gain(-0.01), "iq": report_cases.gain(-0.1)}
            )
        ),
        report_cases.result(answer="re-tuning", accepted=True, on_reference=None),
        report_cases.result(answer="re-tuning", accepted=False, objective=report_cases.Objective(2.0, 0.1, 0.2)),
        report_cases.refused(gains=report_cases.with_gains(jaq=report_cases.gain(0.0))),
        report_cases.refused(gains=report_cases.with_gains(jaq=report_cases.gain(-1.0))),
        report_cases.refused(coefficients=report_cases.IDENTITY),
    ]
    lines = {line for case in cases for line in verdict(case)}
    assert {line: left_in_english(line) for line in lines if left_in_english(line)} == {}


def test_every_line_about_a_quantized_module_is_known():
    module = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.Conv2d(64, 64, 3), torch.nn.Linear(3, 3))
    lines = qs.quantize(module, include=("*",), last_steps=1).text().splitlines()
    assert len(lines) > 4
    assert {line: left_in_english(line) for line in lines if left_in_english(line)} == {}


@pytest.mark.parametrize("votes", [(0, 0, 2), (3, 1, 0), (30, 1, 1), (1, 30, 0), (16, 15, 3)])
def test_every_outcome_of_a_vote_is_known(votes):
    assert left_in_english(str(Votes(*votes))) == []


def test_every_line_of_the_environment_check_is_known(tmp_path):
    def unknown(name: str) -> str:
        raise environment.metadata.PackageNotFoundError(name)

    (tmp_path / "file").write_text("no folder", "utf-8")
    sections = [
        ("Python and torch", environment.versions),
        ("packages", environment.packages),
        ("packages", lambda: environment.packages(version_of=unknown)),
        ("backend torch", lambda: environment.quantizer(TorchBackend(), torch.device("cpu"))),
        ("comfy-kitchen", environment.kitchen),
        ("folders", lambda: [environment.folder("presets", tmp_path), environment.folder("metrics", tmp_path / "new")]),
        ("folders", lambda: [environment.folder("quantised models", tmp_path / "file" / "below")]),
        ("studies", lambda: [environment.storage(None, "WHERE"), environment.storage("x", "WHERE")]),
        ("studies", lambda: [environment.storage("postgresql://me:secret@host/name", "WHERE")]),
    ]
    for count in (0, 1, 2):
        groups = [("a section", lambda count=count: [environment.Line(environment.TO_DO, "x")] * count)]
        assert left_in_english(environment.report(groups).splitlines()[0]) == []
    lines = environment.report(sections).replace(str(tmp_path), "/there").splitlines()[1:]
    assert len(lines) > 15
    assert {line: left_in_english(line) for line in lines if left_in_english(line)} == {}
