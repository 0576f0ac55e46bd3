"""What every metric is: a named score of pictures, higher is better; and a pair of them, as JAQ takes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core import CalibrationError

TC, IQ, WATCH = "tc", "iq", "watch"
"""Text–image compatibility and image quality are optimised; a metric that is only watched is not."""


class Metric(nn.Module):
    """One score per picture. Higher is better, nothing is downloaded, and the work is done where the parameters are.

    ``role`` is "tc", "iq" or "watch"; ``license`` is that of the weights, "unknown" where they are the user's own.
    A subclass implements ``measure``.
    """

    name: str = ""
    role: str = WATCH
    license: str = "unknown"

    @property
    def bytes(self) -> int:
        """Size of the parameters and buffers."""
        return sum(t.numel() * t.element_size() for t in (*self.parameters(), *self.buffers()))

    @torch.no_grad()
    def score(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores (B,), float32 and on the CPU, of pictures (B, H, W, 3) in [0, 1] and their prompts.

        Raises:
            CalibrationError: pictures of another shape, or another number of prompts.
        """
        return self.measure(_checked(pictures, prompts, self), prompts).float().cpu()

    def measure(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        """As ``score``, of pictures that are checked, float32 and on the metric's device."""
        raise NotImplementedError

    embeds = False
    """Whether ``embed`` is there."""

    def embed(self, pictures: Tensor) -> Tensor:
        """Features (B, D) of length 1 of pictures (B, H, W, 3) in [0, 1]."""
        raise NotImplementedError

    def is_too_long(self, prompt: str) -> bool:
        """Whether the metric reads a prompt's beginning alone."""
        return False


def too_long(scorer: nn.Module, prompts: Sequence[str]) -> int:
    """Prompts that a metric in ``scorer`` reads the beginning of alone."""
    metrics = [module for module in scorer.modules() if hasattr(module, "is_too_long")]
    return sum(any(metric.is_too_long(prompt) for metric in metrics) for prompt in prompts)


class FeatureMetric(Metric):
    """A metric that asks no more of a picture than its features in an image–text network (see ``OpenClip``)."""

    fit: str | None = None
    """How pictures are brought to the network's size; None: the network's own way."""

    reads_prompts = True
    embeds = True

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def embed(self, pictures: Tensor) -> Tensor:
        return self.features(_checked(pictures, [""] * len(pictures), self))

    def features(self, pictures: Tensor) -> Tensor:
        return self.network.encode_image(pictures, self.fit)

    def judge(self, image: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores (B,) of picture features (B, D) of length 1."""
        raise NotImplementedError

    def is_too_long(self, prompt: str) -> bool:
        return self.reads_prompts and self.network.exceeds_context(prompt)

    def measure(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.judge(self.features(pictures), prompts)


class Pair(nn.Module):
    """TC and IQ of one search. Where both read the same features of the same network, pictures go through it once."""

    def __init__(self, tc: Metric, iq: Metric):
        super().__init__()
        self.tc, self.iq = tc, iq

    @torch.no_grad()
    def score(self, pictures: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """{"tc", "iq"}, (B,) each, of pictures (B, H, W, 3) in [0, 1] and their prompts.

        Raises:
            CalibrationError: pictures of another shape, or another number of prompts.
        """
        if not _same_features(self.tc, self.iq):
            return {TC: self.tc.score(pictures, prompts), IQ: self.iq.score(pictures, prompts)}
        image = self.tc.features(_checked(pictures, prompts, self.tc))
        return {role: metric.judge(image, prompts).float().cpu() for role, metric in ((TC, self.tc), (IQ, self.iq))}


def _same_features(one: Metric, other: Metric) -> bool:
    both = isinstance(one, FeatureMetric) and isinstance(other, FeatureMetric)
    return both and one.network is other.network and one.fit == other.fit


def _checked(pictures: Tensor, prompts: Sequence[str], metric: nn.Module) -> Tensor:
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or 0 in pictures.shape:
        shape = tuple(pictures.shape)
        raise CalibrationError(f"pictures of shape {shape} cannot be scored.", "give (B, H, W, 3)", shape=shape)
    if isinstance(prompts, str) or len(prompts) != len(pictures):
        count = 1 if isinstance(prompts, str) else len(prompts)
        raise CalibrationError(
            f"{len(pictures)} pictures came with {count} prompts.", "give a list, one prompt for each picture"
        )
    weight = next(metric.parameters(), pictures)
    return pictures.to(weight.device, torch.float32)
