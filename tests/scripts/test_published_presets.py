"""The presets that come with the pack are what the script writes, and what was published."""

import base64
import io

import pytest
from PIL import Image, ImageChops, ImageStat

import qsched_core as qs
from scripts import published_presets
from scripts.workflows.parts import DEMO_PRESET

THUMBNAIL = "modelspec.thumbnail"


def decoded(uri: str) -> Image.Image:
    kind, _, data = uri.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def test_the_shipped_files_are_what_the_script_writes(tmp_path):
    published_presets.write(tmp_path)
    fresh, shipped = (
        {path.name: qs.load_preset(path) for path in folder.iterdir()}
        for folder in (tmp_path, published_presets.FOLDER)
    )
    ours = shipped.pop(DEMO_PRESET)
    assert set(fresh) == set(shipped)
    assert ours.verdict == "accepted"
    assert ours.record["gain"]["low"] > 0
    assert not {"workflow", "prompt"} & set(ours.card)
    for name, preset in shipped.items():
        pictures = [decoded(one.card.pop(THUMBNAIL)) for one in (preset, fresh[name])]
        assert preset == fresh[name]
        assert pictures[0].size == (256, 256)
        # Text is drawn, and packed, a little differently by other versions of Pillow.
        assert ImageStat.Stat(ImageChops.difference(*pictures)).mean == pytest.approx([0, 0, 0], abs=2)


def test_they_hold_the_published_numbers_and_say_where_from():
    sdxl, flux = (qs.load_preset(published_presets.FOLDER / name) for name in published_presets.presets())
    assert sdxl.coefficients.c_eps == pytest.approx((0.955, 1.003, 1.051, 1.099))
    assert sdxl.coefficients.c_x == pytest.approx((1.012, 0.997, 0.982, 0.967))
    assert flux.coefficients.c_eps == pytest.approx((0.867, 0.867 + 0.133 / 3, 0.867 + 0.266 / 3, 1.0))
    assert set(flux.coefficients.c_x) == {1.0}
    # diffusers' EulerAncestralDiscreteScheduler for SDXL-Turbo: 14.6146, 4.0817, 1.6129, 0.6932.
    assert sdxl.sigmas == pytest.approx((14.6146, 4.0817, 1.6129, 0.6932, 0), abs=1e-4)
    for preset in (sdxl, flux):
        assert preset.verdict == "not validated"
        description = preset.card["modelspec.description"]
        assert description.startswith("Published values, not verified here.")
        assert "arXiv 2509.01624" in description
        assert "github.com/enyac-group/q-sched" in description
