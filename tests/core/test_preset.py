"""The preset file: what is written, that it comes back, and that writing never damages what was there."""

from __future__ import annotations

import json
import math
import os
import random
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import qsched_core as qs
from qsched_core import Binding, Coefficients, Preset, PresetError, load_preset, save_preset
from qsched_core import preset as preset_module
from qsched_core.preset import VERDICTS

SIGMAS = (14.6146, 6.3, 2.9, 1.1, 0.0)
FULL = Preset(
    Coefficients((1.012, 0.997, 0.982, 0.967), (0.955, 1.003, 1.051, 1.099)),
    SIGMAS,
    Binding("SDXL", "0123456789abcdef", "EPS", "w4a8/g32", "euler_ancestral", "sgm_uniform", 1.0),
    "accepted",
    {"gain": {"low": 0.01, "high": 0.03}, "prompts": 24, "verdict": ["Q-Sched helps \u2713"], "control": None},
    {"modelspec.title": "Turbo, W4A8", "author": "Änne"},
)
PICTURE = "data:image/png;base64,"
SMALL = Preset(Coefficients((1.0, 0.5), (2.0, 1.0)), (1.0, 0.25, 0.0))

# Format 1, for good: files that people have shared must load, and the same preset must hash the same everywhere.
SMALL_HEADER = (
    b'{"__metadata__":{"format":"qsched-preset","version":"1","verdict":"made by hand",'
    b'"binding":"{\\"cfg\\": 0.0, \\"fingerprint\\": \\"\\", \\"model\\": \\"\\", \\"prediction\\": \\"\\", '
    b'\\"quantization\\": \\"\\", \\"sampler\\": \\"\\", \\"scheduler\\": \\"\\"}","record":"{}"},'
    b'"c_x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    b'"c_eps":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},'
    b'"sigmas":{"dtype":"F32","shape":[3],"data_offsets":[16,28]}}  '
)
SMALL_FILE = (
    bytes.fromhex("a801000000000000")  # 424, the header's length
    + SMALL_HEADER
    + bytes.fromhex("0000803f 0000003f")  # c_x 1, 0.5
    + bytes.fromhex("00000040 0000803f")  # c_eps 2, 1
    + bytes.fromhex("0000803f 0000803e 00000000")  # sigmas 1, 0.25, 0
)


# --- round trip


@pytest.mark.parametrize("preset", [FULL, SMALL], ids=["full", "small"])
def test_what_is_saved_comes_back(tmp_path, preset):
    save_preset(preset, tmp_path / "a.safetensors")
    assert load_preset(tmp_path / "a.safetensors") == preset


def test_paths_may_be_texts_and_folders_are_made(tmp_path):
    path = os.path.join(tmp_path, "new", "folder", "a.safetensors")
    save_preset(SMALL, path)
    assert load_preset(path) == SMALL


def test_random_presets_come_back_to_seven_digits(tmp_path):
    """The file holds float32; numbers of up to 7 digits come back as they were written."""
    draw = random.Random(0)
    for steps in (1, 2, 7, 1000):
        coefficients = Coefficients(*([round(draw.uniform(0.6, 1.6), 6) for _ in range(steps)] for _ in range(2)))
        sigmas = [*sorted((round(draw.uniform(0.01, 15), 5) for _ in range(steps)), reverse=True), 0.0]
        if len(set(sigmas)) < len(sigmas):
            sigmas = [float(steps - i) for i in range(steps + 1)]
        preset = Preset(coefficients, tuple(sigmas))
        save_preset(preset, tmp_path / "a.safetensors")
        assert load_preset(tmp_path / "a.safetensors") == preset


def test_more_digits_than_float32_holds_are_rounded_once_and_then_stay(tmp_path):
    path = tmp_path / "a.safetensors"
    save_preset(Preset(Coefficients((math.pi / 3,), (math.e / 2,)), (14.614641, 0.0)), path)
    once = load_preset(path)
    # 1e-6: seven digits of numbers below 10.
    assert once.coefficients.at(0) == pytest.approx((math.pi / 3, math.e / 2), rel=1e-6)
    save_preset(once, path)
    assert load_preset(path) == once


def test_floats_come_back_bit_for_bit(tmp_path):
    """Regression: seven digits were kept, of the nine that a float32 needs."""
    draw = np.random.default_rng(0)
    for first in (0.1, 0.99, 1.0, 5.0, 9.0):
        spread = np.float32(first) * np.exp2(draw.uniform(-3, 3, 1000)).astype(np.float32)
        values = tuple(float(value) for value in spread.clip(0.1, 10))
        sigmas = (*sorted({float(value) for value in spread}, reverse=True), 0.0)
        values = values[: len(sigmas) - 1]
        saved = Preset(Coefficients(values, values[::-1]), sigmas)
        save_preset(saved, tmp_path / "a.safetensors")
        loaded = load_preset(tmp_path / "a.safetensors")
        for ours, theirs in (
            (saved.coefficients.c_x, loaded.coefficients.c_x),
            (saved.coefficients.c_eps, loaded.coefficients.c_eps),
            (saved.sigmas, loaded.sigmas),
        ):
            assert np.float32(ours).tobytes() == np.float32(theirs).tobytes()
        assert qs.encode_preset(loaded) == (tmp_path / "a.safetensors").read_bytes()


def test_neighbours_in_float32_stay_two_sigmas(tmp_path):
    """Regression: seven digits made one number of them, and the file did not load."""
    high = np.float32(14.6146)
    sigmas = (float(high), float(np.nextafter(high, np.float32(0))), 0.0)
    save_preset(Preset(Coefficients.identity(2), sigmas), tmp_path / "a.safetensors")
    assert np.float32(load_preset(tmp_path / "a.safetensors").sigmas).tobytes() == np.float32(sigmas).tobytes()


# --- the bytes


def test_the_bytes_of_a_small_file_never_change(tmp_path):
    save_preset(SMALL, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == SMALL_FILE


def test_a_file_of_the_first_release_loads(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(SMALL_FILE)
    assert load_preset(tmp_path / "a.safetensors") == SMALL


def test_the_same_preset_gives_the_same_bytes(tmp_path):
    """Regression: safetensors' own writer shuffled the metadata, 17 different files in 20 saves."""
    for name in "abcdef":
        save_preset(FULL, tmp_path / name)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_safetensors_itself_reads_the_file(tmp_path):
    save_preset(FULL, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        metadata = file.metadata()
        assert sorted(file.keys()) == ["c_eps", "c_x", "sigmas"]
        assert file.get_tensor("sigmas").tolist() == [struct.unpack("<f", struct.pack("<f", s))[0] for s in SIGMAS]
    assert set(metadata) == {"format", "version", "verdict", "binding", "record", "modelspec.title", "author"}
    assert metadata["author"] == "Änne"
    assert json.loads(metadata["binding"])["quantization"] == "w4a8/g32"
    assert json.loads(metadata["record"])["verdict"] == ["Q-Sched helps \u2713"]


def test_the_header_is_aligned_and_ends_where_the_numbers_start(tmp_path):
    for length in range(9):
        save_preset(Preset(SMALL.coefficients, SMALL.sigmas, card={"author": "x" * length}), tmp_path / "a")
        data = (tmp_path / "a").read_bytes()
        header = struct.unpack("<Q", data[:8])[0]
        assert header % 8 == 0
        assert len(data) == 8 + header + 28
        json.loads(data[8 : 8 + header])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_a_saved_file_is_readable_by_whom_the_umask_allows(tmp_path):
    """Regression: the temporary file's 0600 stayed on the preset, and another user's ComfyUI could not read it."""
    before = os.umask(0o022)
    try:
        save_preset(SMALL, tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o644


# --- writing


def failing(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, refused, call):
    path = tmp_path / "a.safetensors"
    save_preset(FULL, path)
    before = path.read_bytes()
    monkeypatch.setattr(preset_module.os, call, failing)
    with refused(PresetError, "cannot write a.safetensors: No space left on device.", "choose a writable folder"):
        save_preset(SMALL, path)
    assert [item.name for item in tmp_path.iterdir()] == ["a.safetensors"]
    assert path.read_bytes() == before


def test_what_would_not_load_again_is_not_saved(tmp_path, refused):
    """Two sigmas that are one number in float32."""
    path = tmp_path / "a.safetensors"
    save_preset(FULL, path)
    before = path.read_bytes()
    with refused(PresetError, "do not descend"):
        save_preset(Preset(Coefficients.identity(2), (1.0 + 1e-9, 1.0, 0.0)), path)
    assert [item.name for item in tmp_path.iterdir()] == ["a.safetensors"]
    assert path.read_bytes() == before


def test_a_folder_that_is_a_file_is_refused(tmp_path, refused):
    (tmp_path / "file").write_text("", "utf-8")
    with refused(PresetError, "cannot write a.safetensors"):
        save_preset(SMALL, tmp_path / "file" / "a.safetensors")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_a_target_that_is_a_folder_is_refused_and_kept(tmp_path, refused):
    (tmp_path / "a.safetensors").mkdir()
    with refused(PresetError, "cannot write a.safetensors"):
        save_preset(SMALL, tmp_path / "a.safetensors")
    assert [item.name for item in tmp_path.iterdir()] == ["a.safetensors"]


def test_saving_over_a_file_replaces_it(tmp_path):
    path = tmp_path / "a.safetensors"
    save_preset(FULL, path)
    save_preset(SMALL, path)
    assert load_preset(path) == SMALL
    assert [item.name for item in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize(
    "record",
    [{"jaq": math.nan}, {"jaq": -math.inf}, {"model": object()}, {"prompts": {1, 2}}],
    ids=["nan", "inf", "object", "set"],
)
def test_a_record_that_is_not_json_is_refused(tmp_path, refused, record):
    """Regression: json's own ValueError and TypeError came through, after a whole calibration."""
    with refused(PresetError, "record is not plain JSON"):
        save_preset(Preset(SMALL.coefficients, SMALL.sigmas, record=record), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_record_of_circles_is_refused(tmp_path, refused):
    record: dict = {}
    record["self"] = record
    with refused(PresetError, "record is not plain JSON"):
        save_preset(Preset(SMALL.coefficients, SMALL.sigmas, record=record), tmp_path / "a.safetensors")


def test_metadata_larger_than_the_hosts_sidebar_reads_is_refused(tmp_path, refused):
    card = {"modelspec.thumbnail": PICTURE + "A" * 1024**2}
    with refused(PresetError, "larger than 1 MiB", "leave out the thumbnail"):
        save_preset(Preset(SMALL.coefficients, SMALL.sigmas, card=card), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_largest_allowed_metadata_loads_again(tmp_path):
    card = {"modelspec.thumbnail": PICTURE + "A" * (1024**2 - 1000)}
    preset = Preset(SMALL.coefficients, SMALL.sigmas, card=card)
    save_preset(preset, tmp_path / "a.safetensors")
    assert load_preset(tmp_path / "a.safetensors") == preset


def test_texts_in_any_script_take_no_more_room_than_they_had(tmp_path):
    """Regression: written as escapes, they doubled, and a preset that was loaded could not be saved again."""
    preset = Preset(
        SMALL.coefficients, SMALL.sigmas, record={"note": "\u4e2d" * 150_000}, card={"author": "\u4e2d" * 150_000}
    )
    save_preset(preset, tmp_path / "a.safetensors")
    save_preset(load_preset(tmp_path / "a.safetensors"), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("where", ["record", "card"])
def test_half_a_character_is_refused_before_anything_is_written(tmp_path, refused, where):
    preset = Preset(SMALL.coefficients, SMALL.sigmas, **{where: {"author": "\ud83e"}})
    with refused(PresetError, "half a character"):
        save_preset(preset, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


# --- what a Preset is


@pytest.mark.parametrize("key", ["modelspec.thumbnail", "thumbnail", "my.image", "icon", "lexicon"])
@pytest.mark.parametrize(
    "value",
    ["https://example.org/a.png", "//example.org", "file:///etc/passwd", "javascript:alert(1)", "", "x",
     "data:image/svg+xml;base64,PHN2Zy8+", "data:text/html;base64,PGI+", PICTURE + "!!", " " + PICTURE + "AAAA"],
)  # fmt: skip
def test_a_card_holds_no_picture_from_elsewhere(refused, key, value):
    """The host's page takes any field whose name ends so for the address of a picture."""
    with refused(PresetError, "is no picture in a data URI."):
        Preset(SMALL.coefficients, SMALL.sigmas, card={key: value})
    Preset(SMALL.coefficients, SMALL.sigmas, card={key: PICTURE + "AAAA"})


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_is_allowed(verdict):
    assert Preset(SMALL.coefficients, SMALL.sigmas, verdict=verdict).verdict == verdict


def test_steps_are_the_coefficients():
    assert (FULL.steps, SMALL.steps) == (4, 2)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sigmas": (1.0, 0.0)}, "the preset's sigmas do not fit its steps: 2 and 2."),
        ({"sigmas": (1.0, 0.5, 0.2, 0.0)}, "the preset's sigmas do not fit its steps: 4 and 2."),
        ({"sigmas": (math.nan, 0.5, 0.0)}, "not finite values in [0, 100000]"),
        ({"sigmas": (math.inf, 0.5, 0.0)}, "not finite values in [0, 100000]"),
        ({"sigmas": (1.0, 0.5, -0.1)}, "not finite values in [0, 100000]"),
        ({"sigmas": (2e5, 0.5, 0.0)}, "not finite values in [0, 100000]"),
        ({"sigmas": (0.0, 0.5, 1.0)}, "do not descend"),
        ({"sigmas": (1.0, 1.0, 0.0)}, "do not descend"),
        ({"verdict": "splendid"}, "verdict 'splendid' is unknown"),
        ({"verdict": ""}, "verdict '' is unknown"),
        ({"card": {"record": "x"}}, "card field record"),
        ({"card": {"format": "x", "author": "me"}}, "card field format"),
    ],
    ids=str,
)
def test_a_preset_that_makes_no_sense_is_refused(refused, change, text):
    with refused(PresetError, text):
        Preset(**{"coefficients": SMALL.coefficients, "sigmas": SMALL.sigmas, **change})


@pytest.mark.parametrize("cfg", [True, math.nan, math.inf, -1.0, 1001, "7", None], ids=repr)
def test_a_cfg_that_is_no_number_is_refused(refused, cfg):
    with refused(PresetError, "preset cfg is "):
        Binding(cfg=cfg)


@pytest.mark.parametrize("name", ["model", "fingerprint", "prediction", "quantization", "sampler", "scheduler"])
@pytest.mark.parametrize("value", [3, None, ["euler"], "x" * 201], ids=["int", "None", "list", "long"])
def test_a_binding_that_is_no_short_text_is_refused(refused, name, value):
    with refused(PresetError, f"preset field {name} is "):
        Binding(**{name: value})


# --- what it fits


def test_all_names_are_public():
    assert {"Preset", "Binding", "load_preset", "save_preset"} <= set(qs.__all__)


def test_relative_paths_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_preset(SMALL, "a.safetensors")
    assert load_preset(Path("a.safetensors")) == SMALL


def test_a_plan_of_the_steps_is_in_the_file(tmp_path, refused):
    sigmas = (1.0, 0.75, 0.3, 0.0)
    plan = qs.Precision((4, 8, 16), sigmas, (0, 0, 1))
    preset = qs.Preset(qs.Coefficients.ramp(3, c_x=(0.9, 1.0)), sigmas, precision=plan)
    qs.save_preset(preset, tmp_path / "plan.safetensors")
    loaded = qs.load_preset(tmp_path / "plan.safetensors")
    assert loaded == preset
    assert qs.encode_preset(loaded) == qs.encode_preset(preset)
    assert qs.load_preset(_saved(tmp_path, qs.Preset(preset.coefficients, sigmas))).precision is None
    with refused(qs.PresetError, "other sigmas"):
        qs.Preset(preset.coefficients, (1.0, 0.7, 0.3, 0.0), precision=plan)


@pytest.mark.parametrize(("lists", "models"), [
    ((4.0, 8.0, 5.0), None), ((4.0, 8.5, 8.0), None), ((float("nan"), 8.0, 8.0), None), ((4.0, 8.0), None),
    ((4.0, 4.0, 8.0), (0.0, 1.0)), ((4.0, 4.0, 8.0), (0.0, 1.0, 99.0)), (None, (0.0, 1.0, 0.0)),
])  # fmt: skip
def test_a_false_plan_is_refused(lists, models, refused):
    from qsched_core.preset import _encode

    tensors = {"c_x": (1.0,) * 3, "c_eps": (1.0,) * 3, "sigmas": (1.0, 0.75, 0.3, 0.0)}
    tensors |= {name: value for name, value in (("activation_bits", lists), ("models", models)) if value}
    content = _encode(tensors, {"format": "qsched-preset", "version": "1", "verdict": "made by hand"})
    with refused(qs.PresetError, "plan of the steps"):
        qs.parse_preset(content, "x")


def _saved(folder, preset):
    qs.save_preset(preset, folder / "other.safetensors")
    return folder / "other.safetensors"
