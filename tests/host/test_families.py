"""Workflows of real models on the real server, on random checkpoints of the real architectures.

Under the names that the workflows ask for lie small random files; text encoders are stood in for, and the picture is
as small as it can be. All else runs as it is written: loaders, LoRAs, schedulers, samplers, guidance, decoders, ours.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from exactness import differ, same_bits
from PIL import Image
from safetensors.torch import load_file

from scripts.layout import CACHE, ROOT
from scripts.random_models import MODELS, TEXT, TEXT_LAYERS, write
from scripts.workflows.families import FAMILIES

WORKFLOWS = ROOT / "example_workflows" / "api"
FILES = {
    "sd_xl_turbo_1.0_fp16.safetensors": "sdxl",
    "sdxl_lightning_4step.safetensors": "sdxl",
    "v1-5-pruned-emaonly-fp16.safetensors": "sd15",
    "lcm-lora-sdv1-5.safetensors": "sd15-lora",
    "pcm_sd15_smallcfg_4step_converted.safetensors": "sd15-lora",
    "flux1-schnell.safetensors": "flux1-schnell",
    "ae.safetensors": "taesd16",
    "flux-2-klein-4b.safetensors": "flux2-klein",
    "taef2_encoder.safetensors": "taef2_encoder",
    "taef2_decoder.safetensors": "taef2_decoder",
    "z_image_turbo_bf16.safetensors": "z-image",
    "qwen_image_fp8_e4m3fn.safetensors": "qwen-image",
    "Qwen-Image-Lightning-8steps-V1.0.safetensors": "qwen-image-lora",
    "qwen_image_vae.safetensors": "wan-vae",
    "krea2_turbo_fp8_scaled.safetensors": "krea2",
    "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors": "wan",
    "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors": "wan-low",
    "wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise.safetensors": "wan-lora",
    "wan2.2_t2v_lightx2v_4steps_lora_v1.1_low_noise.safetensors": "wan-lora",
    "wan_2.1_vae.safetensors": "wan-vae",
}
TEXT_WIDTHS = {  # of the tokens and of the pooled vector
    "SDXL-Turbo": (2048, 1280),
    "16 SDXL-Lightning": (2048, 1280),
    "17 SD1.5 LCM": (768, 0),
    "18 SD1.5 PCM": (768, 0),
    "FLUX.1-schnell": (4096, 768),
    "13 FLUX.2-klein": (7680, 0),
    "09 Z-Image Turbo": (2560, 0),
    "10 Krea-2 Turbo": (TEXT * TEXT_LAYERS, 0),
    "11 Qwen-Image Lightning": (3584, 0),
    "15 Wan 2.2 lightx2v": (4096, 0),
}
UNKNOWN = {"12 Qwen-Image-2.1 Turbo", "14 FLUX.3-klein"}
"""Families that no host at hand knows; tests/scripts/test_families_table.py holds them against ComfyUI's own."""

DOORS = {"QSchedApply": "model", "QSchedSamplerSelect": "sampler", "QSchedSampler": None}
SMALL_RAMP = {
    "form": "ramp",
    "form.c_x_first": 1.02,
    "form.c_x_last": 0.99,
    "form.c_eps_first": 0.96,
    "form.c_eps_last": 1.03,
}
# Of the wide models one layer is quantised, Qwen-Image's the one that its LoRA is on: to pack and to unpack a thousand
# million weights takes minutes on a CPU.
INCLUDED = {"09 Z-Image Turbo": "layers.0.attention.out", "11 Qwen-Image Lightning": "*.attn.to_q"}
STEPS = {"09 Z-Image Turbo": 2, "11 Qwen-Image Lightning": 2}
"""Of eight that the wide models' workflows ask for: each takes seconds on a CPU, and shows no more than these do. What
the sampler of the first does in longer runs, ``test_matrix.py`` holds."""

TROUBLE = ("missing", "unexpected", "not loaded", "left over", "shape mismatch")
"""What the host says, and goes on, when a file is not quite what it takes it for."""

Graph = dict[str, dict]


@pytest.fixture(scope="module", autouse=True)
def models(server) -> Iterator[None]:
    with random_files(server, FILES):
        yield


@contextmanager
def random_files(server, names: Iterable[str]) -> Iterator[None]:
    """The random files under the names people have; at the end they are gone, from the server's memory too."""
    places = {server.folder("models") / MODELS[FILES[name]].folder / name: FILES[name] for name in names}
    for place, model in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(write(model, CACHE / "random-models"))
    yield
    server.client.post("/free", {"unload_models": True, "free_memory": True})
    for place in places:
        place.unlink()


@pytest.mark.parametrize("family", TEXT_WIDTHS)
def test_a_family_samples_with_and_without_a_preset(server, family):
    graph = at_hand(family)
    before = len(server.log_text())
    plain = sampled(server, without_door(graph))
    assert complaints(server.log_text()[before:]) == []
    assert torch.isfinite(plain).all()
    assert plain.std() > 0
    if family not in STEPS:  # of the wide ones an evaluation takes seconds; the network plays no part in this
        assert same_bits(sampled(server, with_strength(graph, 0.0)), plain), "strength 0 must be the stock sampler"
    result = sampled(server, with_strength(graph, 1.0))
    assert torch.isfinite(result).all()
    assert differ(result, plain)


def test_every_published_workflow_is_run_here():
    names = {path.stem for path in WORKFLOWS.glob("*.json")} - {"demo"}
    families = {family.name for family in FAMILIES}
    assert families <= names
    # test_templates.py runs the others
    assert {name for name in names if not name[0].isdigit()} | families == set(TEXT_WIDTHS) | UNKNOWN


@pytest.mark.parametrize("family", [*TEXT_WIDTHS, *sorted(UNKNOWN)])
def test_every_node_says_what_it_is_for(family):
    assert all(node["_meta"]["title"] for node in written(family).values())


@pytest.mark.parametrize("family", [*TEXT_WIDTHS, *sorted(UNKNOWN)])
def test_every_node_fits_its_definition(server, family):
    """As written, what is stood in for above included: names of inputs, and choices other than files."""
    every = server.client.object_info()
    for node in written(family).values():
        kinds = every[node["class_type"]]["input"]
        inputs = {**kinds["required"], **kinds.get("optional", {})}
        names = {name for name in node["inputs"] if "." not in name}  # a dot: what a choice brings with it
        assert set(kinds["required"]) <= names <= set(inputs), node
        for name in names:
            choices = inputs[name][1].get("options") if inputs[name][0] == "COMBO" else inputs[name][0]
            value = node["inputs"][name]
            of_newer = family in UNKNOWN and (node["class_type"], name) == ("CLIPLoader", "type")
            valid = not isinstance(choices, list) or value in choices or value.endswith(".safetensors")
            assert valid or of_newer, (node, name)


def complaints(log: str) -> list[str]:
    """What the host says of files that it takes for something else. (The tiny VAE of FLUX.2 has no scale anywhere.)"""
    return [line for line in log.splitlines() if any(map(line.lower().count, TROUBLE)) and "vae_scale" not in line]


def written(family: str) -> Graph:
    return json.loads((WORKFLOWS / f"{family}.json").read_text("utf-8"))


def at_hand(family: str) -> Graph:
    """The workflow with what cannot be had here replaced, and its latent saved too."""
    graph = written(family)
    for node_id, node in list(graph.items()):
        kind, inputs = node["class_type"], node["inputs"]
        if kind == "CLIPTextEncode":
            width, pooled = TEXT_WIDTHS[family]
            stand_in = {"text": inputs["text"], "width": width, "pooled": pooled}
            graph[node_id] = {"class_type": "TestConditioning", "inputs": stand_in}
        elif kind in ("CLIPLoader", "DualCLIPLoader", "QSchedQuantizeTextEncoder"):
            del graph[node_id]
        elif kind == "QSchedQuantizeModel":
            inputs["include"] = INCLUDED.get(family, "")
        elif "steps" in inputs and family in STEPS:
            inputs["steps"] = STEPS[family]
        elif kind.startswith("Empty"):
            inputs.update(width=64, height=64, **({"length": 5} if "length" in inputs else {}))
        elif inputs.get("vae_name") == "flux2-vae.safetensors":
            inputs["vae_name"] = "taef2"
        elif inputs.get("form") == "identity":  # published values stay
            inputs.update(SMALL_RAMP)
        elif kind == "VAEDecode":
            graph["latent"] = {
                "class_type": "SaveLatent",
                "inputs": {"samples": inputs["samples"], "filename_prefix": "latent"},
            }
    return graph


def doors_of(graph: Graph) -> list[str]:
    """One, or one for each of two models."""
    nodes = [node_id for node_id, node in graph.items() if node["class_type"] in DOORS]
    assert nodes
    return nodes


def with_strength(graph: Graph, strength: float) -> Graph:
    graph = copy.deepcopy(graph)
    for door in doors_of(graph):
        graph[door]["inputs"]["strength"] = strength
    return graph


def without_door(graph: Graph) -> Graph:
    """The same graph as it would be without Q-Sched."""
    for door in doors_of(graph):
        graph = _without(graph, door)
    return graph


def _without(graph: Graph, door: str) -> Graph:
    graph = copy.deepcopy(graph)
    if graph[door]["class_type"] == "QSchedSampler":
        graph[door]["class_type"] = "KSampler"
        for name in ("preset", "strength", "if_preset_differs"):
            del graph[door]["inputs"][name]
        return graph
    door_node = graph.pop(door)
    source = door_node["inputs"][DOORS[door_node["class_type"]]]
    for node in graph.values():
        node["inputs"] = {name: source if value == [door, 0] else value for name, value in node["inputs"].items()}
    return graph


def sampled(server, graph: Graph) -> torch.Tensor:
    """The latent that a graph saves; its picture must show something."""
    outputs = server.client.run(graph, timeout=300)
    images = {node_id: output for node_id, output in outputs.items() if "images" in output or "latents" in output}
    (latent,) = images["latent"]["latents"]
    (picture,) = next(output["images"] for output in images.values() if "images" in output)
    if not picture["filename"].endswith(".mp4"):
        with Image.open(_saved(server, picture)) as image:
            assert image.convert("L").getextrema()[0] < image.convert("L").getextrema()[1]
    return load_file(_saved(server, latent))["latent_tensor"]


def _saved(server, file: dict) -> Path:
    return server.folder("output") / file["subfolder"] / file["filename"]
