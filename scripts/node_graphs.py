"""What the help pages' pictures show: for each node a small graph, and which of its nodes are left in the picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .layout import DEMO_PROMPTS

SCENE = "a large house left of a small boat on a sky background"
ENCODER = '{"model_cfg": {"vision_cfg": {"layers": 12}}}'
FILES = {
    "qsched_models/FLUX.1-schnell w4a8.safetensors": "",
    "qsched_text_encoders/FLUX clip_l and t5xxl w4a8.safetensors": "",
    "qsched_metrics/CLIP-ViT-B-16/open_clip_config.json": ENCODER,
    "qsched_metrics/HPSv2.1/HPS_v2.1_compressed.pt": "",
    "qsched_metrics/PickScore_v1/model.safetensors": "",
}
"""Under ``models``, so that menus have something to show. Nothing is read from them."""

Entry = tuple[str, dict[str, Any]]
"""A node's kind, and its inputs: [id, slot] is a link, all else a widget's value."""


@dataclass(frozen=True)
class Picture:
    """`columns` of node ids from left to right are what is left of `graph`; `sizes` (width, least height) in pixels of
    the page. Where `cut` is set, the picture ends below what it selects on its node."""

    graph: dict[str, Entry]
    columns: tuple[tuple[str, ...], ...]
    run: bool = True
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    cut: str = ""

    def api(self) -> dict[str, Any]:
        """The graph in API format."""
        return {id: {"class_type": kind, "inputs": inputs} for id, (kind, inputs) in self.graph.items()}


def _demo(format: str = "w4a8") -> dict[str, Entry]:
    return {
        "1": ("QSchedDemoModel", {}),
        "2": ("QSchedQuantizeModel", {"model": ["1", 0], "format": format, "group_size": "format's own"}),
        "3": ("CLIPTextEncode", {"clip": ["1", 1], "text": SCENE}),
        "4": ("EmptySD3LatentImage", {"width": 128, "height": 128, "batch_size": 4}),
        "5": ("BasicScheduler", {"model": ["2", 0], "scheduler": "simple", "steps": 4, "denoise": 1.0}),
        "6": ("QSchedCoefficients", {"sigmas": ["5", 0], **_ramp()}),
    }


def _ramp() -> dict[str, Any]:
    ends = {"form.c_x_first": 1.03, "form.c_x_last": 0.98, "form.c_eps_first": 0.94, "form.c_eps_last": 1.05}
    return {"form": "ramp", **ends, "strength": 1.0}


def _sampling(**inputs: Any) -> dict[str, Any]:
    sockets = {"positive": ["3", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    widgets = {"seed": 7, "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    return {**sockets, **widgets, **inputs}


def _preview_nodes(latent: str) -> dict[str, Entry]:
    return {
        "20": ("VAEDecode", {"samples": [latent, 0], "vae": ["1", 2]}),
        "21": ("PreviewImage", {"images": ["20", 0]}),
    }


def apply_qsched() -> Picture:
    graph = _demo() | {
        "7": ("QSchedApply", {"model": ["2", 0], "preset": ["6", 0]}),
        "8": ("KSampler", _sampling(model=["7", 0])),
    }
    return Picture(graph | _preview_nodes("8"), (("7",), ("8",)), sizes={"7": (300, 0), "8": (300, 0)})


def sampler() -> Picture:
    graph = _demo() | {"7": ("QSchedSampler", _sampling(model=["2", 0], preset=["6", 0]))}
    return Picture(graph | _preview_nodes("7"), (("7",),))


def sampler_select() -> Picture:
    graph = _demo() | {
        "7": ("KSamplerSelect", {"sampler_name": "euler"}),
        "8": ("QSchedSamplerSelect", {"sampler": ["7", 0], "preset": ["6", 0]}),
        "9": ("SamplerCustom", _custom("8")),
    }
    return Picture(graph | _preview_nodes("9"), (("7",), ("8",)), sizes={"7": (260, 0), "8": (300, 0)})


def sampler_tcd() -> Picture:
    graph = _demo() | {"7": ("QSchedSamplerTCD", {"eta": 0.3}), "9": ("SamplerCustom", _custom("7"))}
    return Picture(graph | _preview_nodes("9"), (("7",), ("9",)), run=False, sizes={"7": (260, 0), "9": (280, 0)})


def _custom(sampler: str) -> dict[str, Any]:
    sockets = {"model": ["2", 0], "positive": ["3", 0], "negative": ["3", 0], "sampler": [sampler, 0]}
    return {**sockets, "sigmas": ["5", 0], "latent_image": ["4", 0], "add_noise": True, "noise_seed": 7, "cfg": 1.0}


def coefficients() -> Picture:
    graph = _demo("w4a4")
    graph["8"] = ("QSchedPrecisionSchedule", {"model": ["2", 0], "plan": "1, 1, 1, 1a8", "scheduler": "simple"})
    graph["6"][1]["precision"] = ["8", 1]
    graph["7"] = ("PreviewAny", {"source": ["6", 1]})
    return Picture(graph, (("5",), ("6",)), sizes={"5": (240, 0), "6": (330, 0)})


def load_preset() -> Picture:
    graph = {
        "1": ("QSchedLoadPreset", {"preset_name": "SDXL-Turbo W4A4 (published).safetensors"}),
        "2": ("PreviewAny", {"source": ["1", 1]}),
    }
    return Picture(graph, (("1",), ("2",)), sizes={"1": (350, 0), "2": (330, 250)})


def save_preset() -> Picture:
    inputs = {"preset": ["6", 0], "name": "FLUX.1-schnell W4A8, my prompts", "license": "CC0-1.0"}
    return Picture(_demo() | {"7": ("QSchedSavePreset", inputs)}, (("7",),), sizes={"7": (380, 0)})


def load_quantized() -> Picture:
    graph = _demo() | {
        "7": ("QSchedLoadQuantized", {"model_name": "FLUX.1-schnell w4a8.safetensors"}),
        "8": ("QSchedSampler", _sampling(model=["7", 0])),
    }
    return Picture(graph, (("7",), ("8",)), run=False, sizes={"7": (340, 0), "8": (260, 0)})


def save_quantized() -> Picture:
    graph = _demo() | {"7": ("QSchedSaveQuantized", {"model": ["2", 0], "name": "demo w4a8"})}
    return Picture(graph, (("2",), ("7",)), sizes={"2": (300, 0), "7": (300, 0)})


def load_quantized_text_encoder() -> Picture:
    graph = {
        "7": ("QSchedLoadQuantizedTextEncoder", {"encoder_name": "FLUX clip_l and t5xxl w4a8.safetensors"}),
        "8": ("CLIPTextEncode", {"clip": ["7", 0], "text": SCENE}),
    }
    return Picture(graph, (("7",), ("8",)), run=False, sizes={"7": (380, 0), "8": (300, 0)})


def save_quantized_text_encoder() -> Picture:
    # Not run: a file says what the host's loader is to be told, and none of its loaders made the demo's encoder.
    graph = _demo() | {
        "7": ("QSchedQuantizeTextEncoder", {"clip": ["1", 1], "format": "w4a16", "prompts": SCENE}),
        "8": ("QSchedSaveQuantizedTextEncoder", {"clip": ["7", 0], "name": "FLUX encoders w4a16"}),
    }
    return Picture(graph, (("7",), ("8",)), run=False, sizes={"7": (340, 0), "8": (300, 0)})


def quantize_model() -> Picture:
    return Picture(_demo() | {"7": ("PreviewAny", {"source": ["2", 1]})}, (("2",),), sizes={"2": (360, 0)})


def quantize_text_encoder() -> Picture:
    inputs = {"clip": ["1", 1], "format": "w4a16", "prompts": SCENE}
    graph = _demo() | {
        "7": ("QSchedQuantizeTextEncoder", inputs),
        "8": ("PreviewAny", {"source": ["7", 1]}),
    }
    return Picture(graph, (("7",),), sizes={"7": (380, 0)})


def quantize_vae() -> Picture:
    graph = _demo() | {
        "7": ("QSchedQuantizeVAE", {"vae": ["1", 2], "format": "w8a16", "image": ["9", 0]}),
        "8": ("PreviewAny", {"source": ["7", 1]}),
        "9": ("EmptyImage", {"width": 64, "height": 64, "batch_size": 1, "color": 0x336699}),
    }
    return Picture(graph, (("7",),), sizes={"7": (380, 0)})


def sensitivity() -> Picture:
    scenes = ("a large rocket below a small star on a night background", SCENE)
    texts = {str(30 + i): ("CLIPTextEncode", {"clip": ["1", 1], "text": text}) for i, text in enumerate(scenes)}
    studied = {"model": ["1", 0], "positive": ["40", 0], "latent_image": ["4", 0], "average_bits": 5.0}
    graph = _demo() | texts
    graph |= {
        "40": ("ConditioningCombine", {"conditioning_1": ["30", 0], "conditioning_2": ["31", 0]}),
        "7": ("QSchedSensitivity", {**studied, "depth": "layers", "steps": 4, "formats": "w4a8, w6a8, w8a8"}),
        "8": ("PreviewImage", {"images": ["7", 2]}),
    }
    return Picture(graph, (("7",),), sizes={"7": (420, 0)})


def precision_schedule() -> Picture:
    models = {"model": ["2", 0], "model_2": ["20", 0]}
    graph = _demo("w4a4") | {
        "20": ("QSchedQuantizeModel", {"model": ["1", 0], "format": "w8a8", "group_size": "format's own"}),
        "7": ("QSchedPrecisionSchedule", {**models, "plan": "1, 1, 1a8, 2", "scheduler": "simple"}),
        "8": ("PreviewAny", {"source": ["7", 2]}),
    }
    return Picture(graph, (("7",),), sizes={"7": (420, 0)})


def _captions() -> list[str]:
    return [line for line in DEMO_PROMPTS.read_text("utf-8").splitlines() if line and not line.startswith("#")]


def step_sensitivity() -> Picture:
    models = {"model": ["2", 0], "clip": ["1", 1], "vae": ["1", 2], "latent_image": ["4", 0]}
    graph = _demo("w4a4")
    texts = "\n".join(_captions()[:6])
    graph["7"] = ("QSchedStepSensitivity", {**models, "prompts": texts, "budget": 0.7, "steps": 4, "metric": "demo"})
    graph["8"] = ("PreviewAny", {"source": ["7", 2]})
    return Picture(graph, (("7",),), sizes={"7": (440, 0)})


def observe() -> Picture:
    texts = {"30": ("CLIPTextEncode", {"clip": ["1", 1], "text": SCENE})}
    observed = {"model": ["1", 0], "positive": ["30", 0], "latent_image": ["4", 0], "steps": 4}
    graph = _demo() | texts | {"7": ("QSchedObserve", observed), "8": ("PreviewAny", {"source": ["7", 1]})}
    return Picture(graph, (("7",),), sizes={"7": (360, 0)})


def calibrate() -> Picture:
    damaged = {"model": ["1", 0], "format": "w4a4", "group_size": "per channel", "include": "*", "last_steps": 0}
    inputs = {
        "model": ["2", 0],
        "clip": ["1", 1],
        "vae": ["1", 2],
        "latent_image": ["4", 0],
        "prompts": "\n".join(_captions()[:24]),
        "full_model": ["1", 0],
    }
    choices = {"steps": 4, "sampler_name": "euler", "scheduler": "simple", "metric": "demo", "trials": 12}
    graph = _demo() | {"2": ("QSchedQuantizeModel", damaged)}
    graph["4"] = ("EmptySD3LatentImage", {"width": 128, "height": 128, "batch_size": 1})
    graph["7"] = ("QSchedCalibrate", {**inputs, **choices})
    return Picture(graph, (("7",),), sizes={"7": (400, 0)}, cut=".qsched-panel")


def calibration_settings() -> Picture:
    return Picture({"1": ("QSchedCalibrationSettings", {})}, (("1",),), run=False, sizes={"1": (360, 0)})


def metric() -> Picture:
    choices = {"tc": "AQ-Map (CLIP-ViT-B-16)", "iq": "HPSv2.1", "watch": "none"}
    return Picture({"1": ("QSchedMetric", choices)}, (("1",),), run=False, sizes={"1": (360, 0)})


def prompts() -> Picture:
    first = (
        "a red fox in the snow",
        "a lighthouse at dawn, oil painting",
        "portrait of an old sailor",
        "two green apples",
    )
    second = ("a harbour at night", "a cat on a red sofa")
    inputs = {"prompts": "\n".join(first), "prompt_file": "", "verdict_prompts": "\n".join(second)}
    graph = {"1": ("QSchedPrompts", inputs), "2": ("PreviewAny", {"source": ["1", 1]})}
    return Picture(graph, (("1",), ("2",)), sizes={"1": (320, 360), "2": (300, 360)})


def demo_model() -> Picture:
    graph = _demo() | {"7": ("QSchedSampler", _sampling(model=["1", 0]))} | _preview_nodes("7")
    columns = (("1", "3"), ("7",), ("20", "21"))
    return Picture(graph, columns, sizes={"1": (230, 0), "3": (230, 0), "7": (250, 0), "20": (220, 0), "21": (220, 0)})


def arena() -> Picture:
    graph = _demo("w3a8") | {
        "4": ("EmptySD3LatentImage", {"width": 128, "height": 128, "batch_size": 6}),
        "7": ("QSchedSampler", _sampling(model=["2", 0])),
        "8": ("QSchedSampler", _sampling(model=["2", 0], preset=["6", 0])),
        "9": ("VAEDecode", {"samples": ["7", 0], "vae": ["1", 2]}),
        "10": ("VAEDecode", {"samples": ["8", 0], "vae": ["1", 2]}),
        "11": ("QSchedArena", {"without": ["9", 0], "with_preset": ["10", 0], "preset": ["6", 0]}),
    }
    return Picture(graph, (("11",),), sizes={"11": (400, 0)})


def check() -> Picture:
    graph = {"1": ("QSchedCheck", {}), "2": ("PreviewAny", {"source": ["1", 0]})}
    return Picture(graph, (("1",), ("2",)), sizes={"1": (240, 0), "2": (440, 420)})


PICTURES: dict[str, Callable[[], Picture]] = {
    "QSchedApply": apply_qsched,
    "QSchedArena": arena,
    "QSchedCalibrate": calibrate,
    "QSchedCalibrationSettings": calibration_settings,
    "QSchedCheck": check,
    "QSchedCoefficients": coefficients,
    "QSchedDemoModel": demo_model,
    "QSchedLoadPreset": load_preset,
    "QSchedLoadQuantized": load_quantized,
    "QSchedLoadQuantizedTextEncoder": load_quantized_text_encoder,
    "QSchedMetric": metric,
    "QSchedObserve": observe,
    "QSchedPrompts": prompts,
    "QSchedQuantizeModel": quantize_model,
    "QSchedQuantizeTextEncoder": quantize_text_encoder,
    "QSchedQuantizeVAE": quantize_vae,
    "QSchedSampler": sampler,
    "QSchedSamplerSelect": sampler_select,
    "QSchedSamplerTCD": sampler_tcd,
    "QSchedSavePreset": save_preset,
    "QSchedSaveQuantized": save_quantized,
    "QSchedSaveQuantizedTextEncoder": save_quantized_text_encoder,
    "QSchedSensitivity": sensitivity,
    "QSchedPrecisionSchedule": precision_schedule,
    "QSchedStepSensitivity": step_sensitivity,
}
"""By node id, which is the picture's name."""
