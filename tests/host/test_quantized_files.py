"""Quantised models as files, through the host: the same weights bit for bit, for U-Nets and transformers.

Pictures are compared by `near`: weights mapped from a file may lie at any address, and kernels differ by alignment.
"""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from exactness import ROUNDED_ACTIVATIONS, differ, near, same_bits
from layouts import need_layout
from random_checkpoints import family, picture
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from server_answers import error_of, latent

from benchmarks.adapters import ADAPTERS, patch_of

pytestmark = pytest.mark.usefixtures("one_thread")


def quantized(pack, model, name: str = "w4a8"):
    return pack("nodes.quantization.twin_model").quantized_twin(
        model, pack("nodes.quantization.backends").job_for(model, name)
    )[0]


@pytest.fixture(scope="module")
def demo_packed(pack, demo):
    """The demo's MODEL in W4A8. Nobody writes to its layers: who adds to it does so in a clone."""
    return quantized(pack, demo[0])


@pytest.mark.parametrize("name", ["sd15", "sdxl", "flux1-schnell"])
def test_there_and_back_bit_for_bit(pack, tmp_path, name):
    files, describe = pack("nodes.quantization.files"), pack("nodes.host.model_info")
    source, *how = family(name)
    twin = quantized(pack, source)
    path = tmp_path / f"{name}.safetensors"
    files.save_model(twin, path)
    loaded = files.load_model(path)
    loaded_picture = picture(loaded, *how)
    assert near(loaded_picture, picture(twin, *how), ROUNDED_ACTIVATIONS)
    assert differ(loaded_picture, picture(source, *how))
    assert describe.describe(loaded, "euler", "simple", 1.0) == describe.describe(twin, "euler", "simple", 1.0)
    assert loaded.model_size() == twin.model_size() < 0.6 * source.model_size()
    again = tmp_path / "again.safetensors"
    files.save_model(loaded, again)
    first, second = (load_file(file) for file in (path, again))
    assert first.keys() == second.keys()
    assert all(same_bits(first[key], second[key]) for key in first)


def test_a_file_whose_few_tensors_claim_a_giant_is_refused_before_memory_is_taken(pack, tmp_path, refused, demo_packed):
    """Regression: the host made a network of 100 GB for a file of 30 MB that said so in two tensors."""
    files, core = pack("nodes.quantization.files"), pack("qsched_core")
    path = tmp_path / "giant.safetensors"
    files.save_model(demo_packed, path)
    assert files.load_model(path).model_size() > 0
    with safe_open(path, framework="pt") as file:
        about, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}
    wide = 128 * 256
    for name in ("img_in", "txt_in"):
        tensors[f"{name}.weight"] = torch.zeros(wide, tensors[f"{name}.weight"].shape[1])
        tensors[f"{name}.bias"] = torch.zeros(wide)
    save_file(tensors, path, about)
    with refused(core.QuantizationError, "weights of a network of"):
        files.load_model(path)


def test_a_lora_is_kept_and_another_can_follow(pack, tmp_path):
    import comfy.sd

    files = pack("nodes.quantization.files")
    source, *how = family("sd15")
    twin = quantized(pack, source, "w8a8")
    key = next(name for name in twin.model.state_dict() if name.endswith("attn1.to_q.weight"))[: -len(".weight")]
    wide = twin.model.get_submodule(key).in_features
    weights = {
        f"{key}.lora_up.weight": torch.randn(wide, 4, generator=torch.Generator().manual_seed(3)),
        f"{key}.lora_down.weight": torch.randn(4, wide, generator=torch.Generator().manual_seed(4)),
        f"{key}.alpha": torch.tensor(4.0),
    }

    def with_lora(model):
        result, _ = comfy.sd.load_lora_for_models(model, None, weights, 1.0, 0.0)
        assert len(result.patches) == 1
        return result

    model = with_lora(twin)
    expected = picture(model, *how)
    path = tmp_path / "with lora.safetensors"
    files.save_model(model, path)
    loaded = files.load_model(path)
    assert near(picture(loaded, *how), expected, ROUNDED_ACTIVATIONS)
    assert differ(expected, picture(twin, *how)), "the LoRA did nothing"
    assert differ(picture(with_lora(loaded), *how), expected)
    assert near(picture(loaded, *how), expected, ROUNDED_ACTIVATIONS)


def test_a_kernel_that_errs_here_is_not_used_for_a_file_that_was_packed_elsewhere(pack, demo, tmp_path):
    """Only packing tried kernels: a file's layers were multiplied by whatever the machine had."""
    from comfy_kitchen.constraints import FunctionConstraints
    from comfy_kitchen.registry import registry

    files, trials = pack("nodes.quantization.files"), pack("qsched_core.quant.trial")
    job = pack("nodes.quantization.backends").job_for(demo[0], "w8a8", None, "kitchen", "stock")
    twin = pack("nodes.quantization.twin_model").quantized_twin(demo[0], job)[0]
    files.save_model(twin, tmp_path / "model.safetensors")
    name = "diffusion_model.double_blocks.0.img_attn.qkv"
    x = torch.randn(3, twin.model.get_submodule(name).in_features, generator=torch.Generator().manual_seed(1))
    expected = twin.model.get_submodule(name)(x)
    eager, before = registry.get_implementation("int8_linear", backend="eager"), list(registry._priority)
    wrong = SimpleNamespace(int8_linear=lambda **kwargs: 1.5 * eager(**kwargs))
    registry.register("stand-in", wrong, {"int8_linear": FunctionConstraints()})
    registry.set_priority(["stand-in", *before])
    trials.forget()
    try:
        layer = files.load_model(tmp_path / "model.safetensors").model.get_submodule(name)
        assert differ(twin.model.get_submodule(name)(x), expected), "the stand-in is not used at all"
        assert near(layer(x), expected, ROUNDED_ACTIVATIONS)
        assert "errs by 0.5" in " ".join(trials.failures().values())
    finally:
        registry.set_priority(before)
        registry._backends.pop("stand-in", None)
        registry._capabilities.pop("stand-in", None)
        trials.forget()


def test_the_parameterisation_is_kept(pack, tmp_path):
    """Some checkpoints tell it by a key outside the network, which the file does not have."""
    import comfy.model_base

    files = pack("nodes.quantization.files")
    source, *how = family("sd15")
    twin = quantized(pack, source)
    twin.model.model_type = comfy.model_base.ModelType.V_PREDICTION
    twin.model.model_sampling = comfy.model_base.model_sampling(twin.model.model_config, twin.model.model_type)
    files.save_model(twin, tmp_path / "v.safetensors")
    loaded = files.load_model(tmp_path / "v.safetensors")
    assert near(picture(loaded, *how), picture(twin, *how), ROUNDED_ACTIVATIONS)


def test_presets_drive_a_loaded_model(pack, tmp_path):
    files, patch, core = pack("nodes.quantization.files"), pack("nodes.sampling.patch"), pack("qsched_core")
    source, *how = family("flux1-schnell")
    files.save_model(quantized(pack, source), tmp_path / "a.safetensors")
    loaded = files.load_model(tmp_path / "a.safetensors")
    with_preset = patch.apply_coefficients(loaded, core.Coefficients.ramp(2, c_eps=(0.9, 1.1)), (1.0, 0.5, 0.0))
    assert differ(picture(with_preset, *how), picture(loaded, *how))


def test_a_float_model_and_an_unknown_network_are_refused(pack, tmp_path):
    files, core, quant = pack("nodes.quantization.files"), pack("qsched_core"), pack("qsched_core.quant")
    source, *_ = family("flux1-schnell")
    with pytest.raises(core.QuantizationError, match="is not quantised"):
        files.save_model(source, tmp_path / "float.safetensors")
    net = torch.nn.ModuleList([torch.nn.Linear(64, 64)])
    core.quantize(net, include=["*"])
    quant.save_quantized(net, tmp_path / "odd.safetensors")
    with pytest.raises(core.QuantizationError, match="knows no model like odd"):
        files.load_model(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("kind", ADAPTERS)
def test_every_adapter_is_kept_beside_the_packed_weight(pack, demo, demo_packed, tmp_path, kind):
    files, key = pack("nodes.quantization.files"), "diffusion_model.double_blocks.0.img_attn.qkv"
    weight = demo[0].model.get_submodule(key).weight
    twin = demo_packed.clone()
    twin.add_patches({f"{key}.weight": patch_of(kind, weight, 0.5 if kind == "diff" else 0.02)}, 0.7)
    files.save_model(twin, tmp_path / "model.safetensors")
    loaded = files.load_model(tmp_path / "model.safetensors")
    acts = [model.float_value(f"{key}.weight") for model in (twin, loaded)]
    if kind == "diff":  # as large as the weight: packed with it
        assert not loaded.patches
        torch.testing.assert_close(acts[1], acts[0], atol=0.15 * acts[0].abs().max().item(), rtol=0)
    else:
        assert same_bits(acts[1], acts[0])
        files.save_model(loaded, tmp_path / "again.safetensors")
        first, second = (load_file(tmp_path / f"{name}.safetensors") for name in ("model", "again"))
        assert first.keys() == second.keys()
        assert all(same_bits(first[name], second[name]) for name in first)


def test_what_another_clone_has_merged_is_not_saved(pack, demo, tmp_path):
    """Kept layers are shared by all clones of a MODEL, and a loaded LoRA is merged into them in place."""
    import comfy.model_management

    files, key = pack("nodes.quantization.files"), "diffusion_model.img_in.weight"
    twin = quantized(pack, demo[0])
    files.save_model(twin, tmp_path / "clean.safetensors")
    other = twin.clone()
    other.add_patches({key: ("diff", (torch.ones(twin.model.diffusion_model.img_in.weight.shape),))})
    comfy.model_management.load_models_gpu([other])
    files.save_model(twin, tmp_path / "again.safetensors")
    files.save_model(other, tmp_path / "other.safetensors")
    clean, again, merged = (load_file(tmp_path / f"{name}.safetensors") for name in ("clean", "again", "other"))
    assert all(same_bits(clean[name], again[name]) for name in clean)
    torch.testing.assert_close(merged["img_in.weight"], clean["img_in.weight"] + 1)


def damaged(entry: dict, **changes) -> str:
    return json.dumps({"double_blocks.0.img_attn.qkv.weight": [{**entry, **changes}]})


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "pickle"},
        {"kind": "loha"},
        {"weights": []},
        {"weights": [{"tensor": "img_in.weight"}, {"tensor": "patches.1"}, 8.0, None, None, None]},
        {"weights": [{"tensor": "patches.7"}, {"tensor": "patches.1"}, 8.0, None, None, None]},
        {"weights": [1.0, 1.0, 1.0, None, None, None]},
        {"strength": "1"},
        {"strength": float("nan")},
        {"strength_model": None},
        {"offset": [0, -1, 2]},
        {"offset": [0, 1]},
        {"offset": [0, 2**31, 1]},
        {"offset": "all"},
    ],
)
def test_a_damaged_list_of_loras_is_refused(pack, demo, tmp_path, refused, changes):
    files, core, key = (
        pack("nodes.quantization.patch_files"),
        pack("qsched_core"),
        "double_blocks.0.img_attn.qkv.weight",
    )
    value = patch_of("lora", demo[0].model.get_submodule(f"diffusion_model.{key[:-7]}").weight, 0.02)
    about, tensors = files.record_of({key: [(1.0, value, 1.0, None, None)]})
    content = pack("qsched_core.quant").Stored({**tensors, key: torch.zeros(1)}, {key[:-7]: {}}, about)
    assert list(files.without_patches(content)[1]) == [key]
    entry = json.loads(about["patches"])[key][0]
    bad = replace(content, about={"patches": damaged(entry, **changes)})
    with refused(core.QuantizationError, "list of LoRAs is damaged"):
        files.without_patches(bad)
    elsewhere = replace(content, about={"patches": json.dumps({"img_in.weight": [entry]})})
    with pytest.raises(core.QuantizationError, match="list of LoRAs is damaged"):
        files.without_patches(elsewhere)


@pytest.mark.parametrize("offset", [None, (0, 512, 256), (1, 0, 2**31 - 1)])
def test_a_lora_is_read_as_it_was_written(pack, offset):
    files, key, weight = pack("nodes.quantization.patch_files"), "blocks.0.qkv", torch.ones(8, 8)
    value = patch_of("lora", weight, 0.02)
    about, tensors = files.record_of({f"{key}.weight": [(0.5, value, 0.25, offset, None)]})
    content = pack("qsched_core.quant").Stored({**tensors, f"{key}.weight": weight}, {key: {}}, {**about, "a": "b"})
    model, patches = files.without_patches(content)
    ((strength, again, strength_model, place, function),) = patches[f"{key}.weight"]
    assert (strength, strength_model, place, function) == (0.5, 0.25, offset, None)
    assert type(again) is type(value)
    assert all(same_bits(*pair) for pair in zip(again.weights[:2], value.weights[:2], strict=True))
    assert (list(model.tensors), model.about) == ([f"{key}.weight"], {"a": "b"})


# --- as graphs on the server


def saving(name: str, quantize: bool = True) -> dict:
    return {
        "1": {"class_type": "QSchedDemoModel", "inputs": {}},
        "2": {
            "class_type": "QSchedQuantizeModel",
            "inputs": {"model": ["1", 0], "format": "w4a8", "group_size": "64", "include": "*", "exclude": ""},
        },
        "3": {"class_type": "QSchedSaveQuantized", "inputs": {"model": ["2" if quantize else "1", 0], "name": name}},
    }


def sampling(model: list, more: dict) -> dict:
    texts = {"positive": ["t", 0], "negative": ["t", 0]}
    how = {"seed": 1, "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    return {
        **more,
        "1": {"class_type": "QSchedDemoModel", "inputs": {}},
        "t": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a large apple"}},
        "e": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "s": {"class_type": "KSampler", "inputs": {"model": model, "latent_image": ["e", 0], **texts, **how}},
        "out": {"class_type": "SaveLatent", "inputs": {"samples": ["s", 0], "filename_prefix": "quantised"}},
    }


def loading(name: str) -> dict:
    return {"l": {"class_type": "QSchedLoadQuantized", "inputs": {"model_name": name}}}


def test_a_graph_saves_and_another_loads(server):
    outputs = server.client.run(saving("demo w4"), timeout=120)
    assert "MB" in outputs["3"]["text"][0]
    server.client.run(saving("demo w4 "), timeout=120)
    folder = server.folder("models") / "qsched_models"
    assert {path.name for path in folder.iterdir()} >= {"demo w4.safetensors"}
    server.client.object_info("QSchedLoadQuantized")  # the host looks for new files, as the R key does
    quantize = {"2": saving("")["2"]}
    assert near(
        latent(server, sampling(["l", 0], loading("demo w4.safetensors"))),
        latent(server, sampling(["2", 0], quantize)),
        ROUNDED_ACTIVATIONS,
    )


def test_native_formats_are_saved_for_the_stock_loader(server, pack):
    need_layout("w8a8")
    graph = saving("demo native")
    graph["2"]["inputs"] |= {"format": "w8a8", "group_size": "format's own", "recipe": "stock"}
    outputs = server.client.run(graph, timeout=120)
    assert "models/diffusion_models/demo native.safetensors" in outputs["3"]["text"][0]
    assert "kitchen (eager)" in outputs["2"]["text"][0]
    server.client.object_info("UNETLoader")
    stock = {
        "l": {
            "class_type": "UNETLoader",
            "inputs": {"unet_name": "demo native.safetensors", "weight_dtype": "default"},
        }
    }
    ours = latent(server, sampling(["2", 0], {"2": graph["2"]}))
    assert near(latent(server, sampling(["l", 0], stock)), ours, ROUNDED_ACTIVATIONS)


def test_what_cannot_be_quantized_so_is_told_with_a_way_out(server):
    for changes, text in (
        ({"format": "w3a8", "recipe": "stock"}, "no native layout for w3a8"),
        ({"format": "w4a8", "backend": "quanto"}, "use w4a16 or w8a16"),
        ({"format": "w8a8", "recipe": "stock", "scales": "asymmetric"}, "symmetric"),
        ({"include": "no.such.layer"}, "nothing to quantise"),
    ):
        graph = saving("never")
        graph["2"]["inputs"] |= {"group_size": "format's own", **changes}
        assert text in error_of(server, graph)
    twice = saving("never")
    twice["3"] = {**twice["2"], "inputs": {**twice["2"]["inputs"], "model": ["2", 0]}}
    twice["4"] = {"class_type": "QSchedSaveQuantized", "inputs": {"model": ["3", 0], "name": "never"}}
    assert "quantised already" in error_of(server, twice)
    assert not (server.folder("models") / "qsched_models" / "never.safetensors").exists()


def test_wrong_files_and_names_are_told_what_is_wrong(server):
    assert "is not quantised" in error_of(server, saving("float", quantize=False))
    for name in ("", "../up", "a/b", ".hidden"):
        assert "no file name" in error_of(server, saving(name))
    folder = server.folder("models") / "qsched_models"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "garbage.safetensors").write_bytes(b"\xff" * 100)
    save_file({"weight": torch.zeros(3)}, folder / "stock.safetensors")
    server.client.object_info("QSchedLoadQuantized")
    for name, text in (
        ("garbage.safetensors", "garbage.safetensors"),
        ("stock.safetensors", "no quantised model of ours"),
        ("../secret.safetensors", "secret"),
    ):
        assert text in error_of(server, sampling(["l", 0], loading(name)))
