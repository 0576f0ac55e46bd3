"""Small graphs for the server, in API format."""

from __future__ import annotations

from typing import Any

Graph = dict[str, dict[str, Any]]

PROMPTS = "\n".join(
    f"a {size} {thing} on a {ground} background"
    for size in ("small", "large")
    for ground in ("white", "sky")
    for thing in ("apple", "star")
)


SETTINGS = {
    "search_seed": 0,
    "verdict_seeds": 1,
    "space": "both ends",
    "radius": 0.2,
    "k": 2.0,
    "strategy": "guided",
    "race": True,
    "grid": 10,
    "most_pictures": 0,
    "most_minutes": 0.0,
    "normalised": False,
    "stay_near": True,
}
"""Of Calibration Settings."""


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def sampling(preset: list | None = None, **changes: Any) -> Graph:
    """Demo model -> Q-Sched Sampler -> picture."""
    inputs = {
        "model": ["1", 0],
        "positive": ["2", 0],
        "negative": ["2", 0],
        "latent_image": ["3", 0],
        "seed": 1,
        "steps": 4,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "denoise": 1.0,
        "strength": 1.0,
        "if_preset_differs": "resample",
        **({"preset": preset} if preset else {}),
        **changes,
    }
    return {
        "1": node("QSchedDemoModel"),
        "2": node("CLIPTextEncode", clip=["1", 1], text="a large apple on a white background"),
        "3": node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
        "4": node("QSchedSampler", **inputs),
        "5": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "6": node("SaveImage", images=["5", 0], filename_prefix="test"),
    }


def quantizing(**changes: Any) -> Graph:
    """Demo model -> Quantize Model -> report."""
    inputs = {"format": "w4a8", "group_size": "format's own", "include": "", "exclude": "", **changes}
    return {
        "1": node("QSchedDemoModel"),
        "2": node("QSchedQuantizeModel", **{"model": ["1", 0], **inputs}),
        "3": node("PreviewAny", source=["2", 1]),
    }


def calibrating(**changes: Any) -> Graph:
    """Demo model -> Quantize Model -> JAQ Calibrate -> Save Preset. Changes go to the node that has them."""
    inputs = {
        "model": ["2", 0],
        "clip": ["1", 1],
        "vae": ["1", 2],
        "latent_image": ["3", 0],
        "prompts": PROMPTS,
        "settings": ["6", 0],
        "steps": 4,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "trials": 3,
        "metric": "demo",
        "batch_size": 16,
        "negative": "",
    }
    settings = {**SETTINGS, **{name: value for name, value in changes.items() if name in SETTINGS}}
    inputs |= {name: value for name, value in changes.items() if name not in SETTINGS}
    return {
        "1": node("QSchedDemoModel"),
        "2": node(
            "QSchedQuantizeModel",
            model=["1", 0],
            format="w4a4",
            group_size="per channel",
            include="",
            exclude="",
            last_steps=0,
        ),
        "3": node("EmptySD3LatentImage", width=32, height=32, batch_size=1),
        "4": node("QSchedCalibrate", **inputs),
        "5": node("QSchedSavePreset", preset=["4", 0], name="from a test", author="", license="", notes=""),
        "6": node("QSchedCalibrationSettings", **settings),
    }
