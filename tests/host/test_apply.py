"""The doors as graphs on the real server: all the ways ComfyUI samples, one picture; and what users get wrong."""

from __future__ import annotations

import pytest
import torch
from exactness import differ, same_bits
from server_answers import error_of, latent


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


RAMP = {
    "form": "ramp",
    "form.c_x_first": 0.95,
    "form.c_x_last": 1.02,
    "form.c_eps_first": 0.9,
    "form.c_eps_last": 1.1,
}
USE = {"preset": ["p", 0], "strength": 1.0, "if_preset_differs": "refuse"}
KSAMPLER = {"cfg": 1.0, "sampler_name": "euler_ancestral", "scheduler": "simple", "latent_image": ["e", 0]}
TEXTS = {"positive": ["t", 0], "negative": ["t", 0]}


def base(**more: dict) -> dict:
    """Demo model, schedule, a preset made by hand for it; ``s`` is what samples."""
    return {
        "m": node("QSchedDemoModel"),
        "t": node("CLIPTextEncode", clip=["m", 1], text="a large apple on a white background"),
        "e": node("EmptySD3LatentImage", width=64, height=64, batch_size=2),
        "sigmas": node("BasicScheduler", model=["m", 0], scheduler="simple", steps=4, denoise=1.0),
        "p": node("QSchedCoefficients", sigmas=["sigmas", 0], strength=1.0, **RAMP),
        **more,
        "out": node("SaveLatent", samples=["s", 0], filename_prefix="door"),
    }


def ways(name: str = "euler_ancestral") -> dict[str, dict]:
    """Every way to sample, with the same seed, schedule and preset."""
    applied = node("QSchedApply", model=["m", 0], **USE)
    select = node("KSamplerSelect", sampler_name=name)
    sampler = node("QSchedSamplerSelect", sampler=["k", 0], **USE)
    ksampler = {**KSAMPLER, "sampler_name": name}
    custom = {
        "noise_seed": 7,
        "add_noise": True,
        "cfg": 1.0,
        **TEXTS,
        "sigmas": ["sigmas", 0],
        "latent_image": ["e", 0],
    }
    advanced = {"noise": ["n", 0], "guider": ["g", 0], "sigmas": ["sigmas", 0], "latent_image": ["e", 0]}
    halves = {**ksampler, **TEXTS, "noise_seed": 7, "steps": 4, "model": ["a", 0]}
    return {
        "Q-Sched Sampler": base(
            s=node("QSchedSampler", model=["m", 0], seed=7, steps=4, denoise=1.0, **TEXTS, **ksampler, **USE)
        ),
        "KSampler": base(
            a=applied, s=node("KSampler", model=["a", 0], seed=7, steps=4, denoise=1.0, **TEXTS, **ksampler)
        ),
        "SamplerCustom, MODEL": base(
            a=applied, k=select, s=node("SamplerCustom", model=["a", 0], sampler=["k", 0], **custom)
        ),
        "SamplerCustom, SAMPLER": base(
            k=select, d=sampler, s=node("SamplerCustom", model=["m", 0], sampler=["d", 0], **custom)
        ),
        "SamplerCustomAdvanced": base(
            k=select,
            d=sampler,
            n=node("RandomNoise", noise_seed=7),
            g=node("BasicGuider", model=["m", 0], conditioning=["t", 0]),
            s=node("SamplerCustomAdvanced", sampler=["d", 0], **advanced),
        ),
        "both": base(
            a=node("QSchedApply", model=["m", 0], preset=["p", 0], strength=0.3, if_preset_differs="resample"),
            k=select,
            d=sampler,
            s=node("SamplerCustom", model=["a", 0], sampler=["d", 0], **custom),
        ),
        "KSamplerAdvanced": base(
            a=applied,
            first=node(
                "KSamplerAdvanced", **halves, add_noise="enable", start_at_step=0, end_at_step=2,
                return_with_leftover_noise="enable",
            ),
            s=node(
                "KSamplerAdvanced", **{**halves, "latent_image": ["first", 0]}, add_noise="disable", start_at_step=2,
                end_at_step=10000, return_with_leftover_noise="disable",
            ),
        ),
    }  # fmt: skip


def test_all_doors_give_the_same_picture(server):
    every = ways()
    expected = latent(server, every.pop("Q-Sched Sampler"))
    every.pop("KSamplerAdvanced")  # ancestral noise starts anew in its second half, as in stock ComfyUI
    for name, graph in every.items():
        assert same_bits(latent(server, graph), expected), name
    deterministic = ways("euler")
    halves = latent(server, deterministic["KSamplerAdvanced"])
    at_once = latent(server, deterministic["KSampler"])
    # Between the halves the latent is scaled out of and into the model's space.
    assert torch.allclose(halves, at_once, rtol=1e-4, atol=1e-4)


def test_strength_zero_is_stock_at_every_door(server):
    every = ways("euler")
    graph = every["KSampler"]
    graph["s"]["inputs"]["model"] = ["m", 0]
    expected = latent(server, graph)
    for name in ("Q-Sched Sampler", "SamplerCustom, SAMPLER", "SamplerCustom, MODEL"):
        graph = every[name]
        for each in graph.values():
            if "if_preset_differs" in each["inputs"]:
                each["inputs"]["strength"] = 0.0
        assert same_bits(latent(server, graph), expected), name


def test_tcd_through_custom_sampling_and_in_the_node(server):
    """eta 0.3 is the node's; the SAMPLER takes any, and 0 is deterministic."""
    every = ways("euler")
    custom = every["SamplerCustom, SAMPLER"]
    custom["k"] = node("QSchedSamplerTCD", eta=0.3)
    one = every["Q-Sched Sampler"]
    one["s"]["inputs"]["sampler_name"] = "tcd"
    at_eta = latent(server, custom)
    assert same_bits(latent(server, one), at_eta)
    custom["k"]["inputs"]["eta"] = 0.0
    assert differ(latent(server, custom), at_eta)


def test_a_second_picture_from_the_same_nodes_is_the_same(server):
    """SAMPLER and MODEL are kept and shared between runs; nothing may wear off on them."""
    graph = ways()["SamplerCustom, SAMPLER"]
    first = latent(server, graph)
    graph["s"]["inputs"]["noise_seed"] = 8
    assert differ(latent(server, graph), first)
    graph["s"]["inputs"]["noise_seed"] = 7
    graph["out"]["inputs"]["filename_prefix"] = "door again"
    assert same_bits(latent(server, graph), first)


@pytest.mark.parametrize(
    "schedule",
    [
        node("ManualSigmas", sigmas="1.0, 0.9, 0.55, 0.2, 0.0"),
        node("Flux2Scheduler", steps=4, width=1024, height=1024),
        node("BasicScheduler", model=["shifted", 0], scheduler="beta", steps=6, denoise=1.0),
    ],
    ids=lambda node: node["class_type"],
)
def test_any_sigmas(server, schedule):
    """Written by hand, made without looking at the model, and of a shifted model."""
    graph = ways("euler")["SamplerCustom, SAMPLER"]
    graph["shifted"] = node(
        "ModelSamplingFlux", model=["m", 0], max_shift=1.15, base_shift=0.5, width=1024, height=1024
    )
    graph["sigmas"] = schedule
    graph["s"]["inputs"]["model"] = ["shifted", 0]
    result = latent(server, graph)
    graph["d"]["inputs"]["strength"] = 0.0
    assert (result - latent(server, graph)).norm() > 1e-2 * result.norm()


FORMS = {
    "ramp": (RAMP, (0.95, 0.9733333, 0.9966667, 1.02), (0.9, 0.9666667, 1.0333333, 1.1)),
    "ramp to 1": ({"form": "ramp to 1", "form.c_x": 1.0, "form.c_eps": 0.85}, (1, 1, 1, 1), (0.85, 0.9, 0.95, 1)),
    "constant": ({"form": "constant", "form.c_x": 0.9, "form.c_eps": 1.1}, (0.9,) * 4, (1.1,) * 4),
    "table": (
        {"form": "table", "form.c_x": "1, 0.9; 0.8 0.7", "form.c_eps": "1 1 1 1"}, (1, 0.9, 0.8, 0.7), (1, 1, 1, 1),
    ),
    "identity": ({"form": "identity"}, (1,) * 4, (1,) * 4),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_presets_made_by_hand(server, form):
    """As the node's own file says: made by hand, for the sigmas that were plugged in."""
    import qsched_core as qs

    inputs, c_x, c_eps = FORMS[form]
    graph = base(
        s=node("KSampler", model=["m", 0], seed=7, steps=1, denoise=1.0, **TEXTS, **KSAMPLER),
        save=node("QSchedSavePreset", preset=["p", 0], name=f"hand {form}", author="", license="", notes=""),
    )
    graph["p"] = node("QSchedCoefficients", sigmas=["sigmas", 0], strength=1.0, **inputs)
    server.client.run(graph, timeout=60)
    preset = qs.load_preset(server.base / "models" / "qsched_presets" / f"hand {form}.safetensors")
    assert preset.coefficients.c_x == pytest.approx(c_x, abs=1e-6)
    assert preset.coefficients.c_eps == pytest.approx(c_eps, abs=1e-6)
    assert preset.sigmas == pytest.approx((1.0, 0.75, 0.5, 0.25, 0.0), abs=1e-3)
    assert preset.verdict == "made by hand"


def test_a_changed_preset_loses_its_verdict_and_keeps_what_it_is_bound_to(pack):
    core, make = pack("qsched_core"), pack("nodes.library.preset_by_hand").make
    sigmas = (1.0, 0.75, 0.5, 0.25, 0.0)
    ramp, bound = core.Coefficients.ramp(4, c_eps=(0.9, 1.1)), core.Binding(model="Flux")
    preset = core.Preset(ramp, sigmas, bound, "accepted", {"gain": {"gain": 1}})
    copy = make({"form": "as plugged in"}, 1.0, None, preset)
    assert copy is preset
    half = make({"form": "as plugged in"}, 0.5, None, preset)
    assert half.coefficients.c_eps == pytest.approx((0.95, 0.9833333, 1.0166667, 1.05))
    assert (half.verdict, dict(half.record), half.binding) == ("made by hand", {}, preset.binding)
    other = make({"form": "as plugged in"}, 1.0, torch.tensor([1.0, 0.5, 0.0]), preset)
    # Each step of the run does what its two own ones do: c_eps is their mean.
    assert other.coefficients.c_eps == pytest.approx((0.9333333, 1.0666667), abs=1e-6)


BAD_COEFFICIENTS = {
    "nothing plugged in": ({"sigmas": None, **RAMP}, "no schedule is plugged in"),
    "nothing to keep": ({"form": "as plugged in"}, "no preset is plugged in"),
    "too few numbers": (
        {"form": "table", "form.c_x": "1, 1", "form.c_eps": "1 1 1 1"},
        "c_x and the steps differ in number: 2 and 4",
    ),
    "words": ({"form": "table", "form.c_x": "1 1 1 1", "form.c_eps": "one two"}, "c_eps is not a list of numbers"),
    "nan": ({"form": "table", "form.c_x": "nan 1 1 1", "form.c_eps": "1 1 1 1"}, "one finite number per step"),
    "far out": ({"form": "table", "form.c_x": "99 1 1 1", "form.c_eps": "1 1 1 1"}, "c_x[0] is 99"),
    "out of its slider": ({"form": "constant", "form.c_x": 9.0, "form.c_eps": 1.0}, "c_x"),
    "unknown form": ({"form": "spiral"}, "form"),
}


@pytest.mark.parametrize("case", BAD_COEFFICIENTS)
def test_wrong_coefficients_are_told_what_is_wrong(server, case):
    changes, text = BAD_COEFFICIENTS[case]
    graph = ways("euler")["KSampler"]
    inputs = {"sigmas": ["sigmas", 0], "strength": 1.0, **changes}
    graph["p"] = node("QSchedCoefficients", **{key: value for key, value in inputs.items() if value is not None})
    assert text in error_of(server, graph)


BAD_DOORS = {
    "a sampler that cannot be driven": ("SamplerCustom, SAMPLER", "k", {"sampler_name": "uni_pc"}, "use dpmpp_2m"),
    "the same on the model": ("KSampler", "s", {"sampler_name": "sa_solver"}, "use er_sde"),
    "adaptive steps": ("KSampler", "s", {"sampler_name": "dpm_adaptive"}, "one by one"),
    "other steps": ("KSampler", "s", {"steps": 6}, "steps: preset 4, here 6"),
    "other sigmas": ("SamplerCustom, SAMPLER", "sigmas", {"scheduler": "karras"}, "sigmas: preset"),
    "an unknown choice": ("KSampler", "a", {"if_preset_differs": "hope"}, "if_preset_differs"),
    "too strong": ("SamplerCustom, SAMPLER", "d", {"strength": 5.0}, "strength"),
    "eta beyond 1": ("SamplerCustom, SAMPLER", "k", {"eta": 1.5}, "eta"),
    "no preset": ("KSampler", "a", {"preset": ["t", 0]}, "preset"),
    "a picture for a latent": ("KSampler", "s", {"latent_image": ["p", 0]}, "latent_image"),
}


@pytest.mark.parametrize("case", BAD_DOORS)
def test_wrong_use_of_a_door_is_told_what_is_wrong(server, case):
    way, where, changes, text = BAD_DOORS[case]
    graph = ways("euler")[way]
    if "eta" in changes:
        graph["k"] = node("QSchedSamplerTCD")
    if case == "other sigmas":  # the preset stays with the simple schedule
        graph["more"] = node("BasicScheduler", model=["m", 0], scheduler="simple", steps=4, denoise=1.0)
        graph["p"]["inputs"]["sigmas"] = ["more", 0]
    graph[where]["inputs"].update(changes)
    assert text in error_of(server, graph)


def test_what_differs_is_said_and_the_picture_comes(server):
    graph = ways("euler")["KSampler"]
    graph["a"]["inputs"]["if_preset_differs"] = "resample"
    graph["s"]["inputs"]["steps"] = 6
    server.client.run(graph, timeout=60)
    reports = server.client.get("/qsched/history")["reports"]
    differences = [item for report in reports if report["note"] for item in report["note"]["differences"]]
    assert {"what": "steps", "preset": "4", "here": "6"} in differences
