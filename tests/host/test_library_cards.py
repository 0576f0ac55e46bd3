"""The card that Save Preset writes into a file, and the picture that carries a preset to others."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from shared_presets import GAIN, HTML, preset

import qsched_core as qs

pytestmark = pytest.mark.usefixtures("one_thread")


class Hidden:
    unique_id = None
    prompt = {"1": {"class_type": "QSchedSavePreset", "inputs": {}}}
    extra_pnginfo = {"workflow": {"nodes": [], "extra": {"words": HTML}}}


def saved(pack, presets_folder, monkeypatch, instance=None, name: str = "mine", **inputs) -> tuple[qs.Preset, str]:
    """(What Save wrote, what it said)."""
    node = pack("nodes.presets").QSchedSavePreset
    monkeypatch.setattr(node, "hidden", Hidden)
    result = node.execute(instance or preset({"gain": GAIN}, verdict="accepted"), name, "", "CC0-1.0", "", **inputs)
    return qs.load_preset(presets_folder / result.args[0]), str(result.ui)


def test_save_writes_a_card_and_the_workflow(pack, presets_folder, monkeypatch):
    pair = torch.stack([torch.zeros(256, 256, 3), torch.ones(256, 256, 3)])
    result, text = saved(pack, presets_folder, monkeypatch, thumbnail=pair)
    assert json.loads(result.card["workflow"]) == Hidden.extra_pnginfo["workflow"]
    assert json.loads(result.card["prompt"]) == Hidden.prompt
    assert "accepted, held-out JAQ gain +0.0200 [+0.0100, +0.0300]" in result.card["modelspec.description"]
    encoded = result.card["modelspec.thumbnail"].removeprefix("data:image/jpeg;base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert picture.size == (256, 128)
    assert [picture.getpixel((x, 64))[0] for x in (32, 224)] == pytest.approx([0, 255], abs=4)
    assert "workflow is not in it" not in text


def test_a_strangers_text_is_one_line_of_what_can_be_seen(pack):
    clean = pack("nodes.library.card").clean
    assert clean("a\n\t b\x00\u202ec", 10) == "a bc"
    assert clean("x" * 10, 10) == "x" * 10
    assert clean("x" * 11, 10) == "x" * 9 + "\u2026"
    # Of an endless text no more than four times as many characters are looked at.
    assert clean(" " * 39 + "xy", 10) == "x"


def test_without_workflow_none_is_in_the_file_not_even_an_earlier_one(pack, presets_folder, monkeypatch):
    first, _ = saved(pack, presets_folder, monkeypatch)
    again, _ = saved(pack, presets_folder, monkeypatch, first, with_workflow=False)
    assert not {"workflow", "prompt"} & set(again.card)
    assert again.record == {"gain": GAIN}


def test_what_an_author_said_is_kept_when_somebody_else_saves_it(pack, preset_files, presets_folder, monkeypatch):
    shipped = preset_files.load(preset_files.entries()[1]["name"])
    again, _ = saved(pack, presets_folder, monkeypatch, shipped)
    assert again.card["modelspec.description"].startswith("Published values, not verified here.")
    twice, _ = saved(pack, presets_folder, monkeypatch, again)
    assert twice.card["modelspec.description"] == again.card["modelspec.description"]


def test_a_workflow_that_is_too_large_is_left_out_and_that_is_said(pack, presets_folder, monkeypatch):
    monkeypatch.setattr(Hidden, "extra_pnginfo", {"workflow": {"words": "x" * 1_100_000}})
    result, text = saved(pack, presets_folder, monkeypatch)
    assert "workflow" not in result.card
    assert "The workflow is not in it" in text


def test_with_disable_metadata_no_file_says_how_it_was_made(pack, presets_folder, monkeypatch):
    """Regression: pictures obeyed the host's flag, presets carried prompts and workflow all the same."""
    first, _ = saved(pack, presets_folder, monkeypatch)
    monkeypatch.setattr(pack("nodes.library.card").args, "disable_metadata", True)
    again, text = saved(pack, presets_folder, monkeypatch, first)
    assert not {"workflow", "prompt"} & set(again.card)
    assert again.card["modelspec.title"] == "mine"
    assert "--disable-metadata" in text
    content = pack("nodes.library.files").picture("mine.safetensors")
    with Image.open(io.BytesIO(content)) as picture:
        assert set(picture.text) == {"qsched_preset"}
    assert not {"workflow", "prompt"} & set(
        qs.parse_preset(pack("nodes.library.picture").carried_preset("a.png", content)[1], "a").card
    )


def test_the_share_picture_carries_the_workflow_and_no_more(pack, presets_folder, monkeypatch):
    result, _ = saved(
        pack, presets_folder, monkeypatch, name=HTML.replace("/", "").replace("<", "").translate(NO_SIGNS)
    )
    with Image.open(io.BytesIO(pack("nodes.library.picture").share_picture(result))) as picture:
        assert picture.size == (1200, 630)
        assert set(picture.text) == {"workflow", "prompt"}  # of a preset that has no file
        assert json.loads(picture.text["workflow"]) == Hidden.extra_pnginfo["workflow"]


@pytest.mark.parametrize("name", ["mine.png", "mine.qsched.png", "mine.qsched (3).png", "mine.qsched(3).PNG"])
def test_the_share_picture_carries_the_preset_byte_for_byte(preset_files, presets_folder, name):
    qs.save_preset(preset(card={"workflow": json.dumps({"nodes": []})}), presets_folder / "mine.safetensors")
    content = (presets_folder / "mine.safetensors").read_bytes()
    shared = preset_files.picture("mine.safetensors")
    assert preset_files.import_preset(name, shared) == ("mine.safetensors", False)
    (presets_folder / "mine.safetensors").unlink()
    assert preset_files.import_preset(name, shared) == ("mine.safetensors", True)
    assert (presets_folder / "mine.safetensors").read_bytes() == content


@pytest.mark.parametrize("cut", [9, 40, 3000])
def test_a_share_picture_that_is_cut_or_changed_is_refused(pack, preset_files, presets_folder, refused, cut):
    qs.save_preset(preset(), presets_folder / "mine.safetensors")
    shared = preset_files.picture("mine.safetensors")
    at = shared.index(b"qsched_preset")
    for hostile in (shared[: min(cut, at)], shared[:at] + b"\xff" * len(shared[at:]), shared[: at + 20] + b"!!"):
        with refused(pack("qsched_core").PresetError, "no preset in this picture"):
            preset_files.import_preset("mine.png", hostile)
    text = shared[at + 14 :]
    with refused(pack("qsched_core").PresetError, ""):
        preset_files.import_preset("mine.png", shared[: at + 14] + b"AAAA" + text[4:])


class Sheet:
    """In the place of a canvas: notes what is drawn, by kind, each mark without the text's anchor."""

    def __init__(self, measure):
        self.fitted, self.image, self.marks = measure.fitted, measure.image, []

    def __getattr__(self, kind: str):
        return lambda *mark, anchor=None: self.marks.append((kind, mark))

    def of(self, kind: str) -> list[tuple]:
        return [mark for name, mark in self.marks if name == kind]

    def words(self) -> dict[str, tuple]:
        """(x, y, size) of each text."""
        return {text: (x, y, size) for x, y, text, size, *_ in self.of("text")}

    def curve(self, colour: tuple) -> list[tuple[float, float]]:
        """The points of the thick line in a colour."""
        parts = [mark for mark in self.of("line") if mark[2:] == (colour, 3)]
        return [parts[0][0], *(end for _, end, *_ in parts)]


@pytest.fixture
def sheet_of(pack, monkeypatch):
    """``sheet_of(preset)``: what the share picture of a preset is made of."""
    picture, sheets = pack("nodes.library.picture"), []
    measure = picture.Canvas(8, 8)
    monkeypatch.setattr(picture, "Canvas", lambda *size: sheets.append(Sheet(measure)) or sheets[-1])

    def draw(one: qs.Preset) -> Sheet:
        picture.share_picture(one)
        return sheets.pop()

    return draw


@pytest.fixture
def chart_of(sheet_of):
    """``chart_of(coefficients)``: the same of a preset with them."""

    def draw(coefficients: qs.Coefficients) -> Sheet:
        count = len(coefficients)
        return sheet_of(qs.Preset(coefficients, [1 - step / count for step in range(count + 1)]))

    return draw


ORANGE, BLUE = (213, 94, 0), (0, 114, 178)
"""Of c_x and of c_eps."""


def test_curves_fill_the_chart_and_their_steps_are_named_below_and_beside(chart_of):
    sheet = chart_of(qs.Coefficients((0.5, 1.0, 1.5), (1.0, 1.2, 0.9)))
    ((top_left, bottom_right, _),) = sheet.of("box")
    assert (top_left, bottom_right) == ((100, 318), (1090, 552))
    # 0.5 to 1.5 are 1 of the 1.1 between 330 and 540: a twentieth stays free above and below.
    middle, unit = 435, 210 / 1.1
    for colour, offsets in ((ORANGE, (0.5, 0, -0.5)), (BLUE, (0, -0.2, 0.1))):
        curve = sheet.curve(colour)
        assert [x for x, _ in curve] == [120, 595, 1070]
        assert [y for _, y in curve] == pytest.approx([middle + unit * offset for offset in offsets])
        assert curve == [(x, y) for x, y, _, dot_colour in sheet.of("dot") if dot_colour == colour]
    words = sheet.words()
    assert words["c_x"] == pytest.approx((1100, middle - unit * 0.5, 17))
    assert words["c_eps"] == pytest.approx((1100, middle + unit * 0.1, 17))
    assert [words[sigma] for sigma in ("1", "0.667", "0.333")] == [(x, 568, 14) for x in (120, 595, 1070)]
    assert words["sigma"] == (90, 568, 14)
    marks = {text: place for text, place in words.items() if place[2] == 15}
    assert list(marks) == ["0.6", "0.8", "1.0", "1.2", "1.4"]
    assert marks["1.4"] == pytest.approx((90, middle - unit * 0.4, 15))
    # A line at each mark, over the whole box, and one more at 1.
    lines = [mark[:2] for mark in sheet.of("line") if mark[3] != 3]
    assert {(left, right) for (left, _), (right, _) in lines} == {(100, 1090)}
    heights = [y for _, y, _ in marks.values()] + [middle]
    assert [start for (_, start), _ in lines] == [end for _, (_, end) in lines] == pytest.approx(heights)


@pytest.mark.parametrize(("c_eps", "apart"), [(1.0, 20), (1.001, 20), (0.999, -20), (1.5, 210 / 1.1)])
def test_curves_that_end_near_one_height_are_named_one_above_the_other(chart_of, c_eps, apart):
    sheet = chart_of(qs.Coefficients((1.0, 1.0), (1.0, c_eps)))
    words, ends = sheet.words(), [sheet.curve(colour)[-1][1] for colour in (ORANGE, BLUE)]
    heights = words["c_x"][1], words["c_eps"][1]
    assert abs(heights[0] - heights[1]) == pytest.approx(abs(apart))
    assert c_eps == 1.0 or heights[0] - heights[1] == pytest.approx(apart)
    assert sum(heights) == pytest.approx(sum(ends))  # both are pushed alike


@pytest.mark.parametrize(
    ("steps", "dots", "sigmas"), [(1, 2, 1), (16, 32, 16), (17, 34, 9), (60, 120, 15), (61, 0, 16)]
)
def test_a_chart_of_many_steps_has_no_dots_and_few_sigmas(chart_of, steps, dots, sigmas):
    sheet = chart_of(qs.Coefficients.ramp(steps, c_x=(0.5, 1.5)))
    assert len(sheet.of("dot")) == dots
    assert len([mark for mark in sheet.of("text") if mark[1] == 568]) == sigmas + 1  # and the word
    if steps == 1:
        assert {x for x, *_ in sheet.of("dot")} == {595}


@pytest.mark.parametrize("record", [{"gain": GAIN}, {}], ids=["with its gain", "without"])
def test_words_stand_above_the_chart_each_in_its_line(sheet_of, record):
    card = {"modelspec.title": "Foxes", "modelspec.author": "Ann", "modelspec.license": "MIT"}
    sheet = sheet_of(qs.Preset(qs.Coefficients.identity(2), (1.0, 0.5, 0.0), card=card, record=record))
    words = {y: (x, size, text) for x, y, text, size, *_ in sheet.of("text") if y < 300}
    expected = {66: (36, "Foxes"), 114: (19, "model "), 246: (16, "Ann \u00b7 MIT"), 274: (16, "")}
    if record:
        expected[164] = 24, "JAQ gain on held-out prompts +0.0200 [+0.0100, +0.0300]"
    expected[206 if record else 164] = 20, "2 steps"
    assert words.keys() == expected.keys()
    for height, (size, text) in expected.items():
        assert words[height][:2] == (56, size)
        assert words[height][2].startswith(text)
    assert sheet.words()["Q-Sched preset for ComfyUI"] == (1144, 596, 16)


def test_a_thumbnail_stands_in_the_corner_and_no_word_runs_into_it(pack):
    picture, thumbnail_file = pack("nodes.library.picture"), io.BytesIO()
    Image.new("RGB", (512, 256), (255, 0, 0)).save(thumbnail_file, "PNG")
    title = {"modelspec.title": "W" * 119}
    thumbnail = {"modelspec.thumbnail": f"data:image/png;base64,{base64.b64encode(thumbnail_file.getvalue()).decode()}"}
    with_one, without = (
        np.asarray(Image.open(io.BytesIO(picture.share_picture(qs.Preset(
            qs.Coefficients.identity(2), (1.0, 0.5, 0.0), card=card
        )))))
        for card in ({**title, **thumbnail}, title)
    )  # fmt: skip
    red = (with_one == (255, 0, 0)).all(-1).nonzero()
    assert [(axis.min(), axis.max()) for axis in red] == [(44, 171), (888, 1143)]
    for sheet, right in ((with_one, 856), (without, 1144)):
        ink = (sheet[44:90, : 880 if right == 856 else 1200] < 128).all(-1).nonzero()[1]
        assert right - 60 < ink.max() < right


NO_SIGNS = str.maketrans(dict.fromkeys('">|:?*', ""))


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_a_share_picture_can_be_drawn_of_any_number_of_steps(pack, steps):
    sigmas = [1 - step / steps for step in range(steps + 1)]
    title = "\u4e2d\u6587 " * 50 + HTML
    instance = qs.Preset(qs.Coefficients.ramp(steps, c_x=(0.5, 1.5)), sigmas, card={"modelspec.title": title})
    assert len(pack("nodes.library.picture").share_picture(instance)) > 5000
