"""Where the demo's weights lie, and reading them."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

WEIGHTS = Path(__file__).parent / "weights"

MODEL = WEIGHTS / "qsched_demo_flux.safetensors"
VAE = WEIGHTS / "qsched_demo_taesd.safetensors"
TEXT = WEIGHTS / "qsched_demo_text.safetensors"
QUALITY = WEIGHTS / "qsched_demo_quality.safetensors"
ATTRIBUTES = WEIGHTS / "qsched_demo_attributes.safetensors"
DUAL_ENCODER = WEIGHTS / "dual_encoder"
FIGURES = WEIGHTS / "figures.json"
DRAWINGS = WEIGHTS / "drawings.png"
DRAWINGS_LIST = WEIGHTS / "drawings.json"
LOG = WEIGHTS / "training_log.jsonl"
PROMPTS = Path(__file__).parent / "prompts.txt"


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file in float32; other types as they are.

    Raises:
        FileNotFoundError: the file is not part of this installation.
    """
    if not path.exists():
        raise FileNotFoundError(f"Q-Sched: {path.name} is missing. Fix: install the pack again, with demo/weights")
    return {name: value.float() if value.is_floating_point() else value for name, value in load_file(path).items()}
