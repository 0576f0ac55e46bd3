"""Scorers as the calibration node needs them: chosen by name, loaded through the host's memory manager."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import comfy.model_management
import comfy.model_patcher
import torch
from torch import nn

from ..calibration.metrics.pixels import pixel_statistics
from ..qsched_core import DependencyError
from .folders import metric_folders

DEMO = "demo"
BATCH = 32


def metric_names() -> list[str]:
    """The open_clip models in ``models/qsched_metrics`` (CLIPScore + CLIP-IQA), and the demo's own nets."""
    return [*metric_folders(), DEMO]


class Scorer:
    """TC and IQ for the search; pixel statistics, and a judge's metrics if there is one, for the verdict alone."""

    def __init__(self, name: str, scorer: nn.Module, judge: nn.Module | None):
        self.name = name
        self._scorer, self._judge = _managed(scorer), _managed(judge)

    def bind(self, prompts: Sequence[str]) -> tuple[Callable, Callable]:
        """(score, judge) as ``calibration`` calls them: (pictures, indices) → {metric: (B,)}."""

        def score(pictures: torch.Tensor, indices: Sequence[int]) -> dict:
            return _numbers(_run(self._scorer, pictures, [prompts[i % len(prompts)] for i in indices]))

        def judge(pictures: torch.Tensor, indices: Sequence[int]) -> dict:
            texts = [prompts[i % len(prompts)] for i in indices]
            own = _run(self._judge, pictures, texts) if self._judge is not None else {}
            return _numbers({**own, **pixel_statistics(pictures)})

        return score, judge


def _run(patcher, pictures: torch.Tensor, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Scores in batches, each of which a cancel can interrupt."""
    comfy.model_management.load_models_gpu([patcher])
    parts = []
    for start in range(0, len(pictures), BATCH):
        comfy.model_management.throw_exception_if_processing_interrupted()
        parts.append(patcher.model.score(pictures[start : start + BATCH], prompts[start : start + BATCH]))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _numbers(scores: dict[str, torch.Tensor]) -> dict:
    return {name: values.double().numpy() for name, values in scores.items()}


def load_scorer(name: str) -> Scorer:
    """The scorer of a name in ``metric_names()``.

    Raises:
        DependencyError: an optional package is missing.
        CalibrationError: a model's files are missing.
    """
    if name != DEMO:
        from ..calibration.metrics.clip import ClipScorer

        return Scorer(name, ClipScorer(metric_folders()[name]), None)
    from ..demo.judges import DemoJudge, DemoScorer

    try:
        return Scorer(name, DemoScorer(), DemoJudge())
    except ImportError as error:
        raise DependencyError("this metric needs open_clip.", "pip install open_clip_torch") from error


def _managed(module: nn.Module | None):
    if module is None:
        return None
    management = comfy.model_management
    return comfy.model_patcher.ModelPatcher(
        module, load_device=management.get_torch_device(), offload_device=management.unet_offload_device()
    )
