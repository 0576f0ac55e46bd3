"""Where the user wants files: extra_model_paths.yaml, base and user directories, flags."""

from __future__ import annotations

import os
import time

import pytest

import qsched_core as qs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def paths(pack, tmp_path, monkeypatch):
    """The host's folders before ours are registered, with its base in tmp_path: ``read(yaml)`` reads a config as the
    host does, then registers ours; the result is the list of preset folders."""
    import folder_paths
    from comfy.cli_args import args
    from utils.extra_config import load_extra_path_config

    folders = pack("nodes.host.folders")
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    stock = {"diffusion_models": ("unet", "diffusion_models"), "text_encoders": ("text_encoders", "clip")}
    paths = {key: [str(tmp_path / "models" / name) for name in names] for key, names in stock.items()}
    names_and_paths = {key: (folders_of_kind, set()) for key, folders_of_kind in paths.items()}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", names_and_paths)

    def read(*texts: str) -> list[str]:
        configs = []
        for number, text in enumerate(texts):
            config = tmp_path / f"config {number}.yaml"
            config.write_text(text, "utf-8")
            load_extra_path_config(str(config))
            configs.append([str(config)])
        monkeypatch.setattr(args, "extra_model_paths_config", configs)
        folders.register_folders()
        return folder_paths.get_folder_paths("qsched_presets")

    return read


OURS = os.path.join("models", "qsched_presets")


@pytest.mark.parametrize(
    ("configs", "expected"),
    [
        ([], [OURS]),
        (["a: {qsched_presets: mine}"], [OURS, "mine"]),
        (["a: {base_path: base, is_default: true, qsched_presets: my presets}"], ["base/my presets", OURS]),
        (["a: {is_default: true, loras: x}\nb: {qsched_presets: mine}"], [OURS, "mine"]),
        (["a: {is_default: true, qsched_presets: x}\nb: {is_default: true, qsched_presets: y}"], ["y", "x", OURS]),
        (["a: {is_default: true, qsched_presets: \"one\\ntwo\\n\"}"], ["two", "one", OURS]),
        (["a: {qsched_presets: mine}", "a: {is_default: true, qsched_presets: other/}"], ["other", OURS, "mine"]),
        (["a:"], [OURS]),
    ],
)  # fmt: skip
def test_the_users_default_comes_first(pack, paths, tmp_path, configs, expected):
    """Regression: is_default was honoured for the host's folders and not for ours, nor any name but ours."""
    folders = pack("nodes.host.folders")
    assert paths(*configs) == [*(str(tmp_path / name) for name in expected), str(folders.SHIPPED_PRESETS)]
    assert folders.home("qsched_presets") == tmp_path / expected[0]


def test_stock_models_go_where_the_host_would_save_them(pack, paths, tmp_path):
    """The host lists an older name of the folder first."""
    folders = pack("nodes.host.folders")
    paths()
    assert folders.home("diffusion_models") == tmp_path / "models" / "diffusion_models"
    paths("a: {is_default: true, base_path: big disk, diffusion_models: nets}")
    assert folders.home("diffusion_models") == tmp_path / "big disk" / "nets"


def test_messages_name_the_real_folder(pack, paths, refused, tmp_path, monkeypatch):
    folders, error = pack("nodes.host.folders"), pack("qsched_core").PresetError
    paths()
    with refused(error, "'gone.safetensors' is not in models/qsched_presets."):
        folders.file_path("qsched_presets", "gone.safetensors")
    paths("a: {is_default: true, qsched_presets: mine}")
    with refused(error, "'gone.safetensors' is not in /"):
        folders.file_path("qsched_presets", "gone.safetensors")
    path = tmp_path / "mine"
    text = str(pack("nodes.presets").QSchedSavePreset.execute(preset(), "one", "", "", "").ui)
    assert f"Saved {path}/one.safetensors" in text
    assert (path / "one.safetensors").exists()


def test_what_killed_processes_left_goes_at_the_next_start(pack, paths, tmp_path, monkeypatch):
    import folder_paths

    paths("a: {is_default: true, qsched_presets: mine}")
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    old = time.time() - 7200
    names = ("qsched_models", "diffusion_models", "qsched_text_encoders", "text_encoders")
    places = ["mine", "mine/deep", *(f"models/{name}" for name in names), "user/__qsched/votes"]
    for place in places:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for name in (f".qsched-{'ab' * 16}.tmp", "theirs.tmp"):
            (tmp_path / place / name).mkdir()
            os.utime(tmp_path / place / name, (old, old))
    pack("nodes.host.folders").sweep_folders()
    assert [[path.name for path in (tmp_path / place).glob("*.tmp")] for place in places] == [["theirs.tmp"]] * len(
        places
    )


def preset() -> qs.Preset:
    return qs.Preset(qs.Coefficients.ramp(2, c_x=(1.02, 0.98)), (1.0, 0.5, 0.0))
