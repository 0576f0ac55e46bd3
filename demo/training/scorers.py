"""The three judges: a picture–text encoder (TC), a quality net (IQ), and an attribute net that no search sees."""

from __future__ import annotations

import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from ..networks import DUAL_ENCODER_CONFIG, AttributeNet, QualityNet
from ..scenes import ATTRIBUTES, CARDINALITY, caption_of, draw, relevant_attributes, sample_scenes
from ..vocabulary import compact_ids
from .loop import Schedule, Workshop, half_precision, train

MILD_DAMAGE = 0.35
"""Damage up to here leaves a picture readable: the readers of pictures learn on it too."""


SWAPPED = -1
"""In the place of a field: the two things change places."""


def _readable(bank: dict[str, Tensor], count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows and pictures: half freshly drawn with a little noise, half decoded with mild damage."""
    half = count // 2
    rows = sample_scenes(half, generator)
    pictures = draw(rows, generator)
    pictures = (pictures + 0.05 * torch.randn(pictures.shape, generator=generator)).clamp(0, 1)
    mild = torch.nonzero(bank["severity"] < MILD_DAMAGE).squeeze(1)
    damaged_ones = mild[torch.randint(len(mild), (count - half,), generator=generator)]
    return torch.cat([rows, bank["rows"][damaged_ones]]), torch.cat([pictures, bank["pictures"][damaged_ones]])


def train_attribute_net(shop: Workshop, bank: dict[str, Tensor], schedule: Schedule) -> AttributeNet:
    torch.manual_seed(31)
    net = AttributeNet()

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows, pictures = _readable(bank, 64, generator)
        relevant = relevant_attributes(rows)
        total = torch.zeros(())
        right = torch.ones(len(rows), dtype=torch.bool)
        with half_precision():
            heads = net(pictures)
        for i, logits in enumerate(heads):
            total = total + (F.cross_entropy(logits.float(), rows[:, i], reduction="none") * relevant[:, i]).mean()
            right &= (logits.argmax(1) == rows[:, i]) | ~relevant[:, i]
        return total, {"all_right": right.float().mean().item()}

    train(shop, "attributes", net, schedule, loss)
    return net


def train_quality_net(shop: Workshop, bank: dict[str, Tensor], schedule: Schedule) -> QualityNet:
    torch.manual_seed(37)
    net = QualityNet()

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        indices = torch.randint(len(bank["pictures"]), (32,), generator=generator)
        pictures = draw(sample_scenes(16, generator), generator)
        severity = torch.rand(16, generator=generator)
        severity[:4] = 0
        pictures = _spoil(pictures, severity, generator)
        target = 1 - torch.cat([bank["severity"][indices], severity])
        with half_precision():
            quality = net(torch.cat([bank["pictures"][indices], pictures]))
        error = quality.float() - target
        return error.square().mean(), {"error": error.detach().abs().mean().item()}

    train(shop, "quality", net, schedule, loss)
    return net


def _spoil(pictures: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Pixel damage: noise or blur."""
    amount = severity.view(-1, 1, 1, 1)
    noisy = pictures + 0.2 * amount * torch.randn(pictures.shape, generator=generator)
    smooth = torch.lerp(pictures, F.avg_pool2d(pictures, 7, stride=1, padding=3, count_include_pad=False), amount)
    kind = torch.randint(2, (len(pictures), 1, 1, 1), generator=generator)
    return torch.where(kind == 0, noisy, smooth).clamp(0, 1)


def train_dual_encoder(shop: Workshop, bank: dict[str, Tensor], schedule: Schedule) -> open_clip.CLIP:
    torch.manual_seed(41)
    net = open_clip.CLIP(**DUAL_ENCODER_CONFIG)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows, pictures = _readable(bank, 96, generator)
        captions = [caption_of(row) for row in torch.cat([rows, _one_attribute_wrong(rows, generator)])]
        with half_precision():
            image = net.encode_image(pictures * 2 - 1, normalize=True).float()
            text = net.encode_text(compact_ids(captions), normalize=True).float()
        similarity = net.logit_scale.exp().clamp(max=50) * image @ text.T
        same = torch.tensor([[a == b for b in captions] for a in captions[: len(rows)]])
        own = torch.eye(len(rows), 2 * len(rows), dtype=torch.bool)
        similarity = similarity.masked_fill(same & ~own, float("-inf"))
        target = torch.arange(len(rows))
        share = (similarity.argmax(1) == target).float().mean().item()
        to_text = F.cross_entropy(similarity, target)
        to_image = F.cross_entropy(similarity[:, : len(rows)].T, target)
        return (to_text + to_image) / 2, {"found": share}

    train(shop, "dual", net, schedule, loss)
    return net


def _one_attribute_wrong(rows: Tensor, generator: torch.Generator) -> Tensor:
    """The hardest wrong captions: one thing, size or background changed, or the two things swapped."""
    changes = rows.clone()
    for row in changes:
        single = row[0] == 0
        fields = [1, 2, 5] if single else [1, 2, 3, 4, 5, SWAPPED]
        field = fields[int(torch.randint(len(fields), (1,), generator=generator))]
        if field == SWAPPED:
            row[1:5] = row[1:5].roll(2)
        else:
            shift = 1 + int(torch.randint(CARDINALITY[field] - 1, (1,), generator=generator))
            row[field] = (row[field] + shift) % CARDINALITY[field]
    return changes


@torch.no_grad()
def attribute_scores(net: AttributeNet, pictures: Tensor, rows: Tensor) -> tuple[float, float]:
    """Mean attribute accuracy and the share of pictures with all attributes right, both in [0, 1]."""
    relevant = relevant_attributes(rows)
    right = net.read(pictures) == rows[:, : len(ATTRIBUTES)]
    accuracy = (right & relevant).sum(1) / relevant.sum(1)
    return accuracy.mean().item(), (right | ~relevant).all(1).float().mean().item()
