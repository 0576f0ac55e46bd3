"""Where the user wants files: extra_model_paths.yaml, base and user directories, flags."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

import qsched_core as qs
from scripts import server as comfyui
from scripts.client import HttpFailure

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


def test_a_server_with_every_setting_writes_where_it_was_told(host, tmp_path):
    """Base, user and output directory, a default of the user's, many users, and no metadata: one start for all."""
    base = tmp_path / "base"
    config = tmp_path / "extra.yaml"
    config.write_text(f"mine:\n  base_path: {tmp_path}\n  is_default: true\n  qsched_presets: my presets\n", "utf-8")
    flags = [
        *("--cpu", "--multi-user", "--disable-metadata", "--extra-model-paths-config", str(config)),
        *("--user-directory", str(tmp_path / "people"), "--output-directory", str(tmp_path / "out")),
        *("--temp-directory", str(tmp_path / "scratch")),
    ]
    left = tmp_path / "my presets" / f".qsched-{'0' * 32}.tmp"
    left.mkdir(parents=True)
    (tmp_path / "people").mkdir()
    (left / "file").write_bytes(b"half")
    for path in (left / "file", left):
        os.utime(path, (time.time() - 7200,) * 2)
    texts = {"name": "mine", "author": "", "license": "", "notes": ""}
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
        "2": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
        "3": {"class_type": "QSchedLoadPreset", "inputs": {"preset_name": "SDXL-Turbo W4A4 (published).safetensors"}},
        "4": {"class_type": "QSchedArena", "inputs": {"without": ["1", 0], "with_preset": ["2", 0]}},
        "5": {"class_type": "QSchedSavePreset", "inputs": {"preset": ["3", 0], **texts}},
    }
    with comfyui.running(host, Path(sys.executable), base=base, flags=flags) as server:
        outputs = server.client.wait(server.client.submit(graph, {"id": "w", "nodes": []}), timeout=120)["outputs"]
        (key,) = outputs["4"]["qsched_arena"]
        assert server.client.post("/qsched/arena/vote", {"key": key, "pair": 0, "choice": "skip"})["votes"] == ["skip"]
        with pytest.raises(HttpFailure):  # no user reads it
            server.client.read(f"/userdata/..%2F__qsched%2Fvotes%2F{key}.json")
    assert f"Saved {tmp_path / 'my presets'}/mine.safetensors" in json.dumps(outputs["5"])
    saved = qs.load_preset(tmp_path / "my presets" / "mine.safetensors")
    assert not {"workflow", "prompt"} & set(saved.card)
    assert not left.exists()
    assert (tmp_path / "people" / "__qsched" / "votes" / f"{key}.json").exists()
    files = [path for path in base.rglob("*") if path.is_file() and path.suffix in (".safetensors", ".tmp", ".json")]
    assert [path for path in files if "custom_nodes" not in path.parts] == []
