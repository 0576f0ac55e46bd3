"""Presets that people share, and what the page says of its graph."""

from __future__ import annotations

import base64
import io

from PIL import Image

import qsched_core as qs

HTML = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
GAIN = {"gain": 0.02, "low": 0.01, "high": 0.03}

QUANTIZER = ("format", "group_size", "recipe", "scales")
DEMO = [("QSchedDemoModel", "")]
SAME_LABEL = "w4a8 64 compact symmetric"
FOUR = {"steps": 4, "sampler": "euler", "scheduler": "simple", "cfg": 1}
BOUND = {
    "model": "FluxSchnell",
    "quantization": "w4a8/g64",
    "sampler": "euler",
    "scheduler": "simple",
    "cfg": 1.0,
}


def preset(record=None, card=None, verdict: str = "made by hand", **binding) -> qs.Preset:
    coefficients = qs.Coefficients.ramp(4, c_x=(1.02, 0.98))
    return qs.Preset(
        coefficients, (1.0, 0.75, 0.5, 0.25, 0.0), qs.Binding(**binding), verdict, record or {}, card or {}
    )


def picture_uri(kind: str, size: tuple[int, int] = (300, 100)) -> str:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def told(models=(), quantizers=(), samplers=()) -> dict:
    """Each quantiser's values in the order of QUANTIZER; what is left out is not known."""
    return {
        "models": [{"loader": loader, "file": file} for loader, file in models],
        "quantizers": [dict(zip(QUANTIZER, item.split(), strict=False)) for item in quantizers],
        "samplers": list(samplers),
    }
