"""The sheet of drawings: what is kept of it, and how it is made without trusting registry or rasteriser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from demo import drawings as making
from demo import files
from demo.sheet import CELL_HEIGHT, WIDTHS, corner
from demo.things import THINGS, drawings

ABOUT = json.loads(files.DRAWINGS_LIST.read_text("utf-8"))


def disc(svg: str, width: int) -> Image.Image:
    """A rasteriser's stand-in: a disc in the colour that the text names; "broken" fails as a real one may."""
    if svg == "broken":
        raise ValueError("unknown element")
    picture = Image.new("RGBA", (width, width))
    if svg != "empty":
        ImageDraw.Draw(picture).ellipse((0, 0, width - 1, width - 1), svg)
    return picture


def test_the_kept_list_says_what_each_thing_is_and_whose():
    assert list(ABOUT["things"]) == list(THINGS)
    assert 40 <= len(THINGS) == len(set(THINGS)) <= 60
    assert ABOUT["things"] == {word: making.CHOICE[word] for word in THINGS}
    assert (ABOUT["package"], ABOUT["version"], ABOUT["licence"]) == (making.PACKAGE, making.VERSION, making.LICENCE)


def test_no_two_cells_of_the_sheet_overlap():
    with Image.open(files.DRAWINGS) as sheet:
        width, height = sheet.size
    owners = torch.zeros(height, width, dtype=torch.int64)
    for index in range(len(THINGS)):
        for side in WIDTHS:
            x, y = corner(index, side)
            assert x + side <= width
            assert y + side <= height
            owners[y : y + side, x : x + side] += 1
    assert owners.max() == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_drawings_have_colours_times_coverage(width):
    pixels = drawings(width)
    assert pixels.shape == (len(THINGS), 4, width, width)
    assert (pixels[:, :3] <= pixels[:, 3:] + 1e-6).all()
    assert (pixels[:, 3].flatten(1).amax(1) == 1).all()
    # Every two things differ in more than a tenth of their pixels: nobody takes one for another.
    flat = pixels.flatten(1)
    for index in range(len(THINGS)):
        others = torch.cat([flat[:index], flat[index + 1 :]])
        assert ((others - flat[index]).abs() > 0.1).float().mean(1).min() > 0.1


def test_a_drawing_that_cannot_be_drawn_is_left_out_and_said(capsys):
    icons = {"good": "red", "bad": "broken", "blank": "empty"}
    choice = {"apple": "good", "car": "bad", "dog": "blank", "cat": "absent"}
    pictures = making.make_sheet(icons, disc, choice)
    assert list(pictures) == ["apple"]
    output = capsys.readouterr().out
    assert [line.split(":")[1].split()[0] for line in output.splitlines()] == ["car", "dog", "cat"]


def test_a_made_sheet_reads_back(tmp_path, monkeypatch):
    monkeypatch.setattr(making, "CHOICE", {f"thing{i}": "any" for i in range(8)})
    colours = ("red", "lime", "blue", "white", "black", "cyan", "yellow", "magenta")
    pictures = {f"thing{i}": making.draw_thing(disc, colour, WIDTHS) for i, colour in enumerate(colours)}
    making.save_sheet(pictures, tmp_path / "sheet.png", tmp_path / "list.json")
    assert list(json.loads((tmp_path / "list.json").read_text("utf-8"))["things"]) == list(pictures)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.text["Copyright"] == making.LICENCE
        assert sheet.height == 2 * CELL_HEIGHT
        for index, sizes in enumerate(pictures.values()):
            for width, picture in zip(WIDTHS, sizes, strict=True):
                x, y = corner(index, width)
                assert sheet.crop((x, y, x + width, y + width)).tobytes() == picture.tobytes()


def test_an_edge_keeps_its_colour_where_coverage_is_partial():
    """Averaged with straight alpha, a white disc would get a grey rim from the black of what is clear."""
    picture = torch.from_numpy(np.array(making.draw_thing(disc, "white", (40,))[0]))
    partial = (picture[..., 3] > 16) & (picture[..., 3] < 240)
    assert partial.any()
    assert picture[partial][:, :3].min() > 240


def test_another_file_than_the_pinned_one_is_refused(tmp_path):
    (tmp_path / "package.tgz").write_bytes(b"not the drawings")
    with pytest.raises(ValueError, match=r"package\.tgz is not @iconify-json/fluent-emoji-flat 1\.2\.6\. Fix: "):
        making.read_icons(tmp_path / "package.tgz")


def test_without_npm_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match=r"npm, which is not installed\. Fix: .*--package"):
        making.fetch_package(tmp_path)


def test_npm_that_fails_is_quoted(tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(npm))
    with pytest.raises(RuntimeError, match=r"could not fetch .*no network"):
        making.fetch_package(Path(tmp_path))
