"""Presets that people share: their cards, the list and its routes, whatever a stranger's file or page may say."""

from __future__ import annotations

import base64
import io
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest
import torch
from PIL import Image

import qsched_core as qs
from scripts.client import HttpFailure, PromptRefused
from scripts.layout import CACHE, ROOT
from scripts.random_models import write

pytestmark = pytest.mark.usefixtures("one_thread")

HTML = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
GAIN = {"gain": 0.02, "low": 0.01, "high": 0.03}
EVIL_GAINS = ("x", [], {}, {"gain": 1}, {**GAIN, "low": None}, {**GAIN, "high": 10**400}, {**GAIN, "gain": 1e300})


def preset(record=None, card=None, verdict: str = "made by hand", **binding) -> qs.Preset:
    coefficients = qs.Coefficients.ramp(4, c_x=(1.02, 0.98))
    return qs.Preset(
        coefficients, (1.0, 0.75, 0.5, 0.25, 0.0), qs.Binding(**binding), verdict, record or {}, card or {}
    )


def picture_uri(kind: str, size: tuple[int, int] = (300, 100)) -> str:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.fixture
def folder(pack, tmp_path, monkeypatch) -> Path:
    """The only folder of presets, beside those that came with the pack."""
    import folder_paths

    files = pack("nodes.host.folders")
    place = tmp_path / "qsched_presets"
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths,
        files.PRESETS_FOLDER,
        ([str(place), str(files.SHIPPED_PRESETS)], {files.SUFFIX}),
    )
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return place


@pytest.fixture
def library(pack, folder):
    return pack("nodes.library.files")


# --- the list


def test_presets_that_came_with_the_pack_say_that_nobody_verified_them(library):
    ours, *published = library.entries()
    assert (ours["verdict"], ours["author"], ours["workflow"]) == ("accepted", "Q-Sched", False)
    assert [entry["steps"] for entry in published] == [4, 4]
    for entry in published:
        assert entry["shipped"]
        assert entry["thumbnail"]
        assert entry["description"].startswith("Published values, not verified here.")
        assert "2509.01624" in entry["description"]
        assert (entry["verdict"], entry["gain"]) == ("not validated", None)


def test_a_preset_is_listed_with_what_it_was_made_for_and_what_it_gained(library, folder):
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
    qs.save_preset(red, folder / "deep" / "red.safetensors")
    entry = library.entry("deep/red.safetensors")
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
    assert entry["name"] in [one["name"] for one in library.entries()]


def test_texts_of_strangers_are_cut_and_their_invisible_characters_go(library, folder):
    long = "x" * 300_000
    card = {"modelspec.title": HTML + long, "modelspec.author": "a\u202eb\x00c\nd", "modelspec.description": long}
    qs.save_preset(preset(card=card), folder / "long.safetensors")
    entry = library.entry("long.safetensors")
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
def test_a_gain_of_the_wrong_type_is_no_gain(pack, library, folder, gain):
    qs.save_preset(preset({"gain": gain}), folder / "evil.safetensors")
    assert library.entry("evil.safetensors")["gain"] is None
    assert "gain" not in pack("nodes.presets").QSchedLoadPreset.execute("evil.safetensors").args[1]
    assert pack("nodes.library.picture").share_picture(library.load("evil.safetensors")).startswith(b"\x89PNG")


@pytest.mark.parametrize("votes", ["x", {}, {"wins": 3}, {"wins": -1, "losses": 0, "skips": 0},
                                   {"wins": 10**400, "losses": 0, "skips": 0}, {"wins": True, "losses": 0, "skips": 0}],
                         ids=lambda votes: str(votes)[:30])  # fmt: skip
def test_votes_of_the_wrong_type_are_no_votes(pack, library, folder, votes):
    """The sentence is made anew from the counts: a file cannot claim one."""
    claimed = {**votes, "verdict": "better"} if isinstance(votes, dict) else votes
    qs.save_preset(preset({"votes": claimed}), folder / "evil.safetensors")
    assert "vote" not in pack("nodes.presets").QSchedLoadPreset.execute("evil.safetensors").args[1].lower()
    assert "vote" not in pack("nodes.library.card").facts(library.load("evil.safetensors"))


def test_files_that_are_refused_are_listed_with_the_reason_beside_the_others(library, folder):
    qs.save_preset(preset(), folder / "good.safetensors")
    good = (folder / "good.safetensors").read_bytes()
    bad = {
        "none.safetensors": b"",
        "future.safetensors": good.replace(b'"version":"1"', b'"version":"7"'),
        "half.safetensors": good[:200],
        f"{HTML.replace('/', '')}.safetensors": b"<html>",
    }
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    listed = {entry["name"]: entry for entry in library.entries() if not entry["shipped"]}
    assert set(listed) == {"good.safetensors", *bad}
    assert [name for name, entry in listed.items() if "error" not in entry] == ["good.safetensors"]
    assert "preset version '7', not 1" in listed["future.safetensors"]["error"]
    assert "update the Q-Sched pack" in listed["future.safetensors"]["error"]


def test_a_folder_that_is_gone_is_an_empty_one_and_comes_back(library, folder):
    qs.save_preset(preset(), folder / "one.safetensors")
    assert len(library.entries()) == 4
    content = (folder / "one.safetensors").read_bytes()
    (folder / "one.safetensors").unlink()
    folder.rmdir()
    assert [entry["shipped"] for entry in library.entries()] == [True, True, True]
    assert library.import_preset("two.safetensors", content) == ("two.safetensors", True)
    assert len(library.entries()) == 4


# --- the list, a page at a time


def test_more_than_a_thousand_presets_are_listed_page_by_page_those_that_fit_first(pack, folder):
    """Regression: whatever came after the first 500 was left out without a word."""
    qs.save_preset(preset(model="SDXL"), folder / "differs 0000.safetensors")
    qs.save_preset(preset(**BOUND, card={"modelspec.title": "The fitting one"}), folder / "z fits.safetensors")
    content = (folder / "differs 0000.safetensors").read_bytes()
    for number in range(1, 1200):
        (folder / f"differs {number:04}.safetensors").write_bytes(content)
    (folder / "a broken one.safetensors").write_bytes(b"x")
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
def test_a_question_of_the_wrong_type_gets_a_page_all_the_same(pack, folder, odd):
    assert pack("nodes.library.pages").page(odd)["all"] == 3


# --- files: rename, import


def test_renaming_moves_the_file_and_nothing_else(library, folder):
    qs.save_preset(preset(), folder / "deep" / "old.safetensors")
    content = (folder / "deep" / "old.safetensors").read_bytes()
    assert library.rename("deep/old.safetensors", " new name.safetensors ") == "deep/new name.safetensors"
    assert [path.name for path in (folder / "deep").iterdir()] == ["new name.safetensors"]
    assert (folder / "deep" / "new name.safetensors").read_bytes() == content
    assert library.rename("deep/new name.safetensors", "new name") == "deep/new name.safetensors"


@pytest.mark.parametrize(
    "name",
    ["", "  ", ".hidden", "..", "../out", "a/b", "a\\b", "/etc/x", "C:x", "a\0b", "a\nb", "x" * 121, "ü" * 110,
     "a.", "a.safetensors.", "a\x7fb", "a\x85b", "a\u2028b", "a\u202egnp", "\u200fa", "a\u2066b", "a\ud83e", "\ufeffa"],
)  # fmt: skip
def test_a_new_name_cannot_leave_the_folder(pack, library, folder, refused, name):
    qs.save_preset(preset(), folder / "one.safetensors")
    with refused(pack("qsched_core").PresetError, "is no file name."):
        library.rename("one.safetensors", name)
    assert [path.name for path in folder.parent.rglob("*.safetensors")] == ["one.safetensors"]


@pytest.mark.parametrize(
    "name", ["CON", "con", "Nul.tar", "aux .x", "PRN", "com1", "LPT9.a.b", "COM\u00b9", "conin$", "nul.safetensors"]
)
def test_a_name_of_a_windows_device_is_refused(pack, folder, refused, name):
    with refused(pack("qsched_core").PresetError, "names a device on Windows."):
        pack("nodes.host.folders").file_stem(name)


@pytest.mark.parametrize(
    "name",
    ["console", "com", "com10", "null", "my con", "Zebra \u0645\u0631\u062d\u0628\u0627", "v1.2", "a\u200cb"]
    + [chr(0x1F98A)],  # an emoji, which no console of Windows prints
)
def test_a_name_that_people_give_is_taken(pack, name):
    assert pack("nodes.host.folders").file_stem(name) == name
    assert pack("nodes.host.folders").file_stem(f"{name}.SafeTensors") == name


def test_what_is_listed_can_be_loaded(library, folder):
    """Regression: the host lists every case of the suffix, and a preset named .SAFETENSORS was refused by its list."""
    qs.save_preset(preset(), folder / "LOUD.SAFETENSORS")
    assert "error" not in next(entry for entry in library.entries() if entry["name"] == "LOUD.SAFETENSORS")
    assert library.load("LOUD.SAFETENSORS").steps == 4
    assert library.rename("LOUD.SAFETENSORS", "loud") == "loud.safetensors"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("target", ["nowhere", "mine.safetensors"], ids=["dangling", "to itself"])
def test_an_import_beside_a_link_that_leads_nowhere_gets_another_name(library, folder, tmp_path, target):
    """Regression: it looped for ever, and took the page down."""
    qs.save_preset(preset(), tmp_path / "given.safetensors")
    folder.mkdir()
    (folder / "mine.safetensors").symlink_to(folder / target)
    content = (tmp_path / "given.safetensors").read_bytes()
    assert library.import_preset("mine.safetensors", content) == ("mine (2).safetensors", True)
    assert (folder / "mine.safetensors").is_symlink()
    assert not (folder / "nowhere").exists()


@pytest.mark.timeout(60)
def test_an_import_into_a_dangling_link_is_refused(pack, library, folder, refused, tmp_path):
    qs.save_preset(preset(), tmp_path / "given.safetensors")
    folder.symlink_to(tmp_path / "nowhere")
    with refused(pack("qsched_core").PresetError, "there is no folder for presets."):
        library.import_preset("mine.safetensors", (tmp_path / "given.safetensors").read_bytes())


def test_an_import_leaves_a_picture_from_elsewhere_outside(library, folder, tmp_path):
    """The host's sidebar would load it, and its server would see who looks."""
    qs.save_preset(preset(card={"modelspec.thumbnail": picture_uri("PNG")}), tmp_path / "given.safetensors")
    content = (tmp_path / "given.safetensors").read_bytes()
    library.import_preset("same.safetensors", content)
    assert (folder / "same.safetensors").read_bytes() == content
    address = b"https://example.org/?" + b"a" * (len(picture_uri("PNG")) - 21)
    library.import_preset("evil.safetensors", content.replace(picture_uri("PNG").encode(), address))
    assert b"example.org" not in (folder / "evil.safetensors").read_bytes()
    assert library.load("evil.safetensors").card == {}


def test_an_import_on_a_full_disk_leaves_nothing(pack, library, folder, refused, tmp_path, monkeypatch):
    """Regression: it left an empty file of the preset's name, which was listed as a broken preset."""
    qs.save_preset(preset(), tmp_path / "given.safetensors")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pack("qsched_core.atomic").os, "fsync", full)
    with refused(pack("qsched_core").PresetError, "No space left on device", "free some space"):
        library.import_preset("mine.safetensors", (tmp_path / "given.safetensors").read_bytes())
    assert list(folder.iterdir()) == []


def test_renaming_overwrites_nothing(pack, library, folder, refused):
    for name in ("one", "two"):
        qs.save_preset(preset(card={"modelspec.title": name}), folder / f"{name}.safetensors")
    with refused(pack("qsched_core").PresetError, "two.safetensors is there already."):
        library.rename("one.safetensors", "two")
    assert [library.entry(f"{name}.safetensors")["title"] for name in ("one", "two")] == ["one", "two"]


@pytest.mark.parametrize("name", ["gone.safetensors", "../one.safetensors", "/etc/passwd", ""])
def test_only_presets_are_renamed(pack, library, folder, refused, name):
    folder.mkdir()
    (folder.parent / "one.safetensors").write_bytes(b"x")
    with refused(pack("qsched_core").PresetError, f"is not in {str(folder)[:20]}"):
        library.rename(name, "two")
    assert (folder.parent / "one.safetensors").exists()


def test_what_came_with_the_pack_keeps_its_name(pack, library, refused):
    name = library.entries()[0]["name"]
    with refused(pack("qsched_core").PresetError, "came with the pack"):
        library.rename(name, "mine")
    assert (ROOT / "presets" / name).exists()


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        ("mine.safetensors", "mine.safetensors"),
        ("../../mine.safetensors", "mine.safetensors"),
        ("C:\\Users\\me\\mine.safetensors", "mine.safetensors"),
        ('a<b>:"c?.safetensors', "a b c.safetensors"),
        ("CON.safetensors", "preset CON.safetensors"),
        ("a\u202egnp.safetensors", "a gnp.safetensors"),
        ("a\udcffb\x85.SAFETENSORS", "a b.safetensors"),
        ("trailing. . .safetensors", "trailing.safetensors"),
        (".safetensors", "preset.safetensors"),
        ("..", "preset.safetensors"),
        ("ü" * 200 + ".safetensors", "ü" * 60 + ".safetensors"),
    ],
)
def test_an_imported_file_gets_a_name_in_the_folder(library, folder, tmp_path, name, becomes):
    qs.save_preset(preset(), tmp_path / "given.safetensors")
    content = (tmp_path / "given.safetensors").read_bytes()
    qs.save_preset(preset(card={"modelspec.title": "another"}), tmp_path / "other.safetensors")
    assert library.import_preset(name, content) == (becomes, True)
    second = becomes.replace(".safe", " (2).safe")
    assert library.import_preset(name, (tmp_path / "other.safetensors").read_bytes()) == (second, True)
    assert sorted(path.name for path in folder.iterdir()) == sorted({becomes, second})


def test_a_file_that_is_there_already_is_not_added_again(library, folder, tmp_path):
    """Regression: dropping a file twice made "mine (2)"."""
    qs.save_preset(preset(), tmp_path / "given.safetensors")
    content = (tmp_path / "given.safetensors").read_bytes()
    assert library.import_preset("mine.safetensors", content) == ("mine.safetensors", True)
    assert library.import_preset("another name.safetensors", content) == ("mine.safetensors", False)
    (shipped,) = (ROOT / "presets").glob("SDXL*")
    assert library.import_preset("turbo.safetensors", shipped.read_bytes()) == (shipped.name, False)
    assert [path.name for path in folder.iterdir()] == ["mine.safetensors"]


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x89PNG\r\n\x1a\n" + b"\xff" * 40, b"\x80\x04." + b"\0" * 50])
def test_what_is_no_preset_never_gets_a_name(pack, library, folder, refused, content):
    with refused(pack("qsched_core").PresetError, "no preset in this picture" if content[1:4] == b"PNG" else "mine."):
        library.import_preset("mine.safetensors", content)
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_to_is_said(pack, library, folder, refused, tmp_path):
    """A file in the folder's place: tests may run as root, whom no permission stops."""
    error = pack("qsched_core").PresetError
    qs.save_preset(preset(), tmp_path / "given.safetensors")
    folder.write_text("a file")
    with refused(error, "there is no folder for presets.", f"make {folder} a folder"):
        library.import_preset("mine.safetensors", (tmp_path / "given.safetensors").read_bytes())
    with refused(error, "cannot write", "choose a writable folder"):
        pack("nodes.presets").QSchedSavePreset.execute(preset(), "mine", "", "", "")


def test_a_rename_that_fails_leaves_no_empty_file(pack, library, folder, refused, monkeypatch):
    qs.save_preset(preset(), folder / "one.safetensors")

    def fail(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pack("qsched_core.atomic").os, "link", fail)
    with refused(pack("qsched_core").PresetError, "Permission denied"):
        library.rename("one.safetensors", "two")
    assert [path.name for path in folder.iterdir()] == ["one.safetensors"]


# --- deleting, and undoing that


@pytest.fixture
def trash(pack, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_system_user_directory", lambda name: str(tmp_path / "system" / name))
    return pack("nodes.library.trash")


def test_a_deleted_preset_is_gone_until_that_is_undone(library, trash, folder):
    qs.save_preset(preset(), folder / "deep" / "mine.safetensors")
    content = (folder / "deep" / "mine.safetensors").read_bytes()
    token = trash.delete("deep/mine.safetensors")
    assert [entry["shipped"] for entry in library.entries()] == [True, True, True]
    (folder / "deep").rmdir()
    assert trash.restore(token) == "deep/mine.safetensors"
    assert (folder / "deep" / "mine.safetensors").read_bytes() == content
    assert list(trash._folder().iterdir()) == []


def test_a_deletion_cannot_be_undone_twice_nor_over_another_file(pack, trash, folder, refused):
    error = pack("qsched_core").PresetError
    qs.save_preset(preset(), folder / "mine.safetensors")
    token = trash.delete("mine.safetensors")
    qs.save_preset(preset(card={"modelspec.title": "another"}), folder / "mine.safetensors")
    with refused(error, "mine.safetensors is there already."):
        trash.restore(token)
    assert qs.load_preset(folder / "mine.safetensors").card["modelspec.title"] == "another"
    (folder / "mine.safetensors").unlink()
    trash.restore(token)
    with refused(error, "cannot come back"):
        trash.restore(token)


@pytest.mark.parametrize("token", ["", "..", "../../x", "0" * 32, "g" * 32, "\0" * 32])
def test_only_what_was_deleted_comes_back(pack, trash, folder, refused, token):
    with refused(pack("qsched_core").PresetError, "cannot come back"):
        trash.restore(token)


def test_what_came_with_the_pack_and_what_is_no_preset_cannot_be_deleted(pack, library, trash, folder, refused):
    error, name = pack("qsched_core").PresetError, library.entries()[0]["name"]
    with refused(error, "came with the pack"):
        trash.delete(name)
    with refused(error, "secret.safetensors' is not in "):
        trash.delete("../../secret.safetensors")
    assert (ROOT / "presets" / name).exists()


def test_the_oldest_deleted_presets_go_for_good(trash, folder, monkeypatch):
    monkeypatch.setattr(trash, "MAX_DELETED", 2)
    tokens = []
    for number in range(4):
        qs.save_preset(preset(), folder / f"{number}.safetensors")
        tokens.append(trash.delete(f"{number}.safetensors"))
        os.utime(trash._origin(tokens[-1]), (number, number))
    assert len(list(trash._folder().iterdir())) == 4
    assert [trash.restore(token) for token in tokens[-2:]] == ["2.safetensors", "3.safetensors"]


# --- the card


class Hidden:
    unique_id = None
    prompt = {"1": {"class_type": "QSchedSavePreset", "inputs": {}}}
    extra_pnginfo = {"workflow": {"nodes": [], "extra": {"words": HTML}}}


def saved(pack, folder, monkeypatch, instance=None, name: str = "mine", **inputs) -> tuple[qs.Preset, str]:
    """(What Save wrote, what it said)."""
    node = pack("nodes.presets").QSchedSavePreset
    monkeypatch.setattr(node, "hidden", Hidden)
    result = node.execute(instance or preset({"gain": GAIN}, verdict="accepted"), name, "", "CC0-1.0", "", **inputs)
    return qs.load_preset(folder / result.args[0]), str(result.ui)


def test_save_writes_a_card_and_the_workflow(pack, folder, monkeypatch):
    pair = torch.stack([torch.zeros(256, 256, 3), torch.ones(256, 256, 3)])
    result, text = saved(pack, folder, monkeypatch, thumbnail=pair)
    assert json.loads(result.card["workflow"]) == Hidden.extra_pnginfo["workflow"]
    assert json.loads(result.card["prompt"]) == Hidden.prompt
    assert "accepted, held-out JAQ gain +0.0200 [+0.0100, +0.0300]" in result.card["modelspec.description"]
    encoded = result.card["modelspec.thumbnail"].removeprefix("data:image/jpeg;base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert picture.size == (256, 128)
    assert [picture.getpixel((x, 64))[0] for x in (32, 224)] == pytest.approx([0, 255], abs=4)
    assert "workflow is not in it" not in text


def test_without_workflow_none_is_in_the_file_not_even_an_earlier_one(pack, folder, monkeypatch):
    first, _ = saved(pack, folder, monkeypatch)
    again, _ = saved(pack, folder, monkeypatch, first, with_workflow=False)
    assert not {"workflow", "prompt"} & set(again.card)
    assert again.record == {"gain": GAIN}


def test_what_an_author_said_is_kept_when_somebody_else_saves_it(pack, library, folder, monkeypatch):
    shipped = library.load(library.entries()[1]["name"])
    again, _ = saved(pack, folder, monkeypatch, shipped)
    assert again.card["modelspec.description"].startswith("Published values, not verified here.")
    twice, _ = saved(pack, folder, monkeypatch, again)
    assert twice.card["modelspec.description"] == again.card["modelspec.description"]


def test_a_workflow_that_is_too_large_is_left_out_and_that_is_said(pack, folder, monkeypatch):
    monkeypatch.setattr(Hidden, "extra_pnginfo", {"workflow": {"words": "x" * 1_100_000}})
    result, text = saved(pack, folder, monkeypatch)
    assert "workflow" not in result.card
    assert "The workflow is not in it" in text


def test_with_disable_metadata_no_file_says_how_it_was_made(pack, folder, monkeypatch):
    """Regression: pictures obeyed the host's flag, presets carried prompts and workflow all the same."""
    first, _ = saved(pack, folder, monkeypatch)
    monkeypatch.setattr(pack("nodes.library.card").args, "disable_metadata", True)
    again, text = saved(pack, folder, monkeypatch, first)
    assert not {"workflow", "prompt"} & set(again.card)
    assert again.card["modelspec.title"] == "mine"
    assert "--disable-metadata" in text
    content = pack("nodes.library.files").picture("mine.safetensors")
    with Image.open(io.BytesIO(content)) as picture:
        assert set(picture.text) == {"qsched_preset"}
    assert not {"workflow", "prompt"} & set(
        qs.parse_preset(pack("nodes.library.picture").carried_preset("a.png", content)[1], "a").card
    )


def test_the_share_picture_carries_the_workflow_and_no_more(pack, folder, monkeypatch):
    result, _ = saved(pack, folder, monkeypatch, name=HTML.replace("/", "").replace("<", "").translate(NO_SIGNS))
    with Image.open(io.BytesIO(pack("nodes.library.picture").share_picture(result))) as picture:
        assert picture.size == (1200, 630)
        assert set(picture.text) == {"workflow", "prompt"}  # of a preset that has no file
        assert json.loads(picture.text["workflow"]) == Hidden.extra_pnginfo["workflow"]


@pytest.mark.parametrize("name", ["mine.png", "mine.qsched.png", "mine.qsched (3).png", "mine.qsched(3).PNG"])
def test_the_share_picture_carries_the_preset_byte_for_byte(library, folder, name):
    qs.save_preset(preset(card={"workflow": json.dumps({"nodes": []})}), folder / "mine.safetensors")
    content = (folder / "mine.safetensors").read_bytes()
    shared = library.picture("mine.safetensors")
    assert library.import_preset(name, shared) == ("mine.safetensors", False)
    (folder / "mine.safetensors").unlink()
    assert library.import_preset(name, shared) == ("mine.safetensors", True)
    assert (folder / "mine.safetensors").read_bytes() == content


@pytest.mark.parametrize("cut", [9, 40, 3000])
def test_a_share_picture_that_is_cut_or_changed_is_refused(pack, library, folder, refused, cut):
    qs.save_preset(preset(), folder / "mine.safetensors")
    shared = library.picture("mine.safetensors")
    at = shared.index(b"qsched_preset")
    for hostile in (shared[: min(cut, at)], shared[:at] + b"\xff" * len(shared[at:]), shared[: at + 20] + b"!!"):
        with refused(pack("qsched_core").PresetError, "no preset in this picture"):
            library.import_preset("mine.png", hostile)
    text = shared[at + 14 :]
    with refused(pack("qsched_core").PresetError, ""):
        library.import_preset("mine.png", shared[: at + 14] + b"AAAA" + text[4:])


NO_SIGNS = str.maketrans(dict.fromkeys('">|:?*', ""))


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_a_share_picture_can_be_drawn_of_any_number_of_steps(pack, steps):
    sigmas = [1 - step / steps for step in range(steps + 1)]
    title = "\u4e2d\u6587 " * 50 + HTML
    instance = qs.Preset(qs.Coefficients.ramp(steps, c_x=(0.5, 1.5)), sigmas, card={"modelspec.title": title})
    assert len(pack("nodes.library.picture").share_picture(instance)) > 5000


# --- what fits a graph


QUANTIZER = ("format", "group_size", "recipe", "scales")


def told(models=(), quantizers=(), samplers=()) -> dict:
    """Each quantiser's values in the order of QUANTIZER; what is left out is not known."""
    return {
        "models": [{"loader": loader, "file": file} for loader, file in models],
        "quantizers": [dict(zip(QUANTIZER, item.split(), strict=False)) for item in quantizers],
        "samplers": list(samplers),
    }


DEMO = [("QSchedDemoModel", "")]
SAME_LABEL, OTHER = "w4a8 64 compact symmetric", "w4a8 32 compact symmetric"
FOUR = {"steps": 4, "sampler": "euler", "scheduler": "simple", "cfg": 1}
BOUND = {
    "model": "FluxSchnell",
    "quantization": "w4a8/g64",
    "sampler": "euler",
    "scheduler": "simple",
    "cfg": 1.0,
}


@pytest.mark.parametrize(
    ("graph", "fits", "differs", "unknown"),
    [
        (told(DEMO, [SAME_LABEL], [FOUR]), True, [], []),
        (told(DEMO, ["w4a8"], [FOUR]), True, [], ["quantization"]),
        (told(DEMO, ["w4a8 64 stock symmetric"], [FOUR]), True, [], ["quantization"]),
        (told(DEMO, [OTHER], [FOUR]), False, ["quantization: preset w4a8/g64, here w4a8/g32"], []),
        (told(DEMO, ["w8a8"], [FOUR]), False, ["quantization: preset w4a8/g64, here w8a8"], []),
        (told(DEMO, [], [FOUR]), False, ["quantization: preset w4a8/g64, here none"], []),
        (told(DEMO, [""], [FOUR]), True, [], ["quantization"]),
        (told(DEMO, [SAME_LABEL], [{**FOUR, "steps": 8}]), False, ["steps: preset 4, here 8"], []),
        (told(DEMO, [SAME_LABEL], [{**FOUR, "cfg": 2.5}]), False, ["cfg: preset 1, here 2.5"], []),
        (told(DEMO, [SAME_LABEL], [{**FOUR, "steps": 8}, FOUR]), True, [], []),
        (told([("SomebodysLoader", "x.safetensors")], [SAME_LABEL], [FOUR]), None, [], ["model"]),
        (told([("UNETLoader", "gone.safetensors")], [SAME_LABEL]), None, [], ["model"]),
        (told([], [SAME_LABEL], [{"sampler": "lcm"}]), False, ["sampler: preset euler, here lcm"], ["model"]),
    ],
)  # fmt: skip
def test_a_preset_fits_a_graph_or_not_and_why(pack, graph, fits, differs, unknown):
    matching = pack("nodes.library.matching")
    match = matching.match(preset(**BOUND), matching.read_graph(graph))
    assert match.fits is fits
    assert [str(item) for item in match.differs] == differs
    assert list(match.unknown) == unknown


@pytest.mark.parametrize("family", ["sd15", "flux1-schnell", "flux2-klein"])
def test_the_family_in_a_file_is_what_its_loader_gives(pack, family, monkeypatch):
    import comfy.sd
    import folder_paths

    path = write(family, CACHE / "random-models")
    monkeypatch.setattr(folder_paths, "get_full_path", lambda folder, name: str(path))
    loader = "CheckpointLoaderSimple" if family == "sd15" else "UNETLoader"
    binding = pack("nodes.library.matching").known_model(loader, path.name)
    if family == "sd15":
        model = comfy.sd.load_checkpoint_guess_config(str(path), output_vae=False, output_clip=False)[0]
    else:
        model = comfy.sd.load_diffusion_model(str(path))
    bound = pack("nodes.host.model_info").describe(model, "", "", 1.0)
    assert (binding.family, binding.quantization) == (bound.model, bound.quantization)


def test_a_quantized_file_says_itself_what_it_is(pack, demo, tmp_path, monkeypatch):
    import folder_paths

    model = pack("nodes.quantization.twin_model").quantized_twin(
        demo[0], pack("nodes.quantization.backends").job_for(demo[0], "w4a8")
    )[0]
    path = tmp_path / "quantised.safetensors"
    pack("nodes.quantization.files").save_model(model, path)
    monkeypatch.setattr(folder_paths, "get_full_path", lambda folder, name: str(path))
    bound = pack("nodes.host.model_info").describe(model, "", "", 1.0)
    matching = pack("nodes.library.matching")
    binding = matching.known_model("QSchedLoadQuantized", path.name)
    assert (binding.family, binding.fingerprint, binding.quantization) == (
        bound.model,
        bound.fingerprint,
        bound.quantization,
    )
    another = preset(model=bound.model, fingerprint="0123456789abcdef")
    graph = matching.read_graph(told([("QSchedLoadQuantized", path.name)]))
    assert [item.what for item in matching.match(another, graph).differs] == ["fingerprint"]


@pytest.mark.parametrize(
    "graph",
    [
        None,
        [],
        {"models": "x"},
        {"models": [1, {"loader": 5, "file": {}}]},
        {"samplers": [{"steps": "4", "cfg": True}]},
    ],
)
def test_a_graph_that_is_none_is_one_of_which_nothing_is_known(pack, graph):
    matching = pack("nodes.library.matching")
    assert matching.match(preset(**BOUND), matching.read_graph(graph)).fits is None


# --- the routes


def posted(server, path: str, body: bytes, kind: str, page: bool = True, **headers) -> tuple[int, dict]:
    """(Status, JSON)."""
    headers = {"Content-Type": kind, **({"X-QSched-Page": "1"} if page else {}), **headers}
    call = urllib.request.Request(server.client.base_url + path, body, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(call, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as failure:
        with failure:
            return failure.code, json.loads(failure.read())


def form(name: str, content: bytes) -> bytes:
    head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode("utf-8", "surrogateescape") + content + b"\r\n--x--\r\n"


def uploaded(server, name: str, content: bytes, page: bool = True, **headers) -> tuple[int, dict]:
    body = form(name, content)
    return posted(server, "/qsched/presets/import", body, "multipart/form-data; boundary=x", page, **headers)


def test_import_list_match_picture_and_rename_over_http(server, tmp_path):
    qs.save_preset(preset(card={"modelspec.title": HTML}, **BOUND), tmp_path / "given.safetensors")
    status, answer = uploaded(server, "../../../shared.safetensors", (tmp_path / "given.safetensors").read_bytes())
    assert (status, answer) == (200, {"name": "shared.safetensors", "added": True})
    listing = server.client.post("/qsched/presets", told(DEMO, [SAME_LABEL], [FOUR]))
    names = {entry["name"]: entry for entry in listing["presets"]}
    assert names["shared.safetensors"]["title"] == HTML
    assert [entry["shipped"] for entry in names.values()].count(True) == 3
    assert listing["models"] == ["FluxSchnell"]
    assert names["shared.safetensors"]["match"] == {"fits": True, "differs": [], "unknown": []}
    turbo = names["SDXL-Turbo W4A4 (published).safetensors"]["match"]
    assert turbo["differs"][0] == {"what": "model", "preset": "SDXL", "here": "FluxSchnell"}
    order = list(names)
    assert order.index("shared.safetensors") < order.index("SDXL-Turbo W4A4 (published).safetensors"), "fits first"
    ordered = server.client.post("/qsched/presets/names", told(DEMO, [SAME_LABEL], [FOUR]))["names"]
    assert ordered == list(names)
    picture = server.client.read("/qsched/presets/picture?name=shared.safetensors")
    assert Image.open(io.BytesIO(picture)).size == (1200, 630)
    renamed = server.client.post("/qsched/presets/rename", {"name": "shared.safetensors", "new_name": "theirs"})
    assert renamed == {"name": "theirs.safetensors"}
    path = server.folder("models") / "qsched_presets" / "theirs.safetensors"
    assert path.exists()
    undo = server.client.post("/qsched/presets/delete", {"name": "theirs.safetensors"})
    assert not path.exists()
    assert server.client.post("/qsched/presets/undo", undo) == {"name": "theirs.safetensors"}
    assert path.exists()


def test_a_preset_that_is_deleted_while_a_graph_uses_it_is_named_by_the_next_run(server, tmp_path):
    qs.save_preset(preset(), tmp_path / "given.safetensors")
    uploaded(server, "soon gone.safetensors", (tmp_path / "given.safetensors").read_bytes())
    graph = {
        "1": {"class_type": "QSchedLoadPreset", "inputs": {"preset_name": "soon gone.safetensors"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 1]}},
    }
    server.client.run(graph, timeout=60)
    undo = server.client.post("/qsched/presets/delete", {"name": "soon gone.safetensors"})
    with pytest.raises(PromptRefused) as caught:
        server.client.run(graph, timeout=60)
    assert "'soon gone.safetensors' is not in models/qsched_presets." in str(caught.value)
    server.client.post("/qsched/presets/undo", undo)
    server.client.run(graph, timeout=60)


def test_bad_requests_are_answered_with_a_reason(server):
    rename, listing, json_type = "/qsched/presets/rename", "/qsched/presets", "application/json"
    cases = [
        (posted(server, rename, b'{"name":"a","new_name":"b"}', "text/plain"), 415),
        (posted(server, rename, b"{", json_type), 400),
        (posted(server, rename, b"[" * 100_000, json_type), 400),
        (posted(server, rename, b'{"name":["a"],"new_name":"b"}', json_type), 400),
        (posted(server, rename, b'{"name":"../../x.safetensors","new_name":"b"}', json_type), 400),
        (posted(server, listing, b'"' + b"x" * 300_000 + b'"', json_type), 413),
        (posted(server, "/qsched/presets/delete", b'{"name":"../../x.safetensors"}', json_type), 400),
        (posted(server, "/qsched/presets/delete", b'{"name":null}', json_type), 400),
        (posted(server, "/qsched/presets/undo", b'{"undo":"../../x"}', json_type), 400),
        (posted(server, "/qsched/presets/import", b"{}", json_type), 415),
        (posted(server, "/qsched/presets/import", b"no parts", "multipart/form-data; boundary=x"), 400),
        (uploaded(server, "big.safetensors", b"\0" * 4_300_000), 413),
        (uploaded(server, "page.safetensors", b"<html>"), 400),
    ]
    assert [status for (status, _), _ in cases] == [expected for _, expected in cases]
    assert all(answer["error"].startswith("Q-Sched: ") for (_, answer), _ in cases)
    for name in ("", "../secret.safetensors", "gone.safetensors"):
        with pytest.raises(HttpFailure) as caught:
            server.client.read(f"/qsched/presets/picture?name={quote(name)}")
        assert caught.value.status == 404


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example"])
def test_what_changes_something_is_taken_from_the_page_alone(server, tmp_path, origin):
    """Regression: a form of another site could import a file where the browser sends no Sec-Fetch header, as it does
    to a plain-http address of the local network."""
    qs.save_preset(preset(), tmp_path / "given.safetensors")
    content = (tmp_path / "given.safetensors").read_bytes()
    headers = {"Host": "192.168.0.7:8188", **({"Origin": origin} if origin else {})}
    status, answer = uploaded(server, "forged.safetensors", content, page=False, **headers)
    assert (status, "ComfyUI's page" in answer["error"]) == (403, True)
    assert not list((server.folder("models") / "qsched_presets").glob("forged*"))
    # The page behind a reverse proxy: another Host, and an Origin that is not it.
    headers = {"Host": "10.0.0.5:8188", "Origin": "https://comfy.example"}
    assert uploaded(server, "proxied.safetensors", content, **headers)[0] == 200


def test_every_route_that_changes_something_wants_the_proof(pack, monkeypatch):
    """All of them, those of later files too: the pack registers its routes here as it does in the host."""
    import asyncio

    from aiohttp import web
    from aiohttp.test_utils import make_mocked_request

    class Server:
        routes = web.RouteTableDef()

    for name in ("calibrating.routes", "library.routes", "voting.routes"):
        monkeypatch.setattr(pack(f"nodes.{name}"), "page_server", Server)
    nodes = pack("nodes")
    adders = [value for name, value in vars(nodes).items() if name.startswith("add_") and "route" in name]
    for add in adders:
        add()
    writing = [route for route in Server.routes if route.method not in ("GET", "HEAD")]
    assert len(adders) == 3
    assert len(writing) >= 4
    for route in writing:
        with pytest.raises(web.HTTPForbidden):
            asyncio.run(route.handler(make_mocked_request(route.method, route.path)))


BAD_PARTS = {
    "a control character in the name": form("a\x01b.safetensors", b"x"),
    "a bell in the name": form("a\x07.safetensors", b"x"),
    "an endless header": b"--x\r\nContent-Disposition: form-data; filename="
    + b"a" * 100_000
    + b"\r\n\r\nx\r\n--x--\r\n",
    "a header without a colon": b"--x\r\nContent-Disposition\r\n\r\nx\r\n--x--\r\n",
    "a header with a blank in its name": b"--x\r\nContent Disposition: form-data\r\n\r\nx\r\n--x--\r\n",
    "a thousand headers": b"--x\r\n" + b"a: b\r\n" * 1000 + b"\r\nx\r\n--x--\r\n",
    "no end": b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.safetensors"\r\n\r\nxxx',
    "no end of the header": b'--x\r\nContent-Disposition: form-data; name="file"; filename="a',
    "parts in parts": b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n\r\nx\r\n--y--\r\n--x--\r\n",
    "parts in parts without a boundary": b"--x\r\nContent-Type: multipart/mixed\r\n\r\nx\r\n--x--\r\n",
    "not UTF-8": b'--x\r\nContent-Disposition: form-data; filename="\xff\xfe.safetensors"\r\n\r\nx\r\n--x--\r\n',
    "nothing": b"",
}


@pytest.mark.parametrize("case", BAD_PARTS)
def test_a_broken_upload_is_answered_with_a_reason(server, case):
    """Regression: control characters in a name, endless and broken headers were answered 500."""
    status, answer = posted(server, "/qsched/presets/import", BAD_PARTS[case], "multipart/form-data; boundary=x")
    assert (status, answer["error"].startswith("Q-Sched: ")) == (400, True)


def test_a_preset_saved_by_a_run_holds_the_workflow_it_came_from(server):
    workflow = {"id": "w", "nodes": [], "links": [], "version": 0.4}
    texts = {"name": "with recipe", "author": "", "license": "", "notes": ""}
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 2, "color": 255}},
        "2": {"class_type": "QSchedLoadPreset", "inputs": {"preset_name": "SDXL-Turbo W4A4 (published).safetensors"}},
        "3": {"class_type": "QSchedSavePreset", "inputs": {"preset": ["2", 0], "thumbnail": ["1", 0], **texts}},
    }
    server.client.wait(server.client.submit(graph, workflow), timeout=120)
    path = server.folder("models") / "qsched_presets" / "with recipe.safetensors"
    card = qs.load_preset(path).card
    assert json.loads(card["workflow"]) == workflow
    assert json.loads(card["prompt"]).keys() == graph.keys()
    told_by_host = server.client.get(f"/view_metadata/qsched_presets?filename={quote(path.name)}")
    assert told_by_host["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    assert not list((ROOT / "presets").glob("with recipe*"))


def test_a_preset_is_checked_off_the_servers_thread(pack, folder, monkeypatch):
    """The host validates a graph in the thread that answers every page."""
    import asyncio
    import threading

    core, presets = pack("qsched_core"), pack("nodes.presets")
    qs.save_preset(preset(), folder / "one.safetensors")
    threads = []
    load = core.load_preset
    monkeypatch.setattr(core, "load_preset", lambda path: [load(path), threads.append(threading.get_ident())])
    assert asyncio.run(presets.QSchedLoadPreset.validate_inputs("one.safetensors")) is True
    assert threads != [threading.get_ident()]
    assert "is not in" in asyncio.run(presets.QSchedLoadPreset.validate_inputs("gone.safetensors"))


@pytest.mark.parametrize("evil", ['<img src="https://example.org/a.png">', "![x](https://example.org/a.png)"])
def test_a_nodes_report_is_no_markup(pack, folder, evil):
    """Regression: the host's text preview takes it for HTML, and loaded a stranger's picture from his server."""
    qs.save_preset(preset(card={"modelspec.title": evil, "modelspec.description": evil}), folder / "evil.safetensors")
    result = pack("nodes.presets").QSchedLoadPreset.execute("evil.safetensors")
    for text in (result.args[1], str(result.ui)):
        assert "example.org" in text
        assert "<" not in text
        assert "![" not in text
    prompts = pack("nodes.prompts").QSchedPrompts.execute(prompts=["\n".join([evil, "<lora:a:1> b", "c", "d"])])
    assert prompts.args[0].texts[:2] == (evil, "<lora:a:1> b")
    assert "<" not in prompts.args[1]
    assert "\u2039lora:a:1> b" in prompts.args[1]
