"""The list of presets: what an entry says of its file, whatever a stranger wrote into it, and the list's pages."""

from __future__ import annotations

import base64
import io
import json

import pytest
from PIL import Image
from shared_presets import BOUND, DEMO, FOUR, GAIN, HTML, SAME_LABEL, picture_uri, preset, told

import qsched_core as qs

pytestmark = pytest.mark.usefixtures("one_thread")

EVIL_GAINS = ("x", [], {}, {"gain": 1}, {**GAIN, "low": None}, {**GAIN, "high": 10**400}, {**GAIN, "gain": 1e300})


def test_presets_that_came_with_the_pack_say_that_nobody_verified_them(preset_files):
    ours, *published = preset_files.entries()
    assert (ours["verdict"], ours["author"], ours["workflow"]) == ("accepted", "Q-Sched", False)
    assert [entry["steps"] for entry in published] == [4, 4]
    for entry in published:
        assert entry["shipped"]
        assert entry["thumbnail"]
        assert entry["description"].startswith("Published values, not verified here.")
        assert "2509.01624" in entry["description"]
        assert (entry["verdict"], entry["gain"]) == ("not validated", None)


def test_a_preset_is_listed_with_what_it_was_made_for_and_what_it_gained(preset_files, presets_folder):
    red = preset(
        {"gain": GAIN},
        {"modelspec.title": "Red", "modelspec.author": "Me", "modelspec.thumbnail": picture_uri("PNG")},
        "accepted",
        model="FluxSchnell",
        quantization="w4a8",
        sampler="euler",
        scheduler="simple",
        cfg=1.0,
    )
    qs.save_preset(red, presets_folder / "deep" / "red.safetensors")
    entry = preset_files.entry("deep/red.safetensors")
    thumbnail = base64.b64decode(entry.pop("thumbnail").removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(thumbnail)).size == (256, 85)
    assert entry == {
        "name": "deep/red.safetensors",
        "shipped": False,
        "title": "Red",
        "author": "Me",
        "license": "",
        "description": "",
        "steps": 4,
        "sampler": "euler",
        "scheduler": "simple",
        "cfg": 1.0,
        "model": "FluxSchnell",
        "quantization": "w4a8",
        "verdict": "accepted",
        "gain": GAIN,
        "workflow": False,
    }
    assert entry["name"] in [one["name"] for one in preset_files.entries()]


def test_texts_of_strangers_are_cut_and_their_invisible_characters_go(preset_files, presets_folder):
    long = "x" * 300_000
    card = {"modelspec.title": HTML + long, "modelspec.author": "a\u202eb\x00c\nd", "modelspec.description": long}
    qs.save_preset(preset(card=card), presets_folder / "long.safetensors")
    entry = preset_files.entry("long.safetensors")
    assert entry["title"].startswith(HTML)
    assert entry["author"] == "abc d"
    assert len(json.dumps(entry)) < 2000


@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        "data:image/svg+xml;base64,PHN2Zy8+",
        "data:text/html;base64,PHNjcmlwdD4=",
        "data:image/png;base64,AAAA",
        "data:image/png;base64,!!!!",
        "data:image/jpeg;base64," + "A" * 500_000,
        "https://example.org/tracker.png",
        picture_uri("GIF"),
        picture_uri("GIF").replace("gif", "png"),
        picture_uri("PNG")[:-40],
        picture_uri("PNG", (20_000, 10)),
    ],
)
def test_a_thumbnail_that_is_no_small_picture_is_not_shown(pack, uri):
    assert pack("nodes.library.card").safe_thumbnail(uri) == ""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_thumbnail_is_written_anew(pack, kind):
    assert pack("nodes.library.card").safe_thumbnail(picture_uri(kind)).startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize("gain", EVIL_GAINS, ids=lambda gain: str(gain)[:30])
def test_a_gain_of_the_wrong_type_is_no_gain(pack, preset_files, presets_folder, gain):
    qs.save_preset(preset({"gain": gain}), presets_folder / "evil.safetensors")
    assert preset_files.entry("evil.safetensors")["gain"] is None
    assert "gain" not in pack("nodes.presets").QSchedLoadPreset.execute("evil.safetensors").args[1]
    assert pack("nodes.library.picture").share_picture(preset_files.load("evil.safetensors")).startswith(b"\x89PNG")


@pytest.mark.parametrize("votes", ["x", {}, {"wins": 3}, {"wins": -1, "losses": 0, "skips": 0},
                                   {"wins": 10**400, "losses": 0, "skips": 0}, {"wins": True, "losses": 0, "skips": 0}],
                         ids=lambda votes: str(votes)[:30])  # fmt: skip
def test_votes_of_the_wrong_type_are_no_votes(pack, preset_files, presets_folder, votes):
    """The sentence is made anew from the counts: a file cannot claim one."""
    claimed = {**votes, "verdict": "better"} if isinstance(votes, dict) else votes
    qs.save_preset(preset({"votes": claimed}), presets_folder / "evil.safetensors")
    assert "vote" not in pack("nodes.presets").QSchedLoadPreset.execute("evil.safetensors").args[1].lower()
    assert "vote" not in pack("nodes.library.card").facts(preset_files.load("evil.safetensors"))


def test_files_that_are_refused_are_listed_with_the_reason_beside_the_others(preset_files, presets_folder):
    qs.save_preset(preset(), presets_folder / "good.safetensors")
    good = (presets_folder / "good.safetensors").read_bytes()
    bad = {
        "none.safetensors": b"",
        "future.safetensors": good.replace(b'"version":"1"', b'"version":"7"'),
        "half.safetensors": good[:200],
        f"{HTML.replace('/', '')}.safetensors": b"<html>",
    }
    for name, content in bad.items():
        (presets_folder / name).write_bytes(content)
    listed = {entry["name"]: entry for entry in preset_files.entries() if not entry["shipped"]}
    assert set(listed) == {"good.safetensors", *bad}
    assert [name for name, entry in listed.items() if "error" not in entry] == ["good.safetensors"]
    assert "preset version '7', not 1" in listed["future.safetensors"]["error"]
    assert "update the Q-Sched pack" in listed["future.safetensors"]["error"]


def test_a_long_reason_is_cut(preset_files, monkeypatch):
    """A path on a deep disk, in an error of the system's."""

    def file_path(folder, name):
        raise OSError("x" * 401)

    monkeypatch.setattr(preset_files, "file_path", file_path)
    error = preset_files.entry("gone.safetensors")["error"]
    assert error == "x" * 399 + "\u2026"


def test_a_folder_that_is_gone_is_an_empty_one_and_comes_back(preset_files, presets_folder):
    qs.save_preset(preset(), presets_folder / "one.safetensors")
    assert len(preset_files.entries()) == 4
    content = (presets_folder / "one.safetensors").read_bytes()
    (presets_folder / "one.safetensors").unlink()
    presets_folder.rmdir()
    assert [entry["shipped"] for entry in preset_files.entries()] == [True, True, True]
    assert preset_files.import_preset("two.safetensors", content) == ("two.safetensors", True)
    assert len(preset_files.entries()) == 4


# --- the list, a page at a time


def test_more_than_a_thousand_presets_are_listed_page_by_page_those_that_fit_first(pack, presets_folder):
    """Regression: whatever came after the first 500 was left out without a word."""
    qs.save_preset(preset(model="SDXL"), presets_folder / "differs 0000.safetensors")
    qs.save_preset(preset(**BOUND, card={"modelspec.title": "The fitting one"}), presets_folder / "z fits.safetensors")
    content = (presets_folder / "differs 0000.safetensors").read_bytes()
    for number in range(1, 1200):
        (presets_folder / f"differs {number:04}.safetensors").write_bytes(content)
    (presets_folder / "a broken one.safetensors").write_bytes(b"x")
    pages, graph = pack("nodes.library.pages"), told(DEMO, [SAME_LABEL], [FOUR])
    first = pages.page({**graph, "limit": 100})
    assert (first["total"], first["all"], len(first["presets"])) == (1205, 1205, 100)
    names = [first["presets"][0]["name"]]
    assert names == ["z fits.safetensors"]
    every = [
        entry["name"]
        for at in range(0, 1300, 100)
        for entry in pages.page({**graph, "offset": at, "limit": 100})["presets"]
    ]
    assert len(set(every)) == len(every) == 1205
    assert every[-1] == "a broken one.safetensors"
    assert pages.names_by_fit(graph)["names"] == every
    assert [entry["name"] for entry in pages.page({**graph, "fitting": True})["presets"]] == names
    assert pages.page({**graph, "words": "FITTING one the"})["total"] == 1
    assert pages.page({**graph, "words": "DIFFERS 0042"})["total"] == 1


ODD = {"offset": (-5, 10**30), "limit": ("x", True), "words": ([1], None), "fitting": ("yes",)}


@pytest.mark.parametrize("odd", [{key: value} for key, values in ODD.items() for value in values], ids=str)
def test_a_question_of_the_wrong_type_gets_a_page_all_the_same(pack, presets_folder, odd):
    assert pack("nodes.library.pages").page(odd)["all"] == 3
