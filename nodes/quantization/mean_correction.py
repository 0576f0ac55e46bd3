"""The means of a packed MODEL's layers, corrected by calls of the full one that an observation holds."""

from __future__ import annotations

from collections.abc import Callable, Collection

import comfy.model_management

from ...qsched_core.quant import Correction, Observation, add_to_biases, mean_correction
from .patcher import key_of, network_of


def correct_means(
    patcher, names: Collection[str], observation: Observation, on_call: Callable[[], None] = lambda: None
) -> Correction:
    """Load a packed MODEL as it will run, its LoRAs on it, repeat calls of the full one, and write what was learned
    into the biases of the layers ``names``. ``on_call()`` may raise to cancel: then nothing is written."""
    root = network_of(patcher.model)
    if observation.calls is not None:
        comfy.model_management.load_models_gpu([patcher])
    correction = mean_correction(root, names, observation.calls, on_call)
    add_to_biases(root, correction.values)
    for name, value in correction.values.items():
        # What a LoRA has patched in place is put back from here when the model is unloaded.
        backup = patcher.backup.get(key_of(patcher.model, f"{name}.bias"))
        if backup is not None:
            backup.weight.add_(value.to(backup.weight))
    return correction
