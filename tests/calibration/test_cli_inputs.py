"""The command line's words: each setting has its argument, and what is missing is named before hours are spent."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from study_world import World, quick

from calibration import Settings
from calibration.cli import console
from calibration.cli.inputs import load_pipeline, reference_name, settings_of
from calibration.cli.main import main, parser
from calibration.cli.show import show_study
from qsched_core import CalibrationError

NEEDS = {"--prompts": "a.txt", "--metric": "clip", "--steps": "4", "--output": "a.safetensors"}

OPTIONS = {
    "space": ("--space", "constant"),
    "radius": ("--radius", 0.15),
    "trials": ("--trials", 7),
    "k": ("--k", 1.5),
    "holdout": ("--holdout", 0.25),
    "seeds": ("--noises", 3),
    "confidence": ("--confidence", 0.9),
    "seed": ("--seed", 11),
    "strategy": ("--strategy", "random"),
    "race": ("--no-race", False),
    "grid": ("--grid", 5),
    "pictures": ("--pictures", 99),
    "minutes": ("--minutes", 2.5),
    "normalised": ("--normalised", True),
    "accept": ("--accept", "re-tuning"),
}


def words(needs: dict[str, str] = NEEDS, *more: object) -> list[str]:
    return ["run", "pipeline", *(word for pair in needs.items() for word in pair), *map(str, more)]


def test_every_setting_has_its_argument():
    assert set(OPTIONS) == {item.name for item in fields(Settings)}
    assert settings_of(parser().parse_args(words())) == Settings()
    for name, (option, value) in OPTIONS.items():
        more = (option,) if isinstance(value, bool) else (option, value)
        settings = settings_of(parser().parse_args(words(NEEDS, *more)))
        assert settings == replace(Settings(), **{name: value}) != Settings()


def test_what_is_not_said_is_as_the_help_says():
    """Of the pictures and files: those of the search and the verdict are the library's own, as above."""
    args = vars(parser().parse_args(words()))
    others = {name: value for name, value in args.items() if name not in {item.name for item in fields(Settings)}}
    assert callable(others.pop("run")) and others.pop("device")  # the machine's
    assert others == {
        "model": Path("pipeline"),
        "prompts": Path("a.txt"),
        "metric": "clip",
        "steps": 4,
        "output": Path("a.safetensors"),
        "format": "w4a8",
        "guidance": 1.0,
        "negative": "",
        "scheduler": "",
        "size": None,
        "batch": 4,
        "reference": None,
        "stay_near": True,
        "verdict_prompts": None,
        "study": None,
        "metrics": Path("models/qsched_metrics"),
        "plots": None,
    }


@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_gpu_is_used_where_there_is_one(monkeypatch, has_gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert parser().parse_args(words()).device == ("cuda" if has_gpu else "cpu")


def test_a_search_stays_near_the_reference_unless_it_is_set_free():
    assert [parser().parse_args(words(NEEDS, *more)).stay_near for more in ((), ("--free",))] == [True, False]


@pytest.mark.parametrize("name", NEEDS)
def test_what_is_needed_and_missing_is_named(name, capsys):
    with pytest.raises(SystemExit):
        main(words({other: value for other, value in NEEDS.items() if other != name}))
    assert f"the following arguments are required: {name}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--steps", "0", "'0' is not a number of at least 1"),
        ("--batch", "-1", "'-1' is not a number of at least 1"),
        ("--batch", "two", "'two' is not a number of at least 1"),
        ("--size", "512", "'512' is not WIDTHxHEIGHT"),
        ("--size", "x512", "'x512' is not WIDTHxHEIGHT"),
    ],
)
def test_numbers_that_are_none_are_refused(option, value, text, capsys):
    with pytest.raises(SystemExit):
        main(words(NEEDS, f"{option}={value}"))
    assert text in capsys.readouterr().err


def test_a_size_is_width_by_height_and_a_count_at_least_one():
    args = parser().parse_args(words(NEEDS, "--size", "640X384", "--batch", "1"))
    assert (args.size, args.batch, args.steps) == ((640, 384), 1, 4)


@pytest.mark.parametrize(
    ("form", "reference", "expected"),
    [
        ("w4a8", None, "w8a8"),
        ("none", None, "none"),
        ("w4a8", "full", "full"),
        ("w4a8", "none", "none"),
        ("w4a8", "w8a16", "w8a16"),
        ("w8a8", "w8a16", "w8a16"),
        ("none", "w8a8", "w8a8"),
    ],
)
def test_the_reference_is_the_8_bit_form_of_what_is_quantised(form, reference, expected):
    assert reference_name(Namespace(format=form, reference=reference)) == expected


def test_a_model_of_8_bits_needs_another_reference(refused):
    with refused(CalibrationError, "the reference is the model itself."):
        reference_name(Namespace(format="w8a8", reference=None))


def progress(done: int, phase: str = "search", trial: object = None) -> SimpleNamespace:
    return SimpleNamespace(phase=phase, done=done, total=300, best_jaq=0.6, identity_jaq=0.55, trial=trial)


def test_a_line_of_progress_says_what_is_left_once_that_can_be_known(monkeypatch, capsys):
    """Of a study that goes on: what was there before took no time now."""
    clock = iter([1000.0, 1010.0, 1020.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    watch = console.Watch()
    for step in (progress(100), progress(110, trial=object()), progress(120, "verdict")):
        watch(step)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "search: 100 of about 300 pictures, best JAQ 0.6000 (+0.0500), time left unknown"
    assert lines[1].endswith("about 3 min 10 s left")  # 10 pictures in 10 s, 190 to go
    assert lines[2].startswith("verdict: 120 of") and lines[2].endswith("about 3 min 00 s left")


def test_pictures_between_two_trials_print_nothing(capsys):
    watch = console.Watch()
    watch(progress(0))
    watch(progress(5))
    assert len(capsys.readouterr().out.splitlines()) == 1 and watch.last.done == 5


# --- a pipeline's folder


@pytest.mark.parametrize(
    ("parts", "device", "dtype"),
    [
        ('{"unet": []}', "cpu", None),
        ('{"transformer": []}', "cpu", None),
        ('{"unet": []}', "cuda", torch.float16),
        ('{"transformer": []}', "cuda", torch.bfloat16),
    ],
)
def test_a_pipeline_is_read_from_its_folder_alone_in_half_precision_for_a_gpu(
    tmp_path, monkeypatch, parts, device, dtype
):
    (tmp_path / "model_index.json").write_text(parts)
    calls, bars = [], []
    pipe = SimpleNamespace(set_progress_bar_config=lambda **options: bars.append(options))
    kind = SimpleNamespace(from_pretrained=lambda *args, **options: calls.append((args, options)) or pipe)
    monkeypatch.setitem(sys.modules, "diffusers", SimpleNamespace(DiffusionPipeline=kind))
    assert load_pipeline(tmp_path, device) is pipe
    options = {"local_files_only": True, **({"torch_dtype": dtype} if dtype else {})}
    assert (calls, bars) == ([((tmp_path,), options)], [{"disable": True}])


# --- what show prints


def test_a_study_s_table_has_its_columns_under_their_names(tmp_path):
    start = time.monotonic()
    result = World().calibrate(quick(trials=3), journal=tmp_path / "a.jsonl")
    seconds = time.monotonic() - start
    lines = show_study(str(tmp_path / "a.jsonl")).splitlines()
    (heading,) = (number for number, line in enumerate(lines) if line.split()[:1] == ["trial"])
    names = lines[heading].split()
    assert names == ["trial", "JAQ", "pictures", "seconds", "worker", "point"]
    ends = {name: lines[heading].index(name) + len(name) for name in names}
    best = max(result.finished, key=lambda trial: trial.value)
    for number, (line, trial) in enumerate(zip(lines[heading + 1 :], result.finished, strict=True)):
        cells = {name: line[:end].split()[-1] for name, end in ends.items()}
        assert (cells["trial"], cells["worker"], cells["pictures"]) == (str(number), "1", str(trial.pictures))
        assert cells["JAQ"] == f"{trial.value:.4f}" and 0 <= float(cells["seconds"]) <= seconds + 0.05
        point = "  ".join(f"{name} {value:.3f}" for name, value in trial.point.items())
        assert line[lines[heading].index("point") :] == point + "  <- best" * (trial is best)


def test_a_journal_that_is_not_there_or_holds_nothing_is_named(tmp_path, refused):
    with refused(CalibrationError, "there is no journal 'none.jsonl'.", "check the path"):
        show_study(str(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").touch()
    with refused(CalibrationError, "the storage holds no study.", "check the path"):
        show_study(str(tmp_path / "empty.jsonl"))
