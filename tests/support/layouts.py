"""Which of the host's native layouts a test needs: an older ComfyUI has fewer, and says so."""

from __future__ import annotations

import pytest

BITS = {"w8a8": "int8_tensorwise", "w4a4": "convrot_w4a4", "w4a8": "asym_w4a8_int8"}
"""Our format, and the host's name of its layout."""


def need_layout(form: str) -> None:
    """Skip the test unless this host has a layout for ``form``. The host must be importable (the fixture `pack`)."""
    import comfy.quant_ops

    if BITS[form] not in comfy.quant_ops.QUANT_ALGOS:
        pytest.skip(f"this ComfyUI has no {BITS[form]}")
