"""The pictures of the help pages: one for each page, small enough to be carried along, and first on it."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from scripts.layout import ROOT
from scripts.node_graphs import PICTURES
from scripts.node_pictures import LARGEST, MOST_BYTES, packed

DOCS = ROOT / "web" / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.md"))


def test_every_page_has_a_picture_and_no_other():
    assert sorted(path.stem for path in DOCS.glob("*.png")) == sorted(PICTURES) == PAGES


@pytest.mark.parametrize("node", PAGES)
def test_a_page_begins_with_its_picture(node):
    path = DOCS / f"{node}.png"
    assert 0 < path.stat().st_size <= MOST_BYTES
    with Image.open(path) as picture:
        assert all(is_ <= most for is_, most in zip(picture.size, LARGEST, strict=True))
    assert (DOCS / f"{node}.md").read_text("utf-8").splitlines()[2].endswith(f"]({node}.png)")


def test_a_picture_keeps_its_few_bright_dots_and_its_ground():
    image = Image.linear_gradient("L").resize((1400, 700)).convert("RGB")
    image.paste((24, 24, 26), (0, 0, 700, 700))
    image.paste((0, 191, 165), (100, 100, 106, 106))
    image = image.resize((700, 350), Image.Resampling.NEAREST)
    result = Image.open(io.BytesIO(packed(image))).convert("RGB")
    assert result.getpixel((51, 51)) == pytest.approx((0, 191, 165), abs=12)
    assert result.getpixel((10, 10)) == pytest.approx((24, 24, 26), abs=4)
