"""The card that Save Preset writes into a file, and the picture that carries a preset to others."""

from __future__ import annotations

import base64
import io
import json

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


@pytest.fixture
def words_on(pack):
    """``words_on(preset)``: (text, x, y) of all that is written on a preset's chart."""
    picture = pack("nodes.library.picture")

    def words(one) -> list[tuple[str, float, float]]:
        lines = []
        canvas = picture.Canvas(picture.WIDTH, picture.HEIGHT)
        canvas.text = lambda x, y, text, *args, **options: lines.append((text, x, y))
        picture._chart(canvas, one)
        return lines

    return words


@pytest.mark.parametrize(("steps", "count"), [(1, 1), (4, 4), (16, 16), (17, 9), (100, 15)])
def test_below_a_chart_stand_as_many_sigmas_as_there_is_room_for(words_on, steps, count):
    sigmas = (*(1.0 + steps - step for step in range(steps)), 0.0)
    words = words_on(qs.Preset(qs.Coefficients.identity(steps), sigmas))
    (low,) = (y for text, _, y in words if text == "sigma")
    labels = [(text, x) for text, x, y in words if y == low and text != "sigma"]
    assert labels[0][0] == f"{sigmas[0]:.3g}" and len(labels) == count
    places = [x for _, x in labels]
    assert places == sorted(set(places))


@pytest.mark.parametrize(("c_eps", "apart"), [(1.0, 20), (1.001, 20), (1.5, None), (0.999, 20)])
def test_the_names_of_curves_that_end_together_do_not_overlap(words_on, c_eps, apart):
    words = words_on(qs.Preset(qs.Coefficients((1.2, 1.0), (1.0, c_eps)), (1.0, 0.5, 0.0)))
    heights = {text: y for text, _, y in words if text in ("c_x", "c_eps")}
    distance = heights["c_x"] - heights["c_eps"]  # the upper one is the larger value's
    assert abs(distance) == pytest.approx(apart) if apart else distance > 100


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
def chart_of(pack, monkeypatch):
    """``chart_of(coefficients)``: what the share picture of a preset with them is made of."""
    picture, sheets = pack("nodes.library.picture"), []
    measure = picture.Canvas(8, 8)
    monkeypatch.setattr(picture, "Canvas", lambda *size: sheets.append(Sheet(measure)) or sheets[-1])

    def draw(coefficients: qs.Coefficients) -> Sheet:
        count = len(coefficients)
        picture.share_picture(qs.Preset(coefficients, [1 - step / count for step in range(count + 1)]))
        return sheets.pop()

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


def test_curves_that_end_at_one_height_are_named_one_above_the_other(chart_of):
    sheet = chart_of(qs.Coefficients.identity(2))
    assert {y for _, y in sheet.curve(ORANGE) + sheet.curve(BLUE)} == {435}
    assert sorted(y for x, y, _ in sheet.words().values() if x == 1100) == [425, 445]
    apart = chart_of(qs.Coefficients((1.0, 1.0), (1.0, 1.5))).words()
    assert apart["c_x"][1] - apart["c_eps"][1] == pytest.approx(210 / 1.1)


@pytest.mark.parametrize(
    ("steps", "dots", "sigmas"), [(1, 2, 1), (16, 32, 16), (17, 34, 9), (60, 120, 15), (61, 0, 16)]
)
def test_a_chart_of_many_steps_has_no_dots_and_few_sigmas(chart_of, steps, dots, sigmas):
    sheet = chart_of(qs.Coefficients.ramp(steps, c_x=(0.5, 1.5)))
    assert len(sheet.of("dot")) == dots
    assert len([mark for mark in sheet.of("text") if mark[1] == 568]) == sigmas + 1  # and the word
    if steps == 1:
        assert {x for x, *_ in sheet.of("dot")} == {595}


NO_SIGNS = str.maketrans(dict.fromkeys('">|:?*', ""))


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_a_share_picture_can_be_drawn_of_any_number_of_steps(pack, steps):
    sigmas = [1 - step / steps for step in range(steps + 1)]
    title = "\u4e2d\u6587 " * 50 + HTML
    instance = qs.Preset(qs.Coefficients.ramp(steps, c_x=(0.5, 1.5)), sigmas, card={"modelspec.title": title})
    assert len(pack("nodes.library.picture").share_picture(instance)) > 5000
