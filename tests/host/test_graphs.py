"""Graphs through the real server: the demo, cancelling and resuming, and every wrong input we could think of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from module_files import beside
from safetensors.torch import save_file
from server_answers import error_of

from scripts.client import PromptInterrupted

ROOT = Path(__file__).resolve().parents[2]


graphs = beside(__file__, "graphs")


def preset_folder(server) -> Path:
    folder = server.base / "models" / "qsched_presets"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def report_of(outputs: dict) -> dict:
    return json.loads(next(output["qsched_report"][0] for output in outputs.values() if "qsched_report" in output))


def works(server) -> None:
    """The graph is usable: a picture comes out."""
    outputs = server.client.run(graphs.sampling(seed=torch.randint(2**31, (1,)).item()), timeout=120)
    assert outputs["6"]["images"]


def test_the_demo_workflow_runs_through(server):
    """The README's own graph, with fewer trials and smaller pictures so that the suite stays short."""
    graph = json.loads((ROOT / "example_workflows" / "api" / "demo.json").read_text("utf-8"))
    for node in graph.values():
        if node["class_type"] == "QSchedCalibrate":
            node["inputs"].update(trials=2)
        if node["class_type"] == "QSchedCalibrationSettings":
            node["inputs"].update(verdict_seeds=1)
        if node["class_type"] == "EmptySD3LatentImage":
            node["inputs"].update(width=64, height=64)
    graph["30"]["inputs"].update(include="*_mlp*")  # layers fitted to what was observed: each takes as long
    prompts = (ROOT / "demo" / "prompts.txt").read_text("utf-8").splitlines()[:9]
    (server.base / "input" / "qsched_demo_prompts.txt").write_text("\n".join(prompts), "utf-8")
    outputs = server.client.run(graph, timeout=600)
    report = report_of({"4": outputs["4"]})  # the graph has a second calibration
    names = [row["name"] for row in report["table"]["rows"]]
    assert names[:3] == ["full precision", "quantised", "quantised + Q-Sched"]
    assert any(name.startswith("full precision + Q-Sched") for name in names)
    assert {"TC", "IQ", "JAQ", "attribute accuracy", "all right", "weights MB", "s/picture"} <= set(
        report["table"]["columns"]
    )
    assert report["gains"]["jaq"]["low"] <= report["gains"]["jaq"]["gain"] <= report["gains"]["jaq"]["high"]
    assert len(report["trace"]) == 1 + 2, "the identity and the trials"
    full, quantized = report["table"]["rows"][0], report["table"]["rows"][1]
    assert quantized["weights MB"] < 0.4 * full["weights MB"]
    assert quantized["IQ"] < full["IQ"], "W4A4 per channel must do visible damage"
    assert list(preset_folder(server).glob("demo*.safetensors"))


def test_the_same_calibration_gives_the_same_figures(server):
    first = report_of(server.client.run(graphs.calibrating(search_seed=11), timeout=300))
    for journal in (server.base / "user").rglob("studies/*.jsonl"):
        journal.unlink()
    second = report_of(server.client.run(graphs.calibrating(search_seed=11, k=2.0, negative=" "), timeout=300))
    for report in (first, second):
        for row in report["table"]["rows"]:
            row.pop("s/picture")
    assert first == second


def test_cancel_keeps_the_best_and_the_same_inputs_go_on(server):
    graph = graphs.calibrating(trials=400, search_seed=5)
    client, folder = server.client, preset_folder(server)
    files = set(folder.glob("cancelled calibration*"))

    def stop_soon(progress) -> None:
        if progress.text and "search: best JAQ" in progress.text:
            client.interrupt()

    with pytest.raises(PromptInterrupted):
        client.run(graph, on_progress=stop_soon, timeout=300)
    (saved,) = set(folder.glob("cancelled calibration*")) - files
    import qsched_core as qs

    preset = qs.load_preset(saved)
    assert preset.verdict == "not validated"
    assert preset.steps == 4
    journals = list((server.base / "user").rglob("studies/*.jsonl"))
    grown = {path: len(path.read_bytes()) for path in journals}
    works(server)

    with pytest.raises(PromptInterrupted):
        client.run(graph, on_progress=stop_soon, timeout=300)
    after = list((server.base / "user").rglob("studies/*.jsonl"))
    assert set(after) == set(journals), "the same inputs must find their journal again"
    assert any(len(path.read_bytes()) > grown[path] for path in after)


BAD_CALIBRATIONS = {
    "no prompts": ({"prompts": ""}, "0 prompts"),
    "three prompts": ({"prompts": "a\nb\nc"}, "3 prompts"),
    "a setting out of its range": ({"radius": 0.6}, "radius"),
    "greedy in another space": ({"strategy": "greedy", "space": "constant"}, "space is constant"),
    "one endless prompt": ({"prompts": "a\nb\nc\n" + "word " * 1000}, "characters"),
    "no trials": ({"trials": 0}, "trials"),
    "steps of zero": ({"steps": 0}, "steps"),
    "unknown sampler": ({"sampler_name": "uni_pc"}, "uni_pc"),
}


@pytest.mark.parametrize("case", BAD_CALIBRATIONS, ids=str)
def test_a_wrong_calibration_is_told_what_is_wrong(server, case):
    changes, text = BAD_CALIBRATIONS[case]
    assert text in error_of(server, graphs.calibrating(**changes))


def test_ten_thousand_prompts_are_drawn_from_and_the_report_says_so(server):
    """What the report of a calibration takes over: see test_calibrate.py."""
    lines = [f"a small apple on a white background {i}" for i in range(10_000)]
    (server.base / "input" / "many.txt").write_text("\n".join(lines), "utf-8")
    prompts = graphs.node("QSchedPrompts", prompt_file="many.txt")
    outputs = server.client.run({"1": prompts, "2": graphs.node("PreviewAny", source=["1", 1])}, timeout=120)
    assert "256 of 10000 prompts" in outputs["2"]["text"][0]


def test_one_step_and_guidance_follow_the_stated_rule(server):
    """One step has no trajectory: one c_x and one c_eps are searched. cfg beyond 1 works with a negative prompt."""
    report = report_of(server.client.run(graphs.calibrating(steps=1, trials=2), timeout=300))
    assert len(report["coefficients"]["c_x"]) == len(report["coefficients"]["c_eps"]) == 1
    assert set(report["trace"][0]) == {"c_x_first", "c_eps_first", "jaq", "whole"}
    assert report_of(server.client.run(graphs.calibrating(cfg=2.0, trials=1, negative="blur"), timeout=300))


def saved_preset(server, name: str, steps: int = 4, sampler: str = "euler") -> str:
    import qsched_core as qs

    sigmas = tuple(1 - i / steps for i in range(steps + 1))
    binding = qs.Binding(sampler=sampler, scheduler="simple")
    preset = qs.Preset(qs.Coefficients.ramp(steps, c_eps=(0.9, 1.1)), sigmas, binding)
    qs.save_preset(preset, preset_folder(server) / name)
    return name


def with_preset(name: str, **changes) -> dict:
    graph = graphs.sampling(["7", 0], **changes)
    graph["7"] = graphs.node("QSchedLoadPreset", preset_name=name)
    return graph


@pytest.mark.parametrize(
    ("steps", "sampler", "text"), [(8, "euler", "steps: preset 8, here 4"), (4, "lcm", "sampler: preset 'lcm'")]
)
def test_a_preset_that_does_not_fit_warns_or_refuses(server, steps, sampler, text):
    name = saved_preset(server, f"other {steps} {sampler}.safetensors", steps, sampler)
    server.client.object_info("QSchedLoadPreset")
    assert text in error_of(server, with_preset(name, if_preset_differs="refuse"))
    texts: list[str] = []
    outputs = server.client.run(
        with_preset(name, seed=steps), on_progress=lambda p: texts.append(p.text or ""), timeout=120
    )
    assert outputs["6"]["images"]
    assert text in server.log_text()


def test_hostile_preset_files_are_refused_by_name(server):
    folder = preset_folder(server)
    (folder / "garbage.safetensors").write_bytes(b"\xff" * 100)
    nan = {name: torch.full((4,), float("nan")) for name in ("c_x", "c_eps")}
    save_file({**nan, "sigmas": torch.linspace(1, 0, 5)}, folder / "nan.safetensors", {
        "format": "qsched-preset", "version": "1", "verdict": "accepted", "binding": "{}", "record": "{}",
    })  # fmt: skip
    save_file({"weight": torch.zeros(3)}, folder / "model.safetensors")
    server.client.object_info("QSchedLoadPreset")
    for name, text in (
        ("garbage.safetensors", "garbage.safetensors (100 bytes) is no preset"),
        ("nan.safetensors", "nan"),
        ("model.safetensors", "model.safetensors"),
        ("../secret.safetensors", "secret"),
    ):
        assert text in error_of(server, with_preset(name))
    works(server)


def test_image_to_image_works_and_an_alien_sampler_is_refused(server):
    graph = graphs.sampling(denoise=0.5)
    graph["8"] = graphs.node("EmptyImage", width=64, height=64, batch_size=1, color=255)
    graph["9"] = graphs.node("VAEEncode", pixels=["8", 0], vae=["1", 2])
    graph["4"]["inputs"]["latent_image"] = ["9", 0]
    assert server.client.run(graph, timeout=120)["6"]["images"]
    assert "uni_pc" in error_of(server, graphs.sampling(sampler_name="uni_pc"))


BAD_QUANTIZATIONS = {
    "nothing included": ({"include": "no.such.layer*"}, "nothing to quantise"),
    "all excluded": ({"exclude": "*"}, "nothing to quantise"),
    "unknown format": ({"format": "w2a2"}, "w2a2"),
}


@pytest.mark.parametrize("case", BAD_QUANTIZATIONS, ids=str)
def test_a_wrong_quantization_is_told_what_is_wrong(server, case):
    changes, text = BAD_QUANTIZATIONS[case]
    assert text in error_of(server, graphs.quantizing(**changes))


def test_a_pattern_that_matches_no_layer_is_named_in_the_report(server):
    outputs = server.client.run(graphs.quantizing(exclude="no.such.layer*"), timeout=120)
    assert "These patterns match no layer: no.such.layer*." in outputs["3"]["text"][0]


def test_quantizing_twice_in_a_graph_is_refused_and_the_graph_stays_usable(server):
    graph = graphs.quantizing()
    graph["9"] = graphs.node(
        "QSchedQuantizeModel", model=["2", 0], format="w8a8", group_size="32", include="", exclude=""
    )
    graph["3"]["inputs"]["source"] = ["9", 1]
    assert "quantised already" in error_of(server, graph)
    works(server)


@pytest.mark.parametrize("name", ["", "../up", "a/b", 'a"b', ".hidden"])
def test_a_preset_name_cannot_leave_its_folder(server, name):
    graph = graphs.calibrating(trials=1)
    graph["5"]["inputs"]["name"] = name
    assert "no file name" in error_of(server, graph)


def test_saving_never_overwrites(server):
    graph = graphs.calibrating(trials=1)
    graph["5"]["inputs"]["name"] = "twice"
    server.client.run(graph, timeout=300)
    graph["5"]["inputs"]["author"] = "somebody else"
    server.client.run(graph, timeout=300)
    assert {p.name for p in preset_folder(server).glob("twice*")} == {"twice.safetensors", "twice (2).safetensors"}
