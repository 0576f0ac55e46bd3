"""Which presets fit the graph on the page, and in what the others differ from it."""

from __future__ import annotations

import pytest
from shared_presets import BOUND, DEMO, FOUR, SAME_LABEL, preset, told

from scripts.layout import CACHE
from scripts.random_models import write

pytestmark = pytest.mark.usefixtures("one_thread")

OTHER = "w4a8 32 compact symmetric"


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


@pytest.mark.parametrize("name", ["model.ckpt", "model.gguf", "broken.safetensors", "folder.safetensors"])
def test_of_files_that_say_nothing_nothing_is_known(pack, tmp_path, monkeypatch, name):
    import folder_paths

    matching, path = pack("nodes.library.matching"), tmp_path / name
    path.mkdir() if "folder" in name else path.write_bytes(b"\x80\x02")
    monkeypatch.setattr(folder_paths, "get_full_path", lambda folder, file: str(tmp_path / file))
    assert matching.known_model("UNETLoader", name) == matching.Known()
    graph = matching.read_graph(told([("UNETLoader", name)], [SAME_LABEL], [FOUR]))
    assert matching.match(preset(**BOUND), graph).fits is None


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
