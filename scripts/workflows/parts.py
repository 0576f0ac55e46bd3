"""Parts that several example workflows share."""

from __future__ import annotations

from ..layout import DEMO_PROMPTS
from .graph import File, Group, Node

SCENE = "a large house left of a small boat on a sky background"
PROMPT = "a red fox asleep on a stone wall, autumn leaves, soft morning light"


SCHNELL = File("flux1-schnell.safetensors", "diffusion_models", "Comfy-Org/flux1-schnell:")
CLIP_L = File("clip_l.safetensors", "text_encoders", "comfyanonymous/flux_text_encoders:")
T5 = File("t5xxl_fp16.safetensors", "text_encoders", "comfyanonymous/flux_text_encoders:")
AE = File("ae.safetensors", "vae", "Comfy-Org/Lumina_Image_2.0_Repackaged:split_files/vae/")
TURBO = File("sd_xl_turbo_1.0_fp16.safetensors", "checkpoints", "stabilityai/sdxl-turbo:")

PICTURE = (300, 330)
PLAIN = {"denoise": 1.0, "strength": 1.0, "if_preset_differs": "resample"}
EULER = {"steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
DAMAGE = {"format": "w4a4", "group_size": "per channel", "include": "*", "exclude": "", "last_steps": 0}
W4A8 = {"format": "w4a8", "group_size": "format's own", "include": "", "exclude": ""}
SEARCH = {**EULER, "trials": 12, "metric": "demo", "batch_size": 16, "negative": ""}
DEMO_PRESET = "Demo model W4A4.safetensors"
"""Comes with the pack: what JAQ Calibrate found for the demo model (``scripts/demo_preset.py``)."""


def demo_captions() -> list[str]:
    lines = DEMO_PROMPTS.read_text("utf-8").splitlines()
    return list(dict.fromkeys(line for line in lines if not line.startswith("#")))


def demo_model() -> Node:
    return Node(1, "QSchedDemoModel", "Demo model")


def damaged_model() -> Node:
    return Node(2, "QSchedQuantizeModel", "Quantize: W4A4, all layers", {"model": [1, 0], **DAMAGE}, size=(320, 230))


def latent(id: int, title: str, side: int, count: int = 1, kind: str = "EmptySD3LatentImage") -> Node:
    return Node(id, kind, title, {"width": side, "height": side, "batch_size": count})


def decoded(id: int, title: str, samples: list, vae: list, prefix: str = "") -> tuple[Node, Node]:
    """A decoder and, below it, the picture; saved under `prefix`."""
    kind, saved = ("SaveImage", {"filename_prefix": prefix}) if prefix else ("PreviewImage", {})
    picture = Node(id + 1, kind, title, {"images": [id, 0], **saved}, size=PICTURE, label=title)
    return Node(id, "VAEDecode", "Decode", {"samples": samples, "vae": vae}), picture


def sampler(id: int, title: str, model: list, conditioning: tuple, latent: list, preset: list | None = None) -> Node:
    positive, negative = conditioning
    sockets = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
    inputs = {**sockets, **({"preset": preset} if preset else {}), "seed": 7, **EULER, **PLAIN}
    return Node(id, "QSchedSampler", title, inputs)


def load_preset(id: int) -> Node:
    return Node(id, "QSchedLoadPreset", "Load the preset", {"preset_name": DEMO_PRESET}, size=(340, 60))


def flux_files(weights: Node) -> Group:
    texts = {"clip_name1": CLIP_L.name, "clip_name2": T5.name, "type": "flux", "device": "default"}
    return Group(
        "1",
        (
            (
                weights,
                Node(2, "DualCLIPLoader", "Text encoders", texts, (CLIP_L, T5)),
                Node(3, "VAELoader", "VAE", {"vae_name": AE.name}, (AE,)),
            ),
        ),
    )


def flux_words() -> Group:
    return Group(
        "1024 px",
        (
            (
                Node(7, "CLIPTextEncode", "Prompt", {"clip": [2, 0], "text": PROMPT}, size=(320, 140)),
                Node(8, "ConditioningZeroOut", "No negative prompt", {"conditioning": [7, 0]}),
                latent(9, "Picture size", 1024),
            ),
        ),
    )


def published_preset(title: str, strength: float) -> Node:
    values = {"form": "ramp to 1", "form.c_x": 1.0, "form.c_eps": 0.867, "strength": strength}
    return Node(6, "QSchedCoefficients", title, {"sigmas": [5, 0], **values})


def stock_sampler(id: int, title: str, model: list) -> Node:
    sockets = {"model": model, "positive": [7, 0], "negative": [8, 0], "latent_image": [9, 0]}
    return Node(id, "KSampler", title, {**sockets, "seed": 0, **EULER, "denoise": 1.0})


def scene(latent: Node) -> Group:
    prompt = Node(6, "CLIPTextEncode", "Prompt", {"clip": [1, 1], "text": SCENE}, size=(320, 140))
    return Group("128 px", ((prompt, latent),))
