"""Presets that are deleted, and come back when that is undone."""

from __future__ import annotations

import os

import pytest
from shared_presets import preset

import qsched_core as qs
from scripts.layout import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def trash(pack, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_system_user_directory", lambda name: str(tmp_path / "system" / name))
    return pack("nodes.library.trash")


def test_a_deleted_preset_is_gone_until_that_is_undone(preset_files, trash, presets_folder):
    qs.save_preset(preset(), presets_folder / "deep" / "mine.safetensors")
    content = (presets_folder / "deep" / "mine.safetensors").read_bytes()
    token = trash.delete("deep/mine.safetensors")
    assert [entry["shipped"] for entry in preset_files.entries()] == [True, True, True]
    (presets_folder / "deep").rmdir()
    assert trash.restore(token) == "deep/mine.safetensors"
    assert (presets_folder / "deep" / "mine.safetensors").read_bytes() == content
    assert list(trash._folder().iterdir()) == []


def test_a_deletion_cannot_be_undone_twice_nor_over_another_file(pack, trash, presets_folder, refused):
    error = pack("qsched_core").PresetError
    qs.save_preset(preset(), presets_folder / "mine.safetensors")
    token = trash.delete("mine.safetensors")
    qs.save_preset(preset(card={"modelspec.title": "another"}), presets_folder / "mine.safetensors")
    with refused(error, "mine.safetensors is there already."):
        trash.restore(token)
    assert qs.load_preset(presets_folder / "mine.safetensors").card["modelspec.title"] == "another"
    (presets_folder / "mine.safetensors").unlink()
    trash.restore(token)
    with refused(error, "cannot come back"):
        trash.restore(token)


@pytest.mark.parametrize("token", ["", "..", "../../x", "0" * 32, "g" * 32, "\0" * 32])
def test_only_what_was_deleted_comes_back(pack, trash, presets_folder, refused, token):
    with refused(pack("qsched_core").PresetError, "cannot come back"):
        trash.restore(token)


def test_what_came_with_the_pack_and_what_is_no_preset_cannot_be_deleted(
    pack, preset_files, trash, presets_folder, refused
):
    error, name = pack("qsched_core").PresetError, preset_files.entries()[0]["name"]
    with refused(error, "came with the pack"):
        trash.delete(name)
    with refused(error, "secret.safetensors' is not in "):
        trash.delete("../../secret.safetensors")
    assert (ROOT / "presets" / name).exists()


def test_the_oldest_deleted_presets_go_for_good(trash, presets_folder, monkeypatch):
    monkeypatch.setattr(trash, "MAX_DELETED", 2)
    tokens = []
    for number in range(4):
        qs.save_preset(preset(), presets_folder / f"{number}.safetensors")
        tokens.append(trash.delete(f"{number}.safetensors"))
        os.utime(trash._origin(tokens[-1]), (number, number))
    assert len(list(trash._folder().iterdir())) == 4
    assert [trash.restore(token) for token in tokens[-2:]] == ["2.safetensors", "3.safetensors"]
