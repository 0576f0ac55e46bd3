"""A node for tests only: a run that stands still while a page is loaded costs the machine nothing."""

from __future__ import annotations

import time
from pathlib import Path

import comfy.model_management
import comfy.patcher_extension
import folder_paths


class TestPause:
    """The MODEL as it is; it samples nothing while there is a file ``pause`` in the host's temporary folder."""

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"model": ("MODEL",)}}

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "pause"
    CATEGORY = "tests"

    def pause(self, model) -> tuple:
        clone = model.clone()
        clone.add_wrapper(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, _wait)
        return (clone,)


def _wait(sample, *args, **kwargs):
    while (Path(folder_paths.get_temp_directory()) / "pause").exists():
        comfy.model_management.throw_exception_if_processing_interrupted()
        time.sleep(0.05)
    return sample(*args, **kwargs)


NODE_CLASS_MAPPINGS = {"TestPause": TestPause}
