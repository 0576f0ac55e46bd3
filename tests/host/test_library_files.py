"""Files of presets are renamed and imported: under which names, and what is refused."""

from __future__ import annotations

import pytest
from shared_presets import picture_uri, preset

import qsched_core as qs
from scripts.layout import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")


def test_renaming_moves_the_file_and_nothing_else(preset_files, presets_folder):
    qs.save_preset(preset(), presets_folder / "deep" / "old.safetensors")
    content = (presets_folder / "deep" / "old.safetensors").read_bytes()
    assert preset_files.rename("deep/old.safetensors", " new name.safetensors ") == "deep/new name.safetensors"
    assert [path.name for path in (presets_folder / "deep").iterdir()] == ["new name.safetensors"]
    assert (presets_folder / "deep" / "new name.safetensors").read_bytes() == content
    assert preset_files.rename("deep/new name.safetensors", "new name") == "deep/new name.safetensors"


@pytest.mark.parametrize(
    "name",
    ["", "  ", ".hidden", "..", "../out", "a/b", "a\\b", "/etc/x", "C:x", "a\0b", "a\nb", "x" * 121, "ü" * 110,
     "a.", "a.safetensors.", "a\x7fb", "a\x85b", "a\u2028b", "a\u202egnp", "\u200fa", "a\u2066b", "a\ud83e", "\ufeffa"],
)  # fmt: skip
def test_a_new_name_cannot_leave_the_folder(pack, preset_files, presets_folder, refused, name):
    qs.save_preset(preset(), presets_folder / "one.safetensors")
    with refused(pack("qsched_core").PresetError, "is no file name."):
        preset_files.rename("one.safetensors", name)
    assert [path.name for path in presets_folder.parent.rglob("*.safetensors")] == ["one.safetensors"]


@pytest.mark.parametrize(
    "name", ["CON", "con", "Nul.tar", "aux .x", "PRN", "com1", "LPT9.a.b", "COM\u00b9", "conin$", "nul.safetensors"]
)
def test_a_name_of_a_windows_device_is_refused(pack, presets_folder, refused, name):
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


def test_what_is_listed_can_be_loaded(preset_files, presets_folder):
    """Regression: the host lists every case of the suffix, and a preset named .SAFETENSORS was refused by its list."""
    qs.save_preset(preset(), presets_folder / "LOUD.SAFETENSORS")
    assert "error" not in next(entry for entry in preset_files.entries() if entry["name"] == "LOUD.SAFETENSORS")
    assert preset_files.load("LOUD.SAFETENSORS").steps == 4
    assert preset_files.rename("LOUD.SAFETENSORS", "loud") == "loud.safetensors"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("target", ["nowhere", "mine.safetensors"], ids=["dangling", "to itself"])
def test_an_import_beside_a_link_that_leads_nowhere_gets_another_name(preset_files, presets_folder, tmp_path, target):
    """Regression: it looped for ever, and took the page down."""
    qs.save_preset(preset(), tmp_path / "given.safetensors")
    presets_folder.mkdir()
    (presets_folder / "mine.safetensors").symlink_to(presets_folder / target)
    content = (tmp_path / "given.safetensors").read_bytes()
    assert preset_files.import_preset("mine.safetensors", content) == ("mine (2).safetensors", True)
    assert (presets_folder / "mine.safetensors").is_symlink()
    assert not (presets_folder / "nowhere").exists()


@pytest.mark.timeout(60)
def test_an_import_into_a_dangling_link_is_refused(pack, preset_files, presets_folder, refused, tmp_path):
    qs.save_preset(preset(), tmp_path / "given.safetensors")
    presets_folder.symlink_to(tmp_path / "nowhere")
    with refused(pack("qsched_core").PresetError, "there is no folder for presets."):
        preset_files.import_preset("mine.safetensors", (tmp_path / "given.safetensors").read_bytes())


def test_an_import_leaves_a_picture_from_elsewhere_outside(preset_files, presets_folder, tmp_path):
    """The host's sidebar would load it, and its server would see who looks."""
    qs.save_preset(preset(card={"modelspec.thumbnail": picture_uri("PNG")}), tmp_path / "given.safetensors")
    content = (tmp_path / "given.safetensors").read_bytes()
    preset_files.import_preset("same.safetensors", content)
    assert (presets_folder / "same.safetensors").read_bytes() == content
    address = b"https://example.org/?" + b"a" * (len(picture_uri("PNG")) - 21)
    preset_files.import_preset("evil.safetensors", content.replace(picture_uri("PNG").encode(), address))
    assert b"example.org" not in (presets_folder / "evil.safetensors").read_bytes()
    assert preset_files.load("evil.safetensors").card == {}


def test_an_import_on_a_full_disk_leaves_nothing(pack, preset_files, presets_folder, refused, tmp_path, monkeypatch):
    """Regression: it left an empty file of the preset's name, which was listed as a broken preset."""
    qs.save_preset(preset(), tmp_path / "given.safetensors")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pack("qsched_core.atomic").os, "fsync", full)
    with refused(pack("qsched_core").PresetError, "No space left on device", "free some space"):
        preset_files.import_preset("mine.safetensors", (tmp_path / "given.safetensors").read_bytes())
    assert list(presets_folder.iterdir()) == []


def test_renaming_overwrites_nothing(pack, preset_files, presets_folder, refused):
    for name in ("one", "two"):
        qs.save_preset(preset(card={"modelspec.title": name}), presets_folder / f"{name}.safetensors")
    with refused(pack("qsched_core").PresetError, "two.safetensors is there already."):
        preset_files.rename("one.safetensors", "two")
    assert [preset_files.entry(f"{name}.safetensors")["title"] for name in ("one", "two")] == ["one", "two"]


@pytest.mark.parametrize("name", ["gone.safetensors", "../one.safetensors", "/etc/passwd", ""])
def test_only_presets_are_renamed(pack, preset_files, presets_folder, refused, name):
    presets_folder.mkdir()
    (presets_folder.parent / "one.safetensors").write_bytes(b"x")
    with refused(pack("qsched_core").PresetError, f"is not in {str(presets_folder)[:20]}"):
        preset_files.rename(name, "two")
    assert (presets_folder.parent / "one.safetensors").exists()


def test_what_came_with_the_pack_keeps_its_name(pack, preset_files, refused):
    name = preset_files.entries()[0]["name"]
    with refused(pack("qsched_core").PresetError, "came with the pack"):
        preset_files.rename(name, "mine")
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
def test_an_imported_file_gets_a_name_in_the_folder(preset_files, presets_folder, tmp_path, name, becomes):
    qs.save_preset(preset(), tmp_path / "given.safetensors")
    content = (tmp_path / "given.safetensors").read_bytes()
    qs.save_preset(preset(card={"modelspec.title": "another"}), tmp_path / "other.safetensors")
    assert preset_files.import_preset(name, content) == (becomes, True)
    second = becomes.replace(".safe", " (2).safe")
    assert preset_files.import_preset(name, (tmp_path / "other.safetensors").read_bytes()) == (second, True)
    assert sorted(path.name for path in presets_folder.iterdir()) == sorted({becomes, second})


def test_a_file_that_is_there_already_is_not_added_again(preset_files, presets_folder, tmp_path):
    """Regression: dropping a file twice made "mine (2)"."""
    qs.save_preset(preset(), tmp_path / "given.safetensors")
    content = (tmp_path / "given.safetensors").read_bytes()
    assert preset_files.import_preset("mine.safetensors", content) == ("mine.safetensors", True)
    assert preset_files.import_preset("another name.safetensors", content) == ("mine.safetensors", False)
    (shipped,) = (ROOT / "presets").glob("SDXL*")
    assert preset_files.import_preset("turbo.safetensors", shipped.read_bytes()) == (shipped.name, False)
    assert [path.name for path in presets_folder.iterdir()] == ["mine.safetensors"]


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x89PNG\r\n\x1a\n" + b"\xff" * 40, b"\x80\x04." + b"\0" * 50])
def test_what_is_no_preset_never_gets_a_name(pack, preset_files, presets_folder, refused, content):
    with refused(pack("qsched_core").PresetError, "no preset in this picture" if content[1:4] == b"PNG" else "mine."):
        preset_files.import_preset("mine.safetensors", content)
    assert not presets_folder.exists()


def test_a_folder_that_cannot_be_written_to_is_said(pack, preset_files, presets_folder, refused, tmp_path):
    """A file in the folder's place: tests may run as root, whom no permission stops."""
    error = pack("qsched_core").PresetError
    qs.save_preset(preset(), tmp_path / "given.safetensors")
    presets_folder.write_text("a file")
    with refused(error, "there is no folder for presets.", f"make {presets_folder} a folder"):
        preset_files.import_preset("mine.safetensors", (tmp_path / "given.safetensors").read_bytes())
    with refused(error, "cannot write", "choose a writable folder"):
        pack("nodes.presets").QSchedSavePreset.execute(preset(), "mine", "", "", "")


def test_a_rename_that_fails_leaves_no_empty_file(pack, preset_files, presets_folder, refused, monkeypatch):
    qs.save_preset(preset(), presets_folder / "one.safetensors")

    def fail(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pack("qsched_core.atomic").os, "link", fail)
    with refused(pack("qsched_core").PresetError, "Permission denied"):
        preset_files.rename("one.safetensors", "two")
    assert [path.name for path in presets_folder.iterdir()] == ["one.safetensors"]
