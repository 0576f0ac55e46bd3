"""A real ComfyUI with the pack in it, started once for all host tests."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from demo_model import PROMPTS
from host_at_hand import host_at_hand
from module_files import beside
from twin_layers import layers_of

from scripts import server as comfyui
from scripts.host import Host
from scripts.layout import NEWER_NODES


@pytest.fixture(scope="session")
def host() -> Host:
    """The ComfyUI to test on."""
    return host_at_hand()


@pytest.fixture(scope="session")
def server(host: Host) -> Iterator[comfyui.Server]:
    """The running server: `.client` to talk to it, `.base` for its folders, `.log_text()` for what it printed.

    Beside ours it has the pack `test_nodes`: what stands in for nodes whose models cannot be had here, and what stands
    in for nodes of newer hosts.
    """
    extra = [Path(__file__).with_name("test_nodes"), NEWER_NODES]
    with comfyui.running(host, Path(sys.executable), extra_packs=extra) as running:
        yield running


@pytest.fixture(scope="session")
def pack(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ModuleType]]:
    """Modules of the pack inside this process: `pack("nodes.sampling.patch")`, and the host's own are imported. Its
    user's folder is a new one: what an earlier run kept there would decide what this one computes."""
    inside = beside(__file__, "inside")
    inside.import_host(host.path)
    sys.modules["folder_paths"].set_user_directory(str(tmp_path_factory.mktemp("user")))
    with torch.inference_mode():  # as the host runs nodes
        yield inside.pack


@pytest.fixture(scope="session")
def errors(pack: Callable[[str], ModuleType]) -> ModuleType:
    """The pack's own classes, not the checkout's."""
    return pack("qsched_core")


@pytest.fixture
def one_damping(pack: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are fitted once and not three times, where it is not looked at how well."""
    monkeypatch.setattr(pack("qsched_core.quant.fitting"), "DAMPINGS", (0.1,))


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """``tiny.py``: a tiny MODEL, its inputs, and the core's samplers as the host's."""
    return beside(__file__, "tiny")


@pytest.fixture(scope="module")
def models(pack: Callable[[str], ModuleType], tiny: ModuleType) -> dict:
    """A MODEL of one block in each of the host's parameterisations."""
    return {kind: tiny.model(kind, **tiny.ONE_BLOCK) for kind in tiny.KINDS}


@pytest.fixture(scope="session")
def demo(pack: Callable[[str], ModuleType]) -> tuple:
    """(MODEL, CLIP, VAE) of the demo, as its node loads them; its judge compares with fewer drawn scenes, which are the
    same way in a tenth of the time."""
    pack("demo.judges").REFERENCE_SCENES = 64
    return pack("nodes.demo_model").QSchedDemoModel.execute().args


@pytest.fixture(scope="session")
def demo_sampling(demo: tuple) -> dict:
    """What a node that samples the demo model is given, but for prompts."""
    return {
        "model": demo[0],
        "latent_image": {"samples": torch.zeros(1, 16, 8, 8)},
        "steps": 4,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "study_seed": 0,
    }


@pytest.fixture
def empty_store(pack: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads what another one has observed."""
    monkeypatch.setattr(sys.modules["folder_paths"], "user_directory", str(tmp_path / "user"))


@pytest.fixture
def calibrate_node(pack: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    """JAQ Calibrate as the host calls it, with the host's folders of its own in ``tmp_path``."""
    import folder_paths

    for name in ("user", "temp", "input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    pack("nodes.host.folders").register_folders()
    node = pack("nodes.calibrate").QSchedCalibrate
    monkeypatch.setattr(node, "hidden", SimpleNamespace(unique_id=None, prompt=None, extra_pnginfo=None), raising=False)
    return node


@pytest.fixture(scope="session")
def demo_twin(demo: tuple, pack: Callable[[str], ModuleType]):
    """The demo's MODEL in w4a4."""
    job = pack("nodes.quantization.backends").job_for(demo[0], "w4a4", group_size=0, backend="torch")
    return pack("nodes.quantization.twin_model").quantized_twin(demo[0], job)[0]


@pytest.fixture(scope="module")
def packed_layers(pack: Callable[[str], ModuleType], demo: tuple, tiny: ModuleType) -> dict:
    """(MODEL, name of a layer in it, inputs of the layer) for each of ``twin_layers.KINDS``."""
    return layers_of(pack, demo[0], tiny.model("FLOW"))


@pytest.fixture
def presets_folder(pack: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of presets, beside those that came with the pack. It is not there yet."""
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
def preset_files(pack: Callable[[str], ModuleType], presets_folder: Path) -> ModuleType:
    """What lists, names and imports the presets in that folder."""
    return pack("nodes.library.files")


@pytest.fixture
def calibrate(calibrate_node: type, pack: Callable[[str], ModuleType], demo: tuple, demo_twin) -> Callable[..., tuple]:
    """``calibrate(**changed)`` executes JAQ Calibrate on the demo, with a node of settings; (preset, report, the
    outputs)."""
    settings = pack("nodes.calibrating.options").CalibrationSettings
    ours = {field.name for field in dataclasses.fields(settings)}
    few = {"space": "both ends", "radius": 0.2, "verdict_seeds": 1}

    def run(**changed) -> tuple:
        of_settings = {name: value for name, value in changed.items() if name in ours}
        inputs = {
            "model": demo_twin,
            "clip": demo[1],
            "vae": demo[2],
            "latent_image": {"samples": torch.zeros(1, 16, 4, 4)},
            "prompts": "\n".join(PROMPTS),
            "steps": 2,
            "cfg": 1.0,
            "sampler_name": "euler",
            "scheduler": "simple",
            "trials": 2,
            "metric": "demo",
            "batch_size": 16,
            "negative": "",
            "settings": settings(**{**few, **of_settings}),
            **{name: value for name, value in changed.items() if name not in ours},
        }
        with torch.inference_mode():
            out = calibrate_node.execute(**inputs)
        return out.args[0], json.loads(out.ui["qsched_report"][0]), out.args

    return run


@pytest.fixture(scope="session")
def plain_studies() -> list:
    """Holds what `plain_study` has run."""
    return []


@pytest.fixture
def plain_study(calibrate: Callable[..., tuple], plain_studies: list) -> tuple:
    """What ``calibrate()`` comes to. It is run once for all files: the folders of every test are empty, so it would
    come to the same, and in those of another test nothing can be read from its journal."""
    if not plain_studies:
        plain_studies.append(calibrate())
    return plain_studies[0]
