"""Scorers as the calibration node needs them: chosen by name, loaded through the host's memory manager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.model_patcher
import torch
from torch import nn

from ...calibration.frames import over_frames
from ...calibration.indices import prompt_of
from ...calibration.metrics.base import Metric, Pair, too_long
from ...calibration.metrics.clip import ClipScorer
from ...calibration.metrics.embeddings import CosineScore
from ...calibration.metrics.picture_set import PictureSet, ReferenceSet, set_distance
from ...calibration.metrics.pixels import pixel_statistics
from ...calibration.metrics.reference import DISTANCE
from ...calibration.prompt_syntax import plain_text
from ...qsched_core import CalibrationError, DependencyError, QSchedError
from ..host.folders import metric_folders, metric_roots, shown_folder
from ..host.memory import Batches
from .metric_menu import DEMO, NEAR, metric_entries, paper_sdxl

if TYPE_CHECKING:  # with the verdict: not at ComfyUI's start
    from ...calibration.reference_pictures import ReferencePictures

SCORE_BATCH = 32
"""Pictures scored at once; halved where they do not fit into memory."""


class Scorer:
    """TC and IQ for the search; for the verdict alone pixel statistics, the distance to the reference's pictures where
    there are some, and the judge's metrics if there is one.

    ``scorer`` has ``score(pictures, prompts) -> {"tc", "iq"}`` and ``judge`` one that gives any names;
    ``reference_set`` is a set of pictures to which the distance is shown.
    """

    reads_prompts = True
    needs_reference = False

    def __init__(
        self,
        name: str,
        scorer: nn.Module,
        judge: nn.Module | None = None,
        note: str = "",
        reference_set: ReferenceSet | None = None,
    ):
        self.name, self.note, self.reference_set = name, note, reference_set
        self._scorer, self._judge = _managed(scorer), _managed(judge)
        self._batches = Batches(SCORE_BATCH)

    def bind(self, prompts: Sequence[str], reference: ReferencePictures | None = None) -> tuple[Callable, Callable]:
        """(score, judge) as ``calibration`` calls them: (pictures, indices) -> {metric: (B,)}."""
        texts = [plain_text(prompt) for prompt in prompts]

        def score(pictures: torch.Tensor, indices: Sequence[int]) -> dict:
            return _numbers(self._run(self._scorer, pictures, [texts[prompt_of(i, len(texts))] for i in indices]))

        def judge(pictures: torch.Tensor, indices: Sequence[int]) -> dict:
            picture_texts = [texts[prompt_of(i, len(texts))] for i in indices]
            own = self._run(self._judge, pictures, picture_texts) if self._judge is not None else {}
            if self.reference_set is not None:
                own |= self._set_row(pictures)
            far = {} if reference is None else {DISTANCE: reference.distance(pictures, indices)}
            return {**_numbers({**own, **over_frames(pixel_statistics, pictures)}), **far}

        return score, judge

    @property
    def set_pictures(self) -> list[torch.Tensor]:
        """Of the set that the user gave: they decide figures of the verdict."""
        return [self.reference_set.pictures] if isinstance(self.reference_set, PictureSet) else []

    def reading(self, prompts: Sequence[str]) -> list[str]:
        """What a reader of the report must know of how the prompts are read; most often nothing."""
        texts = [plain_text(prompt) for prompt in prompts]
        plain = sum(text != prompt for text, prompt in zip(texts, prompts, strict=True))
        cut = too_long(self._scorer.model, texts)
        lines = {
            f"{plain} of {len(texts)} prompts were scored without their weights, embeddings and tags.": plain,
            f"{cut} of {len(texts)} prompts are longer than the metric reads: it scored their beginnings.": cut,
        }
        return [line for line, count in lines.items() if count]

    def release(self) -> None:
        """Gives the device's memory back at once; scorers that are asked again are loaded again."""
        unload = getattr(comfy.model_management, "unload_model_and_clones", None)
        for patcher in filter(None, (self._scorer, self._judge)):
            if unload is not None:
                unload(patcher)

    def _set_row(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        # A user's set is seen by a metric of the scorer, the demo's by its judge.
        patcher = self._scorer if isinstance(self.reference_set, PictureSet) else self._judge
        comfy.model_management.load_models_gpu([patcher])
        own_features = self.reference_set.own_features()

        def row(pictures: torch.Tensor) -> dict[str, torch.Tensor]:
            parts = self._batches.run(
                lambda start, end: self.reference_set.features(pictures[start:end]), len(pictures)
            )
            return {self.reference_set.name: set_distance(torch.cat(parts), own_features)}

        return over_frames(row, pictures)

    def _run(self, patcher, pictures: torch.Tensor, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        comfy.model_management.load_models_gpu([patcher])
        frames = 1 if pictures.ndim == 4 else pictures.shape[1]
        texts = [prompt for prompt in prompts for _ in range(frames)]

        def all_frames(pictures: torch.Tensor) -> dict[str, torch.Tensor]:
            parts = self._batches.run(
                lambda start, end: patcher.model.score(pictures[start:end], texts[start:end]), len(pictures)
            )
            return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

        return over_frames(all_frames, pictures)


class NearScorer:
    """A full-reference score: how near pictures are to those that the reference makes of the same inputs. For models
    that have one right answer: upscaling and restoration. ``DISTANCE`` with the sign turned stands for TC and for IQ.
    """

    name, note = NEAR, ""
    reads_prompts = False
    needs_reference = True
    set_pictures: Sequence[torch.Tensor] = ()

    def bind(self, prompts: Sequence[str], reference: ReferencePictures) -> tuple[Callable, Callable]:
        """(score, judge) as ``Scorer.bind`` gives them."""

        def score(pictures: torch.Tensor, indices: Sequence[int]) -> dict:
            near = -reference.distance(pictures, indices)
            return {"tc": near, "iq": near}

        def judge(pictures: torch.Tensor, indices: Sequence[int]) -> dict:
            statistics = _numbers(over_frames(pixel_statistics, pictures))
            return {**statistics, DISTANCE: reference.distance(pictures, indices)}

        return score, judge

    def reading(self, prompts: Sequence[str]) -> list[str]:
        return []

    def release(self) -> None:
        """There is nothing to give back."""


class WatchMetrics(nn.Module):
    """Metrics that are shown beside those that are optimised."""

    def __init__(self, metrics: Sequence[Metric]):
        super().__init__()
        self.metrics = nn.ModuleList(metrics)

    def score(self, pictures: torch.Tensor, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        return {metric.name: metric.score(pictures, prompts) for metric in self.metrics}


class SecondPair(nn.Module):
    """TC and IQ of another model than the search's, under its name."""

    def __init__(self, name: str, pair: Pair):
        super().__init__()
        self.name, self.pair = name, pair

    def score(self, pictures: torch.Tensor, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        return {f"{role} of {self.name}": values for role, values in self.pair.score(pictures, prompts).items()}


def second_pair(name: str) -> SecondPair | None:
    """Of the first other open_clip model in the metrics folder: what games one model seldom games another.

    None where there is no other, or none that can be read: nobody asked for it.
    """
    for other, folder in metric_folders().items():
        if other != name:
            with suppress(QSchedError):
                return SecondPair(other, ClipScorer(folder))
    return None


def load_scorer(name: str) -> Scorer | NearScorer:
    """The scorer of a name in ``metric_names()``, watched by a second pair where its weights are there.

    The demo has a judge of its own, and the pair for SDXL and FLUX is two models already: *JAQ Metric* adds to it.

    Raises:
        DependencyError: an optional package is missing.
        CalibrationError: a model's files are missing.
    """
    if name == NEAR:
        return NearScorer()
    if name == DEMO:
        return _demo_scorer()
    if name in (ready := paper_sdxl()):
        return make_scorer(*ready[name], "none")
    pair, second = ClipScorer(metric_folders()[name]), second_pair(name)
    watched = (second.pair.tc,) if second is not None else ()
    return Scorer(name, pair, second, _note(pair.tc, pair.iq, *watched))


def make_scorer(tc: str, iq: str, watch: str, clip=None, clip_vision=None, picture_set=None) -> Scorer:
    """Any TC with any IQ. A loaded CLIP with its CLIP_VISION takes the place of the TC named. ``picture_set``: an IMAGE
    batch, to which the distance is shown; None where there is none.

    Raises:
        DependencyError: an optional package is missing.
        CalibrationError: a metric that is not there, one of two halves, or a set that cannot be used.
    """
    if (clip is None) != (clip_vision is None):
        missing = "CLIP_VISION" if clip_vision is None else "CLIP"
        raise CalibrationError(
            f"a score of loaded encoders lacks the {missing}.", "plug in both halves of one CLIP model"
        )
    if DEMO in (tc, iq) and clip is None:
        if tc != iq:
            raise CalibrationError("the demo's TC and IQ belong together.", "choose demo for both, or for none")
        if picture_set is not None:
            raise CalibrationError("the demo's metric has a set of its own, the drawn one.", "unplug picture_set")
        return _demo_scorer()
    image = _loaded("iq", iq)
    text = _loaded("tc", tc) if clip is None else CosineScore(*host_encoders(clip, clip_vision))
    metrics = [text, image, *([] if watch == "none" else [_loaded("watch", watch)])]
    name = " + ".join(metric.name for metric in metrics[:2])
    judge, note, reference_set = WatchMetrics(metrics[2:]) if metrics[2:] else None, _note(*metrics), None
    if picture_set is not None:
        reference_set = PictureSet(metrics[:2], picture_set)
        note += f"; set of {len(picture_set)} pictures, seen by {reference_set.metric_name}"
    return Scorer(name, Pair(text, image), judge, note, reference_set)


def host_encoders(clip, clip_vision) -> tuple[Callable, Callable, Callable]:
    """(encode_image, encode_text, too_long) of the host's own objects, which its memory manager already knows."""

    def encode_image(pictures: torch.Tensor) -> torch.Tensor:
        return clip_vision.encode_image(pictures)["image_embeds"]

    def too_long(text: str) -> bool:
        # The host reads a long text in chunks; the one vector that a score takes is of the first.
        return any(len(chunks) > 1 for chunks in clip.tokenize(text).values())

    def encode_text(prompts: Sequence[str]) -> torch.Tensor:
        pooled = [clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)[1] for text in prompts]
        return torch.cat([vector.reshape(1, -1) for vector in pooled])

    return encode_image, encode_text, too_long


def _loaded(role: str, name: str) -> Metric:
    entries = metric_entries(role)
    if name not in entries:
        raise CalibrationError(
            f"there is no {role} metric {name[:50]!r}.", f"put its files into {shown_folder(metric_roots()[0])}"
        )
    return entries[name].load()


def _note(*metrics: Metric) -> str:
    return "; ".join(f"{m.name}: licence {m.license}, {m.bytes / 1e6:.0f} MB" for m in metrics)


def _demo_scorer() -> Scorer:
    from ...demo.judges import DemoJudge, DemoScorer, DrawnSet

    try:
        judge = DemoJudge()
        return Scorer(DEMO, DemoScorer(), judge, reference_set=DrawnSet(judge))
    except ImportError as error:
        raise DependencyError("this metric needs open_clip.", "pip install open_clip_torch") from error


def _numbers(scores: dict[str, torch.Tensor]) -> dict:
    return {name: values.double().numpy() for name, values in scores.items()}


def _managed(module: nn.Module | None):
    if module is None:
        return None
    management = comfy.model_management
    return comfy.model_patcher.ModelPatcher(
        module, load_device=management.get_torch_device(), offload_device=management.unet_offload_device()
    )
