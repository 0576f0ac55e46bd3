"""The pictures that a result shows: those that the study makes on its way are not made again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...calibration.frames import stills
from ...qsched_core import Coefficients
from .generator import HostGenerator


class GalleryPictures:
    """A generator that remembers its pictures of a few ``indices``; of videos the frame in the middle."""

    def __init__(self, generator: HostGenerator, indices: Sequence[int]):
        self.generator, self.indices = generator, tuple(indices)
        self._pictures: dict[tuple[Coefficients, int], Tensor] = {}

    def __call__(self, coefficients: Coefficients, indices: Sequence[int]) -> Tensor:
        """As the generator makes them."""
        pictures = self.generator(coefficients, indices)
        for place, index in enumerate(indices):
            if index in self.indices:
                # A copy: a view would hold the whole batch in memory.
                self._pictures[coefficients, index] = stills(pictures[place : place + 1])[0].clone()
        return pictures

    def row(self, coefficients: Coefficients) -> Tensor:
        """(B, H, W, 3), of all ``indices``. A study that only reads its journal has made none of them."""
        if missing := [index for index in self.indices if (coefficients, index) not in self._pictures]:
            self(coefficients, missing)
        return torch.stack([self._pictures[coefficients, index] for index in self.indices])
